"""One step of the control loop: compare what is wanted with what is, and move each job once.

The step keeps nothing between calls, so the controller may be killed anywhere in it. What
makes that safe: the attempt number is recorded before its driver is launched, and Ray refuses
a submission id it has seen.
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.controller.policy import Candidate, Capacity, Refuse, Start, Wait, admit
from orchestrator.controller.retry import Close, Retry, judge
from orchestrator.jobs.errors import ApiError, NotFoundError
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import (
    TAG_ATTEMPT,
    TAG_LAUNCHED,
    TAG_NOT_BEFORE,
    TAG_PHASE,
    TAG_PROGRESS,
    TAG_QUEUE_KEY,
    TAG_REASON,
    TAG_STOP,
    Job,
    verdict_tag,
)
from orchestrator.jobs.ray_jobs import Node, RayJob
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore

_SUBMIT_GRACE_MS = 30_000
"""A run without an attempt that is RUNNING for longer was left behind by a killed `submit`."""
_TIME_LIMIT = "time limit"


class RayJobsApi(Protocol):
    """What the step needs of Ray; `RayJobs` and the tests' fake provide it."""

    def submit(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        """Start a driver, unless Ray knows the id."""

    def get(self, submission_id: str) -> RayJob | None:
        """Return an attempt, or None if unknown."""

    def stop(self, submission_id: str) -> None:
        """Ask an attempt to end."""

    def nodes(self) -> list[Node]:
        """Return the living machines."""


@dataclass(frozen=True)
class StepReport:
    """What one step did, and how many jobs it leaves to look after."""

    events: tuple[str, ...]
    active: int


ArchiveLogs = Callable[[Job], None]
"""Stores the log of a job's newest attempt with the job."""


def step(store: JobStore, ray: RayJobsApi, archive: ArchiveLogs, now_ms: int) -> StepReport:
    """Move every active job once, and tell what was done.

    Raises:
        UnreachableError: A store does not answer. Nothing is concluded from that.
    """
    jobs = store.active()
    events, set_aside = _close_duplicates(store, jobs)
    for job in jobs:
        if job.run_id not in set_aside and (event := _mend(store, job, now_ms)):
            events.append(f"{job.job_id}: {event}")
            set_aside.add(job.run_id)
    jobs = [job for job in jobs if job.run_id not in set_aside]
    holding: list[Resources] = []
    for job in jobs:
        if job.state is State.RUNNING and job.attempt > 0:
            event, still_running = _watch(store, ray, archive, job, now_ms)
            events += [f"{job.job_id}: {event}"] if event else []
            if still_running:
                holding.append(job.spec.resources)
    queued = [job for job in jobs if job.state is State.SCHEDULED]
    events += _start_queued(store, ray, queued, holding, now_ms)
    return StepReport(tuple(events), active=len(jobs))


def _mend(store: JobStore, job: Job, now_ms: int) -> str:
    """Put right what a killed `submit` or another release left; return what was done."""
    try:
        _ = job.spec
    except ValueError as exc:
        reason = f"this release cannot read the job: {_first_line(str(exc))}"
        store.move(job, State.FAILED, phase="failed", reason=reason)
        return reason
    abandoned = job.state is State.RUNNING and job.attempt == 0
    if abandoned and now_ms - job.start_ms > _SUBMIT_GRACE_MS:
        store.move(job, State.SCHEDULED, phase="queued", reason="")
        return "its submit was cut off; queued"
    return ""


def _close_duplicates(store: JobStore, jobs: Sequence[Job]) -> tuple[list[str], set[str]]:
    """Close the younger of two runs with one name, left by two submits at the same moment."""
    first: dict[str, Job] = {}
    events: list[str] = []
    closed: set[str] = set()
    for job in sorted(jobs, key=lambda job: (-job.attempt, job.start_ms, job.run_id)):
        if first.setdefault(job.job_id, job) is job:
            continue
        reason = f"a job named {job.job_id} was submitted before"
        store.move(job, State.KILLED, phase="duplicate", reason=reason)
        closed.add(job.run_id)
        events.append(f"{job.job_id}: closed a duplicate")
    return events, closed


def _watch(
    store: JobStore, ray: RayJobsApi, archive: ArchiveLogs, job: Job, now_ms: int
) -> tuple[str, bool]:
    """Look after a RUNNING job; return what was done and whether it still holds resources."""
    attempt_id = submission_id(job.job_id, job.attempt)
    attempt = ray.get(attempt_id)
    if attempt is None and job.phase == "launching":
        _submit(ray, job, job.attempt)  # the launch was cut off before or after Ray heard of it
        return "launched again", True
    if attempt is not None and not attempt.is_over:
        return _stop_if_wanted(store, ray, job, attempt_id, now_ms), True
    fresh = store.get(job.run_id)  # the driver's last word may be newer than our list
    if fresh.state is not State.RUNNING:
        return "", False
    archive(fresh)
    message = attempt.message if attempt else "the attempt was lost with the Ray head"
    return _conclude(store, fresh, message, now_ms), False


def _stop_if_wanted(
    store: JobStore, ray: RayJobsApi, job: Job, attempt_id: str, now_ms: int
) -> str:
    limit = job.raw_spec.get("time_limit_s")
    overdue = limit is not None and now_ms - job.first_launch_ms > limit * 1000
    if overdue and not job.stop_requested:
        store.set_tags(job, {TAG_STOP: f"{_TIME_LIMIT} of {limit} s reached"})
    elif not job.stop_requested or job.phase == "stopping":
        return ""
    # The signal goes first: if we die after it, it is sent again, which changes nothing.
    ray.stop(attempt_id)
    store.set_tags(job, {TAG_PHASE: "stopping"})
    return "asked to stop"


def _conclude(store: JobStore, job: Job, ray_message: str, now_ms: int) -> str:
    """Close or requeue a job whose attempt is over."""
    outcome = job.outcome(job.attempt)
    verdict = judge(
        outcome,
        _first_line(ray_message),
        retries_used=job.attempt - 1 - job.retries_from,
        max_retries=job.spec.max_retries,
        stop=job.stop_requested,
    )
    kind = outcome.get("class", "infrastructure")
    record = {verdict_tag(job.attempt): json.dumps({"class": kind, "reason": verdict.reason})}
    if isinstance(verdict, Retry):
        tags = record | {TAG_NOT_BEFORE: str(now_ms + verdict.delay_s * 1000)}
        reason = f"attempt {job.attempt} failed: {verdict.reason}"
        store.move(job, State.SCHEDULED, phase="retrying", reason=reason, tags=tags)
        return f"{reason}; queued again"
    assert isinstance(verdict, Close)
    state = State.KILLED if verdict.stopped else State.FAILED
    asked = job.tags.get(TAG_STOP, "")
    reason = asked if verdict.stopped and asked.startswith(_TIME_LIMIT) else verdict.reason
    phase = "stopped" if verdict.stopped else "failed"
    store.move(job, state, phase=phase, reason=reason, tags=record)
    return f"{state}: {reason}"


def _start_queued(
    store: JobStore,
    ray: RayJobsApi,
    queued: Sequence[Job],
    holding: Sequence[Resources],
    now_ms: int,
) -> list[str]:
    events = []
    waiting = []
    for job in queued:
        if job.stop_requested:
            store.move(job, State.KILLED, phase="stopped", reason="stopped while queued")
            events.append(f"{job.job_id}: stopped while queued")
        else:
            waiting.append(job)
    if not waiting:
        return events
    nodes = ray.nodes()
    total = Capacity(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    candidates = [_candidate(store, job) for job in waiting]
    by_id = {job.job_id: job for job in waiting}
    for decision in admit(candidates, holding, total, now_ms):
        job = by_id[decision.job_id]
        match decision:
            case Start():
                attempt = _launch(store, ray, job, now_ms)
                events.append(f"{job.job_id}: launched attempt {attempt}")
            case Refuse(reason=reason):
                store.move(job, State.KILLED, phase="refused", reason=reason)
                events.append(f"{job.job_id}: {reason}")
            case Wait(reason=reason) if _worth_saying(job, reason):
                store.set_tags(job, {TAG_REASON: reason})
    return events


def _candidate(store: JobStore, job: Job) -> Candidate:
    after: dict[str, State | None] = {}
    for name in job.spec.after:
        try:
            after[name] = store.find(name).state
        except NotFoundError:
            after[name] = None
    return Candidate(
        job_id=job.job_id,
        queue_key=job.tags.get(TAG_QUEUE_KEY, ""),
        resources=job.spec.resources,
        not_before_ms=job.not_before_ms,
        after=after,
    )


def _worth_saying(job: Job, reason: str) -> bool:
    """Whether a new reason replaces the one shown; a countdown is not rewritten each second."""
    if "next attempt in" in reason:
        return False  # the reason of the failure stays in sight
    return reason != job.reason


def _launch(store: JobStore, ray: RayJobsApi, job: Job, now_ms: int) -> int:
    # "launching" while still queued: we were cut off between recording the attempt and moving
    # the job, and nothing was launched yet.
    attempt = job.attempt if job.phase == "launching" else job.attempt + 1
    tags = {TAG_ATTEMPT: str(attempt), TAG_PROGRESS: "{}"}
    if not job.first_launch_ms:
        tags[TAG_LAUNCHED] = str(now_ms)
    reason = f"attempt {attempt}, after: {job.reason}" if attempt > 1 else ""
    store.move(job, State.RUNNING, phase="launching", reason=reason, tags=tags)
    # "No available agent" and the like while the head starts: the job stays in "launching", and
    # the next step submits the same attempt again.
    with contextlib.suppress(ApiError):
        _submit(ray, job, attempt)
    return attempt


def _submit(ray: RayJobsApi, job: Job, attempt: int) -> None:
    # `exec` makes the driver the direct child of Ray's supervisor, so that it dies with it.
    # Only ids travel here; what a user wrote stays in the spec.
    command = shlex.join(
        [sys.executable, "-m", "orchestrator.drivers.main", job.run_id, str(attempt)]
    )
    ray.submit(
        submission_id(job.job_id, attempt),
        f"exec {command}",
        {"job_id": job.job_id, "attempt": str(attempt)},
    )


def _first_line(message: str) -> str:
    """Return the sentence in front of the log lines that Ray adds to its messages."""
    return message.strip().split("\n", 1)[0][:500]
