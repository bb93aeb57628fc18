"""One step of the control loop: compare what is wanted with what is, and move each job once.

The step keeps nothing between calls, so the controller may be killed anywhere in it. What
makes that safe: the attempt number is recorded before its driver is launched, and Ray refuses
a submission id it has seen.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.controller.admission import grow_running, may_grow, start_queued
from orchestrator.controller.candidates import Capacity
from orchestrator.controller.fleet import Fleet, RayJobsApi
from orchestrator.controller.studies import due_studies
from orchestrator.controller.waited_for import WaitedFor
from orchestrator.controller.watch import (
    STOPPED_EARLY,
    ArchiveLogs,
    Scene,
    first_line,
    watch,
    watch_handed,
)
from orchestrator.jobs.errors import UnreachableError
from orchestrator.jobs.job import DUPLICATE, STUDY, Job, precedence
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore

_SUBMIT_GRACE_MS = 30_000
"""A run without an attempt that is RUNNING for longer was left behind by a killed `submit`."""


@dataclass(frozen=True)
class StepReport:
    """What one step did, and how many jobs it leaves to look after."""

    events: tuple[str, ...]
    active: int


def step(
    store: JobStore,
    ray: RayJobsApi,
    archive: ArchiveLogs,
    now_ms: int,
    waited_for: WaitedFor | None = None,
) -> StepReport:
    """Move every active job once, and tell what was done.

    What goes wrong with one job is told and leaves the others to be moved.

    Args:
        store: The jobs.
        ray: The drivers.
        archive: Keeps logs.
        now_ms: The present time.
        waited_for: What earlier steps learned of jobs that others wait for; only saves requests.

    Raises:
        UnreachableError: A store does not answer. Nothing is concluded from that.
    """
    active = store.active()
    events, set_aside = _close_duplicates(store, active)
    jobs = [job for job in active if job.run_id not in set_aside]
    states = _states_waited_for(store, jobs, waited_for or WaitedFor())
    scene = Scene(store, Fleet(ray), ray, archive, states, {j.job_id: j for j in jobs}, now_ms)
    queued: list[Job] = []
    growing: list[Job] = []
    for job in jobs:
        try:
            event, holds = _look_after(scene, job)
            if not event and job.state is State.SCHEDULED:
                queued.append(job)
            if holds:
                scene.fleet.add(job)
            if holds and not event and may_grow(job):
                growing.append(job)
        except UnreachableError:
            raise
        except Exception as exc:
            event = f"left as it is, {type(exc).__name__}: {exc}"
            with contextlib.suppress(ValueError, KeyError):  # its spec may be what is wrong
                if job.state is State.RUNNING:  # what it holds is not free for others
                    scene.fleet.add(job)
        events += [f"{job.job_id}: {event}"] if event else []
    studies = [job for job in queued if job.kind == STUDY]
    due = {job.run_id for job in due_studies(store, studies, jobs, now_ms)}
    queued = [job for job in queued if job.kind != STUDY or job.run_id in due]
    if queued or growing:
        nodes = ray.nodes()
        total = Capacity(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
        started, waits_for_room = start_queued(
            store, ray, queued, states, scene.fleet, total, now_ms
        )
        events += started
        if not started and not waits_for_room:
            holding = scene.fleet.holding()
            events += grow_running(store, ray, growing, holding, total, now_ms)
    return StepReport(tuple(events), active=len(active))


def _states_waited_for(
    store: JobStore, jobs: Sequence[Job], waited_for: WaitedFor
) -> dict[str, State | None]:
    """Look up what the queued jobs wait for, and those that were handed over with it."""
    waiting = []
    for job in jobs:
        with contextlib.suppress(ValueError, KeyError):  # one that cannot be read is closed later
            if job.state is State.SCHEDULED or not job.has_begun:
                waiting += [job] if job.spec.after else []
    return waited_for.states(store, waiting, {job.job_id: job for job in jobs})


def _look_after(scene: Scene, job: Job) -> tuple[str, bool]:
    """Do what one job needs by itself; return what was done and whether it holds resources."""
    if event := _mend(scene.store, job, scene.now_ms):
        return event, False
    if job.state is State.RUNNING and job.attempt > 0:
        return watch(scene, job) if job.has_begun else watch_handed(scene, job)
    if job.state is State.SCHEDULED and job.stop_requested:
        scene.store.move(job, State.KILLED, phase="stopped", reason=STOPPED_EARLY)
        return STOPPED_EARLY, False
    return "", False


def _mend(store: JobStore, job: Job, now_ms: int) -> str:
    """Put right what a killed `submit` or another release left; return what was done."""
    try:
        _ = job.spec
    except (ValueError, KeyError) as exc:
        reason = f"this release cannot read the job: {first_line(str(exc))}"
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
    for job in sorted(jobs, key=precedence):
        if first.setdefault(job.job_id, job) is job:
            continue
        reason = f"a job named {job.job_id} was submitted before"
        store.move(job, State.KILLED, phase=DUPLICATE, reason=reason)
        closed.add(job.run_id)
        events.append(f"{job.job_id}: closed a duplicate")
    return events, closed
