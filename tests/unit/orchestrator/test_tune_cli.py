"""`gcpctl tune` without a cluster: the preview, and mistakes met before anything is recorded."""

import pytest
from click.testing import CliRunner

from orchestrator.cli.commands.tune import tune
from workloads.config.errors import ConfigError

RECIPE = "digits_resnet_isqrt"


@pytest.fixture(autouse=True)
def no_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPCTL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GCPCTL_PROFILE", raising=False)


def invoke(*args: str):
    return CliRunner().invoke(tune, [RECIPE, *args, "--dry-run"])


def test_a_dry_run_shows_the_search_before_it_runs(tmp_path):
    found = invoke("--space", "digits", "--trials", "9", "--scheduler", "asha", "epochs=6")
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[0].startswith("# tune-digits-resnet-isqrt-")
    assert "9 trials, tpe with asha." in lines[1]
    row = next(line for line in lines if line.startswith("model.head.pooling.num_iters"))
    assert row.split("  ")[-1].strip() == "model.head.pooling=isqrt"
    assert any(line.startswith("cost: unknown") for line in lines)
    first = next(i for i, line in enumerate(lines) if line.startswith("some points:"))
    assert lines[first + 7] == ""
    assert "epochs: 6" in lines
    assert "nothing was submitted" in found.output
    assert not (tmp_path / "home").exists()


def test_a_grid_shows_its_points():
    found = invoke("--space", "optim.lr=choice(0.1, 0.2)", "--space", "seed=int(0, 2)",
                   "--search", "grid")  # fmt: skip
    assert "the space has 6 points" in found.output
    assert "6 trials, grid." in found.output
    assert "the first points:" in found.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--space", "optim.lr=loguniform(1e-3, 1000)"), "optim.lr: got 1000.0"),
        ((), "--space"),
        (("--space", "digits", "--scheduler", "bohb"), "there is no scheduler 'bohb'"),
        (("--space", "digits", "optim.lrr=1"), "optim.lrr"),
    ],
)
def test_mistakes_are_met_before_anything_is_recorded(args, words, tmp_path):
    found = invoke(*args)
    assert isinstance(found.exception, ConfigError)
    assert words in str(found.exception)
    assert not (tmp_path / "home").exists()
