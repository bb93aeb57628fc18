"""One step of the control loop: compare what is wanted with what is, and move each job once.

The step keeps nothing between calls, so the controller may be killed anywhere in it. What
makes that safe: the attempt number is recorded before its driver is launched, and Ray refuses
a submission id it has seen.
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.controller.policy import Candidate, Capacity, Refuse, Start, Wait, admit
from orchestrator.controller.retry import Close, Retry, judge
from orchestrator.jobs.errors import ApiError, UnreachableError
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import (
    TAG_ATTEMPT,
    TAG_LAUNCHED,
    TAG_LAUNCHING,
    TAG_NOT_BEFORE,
    TAG_PHASE,
    TAG_PROGRESS,
    TAG_QUEUE_KEY,
    TAG_REASON,
    TAG_RETRIES,
    TAG_STOP,
    TAG_STOP_SENT,
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

    def stop(self, submission_id: str) -> bool:
        """Ask an attempt to end; return whether it was told."""

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

    What goes wrong with one job is told and leaves the others to be moved.

    Raises:
        UnreachableError: A store does not answer. Nothing is concluded from that.
    """
    jobs = store.active()
    events, set_aside = _close_duplicates(store, jobs)
    holding: list[Resources] = []
    queued: list[Job] = []
    for job in jobs:
        if job.run_id in set_aside:
            continue
        try:
            event, holds = _look_after(store, ray, archive, job, now_ms)
            if not event and job.state is State.SCHEDULED:
                queued.append(job)
            if holds:
                holding.append(job.spec.resources)
        except UnreachableError:
            raise
        except Exception as exc:
            event = f"left as it is, {type(exc).__name__}: {exc}"
            with contextlib.suppress(ValueError, KeyError):  # its spec may be what is wrong
                if job.state is State.RUNNING:  # what it holds is not free for others
                    holding.append(job.spec.resources)
        events += [f"{job.job_id}: {event}"] if event else []
    events += _start_queued(store, ray, queued, holding, now_ms)
    return StepReport(tuple(events), active=len(jobs))


def _look_after(
    store: JobStore, ray: RayJobsApi, archive: ArchiveLogs, job: Job, now_ms: int
) -> tuple[str, bool]:
    """Do what one job needs by itself; return what was done and whether it holds resources."""
    if event := _mend(store, job, now_ms):
        return event, False
    if job.state is State.RUNNING and job.attempt > 0:
        return _watch(store, ray, archive, job, now_ms)
    if job.state is State.SCHEDULED and job.stop_requested:
        store.move(job, State.KILLED, phase="stopped", reason="stopped while queued")
        return "stopped while queued", False
    return "", False


def _mend(store: JobStore, job: Job, now_ms: int) -> str:
    """Put right what a killed `submit` or another release left; return what was done."""
    try:
        _ = job.spec
    except (ValueError, KeyError) as exc:
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
    for job in sorted(jobs, key=lambda job: (not job.attempt, job.start_ms, job.run_id)):
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
    if attempt is None and job.is_launching:
        # The launch was cut off, before or after Ray heard of it.
        if job.stop_requested:
            return _conclude(store, job, "", now_ms), False
        with contextlib.suppress(ApiError):  # the head is still starting: the next step tries
            _submit(ray, job, job.attempt)
        return "launched again", True
    if attempt is not None and job.is_launching:
        store.set_tags(job, {TAG_LAUNCHING: ""})
    if attempt is not None and not attempt.is_over:
        return _stop_if_wanted(store, ray, job, attempt_id, now_ms), True
    fresh = store.get(job.run_id)  # the driver's last word may be newer than our list
    if fresh.state is not State.RUNNING or fresh.attempt != job.attempt:
        return "", False
    archive(fresh)
    message = attempt.message if attempt else "the attempt was lost with the Ray head"
    return _conclude(store, fresh, message, now_ms), False


