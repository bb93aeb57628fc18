"""`gcpctl compare` from arguments to text, on the server in memory."""

import csv
import io
import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from orchestrator.cli.commands import compare as command
from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.store import JobStore
from tests.unit.orchestrator.results.test_collect import Server, evaluate, study, sweep, train


@pytest.fixture
def server():
    """A server with a study, six single jobs and a sweep."""
    server = Server()
    study(server)
    sweep(server)
    for seed in (0, 1, 2):
        for pooling, top1 in (("gap", 90 + seed), ("isqrt", 91 + 1.1 * seed)):
            train(server, f"one-{pooling}-{seed}", pooling, seed, tags={"gcpctl.user": "me"})
            evaluate(server, f"e-{pooling}-{seed}", f"one-{pooling}-{seed}", top1)
    return server


@pytest.fixture
def gcpctl(monkeypatch, server):
    """Run the command."""
    profile = SimpleNamespace(mlflow_url="http://127.0.0.1:1")
    session = SimpleNamespace(store=JobStore(server), profile=profile)  # type: ignore[arg-type]
    monkeypatch.setattr(command, "connect", lambda: session)

    def run(*args: str, code: int = 0):
        answer = CliRunner().invoke(command.compare, args)
        if answer.exception is not None and not isinstance(answer.exception, SystemExit):
            raise answer.exception
        assert answer.exit_code == code, answer.stderr
        return answer

    return run


def test_the_table(gcpctl):
    answer = gcpctl("user=me", "--sort", "top1")
    lines = answer.stdout.splitlines()
    assert lines[0] == "6 trainings of digits_resnet_isqrt"
    assert [line.split()[0] for line in lines[3:5]] == ["pooling=isqrt", "pooling=gap"]
    assert "+1.10  [+0.85, +1.35]  0.003  better" in lines[3]
    assert max(map(len, lines)) <= 100
    assert "compare-runs?runs=" in answer.stderr
    assert "http" not in answer.stdout


def test_the_metric_of_the_study_is_the_default(gcpctl):
    assert json.loads(gcpctl("s", "-o", "json").stdout)["metric"] == "eval/loss"
    assert json.loads(gcpctl("s", "--metric", "top1", "-o", "json").stdout)["metric"] == "eval/top1"
    found = json.loads(gcpctl("w", "-o", "json").stdout)
    assert (found["metric"], found["baseline"]) == ("val/loss", None)


def test_what_is_still_to_come_is_counted_and_what_failed_is_named(gcpctl, server):
    train(server, "one-cov-0", "cov", 0, tags={"gcpctl.user": "me"}, status="RUNNING")
    train(server, "one-cov-1", "cov", 1, tags={"gcpctl.user": "me"}, status="SCHEDULED")
    reason = {"gcpctl.user": "me", "gcpctl.reason": "the loss is nan"}
    train(server, "one-gap-3", "gap", 3, tags=reason, status="FAILED")
    text = gcpctl("user=me").stdout
    assert "not counted yet: 1 RUNNING, 1 SCHEDULED" in text
    assert "not counted: one-gap-3 of pooling=gap, FAILED: the loss is nan" in text
    assert "3 of 4" in text
    assert "0 of 2" in text


def test_csv(gcpctl):
    rows = list(csv.DictReader(io.StringIO(gcpctl("user=me", "-o", "csv").stdout)))
    assert len(rows) == 6
    cells = list(csv.DictReader(io.StringIO(gcpctl("user=me", "-o", "csv", "--cells").stdout)))
    assert [row["eval/top1 n"] for row in cells] == ["3", "3"]


def test_every_format_writes(gcpctl):
    assert gcpctl("user=me", "-o", "md").stdout.startswith("**6 trainings")
    assert "\\toprule" in gcpctl("user=me", "-o", "latex").stdout


def test_mistakes(gcpctl):
    assert "--cells goes with -o csv" in gcpctl("s", "--cells", code=2).stderr
    assert "Missing argument" in gcpctl(code=2).stderr
    with pytest.raises(NotFoundError, match="no column"):
        gcpctl("user=me", "--sort", "speed")
    with pytest.raises(NotFoundError, match="recorded 'val/topp1'"):
        gcpctl("user=me", "--metric", "val/topp1")
