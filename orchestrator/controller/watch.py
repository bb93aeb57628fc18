"""Look after the RUNNING jobs: whether their drivers live, were to stop, and how they ended.

Several jobs may share a driver. One of them ends without it, and what a driver was only handed is
taken back when it dies.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.controller.admission import submit_attempt
from orchestrator.controller.fleet import Fleet, RayJobsApi, seconds_left
from orchestrator.controller.retry import Close, Resize, Retry, judge
from orchestrator.jobs.errors import ApiError
from orchestrator.jobs.job import (
    TAG_LAUNCHED,
    TAG_LAUNCHING,
    TAG_NOT_BEFORE,
    TAG_PHASE,
    TAG_RETRIES,
    TAG_STOP,
    TAG_STOP_SENT,
    Job,
    verdict_tag,
)
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore

_TIME_LIMIT = "time limit"
STOPPED_EARLY = "stopped while queued"
_STOP_PATIENCE_MS = 60_000
"""A job that shares its driver has so long to stop by itself, as one of its own has from Ray."""
_ENDING = "ending its process"
_HELD_UP_S = 300.0
"""Well above what keeps a driver from being handed jobs: an estimate is rough at first."""

ArchiveLogs = Callable[[Job], None]
"""Stores the log of a job's newest attempt with the job."""


@dataclass(frozen=True)
class Scene:
    """What one step looks at."""

    store: JobStore
    fleet: Fleet
    ray: RayJobsApi
    archive: ArchiveLogs
    states: Mapping[str, State | None]
    """Of the jobs that others wait for."""
    at_hand: Mapping[str, Job]
    """The active jobs, by job id."""
    now_ms: int


def watch(scene: Scene, job: Job) -> tuple[str, bool]:
    """Look after a job that a driver has begun; return what was done and whether it holds room."""
    store = scene.store
    driver = scene.fleet.driver_of(job)
    if driver is None and job.is_launching and not store.get(job.run_id).outcome(job.attempt):
        # The launch was cut off, before or after Ray heard of it.
        if job.stop_requested:
            return _conclude(store, job, "", scene.now_ms), False
        with contextlib.suppress(ApiError):  # the head is still starting: the next step tries
            submit_attempt(scene.ray, job)
        return "launched again", True
    if driver is not None and job.is_launching:
        store.set_tags(job, {TAG_LAUNCHING: ""})
    lives = driver is not None and not driver.is_over
    if lives and not _was_left(job):
        return _stop_if_wanted(scene, job), True
    fresh = store.get(job.run_id)  # the driver's last word may be newer than our list
    if fresh.state is not State.RUNNING or fresh.attempt != job.attempt:
        return "", False
    if not lives:  # else it has stored the log, and goes on with another job
        scene.archive(fresh)
    message = driver.message if driver else "the attempt was lost with the Ray head"
    return _conclude(store, fresh, message, scene.now_ms), False


def _was_left(job: Job) -> bool:
    """Whether a driver that runs several jobs is through with this one, without success.

    A finished job is moved by its driver, just after the outcome is written.
    """
    said = job.outcome(job.attempt).get("outcome", "finished")
    return bool(job.pack) and said != "finished"


def watch_handed(scene: Scene, job: Job) -> tuple[str, bool]:
    """Look after a job that was handed to a driver which has not begun it.

    It is taken back when it cannot be begun there any more. That is no failure of the job.
    """
    driver = scene.fleet.driver_of(job)
    lives = driver is not None and not driver.is_over
    lost = [name for name in job.spec.after if not _comes_before(scene, name, job)]
    held_up = _is_held_up(scene, job)
    if lives and not lost and not held_up and not job.stop_requested:
        return "", True
    # The driver says that it begins before it looks whether the job is still its own; we look
    # whether it has begun before we take the job. So not both go on with it, or the fence tells.
    fresh = scene.store.get(job.run_id)
    if fresh.state is not State.RUNNING or fresh.attempt != job.attempt:
        return "", False
    if fresh.has_begun:
        return watch(scene, fresh)
    if fresh.stop_requested:
        scene.store.move(fresh, State.KILLED, phase="stopped", reason=STOPPED_EARLY)
        return STOPPED_EARLY, False
    reason = "its process ended before its turn"
    if lost:
        reason = f"waiting: for {lost[0]} to finish"
    elif lives:
        reason = "waiting: its turn would come late"
    # Who had it stays written: cut off before the state, the next step must see it as handed.
    tags = {TAG_NOT_BEFORE: ""}
    scene.store.move(fresh, State.SCHEDULED, phase="queued", reason=reason, tags=tags)
    return f"taken back from {job.submission_id}: {reason}", False


