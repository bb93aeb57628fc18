"""What a person asks for: the part of a job that never changes once it is submitted."""

import json
from typing import Any, Literal

from pydantic import Field, model_validator

from workloads.config.base import Config


class Resources(Config):
    """What one attempt needs, all of it at once (a gang)."""

    num_workers: int = Field(default=1, ge=1, le=4096)
    """Data-parallel training processes; the most of them where `min_workers` is given."""
    min_workers: int | None = Field(default=None, ge=1, le=4096)
    """Fewest processes that an attempt may start with; null starts with `num_workers` only."""
    cpus_per_worker: int = Field(default=1, ge=1, le=1024)
    """CPU cores, and torch threads, of each worker."""
    gpus_per_worker: int = Field(default=0, ge=0, le=1)
    """GPUs of each worker: none (gloo) or one (NCCL)."""

    @model_validator(mode="after")
    def _least_is_not_above_most(self) -> "Resources":
        if self.least_workers > self.num_workers:
            raise ValueError(
                f"min_workers ({self.min_workers}) is more than num_workers ({self.num_workers})"
            )
        return self

    @property
    def least_workers(self) -> int:
        """Fewest processes that an attempt may start with."""
        return self.num_workers if self.min_workers is None else self.min_workers

    def with_workers(self, num_workers: int) -> "Resources":
        """Return what a gang of exactly so many workers needs."""
        exact = {"num_workers": num_workers, "min_workers": None}
        return Resources(**{**self.model_dump(include=set(Resources.model_fields)), **exact})

    @property
    def total_cpus(self) -> int:
        """CPU cores of the whole gang."""
        return self.num_workers * self.cpus_per_worker

    @property
    def total_gpus(self) -> int:
        """GPUs of the whole gang."""
        return self.num_workers * self.gpus_per_worker

    def describe(self) -> str:
        """Return `2 workers x 1 CPU` or `2 to 8 workers x (4 CPU + 1 GPU)`."""
        each = f"{self.cpus_per_worker} CPU"
        if self.gpus_per_worker:
            each = f"({each} + {self.gpus_per_worker} GPU)"
        some = f"{self.least_workers} to " if self.least_workers < self.num_workers else ""
        return f"{some}{self.num_workers} worker{'s' if self.num_workers > 1 else ''} x {each}"


class JobOptions(Resources):
    """The `job:` section of a recipe: resources and how the queue treats the job."""

    priority: int = Field(default=0, ge=-1000, le=1000)
    """Higher starts first; jobs of equal priority start in the order of submission."""
    max_retries: int = Field(default=3, ge=0, le=100)
    """New attempts after a failure of the infrastructure; a user's error is never retried."""
    time_limit_s: int | None = Field(default=None, ge=1)
    """Seconds from the first launch after which the job is stopped (with a checkpoint)."""

    def resources(self) -> Resources:
        """Return the part that the cluster must provide."""
        return Resources(**self.model_dump(include=set(Resources.model_fields)))


class Published(Config):
    """The published result that a recipe reproduces."""

    table: str = Field(min_length=1)
    """Paper and table."""
    model: str = ""
    pooling: str = ""
    lr_mode: str = ""
    """The row, in the table's own words."""
    top1: float | None = Field(default=None, ge=0.0, le=100.0)
    top5: float | None = Field(default=None, ge=0.0, le=100.0)
    """Percent."""
    note: str = ""

    def describe(self) -> str:
        """Return the row and its numbers as one sentence."""
        row = ", ".join(filter(None, (self.model, self.pooling, self.lr_mode)))
        numbers = [
            f"{name} {value:g} %"
            for name, value in (("top-1", self.top1), ("top-5", self.top5))
            if value is not None
        ]
        text = ": ".join(filter(None, (self.table, row, ", ".join(numbers))))
        return f"{text}. {self.note}" if self.note else text


class JobSpec(Config):
    """A validated request, as it crosses to the cluster."""

    version: Literal[1] = 1
    job_id: str
    kind: Literal["train", "eval", "ablation", "tune"]
    recipe: str
    study: str
    """MLflow experiment that the run belongs to."""
    description: str = ""
    config: dict[str, Any]
    """The resolved config of this kind of job: `TrainConfig`, `EvalConfig`, `AblationConfig` or
    `SweepConfig`."""
    resources: Resources
    worker_counts: tuple[int, ...] = ()
    """Numbers of workers that an attempt may have, ascending; empty for `num_workers` only."""
    published: Published | None = None
    """What the recipe reproduces."""
    priority: int = 0
    max_retries: int = 3
    time_limit_s: int | None = None
    after: tuple[str, ...] = ()
    """Jobs that must be FINISHED before this one may start."""
    group: str = ""
    """The study that it was submitted for, by its job id; empty for a job of its own."""
    max_parallel: int | None = Field(default=None, ge=1)
    """Most jobs of its group that may run at once; null sets no limit."""
    pack: str = ""
    """Jobs of one worker with equal packs and resources may run one after the other in one driver
    and worker process; empty keeps the job to itself."""


def spec_text(spec: JobSpec) -> str:
    """Return a spec as it is written into its tag."""
    return json.dumps(spec.model_dump(mode="json"), separators=(",", ":"))
