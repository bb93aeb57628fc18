"""Where torchvision looks for its datasets, and which splits they have. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from workloads.config.errors import did_you_mean
from workloads.data.errors import DataError
from workloads.data.files import local_folder


@dataclass(frozen=True)
class Layout:
    """What torchvision wants below `root`.

    Attributes:
        needs: Files and folders of every split, relative to `root`.
        usual: The splits to train and to validate on; None where it has none.
        splits: All that hold labelled images, each with what it needs besides.
        images: How its class tells of images: through the `loader` it is given, in an array
            `data`, or in a list of paths.
    """

    needs: tuple[str, ...]
    usual: tuple[str, str] | None
    splits: dict[str, tuple[str, ...]]
    images: str = "loader"


def _text_files(folder: str, pattern: str, *splits: str) -> dict[str, tuple[str, ...]]:
    return {split: (f"{folder}/{pattern.format(split)}",) for split in splits}


_TRAIN_TEST = ("train", "test")
_AIRCRAFT = "fgvc-aircraft-2013b/data"
_CARS = "stanford_cars"
_FLOWERS = "flowers-102"
_PET = "oxford-iiit-pet"
_SIGNS = "gtsrb"

LAYOUTS = {
    "Caltech101": Layout(("caltech101/101_ObjectCategories",), None, {}, "list"),
    "Country211": Layout(
        ("country211",), _TRAIN_TEST, _text_files("country211", "{}", "train", "valid", "test")
    ),
    "DTD": Layout(
        ("dtd/dtd", "dtd/dtd/images"),
        _TRAIN_TEST,
        _text_files("dtd/dtd/labels", "{}1.txt", "train", "val", "test"),
    ),
    "EuroSAT": Layout(("eurosat/2750",), None, {}),
    "FGVCAircraft": Layout(
        ("fgvc-aircraft-2013b", f"{_AIRCRAFT}/images", f"{_AIRCRAFT}/variants.txt"),
        ("trainval", "test"),
        _text_files(_AIRCRAFT, "images_variant_{}.txt", "train", "val", "trainval", "test"),
    ),
    "Flowers102": Layout(
        (_FLOWERS, f"{_FLOWERS}/jpg", f"{_FLOWERS}/imagelabels.mat", f"{_FLOWERS}/setid.mat"),
        _TRAIN_TEST,
        {"train": (), "val": (), "test": ()},
    ),
    "Food101": Layout(
        ("food-101", "food-101/images"),
        _TRAIN_TEST,
        _text_files("food-101/meta", "{}.json", "train", "test"),
    ),
    "GTSRB": Layout(
        (_SIGNS,),
        _TRAIN_TEST,
        {
            "train": (f"{_SIGNS}/GTSRB/Training",),
            "test": (f"{_SIGNS}/GTSRB/Final_Test/Images", f"{_SIGNS}/GT-final_test.csv"),
        },
        "list",
    ),
    "Imagenette": Layout(
        ("imagenette2",), ("train", "val"), _text_files("imagenette2", "{}", "train", "val")
    ),
    "OxfordIIITPet": Layout(
        (_PET, f"{_PET}/images"),
        ("trainval", "test"),
        _text_files(f"{_PET}/annotations", "{}.txt", "trainval", "test"),
        "list",
    ),
    "STL10": Layout(
        # torchvision wants the images without labels, too.
        ("stl10_binary", "stl10_binary/class_names.txt", "stl10_binary/unlabeled_X.bin"),
        _TRAIN_TEST,
        {
            split: (f"stl10_binary/{split}_X.bin", f"stl10_binary/{split}_y.bin")
            for split in _TRAIN_TEST
        },
        "data",
    ),
    "StanfordCars": Layout(
        (_CARS, f"{_CARS}/devkit/cars_meta.mat"),
        _TRAIN_TEST,
        {
            "train": (f"{_CARS}/cars_train", f"{_CARS}/devkit/cars_train_annos.mat"),
            "test": (f"{_CARS}/cars_test", f"{_CARS}/cars_test_annos_withlabels.mat"),
        },
    ),
    "SVHN": Layout(
        (),
        _TRAIN_TEST,
        {split: (f"{split}_32x32.mat",) for split in ("train", "test", "extra")},
        "data",
    ),
}


def find_set(
    path: str, dataset: str, train_split: str | None, val_split: str | None
) -> tuple[Path, tuple[str, str] | None]:
    """Return what torchvision calls `root`, and the splits to train and to validate on.

    Returns:
        None for the splits of a set that has none.

    Raises:
        DataError: A split that the set has not, or something of it is missing.
        OSError: The storage failed.
    """
    layout = LAYOUTS[dataset]
    root = local_folder(path, "data.path is what torchvision calls root; nothing is downloaded")
    if layout.usual is None:
        if train_split or val_split:
            raise DataError(
                f"{dataset} has no splits in torchvision",
                "leave train_split and val_split out; data.val_fraction divides it",
            )
        _refuse_missing(root, dataset, layout.needs)
        return root, None
    splits = (train_split or layout.usual[0], val_split or layout.usual[1])
    for key, split in zip(("train_split", "val_split"), splits, strict=True):
        if split not in layout.splits:
            known = f"allowed: {', '.join(layout.splits)}"
            close = did_you_mean(split, layout.splits)
            raise DataError(
                f"data.{key}: {dataset} has no split {split!r} with labels",
                "; ".join(filter(None, (close, known))),
            )
    needed = [*layout.needs, *(name for split in splits for name in layout.splits[split])]
    _refuse_missing(root, dataset, needed)
    return root, splits


def _refuse_missing(root: Path, dataset: str, needed: list[str] | tuple[str, ...]) -> None:
    missing = [name for name in needed if not (root / name).exists()]
    if missing:
        raise DataError(
            f"{root} has no {missing[0]}, where torchvision looks for {dataset}",
            f"data.path is the folder above {needed[0].partition('/')[0]}, as the archive unpacks; "
            "nothing is downloaded",
        )
