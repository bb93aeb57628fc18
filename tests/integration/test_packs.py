"""Jobs that share a driver and a worker process, on a real cluster."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from orchestrator.jobs.checkpoints import resolve_checkpoint
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import Job
from orchestrator.jobs.plan import Plan, Request, plan_train
from orchestrator.jobs.plan_eval import EvalPlan, EvalRequest, KnownNetwork, plan_eval
from orchestrator.jobs.provenance import Provenance
from orchestrator.jobs.states import State
from orchestrator.jobs.submit import record
from tests.live import Live, kill, wait_for

pytestmark = pytest.mark.integration

# Room for one driver, so that those behind it are handed over.
WHOLE_CLUSTER = ("job.num_workers=1", "job.cpus_per_worker=2")
SHORT = ("epochs=2", *WHOLE_CLUSTER)
# Long enough to look at, and short enough that what waits behind it is not taken elsewhere.
LONG = ("epochs=40", *WHOLE_CLUSTER)


def submit(live: Live, name: str, *overrides: str, pack: str = "small") -> Job:
    """Submit a training that may share its process, as a study does."""
    plan = plan_train("digits_resnet_isqrt", overrides, Request(name=name))
    return send(live, plan, pack)


def submit_eval(live: Live, name: str, of: str, pack: str = "small") -> Job:
    """Submit the evaluation of a job that may still be running."""
    checkpoint = resolve_checkpoint(live.store, live.profile, f"{of}:best", may_wait=(of,))
    plan = plan_eval(
        checkpoint,
        KnownNetwork(),
        ["job.num_workers=1", "job.cpus_per_worker=2"],
        EvalRequest(name=name, after=(of,)),
    )
    return send(live, plan, pack)


def send(live: Live, plan: Plan | EvalPlan, pack: str) -> Job:
    packed = replace(plan, spec=plan.spec.model_copy(update={"pack": pack}))
    job = record(live.store, packed, Provenance(user="tests", command="tests"), cluster="local")
    nudge = live.profile.nudge_path
    assert nudge is not None
    nudge.touch()
    return job


def host_of(live: Live, job: Job) -> str:
    return live.store.get(job.run_id).submission_id


def packed_workers(live: Live) -> list[psutil.Process]:
    """Return the processes that are kept from job to job."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or ()
        if any("PackedWorker" in word for word in words):
            found.append(process)
    return found


def wait_for_hand_over(live: Live, held: Job, *jobs: Job) -> None:
    """Wait until the driver of `held` was handed the jobs and has trained an epoch of its own."""
    host = submission_id(held.job_id, 1)
    for job in jobs:
        wait_for(f"{job.job_id} to be handed over", lambda: host_of(live, job) == host or None)  # noqa: B023 - called at once
    wait_for("an epoch", lambda: live.store.get(held.run_id).epoch > 0 or None)


@pytest.fixture
def held(live: Live) -> Iterator[Job]:
    """A job of the pack that holds the cluster; others are to be handed over behind it at once."""
    job = submit(live, f"held-{time.time_ns()}", *LONG)
    yield job
    live.gcpctl("stop", job.job_id, check=False)
    live.wait_final(job.job_id)


def test_one_process_runs_many_jobs_with_the_numbers_of_each_alone(live: Live):
    alone = submit(live, "by-itself", "seed=2", *SHORT, pack="")
    packed = [submit(live, f"packed-{seed}", f"seed={seed}", *SHORT) for seed in range(3)]
    judged = submit_eval(live, "packed-eval", "packed-2")
    ended = [live.wait_final(job.job_id) for job in (alone, *packed, judged)]
    assert [job.state for job in ended] == [State.FINISHED] * 5, [job.reason for job in ended]
    assert [job.attempt for job in ended] == [1] * 5
    hosts = {host_of(live, job) for job in (*packed, judged)}
    assert hosts == {submission_id("packed-0", 1)}
    weights = [job.result["weights_sha256"] for job in ended[:4]]
    assert weights[0] == weights[3]
    assert len(set(weights)) == 3
    by_itself, same = ended[0], ended[3]
    for key in by_itself.metrics:
        if not key.startswith(("time/", "perf/")):
            histories = [live.store.metric_history(job.run_id, key) for job in (by_itself, same)]
            assert histories[0] == histories[1], key
    assert "eval/top1" in ended[4].metrics
    assert live.store.list_artifacts(ended[4], "evaluation")
    for job in ended[1:4]:
        log = live.gcpctl("logs", job.job_id).stdout
        assert log.count("finished: best") == log.count("finished: val top-1") == 1
        assert "===" not in log
    assert not packed_workers(live), "the process ends with the last job"


def test_a_failure_ends_its_own_job_and_its_process_only(live: Live, held: Job):
    broken = submit(live, "packed-broken", "data=image_folder", "data.path=/no/such", *SHORT)
    after = submit(live, "packed-after", *SHORT)
    wait_for_hand_over(live, held, broken, after)
    live.gcpctl("stop", held.job_id)
    ended = [live.wait_final(job.job_id) for job in (held, broken, after)]
    assert [job.state for job in ended] == [State.KILLED, State.FAILED, State.FINISHED]
    assert "/no/such" in ended[1].reason
    assert {host_of(live, job) for job in (broken, after)} == {submission_id(held.job_id, 1)}
    assert "saved" in ended[0].reason
    assert live.store.get(after.run_id).retries_used == 0


def test_a_stop_of_what_was_only_handed_over(live: Live, held: Job):
    waiting = submit(live, "packed-unbegun", *SHORT)
    wait_for_hand_over(live, held, waiting)
    assert live.gcpctl("logs", waiting.job_id).stdout == ""
    live.gcpctl("stop", waiting.job_id)
    assert live.wait_final(waiting.job_id).state is State.KILLED
    assert live.store.get(held.run_id).state is State.RUNNING


@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_kill_costs_the_running_job_a_retry_and_the_others_nothing(
    live: Live, held: Job, victim: str
):
    other = submit(live, f"beside-{victim}", *SHORT)
    wait_for_hand_over(live, held, other)
    found = packed_workers(live)[0] if victim == "worker" else live.driver(held.job_id)
    assert found is not None
    kill(found)
    assert live.wait_final(other.job_id).state is State.FINISHED
    assert live.store.get(other.run_id).retries_used == 0
    again = wait_for("the retry", lambda: _if_attempt(live, held, 2))
    assert "attempt 1" in again.reason
    assert again.verdict(1)["class"] == "infrastructure"


def _if_attempt(live: Live, job: Job, attempt: int) -> Job | None:
    fresh = live.store.get(job.run_id)
    return fresh if fresh.attempt >= attempt else None


def test_following_a_packed_job_ends_with_the_job(live: Live, held: Job):
    first = submit(live, "followed", "epochs=8", *WHOLE_CLUSTER)
    last = submit(live, "behind-followed", "epochs=400", *WHOLE_CLUSTER)
    wait_for_hand_over(live, held, first, last)
    follower = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "logs", "-f", first.job_id],
        stdout=subprocess.PIPE,
        text=True,
    )
    live.gcpctl("stop", held.job_id)
    text, _ = follower.communicate(timeout=120)
    assert live.store.get(last.run_id).state is not State.FINISHED
    assert text.count("epoch 8/8") == 1
    assert "held" not in text
    assert "/400" not in text
    live.gcpctl("stop", last.job_id)
    live.wait_final(last.job_id)
