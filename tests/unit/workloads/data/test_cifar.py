"""CIFAR in both published layouts; pickles that ask for more than arrays are refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from workloads.data.cifar import build_cifar10, build_cifar100
from workloads.data.errors import DataError

NAMES = [f"class {number}".encode() for number in range(100)]


def records(count: int, seed: int) -> tuple[np.ndarray, list[int], list[int]]:
    """Pixels, coarse and fine labels."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
    return pixels, (np.arange(count) % 10).tolist(), (np.arange(count) % 100).tolist()


def dump(path: Path, content: dict[bytes, object]) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def python10(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels, labels, _ = records(12, number)
        dump(folder / name, {b"data": pixels, b"labels": labels, b"batch_label": b"x"})
    dump(folder / "batches.meta", {b"label_names": NAMES[:10], b"num_vis": 3072})
    return folder


def binary10(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels, labels, _ = records(12, number)
        rows = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], pixels], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    names = "".join(f"{name.decode()}\n" for name in NAMES[:10])
    (folder / "batches.meta.txt").write_text(f"{names}\n")
    return folder


def python100(root: Path) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for number, name in enumerate(("train", "test")):
        pixels, coarse, fine = records(120, number)
        dump(folder / name, {b"data": pixels, b"coarse_labels": coarse, b"fine_labels": fine})
    dump(folder / "meta", {b"fine_label_names": NAMES, b"coarse_label_names": NAMES[:20]})
    return folder


def binary100(root: Path) -> Path:
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    for number, name in enumerate(("train", "test")):
        pixels, coarse, fine = records(120, number)
        labels = np.array([coarse, fine], dtype=np.uint8).T
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels, pixels], axis=1).tobytes())
    (folder / "fine_label_names.txt").write_text("".join(f"{n.decode()}\n" for n in NAMES))
    return folder


def test_both_layouts_of_cifar10_are_the_same(tmp_path: Path) -> None:
    python = build_cifar10(path=str(python10(tmp_path)))
    binary = build_cifar10(path=str(binary10(tmp_path)))
    assert python.digest == binary.digest
    assert python.classes == binary.classes == [name.decode() for name in NAMES[:10]]
    assert (len(python.train), len(python.val)) == (60, 12)
    pixels, labels, _ = records(12, 1)  # of data_batch_2
    image = python.train.load(12 + 5)
    assert image.shape == (32, 32, 3)
    assert torch.equal(image.permute(2, 0, 1).flatten(), torch.from_numpy(pixels[5]))
    assert python.train.labels[12 + 5] == labels[5]
    assert torch.equal(python.train.load(59), binary.train.load(59))


def test_both_layouts_of_cifar100_give_the_fine_classes(tmp_path: Path) -> None:
    python = build_cifar100(path=str(python100(tmp_path)))
    binary = build_cifar100(path=str(binary100(tmp_path)))
    assert python.digest == binary.digest
    assert len(python.classes) == 100
    assert python.train.labels.tolist() == binary.train.labels.tolist()
    assert int(python.train.labels.max()) == 99


def test_the_folder_above_will_do(tmp_path: Path) -> None:
    below = build_cifar10(path=str(python10(tmp_path)))
    assert build_cifar10(path=str(tmp_path)).digest == below.digest


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/never",)


def test_a_pickle_that_would_run_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = python10(tmp_path)
    called: list[str] = []
    dump(folder / "test_batch", {b"data": Evil(), b"labels": []})
    monkeypatch.setattr(os, "system", called.append)
    with pytest.raises(DataError, match=r"test_batch is no pickle of CIFAR: it asks for .*system"):
        build_cifar10(path=str(folder))
    assert called == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        build_cifar10(path=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="does not hold CIFAR-100") as error:
        build_cifar100(path=str(tmp_path))
    assert "cifar-100-python or cifar-100-binary" in error.value.hint
    folder = python10(tmp_path)
    (folder / "data_batch_3").unlink()
    for path in (folder, tmp_path):
        with pytest.raises(DataError, match="lacks data_batch_3 of CIFAR-10"):
            build_cifar10(path=str(path))


def test_what_is_whole_counts_beside_what_is_not(tmp_path: Path) -> None:
    (python10(tmp_path) / "data_batch_1").unlink()
    with pytest.raises(DataError, match=r"batches-py lacks data_batch_1 of"):
        build_cifar10(path=str(tmp_path))
    binary10(tmp_path)
    assert len(build_cifar10(path=str(tmp_path)).train) == 60


def test_a_store_is_not_read_and_a_file_uri_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="s3://bucket/cifar is in a store") as error:
        build_cifar10(path="s3://bucket/cifar")
    assert "every node sees" in error.value.hint
    assert len(build_cifar10(path=f"file://{python10(tmp_path)}").train) == 60


@pytest.mark.parametrize("left", [0, 100, 3073 * 3 + 1])
def test_files_cut_short_are_refused(tmp_path: Path, left: int) -> None:
    for build, folder, name in (
        (build_cifar10, binary10(tmp_path), "data_batch_1.bin"),
        (build_cifar10, python10(tmp_path), "data_batch_1"),
    ):
        path = folder / name
        path.write_bytes(path.read_bytes()[:left])
        with pytest.raises(DataError, match=name):
            build(path=str(folder))


@pytest.mark.parametrize(
    "content",
    [
        {b"data": np.zeros((3, 3072), dtype=np.uint8), b"labels": [1, 2]},
        {b"data": np.zeros((3, 3071), dtype=np.uint8), b"labels": [1, 2, 3]},
        {b"data": np.zeros((3, 3072)), b"labels": [1, 2, 3]},
        {b"data": np.zeros((3, 3072), dtype=np.uint8), b"labels": [1, 2, 10]},
        {b"data": np.zeros((3, 3072), dtype=np.uint8), b"labels": [1, 2, -1]},
        {b"data": np.zeros((3, 3072), dtype=np.uint8)},
        {b"data": np.zeros((3, 3072), dtype=np.uint8), b"labels": b"abc"},
        [1, 2],
    ],
    ids=range(8),
)
def test_other_contents_are_refused(tmp_path: Path, content: dict[bytes, object]) -> None:
    folder = python10(tmp_path)
    dump(folder / "test_batch", content)
    with pytest.raises(DataError, match="test_batch"):
        build_cifar10(path=str(folder))


def test_the_number_of_classes_must_fit(tmp_path: Path) -> None:
    folder = python10(tmp_path)
    dump(folder / "batches.meta", {b"label_names": NAMES[:9]})
    with pytest.raises(DataError, match=r"batches\.meta names 9 classes"):
        build_cifar10(path=str(folder))
