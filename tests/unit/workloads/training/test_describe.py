"""Whether a training can begin, told as a worker would tell it."""

import json
import subprocess
import sys

import pytest
import torch

from tests.unit.workloads.training.test_init import network, save_checkpoint
from workloads.config.errors import ConfigError
from workloads.config.model import ModelConfig
from workloads.config.train import InitConfig, TrainConfig
from workloads.training import __main__ as training
from workloads.training.describe import describe_beginning, main
from workloads.training.init import load_initial_weights

DIGITS = [str(digit) for digit in range(10)]
MODEL = {
    "backbone": {"name": "small_resnet", "width": 4, "blocks": [1]},
    "head": {"reduced_channels": 8},
}


def request(weights=None, *, classifier="auto", **changes):
    config = {"model": MODEL, **changes}
    if weights is not None:
        config["init"] = {"weights": str(weights), "classifier": classifier}
    document = TrainConfig.model_validate(config).model_dump(mode="json")
    return {"config": document, "source": "recipe.yaml", "weights": weights is not None}


def refused(*args, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        describe_beginning(request(*args, **kwargs))
    assert caught.value.source == "recipe.yaml"
    return str(caught.value)


@pytest.fixture
def weights(tmp_path):
    model = network(ModelConfig.model_validate(MODEL), num_classes=10, in_channels=1)
    return save_checkpoint(tmp_path / "w.pt", model, classes=DIGITS)


def test_the_sentence_is_the_workers(weights):
    config = InitConfig(weights=str(weights))
    model = network(ModelConfig.model_validate(MODEL), num_classes=10, in_channels=1)
    said = load_initial_weights(model, config, classes=DIGITS)
    assert describe_beginning(request(weights)) == {"told": said}
    assert "classifier" in said


def test_what_does_not_fit_is_said_in_the_workers_words(weights):
    wider = {**MODEL, "head": {"reduced_channels": 16}}
    text = refused(weights, model=wider)
    assert "init.weights: " in text
    assert "its reduction does not fit the network" in text
    assert "model.head.reduced_channels=8 is the file's" in text


def test_classes_in_another_order_cannot_be_kept(tmp_path):
    model = network(ModelConfig.model_validate(MODEL), num_classes=10, in_channels=1)
    path = save_checkpoint(tmp_path / "w.pt", model, classes=DIGITS[::-1])
    assert "another order: number 0 is '9' there" in refused(path, classifier="keep")
    assert "classifier (the file has these" in describe_beginning(request(path))["told"]


def test_where_the_classes_are_unknown_the_rest_is_checked(tmp_path):
    data = {"name": "packed", "path": "s3://bucket/birds"}
    model = ModelConfig.model_validate(MODEL)
    path = save_checkpoint(tmp_path / "w.pt", network(model), classes=list("abcde"))
    kept = request(path, classifier="keep", data=data)
    assert describe_beginning(kept) == {"told": ""}
    columns = network(ModelConfig.model_validate(MODEL))
    path = save_checkpoint(tmp_path / "c.pt", columns, classes=list("abcde"), order="upper_columns")
    text = refused(path, classifier="keep", data=data)
    assert "vectors in the order upper_columns" in text
    torch.save({n: t for n, t in columns.state_dict().items() if "classif" not in n}, path)
    assert "the file has none" in refused(path, classifier="keep", data=data)


def torchvision(**options):
    return {**MODEL, "backbone": {"name": "torchvision", **options}}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (torchvision(model="resnet19"), "no network of torchvision named 'resnet19'"),
        (torchvision(model="resnet18", node="nope"), "no layer of resnet18 named 'nope'"),
        (
            torchvision(model="resnet18"),
            "images of 8x8 give 1x1 after torchvision (model resnet18)",
        ),
        (torchvision(model="inception_v3"), "cannot take images of 8x8"),
    ],
)
def test_networks_that_only_building_tells_of(model, words):
    assert words in refused(model=model)


def test_such_networks_may_have_images_that_are_large_enough():
    assert describe_beginning(request(model=torchvision(model="resnet18"), images={"size": 64}))


def test_it_answers_as_a_program(weights, tmp_path):
    asked = json.dumps(request(weights, model={**MODEL, "head": {"reduced_channels": 16}}))
    command = [sys.executable, "-m", "workloads.training.describe", "beginning", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == 2
    assert "does not fit" in error["message"]
    assert main(["end", asked]) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"seed": -1, "epochs": 0}', ["seed: got -1", "epochs: got 0 (allowed: >= 1"]),
        ("[1]", ["holds no mapping"]),
        ("{", ["cannot be read"]),
    ],
)
def test_a_config_that_no_worker_can_use_is_explained(tmp_path, capsys, text, words):
    file = tmp_path / "config.json"
    file.write_text(text)
    assert training.main(["--config", str(file), "--root", str(tmp_path / "job")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{file}:")
    assert all(word in said for word in words)
