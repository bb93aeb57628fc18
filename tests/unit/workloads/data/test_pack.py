"""Packing: what is written, that it does not depend on the way there, and what is refused."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.unit.workloads.data.image_trees import files_of, jpeg, make_tree, picture
from workloads import durable
from workloads.data import pack
from workloads.data.decode import decode_image
from workloads.data.errors import DataError
from workloads.data.pack import pack_images
from workloads.data.pack_manifest import PackOptions, Variant, make_variants, parse_manifest
from workloads.data.pack_shard import encode_jpeg, resize_shorter_side
from workloads.data.shard_files import ALIGNMENT, read_index

ALL = make_variants(("jpeg", "decoded"), (20, 16), original=True)
JPEG = make_variants(("jpeg",), (20,), original=False)


def options(variants=JPEG, **other) -> PackOptions:
    return PackOptions(variants=variants, **{"shard_images": 4, **other})


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "tree")


def rows(folder, variant, stem):
    """Return the index of a shard, and the bytes of each of its images."""
    index = read_index((folder / variant / f"{stem}.index").read_bytes(), stem).to_pylist()
    data = next(folder.glob(f"{variant}/{stem}.[pb]*")).read_bytes()
    return index, [data[row["offset"] : row["offset"] + row["length"]] for row in index]


def test_every_variant_holds_every_image_in_the_folders_order(tree, tmp_path):
    found = pack_images(str(tree), str(tmp_path / "p"), options(ALL)).manifest
    assert found.finished
    assert found.classes == ("ant", "bee")
    assert [(s.split, s.number, s.images) for s in found.shards] == [
        ("train", 0, 4),
        ("train", 1, 4),
        ("train", 2, 4),
        ("val", 0, 4),
    ]
    assert found == parse_manifest((tmp_path / "p" / "manifest.json").read_bytes(), "p")
    names = [f"train/{c}/{i:03d}.jpeg" for c in ("ant", "bee") for i in range(6)]
    for variant in ("jpeg-original", "jpeg-20", "decoded-16"):
        got = [row for n in range(3) for row in rows(tmp_path / "p", variant, f"train-{n:05d}")[0]]
        assert [row["name"] for row in got] == names
        assert [row["label"] for row in got] == [0] * 6 + [1] * 6


def test_large_images_are_resized_once_and_others_keep_their_bytes(tmp_path):
    tree = make_tree(tmp_path / "tree")
    small = tree / "train/ant/000.jpeg"
    small.write_bytes(jpeg(picture(99, (33, 20))))
    (tree / "train/ant/001.jpeg").unlink()
    picture(98, (10, 16)).save(tree / "train/ant/001.png")
    pack_images(str(tree), str(tmp_path / "p"), options(ALL))

    index, images = rows(tmp_path / "p", "jpeg-20", "train-00000")
    assert images[0] == small.read_bytes()
    assert images[1] == (tree / "train/ant/001.png").read_bytes()
    assert (index[2]["width"], index[2]["height"]) == (26, 20)
    original = (tree / "train/ant/002.jpeg").read_bytes()
    pixels = decode_image(original, name="x")
    resized = resize_shorter_side(pixels, 20)
    assert images[2] == encode_jpeg(resized, 90)
    reference = Image.fromarray(pixels).resize((26, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(reference))

    _, untouched = rows(tmp_path / "p", "jpeg-original", "train-00000")
    assert untouched[2] == original
    for variant, expected in (("decoded-20", resized), ("decoded-original", pixels)):
        index, images = rows(tmp_path / "p", variant, "train-00000")
        assert images[2] == expected.tobytes()
        assert all(row["offset"] % ALIGNMENT == 0 for row in index)


def test_the_parquet_files_can_be_read_by_anything(tree, tmp_path):
    pack_images(str(tree), str(tmp_path / "p"), options(ALL))
    table = pq.read_table(tmp_path / "p/jpeg-original/train-00001.parquet")
    assert table.column_names == ["image", "label", "name", "width", "height"]
    for row in table.to_pylist():
        assert row["image"] == (tree / row["name"]).read_bytes()
        assert (row["width"], row["height"]) == (40, 30)


def test_places_are_found_across_row_groups(tmp_path):
    # More images than a row group holds, and equal ones, so that one could be taken for another.
    tree = make_tree(tmp_path / "tree", train=1, val=1, size=(4, 4))
    data = (tree / "train/ant/000.jpeg").read_bytes()
    for number in range(600):
        (tree / f"train/ant/{number:03d}.jpeg").write_bytes(data if number % 3 else data + b"\0")
    pack_images(str(tree), str(tmp_path / "p"), options(shard_images=600))
    index, images = rows(tmp_path / "p", "jpeg-20", "train-00000")
    assert pq.read_metadata(tmp_path / "p/jpeg-20/train-00000.parquet").num_row_groups == 3
    assert len({row["offset"] for row in index}) == 600
    assert all(image[: len(data)] == data for image in images)
    assert [len(image) - len(data) for image in images] == [int(n % 3 == 0) for n in range(600)]


def test_gray_stays_gray():
    gray = picture(1, mode="L").convert("RGB")
    encoded = encode_jpeg(np.asarray(gray), 90)
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.mode == "L"
    decoded = decode_image(encoded, name="x")
    assert (decoded == decoded[..., :1]).all()


def test_processes_change_nothing(tree, tmp_path):
    pack_images(str(tree), str(tmp_path / "one"), options(), workers=1)
    steps = []
    pack_images(str(tree), str(tmp_path / "two"), options(), workers=2, progress=steps.append)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert (steps[-1].images_done, steps[-1].images) == (16, 16)
    assert (steps[-1].shards_done, steps[-1].shards) == (4, 4)


class PowerCut(BaseException):
    """The machine is gone; nothing below may handle it."""


def test_a_run_that_ends_anywhere_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    tree = make_tree(tmp_path / "tree", train=2, val=1)
    pack_images(str(tree), str(tmp_path / "whole"), options())
    whole = files_of(tmp_path / "whole")
    done = 0
    limit = 0

    def counted(function):
        def count(*args):
            nonlocal done
            done += 1
            if done > limit:
                raise PowerCut
            return function(*args)

        return count

    for name in ("make_folder", "write_file", "write", "sync", "move", "remove_tree"):
        monkeypatch.setattr(durable, name, counted(getattr(durable, name)))
    cuts = 0
    while True:
        target = tmp_path / f"cut-{cuts}"
        done, limit = 0, cuts
        try:
            pack_images(str(tree), str(target), options())
        except PowerCut:
            cuts += 1
        else:
            break
        limit = 1_000_000
        again = pack_images(str(tree), str(target), options())
        assert files_of(target) == whole, f"after operation {cuts}"
        assert again.shards_written <= 2
    assert cuts > 20


def test_a_killed_run_goes_on_without_its_finished_shards(tmp_path):
    tree = make_tree(tmp_path / "tree", train=40, val=2)
    pack_images(str(tree), str(tmp_path / "whole"), options(shard_images=2))
    target = tmp_path / "killed"
    code = (
        "import sys\n"
        "from tests.unit.workloads.data.test_pack import options\n"
        "from workloads.data.pack import pack_images\n"
        "pack_images(sys.argv[1], sys.argv[2], options(shard_images=2))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tree), str(target)])
    deadline = time.monotonic() + 60
    while len(list(target.glob(".packing/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    recorded = len(list(target.glob(".packing/*.json")))
    assert 3 <= recorded < 42
    report = pack_images(str(tree), str(target), options(shard_images=2))
    assert report.shards_written == 42 - recorded
    assert files_of(target) == files_of(tmp_path / "whole")


def test_a_damaged_shard_is_mended_and_the_rest_kept(tree, tmp_path):
    target = tmp_path / "p"
    pack_images(str(tree), str(target), options())
    before = files_of(target)
    damaged = target / "jpeg-20/train-00001.parquet"
    data = bytearray(damaged.read_bytes())
    data[100] ^= 1
    damaged.write_bytes(data)
    (target / "jpeg-20/val-00000.index").unlink()
    assert pack_images(str(tree), str(target), options()).shards_written == 2
    assert files_of(target) == before
    assert pack_images(str(tree), str(target), options()).shards_written == 0


def test_other_options_or_images_are_refused(tree, tmp_path):
    target = str(tmp_path / "p")
    pack_images(str(tree), target, options())
    with pytest.raises(DataError, match=r"other options: jpeg-20, quality 90.*quality 80"):
        pack_images(str(tree), target, options(quality=80))
    other = make_tree(tmp_path / "other", train=7)
    with pytest.raises(DataError, match=r"holds the images of .*tree, not those of .*other"):
        pack_images(str(other), target, options())
    (tree / "train/ant/000.jpeg").write_bytes(jpeg(picture(77)))
    with pytest.raises(DataError, match="have changed since they were packed"):
        pack_images(str(tree), target, options())
    report = pack_images(str(tree), target, options(quality=80), overwrite=True)
    assert report.manifest.options.quality == 80
    pack_images(str(tree), str(tmp_path / "new"), options(quality=80))
    assert files_of(tmp_path / "p") == files_of(tmp_path / "new")


def test_the_same_images_in_another_place_go_on(tree, tmp_path):
    pack_images(str(tree), str(tmp_path / "p"), options())
    tree.rename(tmp_path / "moved")
    report = pack_images(str(tmp_path / "moved"), str(tmp_path / "p"), options())
    assert report.shards_written == 0


def test_images_that_change_during_an_unfinished_pack_are_packed_again(tree, tmp_path):
    target = tmp_path / "p"
    (tree / "val/bee/001.jpeg").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 16 images"):
        pack_images(str(tree), str(target), options())
    (tree / "val/bee/001.jpeg").write_bytes(jpeg(picture(78)))
    (tree / "train/ant/000.jpeg").write_bytes(jpeg(picture(79)))
    assert pack_images(str(tree), str(target), options()).shards_written == 2
    pack_images(str(tree), str(tmp_path / "new"), options())
    assert files_of(target) == files_of(tmp_path / "new")


def test_what_is_not_a_pack_is_left_alone(tree, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"not empty, and holds no pack .*thesis\.tex"):
            pack_images(str(tree), str(mine), options(), overwrite=overwrite)
    (mine / "manifest.json").write_text(json.dumps({"name": "a web page"}))
    with pytest.raises(DataError, match="not written by gcpctl"):
        pack_images(str(tree), str(mine), options(), overwrite=True)
    assert sorted(files_of(mine)) == ["manifest.json", "thesis.tex"]
    with pytest.raises(DataError, match="is a file"):
        pack_images(str(tree), str(mine / "thesis.tex"), options())
    with pytest.raises(DataError, match="local folder"):
        pack_images(str(tree), "s3://bucket/p", options())


def test_a_manifest_may_not_lead_out_of_its_folder(tree, tmp_path):
    pack_images(str(tree), str(tmp_path / "p"), options())
    text = (tmp_path / "p/manifest.json").read_bytes()
    for path in (b"../../etc/passwd", b"/etc/passwd"):
        with pytest.raises(DataError, match="leads out"):
            parse_manifest(text.replace(b"jpeg-20/val-00000.index", path), "p")


def test_another_version_is_named(tree, tmp_path):
    pack_images(str(tree), str(tmp_path / "p"), options())
    text = (tmp_path / "p/manifest.json").read_bytes().replace(b'"version": 1', b'"version": 2')
    text = text.replace(b'"finished"', b'"completed"')
    with pytest.raises(DataError, match="version 2 of the format; this is 1"):
        parse_manifest(text, "p")


def test_a_manifest_with_a_shard_missing_in_a_variant_is_refused(tree, tmp_path):
    pack_images(str(tree), str(tmp_path / "p"), options(ALL))
    content = json.loads((tmp_path / "p/manifest.json").read_bytes())
    del content["shards"][1]["files"]["jpeg-16"]
    with pytest.raises(DataError, match=r"damaged.*train-00001 is not in every variant"):
        parse_manifest(json.dumps(content).encode(), "p")
    with pytest.raises(DataError, match="damaged"):
        parse_manifest(b"{", "p")


def test_bad_images_are_all_named_or_left_out(tree, tmp_path):
    whole = (tree / "train/bee/003.jpeg").read_bytes()
    (tree / "train/bee/003.jpeg").write_bytes(whole[: len(whole) // 2])
    (tree / "train/ant/002.jpeg").write_bytes(b"")
    target = str(tmp_path / "p")
    with pytest.raises(DataError) as caught:
        pack_images(str(tree), target, options())
    assert "2 of 16 images" in caught.value.message
    assert "train/ant/002.jpeg: is empty" in caught.value.message
    assert "train/bee/003.jpeg: " in caught.value.message
    assert "--on-bad-image skip" in caught.value.hint
    report = pack_images(str(tree), target, options(), on_bad_image="skip")
    assert report.shards_written == 2  # the two without bad images had been written
    assert [shard.images for shard in report.manifest.shards] == [3, 4, 3, 4]
    skipped = [name for shard in report.manifest.shards for name in shard.skipped]
    assert skipped == ["train/ant/002.jpeg", "train/bee/003.jpeg"]
    with pytest.raises(DataError, match="2 of 16 images"):
        pack_images(str(tree), target, options())


def test_a_class_may_not_lose_all_its_images(tree, tmp_path):
    for path in (tree / "val/bee").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no readable image is left in .*val/bee"):
        pack_images(str(tree), str(tmp_path / "p"), options(), on_bad_image="skip")


def test_large_images_are_bad(tree, tmp_path):
    with pytest.raises(DataError, match="40x30 pixels, more than max_pixels=1000"):
        pack_images(str(tree), str(tmp_path / "p"), options(max_pixels=1000))


def test_a_full_disk_is_met_before_anything_is_packed(tree, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 5000, 5000))
    with pytest.raises(
        DataError, match=r"16 images needs about 0\.1\d MB, and .*p has 0\.01 MB free"
    ):
        pack_images(str(tree), str(tmp_path / "p"), options(ALL))
    assert not list((tmp_path / "p").rglob("*.parquet"))


def test_a_disk_that_fills_up_keeps_what_is_done(tree, tmp_path, monkeypatch):
    sync, left = durable.sync, 2

    def fill_up(handle):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        sync(handle)

    monkeypatch.setattr(pack, "_refuse_full_disk", lambda *args: None)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync", fill_up)
        with pytest.raises(DataError, match=r"disk of .* is full.*what is done is kept"):
            pack_images(str(tree), str(tmp_path / "p"), options())
    pack_images(str(tree), str(tmp_path / "p"), options())
    pack_images(str(tree), str(tmp_path / "new"), options())
    assert files_of(tmp_path / "p") == files_of(tmp_path / "new")


def test_two_runs_may_not_write_one_folder(tree, tmp_path):
    target = str(tmp_path / "p")

    def second(step):
        if step.images_done == 3:
            with pytest.raises(DataError, match="another gcpctl is packing"):
                pack_images(str(tree), target, options())
            seen.append(step)

    seen = []
    pack_images(str(tree), target, options(), progress=second)
    assert seen


def test_a_name_that_is_no_text_is_refused(tree, tmp_path):
    try:
        os.rename(tree / "train/ant/000.jpeg", os.fsencode(tree / "train/ant") + b"/\xff.jpeg")
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(DataError, match="not UTF-8"):
        pack_images(str(tree), str(tmp_path / "p"), options())


def test_a_folder_that_cannot_be_written_is_refused_in_words(tree):
    with pytest.raises(DataError, match=r"cannot write to /proc/packed: "):
        pack_images(str(tree), "/proc/packed", options())


def test_a_link_to_nothing_is_a_bad_image(tree, tmp_path):
    (tree / "train/ant/link.jpeg").symlink_to("nowhere.jpeg")
    with pytest.raises(DataError, match=r"1 of 17 images.*\n  train/ant/link.jpeg: No such file"):
        pack_images(str(tree), str(tmp_path / "p"), options())
    report = pack_images(str(tree), str(tmp_path / "p"), options(), on_bad_image="skip")
    assert [name for shard in report.manifest.shards for name in shard.skipped] == [
        "train/ant/link.jpeg"
    ]


def test_variants_have_one_order_however_they_are_asked_for():
    one = make_variants(("decoded", "jpeg", "jpeg"), (160, 256, 160), original=True)
    assert [variant.name for variant in one] == [
        "jpeg-original",
        "jpeg-256",
        "jpeg-160",
        "decoded-original",
        "decoded-256",
        "decoded-160",
    ]
    assert Variant(form="jpeg", size=None).suffix == ".parquet"
