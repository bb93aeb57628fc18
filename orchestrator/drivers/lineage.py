"""Tell MLflow which images a finished job used, and which network it made or judged.

With this its pages join what belongs together: a training, the checkpoint that it left, and each
evaluation of that. Nothing depends on it, so whatever fails here is said and goes by.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.profiles import Profile
from orchestrator.drivers.outcome import say
from orchestrator.drivers.tracking import patiently
from orchestrator.jobs.checkpoints import find_checkpoint
from orchestrator.jobs.errors import GcpctlError
from orchestrator.jobs.job import PREFIX, TAG_CHECKPOINT, TAG_EVALUATED, TAG_JOB_ID, TAG_RESULT, Job
from orchestrator.jobs.lineage_store import Dataset, LineageStore, ModelRecord
from orchestrator.jobs.store import JobStore
from workloads.config.data import SOURCE_CONFIGS
from workloads.config.validate import flatten

_WEIGHTS = PREFIX + "weights_sha256"
_PATIENCE_S = 60.0
_IDENTITY = ("name", "path", "dataset", "variant", "train_split", "val_split", "val_fraction")
"""What of a source's config says which images they are, not how they are read."""


def record_lineage(profile: Profile, store: JobStore, job: Job, tags: Mapping[str, str]) -> None:
    """Record datasets and model of a training or evaluation that has finished; never raises.

    Args:
        tags: Those of its outcome, with its result.
    """
    record = {"train": _of_training, "eval": _of_evaluation}.get(job.kind)
    if record is None:
        return
    try:
        result = json.loads(tags[TAG_RESULT])
        with contextlib.closing(LineageStore.of(profile)) as lineage:
            patiently(lambda: record(profile, store, lineage, job, result), seconds=_PATIENCE_S)
    except GcpctlError as exc:
        say(f"tracking: datasets and model are not recorded: {exc.message}")
    except Exception as exc:  # a result of another release, a server of another version
        say(f"tracking: datasets and model are not recorded: {type(exc).__name__}: {exc}")


def _of_training(
    profile: Profile, store: JobStore, lineage: LineageStore, job: Job, result: Mapping[str, Any]
) -> None:
    data = job.raw_spec["config"]["data"]
    train = describe_dataset(data, "train", "training", result, int(result["num_train_images"]))
    val = describe_dataset(data, "val", "validation", result, int(result["num_val_images"]))
    lineage.add_inputs(job.run_id, [train, val])
    model_id = _ensure_model(
        lineage,
        job,
        weights_sha256=str(result["weights_sha256"]),
        name=job.job_id,
        origin=f"{job.job_id}:last",
        path=find_checkpoint(profile.storage_path / job.job_id, "last"),
    )
    lineage.add_output(job.run_id, model_id, int(result["epochs"]))
    lineage.link_metrics(job.run_id, model_id, {"val": val, "model": None})


def _of_evaluation(
    profile: Profile, store: JobStore, lineage: LineageStore, job: Job, result: Mapping[str, Any]
) -> None:
    config = job.raw_spec["config"]
    split, images = config["split"], int(result["num_images"])
    dataset = describe_dataset(config["data"], split, "evaluation", result, images)
    trained_by = job.tags.get(TAG_EVALUATED, "")
    training = store.find_exact(trained_by) if trained_by else None
    if training is None:  # weights from elsewhere
        lineage.add_inputs(job.run_id, [dataset])
        return
    origin = job.tags.get(TAG_CHECKPOINT, trained_by)
    model_id = _ensure_model(
        lineage,
        training,
        weights_sha256=str(result["weights_sha256"]),
        name=origin.replace(":", "-"),
        origin=origin,
        path=config["weights"],
    )
    lineage.add_inputs(job.run_id, [dataset], [model_id])
    lineage.link_metrics(job.run_id, model_id, {"eval": dataset})


def _ensure_model(
    lineage: LineageStore,
    training: Job,
    *,
    weights_sha256: str,
    name: str,
    origin: str,
    path: str | Path,
) -> str:
    """Return the id of the model with these weights, which is recorded if need be.

    Weights are told by their digest: the last, the best and the averaged ones of a training are
    different models, or one where they are equal.
    """
    found = lineage.find_model(training.experiment_id, training.run_id, _WEIGHTS, weights_sha256)
    if found is not None:
        return found
    leaves = flatten({"model": training.raw_spec["config"]["model"]})
    tags = {
        TAG_JOB_ID: training.job_id,
        TAG_CHECKPOINT: origin,
        PREFIX + "path": str(path),
        _WEIGHTS: weights_sha256,
    }
    record = ModelRecord(name=name, source_run=training.run_id, tags=tags, params=leaves)
    return lineage.create_model(training.experiment_id, record)


def describe_dataset(
    data: Mapping[str, Any], split: str, context: str, result: Mapping[str, Any], num_images: int
) -> Dataset:
    """Return one split of a source as MLflow's pages name it.

    Args:
        data: The config's `data`.
        split: `train` or `val`.
        result: Of the job; the digest is of the source with all its splits.
    """
    path = str(data.get("path") or "")
    # Sources of a path are told apart by its last part: `packed imagenet train`.
    words = (data["name"], data.get("dataset"), PurePosixPath(path).name, split)
    return Dataset(
        name=" ".join(dict.fromkeys(str(word) for word in words if word)).replace("_", "-"),
        digest=str(result["data_digest"]),
        context=context,
        kind=str(data["name"]),
        source={key: data[key] for key in _IDENTITY if data.get(key) is not None},
        channels=SOURCE_CONFIGS[data["name"]].in_channels,
        profile={"num_images": num_images, "num_classes": int(result["num_classes"])},
    )
