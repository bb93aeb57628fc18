"""What a person asks for: the part of a job that never changes once it is submitted."""

from typing import Any, Literal

from pydantic import Field

from workloads.config.base import Config


class Resources(Config):
    """What one attempt needs, all of it at once (a gang)."""

    num_workers: int = Field(default=1, ge=1, le=4096)
    """Data-parallel training processes."""
    cpus_per_worker: int = Field(default=1, ge=1, le=1024)
    """CPU cores, and torch threads, of each worker."""
    gpus_per_worker: int = Field(default=0, ge=0, le=1)
    """GPUs of each worker: none (gloo) or one (NCCL)."""

    @property
    def total_cpus(self) -> int:
        """CPU cores of the whole gang."""
        return self.num_workers * self.cpus_per_worker

    @property
    def total_gpus(self) -> int:
        """GPUs of the whole gang."""
        return self.num_workers * self.gpus_per_worker

    def describe(self) -> str:
        """Return `2 workers x 1 CPU` or `8 workers x (4 CPU + 1 GPU)`."""
        each = f"{self.cpus_per_worker} CPU"
        if self.gpus_per_worker:
            each = f"({each} + {self.gpus_per_worker} GPU)"
        return f"{self.num_workers} worker{'s' if self.num_workers > 1 else ''} x {each}"


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


class JobSpec(Config):
    """A validated request, as it crosses to the cluster."""

    version: Literal[1] = 1
    job_id: str
    kind: Literal["train"]
    recipe: str
    study: str
    """MLflow experiment that the run belongs to."""
    description: str = ""
    config: dict[str, Any]
    """The resolved config of this kind of job (for `train`: `TrainConfig`)."""
    resources: Resources
    priority: int = 0
    max_retries: int = 3
    time_limit_s: int | None = None
    after: tuple[str, ...] = ()
    """Jobs that must be FINISHED before this one may start."""
