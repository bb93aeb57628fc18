"""In-memory stand-ins for the two stores, with the answers that the real ones give."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.jobs.errors import ConflictError, UnreachableError
from orchestrator.jobs.job import (
    TAG_GROUP,
    TAG_JOB_ID,
    TAG_KIND,
    TAG_PHASE,
    TAG_PRIORITY,
    TAG_QUEUE_KEY,
    TAG_REASON,
    TAG_SPEC,
    Job,
    member_tag,
    queue_key,
)
from orchestrator.jobs.ray_jobs import Node, RayJob
from orchestrator.jobs.spec import JobSpec, Resources
from orchestrator.jobs.states import ACTIVE, State, may_become
from workloads.config.train import TrainConfig


def make_spec(job_id: str, *, num_workers: int = 1, kind: Any = "train", **fields: Any) -> JobSpec:
    """Return a valid spec."""
    return JobSpec(
        job_id=job_id,
        kind=kind,
        recipe="digits_resnet_isqrt",
        study="digits",
        config=TrainConfig().model_dump(mode="json"),
        resources=Resources(num_workers=num_workers),
        **fields,
    )


_CLAUSE = re.compile(
    r"(?:attributes\.(?P<attribute>\w+)|tags\.`(?P<tag>[^`]+)`) "
    r"(?P<comparator>=|!=|LIKE|IN) (?:'(?P<value>[^']*)'|\((?P<values>[^)]*)\))"
)


def _matches(job: Job, clause: Any) -> bool:
    value, comparator = clause["value"], clause["comparator"]
    if clause["tag"]:
        held = job.tags.get(clause["tag"])
    else:
        held = {"status": job.state.value, "run_id": job.run_id}[clause["attribute"]]
    if comparator == "IN":
        assert clause["attribute"] == "run_id", "MLflow takes lists of run ids only"
        return held in [text.strip(" '") for text in clause["values"].split(",")]
    if held is None:
        return False
    if comparator == "LIKE":
        assert value == "%", "no other pattern is needed"
        return True
    return (held == value) is (comparator == "=")


class FakeStore:
    """The part of `JobStore` that the controller uses, in memory."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.reachable = True
        self.crash_at: int | None = None
        self.writes = 0
        self.requests = 0
        self._ids = itertools.count(1)

    def add(
        self,
        spec: JobSpec,
        *,
        submitted_ms: int = 0,
        state: State = State.SCHEDULED,
        tags: Mapping[str, str] = {},
    ) -> str:
        """Record a job and return its run id."""
        run_id = f"run-{next(self._ids)}"
        own = {
            TAG_JOB_ID: spec.job_id,
            TAG_KIND: spec.kind,
            TAG_SPEC: json.dumps(spec.model_dump(mode="json")),
            TAG_QUEUE_KEY: queue_key(spec.priority, submitted_ms),
            TAG_PRIORITY: str(spec.priority),
            TAG_PHASE: "queued",
        } | ({TAG_GROUP: spec.group} if spec.group else {})
        self.runs[run_id] = {
            "state": state,
            "tags": own | dict(tags),
            "start_ms": submitted_ms,
            "end_ms": None,
        }
        return run_id

    def _job(self, run_id: str) -> Job:
        run = self.runs[run_id]
        return Job(
            run_id=run_id,
            experiment_id="1",
            state=run["state"],
            tags=dict(run["tags"]),
            metrics=dict(run.get("metrics", {})),
            start_ms=run["start_ms"],
            end_ms=run["end_ms"],
            artifact_uri=f"mlflow-artifacts:/1/{run_id}/artifacts",
        )

    def _ask(self) -> None:
        if not self.reachable:
            raise UnreachableError("MLflow does not answer")
        self.requests += 1

    def _write(self) -> None:
        self._ask()
        self.writes += 1
        if self.crash_at is not None and self.writes >= self.crash_at:
            raise Crash

    def active(self) -> list[Job]:
        """Return running jobs, then queued ones in queue order."""
        self._ask()
        jobs = [self._job(run_id) for run_id, run in self.runs.items() if run["state"] in ACTIVE]
        return sorted(
            jobs, key=lambda job: (job.state is State.SCHEDULED, job.tags.get(TAG_QUEUE_KEY, ""))
        )

    def get(self, run_id: str) -> Job:
        """Return a job."""
        self._ask()
        return self._job(run_id)

    def find_exact(self, name: str) -> Job | None:
        """Return the job of that id."""
        self._ask()
        for run_id, run in self.runs.items():
            if run["tags"][TAG_JOB_ID] == name:
                return self._job(run_id)
        return None

    def experiments(self) -> dict[str, str]:
        """Return the one experiment."""
        self._ask()
        return {"1": "digits"}

    def search(
        self,
        where: str = "",
        *,
        limit: int = 50,
        order_by: Sequence[str] = ("attributes.start_time DESC",),
        experiments: Iterable[str] | None = None,
    ) -> list[Job]:
        """Return the jobs that a filter of MLflow matches; it knows no OR, and IN for run ids."""
        if experiments is None:
            self.experiments()
        self._ask()
        clauses = [_CLAUSE.fullmatch(clause) for clause in where.split(" AND ") if clause]
        assert all(clauses), f"MLflow cannot read {where!r}"
        jobs = [self._job(run_id) for run_id in self.runs]
        found = [job for job in jobs if all(_matches(job, clause) for clause in clauses)]
        (order,) = order_by
        key, direction = order.rsplit(" ", 1)
        found.sort(
            key=lambda job: job.start_ms if "start_time" in key else job.tags[TAG_QUEUE_KEY],
            reverse=direction == "DESC",
        )
        return found[:limit]

    def members(self, group: str) -> list[Job]:
        """Return the jobs whose results a study uses."""
        return self.search(f"tags.`{member_tag(group)}` LIKE '%'", limit=100_000)

    def set_tags(self, job: Job, tags: Mapping[str, str]) -> None:
        """Write tags."""
        self._write()
        self.runs[job.run_id]["tags"].update(tags)

    def move(
        self, job: Job, state: State, *, phase: str, reason: str, tags: Mapping[str, str] = {}
    ) -> None:
        """Move a job; the tags come first, as in the real store."""
        if not may_become(job.state, state) and job.state is not state:
            raise ConflictError(f"{job.state} -> {state}")
        self.set_tags(job, {TAG_PHASE: phase, TAG_REASON: reason} | dict(tags))
        self._write()
        current = self.runs[job.run_id]["state"]
        assert not current.is_final or current is state, "a final state was changed"
        self.runs[job.run_id]["state"] = state

    # What a driver would do:

    def driver_says(self, run_id: str, attempt: int, outcome: Mapping[str, str]) -> None:
        """Write an attempt's last word."""
        self.runs[run_id]["tags"][f"gcpctl.outcome.{attempt}"] = json.dumps(dict(outcome))


