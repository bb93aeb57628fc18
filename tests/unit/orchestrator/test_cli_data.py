"""`gcpctl data check | pack`: texts, exit codes, JSON, and what an interrupt leaves."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli.errors import run_and_exit
from orchestrator.cli.main import cli
from tests.architecture.test_imports import loaded_by
from tests.unit.workloads.data.image_trees import files_of, make_tree
from workloads.data.pack import pack_images
from workloads.data.pack_manifest import PackOptions, make_variants

ONE_PROCESS = ("--workers", "1")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_tree(tmp_path / "tree", train=3, val=1)


@pytest.fixture
def gcpctl(capsys):
    """The command line from its arguments to its exit code, in this process."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as caught:
            run_and_exit(cli, [*args, *ONE_PROCESS])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(args, caught.value.code, said.out, said.err)

    return run


def test_check_says_what_stops_a_training(tree, gcpctl):
    done = gcpctl("data", "check", "tree")
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 images in 2 classes" in done.stdout
    assert "warning  2 classes have fewer than 5 training images" in done.stdout
    (tree / "train/ant/000.jpeg").write_bytes(b"")
    (tree / "train/ant/001.txt").write_bytes(b"")
    done = gcpctl("data", "check", "tree")
    assert done.returncode == 8
    words = ["problem  1 image cannot be read", "train/ant/000.jpeg: is empty", "note     1 file"]
    assert [word for word in words if word not in done.stdout] == []
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[1:])

    done = gcpctl("data", "check", "tree", "-o", "json")
    assert done.returncode == 8
    answer = json.loads(done.stdout)
    assert answer["stops_training"]
    assert answer["counts"]["val"] == {"ant": 1, "bee": 1}
    assert [one["kind"] for one in answer["findings"]] == [
        "unreadable",
        "few_images",
        "passed_over",
    ]


def test_many_classes_are_counted_when_asked_for(tmp_path, gcpctl):
    names = tuple(f"c{number:02d}" for number in range(12))
    tree = make_tree(tmp_path / "tree", train=1, val=1, classes=names)
    assert "c07" not in gcpctl("data", "check", str(tree)).stdout.partition("warning")[0]
    assert "    1    1  c07" in gcpctl("data", "check", str(tree), "--classes").stdout


def test_pack_tells_how_to_train_on_it(tree, tmp_path, gcpctl):
    done = gcpctl("data", "pack", "tree", "packed", "--size", "16", "--format", "decoded")
    assert done.returncode == 0, done.stderr
    assert "decoded-16       8       2" in done.stdout
    assert f"data.name=packed data.path={tmp_path / 'packed'}\n" in done.stdout
    again = gcpctl("data", "pack", "tree", "packed", "--size", "16", "--format", "decoded")
    assert "all shards were there and have their checksums" in again.stdout
    done = gcpctl("data", "check", "packed", "-o", "json")
    assert (done.returncode, json.loads(done.stdout)["form"]) == (0, "packed")


def test_pack_answers_in_json(tree, gcpctl):
    both = ("--format", "jpeg", "--format", "decoded")
    done = gcpctl("data", "pack", "tree", "p", *both, "--original", "--size", "16", "-o", "json")
    answer = json.loads(done.stdout)
    assert list(answer["variants"]) == [
        "jpeg-original",
        "jpeg-16",
        "decoded-original",
        "decoded-16",
    ]
    assert (answer["images"], answer["shards"], answer["shards_written"]) == (8, 2, 2)
    only = gcpctl("data", "pack", "tree", "q", "--original", "-o", "json")
    assert list(json.loads(only.stdout)["variants"]) == ["jpeg-original"]
    usual = gcpctl("data", "pack", "tree", "r", "-o", "json")
    assert list(json.loads(usual.stdout)["variants"]) == ["jpeg-256"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["check", "nowhere"], "there is no folder nowhere"),
        (["check", "s33://bucket/x"], "unknown scheme 's33'"),
        (["pack", "nowhere", "p"], "there is no folder nowhere"),
        (["pack", "tree", "tree"], "not empty, and holds no pack"),
        (["pack", "tree", "s3://bucket/p"], "local folder"),
        (["pack", "tree", "p", "--size", "0"], "not in the range"),
        (["pack", "", "p"], "'SRC': must not be empty"),
        (["pack", "tree", " "], "'DST': must not be empty"),
        (["check", ""], "'PATH': must not be empty"),
        (["check", "a\0b"], "holds a NUL"),
        (["check", "~/nowhere-at-all"], f"there is no folder {Path.home()}/nowhere-at-all"),
        (["pack", "tree", "tree/train/pack"], "lies among the images of"),
        (["pack", "tree", "x" * 300], "File name too long"),
    ],
)
def test_mistakes_have_words_and_code_2(tree, args, words, gcpctl):
    done = gcpctl("data", *args)
    assert done.returncode == 2
    assert words in done.stderr
    assert "internal error" not in done.stderr


