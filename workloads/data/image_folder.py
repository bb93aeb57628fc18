"""A folder of images, decoded with Pillow; transforms in Pillow and NumPy.

The transforms are the usual ones of ImageNet training: a random resized crop and flip to train,
the shorter side resized and the centre cut out to validate.
"""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from workloads.data.bundle import DataBundle
from workloads.data.peers import ALONE, Peers
from workloads.data.scan import (
    FolderIndex,
    Sample,
    find_bad_images,
    image_names,
    judge_bad_images,
    open_image,
    scan_image_folder,
)

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, scaled to [0, 1], per channel."""
_ORIENTATION = 0x0112
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)

Box = tuple[float, float, float, float]


class ImageFolderDataset:
    """Images by number, decoded on reading, as (3, image_size, image_size).

    The crop and flip of image i in an epoch come from a counter-based stream keyed by
    (seed, epoch) at place i.

    Args:
        path: The folder that the names of the samples are relative to.
        samples: Names and classes.
        seed: Decides the augmentation.
        image_size: Side of the result.
        resize_size: Shorter side before the centre crop; unused when augmenting.
        augment: Random resized crop and horizontal flip, instead of the centre crop.
        max_pixels: Larger images are refused.
    """

    def __init__(
        self,
        path: Path,
        samples: list[Sample],
        *,
        seed: int,
        image_size: int,
        resize_size: int,
        augment: bool,
        max_pixels: int,
    ) -> None:
        self._path = path
        self._samples = samples
        self._seed = seed
        self._image_size = image_size
        self._resize_size = resize_size
        self._augment = augment
        self._max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self._samples)

    def get(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return one image, (3, image_size, image_size), and its class, as seen in `epoch`.

        Raises:
            DataError: With the path, if the image cannot be read.
        """
        name, label = self._samples[index]
        image = to_rgb(open_image(self._path / name, self._max_pixels))
        size = (self._image_size, self._image_size)
        if self._augment:
            key = np.random.Philox(key=[self._seed, epoch], counter=[0, 0, 0, index])
            random = np.random.Generator(key)
            image = image.resize(size, Image.Resampling.BILINEAR, random_crop(image.size, random))
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        else:
            box = centre_crop(image.size, self._image_size / self._resize_size)
            image = image.resize(size, Image.Resampling.BILINEAR, box)
        return _normalise(image), label

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, image_size, image_size) and classes (B,) at `indices` (B,)."""
        pairs = [self.get(index, epoch) for index in indices.tolist()]
        labels = torch.tensor([label for _, label in pairs])
        return torch.stack([image for image, _ in pairs]), labels


def build_image_folder(
    *,
    seed: int,
    path: str,
    image_size: int = 224,
    resize_size: int | None = None,
    augment: bool = True,
    on_bad_image: Literal["fail", "skip"] = "fail",
    check_images: bool = True,
    loader_workers: int = 0,
    max_pixels: int = 50_000_000,
    peers: Peers = ALONE,
) -> DataBundle:
    """Scan the folder, check its images and build both datasets.

    `loader_workers` is for the loaders. Without `check_images` the digest holds names only, so
    that nothing but the folders is read. With it, each of the `peers` decodes its share.
    """
    skipped: list[str] = []
    if check_images:
        index, reasons = _check_together(path, max_pixels, peers)
        skipped = judge_bad_images(index, image_names(index), reasons, on_bad_image)
        index = index.without(set(skipped))
    else:
        index = scan_image_folder(path)
    resized = round(image_size * 256 / 224) if resize_size is None else resize_size

    def dataset(samples: list[Sample], *, augment: bool) -> ImageFolderDataset:
        return ImageFolderDataset(
            index.path,
            samples,
            seed=seed,
            image_size=image_size,
            resize_size=resized,
            augment=augment,
            max_pixels=max_pixels,
        )

    return DataBundle(
        train=dataset(index.train, augment=augment),
        val=dataset(index.val, augment=False),
        classes=index.classes,
        in_channels=3,
        image_size=image_size,
        digest=index.digest(with_sizes=check_images),
        skipped=skipped,
    )


def _check_together(path: str, max_pixels: int, peers: Peers) -> tuple[FolderIndex, dict[str, str]]:
    """Scan everything, decode this rank's share, and return what all ranks found bad."""
    index, error, found = None, None, {}
    try:
        index = scan_image_folder(path)
        share = image_names(index)[peers.rank :: peers.world_size]
        found = find_bad_images(index.path, share, max_pixels)
    except Exception as reason:  # told after the others have heard what there is to hear
        error = reason
    together = peers.gather(found)
    if error is not None:
        raise error
    assert index is not None
    return index, {name: reason for part in together for name, reason in part.items()}


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright, with 8 bits of red, green and blue."""
    image = _upright(image)
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        scale = 256 if image.mode != "I" or wide.max(initial=0) > 255 else 1
        image = Image.fromarray((wide // scale).clip(0, 255).astype(np.uint8))
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF data says; broken EXIF data says nothing."""
    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # whatever Pillow's EXIF reader stumbles over
        return image


def random_crop(size: tuple[int, int], random: np.random.Generator) -> Box:
    """Draw a box of 8 to 100 % of the area and a ratio of 3:4 to 4:3; at worst a centred one."""
    width, height = size
    for _ in range(10):
        area = width * height * random.uniform(*CROP_AREA)
        ratio = math.exp(random.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(0, width - w + 1)), int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    w, h = min(width, height * ratio), min(height, width / ratio)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def centre_crop(size: tuple[int, int], share: float) -> Box:
    """Return the centred square with `share` of the shorter side."""
    width, height = size
    side = min(size) * share
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


def _normalise(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255.0)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((pixels - mean) / std).contiguous()
