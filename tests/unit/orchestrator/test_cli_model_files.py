"""`gcpctl model convert | export`: what they ask the child, and what they print."""

import json
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from orchestrator.cli.commands.model_files import convert, export
from orchestrator.cli.network_page import options_text
from orchestrator.cli.options import complete_networks
from tests.unit.orchestrator.test_cli import gcpctl
from workloads.config.model import ModelConfig
from workloads.models.__main__ import respond
from workloads.models.gcp_net import build_model


@pytest.fixture
def weights(tmp_path, monkeypatch):
    config = ModelConfig.model_validate({"backbone": {"name": "small_resnet", "width": 4}})
    state = build_model(config, in_channels=1, num_classes=3).state_dict()
    checkpoint = {"epoch": 7, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    torch.save(checkpoint, tmp_path / "net.pth.tar")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "net.pth.tar"


def test_convert_then_export_from_end_to_end(weights):
    done = gcpctl("model", "convert", str(weights), "head.pooling.num_iters=3")
    assert done.returncode == 0, done.stderr
    assert "small_resnet" in done.stdout
    assert "num_iters 3" in done.stdout
    assert "epoch 7" in done.stdout
    assert "written     net.gcpnet" in done.stdout
    assert "KEY=VALUE" in done.stderr

    done = gcpctl("model", "export", "net.gcpnet", "--format", "torch-export", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["exported"]["batch_sizes"] == [1, 2, 5]
    assert found["exported"]["difference"] < 1e-4
    assert sorted(path.name for path in weights.parent.iterdir()) == [
        "net.gcpnet",
        "net.pt2",
        "net.pth.tar",
    ]


def test_options_are_written_as_a_recipe_has_them():
    assert options_text({"node": None, "last_pool": True, "blocks": [1, 2], "hidden": []}) == (
        " (node null, last_pool true, blocks 1 2, hidden none)"
    )
    assert options_text({}) == ""


def test_a_mistake_ends_with_its_own_code(weights):
    done = gcpctl("model", "convert", "none.pth")
    assert (done.returncode, done.stdout) == (5, "")
    assert "there is no file none.pth" in done.stderr


def ask(**changes) -> dict[str, Any]:
    """Ask for a conversion without a process of its own."""
    request = {
        "file": "net.pth.tar",
        "output": None,
        "overrides": [],
        "zoo_name": None,
        "vector_order": None,
        "reorder": False,
        "force": False,
        "dry_run": False,
    }
    return respond("convert", json.dumps(request | changes))


def test_a_dry_run_writes_nothing_and_a_second_run_needs_force(weights):
    assert ask(dry_run=True)["answer"]["written"] is None
    assert [path.name for path in weights.parent.iterdir()] == ["net.pth.tar"]
    (weights.parent / "net.gcpnet").touch()
    error = ask()["error"]
    assert (error["exit_code"], "--force" in error["hint"]) == (6, True)
    assert ask(force=True)["answer"]["written"]["path"] == "net.gcpnet"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"file": "none.pth"}, 5, "there is no file none.pth"),
        ({"zoo_name": "resnet18_gpa"}, 5, "did you mean 'resnet18_gap'"),
        ({"zoo_name": "resnet18_gap"}, 2, "do not fit the network"),
        ({"overrides": ["head.poling=cov"]}, 2, "did you mean 'pooling'"),
        ({"output": "no/such.gcpnet"}, 5, "there is no folder no"),
    ],
)
def test_mistakes_are_answers_for_people(changes, code, words, weights):
    error = ask(**changes)["error"]
    assert error["exit_code"] == code
    assert words in f"{error['message']} {error['hint']}"


def test_what_the_system_refuses_is_said(weights):
    (weights.parent / "loop").symlink_to("loop")
    error = ask(output="loop/a.gcpnet", dry_run=False)["error"]
    assert "loop" in error["message"]


@pytest.mark.parametrize("batch", ["0", "-1", "many", "2.5"])
def test_a_batch_is_dynamic_or_a_number(batch):
    result = CliRunner().invoke(export, ["a.gcpnet", "--format", "onnx", "--batch", batch])
    assert result.exit_code == 2
    assert "neither 'dynamic' nor a number" in result.output


def test_requests_carry_every_option(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "orchestrator.cli.commands.model_files.ask_models",
        lambda verb, request: asked.append((verb, request)) or {"assumed": []},
    )
    monkeypatch.setattr("orchestrator.cli.commands.model_files.render", lambda found: "text")
    common = {
        "file": "f",
        "overrides": ["a.b=1"],
        "output": "o",
        "force": True,
        "zoo_name": "resnet18_gap",
        "vector_order": "upper_columns",
        "reorder": True,
    }
    options = ["f", "a.b=1", "-o", "o", "--force", "--as", "resnet18_gap", "--reorder"]
    options += ["--vector-order", "upper_columns"]
    runner = CliRunner()
    assert runner.invoke(convert, [*options, "--dry-run"]).output == "text\n"
    runner.invoke(export, [*options, "--format", "onnx", "--batch", "4", "--image-size", "64"])
    assert asked == [
        ("convert", {**common, "dry_run": True}),
        ("export", {**common, "format": "onnx", "batch": 4, "image_size": 64}),
    ]


def test_names_of_networks_are_completed():
    found = complete_networks(None, None, "resnet50_iso")
    assert found == []
    assert "resnet50_isqrt_256" in complete_networks(None, None, "resnet50_isq")
