"""Studies played through while drivers, heads and controllers die: every job ends once."""

import contextlib
import json
import random
from collections import Counter

import pytest

from orchestrator.jobs.errors import UnreachableError
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import (
    TAG_BEGUN,
    TAG_HOST,
    TAG_PROGRESS,
    TAG_QUEUE_KEY,
    TAG_SUBMITTED,
    Job,
    member_tag,
)
from orchestrator.jobs.states import State
from tests.fakes import Crash
from tests.unit.orchestrator.controller.world import World

ROUNDS = 600
TROUBLE = 120
"""Rounds in which things die; after them the rest must come to its end."""


class Driver:
    """A driver process: runs its job, then what it was handed, as `orchestrator.drivers` does."""

    def __init__(self, play: "Play", name: str, job: Job) -> None:
        self.play, self.name, self.job = play, name, job
        self.attempt, self.left = job.attempt, play.dice.randint(0, 3)

    def tick(self) -> None:
        """Work for a while; take up the next job when this one is over."""
        fresh = self.play.world.store.get(self.job.run_id)
        if fresh.attempt != self.attempt or fresh.state is not State.RUNNING:
            self.play.superseded += 1
        elif self.left > 0:
            self.left -= 1
            said = {"eta_s": self.play.dice.choice([None, 5, 200, 4000])}
            self.play.world.store.runs[fresh.run_id]["tags"][TAG_PROGRESS] = json.dumps(said)
            return
        else:
            self._close(fresh)
        if not self.job.raw_spec["pack"] or not self._next():
            self.play.world.ray.end(self.name, "SUCCEEDED", "")
            del self.play.drivers[self.name]

    def _close(self, job: Job) -> None:
        play = self.play
        if play.trouble and play.dice.random() < 0.1:
            said = {"outcome": "failed", "class": "infrastructure", "reason": "a worker died"}
            play.world.store.driver_says(job.run_id, self.attempt, said)
            return
        assert all(play.world.job(name).state is State.FINISHED for name in job.spec.after)
        play.world.store.runs[job.run_id]["state"] = State.FINISHED
        play.finished[job.job_id] += 1

    def _next(self) -> bool:
        store = self.play.world.store
        handed = [
            job
            for job in store.search("attributes.status = 'RUNNING'", limit=1000)
            if job.tags.get(TAG_HOST) == self.name and not job.has_begun
        ]
        for job in sorted(handed, key=lambda job: job.tags[TAG_QUEUE_KEY]):
            after = [self.play.world.job(name) for name in job.spec.after]
            if all(other.state is State.FINISHED for other in after):
                store.runs[job.run_id]["tags"][TAG_BEGUN] = str(job.attempt)
                self.job, self.attempt = job, job.attempt
                self.left = self.play.dice.randint(0, 3)
                self.play.shared += 1
                return True
        return False


class Play:
    """Two studies and some jobs of others on a small cluster."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.world = World(cpus=self.dice.randint(2, 3))
        self.drivers: dict[str, Driver] = {}
        self.finished: Counter[str] = Counter()
        self.shared = self.superseded = self.round = 0
        patient = {"max_retries": 1000}
        for study in ("one", "two"):
            self.world.submit(study, kind="ablation", tags={TAG_SUBMITTED: "true"}, **patient)
            mine = {"group": study, "tags": {member_tag(study): "cell"}, **patient}
            mine["pack"] = self.dice.choice(["cells", "cells", ""])
            mine["max_parallel"] = self.dice.choice([None, 1, 2])
            for i in range(4):
                self.world.submit(f"{study}-t{i}", **mine)
                after = (f"{study}-t{i}",)
                self.world.submit(f"{study}-e{i}", kind="eval", after=after, **mine)
        self.world.submit("wide", num_workers=2, **patient)
        self.world.submit("alone", priority=1, **patient)

    @property
    def trouble(self) -> bool:
        """Whether things die in this round."""
        return self.round < TROUBLE

    @property
    def jobs(self) -> list[Job]:
        """All jobs as they stand."""
        return self.world.store.search(limit=1000)

    def play(self) -> None:
        """Play one round."""
        self.round += 1
        store, ray = self.world.store, self.world.ray
        if self.trouble:
            if self.dice.random() < 0.1:
                store.crash_at = store.writes + self.dice.randint(1, 4)
            if self.dice.random() < 0.02:
                ray.lose_head()
                self.drivers.clear()
            for name in list(self.drivers):
                if self.dice.random() < 0.05:
                    ray.end(name)
                    del self.drivers[name]
            ray.lose_reply = self.dice.random() < 0.03
        with contextlib.suppress(Crash, UnreachableError):
            self.world.step(seconds=self.dice.choice([0.5, 5, 60, 400]))
        store.crash_at = None
        known = {submission_id(job.job_id, job.attempt): job for job in self.jobs}
        for name, said in ray.jobs.items():
            if not said.is_over and name not in self.drivers:
                job = known[name]
                assert not job.tags.get(TAG_HOST)
                self.drivers[name] = Driver(self, name, job)
        self.check()
        for driver in list(self.drivers.values()):
            driver.tick()

    def check(self) -> None:
        """Check what must hold at any time."""
        held = sum(
            driver.job.raw_spec["resources"]["num_workers"] for driver in self.drivers.values()
        )
        assert held <= self.world.ray.cpus
        runs = Counter((driver.job.job_id, driver.attempt) for driver in self.drivers.values())
        assert not runs or max(runs.values()) == 1
        for driver in self.drivers.values():
            # A driver runs a job that is still its own, or one that ended for another reason.
            job = self.world.job(driver.job.job_id)
            assert job.attempt != driver.attempt or job.submission_id == driver.name


@pytest.mark.parametrize("seed", range(15))
def test_every_job_ends_once(seed):
    play = Play(seed)
    while play.round < ROUNDS and any(not job.state.is_final for job in play.jobs):
        play.play()
    assert {job.job_id: job.state for job in play.jobs} == {
        job.job_id: State.FINISHED for job in play.jobs
    }
    assert play.finished == Counter(job.job_id for job in play.jobs)
    assert play.superseded == 0  # no work was thrown away by handing it to two


def test_without_trouble_few_drivers_run_many_jobs():
    """Count starts: one driver for each CPU, and one for each study's report."""
    launches, shared = [], []
    for seed in range(5):
        play = Play(seed)
        play.round = TROUBLE
        while any(not job.state.is_final for job in play.jobs):
            play.play()
        launches.append(len(play.world.ray.launches))
        shared.append(play.shared)
        assert launches[-1] + shared[-1] == len(play.jobs)
    assert max(shared) >= 10, (launches, shared)
