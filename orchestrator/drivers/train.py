"""Run one attempt of a training on N workers."""

import json
from typing import Any

from cluster.profiles import Profile
from orchestrator.drivers.group import RunWorkers
from orchestrator.drivers.outcome import Outcome
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.drivers.weights import locate_weights
from orchestrator.drivers.worker import WorkerSettings
from orchestrator.jobs.errors import ApiError, GcpctlError, UnreachableError
from orchestrator.jobs.job import PREFIX, TAG_RESULT, Job
from workloads.worker.paths import JobPaths


def run_training(
    profile: Profile,
    job: Job,
    attempt: int,
    paths: JobPaths,
    stop: StopSignal,
    run_workers: RunWorkers,
) -> Outcome:
    """Train on the cluster until the workers return; never raises for what a worker did."""
    if stop.is_set:
        return Outcome(kind="stopped", reason="stopped before the workers started")
    resources = job.gang
    try:
        config = with_initial_weights(profile, job.raw_spec["config"], paths)
    except (UnreachableError, ApiError):
        raise  # of the infrastructure: the next attempt asks again
    except GcpctlError as exc:
        hint = f" ({exc.hint})" if exc.hint else ""
        return Outcome.failed("user", f"init.weights: {exc.message}{hint}")
    settings = WorkerSettings(
        config=config,
        root=str(paths.root),
        attempt=attempt,
        threads=resources.cpus_per_worker,
        use_gpu=resources.gpus_per_worker > 0,
    )
    failed = run_workers(settings, resources, name=job.job_id, storage_path=profile.storage_path)
    return failed or _result(paths)


def with_initial_weights(
    profile: Profile, config: dict[str, Any], paths: JobPaths
) -> dict[str, Any]:
    """Return the config with initial weights that workers can read.

    A training that has saved something resumes, and needs none.

    Raises:
        GcpctlError: They are not to be found.
    """
    init = config.get("init")
    resumes = paths.checkpoints.is_dir() and any(paths.checkpoints.iterdir())
    if init is None or resumes:
        return config
    weights = locate_weights(profile, init["weights"], paths)
    return {**config, "init": {**init, "weights": str(weights)}}


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
