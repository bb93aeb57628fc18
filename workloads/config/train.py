"""Everything one training depends on. Two equal configs on equal code give equal weights."""

from pydantic import Field, ValidationError, model_validator

from workloads.config.backbones import BackboneBase
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
        pooling = self.model.head.pooling
        settings = _settings_that_help(backbone, size, needed=self.model.min_positions)
        if positions == 0:
            raise ValueError(
                f"model.backbone {after} cannot take images of image_size {size}. Choose "
                f"{_one_of([*settings, 'another data.image_size', 'another backbone'])}"
            )
        if positions is not None and positions < self.model.min_positions:
            stages = ["fewer stages"] if "blocks" in options else []
            raise ValueError(
                f"model.head.pooling {pooling.name} needs a map of more than one position; images "
                f"of image_size {size} give 1x1 after {after}. Choose "
                f"{_one_of(['larger images', *settings, *stages])}"
            )
        return self


def _settings_that_help(backbone: BackboneBase, image_size: int, *, needed: int) -> list[str]:
    """Name the settings of a backbone that, each alone, give at least `needed` positions."""
    changes = {"last_stride": 1, "stem": "small", "last_pool": False, "image_size": image_size}
    found = []
    for key, value in changes.items():
        if key not in type(backbone).model_fields:
            continue
        try:
            changed = type(backbone).model_validate({**backbone.model_dump(), key: value})
        except ValidationError:  # a size that the patches do not divide
            continue
        if (changed.num_positions(image_size) or 0) >= needed:
            found.append(f"{key} {str(value).lower()}")
    return found


def _one_of(choices: list[str]) -> str:
    """Write choices as a sentence does: a, b or c."""
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
