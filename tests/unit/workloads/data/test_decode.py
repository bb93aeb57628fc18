"""One decoder for all: Pillow's pixels, whichever library reads them; clear words for the bad."""

import io

import numpy as np
import pytest
from PIL import Image

from workloads.data.decode import decode_image, to_mode
from workloads.data.errors import DataError


def photograph(width: int = 61, height: int = 47) -> Image.Image:
    """Smooth colours with some noise: compresses as a photograph does."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 7 + c) + np.cos(y / 5 - c) for c in range(3)], axis=-1)
    noise = np.random.default_rng(0).normal(size=(height, width, 3))
    return Image.fromarray((127 + 50 * waves + 8 * noise).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30}],
    ids=str,
)
def test_a_jpeg_has_pillows_pixels(mode: str, options: dict[str, object]) -> None:
    data = encode(photograph().convert(mode), **options)
    decoded = decode_image(data, name="a.jpg")
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decode_image(memoryview(data), name="a.jpg"), decoded)


def test_every_kind_of_pixel_becomes_rgb() -> None:
    ramp = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    rgb = decode_image(encode(Image.fromarray(ramp), "PNG"), name="deep.png")
    assert rgb.shape == (8, 8, 3)
    np.testing.assert_array_equal(rgb[..., 0], ramp // 256)
    for mode, kind in [("CMYK", "JPEG"), ("P", "PNG"), ("L", "PNG"), ("1", "PNG"), ("RGB", "WEBP")]:
        data = encode(photograph().convert(mode), kind)
        assert decode_image(data, name="a").shape == (47, 61, 3)
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert decode_image(encode(clear, "PNG"), name="a")[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_one_channel_where_asked(kind: str) -> None:
    gray = decode_image(encode(photograph().convert("L"), kind), name="a", channels=1)
    assert gray.shape == (47, 61, 1)
    colour = decode_image(encode(photograph(), kind), name="a", channels=1)
    assert np.abs(colour.astype(int) - gray).mean() < 2


def test_cmyk_is_pillows() -> None:
    data = encode(photograph().convert("CMYK"))
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data, name="a.jpg"), want)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_honoured(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter
    flat = np.zeros((20, 40, 3), dtype=np.uint8)
    flat[:, :20] = 255
    turned = decode_image(encode(Image.fromarray(flat), kind, exif=exif), name="a")
    assert turned.shape == (40, 20, 3)
    assert turned[:15].min() > 250
    assert turned[25:].max() < 5
    exif[0x0112] = 1
    exif[0x010F] = "A maker"
    straight = encode(photograph(), exif=exif)
    plain = encode(photograph())
    np.testing.assert_array_equal(decode_image(straight, name="a"), decode_image(plain, name="a"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("left", [0.02, 0.2, 0.5, 0.9, 0.99])
def test_a_jpeg_that_is_cut_short_is_refused(left: float, options: dict[str, object]) -> None:
    data = encode(photograph(200, 150), **options)
    with pytest.raises(DataError, match=r"train/a\.jpg: ") as caught:
        decode_image(data[: int(left * len(data))], name="train/a.jpg")
    assert "\n" not in str(caught.value)


def test_bytes_after_or_between_do_no_harm() -> None:
    data = encode(photograph())
    want = decode_image(data, name="a")
    np.testing.assert_array_equal(decode_image(data + b"\0" * 100, name="a"), want)
    comment = b"\xff\xfe\x00\x06abcd"
    np.testing.assert_array_equal(decode_image(data[:2] + comment + data[2:], name="a"), want)
    # libjpeg only warns of stray bytes before a marker, and Pillow is silent.
    np.testing.assert_array_equal(decode_image(data[:20] + b"\0\0" + data[20:], name="a"), want)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_size_is_read_before_the_pixels(kind: str) -> None:
    data = encode(photograph(), kind)
    with pytest.raises(DataError, match="61x47 pixels, more than max_pixels=2866"):
        decode_image(data[:700], name="a", max_pixels=61 * 47 - 1)
    assert decode_image(data, name="a", max_pixels=61 * 47).shape == (47, 61, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "is empty"), (b"hello", "is not an image"), (b"\xff\xd8\xff\xe0 hello", "a.jpg: ")],
)
def test_what_is_no_image_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        decode_image(data, name="a.jpg")
    assert str(caught.value).startswith("a.jpg: ")


def test_unknown_range_is_refused() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        to_mode(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "RGB")


def test_a_dark_pgm_of_16_bits_stays_dark() -> None:
    for value in (200, 300, 65535):
        data = b"P5\n4 4\n65535\n" + np.full((4, 4), value, ">u2").tobytes()
        assert decode_image(data, name="dark.pgm").max() == value // 256
