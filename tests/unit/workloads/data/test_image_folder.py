"""A zoo of image folders, broken in every way people break them."""

import errno
import os
import pickle
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import fs

from workloads.config.data import ImageFolderConfig
from workloads.config.images import ImagesConfig
from workloads.data import files as data_files
from workloads.data import filesystem, scan
from workloads.data.bundle import DataBundle
from workloads.data.errors import DataError
from workloads.data.files import LocalFiles
from workloads.data.image_folder import FolderStore, build_image_folder
from workloads.data.loaders import Loader, train_batches
from workloads.data.peers import Peers
from workloads.data.scan import check_images, scan_image_folder
from workloads.data.sources import build_data, build_eval_data

MAX_PIXELS = 1_000_000


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for split, count in (("train", 4), ("val", 2)):
        for label in ("cat", "dog"):
            for i in range(count):
                save(root / split / label / f"{i}.jpg", seed=i)
    return root


def build(folder: Path, seed: int = 0, **options: object) -> DataBundle:
    config = ImageFolderConfig(name="image_folder", path=str(folder), **options)
    augment = ImageFolderConfig.usual_augment
    return build_data(config, images=ImagesConfig(size=16, resize=18), augment=augment, seed=seed)


def bad_files(folder: Path) -> dict[str, str]:
    """Put one of each kind of broken image into train/cat; return what must be said."""
    cat = folder / "train" / "cat"
    whole = (cat / "0.jpg").read_bytes()
    (cat / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (cat / "text.jpg").write_text("not an image at all")
    (cat / "empty.png").write_bytes(b"")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    (cat / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (cat / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels)
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(cat / "float.tiff")
    return {
        "cut.jpg": "truncated",
        "text.jpg": "is not an image",
        "empty.png": "is empty",
        "bomb.png": "9000x9000 pixels, more than max_pixels",
        "huge.png": "60000x60000 pixels, more than max_pixels",
        "float.tiff": "floating-point",
    }


def test_index(folder: Path) -> None:
    save(folder / "train" / "cat" / "deep" / "er" / "X.JPEG")
    save(folder / "train" / "cat" / ".hidden.jpg")
    save(folder / "train" / ".cache" / "a.jpg")
    (folder / "train" / "cat" / "README.txt").write_text("hello")
    (folder / "labels.csv").write_text("hello")
    index = scan_image_folder(folder)
    assert index.classes == ["cat", "dog"]
    assert [name for name, label in index.train if label == 0] == [
        *(f"train/cat/{i}.jpg" for i in range(4)),
        "train/cat/deep/er/X.JPEG",
    ]
    assert index.val[-1] == ("val/dog/1.jpg", 1)
    assert scan_image_folder(str(folder)).digest() == index.digest()
    save(folder / "val" / "dog" / "2.jpg")
    assert scan_image_folder(folder).digest() != index.digest()


def remove(path: Path) -> None:
    for child in sorted(path.rglob("*"), reverse=True):
        child.rmdir() if child.is_dir() else child.unlink()
    path.rmdir()


def test_missing_or_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder") as caught:
        scan_image_folder(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)
    with pytest.raises(DataError, match=r"a\.jpg is a file, not a folder"):
        scan_image_folder(save(tmp_path / "a.jpg"))
    with pytest.raises(DataError, match="has no folder 'train'"):
        scan_image_folder(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("checked", [True, False])
def test_an_evaluation_needs_its_own_split_only(folder: Path, split, checked) -> None:
    config = ImageFolderConfig(name="image_folder", path=str(folder), check_images=checked)
    images = ImagesConfig(size=8)
    both = build_eval_data(config, images=images, split=split)
    remove(folder / ("train" if split == "val" else "val"))
    alone = build_eval_data(config, images=images, split=split)
    assert list(alone.names) == list(both.names)
    assert alone.classes == both.classes
    assert torch.equal(alone.labels, both.labels)
    with pytest.raises(DataError, match="has no folder"):
        build_eval_data(config, images=images, split="val" if split == "train" else "train")


def test_split_without_classes(folder: Path) -> None:
    remove(folder / "val")
    with pytest.raises(DataError, match="has no folder 'val'"):
        scan_image_folder(folder)
    (folder / "val").mkdir()
    with pytest.raises(DataError, match="val has no class folders"):
        scan_image_folder(folder)


def test_class_without_images(folder: Path) -> None:
    (folder / "train" / "cow").mkdir()
    (folder / "train" / "cow" / "a.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="train/cow holds no images") as caught:
        scan_image_folder(folder)
    assert "jpg jpeg png" in caught.value.hint


@pytest.mark.parametrize(("here", "there"), [("train", "val"), ("val", "train")])
def test_class_in_one_split_only(folder: Path, here: str, there: str) -> None:
    (folder / here / "dog").rename(folder / here / "dogs")
    with pytest.raises(DataError) as caught:
        scan_image_folder(folder)
    assert "but not in" in str(caught.value)
    assert "did you mean" in caught.value.hint


def test_unreadable_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read .*train/dog: Permission denied"):
        scan_image_folder(folder)


def test_all_sound_images_pass(folder: Path) -> None:
    for mode, name in [("CMYK", "c.jpg"), ("P", "p.png"), ("L", "l.pgm"), ("1", "one.bmp")]:
        save(folder / "train" / "cat" / name, mode)
    index = scan_image_folder(folder)
    assert check_images(index, max_pixels=MAX_PIXELS, on_bad_image="fail") == []


def test_bad_images_are_named_with_reasons(folder: Path) -> None:
    reasons = bad_files(folder)
    index = scan_image_folder(folder)
    with pytest.raises(DataError) as caught:
        check_images(index, max_pixels=MAX_PIXELS, on_bad_image="fail")
    assert caught.value.message.startswith("6 of 18 images cannot be used:")
    assert "and 1 more" in caught.value.message
    assert "data.on_bad_image=skip" in caught.value.hint
    for name, reason in reasons.items():
        (line,) = str(_error_of(folder, name)).splitlines()
        assert str(folder / "train" / "cat" / name) in line
        assert reason in line


def _error_of(folder: Path, name: str) -> DataError:
    store = FolderStore(LocalFiles(folder), [(f"train/cat/{name}", 0)], max_pixels=MAX_PIXELS)
    with pytest.raises(DataError) as caught:
        store.load(0)
    return caught.value


def test_bad_images_are_skipped_and_counted(folder: Path) -> None:
    clean = build(folder)
    reasons = bad_files(folder)
    options = {"on_bad_image": "skip", "max_pixels": MAX_PIXELS}
    bundle = build(folder, **options)
    assert {Path(name).name for name in bundle.skipped} == set(reasons)
    assert len(bundle.train) == len(clean.train) == 8
    assert bundle.digest == clean.digest
    assert bundle.train_names == clean.train_names
    for i in range(2):
        (folder / "val" / "dog" / f"{i}.jpg").write_text("x")
    with pytest.raises(DataError, match=r"no readable image is left in .*val/dog"):
        build(folder, **options)


def test_evaluation_looks_at_its_own_split_only(folder: Path) -> None:
    clean = build(folder)
    (folder / "train" / "cat" / "0.jpg").write_bytes(b"\xff" * 700)
    images, config = ImagesConfig(), ImageFolderConfig(name="image_folder", path=str(folder))
    data = build_eval_data(config, images=images)
    assert list(data.names) == [f"val/{name}/{i}.jpg" for name in ("cat", "dog") for i in (0, 1)]
    assert data.classes == clean.classes
    with pytest.raises(DataError, match="1 of 8 images cannot be used"):
        build_eval_data(config, images=images, split="train")


def test_limit_checks_the_first_of_each_split(folder: Path) -> None:
    (folder / "train" / "dog" / "3.jpg").write_text("x")
    index = scan_image_folder(folder)
    assert check_images(index, max_pixels=MAX_PIXELS, on_bad_image="fail", limit=2) == []


def test_loader_processes_change_nothing(folder: Path) -> None:
    """Not over epochs either, and not where an epoch is given up half-way."""
    train = build(folder, seed=3).train

    def batches(source: object, epoch: int) -> list[torch.Tensor]:
        options = {"seed": 3, "epoch": epoch, "batch_size_per_worker": 2}
        return [images for images, _ in train_batches(source, **options)]

    with Loader(train, loader_workers=2) as loader:
        for epoch in (0, 1, 1):
            for here, there in zip(batches(train, epoch), batches(loader, epoch), strict=True):
                assert torch.equal(here, there)
            next(train_batches(loader, seed=3, epoch=7, batch_size_per_worker=2))


def test_scanning_needs_neither_torch_nor_pillow() -> None:
    code = (
        "import sys, workloads.data.scan, workloads.config.validate, workloads.config.document;"
        "sys.exit(sorted({'torch', 'PIL', 'numpy', 'sklearn'} & set(sys.modules)).__repr__()"
        " if {'torch', 'PIL', 'numpy', 'sklearn'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torchvision_and_sklearn_are_never_imported_for_data() -> None:
    code = (
        "import sys; from workloads.data.sources import build_data;"
        "from workloads.config.data import DigitsConfig as Digits; build_data("
        "Digits(), images=Digits.usual_images, augment=Digits.usual_augment, seed=0);"
        "sys.exit(int('torchvision' in sys.modules or 'sklearn' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


STORAGE = [OSError(errno.EIO, "io"), OSError(errno.ESTALE, "stale"), OSError(errno.EMFILE, "many")]


@pytest.mark.parametrize("failure", [*STORAGE, MemoryError()], ids=repr)
def test_a_failure_of_the_storage_is_no_bad_image(
    failure: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = scan_image_folder(folder)

    def fail(path: Path) -> bytes:
        raise failure

    monkeypatch.setattr(data_files, "read_regular_file", fail)
    with pytest.raises(type(failure)) as caught:
        check_images(index, max_pixels=MAX_PIXELS, on_bad_image="skip")
    assert caught.value is failure


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR])
def test_an_image_that_cannot_be_opened_is_bad(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = scan_image_folder(folder)
    real = data_files.read_regular_file

    def fail(path: Path) -> bytes:
        if path.match("train/cat/0.jpg"):
            raise OSError(number, "no")
        return real(path)

    monkeypatch.setattr(data_files, "read_regular_file", fail)
    bad = check_images(index, max_pixels=MAX_PIXELS, on_bad_image="skip")
    assert bad == ["train/cat/0.jpg"]


def test_a_folder_on_failing_storage_is_not_called_bad(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: object) -> None:
        raise OSError(errno.EIO, "io", str(path))

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="io") as caught:
        scan_image_folder(folder)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("count", [0, 1, 5, 5000])
def test_threads_take_chunks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name once, in fewer tasks than names."""
    tasks = []
    submit = ThreadPoolExecutor.submit
    monkeypatch.setattr(
        ThreadPoolExecutor, "submit", lambda *a, **k: (tasks.append(1), submit(*a, **k))[1]
    )
    seen: list[str] = []
    names = [str(i) for i in range(count)]
    scan._in_threads(seen.append, names)
    assert sorted(seen) == sorted(names)
    assert len(tasks) <= 80


def test_peers_each_decode_a_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "train" / "cat" / "0.jpg").write_text("x")
    (folder / "train" / "cat" / "1.jpg").write_text("x")
    opened: list[str] = []
    real = scan.load_image
    monkeypatch.setattr(
        scan,
        "load_image",
        lambda files, name, most: (opened.append(name), real(files, name, most))[1],
    )
    others = [{"train/cat/0.jpg": "is no image"}]
    peers = Peers(rank=1, world_size=2, gather=lambda found: [*others, found])
    source = build_image_folder(path=str(folder), on_bad_image="skip", peers=peers)
    assert source.skipped == ["train/cat/0.jpg", "train/cat/1.jpg"]
    assert len(opened) == 6
    calls: list[dict[str, str]] = []
    deaf = Peers(rank=0, world_size=2, gather=lambda found: calls.append(found) or [found])
    with pytest.raises(DataError, match="there is no folder"):
        build_image_folder(path=str(folder / "x"), peers=deaf)
    assert calls == [{}]  # the others were not left to wait


def test_a_store_is_listed_and_read_as_a_folder_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store stands for object storage: names with slashes and no folders of its own."""
    save(folder / "train" / "cat" / "deep" / "x.png")
    save(folder / "train" / "cat" / ".hidden" / "y.png")
    (folder / "train" / "notes.txt").write_text("x")
    (folder / "val" / "dog" / "bad.jpg").write_text("x")
    here = build_image_folder(path=str(folder), on_bad_image="skip")
    monkeypatch.setattr(filesystem, "is_remote", lambda path: True)
    monkeypatch.setattr(
        filesystem,
        "open_filesystem",
        lambda uri: (fs.SubTreeFileSystem(str(folder.parent), fs.LocalFileSystem()), folder.name),
    )
    there = build_image_folder(path="s3://bucket/images", on_bad_image="skip")
    assert there.train.names == here.train.names
    assert (there.classes, there.digest, there.skipped) == (here.classes, here.digest, here.skipped)
    for index in range(len(here.train)):
        assert torch.equal(there.train.load(index), here.train.load(index))
    assert torch.equal(pickle.loads(pickle.dumps(there.val)).load(0), here.val.load(0))
    with pytest.raises(DataError, match=r"s3://bucket/images/val/dog/bad\.jpg: is not an image"):
        build_image_folder(path="s3://bucket/images")
    (folder / "train" / "cow").mkdir()
    (folder / "train" / "cow" / "a.txt").write_text("x")
    with pytest.raises(DataError, match="s3://bucket/images/train/cow holds no images"):
        scan_image_folder("s3://bucket/images")
