"""Run one attempt of a training on N workers."""

import json
import os
from typing import Any

from cluster.profiles import Profile
from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.drivers.worker import WorkerError, WorkerSettings, run_worker
from orchestrator.jobs.job import PREFIX, TAG_RESULT, Job
from workloads.worker.failures import read_failure, weightiest
from workloads.worker.paths import JobPaths

_TRAIN_SETTINGS = {
    # How soon the controller sees that the workers are done.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A worker that answers no poll for so long is taken for dead (Ray's default is ten minutes).
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "180",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_training(
    profile: Profile, job: Job, attempt: int, paths: JobPaths, stop: StopSignal
) -> Outcome:
    """Train on the cluster until the workers return; never raises for what a worker did.

    There is one mechanism for retries, and it is the controller's: Ray Train is told to give
    up at the first failure, so that every new try is an attempt of its own, counted, fenced
    and judged by its cause.
    """
    for name, value in _TRAIN_SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    from orchestrator.drivers.ray_train import build_trainer

    if stop.is_set:
        return Outcome(kind="stopped", reason="stopped before the workers started")
    resources = job.spec.resources
    settings = WorkerSettings(
        config=job.raw_spec["config"],
        root=str(paths.root),
        attempt=attempt,
        threads=resources.cpus_per_worker,
        use_gpu=resources.gpus_per_worker > 0,
    )
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    several_nodes = sum(1 for node in ray.nodes() if node["Alive"]) > 1
    trainer = build_trainer(
        run_worker,
        settings.to_dict(),
        ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        RunConfig(
            name=job.job_id,
            storage_path=str(profile.storage_path),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=2),
        ),
        watch_preemption=several_nodes,
    )
    try:
        trainer.fit()
    except TrainingFailedError as exc:
        return _failure(paths, attempt, exc)
    return _result(paths)


def _failure(paths: JobPaths, attempt: int, exc: Exception) -> Outcome:
    """Tell what went wrong from the workers' own words, else from Ray's."""
    dead = getattr(exc, "worker_failures", None) or {}
    failure = weightiest([read_failure(paths, attempt), *map(_record, dead.values())])
    if failure is not None:
        text = f"rank {failure['rank']}: {failure['type']}: {failure['message']}"
        say(failure["traceback"].rstrip())
        return Outcome.failed(failure["class"], text)
    say(str(exc))
    ranks = ", ".join(str(rank) for rank in sorted(dead))
    cause = f"the worker of rank {ranks} died" if ranks else " ".join(str(exc).split())
    return Outcome.failed("infrastructure", cause)


def _record(error: BaseException) -> dict[str, Any] | None:
    """Return the record in a worker's error; None for a worker that died without a word."""
    original = getattr(error, "_base_exc", error)  # Ray wraps what the function raised
    if type(original).__name__ != WorkerError.__name__:
        return None
    return dict(json.loads(str(original)))


def _result(paths: JobPaths) -> Outcome:
    try:
        result: dict[str, Any] = json.loads(paths.result.read_text())
    except (FileNotFoundError, ValueError):
        return Outcome.failed("infrastructure", "the workers returned without a result")
    if result["stopped"]:
        where = f"stopped on request at step {result['global_step']}, checkpoint saved"
        return Outcome(kind="stopped", reason=where)
    tags = {
        TAG_RESULT: json.dumps(result),
        PREFIX + "weights_sha256": str(result["weights_sha256"]),
        PREFIX + "checkpoints": str(paths.checkpoints),
    }
    return Outcome(kind="finished", reason=f"val top-1 {result['val_top1']:.2f} %", tags=tags)
