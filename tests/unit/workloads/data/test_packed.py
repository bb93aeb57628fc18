"""Packed images as a source: the same numbers as the folder, and damage met before training."""

import contextlib
import json
import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
import torch
from pyarrow import fs

from tests.unit.workloads.data.image_trees import jpeg, make_tree, picture
from workloads.config.data import ImageFolderConfig, PackedConfig
from workloads.config.images import (
    AugmentConfig,
    ColorJitterConfig,
    ErasingConfig,
    ImagesConfig,
    RandomResizedCropConfig,
)
from workloads.data import filesystem
from workloads.data.check import check_data
from workloads.data.decode import decode_image
from workloads.data.errors import DataError
from workloads.data.image_folder import build_image_folder
from workloads.data.loaders import train_batches, val_batches
from workloads.data.pack import pack_images
from workloads.data.pack_manifest import PackOptions, make_variants
from workloads.data.packed import build_packed
from workloads.data.peers import Peers
from workloads.data.sources import build_data


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = make_tree(tmp_path_factory.mktemp("images") / "tree", train=7, val=3)
    (root / "train/ant/gray.jpg").write_bytes(jpeg(picture(50, mode="L")))
    picture(51, mode="P").save(root / "train/bee/palette.png")
    return root


@pytest.fixture(scope="module")
def packed(tree):
    target = tree.with_name("packed")
    variants = make_variants(("jpeg", "decoded"), (64, 16), original=True)
    pack_images(str(tree), str(target), PackOptions(variants=variants, shard_images=5))
    return target


@pytest.fixture
def copied(packed, tmp_path):
    """A pack that a test may damage, with one variant."""
    target = tmp_path / "p"
    source = packed.with_name("tree")
    variants = make_variants(("decoded",), (16,), original=False)
    pack_images(str(source), str(target), PackOptions(variants=variants, shard_images=5))
    return target


@pytest.mark.parametrize("variant", ["jpeg-original", "jpeg-64", "decoded-64", "decoded-original"])
def test_folder_and_shards_hold_the_same(tree, packed, variant):
    folder = build_image_folder(path=str(tree))
    shards = build_packed(path=str(packed), variant=variant)
    assert shards.classes == folder.classes
    assert (shards.in_channels, shards.max_value, shards.skipped) == (3, 255.0, [])
    for ours, theirs in ((shards.train, folder.train), (shards.val, folder.val)):
        assert list(ours.names) == list(theirs.names)
        assert torch.equal(ours.labels, theirs.labels)
        for index in range(len(theirs)):
            assert torch.equal(ours.load(index), theirs.load(index)), ours.names[index]