def _is_held_up(scene: Scene, job: Job) -> bool:
    """Whether a job could begin elsewhere long before its driver is through with another."""
    if any(scene.states.get(name) is not State.FINISHED for name in job.spec.after):
        return False
    mine = (other for other in scene.at_hand.values() if other.state is State.RUNNING)
    return seconds_left(o for o in mine if o.submission_id == job.submission_id) > _HELD_UP_S


def _comes_before(scene: Scene, name: str, job: Job) -> bool:
    """Whether a job that another waits for is finished, or runs in front of it in its driver."""
    if scene.states.get(name, State.FINISHED) is State.FINISHED:
        return True
    other = scene.at_hand.get(name)
    if other is None or other.state is not State.RUNNING or _was_left(other):
        return False
    return other.submission_id == job.submission_id


def _stop_if_wanted(scene: Scene, job: Job) -> str:
    """Pass on a wish to stop, or to resize, to the driver of a job that it has begun."""
    store, now_ms = scene.store, scene.now_ms
    limit = job.raw_spec.get("time_limit_s")
    if limit is not None and not job.first_launch_ms:  # handed over, and now begun
        store.set_tags(job, {TAG_LAUNCHED: str(now_ms)})
        return ""
    overdue_ms = now_ms - job.first_launch_ms - limit * 1000 if limit is not None else 0
    sent = job.tags.get(TAG_STOP_SENT) == str(job.attempt)
    if overdue_ms > 0 and not job.stop_requested:
        store.set_tags(job, {TAG_STOP: f"{_TIME_LIMIT} of {limit} s reached"})
    elif sent and job.pack:
        asked = job.tags.get(TAG_STOP, "")
        waits_ms = now_ms - int(asked) if asked.isdigit() else overdue_ms
        return _end_driver(scene, job) if waits_ms > _STOP_PATIENCE_MS else ""
    elif sent or not (job.stop_requested or job.is_resizing):
        return ""
    # The signal goes first: if we die after it, it is sent again, which changes nothing. One that
    # would reach other jobs as well is not sent: the driver has its eye on the wish itself.
    if not job.pack and not scene.ray.stop(job.submission_id):
        return ""  # not yet running: the next step asks again
    phase = "resizing" if job.is_resizing and not job.stop_requested else "stopping"
    store.set_tags(job, {TAG_STOP_SENT: str(job.attempt), TAG_PHASE: phase})
    return "asked to save and end" if phase == "resizing" else "asked to stop"


def _end_driver(scene: Scene, job: Job) -> str:
    """End a driver that several jobs share, because the one it runs does not hear."""
    scene.fleet.close(job)
    if job.phase == _ENDING or not scene.ray.stop(job.submission_id):
        return ""
    scene.store.set_tags(job, {TAG_PHASE: _ENDING})
    return "does not stop; its process is ended"


def _conclude(store: JobStore, job: Job, ray_message: str, now_ms: int) -> str:
    """Close or requeue a job whose attempt is over."""
    outcome = job.outcome(job.attempt)
    if outcome.get("outcome") == "finished":  # the driver was cut off before it wrote the state
        reason = outcome.get("reason", "")
        store.move(job, State.FINISHED, phase="finished", reason=reason, tags={TAG_LAUNCHING: ""})
        return f"{State.FINISHED}: {reason}"
    verdict = judge(
        outcome,
        first_line(ray_message),
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


def first_line(message: str) -> str:
    """Return the sentence in front of the log lines that Ray adds to its messages."""
    return message.strip().split("\n", 1)[0][:500]
