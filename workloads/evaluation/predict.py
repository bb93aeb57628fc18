"""The verb `predict` of ``python -m workloads.evaluation``: some images, and what they show."""

import stat
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads.config.images import IMAGENET_MEAN, IMAGENET_STD, ImagesConfig
from workloads.config.model import ModelConfig
from workloads.config.published_images import published_images
from workloads.config.train import check_positions
from workloads.config.validate import validate
from workloads.data.bundle import PixelScale
from workloads.data.decode import decode_image
from workloads.data.errors import DataError
from workloads.data.scan import EXTENSIONS
from workloads.data.transforms import centre_box, crop, resize_for_crop
from workloads.evaluation.errors import EvaluationError
from workloads.evaluation.opening import Opened, open_network
from workloads.evaluation.views import average_logits
from workloads.models.weights.export import usual_image_size

_AT_ONCE = 16
"""Images decoded before they are judged; more take more memory."""
_NOT_FINITE = (
    "the network's answer is not finite; the weights are broken, or the image is not made as those "
    "of its training"
)


def predict_images(request: Mapping[str, Any]) -> dict[str, Any]:
    """Name the likeliest classes of each image.

    Args:
        request: `weights`; `images`, paths of files, or of folders whose images are all taken;
            and, where wanted: `top` (5), `average` (``auto``), `model` and `images_config`
            (documents of a ModelConfig and an ImagesConfig), `classes` (names of the outputs).

    Returns:
        `classes_known`; `network`, a line for people; `images`, each with its `path` and its
        `predictions`, likeliest first, of `class`, `index` and `probability`; `errors`, each with
        `path` and `message`, for what could not be read or gets no finite answer. A class without
        a name is called by its number.

    Raises:
        EvaluationError: The weights cannot be used in this way; for others see
            `workloads.evaluation.opening.open_network`.
    """
    document, given = request.get("model"), request.get("images_config")
    opened = open_network(
        Path(request["weights"]),
        model=None if document is None else validate(ModelConfig, document, "model"),
        average=request.get("average", "auto"),
    )
    images = (
        validate(ImagesConfig, given, "images")
        if given is not None
        else opened.images or usual_images(opened)
    )
    try:
        check_positions(opened.config, images.size)
    except ValueError as error:
        raise EvaluationError(f"{opened.description}: {error}") from None
    names = request.get("classes") or opened.classes
    if names is not None and len(names) != opened.num_outputs:
        raise EvaluationError(
            f"{len(names)} classes are named, and the network has {opened.num_outputs} outputs"
        )
    found: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    top = min(int(request.get("top", 5)), opened.num_outputs)
    for paths, batch, mistakes in _batches(request["images"], images, opened.in_channels):
        errors += mistakes
        if batch is not None:
            judged, mistakes = _judge(opened, images, paths, batch, names, top)
            found += judged
            errors += mistakes
    return {
        "classes_known": names is not None,
        "network": opened.description,
        "images": found,
        "errors": errors,
    }


def usual_images(opened: Opened) -> ImagesConfig:
    """Return how images are made for a network whose file does not say it: as for ImageNet."""
    size, channels = usual_image_size(opened.config), opened.in_channels
    small = size <= 64
    if channels == 3 and not small:
        return published_images(opened.config, size)
    return ImagesConfig(
        size=size,
        resize=None if small else round(size * 256 / 224),
        mean=IMAGENET_MEAN if channels == 3 else (0.5,),
        std=IMAGENET_STD if channels == 3 else (0.5,),
    )


Batch = tuple[list[str], Tensor | None, list[dict[str, str]]]
"""Paths, images (B, C, S, S) of bytes or None if none could be read, and errors."""


def _batches(asked: Sequence[str], images: ImagesConfig, channels: int) -> Iterator[Batch]:
    paths: list[str] = []
    errors: list[dict[str, str]] = []
    pixels: list[Tensor] = []
    for path, message in _files(asked):
        if not message:
            try:
                pixels.append(_read(path, images, channels))
                paths.append(str(path))
            except (DataError, OSError) as error:
                message = _reason(error, path)
        if message:
            errors.append({"path": str(path), "message": message})
        if len(pixels) == _AT_ONCE:
            yield paths, torch.stack(pixels), errors
            paths, errors, pixels = [], [], []
    yield paths, torch.stack(pixels) if pixels else None, errors


def _files(asked: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Yield each file to read, or a path with what is wrong with it."""
    for path in map(Path, asked):
        try:
            kind = path.stat().st_mode
        except FileNotFoundError:
            yield path, "there is no such file"
            continue
        except OSError as error:
            yield path, _reason(error, path)
            continue
        if stat.S_ISDIR(kind):
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in EXTENSIONS and file.is_file()
            )
            yield from ((file, "") for file in inside)
            if not inside:
                yield path, f"holds no images (looked for {' '.join(EXTENSIONS)})"
        elif not stat.S_ISREG(kind):  # to read a pipe could take for ever
            yield path, "is no file of an image"
        else:
            yield path, ""


def _read(path: Path, images: ImagesConfig, channels: int) -> Tensor:
    """Return one image as evaluation sees it, uint8 (C, S, S)."""
    if channels not in (1, 3):
        raise EvaluationError(
            f"the network takes images of {channels} channels", "files of images have 1 or 3"
        )
    pixels = decode_image(path.read_bytes(), name=str(path), channels=channels)
    image = resize_for_crop(torch.from_numpy(np.ascontiguousarray(pixels)), images)
    height, width, _ = image.shape
    return crop(image, centre_box(height, width, images.size)).permute(2, 0, 1)


def _reason(error: DataError | OSError, path: Path) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.message.removeprefix(f"{path}: ")


@torch.no_grad()
def _judge(
    opened: Opened,
    images: ImagesConfig,
    paths: Sequence[str],
    batch: Tensor,
    names: Sequence[str] | None,
    top: int,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return the answers, and an error for each image whose answer is not finite."""
    scale = PixelScale(images.mean, images.std)
    logits = average_logits(opened.network, batch, scale=scale, crops="centre")
    finite_B = logits.isfinite().all(dim=1)
    is_finite = finite_B.tolist()
    errors = [
        {"path": path, "message": _NOT_FINITE}
        for path, good in zip(paths, is_finite, strict=True)
        if not good
    ]
    paths, logits = list(compress(paths, is_finite)), logits[finite_B]
    # By logits: of classes that are hopeless, all probabilities are zero.
    best_Bk = logits.topk(top, dim=1).indices
    probabilities_Bk = logits.double().softmax(dim=1).gather(1, best_Bk)
    judged = [
        {
            "path": path,
            "predictions": [
                {
                    "class": str(index) if names is None else names[index],
                    "index": index,
                    "probability": probability,
                }
                for index, probability in zip(indices, probabilities, strict=True)
            ],
        }
        for path, indices, probabilities in zip(
            paths, best_Bk.tolist(), probabilities_Bk.tolist(), strict=True
        )
    ]
    return judged, errors