def _stop_if_wanted(
    store: JobStore, ray: RayJobsApi, job: Job, attempt_id: str, now_ms: int
) -> str:
    limit = job.raw_spec.get("time_limit_s")
    overdue = limit is not None and now_ms - job.first_launch_ms > limit * 1000
    sent = job.tags.get(TAG_STOP_SENT) == str(job.attempt)
    if overdue and not job.stop_requested:
        store.set_tags(job, {TAG_STOP: f"{_TIME_LIMIT} of {limit} s reached"})
    elif not job.stop_requested or sent:
        return ""
    # The signal goes first: if we die after it, it is sent again, which changes nothing.
    if not ray.stop(attempt_id):
        return ""  # not yet running: the next step asks again
    store.set_tags(job, {TAG_STOP_SENT: str(job.attempt), TAG_PHASE: "stopping"})
    return "asked to stop"


def _conclude(store: JobStore, job: Job, ray_message: str, now_ms: int) -> str:
    """Close or requeue a job whose attempt is over."""
    outcome = job.outcome(job.attempt)
    verdict = judge(
        outcome,
        _first_line(ray_message),
        retries_used=job.retries_used,
        max_retries=job.spec.max_retries,
        stop=job.stop_requested,
    )
    kind = outcome.get("class", "" if outcome.get("outcome") == "stopped" else "infrastructure")
    record = {"class": kind, "reason": verdict.reason}
    tags = {verdict_tag(job.attempt): json.dumps(record, ensure_ascii=False), TAG_LAUNCHING: ""}
    if isinstance(verdict, Retry):
        retries = {"used": job.retries_used + 1, "epoch": job.epoch}
        tags |= {
            TAG_NOT_BEFORE: str(now_ms + verdict.delay_s * 1000),
            TAG_RETRIES: json.dumps(retries),
        }
        reason = f"attempt {job.attempt} failed: {verdict.reason}"
        store.move(job, State.SCHEDULED, phase="retrying", reason=reason, tags=tags)
        return f"{reason}; queued again"
    assert isinstance(verdict, Close)
    state = State.KILLED if verdict.stopped else State.FAILED
    asked = job.tags.get(TAG_STOP, "")
    reason = asked if verdict.stopped and asked.startswith(_TIME_LIMIT) else verdict.reason
    phase = "stopped" if verdict.stopped else "failed"
    store.move(job, state, phase=phase, reason=reason, tags=tags)
    return f"{state}: {reason}"


def _start_queued(
    store: JobStore,
    ray: RayJobsApi,
    queued: Sequence[Job],
    holding: Sequence[Resources],
    now_ms: int,
) -> list[str]:
    if not queued:
        return []
    events = []
    nodes = ray.nodes()
    total = Capacity(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    states = _states_waited_for(store, queued)
    candidates = [_candidate(job, states) for job in queued]
    by_id = {job.job_id: job for job in queued}
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


def _states_waited_for(store: JobStore, queued: Sequence[Job]) -> dict[str, State | None]:
    """Return the states of all jobs that others wait for; None for one that does not exist."""
    names = {name for job in queued for name in job.spec.after}
    found = {name: store.find_exact(name) for name in sorted(names)}
    return {name: job.state if job else None for name, job in found.items()}


def _candidate(job: Job, states: Mapping[str, State | None]) -> Candidate:
    return Candidate(
        job_id=job.job_id,
        queue_key=job.tags.get(TAG_QUEUE_KEY, ""),
        resources=job.spec.resources,
        not_before_ms=job.not_before_ms,
        after={name: states[name] for name in job.spec.after},
    )


def _worth_saying(job: Job, reason: str) -> bool:
    """Whether a new reason replaces the one shown; a countdown is not rewritten each second."""
    if "next attempt in" in reason:
        return False  # the reason of the failure stays in sight
    return reason != job.reason


def _launch(store: JobStore, ray: RayJobsApi, job: Job, now_ms: int) -> int:
    # Launching while still queued: we were cut off between recording the attempt and moving the
    # job, and nothing was launched yet.
    attempt = job.attempt if job.is_launching else job.attempt + 1
    tags = {TAG_ATTEMPT: str(attempt), TAG_LAUNCHING: str(attempt), TAG_PROGRESS: "{}"}
    if not job.first_launch_ms:
        tags[TAG_LAUNCHED] = str(now_ms)
    retried = attempt > 1 and job.reason.startswith("attempt")
    reason = f"attempt {attempt}, after: {job.reason}" if retried else ""
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
