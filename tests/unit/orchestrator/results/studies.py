"""A study with known numbers, as the store would have it after all its jobs have ended."""

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.job import Job
from orchestrator.jobs.states import State

STUDY = "pooling-x7k2"
QUESTION = "Which pooling <wins> | on *digits*?"
LEVELS = ("gap", "cov", "isqrt")
SEEDS = (0, 1, 2)
EPOCHS = 6
# By level, then seed; differences to gap: cov -0.1, 0.2, -0.1; isqrt 1.0, 1.2, 1.1.
TOP1 = {
    "gap": (96.125, 96.25, 96.5),
    "cov": (96.025, 96.45, 96.4),
    "isqrt": (97.125, 97.45, 97.6),
}
COST = {"gap": (70_000.0, 4_100_000.0), "cov": (88_000.0, 6_150_000.0)}
ENVIRONMENT = {
    "python": "3.11.2",
    "processor": "A Processor",
    "cpus": 2,
    "gpus": [],
    "packages": {"torch": "2.12.1", "ray": "2.60"},
}


def make_job(job_id: str, kind: str, spec: dict[str, Any], **fields: Any) -> Job:
    """Return a job with the tags that all have."""
    state = fields.pop("state", State.FINISHED)
    metrics = fields.pop("metrics", {})
    tags = {
        "gcpctl.job_id": job_id,
        "gcpctl.kind": kind,
        "gcpctl.attempt": "1",
        "gcpctl.spec": json.dumps(spec),
        "mlflow.source.git.commit": "abcdef1234567890",
        **fields,
    }
    end_ms = 1_795_000_600_000 if state.is_final else None
    return Job(
        f"run-{job_id}", "1", state, tags, metrics, 1_795_000_000_000, end_ms, "mlflow-artifacts:/1"
    )


def spec_of(config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a job's spec as plain JSON."""
    resources = {"num_workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    base = {"recipe": "digits_resnet_isqrt", "study": "digits", "resources": resources, "after": []}
    return {**base, "config": config, **fields}


def parent(**config: Any) -> Job:
    """Return the study itself."""
    asked = {
        "question": QUESTION,
        "recipe": "digits_resnet_isqrt",
        "overrides": {"epochs": EPOCHS},
        "factors": {"pooling": {"key": "model.head.pooling", "levels": {v: {} for v in LEVELS}}},
        "mode": "one-at-a-time",
        "seeds": list(SEEDS),
        "metric": "top1",
        "evaluate": {"checkpoint": "last", "crops": "centre"},
        **config,
    }
    tags = {"gcpctl.baseline_cell": "pooling=gap", "mlflow.note.content": "what was asked"}
    return make_job(STUDY, "ablation", spec_of(asked), state=State.RUNNING, **tags)


def training(level: str, seed: int, **fields: Any) -> Job:
    """Return the training of a cell with a seed."""
    config = {
        "seed": seed,
        "epochs": EPOCHS,
        "global_batch_size": 64,
        "data": {"name": "digits"},
        "images": {"size": 8},
        "model": {"backbone": {"name": "small_resnet"}, "head": {"pooling": {"name": level}}},
        "optim": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0001},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0},
    }
    parameters, macs = COST.get(level, (97_000.0, 8_200_000.0))
    metrics = {
        "val/top1": TOP1[level][seed],
        "model/parameters": parameters,
        "model/macs": macs,
        "time/train_s": 8.0 + seed,
    }
    tags = {
        f"gcpctl.in.{STUDY}": f"pooling={level}",
        "gcpctl.group": STUDY,
        "gcpctl.cell": f"pooling={level}",
        "gcpctl.seed": str(seed),
        "gcpctl.result": json.dumps({"num_val_images": 359}),
    }
    name = f"pool-{level}-s{seed}"
    return make_job(name, "train", spec_of(config), metrics=metrics, **{**tags, **fields})


def evaluation(level: str, seed: int) -> Job:
    """Return the evaluation of a training."""
    trained = f"pool-{level}-s{seed}"
    tags = {
        f"gcpctl.in.{STUDY}": f"pooling={level}",
        "gcpctl.group": STUDY,
        "gcpctl.checkpoint": f"{trained}:last",
        "gcpctl.evaluated_job": trained,
    }
    metrics = {"eval/top1": TOP1[level][seed], "eval/loss": 0.1 + 0.01 * seed}
    spec = spec_of({"crops": "centre", "split": "val"})
    return make_job(f"eval-{level}-s{seed}", "eval", spec, metrics=metrics, **tags)


def whole_study(
    levels: Sequence[str] = LEVELS, seeds: Sequence[int] = SEEDS, *, failed: Iterable[str] = ()
) -> list[Job]:
    """Return all trainings and evaluations; those that failed were not evaluated."""
    jobs = []
    for level in levels:
        for seed in seeds:
            if f"pool-{level}-s{seed}" in failed:
                why = {"state": State.FAILED, "gcpctl.reason": "loss is not finite | at step 40"}
                jobs.append(training(level, seed, **why))
            else:
                jobs += [training(level, seed), evaluation(level, seed)]
    return jobs


class StudyStore:
    """The part of `JobStore` that reports read, over jobs in memory; keeps what is written."""

    def __init__(self, jobs: Sequence[Job], study: Job | None = None) -> None:
        self.study = study or parent()
        self.jobs = list(jobs)
        self.points: list[tuple[str, float, int, int]] = []
        self.files: dict[str, bytes] = {}

    def experiments(self) -> dict[str, str]:
        return {"1": "digits"}

    def find(self, name: str) -> Job:
        for job in (self.study, *self.jobs):
            if job.job_id == name:
                return job
        raise NotFoundError(f"there is no job {name!r}")

    def members(self, group: str, **more: Any) -> list[Job]:
        return [job for job in self.jobs if f"gcpctl.in.{group}" in job.tags]

    def search(self, where: str = "", **more: Any) -> list[Job]:
        return [job for job in self.jobs if job.kind == "eval"]

    def read_artifact(self, job: Job, name: str) -> bytes:
        assert name == "environment.json"
        return json.dumps(ENVIRONMENT).encode()

    def metric_histories(self, run_ids: Sequence[str], key: str) -> dict[str, list]:
        assert key == "val/top1"
        by_run = {job.run_id: job for job in self.jobs}
        return {run: curve(by_run[run]) for run in run_ids}

    def log_metrics(self, job: Job, points: Sequence[tuple[str, float, int, int]]) -> None:
        self.points += points

    def put_artifact(self, job: Job, name: str, content: bytes) -> None:
        self.files[name] = content


def curve(job: Job) -> list[tuple[int, float]]:
    """Return val/top1 by epoch: it rises to the final value, isqrt's the quicker."""
    final = job.metrics["val/top1"]
    slope = 0.4 if "isqrt" in job.job_id else 3.0
    draw = random.Random(job.job_id)
    return [
        (epoch, final - slope * (EPOCHS - epoch) - (0.2 * draw.random() if epoch < EPOCHS else 0.0))
        for epoch in range(1, EPOCHS + 1)
    ]
