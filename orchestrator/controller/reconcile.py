"""One step of the control loop: compare what is wanted with what is, and move each job once.

The step keeps nothing between calls, so the controller may be killed anywhere in it. What
makes that safe: the attempt number is recorded before its driver is launched, and Ray refuses
a submission id it has seen.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.controller.admission import (
    RayJobsApi,
    grow_running,
    may_grow,
    start_queued,
    submit_attempt,
)
from orchestrator.controller.policy import Capacity
from orchestrator.controller.retry import Close, Resize, Retry, judge
from orchestrator.jobs.errors import ApiError, UnreachableError
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import (
    TAG_LAUNCHING,
    TAG_NOT_BEFORE,
    TAG_PHASE,
    TAG_RETRIES,
    TAG_STOP,
    TAG_STOP_SENT,
    Job,
    verdict_tag,
)
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore

_SUBMIT_GRACE_MS = 30_000
"""A run without an attempt that is RUNNING for longer was left behind by a killed `submit`."""
_TIME_LIMIT = "time limit"


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
    growing: list[Job] = []
    for job in jobs:
        if job.run_id in set_aside:
            continue
        try:
            event, holds = _look_after(store, ray, archive, job, now_ms)
            if not event and job.state is State.SCHEDULED:
                queued.append(job)
            if holds:
                holding.append(job.gang)
            if holds and not event and may_grow(job):
                growing.append(job)
        except UnreachableError:
            raise
        except Exception as exc:
            event = f"left as it is, {type(exc).__name__}: {exc}"
            with contextlib.suppress(ValueError, KeyError):  # its spec may be what is wrong
                if job.state is State.RUNNING:  # what it holds is not free for others
                    holding.append(job.gang)
        events += [f"{job.job_id}: {event}"] if event else []
    if queued or growing:
        nodes = ray.nodes()
        total = Capacity(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
        started, waits_for_room = start_queued(store, ray, queued, holding, total, now_ms)
        events += started
        if not started and not waits_for_room:
            events += grow_running(store, ray, growing, holding, total, now_ms)
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
            submit_attempt(ray, job)
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
    elif sent or not (job.stop_requested or job.is_resizing):
        return ""
    # The signal goes first: if we die after it, it is sent again, which changes nothing.
    if not ray.stop(attempt_id):
        return ""  # not yet running: the next step asks again
    phase = "resizing" if job.is_resizing and not job.stop_requested else "stopping"
    store.set_tags(job, {TAG_STOP_SENT: str(job.attempt), TAG_PHASE: phase})
    return "asked to save and end" if phase == "resizing" else "asked to stop"


def _conclude(store: JobStore, job: Job, ray_message: str, now_ms: int) -> str:
    """Close or requeue a job whose attempt is over."""
    outcome = job.outcome(job.attempt)
    verdict = judge(
        outcome,
        _first_line(ray_message),
        retries_used=job.retries_used,
        max_retries=job.spec.max_retries,
        stop=job.stop_requested,
        resize=job.is_resizing,
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
    if isinstance(verdict, Resize):
        tags |= {TAG_NOT_BEFORE: "", TAG_STOP_SENT: ""}
        reason = f"attempt {job.attempt} ended for one with more workers than {job.num_workers}"
        store.move(job, State.SCHEDULED, phase="resizing", reason=reason, tags=tags)
        return reason
    assert isinstance(verdict, Close)
    state = State.KILLED if verdict.stopped else State.FAILED
    asked = job.tags.get(TAG_STOP, "")
    reason = asked if verdict.stopped and asked.startswith(_TIME_LIMIT) else verdict.reason
    phase = "stopped" if verdict.stopped else "failed"
    store.move(job, state, phase=phase, reason=reason, tags=tags)
    return f"{state}: {reason}"


def _first_line(message: str) -> str:
    """Return the sentence in front of the log lines that Ray adds to its messages."""
    return message.strip().split("\n", 1)[0][:500]
