"""`gcpctl submit eval` and `gcpctl predict` without a cluster: real files, real children."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from orchestrator.cli.commands import predict as commands
from orchestrator.cli.options import complete_checkpoints
from orchestrator.cli.published_weights import _entry_of, named_network
from tests.unit.orchestrator.test_cli import gcpctl, home  # noqa: F401 - a fixture
from tests.unit.workloads.data.image_trees import make_tree
from workloads.config.model import ModelConfig
from workloads.config.train import TrainConfig
from workloads.config.zoo import load_zoo
from workloads.models.gcp_net import build_model
from workloads.models.weights.model_file import ModelFile, save_model
from workloads.training.run import build_run
from workloads.training.snapshot import take_snapshot
from workloads.worker.checkpoints import CheckpointStore
from workloads.worker.context import MemoryContext
from workloads.worker.paths import JobPaths

pytestmark = pytest.mark.usefixtures("home")

CLASSES = tuple("abcdefghij")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A small network for gray images of ten classes, as a model file."""
    path = tmp_path_factory.mktemp("weights") / "small.gcpnet"
    config = ModelConfig()
    torch.manual_seed(0)
    state = build_model(config, in_channels=1, num_classes=10).state_dict()
    model = ModelFile(
        config=config, in_channels=1, num_classes=10, classes=CLASSES, state=dict(state)
    )
    save_model(model, path, force=False)
    return path


def save(path: Path, *, in_channels: int, classes: tuple[str, ...] | None) -> None:
    """Write a small network of three outputs."""
    state = build_model(ModelConfig(), in_channels=in_channels, num_classes=3).state_dict()
    model = ModelFile(ModelConfig(), in_channels, 3, classes=classes, state=dict(state))
    save_model(model, path, force=True)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "--checkpoint"),
        (("-c", "x"), 3, "no cluster here yet"),
        (("-c", "runs:/x/net.pth", "--data", "digits"), 3, "no cluster here yet"),
        (("-c", "x:newest"), 2, "x:last"),
        (("-c", "nosuch.pth", "--data", "digits"), 5, "no file"),
        (("-c", "/tmp", "--data", "digits"), 5, "neither a job's nor one of its checkpoints"),
        (("-c", "x", "--crops", "nine"), 2, "'centre', 'flip', 'ten'"),
        (("-c", "x", "--after", "y"), 3, "no cluster here yet"),
    ],
)
def test_mistakes(args, code, words):
    answer = gcpctl("submit", "eval", *args)
    assert words in answer.stderr
    assert answer.returncode == code
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr


def test_a_dry_run_tells_the_network_of_a_file_and_starts_nothing(small, home):  # noqa: F811
    answer = gcpctl(
        "submit", "eval", "-c", str(small), "--data", "digits", "--crops", "flip", "--dry-run",
        "calibration_bins=5", f"classes={json.dumps(list('0123456789'))}",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    config = yaml.safe_load(answer.stdout)
    assert config["weights"] == config["origin"] == str(small)
    assert config["model"] == ModelConfig().model_dump(mode="json")
    assert (config["crops"], config["calibration_bins"]) == ("flip", 5)
    assert config["images"]["mean"] == [0.3053]
    assert "study evaluations" in answer.stdout
    assert not (home / "home with spaces").exists()


def test_a_folder_of_another_number_of_classes_is_refused_and_one_split_is_enough(tmp_path):
    path = tmp_path / "rgb.gcpnet"
    save(path, in_channels=3, classes=None)
    for name in ("a", "b", "c"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "val" / name / "0.png")
    args = ("submit", "eval", "-c", str(path), "--data", str(tmp_path), "--dry-run")
    assert gcpctl(*args).returncode == 0
    (tmp_path / "val" / "d").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "val" / "d" / "0.png")
    answer = gcpctl(*args)
    assert "the network has 3 outputs and the data 4 classes" in answer.stderr
    assert answer.returncode == 2


def refusal(weights, data, *overrides):
    answer = gcpctl(
        "submit", "eval", "-c", str(weights), "--data", str(data), "--dry-run", *overrides
    )
    assert answer.returncode == 2, answer.stdout
    assert "Traceback" not in answer.stderr
    return answer.stderr


def test_classes_that_are_not_the_networks_are_explained_at_once(small, tmp_path):
    other = refusal(small, "digits")
    assert "only the data has '0', '1', '2', '3', '4' and 5 more" in other
    assert "only the weights have 'a', 'b', 'c', 'd', 'e' and 5 more" in other
    turned = f"classes={json.dumps(list('9876543210'))}"
    assert "the same 10 classes in another order (reversed)" in refusal(small, "digits", turned)
    rgb = tmp_path / "rgb.gcpnet"
    for classes in (("ant", "bee", "cat"), None):
        save(rgb, in_channels=3, classes=classes)
        make_tree(tmp_path / "other", classes=("ant", "bee", "cow", "dog"))
        said = refusal(rgb, tmp_path / "other")
        shutil.rmtree(tmp_path / "other")
        if classes is None:
            assert "one more: networks converted from TensorFlow" not in said
            assert "the network has 3 outputs and the data 4 classes" in said
        else:
            assert "only the data has 'cow', 'dog'; only the weights have 'cat'" in said
    make_tree(tmp_path / "two", classes=("ant", "bee"))
    assert "background class as output 0; take its row out" in refusal(rgb, tmp_path / "two")


