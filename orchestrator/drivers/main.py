"""The driver process: run one attempt of one job, and say how it ended.

    python -m orchestrator.drivers.main RUN_ID ATTEMPT

Ray starts it on the cluster. A job that may share its process is followed by those that the
controller hands to this driver (`orchestrator/drivers/pack.py`). It imports neither torch nor
mlflow.
"""

import sys
import time

from cluster.profiles import Profile, load_profile
from orchestrator.drivers.attempt import run_attempt
from orchestrator.drivers.group import RunWorkers, run_group
from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.drivers.tracking import patiently
from orchestrator.jobs.job import STUDY, Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore
from workloads.worker.paths import JobPaths


def _run(
    profile: Profile,
    job: Job,
    attempt: int,
    paths: JobPaths,
    stop: StopSignal,
    run_workers: RunWorkers,
) -> Outcome:
    """Do what this kind of job is for."""
    # Imported here: other kinds of jobs need other parts of Ray.
    if job.kind == "eval":
        from orchestrator.drivers.evaluate import run_evaluation_job

        return run_evaluation_job(profile, job, attempt, paths, stop, run_workers)
    if job.kind == STUDY:
        from orchestrator.drivers.report import run_report_job

        return run_report_job(profile, job, paths, stop)
    if job.kind == "tune":
        from orchestrator.drivers.tune import run_tuning

        return run_tuning(profile, job, attempt, paths, stop)
    from orchestrator.drivers.train import run_training

    return run_training(profile, job, attempt, paths, stop, run_workers)


def _run_alone(profile: Profile, job: Job, attempt: int) -> Outcome:
    """Run a job that has this driver to itself, through Ray Train."""

    def work(paths: JobPaths, stop: StopSignal) -> Outcome:
        return _run(profile, job, attempt, paths, stop, run_group)

    say(f"{job.job_id}, attempt {attempt}: {job.gang.describe()}")
    return run_attempt(profile, job, attempt, work)


def _run_pack(profile: Profile, job: Job) -> int:
    """Run a job that may share its process, and those handed to this driver meanwhile."""
    from orchestrator.drivers.kept_worker import KeptWorker
    from orchestrator.drivers.pack import PackDriver

    with KeptWorker(job.gang) as run_workers:

        def run_one(job: Job, attempt: int, stop: StopSignal, *, log_begins_at: int) -> Outcome:
            def work(paths: JobPaths, stop: StopSignal) -> Outcome:
                return _run(profile, job, attempt, paths, stop, run_workers)

            return run_attempt(profile, job, attempt, work, stop=stop, log_begins_at=log_begins_at)

        return PackDriver(profile, job, run_one).run()


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
    if job.pack:
        count = _run_pack(profile, job)
        say(f"driver ends after {count} jobs, {time.monotonic() - started:.1f} s")
        return 0  # how each job ended stands with the job
    outcome = _run_alone(profile, job, attempt)
    say(f"driver ends after {time.monotonic() - started:.1f} s")
    return 0 if outcome.kind in ("finished", "stopped") else 1


if __name__ == "__main__":
    sys.exit(main())
