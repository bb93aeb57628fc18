"""Image folders with links, pipes and names that no ordinary folder has."""

import os
import shutil
from pathlib import Path

import pytest

from tests.unit.workloads.data.image_trees import make_tree
from workloads.data.errors import DataError
from workloads.data.files import LocalFiles
from workloads.data.scan import check_images, scan_image_folder

MAX_PIXELS = 1_000_000


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


@pytest.mark.parametrize("what", ["train/cat/\udcff.jpg", "train/\udcff"])
def test_names_that_are_no_text_are_refused(folder: Path, what: str) -> None:
    if what.endswith(".jpg"):
        (folder / what).touch()
    else:
        (folder / what).mkdir()
    with pytest.raises(DataError, match=r"images/train/.*\\xff.* is not UTF-8"):
        scan_image_folder(folder)


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