@pytest.mark.parametrize("variant", ["jpeg-64", "decoded-64"])
def test_training_and_validation_see_the_same_batches(tree, packed, variant):
    images = ImagesConfig(size=16, resize=20)
    augment = AugmentConfig(
        crop=RandomResizedCropConfig(name="random_resized_crop"),
        flip=0.5,
        color_jitter=ColorJitterConfig(),
        erasing=ErasingConfig(),
    )
    folder = ImageFolderConfig(name="image_folder", path=str(tree))
    shards = PackedConfig(name="packed", path=str(packed), variant=variant)
    one, other = (
        build_data(config, images=images, augment=augment, seed=3) for config in (folder, shards)
    )
    for epoch in (0, 1):
        batches = [
            list(train_batches(data.train, seed=3, epoch=epoch, batch_size_per_worker=4))
            for data in (one, other)
        ]
        assert len(batches[0]) == 4
        for (images_a, labels_a), (images_b, labels_b) in zip(*batches, strict=True):
            assert torch.equal(images_a, images_b)
            assert torch.equal(labels_a, labels_b)
    views = [list(val_batches(data.val, batch_size=4)) for data in (one, other)]
    for a, b in zip(*views, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_smaller_variants_are_smaller(packed):
    image = build_packed(path=str(packed), variant="jpeg-16").train.load(0)
    pixels = build_packed(path=str(packed), variant="decoded-16").train.load(0)
    assert image.shape == pixels.shape == (16, 21, 3)
    assert (image.float() - pixels.float()).abs().mean() < 16  # JPEG was written once more
    assert image.dtype == torch.uint8


def test_a_store_survives_a_pickle_and_a_fork(packed):
    store = build_packed(path=str(packed), variant="jpeg-64").train
    image = store.load(3)
    again = pickle.loads(pickle.dumps(store))
    assert torch.equal(again.load(3), image)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert np.array_equal(pool.apply(_pixels, (store, 3)), image.numpy())


def _pixels(store, index):
    return store.load(index).numpy()


def test_names_are_a_sequence(packed):
    names = build_packed(path=str(packed), variant="jpeg-64").val.names
    assert len(names) == 6
    assert names[0] == "val/ant/000.jpeg"
    assert names[-1] == "val/bee/002.jpeg"
    assert names[1:3] == ["val/ant/001.jpeg", "val/ant/002.jpeg"]
    assert "val/bee/001.jpeg" in names
    with pytest.raises(IndexError):
        names[6]


def test_an_image_written_over_in_memory_harms_no_shard(copied):
    store = build_packed(path=str(copied)).train
    before = store.load(0).clone()
    store.load(0).zero_()
    assert torch.equal(build_packed(path=str(copied)).train.load(0), before)


def test_the_only_variant_needs_no_name_and_others_are_listed(packed, copied):
    assert build_packed(path=str(copied)).train.load(0).shape == (16, 21, 3)
    with pytest.raises(DataError, match=r"several variants: jpeg-original, jpeg-64.*data.variant"):
        build_packed(path=str(packed))
    with pytest.raises(DataError, match=r"no variant 'jpeg-65'.*jpeg-64"):
        build_packed(path=str(packed), variant="jpeg-65")


def test_the_digest_is_of_the_images_and_not_of_the_place(packed, copied, tmp_path):
    digest = build_packed(path=str(copied)).digest
    copied.rename(tmp_path / "moved")
    assert build_packed(path=str(tmp_path / "moved")).digest == digest
    assert build_packed(path=str(packed), variant="decoded-16").digest == digest
    assert build_packed(path=str(packed), variant="jpeg-16").digest != digest


def test_a_damaged_shard_is_named_with_what_to_do(copied):
    path = copied / "decoded-16/train-00001.bin"
    data = bytearray(path.read_bytes())
    data[7] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        build_packed(path=str(copied))
    assert "decoded-16/train-00001.bin: differs from its checksum" in caught.value.message
    assert "gcpctl data pack" in caught.value.hint
    build_packed(path=str(copied), verify=False)


def test_a_file_cut_short_is_met_without_checksums(copied):
    path = copied / "decoded-16/val-00000.bin"
    path.write_bytes(path.read_bytes()[:-1])
    (copied / "decoded-16/train-00000.index").unlink()
    with pytest.raises(DataError) as caught:
        build_packed(path=str(copied), verify=False)
    assert "train-00000.index: is missing" in caught.value.message
    assert "val-00000.bin: has " in caught.value.message


def test_a_broken_image_names_itself_and_its_shard(tree, tmp_path):
    target = tmp_path / "p"
    options = PackOptions(variants=make_variants(("jpeg",), (64,), original=False))
    pack_images(str(tree), str(target), options)
    path = target / "jpeg-64/train-00000.parquet"
    data = path.read_bytes()
    begin = data.index(b"\xff\xd8\xff")
    path.write_bytes(data[:begin] + bytes(200) + data[begin + 200 :])
    store = build_packed(path=str(target), verify=False).train
    with pytest.raises(DataError, match=r"train-00000\.parquet: train/ant/000\.jpeg"):
        store.load(0)
    assert store.load(1).shape == (30, 40, 3)


def test_an_index_of_another_shard_is_refused(copied):
    folder = copied / "decoded-16"
    text = json.loads((copied / "manifest.json").read_text())
    shards = text["shards"]
    first, last = (shards[place]["files"]["decoded-16"] for place in (0, -1))
    first["index"], last["index"] = last["index"], first["index"]
    (copied / "manifest.json").write_text(json.dumps(text))
    assert (folder / "train-00000.index").exists()
    with pytest.raises(DataError, match="does not belong to its shard"):
        build_packed(path=str(copied))


def renamed_class(text):
    text["classes"] = ["ant", "ant"]


def one_class(text):
    text["classes"] = ["ant"]


def without_val(text):
    skipped = [shard for shard in text["shards"] if shard["split"] == "val"]
    text["shards"] = [shard for shard in text["shards"] if shard["split"] == "train"]
    text["source"]["images"] -= sum(shard["images"] for shard in skipped)


def one_shard_less(text):
    text["shards"].pop(0)


def last_shard_less(text):
    text["shards"].pop()


def one_file_twice(text):
    first, last = (text["shards"][place]["files"]["decoded-16"] for place in (0, -1))
    first["data"] = last["data"]


def fewer_images(text):
    text["shards"][0]["images"] -= 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (renamed_class, "a class is named twice"),
        (one_class, "holds one class, ant"),
        (without_val, "holds no images of val"),
        (one_shard_less, "shards of train are not numbered from 0 on"),
        (last_shard_less, "images are in the shards"),
        (one_file_twice, "a file belongs to two shards"),
        (fewer_images, "images are in the shards"),
    ],
)
def test_an_edited_manifest_is_refused(copied, edit, words):
    text = json.loads((copied / "manifest.json").read_text())
    edit(text)
    (copied / "manifest.json").write_text(json.dumps(text))
    for look in (build_packed, check_data):
        with pytest.raises(DataError, match=words):
            look(path=str(copied))


