"""Who gets room: queued jobs are launched or handed to living drivers, running ones resized.

The attempt number is recorded before its driver is launched, and Ray refuses a submission id it
has seen: so a controller that is killed anywhere in here launches nothing twice.
"""

import contextlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence

from orchestrator.controller.candidates import (
    Candidate,
    Capacity,
    Elastic,
    Join,
    Refuse,
    Start,
    Wait,
)
from orchestrator.controller.fleet import Fleet, RayJobsApi
from orchestrator.controller.policy import admit, grow
from orchestrator.jobs.errors import ApiError
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import (
    TAG_ATTEMPT,
    TAG_ATTEMPT_LAUNCHED,
    TAG_HOST,
    TAG_LAUNCHED,
    TAG_LAUNCHING,
    TAG_PHASE,
    TAG_PROGRESS,
    TAG_QUEUE_KEY,
    TAG_REASON,
    TAG_RESIZE,
    TAG_STOP_SENT,
    TAG_WORKERS,
    Job,
)
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore

_MOST_REASONS = 20
"""Waiting jobs that are told why in one step."""
_REASONS_S = 0.3
"""Time for that in one step; a busy tracking server takes half a second for one."""


def start_queued(
    store: JobStore,
    ray: RayJobsApi,
    queued: Sequence[Job],
    states: Mapping[str, State | None],
    fleet: Fleet,
    total: Capacity,
    now_ms: int,
) -> tuple[list[str], bool]:
    """Start what may start; return what was done, and whether anybody waits for room.

    Args:
        store: The jobs.
        ray: Where drivers are started.
        queued: Jobs that no driver has.
        states: States of all jobs that these wait for; None for one that does not exist.
        fleet: The living drivers.
        total: The whole cluster.
        now_ms: The present time.
    """
    events: list[str] = []
    waiting: list[tuple[Job, str]] = []
    waits_for_room = False
    by_id = {job.job_id: job for job in queued}
    decisions = admit(
        [_candidate(job, states) for job in queued],
        fleet.holding(),
        total,
        now_ms,
        hosts=fleet.hosts(),
        drivers=fleet.of_groups(),
    )
    for decision in decisions:
        job = by_id[decision.job_id]
        match decision:
            case Start(num_workers=num_workers):
                attempt = _launch(store, ray, job, num_workers, now_ms)
                events.append(f"{job.job_id}: launched attempt {attempt}")
            case Join(host=host):
                attempt = _hand_over(store, job, host, now_ms)
                events.append(f"{job.job_id}: handed to {host} as attempt {attempt}")
            case Refuse(reason=reason):
                store.move(job, State.KILLED, phase="refused", reason=reason)
                events.append(f"{job.job_id}: {reason}")
            case Wait(reason=reason):
                waits_for_room |= decision.for_room
                if _worth_saying(job, reason):
                    waiting.append((job, reason))
    _say_why(store, waiting)
    return events, waits_for_room


def _say_why(store: JobStore, waiting: Sequence[tuple[Job, str]]) -> None:
    """Tell waiting jobs why, a few of them: a long queue must not hold up the next step."""
    deadline = time.monotonic() + _REASONS_S
    for job, reason in waiting[:_MOST_REASONS]:
        store.set_tags(job, {TAG_REASON: reason})
        if time.monotonic() > deadline:
            return


def may_grow(job: Job) -> bool:
    """Whether a running job takes more workers than it has, and is not about to end."""
    spec = job.spec
    told = job.stop_requested or job.tags.get(TAG_STOP_SENT) == str(job.attempt)
    wider = bool(spec.worker_counts) and job.num_workers < spec.worker_counts[-1]
    return wider and not job.pack and not told


