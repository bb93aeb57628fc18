"""Everything one training depends on. Two equal configs on equal code give equal weights."""

from pydantic import Field, model_validator

from workloads.config.base import Config
from workloads.config.data import DataConfig, DigitsConfig
from workloads.config.model import ModelConfig
from workloads.config.optim import CosineConfig, OptimConfig, ScheduleConfig, SgdConfig


class CheckpointConfig(Config):
    """When the state that resume needs is saved."""

    every_steps: int | None = Field(default=None, ge=1)
    """Also save every so many optimizer steps; None saves at the end of each epoch only."""
    keep: int = Field(default=2, ge=2, le=100)
    """Newest checkpoints kept (the best one is kept besides). Never 1: the newest may be torn."""


class TrainConfig(Config):
    """A training run: data, network, optimization, bookkeeping."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    data: DataConfig = DigitsConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = SgdConfig()
    schedule: ScheduleConfig = CosineConfig()
    epochs: int = Field(default=20, ge=1, le=100_000)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    """Optimizer steps that make an epoch; None uses every full batch of the data once. Fewer are
    for smoke tests, more than the data holds are refused."""
    global_batch_size: int = Field(default=64, ge=1, le=1_000_000)
    """Images per optimizer step over all workers; must divide by the number of workers."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    log_every_steps: int = Field(default=10, ge=1)
    """Distance of the points of `train/step_loss`, in optimizer steps."""
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _warmup_fits(self) -> "TrainConfig":
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs:g}) must be less than "
                f"epochs ({self.epochs})"
            )
        return self

    @model_validator(mode="after")
    def _features_have_positions(self) -> "TrainConfig":
        """One position has no variance: its covariance is zero, and nothing would be learnt."""
        size, backbone = self.data.image_size, self.model.backbone
        positions = self.model.num_positions(size)
        options = backbone.model_dump(mode="json", exclude={"name"})
        shape = "".join(f", {name} {value}" for name, value in options.items()).lstrip(", ")
        after = f"{backbone.name} ({shape})" if shape else backbone.name
        if positions == 0:
            raise ValueError(
                f"model.backbone {after} cannot take images of image_size {size}. Choose another "
                "image_size or backbone"
            )
        pooling = self.model.head.pooling
        if positions == 1 and getattr(pooling, "centred", False):
            raise ValueError(
                f"model.head.pooling {pooling.name} needs a map of more than one position; images "
                f"of image_size {size} give 1x1 after {after}. Choose larger images, last_stride 1 "
                "or fewer stages"
            )
        return self
