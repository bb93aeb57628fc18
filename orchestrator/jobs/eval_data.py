"""Which images an evaluation sees: from `--data` to the config of a source."""

import os
from pathlib import Path
from typing import Any

from orchestrator.jobs.errors import NotFoundError
from workloads.config.data import SOURCE_CONFIGS, SourceBase
from workloads.config.errors import ConfigError, Problem, did_you_mean

_MARKS = (
    ("train_test_split.txt", "cub200"),
    ("t10k-images-idx3-ubyte", "fashion_mnist"),
    ("t10k-images-idx3-ubyte.gz", "fashion_mnist"),
    ("batches.meta", "cifar10"),
    ("batches.meta.txt", "cifar10"),
    ("fine_label_names.txt", "cifar100"),
    ("meta", "cifar100"),
    ("val", "image_folder"),
    ("train", "image_folder"),
    ("manifest.json", "packed"),  # last: an image folder may have one of another program
)
"""What lies in a folder -> the source that reads it; the first that is there counts."""


def data_of(spec: str, folder: Path | None) -> dict[str, Any]:
    """Return the document of a source that `--data` names.

    Args:
        spec: The name of a source that needs no more (`digits`), a folder of images, or a URI of
            one, which is taken for a packed folder if it ends so (`.../manifest.json`).
        folder: Where relative paths begin; None where the cluster sees other folders than we do.

    Raises:
        NotFoundError: There is no such folder.
        ConfigError: The folder is of no known form.
    """
    if spec in SOURCE_CONFIGS:
        return {"name": spec}
    manifest = spec.endswith("/manifest.json")
    if "://" in spec or folder is None:
        name = "packed" if manifest else "image_folder"
        return {"name": name, "path": spec.removesuffix("/manifest.json")}
    path = Path(folder / Path(os.path.expanduser(spec)))
    path = path.parent if manifest else path
    if not path.is_dir():
        hint = did_you_mean(spec, SOURCE_CONFIGS) if "/" not in spec else ""
        known = "a folder of images or one of " + ", ".join(SOURCE_CONFIGS)
        raise NotFoundError(f"--data: there is no folder {path}", hint or f"give {known}")
    for mark, name in _MARKS:
        if (path / mark).exists():
            return {"name": name, "path": str(path)}
    raise ConfigError(
        "--data",
        [
            Problem(
                "",
                f"{path} holds neither train/ or val/ with a folder for each class, nor a packed "
                "set (manifest.json), nor files of a set that is known",
                "say what it is: data.name=NAME data.path=FOLDER",
            )
        ],
    )


def legacy_images(trained: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `data` and `images` of a training's config.

    Earlier releases kept size and resize in `data`, and varied images there.
    """
    data = dict(trained["data"])
    if "images" in trained:
        return data, dict(trained["images"])
    source: type[SourceBase] = SOURCE_CONFIGS[data["name"]]
    size, resize = data.pop("image_size", None), data.pop("resize_size", None)
    data.pop("augment", None)
    images = source.usual_images.model_dump(mode="json")
    if size is not None:
        images |= {"size": size, "resize": resize or round(size * 256 / 224)}
    return data, images