def grow_running(
    store: JobStore,
    ray: RayJobsApi,
    jobs: Sequence[Job],
    holding: Sequence[Resources],
    total: Capacity,
    now_ms: int,
) -> list[str]:
    """Ask running jobs to save and end where the next attempt can have more workers."""
    by_id = {job.job_id: job for job in jobs}
    events = []
    for job_id, count in grow([_elastic(job, now_ms) for job in jobs], holding, total).items():
        job = by_id[job_id]
        # Recorded first: an attempt that ends with nobody having asked is taken for a failure.
        store.set_tags(job, {TAG_RESIZE: str(job.attempt)})
        if ray.stop(job.submission_id):
            store.set_tags(job, {TAG_STOP_SENT: str(job.attempt), TAG_PHASE: "resizing"})
        events.append(f"{job_id}: there is room for {count} workers; asked to save and end")
    return events


def _elastic(job: Job, now_ms: int) -> Elastic:
    left = job.progress.get("eta_s")
    return Elastic(
        job_id=job.job_id,
        candidate=_candidate(job, {}),
        num_workers=job.num_workers,
        seconds_running=(now_ms - job.attempt_launch_ms) / 1000,
        seconds_left=float(left) if left is not None else None,
    )


def _candidate(job: Job, states: Mapping[str, State | None]) -> Candidate:
    return Candidate(
        job_id=job.job_id,
        queue_key=job.tags.get(TAG_QUEUE_KEY, ""),
        resources=job.spec.resources,
        worker_counts=job.spec.worker_counts,
        not_before_ms=job.not_before_ms,
        after={name: states[name] for name in job.spec.after if name in states},
        pack=job.pack,
        group=job.group,
        max_parallel=job.spec.max_parallel,
    )


def _worth_saying(job: Job, reason: str) -> bool:
    """Whether a new reason replaces the one shown; a countdown is not rewritten each second."""
    if "next attempt in" in reason:
        return False  # the reason of the failure stays in sight
    return reason != job.reason


def _launch(store: JobStore, ray: RayJobsApi, job: Job, num_workers: int, now_ms: int) -> int:
    # Launching while still queued: we were cut off between recording the attempt and moving the
    # job, and nothing was launched yet.
    attempt = job.attempt if job.is_launching else job.attempt + 1
    tags = {
        TAG_ATTEMPT: str(attempt),
        TAG_WORKERS: str(num_workers),
        TAG_ATTEMPT_LAUNCHED: str(now_ms),
        TAG_LAUNCHING: str(attempt),
        TAG_HOST: "",
        TAG_PROGRESS: "{}",
    }
    if not job.first_launch_ms:
        tags[TAG_LAUNCHED] = str(now_ms)
    reason = _after_failure(job, attempt)
    store.move(job, State.RUNNING, phase="launching", reason=reason, tags=tags)
    # "No available agent" and the like while the head starts: the job stays in "launching", and
    # the next step submits the same attempt again.
    with contextlib.suppress(ApiError):
        submit_attempt(ray, job, attempt)
    return attempt


def _hand_over(store: JobStore, job: Job, host: str, now_ms: int) -> int:
    """Record that a living driver is to run the job next; nothing is submitted to Ray."""
    # Always a new number: what an earlier owner of this one still does cannot be taken for ours.
    attempt = job.attempt + 1
    tags = {
        TAG_ATTEMPT: str(attempt),
        TAG_WORKERS: "1",
        TAG_ATTEMPT_LAUNCHED: str(now_ms),
        TAG_LAUNCHING: "",
        TAG_HOST: host,
        TAG_PROGRESS: "{}",
    }
    reason = _after_failure(job, attempt)
    store.move(job, State.RUNNING, phase="next in its process", reason=reason, tags=tags)
    return attempt


def _after_failure(job: Job, attempt: int) -> str:
    retried = attempt > 1 and job.reason.startswith("attempt")
    return f"attempt {attempt}, after: {job.reason}" if retried else ""


def submit_attempt(ray: RayJobsApi, job: Job, attempt: int | None = None) -> None:
    """Have Ray run the driver of an attempt; the newest one if none is given."""
    attempt = job.attempt if attempt is None else attempt
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
