"""What a check finds in folders and packs; every kind of trouble once, and none where none is."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image
from pyarrow import fs

from tests.unit.workloads.data.image_trees import jpeg, make_tree, picture
from workloads.data import check_folder, filesystem
from workloads.data.check import check_data
from workloads.data.decode import decode_image
from workloads.data.errors import DataError
from workloads.data.filesystem import read_file
from workloads.data.image_facts import image_facts
from workloads.data.pack import pack_images
from workloads.data.pack_manifest import PackOptions, make_variants
from workloads.data.scan import scan_image_folder


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "tree")


def found(report) -> dict[str, tuple[str, int, list[str]]]:
    """Return the findings by kind."""
    return {one.kind: (one.level, one.count, one.examples) for one in report.findings}


def test_a_clean_folder_has_counts_and_no_findings(tree):
    report = check_data(str(tree))
    assert report.findings == []
    assert not report.stops_training
    assert (report.form, report.images) == ("image_folder", 16)
    assert report.counts == {"train": {"ant": 6, "bee": 6}, "val": {"ant": 2, "bee": 2}}
    assert report.size_range == {"width": [40, 40, 40], "height": [30, 30, 30]}
    assert report.bytes == sum(path.stat().st_size for path in tree.rglob("*.jpeg"))


def test_unreadable_images_are_problems_with_reasons(tree):
    whole = (tree / "train/ant/001.jpeg").read_bytes()
    (tree / "train/ant/001.jpeg").write_bytes(whole[: len(whole) // 2])
    (tree / "train/ant/002.jpeg").write_bytes(b"")
    (tree / "val/bee/000.jpeg").write_bytes(b"GIF89 or so")
    report = check_data(str(tree))
    level, count, examples = found(report)["unreadable"]
    assert (level, count) == ("problem", 3)
    assert [example.partition(": ")[0] for example in examples] == [
        "train/ant/001.jpeg",
        "train/ant/002.jpeg",
        "val/bee/000.jpeg",
    ]
    assert examples[1:] == ["train/ant/002.jpeg: is empty", "val/bee/000.jpeg: is not an image"]
    assert report.stops_training


def test_a_file_that_cannot_be_opened_is_one_finding(tree, monkeypatch):
    def refuse(filesystem, path, name):
        if name == "train/ant/003.jpeg":
            raise DataError(f"there is no file {name}")
        return read_file(filesystem, path, name)

    monkeypatch.setattr(check_folder, "read_file", refuse)
    for name in ("train/ant/001.jpeg", "val/bee/001.jpeg"):
        (tree / name).write_bytes(b"")  # broken files are not called equal
    report = check_data(str(tree))
    assert list(found(report)) == ["unreadable"]
    assert "there is no file train/ant/003.jpeg" in found(report)["unreadable"][2][1]


def test_large_images_are_unreadable(tree):
    (tree / "train/ant/big.jpg").write_bytes(jpeg(picture(60, (50, 41))))
    picture(61, (2000, 1)).save(tree / "train/ant/wide.png")
    report = check_data(str(tree), max_pixels=1999)
    assert found(report)["unreadable"][2] == [
        "train/ant/big.jpg: 50x41 pixels, more than max_pixels=1999",
        "train/ant/wide.png: 2000x1 pixels, more than max_pixels=1999",
    ]


def test_equal_files_are_warnings_by_where_they_are(tree):
    shutil.copy(tree / "train/ant/000.jpeg", tree / "val/ant/again.jpg")
    shutil.copy(tree / "train/ant/001.jpeg", tree / "train/ant/again.jpg")
    shutil.copy(tree / "val/bee/000.jpeg", tree / "val/ant/other.jpg")
    report = check_data(str(tree))
    assert found(report) == {
        "overlap": ("warning", 1, ["train/ant/000.jpeg = val/ant/again.jpg"]),
        "labels_differ": ("warning", 1, ["val/ant/other.jpg = val/bee/000.jpeg"]),
        "duplicates": (
            "warning",
            2,
            ["train/ant/001.jpeg = train/ant/again.jpg", "val/ant/other.jpg = val/bee/000.jpeg"],
        ),
    }
    assert not report.stops_training


def test_classes_without_images_or_in_one_split_are_problems(tree):
    (tree / "train/wasp").mkdir()
    (tree / "val/bee").rename(tree / "val/bees")
    (tree / "train/fly").mkdir()
    (tree / "val/fly").mkdir()
    for split in ("train", "val"):
        (tree / split / "fly/1.jpg").write_bytes(jpeg(picture(len(split) + 70)))
    report = check_data(str(tree))
    kinds = [(f.kind, f.text, f.examples) for f in report.findings]
    assert kinds == [
        ("empty_class", "1 class holds no images", ["train/wasp"]),
        ("class_mismatch", "2 classes are not in val", ["bee (did you mean 'bees'?)", "wasp"]),
        ("class_mismatch", "1 class is not in train", ["bees (did you mean 'bee'?)"]),
        ("few_images", "1 class has fewer than 5 training images", ["fly: 1"]),
    ]
    assert report.counts["train"] == {"ant": 6, "bee": 6, "fly": 1, "wasp": 0}
    with pytest.raises(DataError):
        scan_image_folder(tree)


def test_a_missing_split_is_a_problem(tree):
    shutil.rmtree(tree / "val")
    (tree / "test/ant").mkdir(parents=True)
    report = check_data(str(tree))
    assert found(report)["no_split"][0] == "problem"
    assert found(report)["other_folder"] == ("note", 1, ["test"])
    assert report.counts["val"] == {}


def test_files_that_are_not_taken_are_noted(tree):
    (tree / "train/ant/notes.txt").write_text("x")
    (tree / "train/stray.jpg").write_bytes(b"x")
    (tree / "train/ant/.hidden.jpg").write_bytes(b"x")
    (tree / "train/.cache").mkdir()
    (tree / "train/.cache/1.jpg").write_bytes(b"x")
    report = check_data(str(tree))
    assert found(report) == {"passed_over": ("note", 2, ["train/ant/notes.txt", "train/stray.jpg"])}


def test_links_are_followed_as_training_follows_them(tree):
    (tree / "val/bee").rename(tree / "bees")
    (tree / "val/bee").symlink_to(tree / "bees")
    (tree / "train/ant/loop").symlink_to(tree / "train")
    (tree / "train/ant/gone.jpeg").symlink_to("nowhere.jpeg")
    report = check_data(str(tree))
    index = scan_image_folder(tree)
    assert report.images == len(index.train) + len(index.val) == 17
    assert report.counts["val"] == {"ant": 2, "bee": 2}
    assert found(report)["passed_over"][2] == ["train/ant/loop"]
    assert found(report)["unreadable"][1] == 1
    index.digest()


def test_names_that_are_no_text_are_told_and_of_classes_refused(tree):
    (tree / "val/ant" / os.fsdecode(b"\xfe.txt")).touch()
    assert found(check_data(str(tree)))["passed_over"][2] == ["val/ant/\udcfe.txt"]
    (tree / "val/ant/000.jpeg").rename(tree / "val/ant" / os.fsdecode(b"\xff.jpeg"))
    assert found(check_data(str(tree)))["odd_name"][2] == ["val/ant/\udcff.jpeg"]
    (tree / "val" / os.fsdecode(b"\xff")).mkdir()
    with pytest.raises(DataError, match=r"xff' is not UTF-8"):
        check_data(str(tree))


def test_of_an_image_above_the_limit_nothing_is_decoded(tmp_path):
    """Pillow decodes a PNG to its end to look for EXIF data."""
    picture(1, (60, 50), "RGBA").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert image_facts(data, "a.png", 3000).traits == ("transparent",)
    large = image_facts(data, "a.png", 2999)
    assert (large.size, large.traits) == ((60, 50), ())
    assert large.error != ""


def test_many_equal_files_are_named_in_part(tree):
    for number in range(20):
        shutil.copy(tree / "val/ant/000.jpeg", tree / f"val/ant/copy{number:02d}.jpeg")
    (example,) = found(check_data(str(tree)))["duplicates"][2]
    assert example.startswith("val/ant/000.jpeg = val/ant/copy00.jpeg = ")
    assert example.endswith("val/ant/copy06.jpeg and 13 more")


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


WIDE = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160)
MOVING = {"save_all": True, "append_images": [picture(2), picture(3)]}


@pytest.mark.parametrize(
    ("image", "suffix", "how", "traits"),
    [
        (picture(1), "jpg", {}, ()),
        (picture(1), "jpg", {"progressive": True}, ()),
        (picture(1), "png", {}, ()),
        (picture(1, mode="L"), "jpeg", {}, ("grayscale",)),
        (picture(1, mode="L"), "png", {}, ("grayscale",)),
        (picture(1, mode="CMYK"), "jpg", {}, ("cmyk",)),
        (WIDE, "png", {}, ("grayscale", "16-bit")),
        (picture(1, mode="RGBA"), "png", {}, ("transparent",)),
        (picture(1, mode="P"), "png", {"transparency": 3}, ("transparent",)),
        (picture(1), "webp", MOVING, ("animated",)),
        (picture(1), "tiff", MOVING, ("animated",)),
        (picture(1), "jpg", {"exif": turned()}, ("rotated",)),
        (picture(1), "png", {"exif": turned()}, ("rotated",)),
        (picture(1), "bmp", {}, ()),
        (picture(1), "ppm", {}, ()),
    ],
)
def test_unusual_images_are_told_apart(image, suffix, how, traits, tmp_path):
    path = tmp_path / f"x.{suffix}"
    image.save(path, **how)
    facts = image_facts(path.read_bytes(), path.name, 10**6)
    assert (facts.error, facts.size, facts.traits) == ("", image.size, traits)
    decode_image(path.read_bytes(), name="x")  # so what is found sound is sound


def test_the_content_counts_and_not_the_extension(tmp_path):
    path = tmp_path / "x.png"
    picture(1).save(path)
    assert image_facts(path.read_bytes(), "x.jpg", 10**6).traits == ("wrong extension",)
    assert image_facts(jpeg(picture(1)), "x.JPEG", 10**6).traits == ()
    assert image_facts(jpeg(picture(1)), "x.webp", 10**6).traits == ("wrong extension",)


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"quality": 40}])
def test_a_quick_look_meets_what_decoding_meets(how, tmp_path):
    picture(1, (90, 70)).save(tmp_path / "x.jpg", **how)
    whole = (tmp_path / "x.jpg").read_bytes()
    random = np.random.default_rng(0)
    verdicts = []
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(20, len(data), 3):
            data[place] = random.integers(256)
        cut = bytes(data[: int(random.integers(len(data) // 2, len(data) + 1))])
        for damaged in (bytes(data), cut):
            try:
                decode_image(damaged, name="x.jpg", max_pixels=10**6)
                sound = True
            except DataError:
                sound = False
            verdicts.append((not image_facts(damaged, "x.jpg", 10**6).error, sound))
    assert all(quick == full for quick, full in verdicts)
    assert 20 < sum(full for _, full in verdicts) < 280


def test_processes_and_storage_change_nothing(tree, monkeypatch):
    (tree / "train/ant/000.jpeg").write_bytes(b"")
    steps = []
    one = check_data(str(tree))
    two = check_data(str(tree), workers=2, progress=lambda done, of: steps.append((done, of)))
    assert two.findings == one.findings
    stand_in = fs.SubTreeFileSystem(str(tree.parent), fs.LocalFileSystem())
    monkeypatch.setattr(filesystem, "_open_remote", lambda uri: (stand_in, "tree"))
    stored = check_data("gs://tree")
    assert (stored.findings, stored.counts, stored.bytes) == (one.findings, one.counts, one.bytes)
    assert steps[-1][1] == 16


@pytest.fixture
def packed(tree, tmp_path):
    shutil.copy(tree / "train/ant/000.jpeg", tree / "val/ant/again.jpg")
    (tree / "train/bee/003.jpeg").write_bytes(b"")
    options = PackOptions(variants=make_variants(("jpeg", "decoded"), (16,), original=False))
    pack_images(str(tree), str(tmp_path / "p"), options, on_bad_image="skip")
    return tmp_path / "p"


def test_a_pack_is_checked_by_what_it_holds(packed):
    report = check_data(str(packed))
    assert report.form == "packed"
    assert report.counts == {"train": {"ant": 6, "bee": 5}, "val": {"ant": 3, "bee": 2}}
    assert found(report) == {
        "overlap": ("warning", 1, ["train/ant/000.jpeg = val/ant/again.jpg"]),
        "skipped": ("note", 1, ["train/bee/003.jpeg: is empty"]),
    }
    assert report.size_range == {"width": [21, 21, 21], "height": [16, 16, 16]}


def test_a_damaged_pack_is_a_problem(packed):
    path = packed / "decoded-16/val-00000.bin"
    path.write_bytes(bytes(path.stat().st_size))
    (packed / "jpeg-16/train-00000.index").unlink()
    report = check_data(str(packed))
    assert report.stops_training
    assert found(report)["damaged"][2] == [
        "jpeg-16/train-00000.index: is missing",
        "decoded-16/val-00000.bin: differs from its checksum",
    ]


def test_pipes_and_dead_links_are_met_and_not_waited_for(tree):
    os.mkfifo(tree / "train/ant/pipe.jpg")
    (tree / "train/ant/loop.jpg").symlink_to("loop.jpg")
    (tree / "train/ant/gone.jpg").symlink_to("nowhere.jpg")
    _, _, examples = found(check_data(str(tree)))["unreadable"]
    assert examples == [
        "train/ant/gone.jpg: No such file or directory",
        "train/ant/loop.jpg: Too many levels of symbolic links",
        "train/ant/pipe.jpg: is no regular file",
    ]
    options = PackOptions(variants=make_variants(("jpeg",), (16,), original=False))
    with pytest.raises(DataError, match=r"3 of 19 images(.*\n)*.*pipe\.jpg: is no regular file"):
        pack_images(str(tree), str(tree.with_name("p")), options)


def test_classes_and_splits_that_are_dead_links_are_problems(tree):
    shutil.rmtree(tree / "val")
    (tree / "val").symlink_to("val")
    (tree / "train/cat").symlink_to("nowhere")
    report = check_data(str(tree))
    assert found(report)["dead_link"] == ("problem", 2, ["train/cat", "val"])
    assert "2 links lead nowhere; mend or remove them" in [one.text for one in report.findings]


def test_one_class_is_a_problem(tree):
    for split in ("train", "val"):
        shutil.rmtree(tree / split / "bee")
    assert found(check_data(str(tree)))["one_class"] == ("problem", 1, [])


def test_a_manifest_of_something_else_makes_no_pack(tree):
    (tree / "manifest.json").write_text('{"name": "a page"}')
    assert check_data(str(tree)).form == "image_folder"


def test_a_device_is_no_folder():
    with pytest.raises(DataError, match="/dev/null is a file, not a folder"):
        check_data("/dev/null")
