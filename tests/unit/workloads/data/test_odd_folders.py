"""Image folders with links, pipes and names that no ordinary folder has."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.unit.workloads.data.image_trees import make_tree
from workloads.data.errors import DataError
from workloads.data.files import LocalFiles
from workloads.data.image_folder import build_image_folder
from workloads.data.pack import pack_images
from workloads.data.pack_manifest import PackOptions, make_variants
from workloads.data.scan import check_images, leads_nowhere, scan_image_folder

MAX_PIXELS = 1_000_000
OPTIONS = PackOptions(variants=make_variants(("jpeg",), (16,), original=False))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "images", train=2, val=2, classes=("bird", "cat"))


def test_a_file_uri_is_a_folder_of_this_machine(folder: Path) -> None:
    assert scan_image_folder(f"file://{folder}") == scan_image_folder(folder)


def test_a_pipe_by_the_name_of_an_image_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / "train" / "cat" / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe\.jpg: is no regular file"):
        LocalFiles(folder).read("train/cat/pipe.jpg")


@pytest.mark.parametrize("target", ["nowhere", "lost"])
def test_a_class_that_is_a_dead_link_is_not_left_out_in_silence(folder: Path, target: str) -> None:
    for split in ("train", "val"):
        (folder / split / "lost").symlink_to(target)
    with pytest.raises(DataError, match=r"train/lost is a link that leads nowhere"):
        scan_image_folder(folder)


def test_a_split_that_links_to_itself_is_named(folder: Path) -> None:
    (folder / "val").rename(folder / "validation")
    (folder / "val").symlink_to("val")
    with pytest.raises(DataError, match=r"val is a link that leads nowhere"):
        scan_image_folder(folder)


def test_dead_links_elsewhere_do_no_harm(folder: Path) -> None:
    (folder / "notes").symlink_to("nowhere")
    scan_image_folder(folder)


def test_an_image_that_links_to_itself_is_bad(folder: Path) -> None:
    (folder / "train" / "cat" / "loop.jpg").symlink_to("loop.jpg")
    index = scan_image_folder(folder)
    bad = check_images(index, max_pixels=MAX_PIXELS, on_bad_image="skip")
    assert bad == ["train/cat/loop.jpg"]


def test_one_class_is_refused(folder: Path) -> None:
    for split in ("train", "val"):
        for name in sorted(path.name for path in (folder / split).iterdir())[1:]:
            shutil.rmtree(folder / split / name)
    with pytest.raises(DataError, match=r"train holds one class, .*takes two"):
        scan_image_folder(folder)


def test_a_class_whose_name_is_no_text_is_refused(folder: Path) -> None:
    (folder / "train" / "\udcff").mkdir()
    with pytest.raises(DataError, match=r"\\xff.* is not UTF-8"):
        scan_image_folder(folder)


def test_images_and_folders_above_may_be_called_anything_but_packs_hold_text(tmp_path: Path):
    root = make_tree(tmp_path / "\udcff", train=2, val=2)
    (root / "train" / "ant" / "000.jpeg").rename(root / "train" / "ant" / "\udcfe.jpeg")
    source = build_image_folder(path=str(root))
    assert "train/ant/\udcfe.jpeg" in source.train.names
    with pytest.raises(DataError, match=r"\\xfe.* is not UTF-8"):
        pack_images(str(root), str(tmp_path / "pack"), OPTIONS)


def test_a_dead_link_counts_only_for_the_split_that_is_read(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    (folder / "train").symlink_to("unmounted")
    assert len(scan_image_folder(folder, ("val",)).val) == 4
    with pytest.raises(DataError, match="train is a link that leads nowhere"):
        scan_image_folder(folder)


def test_a_link_into_a_storage_that_fails_is_not_called_dead(folder, monkeypatch) -> None:
    (folder / "train" / "cat").rename(folder / "elsewhere")
    (folder / "train" / "cat").symlink_to(folder / "elsewhere")

    class Entry:
        def __init__(self, entry):
            self._entry = entry

        def __getattr__(self, name):
            return getattr(self._entry, name)

        def stat(self):
            raise OSError(errno.ESTALE, "Stale file handle")

    entries = [Entry(entry) for entry in os.scandir(folder / "train") if entry.is_symlink()]
    with pytest.raises(OSError, match="Stale"):
        leads_nowhere(entries[0])


@pytest.mark.parametrize(
    ("stands_in", "source", "target", "is_inside"),
    [
        ("train", "..", "../../packed", False),
        (".", "../images", "train/packed", True),
        (".", ".", "link/packed", True),
        (".", ".", "packed", False),
    ],
)
def test_a_pack_is_not_written_among_the_images(
    stands_in, source, target, is_inside, folder, monkeypatch
):
    """Wherever one stands, and through links."""
    (folder / "link").symlink_to("train")
    monkeypatch.chdir(folder / stands_in)
    if is_inside:
        with pytest.raises(DataError, match="lies among the images of"):
            pack_images(source, target, OPTIONS)
        return
    assert pack_images(source, target, OPTIONS).manifest.finished


def test_what_is_there_instead_of_a_split_is_said(folder: Path) -> None:
    (folder / "val").rename(folder / "validation")
    with pytest.raises(DataError, match=r"no folder 'val'; its folders are train, validation"):
        scan_image_folder(folder)
    (folder / "train").rename(folder / "jpeg-256")
    (folder / "manifest.json").touch()
    with pytest.raises(DataError, match=r"a manifest\.json, as packed images have") as error:
        scan_image_folder(folder)
    assert "data.name=packed" in error.value.hint


def test_what_a_terminal_obeys_is_written_out(folder: Path) -> None:
    (folder / "train" / "cat" / "\x1b[31m\n.jpg").write_bytes(b"no")
    with pytest.raises(DataError) as caught:
        check_images(scan_image_folder(folder), max_pixels=MAX_PIXELS, on_bad_image="fail")
    assert r"cat/\x1b[31m\x0a.jpg: is not an image" in str(caught.value)
    assert "\x1b" not in repr(caught.value.args) + caught.value.message
    assert DataError("a \udcff", "b \x07").message == "a \\udcff"
    assert DataError("a", "b \x07\nc").hint == "b \\x07\nc"
