"""What is looked into before a training is sent off."""

import pytest
import torch
from click.testing import CliRunner

from orchestrator.cli import sending
from orchestrator.cli.commands.submit import submit
from orchestrator.cli.commands.tune import tune
from orchestrator.cli.sending import check_beginnings, weights_of
from orchestrator.jobs.errors import GcpctlError
from orchestrator.jobs.plan import Request, plan_train
from workloads.config.model import ModelConfig
from workloads.models.gcp_net import build_model

RECIPE = "digits_resnet_isqrt"


@pytest.fixture(autouse=True)
def no_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPCTL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GCPCTL_PROFILE", raising=False)


@pytest.fixture
def weights(tmp_path):
    """Of a network that has 4 channels where the recipe's has 32."""
    narrow = {"backbone": {"name": "small_resnet", "width": 4}}
    model = build_model(ModelConfig.model_validate(narrow), in_channels=1, num_classes=10)
    torch.save(model.state_dict(), tmp_path / "narrow.pt")
    return tmp_path / "narrow.pt"


@pytest.fixture
def asked(monkeypatch):
    """Count the child processes; they answer all the same."""
    questions, ask = [], sending.ask

    def count(module, verb, request):
        questions.append(request)
        return ask(module, verb, request)

    monkeypatch.setattr(sending, "ask", count)
    return questions


def test_weights_that_do_not_fit_are_refused_before_anything_is_sent(weights):
    arguments = ["train", RECIPE, f"init.weights={weights}"]
    for more in (["--dry-run"], []):
        error = CliRunner().invoke(submit, [*arguments, *more]).exception
        assert isinstance(error, GcpctlError)
        assert error.exit_code == 2
        assert "init.weights: " in error.message
        assert "model.backbone.width=4" in error.message
    fits = CliRunner().invoke(submit, [*arguments, "--dry-run", "model.backbone.width=4"])
    assert fits.exit_code == 0, fits.output
    assert "the workers will say: began with features" in fits.stderr


def test_a_training_without_weights_asks_nobody(asked):
    assert CliRunner().invoke(submit, ["train", RECIPE, "--dry-run"]).exit_code == 0
    plan = plan_train(RECIPE, ["init.weights=/storage/train-x7:best"], Request())
    check_beginnings([("x", plan)])  # of a job that has saved nothing yet
    assert asked == []


def test_a_study_asks_once_for_what_begins_alike_and_not_for_much(weights, asked):
    def plans(count):
        changes = [f"model.head.reduced_channels={8 + number}" for number in range(count)]
        given = ["model.backbone.width=4", f"init.weights={weights}"]
        return [
            (change, plan_train(RECIPE, [*given, change, f"seed={seed}"], Request()))
            for change in changes
            for seed in range(2)
        ]

    with pytest.raises(GcpctlError, match=r"^model.head.reduced_channels=8:"):
        check_beginnings(plans(2))
    assert len(asked) == 1


def test_of_a_large_study_the_first_beginnings_are_looked_into_and_told_once(asked, monkeypatch):
    def answer(*question):
        asked.append(question)
        return {"told": "began with features"}

    monkeypatch.setattr(sending, "ask", answer)
    lines = []
    monkeypatch.setattr(sending, "talk", lines.append)
    network = "model.backbone={name: torchvision, model: resnet18}"
    sizes = [f"images.size={32 + 8 * number}" for number in range(6)]
    check_beginnings([(s, plan_train(RECIPE, [network, s], Request())) for s in sizes])
    assert len(asked) == 4
    assert lines == ["the workers will say: began with features"]


def test_a_search_over_networks_is_not_looked_into(weights, asked):
    space = ("--space", "optim.lr=uniform(0.1, 1)")
    arguments = [RECIPE, f"init.weights={weights}", "--dry-run"]
    assert "do not fit" in str(CliRunner().invoke(tune, [*arguments, *space]).exception)
    over = ("--space", "model.backbone.width=choice(4, 8)")
    assert CliRunner().invoke(tune, [*arguments, *over]).exit_code == 0
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("text", "words"), [("train-x7:foo", "init.weights 'train-x7:foo'"), (" ", "is empty")]
)
def test_weights_of_no_known_form_are_said_of_their_key(text, words):
    with pytest.raises(GcpctlError) as caught:
        weights_of(text, ())
    assert words in caught.value.message
    assert "--checkpoint" not in caught.value.message


def test_a_checkpoint_of_a_jobs_folder_is_looked_for_now(tmp_path):
    job = tmp_path / "train-x7"
    step = job / "checkpoints" / "step-0000000012"
    step.mkdir(parents=True)
    assert weights_of(f"{job}:last", ()) == weights_of(f"{job}:12", ()) == str(step)
    with pytest.raises(GcpctlError, match="train-x7 has no checkpoint of step 7"):
        weights_of(f"{job}:7", ())
    assert weights_of(f"{job}:7", ("train-x7",)) == f"{job}:7"  # it may come
    assert weights_of(f"{tmp_path}/other:best", ()) == f"{tmp_path}/other:best"
