"""Missing and broken files are met before anything is recorded, whatever the source."""

import gzip
import math
import os
import shutil
import struct
from pathlib import Path

import pytest

from orchestrator.jobs.source_checks import CHECKS, check_files
from workloads.config.data import SOURCE_CONFIGS, TORCHVISION_DATASETS, DigitsConfig
from workloads.config.document import apply_overrides
from workloads.config.errors import ConfigError
from workloads.config.train import TrainConfig
from workloads.config.validate import validate
from workloads.data.errors import DataError
from workloads.data.sources import open_source


def look(*overrides: str) -> None:
    check_files(validate(TrainConfig, apply_overrides({}, overrides), "x"), "my.yaml")


def refused(*overrides: str) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        look(*overrides)
    return str(caught.value)


def idx(path: Path, *shape: int, magic: int = 8) -> None:
    header = bytes((0, 0, magic, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(header + bytes(math.prod(shape)))


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    idx(tmp_path / "train-images-idx3-ubyte.gz", 100, 28, 28)
    idx(tmp_path / "train-labels-idx1-ubyte", 100)
    idx(tmp_path / "t10k-images-idx3-ubyte", 50, 28, 28)
    idx(tmp_path / "t10k-labels-idx1-ubyte.gz", 50)
    return tmp_path


FILES = [name for name, cls in SOURCE_CONFIGS.items() if "path" in cls.model_fields]


def test_every_source_is_looked_at():
    assert set(CHECKS) == set(SOURCE_CONFIGS)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_is_not_there(name, tmp_path):
    more = ["data.dataset=DTD"] if name == "torchvision" else []
    missing = f"{tmp_path}/none"
    assert missing in refused(f"data={name}", f"data.path={missing}", *more)
    file = tmp_path / "file"
    file.touch()
    assert "file" in refused(f"data={name}", f"data.path={file}", *more)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_holds_something_else(name, tmp_path):
    more = ["data.dataset=DTD"] if name == "torchvision" else []
    (tmp_path / "holiday.txt").touch()
    assert str(tmp_path) in refused(f"data={name}", f"data.path={tmp_path}", *more)


def test_folders_in_stores_are_left_to_the_workers():
    look("data=image_folder", "data.path=s3://bucket/images")
    look("data=packed", "data.path=gs://bucket/images")


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cub200", "torchvision"])
def test_what_is_not_read_from_stores_is_refused_there(name):
    more = ["data.dataset=DTD"] if name == "torchvision" else []
    text = refused(f"data={name}", "data.path=s3://bucket/images", *more)
    assert "s3://bucket/images is in a store" in text


@pytest.mark.parametrize("name", FILES)
def test_a_uri_of_this_machine_is_looked_at(name, tmp_path):
    more = ["data.dataset=DTD"] if name == "torchvision" else []
    assert "there is no folder" in refused(f"data={name}", f"data.path=file://{tmp_path}/no", *more)


@pytest.mark.parametrize("name", FILES)
def test_a_path_that_no_folder_can_have(name, tmp_path):
    more = ["data.dataset=DTD"] if name == "torchvision" else []
    (tmp_path / "loop").symlink_to("loop")
    for path in (f"{tmp_path}/{'x' * 300}", f"{tmp_path}/loop"):
        assert path in refused(f"data={name}", f"data.path={path}", *more)


def test_fashion_mnist(fashion):
    look("data=fashion_mnist", f"data.path={fashion}")
    text = refused("data=fashion_mnist", f"data.path={fashion}", "global_batch_size=128")
    assert "128 images make a batch, and fashion_mnist has 100 to train" in text
    text = refused("data=fashion_mnist", f"data.path={fashion}", "steps_per_epoch=2")
    assert "steps_per_epoch: 2 asked for, 100 images make 1" in text


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz"])
def test_fashion_mnist_with_a_file_missing_or_of_another_kind(fashion, name):
    idx(fashion / name, 10, 3, 3)  # images in the place of labels
    assert "is not an IDX file" in refused("data=fashion_mnist", f"data.path={fashion}")
    (fashion / name).write_bytes(b"")
    assert name in refused("data=fashion_mnist", f"data.path={fashion}")
    (fashion / name).unlink()
    text = refused("data=fashion_mnist", f"data.path={fashion}")
    assert "has neither" in text
    assert "dataset-fashion-mnist" in text


def test_fashion_mnist_whose_files_do_not_belong_together(fashion):
    chosen = ("data=fashion_mnist", f"data.path={fashion}")
    idx(fashion / "train-labels-idx1-ubyte", 99)
    assert "100 images and 99 labels of train" in refused(*chosen)
    idx(fashion / "train-labels-idx1-ubyte", 100)
    labels = (fashion / "train-labels-idx1-ubyte").read_bytes()
    (fashion / "train-labels-idx1-ubyte").write_bytes(labels[:-1] + b"\x0a")
    assert "a label of train is 10" in refused(*chosen)
    (fashion / "train-labels-idx1-ubyte").write_bytes(labels)
    look(*chosen)
    packed = (fashion / "train-images-idx3-ubyte.gz").read_bytes()
    (fashion / "train-images-idx3-ubyte.gz").write_bytes(packed[:-9])
    assert "cannot be unpacked" in refused(*chosen)
    idx(fashion / "train-images-idx3-ubyte.gz", 100, 32, 32)
    assert "the images of train are 32x32" in refused(*chosen)


@pytest.mark.parametrize("nested", [True, False])
def test_cifar(tmp_path, nested):
    folder = tmp_path / "cifar-10-batches-bin" if nested else tmp_path
    folder.mkdir(exist_ok=True)
    for name in [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]:
        (folder / name).write_bytes(bytes(20 * 3073))
    (folder / "batches.meta.txt").write_text("".join(f"class {n}\n" for n in range(10)))
    chosen = ("data=cifar10", f"data.path={tmp_path}")
    look(*chosen)
    assert "has 100 to train" in refused(*chosen, "global_batch_size=102")
    (folder / "data_batch_2.bin").write_bytes(b"\x0a" + bytes(20 * 3073 - 1))
    assert "data_batch_2.bin: a label is 10" in refused(*chosen)
    os.truncate(folder / "data_batch_2.bin", 3072)
    assert "data_batch_2.bin has 3072 bytes" in refused(*chosen)
    (folder / "data_batch_3.bin").unlink()
    assert "lacks data_batch_3.bin" in refused(*chosen)
    text = refused("data=cifar100", f"data.path={tmp_path}")
    assert "for CIFAR-10: data.name=cifar10" in text


def test_cub200(tmp_path):
    folder = tmp_path / "CUB_200_2011"
    (folder / "images").mkdir(parents=True)
    (folder / "images.txt").write_text("".join(f"{i} {i}.jpg\n" for i in range(100)))
    (folder / "image_class_labels.txt").write_text("".join(f"{i} {i % 3}\n" for i in range(100)))
    (folder / "classes.txt").write_text("0 a\n1 b\n2 c\n")
    text = refused("data=cub200", f"data.path={tmp_path}")
    assert "lacks train_test_split.txt" in text
    (folder / "train_test_split.txt").write_text("".join(f"{i} {i % 2}\n" for i in range(100)))
    assert "0.jpg: No such file" in refused("data=cub200", f"data.path={tmp_path}")
    for number in range(100):
        (folder / "images" / f"{number}.jpg").write_bytes(b"an image")
    look("data=cub200", f"data.path={tmp_path}", "global_batch_size=50")
    assert "has 50 to train" in refused(
        "data=cub200", f"data.path={tmp_path}", "global_batch_size=52"
    )


@pytest.mark.parametrize("dataset", TORCHVISION_DATASETS)
def test_torchvision_sets_are_looked_for_where_torchvision_does(tmp_path, dataset):
    text = refused("data=torchvision", f"data.path={tmp_path}", f"data.dataset={dataset}")
    assert f"torchvision looks for {dataset}" in text
    for _ in range(10):  # until all that is needed is there
        if f"torchvision looks for {dataset}" not in text:
            break
        (tmp_path / text.partition(" has no ")[2].partition(",")[0]).mkdir(parents=True)
        try:
            look("data=torchvision", f"data.path={tmp_path}", f"data.dataset={dataset}")
            text = ""
        except DataError as error:
            text = str(error)
    assert text == ""


def test_splits_that_torchvision_has_not(tmp_path):
    (tmp_path / "eurosat/2750").mkdir(parents=True)
    where = ("data=torchvision", f"data.path={tmp_path}")
    text = refused(*where, "data.dataset=EuroSAT", "data.train_split=train")
    assert "EuroSAT has no splits" in text
    text = refused(*where, "data.dataset=DTD", "data.val_split=vall")
    assert "data.val_split: DTD has no split 'vall'" in text
    assert "did you mean 'val'?; allowed: train, val, test" in text
    text = refused(*where, "data.dataset=STL10", "data.train_split=unlabeled")
    assert "with labels (allowed: train, test)" in text


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    from workloads.data.pack_manifest import (
        Manifest,
        PackOptions,
        Shard,
        ShardFiles,
        Source,
        StoredFile,
        Variant,
        manifest_bytes,
    )

    root = tmp_path / "packed"
    shards = []
    for split, images in (("train", 70), ("val", 9)):
        files = {}
        for variant in ("jpeg-32", "jpeg-original"):
            stored = []
            for suffix in ("parquet", "index"):
                path = root / variant / f"{split}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * images)
                name = f"{variant}/{split}.{suffix}"
                stored.append(StoredFile(path=name, bytes=images, sha256="0" * 64))
            files[variant] = ShardFiles(data=stored[0], index=stored[1])
        shards.append(
            Shard(
                split=split,
                number=0,
                images=images,
                source="",
                skipped={f"{split}/a/bad.jpg": "is empty"},
                files=files,
            )
        )
    manifest = Manifest(
        finished=True,
        source=Source(path="/src", images=81, digest=""),
        options=PackOptions(
            variants=(Variant(form="jpeg", size=32), Variant(form="jpeg", size=None))
        ),
        classes=("a", "b"),
        shards=tuple(shards),
    )
    (root / "manifest.json").write_bytes(manifest_bytes(manifest))
    return root


def test_packed_images(packed):
    chosen = ("data=packed", f"data.path={packed}", "data.variant=jpeg-32")
    look(*chosen)
    assert "several variants: jpeg-32, jpeg-original" in refused(*chosen[:2])
    assert "no variant 'jpeg-64'" in refused(*chosen[:2], "data.variant=jpeg-64")
    assert "has 70 to train" in refused(*chosen, "global_batch_size=80")
    (packed / "jpeg-original" / "val.index").unlink()
    look(*chosen)
    os.truncate(packed / "jpeg-32" / "val.parquet", 3)
    assert "jpeg-32/val.parquet: has 3 bytes and had 9" in refused(*chosen)
    (packed / "jpeg-32" / "train.index").unlink()
    assert "jpeg-32/train.index: is missing" in refused(*chosen)
    text = (packed / "manifest.json").read_text()
    (packed / "manifest.json").write_text(text.replace('"finished": true', '"finished": false'))
    assert "did not finish" in refused(*chosen)
    (packed / "manifest.json").write_text("{")
    assert "damaged" in refused(*chosen)


def test_initial_weights(tmp_path):
    missing = tmp_path / "resnet50.pth"
    assert f"init.weights: there is no file {missing}" in refused(f"init.weights={missing}")
    for content in (b"", b"<html>", b"weights of a network"):
        missing.write_bytes(content)
        assert f"{missing} is no file of weights" in refused(f"init.weights={missing}")
    for content in (b"PK\x03\x04...", b"\x80\x02\x8a"):  # torch.save, and as it was before 1.6
        missing.write_bytes(content)
        look(f"init.weights={missing}")
    assert "is a folder without a checkpoint" in refused(f"init.weights={tmp_path}")
    (tmp_path / "state.pt").touch()
    look(f"init.weights={tmp_path}")
    look("init.weights=/storage/train-x7:best")  # of a job that has saved nothing yet
    look("init.weights=/storage/train-x7:1200")


def test_an_image_folder_names_the_first_broken_image(tmp_path):
    from PIL import Image

    for split in ("train", "val"):
        for name in ("a", "b"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(40):
                Image.new("RGB", (9, 9), (number, 0, 0)).save(folder / f"{number}.png")
    arguments = ("data=image_folder", f"data.path={tmp_path}")
    look(*arguments)
    assert "has 80 to train" in refused(*arguments, "global_batch_size=82")
    (tmp_path / "train" / "b" / "3.png").write_bytes(b"no image")
    assert "3.png" in refused(*arguments)
    skipping = (*arguments, "data.on_bad_image=skip")
    look(*skipping)
    assert "has 79 to train" in refused(*skipping, "global_batch_size=80")
    shutil.rmtree(tmp_path / "val" / "b")
    assert "val" in refused(*arguments)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.97])
def test_the_digits_left_to_train_on_are_counted_without_reading_them(fraction: float) -> None:
    data = DigitsConfig(val_fraction=fraction)
    assert CHECKS["digits"](data) == len(open_source(data).train)
