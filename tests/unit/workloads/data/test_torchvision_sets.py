"""torchvision's datasets in folders laid out as their archives unpack."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from workloads.config.data import TORCHVISION_DATASETS
from workloads.data.errors import DataError
from workloads.data.torchvision_layouts import LAYOUTS
from workloads.data.torchvision_sets import build_torchvision


def save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 16, 3), value, dtype=np.uint8)).save(path)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    for number in range(6):
        save(data / "images" / f"{number}.jpg", 20 * number)
    write(data / "variants.txt", "707-320", "A340-500")
    write(data / "images_variant_trainval.txt", *(f"{n} A340-500" for n in range(4)))
    write(data / "images_variant_test.txt", "4 707-320", "5 A340-500")


def cars(root: Path) -> None:
    base = root / "stanford_cars"
    for split in ("train", "test"):
        annotations = np.zeros(3, dtype=[("fname", "O"), ("class", "O")])
        for number in range(3):
            save(base / f"cars_{split}" / f"{number}.jpg", 30 * number)
            annotations[number] = (f"{number}.jpg", number % 2 + 1)
        folder = base / "devkit" if split == "train" else base
        folder.mkdir(exist_ok=True)
        ending = "" if split == "train" else "_withlabels"
        savemat(folder / f"cars_{split}_annos{ending}.mat", {"annotations": annotations})
    names = np.array(["Acura RL", "BMW M3"], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for name, value in (("Abyssinian_1", 40), ("Abyssinian_2", 80), ("beagle_1", 120)):
        save(base / "images" / f"{name}.jpg", value)
    lines = ("Abyssinian_1 1 1 1", "beagle_1 2 2 1")
    write(base / "annotations" / "trainval.txt", *lines)
    write(base / "annotations" / "test.txt", "Abyssinian_2 1 1 1", "beagle_1 2 2 1")


def eurosat(root: Path) -> None:
    for label in ("Forest", "River"):
        for number in range(10):
            save(root / "eurosat" / "2750" / label / f"{label}_{number}.jpg", 10 * number)


def caltech(root: Path) -> None:
    for label in ("BACKGROUND_Google", "ant", "bass"):
        for number in range(1, 6):
            folder = root / "caltech101" / "101_ObjectCategories" / label
            save(folder / f"image_{number:04d}.jpg", 10 * number)


def signs(root: Path) -> None:
    for label in range(43):
        for part in ("Training",):
            save(root / "gtsrb" / "GTSRB" / part / f"{label:05d}" / "0.ppm", label)
    save(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / "0.ppm", 7)
    write(root / "gtsrb" / "GT-final_test.csv", "Filename;ClassId", "0.ppm;7")


def test_every_dataset_of_the_config_is_known() -> None:
    assert set(LAYOUTS) == set(TORCHVISION_DATASETS)


def test_aircraft(tmp_path: Path) -> None:
    aircraft(tmp_path)
    source = build_torchvision(path=str(tmp_path), dataset="FGVCAircraft")
    assert source.classes == ["707-320", "A340-500"]
    assert source.train.labels.tolist() == [1, 1, 1, 1]
    assert source.val.labels.tolist() == [0, 1]
    assert source.val.names[0] == "fgvc-aircraft-2013b/data/images/4.jpg"
    assert int(source.val.load(0).float().mean()) == 80
    assert source.val.load(0).shape == (12, 16, 3)


def test_another_split_where_asked(tmp_path: Path) -> None:
    aircraft(tmp_path)
    usual = build_torchvision(path=str(tmp_path), dataset="FGVCAircraft")
    source = build_torchvision(
        path=str(tmp_path), dataset="FGVCAircraft", train_split="test", val_split="test"
    )
    assert source.train.labels.tolist() == [0, 1]
    assert source.digest != usual.digest
    with pytest.raises(DataError, match=r"val_split: FGVCAircraft has no split 'dev'") as error:
        build_torchvision(path=str(tmp_path), dataset="FGVCAircraft", val_split="dev")
    assert "trainval" in str(error.value)


def test_cars(tmp_path: Path) -> None:
    cars(tmp_path)
    source = build_torchvision(path=str(tmp_path), dataset="StanfordCars")
    assert source.classes == ["Acura RL", "BMW M3"]
    assert source.train.labels.tolist() == [0, 1, 0]
    assert int(source.val.load(2).float().mean()) == 60


def test_pets(tmp_path: Path) -> None:
    pets(tmp_path)
    source = build_torchvision(path=str(tmp_path), dataset="OxfordIIITPet")
    assert source.classes == ["Abyssinian", "Beagle"]
    assert source.train.labels.tolist() == [0, 1]
    assert int(source.val.load(0).float().mean()) == 80


@pytest.mark.parametrize(
    ("lay", "dataset", "per_class"), [(eurosat, "EuroSAT", 10), (caltech, "Caltech101", 5)]
)
def test_sets_without_splits_are_divided_by_class(
    lay: object, dataset: str, per_class: int, tmp_path: Path
) -> None:
    lay(tmp_path)  # type: ignore[operator]
    source = build_torchvision(path=str(tmp_path), dataset=dataset, val_fraction=0.4)
    assert len(source.classes) == 2
    assert source.val.labels.bincount().tolist() == [0.4 * per_class] * 2
    assert source.train.labels.bincount().tolist() == [0.6 * per_class] * 2
    assert not set(source.train.names) & set(source.val.names)
    again = build_torchvision(path=str(tmp_path), dataset=dataset, val_fraction=0.4)
    assert list(again.val.names) == list(source.val.names)
    assert source.val.load(0).shape == (12, 16, 3)
    with pytest.raises(DataError, match="has no splits in torchvision"):
        build_torchvision(path=str(tmp_path), dataset=dataset, val_split="test")


def test_signs(tmp_path: Path) -> None:
    signs(tmp_path)
    source = build_torchvision(path=str(tmp_path), dataset="GTSRB")
    assert len(source.classes) == 43
    assert sorted(source.train.labels.tolist()) == list(range(43))
    assert source.val.labels.tolist() == [7]
    assert int(source.val.load(0)[0, 0, 0]) == 7


def test_arrays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    for split in ("train", "test"):
        labels = np.array([[1], [10], [3], [9]], dtype=np.uint8)
        savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": labels})
    source = build_torchvision(path=str(tmp_path), dataset="SVHN")
    assert source.train.labels.tolist() == [1, 0, 3, 9]
    assert torch.equal(source.val.load(2), torch.from_numpy(pixels[..., 2]))
    assert source.classes == list("0123456789")


@pytest.mark.parametrize("dataset", TORCHVISION_DATASETS)
def test_what_torchvision_expected_is_said(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"torchvision looks for {dataset}") as error:
        build_torchvision(path=str(tmp_path), dataset=dataset)
    assert "nothing is downloaded" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_half_a_set_is_refused(tmp_path: Path) -> None:
    aircraft(tmp_path)
    (tmp_path / "fgvc-aircraft-2013b" / "data" / "images" / "5.jpg").unlink()
    with pytest.raises(DataError, match=r"torchvision cannot read FGVCAircraft .*5\.jpg"):
        build_torchvision(path=str(tmp_path), dataset="FGVCAircraft")
    (tmp_path / "fgvc-aircraft-2013b" / "data" / "variants.txt").unlink()
    with pytest.raises(DataError, match=r"has no fgvc-aircraft-2013b/data/variants\.txt, where"):
        build_torchvision(path=str(tmp_path), dataset="FGVCAircraft")


@pytest.mark.parametrize("content", [b"", b"junk", b"MATLAB 5.0" + bytes(130), b"\0" * 500])
def test_a_damaged_table_is_named(content: bytes, tmp_path: Path) -> None:
    cars(tmp_path)
    (tmp_path / "stanford_cars" / "devkit" / "cars_train_annos.mat").write_bytes(content)
    with pytest.raises(DataError, match="torchvision cannot read StanfordCars under"):
        build_torchvision(path=str(tmp_path), dataset="StanfordCars")


def test_a_table_of_another_shape_is_named(tmp_path: Path) -> None:
    write(tmp_path / "food-101" / "meta" / "train.json", "[]")
    write(tmp_path / "food-101" / "meta" / "test.json", "[]")
    (tmp_path / "food-101" / "images").mkdir()
    with pytest.raises(DataError, match=r"torchvision cannot read Food101 under .*no attribute"):
        build_torchvision(path=str(tmp_path), dataset="Food101")
