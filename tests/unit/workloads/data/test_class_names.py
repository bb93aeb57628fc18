"""The names told without torch are those that the images are numbered by."""

import shutil
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from tests.unit.workloads.data.image_trees import make_tree
from tests.unit.workloads.data.test_cifar import binary10, binary100, python10, python100
from tests.unit.workloads.data.test_cub200 import folder as cub200_folder  # noqa: F401 - a fixture
from tests.unit.workloads.data.test_fashion_mnist import folder_of
from workloads.config.data import SOURCE_CONFIGS, DataConfig
from workloads.data.class_names import class_names
from workloads.data.errors import DataError
from workloads.data.pack import pack_images
from workloads.data.pack_manifest import PackOptions, make_variants
from workloads.data.sources import open_source


def config_of(name, path=None, **options):
    given = {"name": name, **({} if path is None else {"path": str(path)}), **options}
    return TypeAdapter(DataConfig).validate_python(given)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("fashion_mnist", folder_of),
        ("cifar10", python10),
        ("cifar10", binary10),
        ("cifar100", python100),
        ("cifar100", binary100),
        ("image_folder", make_tree),
    ],
)
def test_files_of_a_known_form(name, write, tmp_path):
    write(tmp_path)
    config = config_of(name, tmp_path)
    assert class_names(config) == open_source(config).classes


def test_digits():
    config = config_of("digits")
    assert class_names(config, "val") == open_source(config).classes


def test_cub200(cub200_folder):  # noqa: F811
    config = config_of("cub200", cub200_folder)
    assert class_names(config) == open_source(config).classes
    (cub200_folder / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt"):
        class_names(config)


def test_a_pack_names_those_of_its_folder(tmp_path):
    tree = tmp_path / "tree"
    make_tree(tree)
    variants = make_variants(("jpeg",), (16,), original=False)
    pack_images(str(tree), str(tmp_path / "pack"), PackOptions(variants=variants))
    folder, packed = config_of("image_folder", tree), config_of("packed", tmp_path / "pack")
    assert class_names(packed) == class_names(folder) == open_source(packed).classes
    assert class_names(config_of("packed", f"file://{tmp_path}/pack")) == class_names(folder)
    with pytest.raises(DataError, match=r"manifest\.json"):
        class_names(config_of("packed", tree))


def test_of_a_folder_the_split_that_is_read_is_enough(tmp_path):
    make_tree(tmp_path)
    names = class_names(config_of("image_folder", tmp_path))
    shutil.rmtree(tmp_path / "train")
    assert class_names(config_of("image_folder", tmp_path), "val") == names
    with pytest.raises(DataError, match="has no folder 'train'"):
        class_names(config_of("image_folder", tmp_path), "train")


def test_what_only_the_images_tell_is_not_guessed(tmp_path):
    assert class_names(config_of("image_folder", "s3://bucket/birds")) is None
    assert class_names(config_of("torchvision", tmp_path, dataset="SVHN")) is None
    known = {"digits", "fashion_mnist", "cifar10", "cifar100", "image_folder", "packed", "cub200"}
    assert set(SOURCE_CONFIGS) - known == {"torchvision"}


def test_nothing_heavy_is_imported(tmp_path):
    make_tree(tmp_path)
    code = (
        "import sys; from workloads.config.data import ImageFolderConfig as C; "
        "from workloads.data.class_names import class_names; "
        f"class_names(C(name='image_folder', path={str(tmp_path)!r})); "
        "sys.exit(bool({'torch', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
