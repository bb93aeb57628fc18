"""Run a function on N workers through Ray Train, and tell how that ended."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.worker import WorkerError, WorkerSettings, run_worker
from orchestrator.jobs.spec import Resources
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


class RunWorkers(Protocol):
    """Runs what a job is for on its workers; `run_group`, or a worker kept for several jobs."""

    def __call__(
        self, settings: WorkerSettings, resources: Resources, *, name: str, storage_path: Path
    ) -> Outcome | None:
        """Return None when all workers returned, else what went wrong."""
        ...


def run_group(
    settings: WorkerSettings, resources: Resources, *, name: str, storage_path: Path
) -> Outcome | None:
    """Run `run_worker` on every rank until all return; never raises for what a worker did.

    There is one mechanism for retries, and it is the controller's: Ray Train is told to give
    up at the first failure, so that every new try is an attempt of its own, counted, fenced
    and judged by its cause.

    Args:
        settings: What each worker is told.
        resources: How many workers there are and what each needs.
        name: Ray Train's name of the run; the job's id, the same for all attempts.
        storage_path: The cluster's folder of jobs.

    Returns:
        None when all workers returned, else what went wrong.
    """
    for variable, value in _TRAIN_SETTINGS.items():
        os.environ.setdefault(variable, value)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    from orchestrator.drivers.ray_train import build_trainer

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
            name=name,
            storage_path=str(storage_path),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=2),
        ),
        watch_preemption=several_nodes,
    )
    try:
        trainer.fit()
    except TrainingFailedError as exc:
        dead: dict[int, BaseException] = getattr(exc, "worker_failures", None) or {}
        wordless = f"the worker of rank {', '.join(map(str, sorted(dead)))} died"
        text = wordless if dead else " ".join(str(exc).split())
        return explain_failure(settings, dead.values(), exc, text)
    return None


def explain_failure(
    settings: WorkerSettings, errors: Iterable[BaseException], exc: BaseException, otherwise: str
) -> Outcome:
    """Tell what went wrong from the workers' own words, else from Ray's.

    Args:
        settings: What the workers were told.
        errors: What Ray saw of the workers that failed.
        exc: What Ray raised, for the log.
        otherwise: The reason where no worker left a word.
    """
    written = read_failure(JobPaths(Path(settings.root)), settings.attempt)
    failure = weightiest([written, *map(read_record, errors)])
    if failure is None:
        say(str(exc))
        return Outcome.failed("infrastructure", otherwise)
    say(failure["traceback"].rstrip())
    text = f"rank {failure['rank']}: {failure['type']}: {failure['message']}"
    return Outcome.failed(failure["class"], text)


def read_record(error: BaseException) -> dict[str, Any] | None:
    """Return the record in a worker's error; None for a worker that died without a word."""
    original = getattr(error, "_base_exc", error)  # Ray wraps what the function raised
    if type(original).__name__ != WorkerError.__name__:
        return None
    return dict(json.loads(str(original)))
