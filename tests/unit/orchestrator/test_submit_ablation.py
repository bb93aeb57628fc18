"""`gcpctl submit ablation` without a cluster."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import study_page
from orchestrator.cli.commands.recipes import recipes
from orchestrator.cli.commands.submit_ablation import ablation, complete_studies
from orchestrator.cli.errors import run_and_exit
from orchestrator.jobs.plan import Request
from orchestrator.jobs.plan_study import StudyRequest, as_job, plan_study
from orchestrator.jobs.reuse import all_new
from orchestrator.jobs.states import State
from orchestrator.results.past_cost import Estimate
from tests.unit.orchestrator.test_cli import gcpctl, home  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("home")


def dry_run(*args: str) -> tuple[str, str]:
    answer = CliRunner().invoke(ablation, [*args, "--dry-run"], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout, answer.stderr


def test_a_dry_run_needs_no_cluster_and_starts_none(home):  # noqa: F811
    text, talk = dry_run("pooling", "--seeds", "0,4", "--only", "*=isqrt", "optim.lr=0.1")
    assert talk == "nothing was submitted\n"
    lines = text.splitlines()
    assert lines[0].startswith("# Which pooling")
    assert "seeds 0 4" in lines[1]
    assert "# in every cell: optim.lr=0.1" in lines
    rows = [line.split(maxsplit=1)[0] for line in lines if line.startswith("pooling=")]
    assert rows == ["pooling=gap", "pooling=isqrt"]
    assert re.search(r"pooling=isqrt +0 4 +2 new +\? +model.head.pooling=isqrt", text)
    assert "to be run: 4 trainings and 4 evaluations; " in lines[-1]
    assert "time is unknown" in lines[-1]
    assert not (home / "home with spaces").exists()


def test_the_same_for_scripts():
    text, _ = dry_run("isqrt_iterations", "--seeds", "3", "-o", "json", "--max-parallel", "2")
    found = json.loads(text)
    assert (found["new_trainings"], found["new_evaluations"]) == (6, 6)
    assert found["config"]["max_parallel"] == 2
    assert found["baseline"] == "iterations=5"
    cell = found["cells"][1]
    assert cell["differs"] == {"model.head.pooling.num_iters": 1}
    (job,) = cell["jobs"]
    assert (job["seed"], job["training"]["action"], job["training"]["state"]) == (3, "new", None)
    assert len(job["training"]["config_sha256"]) == 64


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "Usage:"),
        (("poling",), 5, "did you mean 'pooling'?"),
        (("digits_resnet_gap",), 5, "gcpctl submit train digits_resnet_gap"),
        (("pooling", "--seeds", "0,x"), 2, "no list of seeds such as 0,1,2"),
        (("pooling", "--seeds", "0,0"), 2, "seeds must differ"),
        (("pooling", "--only", "nothing"), 5, "no cell is named 'nothing'"),
        (("pooling", "--max-parallel", "0"), 2, "max-parallel"),
        (("pooling", "--name", "Bad Name"), 2, "cannot be a name"),
        (("pooling", "model.head.pooling=gap"), 2, "is what the factor pooling varies"),
        (("pooling", "epochs=0"), 2, "every cell: epochs"),
        (("pooling", "job.num_workers=64", "global_batch_size=64"), 7, "this machine"),
        (("frozen_heads",), 2, "init.weights"),
    ],
)
def test_mistakes(args, code, words, capsys):
    with pytest.raises(SystemExit) as ended:
        run_and_exit(ablation, list(args))
    assert words in "".join(capsys.readouterr())
    assert ended.value.code == code


def test_missing_images_are_met_before_anything_is_recorded(tmp_path):
    answer = gcpctl(
        "submit", "ablation", "pooling", "data=image_folder", f"data.path={tmp_path / 'no'}"
    )
    assert answer.returncode == 2
    assert str(tmp_path / "no") in answer.stderr


def test_what_there_is_and_what_it_costs_stand_in_the_table():
    request = StudyRequest(only=("*=isqrt",), train=Request())
    plan = plan_study("pooling", ["seeds=[0,1,2]"], request)
    found = all_new(plan, Path("/x"))
    slots = list(found.slots)
    states = [State.FINISHED, State.RUNNING, State.FAILED]
    for place, state in zip((0, 2, 4), states, strict=True):  # the baseline, seed by seed
        job = replace(as_job(slots[place].training.plan), state=state)
        action = "retry" if state is State.FAILED else "use"
        part = replace(slots[place].training, job=job, action=action)
        slots[place] = replace(slots[place], training=part)
    found = replace(found, slots=tuple(slots))
    estimates = {"pooling=gap": Estimate(30.0, "equal"), "pooling=isqrt": Estimate(90.0, "similar")}
    text = study_page.study_text(plan, found, estimates)
    assert re.search(r"pooling=gap +0 1 2 +1 finished, 1 running, 1 failed \(again\) +30 s", text)
    assert re.search(r"pooling=isqrt +0 1 2 +3 new +~1 min 30 s", text)
    # One baseline again, and three of iSQRT-COV.
    assert "4 trainings and 6 evaluations; about 5 min of training" in text
    half = study_page.work_text(found, {"pooling=gap": Estimate(30.0, "equal")})
    assert half.endswith(
        "at least 30 s of training: 1 of them can be estimated, one after the other"
    )
    actions = Counter(
        job["training"]["action"]
        for cell in study_page.study_json(plan, found, estimates)["cells"]
        for job in cell["jobs"]
    )
    assert actions == {"use": 2, "retry": 1, "new": 3}
    lines = list(study_page.reuse_lines(found, "c" * 40))
    assert [line.partition(":")[0] for line in lines] == [
        "  pooling=gap, seed 0", "  pooling=gap, seed 1", "  pooling=gap, seed 2",
    ]  # fmt: skip


def test_recipes_know_studies():
    def run(*args: str):
        return CliRunner().invoke(recipes, args, catch_exceptions=False)

    listed = run("list", "--kind", "ablation", "-o", "json").stdout
    assert {"pooling", "isqrt_iterations"} <= {r["name"] for r in json.loads(listed)}
    assert "question: Which pooling" in run("show", "pooling").stdout
    resolved = run("show", "pooling", "--resolved", "seeds=[5]").stdout
    assert "one-at-a-time" in resolved
    assert "- 5" in resolved
    assert "10 cells x 3 seeds" in run("check", "pooling").stderr


def test_studies_complete():
    assert complete_studies(None, None, "isqrt_i") == ["isqrt_iterations"]
    assert complete_studies(None, None, "digits_resnet") == []
