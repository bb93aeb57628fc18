"""A study whose controller, drivers and workers are killed with -9: nothing lost, nothing twice.

The seed of the moments is printed and can be given again in GCPCTL_FAULT_SEED.
"""

import os
import random
import sys
import time
from collections import Counter

import psutil
import pytest

from orchestrator.jobs.job import TAG_EVALUATED, Job
from orchestrator.jobs.states import State
from tests.live import Live, belongs, kill

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

STUDY = (
    "isqrt_iterations",
    "factors.iterations.levels=[5, 1, 2]",
    "epochs=6",
    "study=killed",
    "job.max_retries=8",
)
SEEDS = 2
EPOCHS = 6
JOBS = 3 * SEEDS * 2
SEED = int(os.environ.get("GCPCTL_FAULT_SEED", random.SystemRandom().randrange(10**6)))


def submit(live: Live, *more: str) -> str:
    answer = live.gcpctl("submit", "ablation", *STUDY, "--seeds", "0,1", *more)
    return answer.stdout.strip()


def processes(live: Live, word: str) -> list[psutil.Process]:
    """Return the cluster's processes with a word in their command line."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word in part for part in (process.info["cmdline"] or ())[:3])
        and belongs(process, live.home)
    ]


def weights(members: list[Job]) -> dict[tuple[str, int | None], str]:
    return {
        (job.cell, job.seed): job.result["weights_sha256"] for job in members if job.kind == "train"
    }


def accuracy(members: list[Job]) -> dict[tuple[str, int | None], float]:
    trained = {job.job_id: (job.cell, job.seed) for job in members if job.kind == "train"}
    return {
        trained[job.tags[TAG_EVALUATED]]: job.metrics["eval/top1"]
        for job in members
        if job.kind == "eval"
    }


def test_a_study_ends_with_the_same_numbers_whatever_is_killed(live: Live):
    undisturbed = live.wait_final(submit(live), seconds=280)
    assert undisturbed.state is State.FINISHED, undisturbed.reason
    want = live.store.members(undisturbed.job_id)
    assert len(want) == JOBS

    rng = random.Random(SEED)
    sys.stdout.write(f"GCPCTL_FAULT_SEED={SEED}\n")
    study = submit(live, "--fresh")
    killed: Counter[str] = Counter()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and sum(killed.values()) < 9:
        time.sleep(rng.uniform(0.5, 4.0))
        what = rng.choice(["controller", "driver", "worker"])
        if what == "controller":
            found = [live.services()["controller"]]
        else:
            word = "orchestrator.drivers.main" if what == "driver" else "PackedWorker"
            found = [process.pid for process in processes(live, word)]
        if found:
            try:
                kill(rng.choice(found))
            except ProcessLookupError:
                continue  # it had ended by itself
            killed[what] += 1
    assert sum(killed.values()) >= 5, killed
    parent = live.wait_final(study, seconds=400)
    assert parent.state is State.FINISHED, parent.reason
    got = live.store.members(study)

    assert Counter((job.kind, job.cell, job.state) for job in got) == Counter(
        (job.kind, job.cell, State.FINISHED) for job in want
    )
    assert weights(got) == weights(want)
    assert accuracy(got) == accuracy(want)
    for job in got:
        if job.kind == "train":
            steps = [step for step, _ in live.store.metric_history(job.run_id, "val/top1")]
            assert steps == list(range(1, EPOCHS + 1))
        else:
            assert len(live.store.metric_history(job.run_id, "eval/top1")) == 1
    assert len({(job.job_id) for job in got}) == JOBS
    assert live.store.list_artifacts(parent, "report")
    # What was killed and resumed is not run again by the same study.
    before = {job.run_id: job.attempt for job in live.store.members(study)}
    live.gcpctl("submit", "ablation", *STUDY, "--seeds", "0,1")
    assert {job.run_id: job.attempt for job in live.store.members(study)} == before