def test_a_pack_is_not_packed(tree, gcpctl):
    assert gcpctl("data", "pack", "tree", "p").returncode == 0
    done = gcpctl("data", "pack", "p", "q")
    assert done.returncode == 2
    assert "but a manifest.json, as packed images have" in done.stderr
    assert "name the folder of images that it was made of" in done.stderr


def test_a_broken_manifest_says_to_pack_elsewhere(tree, gcpctl):
    gcpctl("data", "pack", "tree", "p")
    manifest = tree.with_name("p") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 2'))
    done = gcpctl("data", "pack", "tree", "p")
    assert "pack the images again into another folder" in done.stderr
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 1'))
    shutil.rmtree(manifest.with_name("jpeg-256"))
    manifest.with_name("jpeg-256").touch()
    assert "jpeg-256 is a file" in gcpctl("data", "pack", "tree", "p").stderr


def test_names_that_a_terminal_obeys_are_written_out(tree, gcpctl):
    for split in ("train", "val"):
        (tree / split / "ant").rename(tree / split / "\x1b[31mant")
    (tree / "val" / "\x1b[31mant" / "a\nb.jpg").write_bytes(b"")
    done = gcpctl("data", "check", str(tree))
    assert r"val/\x1b[31mant/a\x0ab.jpg: is empty" in done.stdout
    assert r"  \x1b[31mant" in done.stdout
    assert r"val/\x1b[31mant/a\x0ab.jpg: is empty" in gcpctl("data", "pack", "tree", "p").stderr
    assert "\x1b" not in done.stdout


def test_a_command_to_copy_is_quoted(tree, tmp_path, gcpctl):
    done = gcpctl("data", "pack", "tree", f"file://{tmp_path}/a b")
    assert f"data.name=packed 'data.path={tmp_path}/a b'" in done.stdout
    done = gcpctl("data", "pack", "tree", f"file://{tmp_path}/a b", "-o", "json")
    assert json.loads(done.stdout)["path"] == f"{tmp_path}/a b"


def test_bad_images_are_named(tree, gcpctl):
    (tree / "val/bee/000.jpeg").write_bytes(b"no")
    done = gcpctl("data", "pack", "tree", "p")
    assert done.returncode == 2
    assert "1 of 8 images" in done.stderr
    assert "val/bee/000.jpeg: is not an image" in done.stderr


def test_an_interrupt_keeps_what_is_done(tmp_path):
    tree = make_tree(tmp_path / "tree", train=250, val=1)
    target = tmp_path / "p"
    command = [sys.executable, "-m", "orchestrator.cli.main", "data", "pack", str(tree)]
    options = ["--shard-images", "2", "--workers", "2"]
    child = subprocess.Popen([*command, str(target), *options], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(target.glob(".packing/*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "the shards that are done are kept" in said
    assert "Traceback" not in said
    assert not list(target.rglob(".*.tmp"))
    same = PackOptions(variants=make_variants(("jpeg",), (256,), original=False), shard_images=2)
    assert pack_images(str(tree), str(target), same).shards_written < 251  # of so many
    pack_images(str(tree), str(tmp_path / "q"), same)
    assert files_of(target) == files_of(tmp_path / "q")


def test_neither_command_loads_torch_ray_or_mlflow(tree):
    calls = (["check", str(tree)], ["pack", str(tree), f"{tree}-packed"])
    code = "from orchestrator.cli.main import cli\n" + "\n".join(
        f"cli.main(['data', *{call}, '--workers', '1'], standalone_mode=False)" for call in calls
    )
    assert not loaded_by(code) & {"torch", "torchvision", "ray", "mlflow", "sklearn"}


def test_help_of_data_is_light():
    modules = loaded_by("import orchestrator.cli.commands.data")
    assert not modules & {"torch", "ray", "mlflow", "numpy", "pyarrow", "pydantic", "rich"}
