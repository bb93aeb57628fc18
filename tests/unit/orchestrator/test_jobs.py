"""Ids, states, specs and jobs."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs import ids
from orchestrator.jobs.job import Job, precedence, queue_key
from orchestrator.jobs.logs import mark, of_rank
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import FINAL, State, may_become
from tests.fakes import FakeStore, make_spec


@given(st.text(max_size=80))
def test_any_recipe_name_gives_a_dns_safe_id(name):
    job_id = ids.new_job_id("train", name)
    assert ids.name_problem(job_id) == ""
    assert len(ids.submission_id(job_id, 999_999)) <= 63
    assert re.fullmatch(r"[a-z0-9-]+", job_id)


def test_ids_are_fresh():
    assert len({ids.new_job_id("train", "digits_resnet_isqrt") for _ in range(300)}) > 290


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a b", "a;rm", "ä", "x" * 53, "../a"])
def test_names_that_are_refused(name):
    assert ids.name_problem(name)


def test_final_states_change_only_back_into_the_queue():
    for current, wanted in itertools.product(State, State):
        allowed = may_become(current, wanted)
        if current in FINAL:
            assert allowed == (wanted is State.SCHEDULED and current is not State.FINISHED)
        if wanted is State.FINISHED:
            assert allowed == (current is State.RUNNING)


def test_queue_keys_sort_by_priority_then_time():
    keys = [queue_key(p, t) for p, t in [(5, 9), (5, 10), (0, 1), (0, 2), (-1000, 0)]]
    assert keys == sorted(keys)


def test_marked_lines_come_back_by_rank():
    lines = ["driver", mark(0, "zero"), mark(11, "eleven"), mark(1, "one")]
    assert list(of_rank(lines, 1)) == ["one"]
    assert list(of_rank(lines, 11)) == ["eleven"]
    assert list(of_rank(lines, None)) == lines


def test_job_reads_what_mlflow_sends():
    job = Job.from_run(
        {
            "info": {
                "run_id": "r",
                "experiment_id": "1",
                "status": "RUNNING",
                "start_time": 5,
                "end_time": 7,
                "artifact_uri": "mlflow-artifacts:/1/r/artifacts",
            },
            "data": {
                "tags": [{"key": "gcpctl.job_id", "value": "a"}],
                "metrics": [{"key": "val/top1", "value": "NaN"}],
            },
        }
    )
    assert (job.job_id, job.state, job.attempt, job.end_ms) == ("a", State.RUNNING, 0, None)
    assert job.metrics["val/top1"] != job.metrics["val/top1"]
    assert (job.stop_requested, job.progress, job.result, job.outcome(1)) == (False, {}, {}, {})


def test_resources_say_their_range_and_give_exact_gangs():
    elastic = Resources(min_workers=2, num_workers=8, cpus_per_worker=4, gpus_per_worker=1)
    assert elastic.describe() == "2 to 8 workers x (4 CPU + 1 GPU)"
    gang = elastic.with_workers(4)
    assert gang == Resources(num_workers=4, cpus_per_worker=4, gpus_per_worker=1)
    assert (gang.total_cpus, gang.total_gpus, gang.least_workers) == (16, 4, 4)
    assert Resources(min_workers=2, num_workers=2).describe() == "2 workers x 1 CPU"


def test_a_job_of_an_older_release_has_the_workers_it_asked_for():
    store = FakeStore()
    run = store.add(make_spec("a", num_workers=3))
    job = store.get(run)
    assert (job.num_workers, job.gang, job.attempt_launch_ms) == (3, Resources(num_workers=3), 0)
    assert not job.is_resizing


def test_of_runs_with_one_name_the_job_is_the_one_that_was_not_closed_for_another():
    def run(run_id: str, start_ms: int, **tags: str) -> Job:
        return Job(run_id, "1", State.RUNNING, tags, {}, start_ms, None, "")

    older = run("a", 1, **{"gcpctl.phase": "duplicate"})
    running = run("b", 2, **{"gcpctl.attempt": "1"})
    queued = run("c", 1)
    assert min([older, running, queued], key=precedence) is running
    assert min([older, queued, run("d", 2)], key=precedence) is queued
