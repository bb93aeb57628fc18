"""CUB-200-2011's tables."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workloads.data.cub200 import build_cub200
from workloads.data.errors import DataError

NAMES = {
    "1": "001.Albatross/a.jpg",
    "2": "001.Albatross/b.jpg",
    "3": "002.Auklet/c.jpg",
    "4": "002.Auklet/d e.jpg",
}


def write(folder: Path, name: str, rows: dict[str, object]) -> None:
    (folder / name).write_text("".join(f"{key} {value}\n" for key, value in rows.items()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "CUB_200_2011"
    for number, name in NAMES.items():
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 10, 3), 20 * int(number), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    write(root, "images.txt", NAMES)
    write(root, "image_class_labels.txt", {"1": 1, "2": 1, "3": 2, "4": 2})
    write(root, "train_test_split.txt", {"1": 1, "2": 0, "3": 0, "4": 1})
    write(root, "classes.txt", {"1": "001.Albatross", "2": "002.Auklet"})
    return root


def test_tables_say_split_and_class(folder: Path) -> None:
    source = build_cub200(path=str(folder))
    assert source.classes == ["001.Albatross", "002.Auklet"]
    assert list(source.train.names) == [NAMES["1"], NAMES["4"]]
    assert list(source.val.names) == [NAMES["2"], NAMES["3"]]
    assert source.val.labels.tolist() == [0, 1]
    assert int(source.train.load(1).float().mean()) == 80
    assert build_cub200(path=str(folder.parent)).digest == source.digest


def test_another_split_is_another_digest(folder: Path) -> None:
    before = build_cub200(path=str(folder)).digest
    write(folder, "train_test_split.txt", {"1": 1, "2": 0, "3": 1, "4": 1})
    assert build_cub200(path=str(folder)).digest != before


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        build_cub200(path=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="does not hold CUB-200-2011") as error:
        build_cub200(path=str(tmp_path / "empty"))
    assert "train_test_split.txt" in error.value.hint
    write(folder, "image_class_labels.txt", {"1": 1, "2": 3, "3": 2, "4": 2})
    with pytest.raises(DataError, match="image 2 has class 3"):
        build_cub200(path=str(folder))
    write(folder, "image_class_labels.txt", {"1": 1, "2": 1, "3": 2})
    with pytest.raises(DataError, match="number other images") as error:
        build_cub200(path=str(folder))
    assert "image 4" in error.value.hint


def test_missing_tables_and_images_are_named(folder: Path) -> None:
    (folder / "images" / NAMES["3"]).unlink()
    with pytest.raises(DataError, match=r"c\.jpg: No such file"):
        build_cub200(path=str(folder))
    (folder / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"lacks classes\.txt of CUB-200-2011"):
        build_cub200(path=str(folder))


def test_a_split_without_images_is_refused(folder: Path) -> None:
    write(folder, "train_test_split.txt", dict.fromkeys("1234", 1))
    with pytest.raises(DataError, match="leaves no images to val"):
        build_cub200(path=str(folder))
    (folder / "train_test_split.txt").write_text("1 1\n2\n")
    with pytest.raises(DataError, match="'2' is not an id and a value"):
        build_cub200(path=str(folder))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("images.txt", b"\xff\xfe\0", r"images\.txt is no text in UTF-8"),
        ("classes.txt", b"1 one\n1 two\n2 three\n", r"classes\.txt names 1 twice"),
        ("train_test_split.txt", b"1 1\n2 0\n3 x\n4 1\n", "image 3 has 'x'"),
        ("images.txt", b"1 ../a.jpg\n2 b\n3 c\n4 d\n", "leads out of the folder"),
        ("images.txt", b"1 /etc/passwd\n2 b\n3 c\n4 d\n", "leads out of the folder"),
        ("images.txt", b"1 a\0b\n2 b\n3 c\n4 d\n", r"a\\x00b: no file can be called so"),
        ("images.txt", b"1 " + b"a" * 300 + b"\n2 b\n3 c\n4 d\n", "name too long"),
        ("classes.txt", b"1 one\n", "names 1 class"),
    ],
)
def test_a_table_that_says_nonsense_is_refused(
    file: str, content: bytes, words: str, folder: Path
) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=words):
        build_cub200(path=str(folder))


def test_images_that_hold_nothing_are_met_at_once(folder: Path) -> None:
    image = folder / "images" / NAMES["2"]
    image.write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.jpg: is empty"):
        build_cub200(path=str(folder))
    image.unlink()
    image.mkdir()
    with pytest.raises(DataError, match=r"b\.jpg: is no regular file"):
        build_cub200(path=str(folder))


def test_a_mark_at_the_beginning_of_a_table_is_no_part_of_it(folder: Path) -> None:
    file = folder / "images.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert list(build_cub200(path=str(folder)).train.names) == [NAMES["1"], NAMES["4"]]


def test_tables_are_found_beside_other_images(folder: Path) -> None:
    (folder.parent / "images").mkdir()
    assert len(build_cub200(path=str(folder.parent)).train) == 2
