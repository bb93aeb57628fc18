"""What `status` asks for, and how studies and sweeps read."""

import json
from types import SimpleNamespace

from orchestrator.cli.commands import status
from orchestrator.jobs.job import (
    TAG_ATTEMPT,
    TAG_PROGRESS,
    TAG_REASON,
    TAG_RESULT,
    TAG_SPEC,
    Job,
    outcome_tag,
)
from orchestrator.jobs.states import State
from orchestrator.results.status import details, search_filter, to_json, why
from tests.unit.orchestrator.results.test_progress import job

QUESTION = "Which pooling?"
CONFIG = {
    "question": QUESTION,
    "recipe": "digits_study",
    "mode": "one-at-a-time",
    "seeds": [0, 1, 2],
    "factors": {"pooling": {"levels": {"gap": {}, "isqrt": {}}}, "stride": {"levels": {"1": {}}}},
}
FOUND = {
    "metric": "eval/top1",
    "best": "pooling=isqrt",
    "baseline": "pooling=gap",
    "study/num_cells": 3.0,
    "study/num_trainings": 9.0,
    "study/num_failed": 1.0,
    "study/num_missing": 0.0,
    "study/num_reused": 2.0,
    "study/best_eval_top1": 98.7,
    "study/baseline_eval_top1": 97.25,
    "files": ["report/report.md", "report/report.html"],
}


def parent(kind: str, config: dict, *, state: State = State.SCHEDULED, **tags: str) -> Job:
    spec = {
        "job_id": "x",
        "recipe": "pooling",
        "study": "digits",
        "description": "tpe over 2 keys",
        "config": config,
        "resources": {"num_workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0},
        "after": [],
    }
    given = {TAG_SPEC: json.dumps(spec), "gcpctl.baseline_cell": "pooling=gap"} | tags
    return job("x", kind, state, "", group="", tags=given)


def test_only_jobs_of_their_own_are_listed_those_of_earlier_releases_too():
    # Children have a parent run in every release; an empty group tag is new.
    assert search_filter((), None, everything=False) == "tags.`mlflow.parentRunId` IS NULL"
    assert search_filter((), None, everything=True) == ""


def test_states_are_asked_for_by_what_they_are_not():
    where = search_filter(("RUNNING", "SCHEDULED"), "a'b", everything=True)
    assert where == (
        "attributes.status != 'FINISHED' AND attributes.status != 'FAILED' AND "
        "attributes.status != 'KILLED' AND tags.`gcpctl.recipe` = 'ab'"
    )


def test_a_study_that_waits_says_what_it_asks_and_how_far_it_is():
    study = parent("ablation", CONFIG, **{"gcpctl.reason": "3 of 18 done, 2 running"})
    pairs = dict(details(study, "http://m"))
    assert pairs["question"] == QUESTION
    assert pairs["why"] == "3 of 18 done, 2 running"
    assert pairs["cells"] == "one-at-a-time: pooling (gap, isqrt), stride (1)"
    assert (pairs["trains"], pairs["seeds"]) == ("digits_study", "0, 1, 2")
    assert pairs["baseline"] == "pooling=gap"
    # Its own job is only the report: what that takes is no news.
    assert not {"resources", "trainings", "best", "report"} & set(pairs)


def test_a_finished_study_says_what_it_came_to_and_where_its_report_is():
    study = parent("ablation", CONFIG, state=State.FINISHED, **{TAG_RESULT: json.dumps(FOUND)})
    pairs = dict(details(study, "http://m"))
    assert pairs["trainings"] == "9 of 3 cells, 1 failed or stopped, 2 trained for something else"
    assert pairs["best"] == "pooling=isqrt: mean eval/top1 98.7; baseline 97.25"
    assert pairs["report"].startswith(
        "http://m/#/experiments/1/runs/x/artifacts/report/report.html"
    )
    assert to_json(study)["result"] == FOUND


def test_a_study_without_one_result_says_so():
    none = FOUND | {"best": None}
    study = parent("ablation", CONFIG, state=State.FINISHED, **{TAG_RESULT: json.dumps(none)})
    assert dict(details(study, ""))["best"] == "no training has a result"


def test_a_report_that_could_not_be_stored_is_not_linked():
    lost = FOUND | {"files": ["report/report.md"]}
    study = parent("ablation", CONFIG, state=State.FINISHED, **{TAG_RESULT: json.dumps(lost)})
    assert "report" not in dict(details(study, ""))


def test_a_sweep_says_what_it_searches_and_how_far_it_is():
    said = json.dumps({"text": "4 of 20 trials ended"})
    sweep = parent("tune", {"seed": 0}, state=State.RUNNING, **{TAG_PROGRESS: said})
    pairs = dict(details(sweep, ""))
    assert pairs["search"] == "tpe over 2 keys"
    assert pairs["progress"] == "4 of 20 trials ended"
    assert pairs["resources"] == "1 workers, each 1 CPU, 0 GPU"


LINES = (
    "rank 0: CheckpointError: the checkpoint does not fit this job:\n"
    "  classes: checkpoint 10, this job 3\n"
    "  optimizer: checkpoint 'sgd', this job 'lars'\x1b[2J\n"
    "Start a new job, or bring the data and config back to what they were."
)


def failed(reason: str, why: str) -> Job:
    told = json.dumps({"outcome": "failed", "class": "user", "reason": reason})
    tags = {outcome_tag(1): told, TAG_ATTEMPT: "1", TAG_REASON: why}
    return parent("train", {"seed": 0}, state=State.FAILED, **tags)


def test_all_lines_of_a_failure_are_shown_once_and_one_in_lists():
    pairs = dict(details(failed(LINES, LINES), ""))
    assert pairs["why"].split("\n") == LINES.replace("\x1b", " ").split("\n")
    first = "rank 0: CheckpointError: the checkpoint does not fit this job:"
    shown = f"{first} classes: checkpoint 10, this job 3"
    assert pairs["attempt 1"] == f"user failed: {shown}"
    assert why(failed(LINES, LINES)) == shown
    # What came after says something else: the attempt tells its failure itself.
    pairs = dict(details(failed(LINES, "stopped before it was launched again"), ""))
    assert pairs["attempt 1"].count("\n") == 3


def test_a_reason_without_end_is_cut():
    text = dict(details(failed("x", "line\n" * 3000), ""))["why"]
    assert len(text) < 2100
    assert text.endswith("line … (more in its log)")


def test_further_lines_stand_below_the_first():
    session = SimpleNamespace(profile=SimpleNamespace(mlflow_url="http://m"))
    page = status._text(session, [failed(LINES, LINES)], single=True, tree=False).split("\n")
    at = next(number for number, line in enumerate(page) if line.startswith("why"))
    column = page[at].index("rank 0")
    assert page[at + 1] == " " * column + "  classes: checkpoint 10, this job 3"
    assert page[at + 3].startswith(" " * column + "Start a new job")


def test_a_cell_names_its_study():
    of_study = parent("train", {"seed": 1}, **{"gcpctl.group": "abl-x", "gcpctl.cell": "a=1"})
    assert dict(details(of_study, ""))["part of"] == "abl-x, a=1"
    said = to_json(of_study)
    assert (said["group"], said["cell"], said["kind"]) == ("abl-x", "a=1", "train")
    assert to_json(parent("train", {}))["group"] is None
