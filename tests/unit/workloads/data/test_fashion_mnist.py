"""IDX files: read as they are published, refused when they are not."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from workloads.config.data import FashionMnistConfig
from workloads.data import files
from workloads.data.errors import DataError
from workloads.data.fashion_mnist import build_fashion_mnist
from workloads.data.fashion_mnist_files import read_idx

INSTALLED = Path("/usr/share/datasets/fashion-mnist")


def write_idx(path: Path, values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    data = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return data


def folder_of(root: Path, suffix: str = "") -> Path:
    random = np.random.default_rng(0)
    for word, count in (("train", 30), ("t10k", 20)):
        pixels = random.integers(0, 256, (count, 28, 28))
        write_idx(root / f"{word}-images-idx3-ubyte{suffix}", pixels)
        write_idx(root / f"{word}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


def test_packed_or_not_is_the_same(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    plain = build_fashion_mnist(path=str(folder))
    packed = build_fashion_mnist(path=str(folder_of(tmp_path / "packed", ".gz")))
    assert plain.digest == packed.digest
    assert (len(plain.train), len(plain.val)) == (30, 20)
    assert plain.train.load(3).shape == (28, 28, 1)
    assert plain.train.labels.tolist() == [i % 10 for i in range(30)]
    assert plain.classes[0] == "T-shirt/top"
    assert plain.classes[9] == "Ankle boot"
    assert plain.val.names[19] == "val/19"


def test_another_byte_is_another_digest(folder: Path) -> None:
    before = build_fashion_mnist(path=str(folder)).digest
    path = folder / "t10k-images-idx3-ubyte"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert build_fashion_mnist(path=str(folder)).digest != before


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"has neither t10k-labels-idx1-ubyte nor .*\.gz") as error:
        build_fashion_mnist(path=str(folder))
    assert "dataset-fashion-mnist" in error.value.hint
    with pytest.raises(DataError, match="there is no folder"):
        build_fashion_mnist(path=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("left", [0, 3, 10, 200, -1])
def test_a_file_cut_short_is_refused(folder: Path, left: int) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        build_fashion_mnist(path=str(folder))


@pytest.mark.parametrize("left", [5, 400])
def test_a_packed_file_cut_short_is_refused(tmp_path: Path, left: int) -> None:
    folder_of(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError, match="cannot be unpacked"):
        build_fashion_mnist(path=str(tmp_path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\x89PNG and more of it")
    with pytest.raises(DataError, match="is not an IDX file of bytes with 3") as error:
        read_idx(path, dimensions=3)
    assert "89 50 4e 47" in error.value.hint
    write_idx(path, np.zeros((4, 4)))
    with pytest.raises(DataError, match="with 3 dimension"):
        read_idx(path, dimensions=3)


def test_counts_and_labels_must_agree(folder: Path) -> None:
    write_idx(folder / "train-labels-idx1-ubyte", np.arange(29) % 10)
    with pytest.raises(DataError, match="holds 30 images and 29 labels of train"):
        build_fashion_mnist(path=str(folder))
    write_idx(folder / "train-labels-idx1-ubyte", np.arange(30) % 11)
    with pytest.raises(DataError, match="a label of train is 10"):
        build_fashion_mnist(path=str(folder))


def test_images_of_another_shape_are_refused(folder: Path) -> None:
    for shape in ((30, 56, 14), (30, 0, 0)):
        write_idx(folder / "train-images-idx3-ubyte", np.zeros(shape))
        with pytest.raises(DataError, match=f"the images of train are {shape[1]}x{shape[2]}"):
            build_fashion_mnist(path=str(folder))


def test_storage_that_fails_is_not_bad_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(files, "read_regular_file", fail)
    with pytest.raises(OSError, match=os.strerror(5)):
        build_fashion_mnist(path=str(folder))


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="Debian's dataset-fashion-mnist is not here")
def test_the_published_set() -> None:
    pixels = read_idx(INSTALLED / "t10k-images-idx3-ubyte.gz", dimensions=3)
    labels = read_idx(INSTALLED / "t10k-labels-idx1-ubyte.gz", dimensions=1)
    assert pixels.shape == (10_000, 28, 28)
    assert np.bincount(labels).tolist() == [1000] * 10
    images = FashionMnistConfig.usual_images
    assert abs(pixels.mean() / 255 - images.mean[0]) < 0.002
    assert abs(pixels.std() / 255 - images.std[0]) < 0.002