def test_a_checkpoints_classes_are_told_by_its_manifest(tmp_path):
    paths = JobPaths(tmp_path / "job")
    run = build_run(TrainConfig(), MemoryContext())
    store = CheckpointStore(paths, 1, 1)
    store.claim()
    run.data = replace(run.data, classes=list("9876543210"))
    store.save(take_snapshot(run), step=1, is_best=True)
    assert "(reversed): output 0: '9', the data's class 0: '0'" in refusal(paths.root, "digits")


def test_an_unknown_network_names_the_closest(small):
    answer = gcpctl(
        "submit", "eval", "-c", str(small), "--data", "digits", "--network", "resnet50_isqr_256"
    )
    assert answer.returncode == 2
    assert "did you mean 'resnet50_isqrt_256'" in answer.stderr


def test_a_named_network_brings_its_images():
    known = named_network("inception_v3_gap")
    assert known.images is not None
    assert (known.images.size, known.images.resize) == (299, 342)
    assert named_network("small_resnet_gap").images is None


def test_weights_do_not_tell_stochastic_depth_and_keep_their_name():
    """A file of DeiT's, whose network is told from its weights alone."""
    entry = load_zoo()["deit_small"]
    assert entry.model.backbone.drop_path > 0
    backbone = entry.model.backbone.model_copy(update={"drop_path": 0.0})
    told = entry.model.model_copy(update={"backbone": backbone})
    assert _entry_of(told, 3) == entry


def test_checkpoints_complete_after_the_colon():
    assert complete_checkpoints(None, None, "k7x2:") == ["k7x2:best", "k7x2:last"]
    assert complete_checkpoints(None, None, "k7x2:l") == ["k7x2:last"]


# --- predict -------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, shade in (("dark.png", 10), ("light.png", 240)):
        Image.new("L", (40, 30), shade).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_predict_names_the_likeliest_classes_and_every_bad_file(small, images):
    answer = gcpctl(
        "predict", str(images), "gone.jpg", "-c", str(small), "--top", "3", "-o", "json"
    )
    assert answer.returncode == 2
    found = json.loads(answer.stdout)
    assert found["classes_known"]
    assert [Path(image["path"]).name for image in found["images"]] == ["dark.png", "light.png"]
    for image in found["images"]:
        probabilities = [guess["probability"] for guess in image["predictions"]]
        assert len(probabilities) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert {guess["class"] for guess in image["predictions"]} < set(CLASSES)
    assert {Path(error["path"]).name for error in found["errors"]} == {"broken.png", "gone.jpg"}


def test_predictions_as_a_table():
    guesses = [{"class": "owl", "probability": 0.75}, {"class": "hawk", "probability": 0.125}]
    images = [{"path": name, "predictions": guesses} for name in ("a.jpg", "b.jpg")]
    lines = commands._table({"classes_known": True, "images": images}).splitlines()
    assert lines[0].split() == ["IMAGE", "PROBABILITY", "CLASS"]
    assert lines[1].split() == ["a.jpg", "75.00", "%", "owl"]
    assert lines[2].split() == ["12.50", "%", "hawk"]
    assert lines[3].startswith("b.jpg")
    unnamed = commands._table({"classes_known": False, "images": images})
    assert unnamed.splitlines()[0].endswith("CLASS NUMBER")


def test_names_that_a_terminal_would_obey_are_written_as_text():
    image = {"path": "a\n\x1b[31m.jpg", "predictions": [{"class": "o\twl", "probability": 1.0}]}
    lines = commands._table({"classes_known": True, "images": [image]}).splitlines()
    assert lines[1:] == [r"a\x0a\x1b[31m.jpg  100.00 %     o\x09wl"]


def test_an_empty_path_is_no_name_of_this_folder(small):
    answer = gcpctl("predict", "", "-c", str(small))
    assert answer.returncode == 2
    assert "a path is empty" in answer.stderr


def test_a_jobs_checkpoint_is_found_while_the_cluster_is_down(tmp_path, monkeypatch):
    from tests.unit.orchestrator.test_checkpoints import profile_of, save

    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o600)
    save(tmp_path / "train-a", 4, 8, best=4)
    monkeypatch.setattr(commands, "load_profile", lambda: profile_of(tmp_path))
    assert commands._weights("train-a").name == "step-0000000004"
    assert commands._weights("train-a:last").name == "step-0000000008"


def test_predict_reads_nothing_from_mlflow():
    answer = gcpctl("predict", "a.png", "-c", "runs:/x/net.pth")
    assert answer.returncode == 2
    assert "submit eval" in answer.stderr


def test_predict_takes_more_names_than_the_system_takes_as_one_argument(small):
    names = [f"{'long' * 25}-{number}.png" for number in range(1500)]
    answer = gcpctl("predict", *names, "-c", str(small))
    assert answer.returncode == 2
    assert answer.stderr.count("there is no such file") == len(names)
