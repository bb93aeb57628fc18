"""From the bytes of an image file to its pixels; the one decoder of folders and shards alike.

Plain JPEG goes through libjpeg-turbo (simplejpeg) with the accurate DCT and smooth upsampling,
which gives Pillow's pixels bit for bit in two thirds of the time. All else goes through Pillow.
Needs no torch.
"""

import io
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from workloads.data.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

MAX_PIXELS = 50_000_000
_JPEG = b"\xff\xd8\xff"
_PLAIN = frozenset({"YCbCr", "Gray", "RGB"})
"""Colour spaces that libjpeg turns into red, green and blue as Pillow does."""
_ORIENTATION = 0x0112


def decode_image(
    data: bytes | memoryview, *, name: str, max_pixels: int = MAX_PIXELS, channels: int = 3
) -> Pixels:
    """Return an image's pixels, upright, as uint8 (H, W, C).

    Args:
        data: The whole file.
        name: What to call the image in errors.
        max_pixels: Larger images are refused. The size is read from the header, before any memory
            is spent on pixels.
        channels: 3 for red, green and blue, whatever the file holds; 1 for gray.

    Raises:
        DataError: With the name and the reason, if the data are no image, cut short or too large.
    """
    if len(data) == 0:
        raise DataError(f"{name}: is empty")
    if bytes(data[:3]) == _JPEG:
        pixels = _decode_plain_jpeg(data, name, max_pixels, channels)
        if pixels is not None:
            return pixels
    return _decode_any(data, name, max_pixels, channels)


def _decode_plain_jpeg(
    data: bytes | memoryview, name: str, max_pixels: int, channels: int
) -> Pixels | None:
    """Decode with libjpeg-turbo, or return None where Pillow has to say what the data are."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        if colorspace not in _PLAIN or _is_turned(data):
            return None
        _refuse_large(width, height, name, max_pixels)
        # Strict: what is cut short would come back filled up with gray.
        wanted = "RGB" if channels == 3 else "GRAY"
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace=wanted))
    except (ValueError, KeyError):  # KeyError: a sampling that it has no name for
        return None


def _is_turned(data: bytes | memoryview) -> bool:
    """Say whether EXIF data ask for the image to be turned; most files carry none."""
    if b"Exif\0\0" not in bytes(data[: 1 << 16]):
        return False
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    except Exception:  # Pillow says later what it stumbles over
        return True


def _decode_any(data: bytes | memoryview, name: str, max_pixels: int, channels: int) -> Pixels:
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is the limit, asked before any pixel is read
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse_large(*image.size, name, max_pixels)
            image.load()  # only this notices a file that is cut short
            pixels = np.array(to_mode(image, "RGB" if channels == 3 else "L"))
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name}: is not an image") from None
    except Exception as error:
        # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, struct.error.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{name}: {reason}") from None
    return pixels if pixels.ndim == 3 else pixels[..., None]


def to_mode(image: "Image.Image", mode: str) -> "Image.Image":
    """Return the image upright, with 8 bits per channel, as "RGB" or "L".

    Sixteen bits lose the lower eight; what is transparent shows the colour that is stored there.

    Raises:
        ValueError: Its pixels are floating-point numbers, of which nothing says the range.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    image = _upright(image)
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        # Pillow brings what a PGM has beyond 8 bits to 16, however dark the picture is.
        is_deep = image.mode != "I" or image.format == "PPM" or wide.max(initial=0) > 255
        scale = 256 if is_deep else 1
        image = Image.fromarray((wide // scale).clip(0, 255).astype(np.uint8))
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _upright(image: "Image.Image") -> "Image.Image":
    """Turn the image as its EXIF data says; broken EXIF data says nothing."""
    from PIL import ImageOps

    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # whatever Pillow's EXIF reader stumbles over
        return image


def _refuse_large(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        size = f"{width}x{height} pixels"
        raise DataError(f"{name}: {size}, more than max_pixels={max_pixels}")
