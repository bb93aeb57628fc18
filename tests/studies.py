"""A store in memory that studies can be submitted to, and plans of a small one."""

import itertools
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

from orchestrator.jobs import ids
from orchestrator.jobs.job import (
    STUDY,
    TAG_CONFIG,
    TAG_JOB_ID,
    TAG_KIND,
    TAG_PHASE,
    TAG_QUEUE_KEY,
    TAG_REASON,
    Job,
    member_tag,
)
from orchestrator.jobs.plan import Request
from orchestrator.jobs.plan_study import StudyPlan, StudyRequest, plan_study
from orchestrator.jobs.provenance import Provenance
from orchestrator.jobs.reuse import look
from orchestrator.jobs.states import State
from orchestrator.jobs.submit_study import StudyRecorder
from tests.fakes import FakeStore

PROVENANCE = Provenance(user="me", command="gcpctl submit ablation", commit="c" * 40)
STORAGE = Path("/nowhere")
_LEVELS = "factors.pooling.levels=[gap, cov, isqrt]"


class Store(FakeStore):
    """What submitting a study needs besides; dies at the request `crash_at`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self._clock = itertools.count(1000)

    def _jobs(self) -> list[Job]:
        self._ask()
        self.asked += 1
        return [self._job(run_id) for run_id in self.runs]

    def members(self, group):
        return [job for job in self._jobs() if member_tag(group) in job.tags]

    def with_tag(self, key, values):
        found: dict[str, list[Job]] = {}
        for value in sorted(set(values)):
            if jobs := [job for job in self._jobs() if job.tags.get(key) == value]:
                found[value] = jobs
        return found

    def with_config(self, digests):
        return self.with_tag(TAG_CONFIG, digests)

    def search(self, where, limit):
        recipe = where.rpartition("= '")[2].rstrip("'")
        jobs = [j for j in self._jobs() if j.kind == STUDY and j.tags["gcpctl.recipe"] == recipe]
        return jobs[::-1][:limit]

    def experiment_id(self, name):
        return "1"

    def create(self, job_id, experiment, tags):
        self._write()
        run_id = f"run-{next(self._ids)}"
        assert all(run["tags"][TAG_JOB_ID] != job_id for run in self.runs.values())
        now = next(self._clock)
        stamped = dict(tags) | {TAG_QUEUE_KEY: f"05000-{now:013d}"}
        self.runs[run_id] = {
            "state": State.SCHEDULED, "tags": stamped, "start_ms": now, "end_ms": None,
            "params": {}, "files": set(),
        }  # fmt: skip
        return self._job(run_id)

    def delete_tag(self, job, key):
        self._write()
        self.runs[job.run_id]["tags"].pop(key, None)

    def queue_again(self, job, *, phase, tags):
        assert job.state.is_final
        self.set_tags(job, {TAG_PHASE: phase, TAG_REASON: ""} | dict(tags))
        self._write()
        self.runs[job.run_id]["state"] = State.SCHEDULED

    def log_params(self, job, params):
        self._write()
        self.runs[job.run_id]["params"].update(params)

    def put_artifact(self, job, name, content):
        self._write()
        self.runs[job.run_id]["files"].add(name)

    # What the controller and drivers would do:

    def end(self, job_id: str, state: State = State.FINISHED) -> None:
        run = self.runs[self.find_exact(job_id).run_id]
        run["state"], run["end_ms"] = state, next(self._clock)

    def end_all(self) -> None:
        for run in sorted(self.runs.values(), key=lambda run: run["tags"][TAG_KIND] == STUDY):
            if not run["state"].is_final:
                run["state"], run["end_ms"] = State.FINISHED, next(self._clock)


@cache
def _planned(*overrides: str, **request) -> StudyPlan:
    base = (_LEVELS, "seeds=[0,1]")
    return plan_study("pooling", (*base, *overrides), StudyRequest(train=Request(), **request))


def plan(*overrides: str, name: str | None = None, **request) -> StudyPlan:
    """Return the plan that another run of the command would make: with another made-up id."""
    job_id = name or ids.new_job_id(STUDY, "pooling")
    return replace(_planned(*overrides, **request), job_id=job_id)


def submit(store: Store, study: StudyPlan, *, fresh: bool = False, named: bool = False) -> Job:
    found = look(store, study, STORAGE, fresh=fresh, named=named)
    return StudyRecorder(store, study, found, PROVENANCE, cluster="lab", fresh=fresh).record()


def actions(store: Store, study: StudyPlan) -> Counter:
    return Counter(part.action for part in look(store, study, STORAGE).parts())
