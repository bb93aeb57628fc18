"""The driver process: run one attempt of one job, and say how it ended.

    python -m orchestrator.drivers.main RUN_ID ATTEMPT

Ray starts it on the cluster. It imports neither torch nor mlflow.
"""

import os
import sys
import time
import traceback

from cluster.profiles import Profile, load_profile
from orchestrator.drivers.environment import describe_environment
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


def run_attempt(profile: Profile, job: Job, attempt: int) -> Outcome:
    """Run the attempt to its end and leave nothing unsent.

    Args:
        profile: The cluster this process runs on.
        job: The job as the store had it when the driver started.
        attempt: The number of this attempt.
    """
    paths = JobPaths(profile.storage_path / job.job_id)
    paths.root.mkdir(parents=True, exist_ok=True)
    for left_over in (paths.stop, paths.progress, paths.result):  # of the attempt before
        left_over.unlink(missing_ok=True)
    stop = StopSignal(paths)
    stop.install()
    store = JobStore.of(profile)
    tracker = Tracker(
        JobStore.of(profile),
        job,
        attempt,
        paths,
        working="evaluating" if job.kind == "eval" else "training",
        at_first_progress=_environment,
    )
    tracker.start()
    phase = "resuming" if attempt > 1 and job.kind == "train" else "starting"
    patiently(lambda: store.set_tags(job, {TAG_PHASE: phase}))
    try:
        outcome = _run(profile, job, attempt, paths, stop)
    except Exception as exc:
        traceback.print_exc()
        # Whatever else goes wrong in the driver itself, another attempt may get round it.
        kind = "storage" if classify(exc) == "storage" else "infrastructure"
        outcome = Outcome.failed(kind, f"{type(exc).__name__}: {exc}")
    delivered = tracker.finish()
    say(outcome.describe())
    if not delivered and outcome.kind == "finished":
        outcome = Outcome.failed("infrastructure", "the tracking server did not take the metrics")
    patiently(lambda: _close(store, job, attempt, outcome))
    return outcome


def _run(profile: Profile, job: Job, attempt: int, paths: JobPaths, stop: StopSignal) -> Outcome:
    """Do what this kind of job is for."""
    # Imported here: other kinds of jobs need other parts of Ray.
    if job.kind == "eval":
        from orchestrator.drivers.evaluate import run_evaluation_job

        return run_evaluation_job(profile, job, attempt, paths, stop)
    from orchestrator.drivers.train import run_training

    return run_training(profile, job, attempt, paths, stop)


def _close(store: JobStore, job: Job, attempt: int, outcome: Outcome) -> None:
    """Write the attempt's last word, unless a newer attempt has taken over."""
    fresh = store.get(job.run_id)
    if fresh.attempt != attempt or fresh.state is not State.RUNNING:
        say(f"attempt {attempt} was superseded; its end is not recorded")
        return
    _store_beside(store, job, artifact_name(attempt), _own_log())
    tags = {outcome_tag(attempt): outcome.to_json()} | dict(outcome.tags)
    if outcome.kind == "finished":
        store.move(fresh, State.FINISHED, phase="finished", reason=outcome.reason, tags=tags)
    else:
        store.set_tags(job, tags)  # the controller decides: retry, FAILED or KILLED


def _own_log() -> bytes:
    """Return what this process has written so far, where its output goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        path = os.readlink("/proc/self/fd/1")
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read()[-_LOG_LIMIT_BYTES:]
    except OSError:  # no /proc: the controller fetches the log through Ray
        return b""


def _store_beside(store: JobStore, job: Job, name: str, content: bytes) -> None:
    """Store a file that is worth waiting for a server, but not worth an attempt."""
    try:
        if content:
            store.put_artifact(job, name, content)
    except (ApiError, ConflictError) as exc:  # its disk is full, or it serves no artifacts
        say(f"could not store {name}: {exc.message}")


def _environment(store: JobStore, job: Job) -> None:
    """Store what the job runs on."""
    _store_beside(store, job, "environment.json", describe_environment().encode())
    store.set_tags(job, {PREFIX + "host": os.uname().nodename})


def main() -> int:
    """Entry point; returns the process's exit status."""
    run_id, attempt = sys.argv[1], int(sys.argv[2])
    started = time.monotonic()
    profile = load_profile()
    if profile is None:
        say("no cluster profile on this node; set GCPCTL_HOME or GCPCTL_PROFILE for Ray")
        return 3
    # First of all: Ray starts this job's worker processes as soon as it knows the job.
    import ray

    ray.init(address=profile.ray_address, log_to_driver=False, logging_level="WARNING")
    job = patiently(lambda: JobStore.of(profile).get(run_id))
    if job.attempt != attempt or job.state is not State.RUNNING:
        say(f"attempt {attempt} of {job.job_id} is not wanted any more ({job.state})")
        return 0
    say(f"{job.job_id}, attempt {attempt}: {job.gang.describe()}")
    outcome = run_attempt(profile, job, attempt)
    say(f"driver ends after {time.monotonic() - started:.1f} s")
    return 0 if outcome.kind in ("finished", "stopped") else 1


if __name__ == "__main__":
    sys.exit(main())