def test_labels_beyond_the_classes_are_refused(tree, tmp_path):
    more = make_tree(tmp_path / "more", classes=("ant", "bee", "cat"))
    options = PackOptions(variants=make_variants(("jpeg",), (16,), original=False))
    pack_images(str(more), str(tmp_path / "p"), options)
    manifest = tmp_path / "p/manifest.json"
    text = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(text | {"classes": ["ant", "bee"]}))
    for look in (build_packed, check_data):
        with pytest.raises(DataError, match=r"train-00000\.index has images of classes"):
            look(path=str(tmp_path / "p"))


def test_a_manifest_nested_without_end_is_no_manifest(copied):
    (copied / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="was not written by gcpctl"):
        build_packed(path=str(copied))


def test_a_file_in_the_place_of_a_variant_is_damage(copied):
    folder = copied / "decoded-16"
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(DataError, match=r"decoded-16/train-00000\.bin: is missing"):
        build_packed(path=str(copied), variant="decoded-16")


def test_what_is_no_finished_pack_is_refused(copied, tree, tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json.*data\.name=image_folder"):
        build_packed(path=str(tree))
    with pytest.raises(DataError, match="there is no folder"):
        build_packed(path=str(tmp_path / "nowhere"))
    manifest = copied / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished": true', '"finished": false'))
    with pytest.raises(DataError, match=r"did not finish.*goes on"):
        build_packed(path=str(copied))


def test_ranks_share_the_checking_and_all_hear_of_damage(copied):
    path = copied / "decoded-16/train-00001.bin"
    path.write_bytes(bytes(path.stat().st_size))
    heard = []
    for rank in range(3):
        own = []

        def gather(value, own=own):
            own.append(value)
            return [value]

        with contextlib.suppress(DataError):
            build_packed(path=str(copied), peers=Peers(rank=rank, world_size=3, gather=gather))
        assert len(own) == 1
        heard.append(own[0])
    assert sum("decoded-16/train-00001.bin" in found for found in heard) == 1
    with pytest.raises(DataError, match="train-00001"):
        build_packed(path=str(copied), peers=Peers(rank=0, world_size=3, gather=lambda _: heard))


def test_a_rank_that_cannot_look_still_tells_the_others(tmp_path):
    told = []
    peers = Peers(rank=1, world_size=2, gather=lambda value: told.append(value) or [value, {}])
    with pytest.raises(DataError, match="no folder"):
        build_packed(path=str(tmp_path / "nowhere"), peers=peers)
    assert told == [{}]


@pytest.mark.parametrize("variant", ["jpeg-64", "decoded-16"])
def test_a_pack_in_a_store_gives_the_same_images(packed, monkeypatch, variant):
    local = build_packed(path=str(packed), variant=variant)
    stand_in = fs.SubTreeFileSystem(str(packed.parent), fs.LocalFileSystem())
    monkeypatch.setattr(
        filesystem, "_open_remote", lambda uri: (stand_in, uri.removeprefix("s3://"))
    )
    remote = build_packed(path=f"s3://{packed.name}", variant=variant)
    assert remote.digest == local.digest
    assert list(remote.train.names) == list(local.train.names)
    for index in range(len(local.train)):
        assert torch.equal(remote.train.load(index), local.train.load(index))


def test_the_one_decoder_reads_both(tree, packed):
    name = "train/bee/palette.png"
    store = build_packed(path=str(packed), variant="jpeg-original").train
    index = list(store.names).index(name)
    expected = decode_image((tree / name).read_bytes(), name=name)
    assert np.array_equal(store.load(index).numpy(), expected)
