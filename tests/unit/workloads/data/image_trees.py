"""Small image folders for tests of packing, checking and storage."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """Return a smooth picture of `size` (width, height) that no other seed gives."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return image.convert(mode)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """Return the image as a JPEG file's bytes."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def make_tree(
    root: Path,
    *,
    train: int = 6,
    val: int = 2,
    classes: tuple[str, ...] = ("ant", "bee"),
    size: tuple[int, int] = (40, 30),
) -> Path:
    """Write `train` and `val` JPEG files for each class; every one is another picture."""
    seed = 0
    for split, count in (("train", train), ("val", val)):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                (folder / f"{number:03d}.jpeg").write_bytes(jpeg(picture(seed, size)))
    return root


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
