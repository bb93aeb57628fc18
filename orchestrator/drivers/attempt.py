"""One attempt of a job, from its first word to its last: tracked, logged and closed."""

import functools
import os
import sys
import traceback
from collections.abc import Callable

from cluster.profiles import Profile
from orchestrator.drivers.environment import describe_environment
from orchestrator.drivers.lineage import record_lineage
from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.drivers.tracking import Tracker, patiently
from orchestrator.jobs.errors import ApiError, ConflictError
from orchestrator.jobs.job import PREFIX, TAG_PHASE, Job, outcome_tag
from orchestrator.jobs.logs import artifact_name
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore
from workloads.worker.failures import classify
from workloads.worker.paths import JobPaths

_LOG_LIMIT_BYTES = 32 * 1024 * 1024
_WORKING = {"eval": "evaluating", "train": "training", "tune": "searching"}

Work = Callable[[JobPaths, StopSignal], Outcome]
"""Does what the job is for; its failures are outcomes, what it raises is the driver's trouble."""


def run_attempt(
    profile: Profile,
    job: Job,
    attempt: int,
    work: Work,
    *,
    stop: StopSignal | None = None,
    log_begins_at: int = 0,
) -> Outcome:
    """Run the attempt to its end and leave nothing unsent.

    Args:
        profile: The cluster this process runs on.
        job: The job as the store had it when the attempt began.
        attempt: The number of this attempt.
        work: What the job is for.
        stop: The signal of a driver that runs several jobs, which are stopped one by one besides;
            None makes one for this attempt.
        log_begins_at: Where in this process's output the attempt's lines begin, in bytes.
    """
    paths = job_paths(profile, job)
    paths.root.mkdir(parents=True, exist_ok=True)
    for left_over in (paths.stop, paths.progress, paths.result):  # of the attempt before
        left_over.unlink(missing_ok=True)
    shared = stop is not None
    stop = stop or StopSignal(paths)
    stop.turn_to(paths)
    stop.install()
    store = JobStore.of(profile)
    tracker = Tracker(
        JobStore.of(profile),
        job,
        attempt,
        paths,
        working=_WORKING.get(job.kind, "working"),
        at_first_progress=_environment,
        passes_stop_on=shared,
    )
    tracker.start()
    phase = "resuming" if attempt > 1 and job.kind == "train" else "starting"
    patiently(lambda: store.set_tags(job, {TAG_PHASE: phase}))
    try:
        outcome = work(paths, stop)
    except Exception as exc:
        traceback.print_exc()
        # Whatever else goes wrong in the driver itself, another attempt may get round it.
        kind = "storage" if classify(exc) == "storage" else "infrastructure"
        outcome = Outcome.failed(kind, f"{type(exc).__name__}: {exc}")
    delivered = tracker.finish()
    say(outcome.describe())
    if not delivered and outcome.kind == "finished":
        outcome = Outcome.failed("infrastructure", "the tracking server did not take the metrics")
    if outcome.kind == "finished":
        record_lineage(profile, store, job, outcome.tags)
    patiently(lambda: _close(store, job, attempt, outcome, log_begins_at))
    return outcome


def job_paths(profile: Profile, job: Job) -> JobPaths:
    """Return where a job keeps its files."""
    return JobPaths(profile.storage_path / job.job_id)


def _close(store: JobStore, job: Job, attempt: int, outcome: Outcome, log_begins_at: int) -> None:
    """Write the attempt's last word, unless a newer attempt has taken over."""
    fresh = store.get(job.run_id)
    if fresh.attempt != attempt or fresh.state is not State.RUNNING:
        say(f"attempt {attempt} was superseded; its end is not recorded")
        return
    _store_beside(store, job, artifact_name(attempt), _own_log(log_begins_at))
    tags = {outcome_tag(attempt): outcome.to_json()} | dict(outcome.tags)
    if outcome.kind == "finished":
        store.move(fresh, State.FINISHED, phase="finished", reason=outcome.reason, tags=tags)
    else:
        store.set_tags(job, tags)  # the controller decides: retry, FAILED or KILLED


def output_size() -> int:
    """Return how many bytes this process has written; 0 where its output goes to no file."""
    path = _output_path()
    return os.path.getsize(path) if path else 0


def _own_log(begins_at: int) -> bytes:
    """Return what this process has written from there on, where its output goes to a file."""
    path = _output_path()
    if not path:  # the controller fetches the log through Ray
        return b""
    with open(path, "rb") as file:
        file.seek(max(begins_at, os.path.getsize(path) - _LOG_LIMIT_BYTES))
        return file.read()


def _output_path() -> str:
    """Return the file that this process's output goes to; empty where there is none."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        path = os.readlink("/proc/self/fd/1")
    except OSError:  # no /proc
        return ""
    return path if os.path.isfile(path) else ""


def _store_beside(store: JobStore, job: Job, name: str, content: bytes) -> None:
    """Store a file that is worth waiting for a server, but not worth an attempt."""
    try:
        if content:
            store.put_artifact(job, name, content)
    except (ApiError, ConflictError) as exc:  # its disk is full, or it serves no artifacts
        say(f"could not store {name}: {exc.message}")


def _environment(store: JobStore, job: Job) -> None:
    """Store what the job runs on."""
    _store_beside(store, job, "environment.json", _described())
    store.set_tags(job, {PREFIX + "node": os.uname().nodename})


@functools.cache
def _described() -> bytes:
    return describe_environment().encode()
