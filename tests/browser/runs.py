"""Runs as studies, sweeps and trainings leave them in MLflow, made without training anything."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.jobs.job import (
    TAG_BASELINE_CELL,
    TAG_CHECKPOINT,
    TAG_EVALUATED,
    TAG_GROUP,
    TAG_JOB_ID,
    TAG_KIND,
    TAG_PARENT,
    TAG_SEED,
    TAG_SPEC,
    TRIAL,
    Job,
    member_tag,
)
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, MetricPoint, now_ms
from workloads.config.evaluate import EvalConfig
from workloads.config.train import TrainConfig
from workloads.config.validate import flatten, validate

EPOCHS = 6
POOLINGS = {"gap": 90.0, "cov": 92.5, "isqrt": 95.0}
SEEDS = (0, 1, 2)


def record(store: JobStore, study: str, job_id: str, kind: str, config: Any, **tags: str) -> Job:
    """Record a job with a config, and with tags by their keys."""
    spec = json.dumps({"config": config, "resources": {"num_workers": 1}})
    own = {TAG_JOB_ID: job_id, TAG_KIND: kind, TAG_SPEC: spec}
    if kind == TRIAL:
        del own[TAG_JOB_ID]
    return store.create(job_id, store.experiment_id(study), own | tags)


def finish(store: JobStore, job: Job) -> Job:
    """Move a job to its end."""
    for state in (State.RUNNING, State.FINISHED):
        store.move(store.get(job.run_id), state, phase="", reason="")
    return store.get(job.run_id)


def top1(final: float, seed: int, epoch: int) -> float:
    """Return a curve that ends, but for the seed, near `final`."""
    return final + 0.4 * (seed - 1) - 40 * 0.5**epoch


def make_study(store: JobStore, name: str) -> Job:
    """Record a study of three poolings with three seeds, all trained and evaluated."""
    parent = record(store, name, name, "ablation", {}, **{TAG_BASELINE_CELL: "pooling=gap"})
    for seed in SEEDS:
        for pooling, final in POOLINGS.items():
            document = {"seed": seed, "model": {"head": {"pooling": pooling}}}
            config = validate(TrainConfig, document, name)
            tags = {
                TAG_PARENT: parent.run_id,
                TAG_GROUP: name,
                TAG_SEED: str(seed),
                member_tag(name): f"pooling={pooling}",
            }
            raw = config.model_dump(mode="json")
            job = record(store, name, f"{name}-{pooling}-s{seed}", "train", raw, **tags)
            store.log_params(job, flatten(config))
            store.log_metrics(job, _curves(final, seed, macs=1e6 * len(pooling)))
            finish(store, job)
            judged = record(store, name, f"{name}-eval-{pooling}-s{seed}", "eval", {}, **tags)
            store.log_metrics(judged, [("eval/top1", final + 1, now_ms(), 0)])
            finish(store, judged)
    return parent


def _curves(final: float, seed: int, *, macs: float) -> list[MetricPoint]:
    time_ms = now_ms()
    points: list[MetricPoint] = [
        ("model/macs", macs, time_ms, 0),
        ("time/train_s", 10.0 + seed, time_ms, EPOCHS),
    ]
    for epoch in range(1, EPOCHS + 1):
        values = {
            "val/top1": top1(final, seed, epoch),
            "val/loss": 2 * 0.7**epoch,
            "train/loss": 2.5 * 0.7**epoch,
            "progress/epoch": float(epoch),
        }
        points += [(key, value, time_ms, epoch) for key, value in values.items()]
    return points


def make_sweep(store: JobStore, name: str, trials: list[Mapping[str, Any]]) -> Job:
    """Record a sweep over learning rate and pooling, with iterations where that is isqrt."""
    config = {
        "space": [
            {"key": "optim.lr", "when": {}},
            {"key": "model.head.pooling", "when": {}},
            {"key": "model.head.pooling.num_iters", "when": {"model.head.pooling": ["isqrt"]}},
        ],
        "objectives": [
            {"metric": "val/top1", "direction": "max"},
            {"metric": "model/macs", "direction": "min"},
        ],
    }
    parent = record(store, name, name, "tune", config)
    for number, params in enumerate(trials):
        tags = {TAG_PARENT: parent.run_id, TAG_GROUP: name}
        trial = record(store, name, f"{name}-t{number:03d}", TRIAL, {}, **tags)
        store.log_params(trial, params)
        store.log_metrics(trial, _curves(90.0 + number, 0, macs=1e6 + number))
        finish(store, trial)
    return parent


def make_training(store: JobStore, study: str, job_id: str) -> Job:
    """Record a training that has come to its end but is not closed."""
    config = TrainConfig().model_dump(mode="json")
    job = record(store, study, job_id, "train", config)
    store.log_metrics(job, _curves(90.0, 0, macs=1e6))
    return job


def make_evaluation(store: JobStore, study: str, job_id: str, training: Job, which: str) -> Job:
    """Record an evaluation of one of a training's checkpoints."""
    origin = f"{training.job_id}:{which}"
    config = EvalConfig(weights=f"/storage/{origin}", origin=origin).model_dump(mode="json")
    tags = {TAG_EVALUATED: training.job_id, TAG_CHECKPOINT: origin}
    job = record(store, study, job_id, "eval", config, **tags)
    store.log_metrics(job, [("eval/top1", 91.0, now_ms(), 0)])
    return job