class Crash(BaseException):
    """The controller process is gone."""


class FakeRay:
    """The part of `RayJobs` that the controller uses; counts every launch."""

    def __init__(self, cpus: float = 4) -> None:
        self.cpus = cpus
        self.jobs: dict[str, RayJob] = {}
        self.launches: list[str] = []
        self.stops: list[str] = []
        self.gets: list[str] = []
        self.reachable = True
        self.lose_reply = False

    def _ask(self) -> None:
        if not self.reachable:
            raise UnreachableError("Ray does not answer")

    def submit(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        """Start a driver once; a second time changes nothing, as `RayJobs.submit` does."""
        self._ask()
        assert entrypoint.startswith("exec ")
        if submission_id not in self.jobs:
            self.jobs[submission_id] = RayJob(submission_id, "RUNNING")
            self.launches.append(submission_id)
        if self.lose_reply:
            self.lose_reply = False
            raise UnreachableError("the reply was lost")

    def get(self, submission_id: str) -> RayJob | None:
        """Return an attempt."""
        self._ask()
        self.gets.append(submission_id)
        return self.jobs.get(submission_id)

    def stop(self, submission_id: str) -> bool:
        """Note the wish."""
        self._ask()
        self.stops.append(submission_id)
        return True

    def nodes(self) -> list[Node]:
        """Return one node."""
        self._ask()
        return [Node(cpus=self.cpus, gpus=0)]

    def end(self, submission_id: str, status: str = "FAILED", message: str = "exit 137") -> None:
        """Let a driver end."""
        self.jobs[submission_id] = RayJob(submission_id, status, message)

    def lose_head(self) -> None:
        """Forget everything, as a new head does."""
        self.jobs.clear()
