"""Studies on a real cluster: cells, reuse, a terminal that dies, stop and retry."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from orchestrator.jobs.job import STUDY, TAG_SUBMITTED, Job
from orchestrator.jobs.states import State
from tests.live import Live, wait_for

pytestmark = pytest.mark.integration

SMALL = (
    "isqrt_iterations",
    "factors.iterations.levels=[5, 1]",
    "epochs=2",
    "schedule.warmup_epochs=0",
    "study=iterations",
)
"""Two cells that take seconds."""


def command(*args: str) -> tuple[str, ...]:
    return ("submit", "ablation", *SMALL, *args)


def submit(live: Live, *args: str) -> str:
    return live.gcpctl(*command(*args)).stdout.strip()


@pytest.fixture(scope="module")
def study(live: Live) -> Job:
    """A finished study of two cells and one seed."""
    job = live.wait_final(submit(live, "--seeds", "0"), seconds=280)
    assert job.state is State.FINISHED, job.reason
    return job


def test_every_cell_is_trained_and_evaluated_and_the_report_follows(live: Live, study: Job):
    members = live.store.members(study.job_id)
    kinds = Counter((job.kind, job.cell, job.state) for job in members)
    assert kinds == {
        (kind, cell, State.FINISHED): 1
        for kind in ("train", "eval")
        for cell in ("iterations=5", "iterations=1")
    }
    assert all(job.end_ms <= study.end_ms for job in members)
    for job in members:
        if job.kind == "eval":
            training = next(t for t in members if t.job_id == job.raw_spec["after"][0])
            # The last weights are judged, and the last validation judged them too.
            assert job.metrics["eval/top1"] == pytest.approx(training.metrics["val/top1"])
    assert len({job.submission_id for job in members}) < len(members)  # they shared a process
    assert live.store.list_artifacts(study, "report")


def test_the_same_study_again_runs_nothing(live: Live, study: Job):
    before = {job.run_id: job.attempt for job in live.store.search(limit=200)}
    answer = live.gcpctl(*command("--seeds", "0"))
    assert answer.stdout.strip() == study.job_id
    assert "nothing was submitted" in answer.stderr
    assert {job.run_id: job.attempt for job in live.store.search(limit=200)} == before


def test_a_dry_run_says_what_is_there_and_what_the_rest_will_take(live: Live, study: Job):
    said = live.gcpctl(*command("--seeds", "0,1", "--dry-run", "-o", "json")).stdout
    found = json.loads(said)
    assert (found["new_trainings"], found["new_evaluations"]) == (2, 2)
    for cell in found["cells"]:
        assert [job["training"]["state"] for job in cell["jobs"]] == ["FINISHED", None]
        assert 0 < cell["seconds_each"] < 60
        assert cell["estimated_from"] == "equal"


def test_another_seed_is_all_that_a_larger_study_runs(live: Live, study: Job):
    larger = live.wait_final(submit(live, "--seeds", "0,1"), seconds=280)
    assert larger.state is State.FINISHED, larger.reason
    groups = Counter(job.group for job in live.store.members(larger.job_id))
    assert groups == {study.job_id: 4, larger.job_id: 4}


def test_a_terminal_that_dies_while_submitting_leaves_what_the_next_completes(live: Live):
    args = command("--seeds", "5,6,7")
    started = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def half() -> Job | None:
        parents = [job for job in live.store.search(limit=50) if job.kind == STUDY]
        cut = [job for job in parents if job.tags.get(TAG_SUBMITTED) != "true"]
        return cut[0] if cut and len(live.store.members(cut[0].job_id)) >= 3 else None

    parent = wait_for("half a study", half, seconds=60)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert live.store.get(parent.run_id).tags.get(TAG_SUBMITTED) != "true"
    assert live.gcpctl(*args).stdout.strip() == parent.job_id
    members = live.store.members(parent.job_id)
    assert Counter(job.kind for job in members) == {"train": 6, "eval": 6}
    assert len({(job.kind, job.tags["gcpctl.config_sha256"]) for job in members}) == 12
    ended = live.wait_final(parent.job_id, seconds=280)
    assert ended.state is State.FINISHED, ended.reason
    assert {job.state for job in live.store.members(parent.job_id)} == {State.FINISHED}


def test_stop_and_submit_again_goes_on_where_it_was(live: Live):
    long = ("--seeds", "8", "epochs=400")
    parent = submit(live, *long)

    def one_runs() -> bool:
        members = live.store.members(parent)
        return any(job.state is State.RUNNING and job.epoch > 0 for job in members)

    wait_for("a training", one_runs, seconds=120)
    live.gcpctl("stop", parent, "--wait")
    members = live.store.members(parent)
    assert {job.state for job in members} == {State.KILLED}
    assert live.store.find(parent).state is State.KILLED
    assert submit(live, *long) == parent
    wait_for("a training that goes on", one_runs, seconds=120)
    assert len(live.store.members(parent)) == len(members)
    live.gcpctl("stop", parent, "--wait")
