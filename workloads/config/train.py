"""Everything one training depends on. Two equal configs on equal code give equal weights."""

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from workloads.config.backbones import BackboneBase
from workloads.config.base import Config, Location
from workloads.config.data import DataConfig, DigitsConfig, fill_usual
from workloads.config.images import AugmentConfig, ImagesConfig, MixConfig
from workloads.config.model import ModelConfig
from workloads.config.optim import OptimConfig, Part, SgdConfig
from workloads.config.schedule import CosineConfig, ScheduleConfig

Crops = Literal["centre", "flip", "ten"]
"""Views that are averaged in evaluation: the centre; it and its mirror image; the four corners and
the centre with their mirror images."""


class ComputeConfig(Config):
    """How the numbers are computed."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Half precision by autocast; weights and second-order poolings stay in float32."""
    loss_scale: float | None = Field(default=None, ge=1.0, le=2.0**24)
    """Fixed loss scale of fp16; null adapts it, from 65536."""
    channels_last: bool = False
    compile: bool = False
    """Compile the network with `torch.compile`."""
    max_images_per_worker: int | None = Field(default=None, ge=1)
    """Most images that a worker holds at once; a larger share of the global batch is computed in
    equal parts whose gradients add up. Null computes it whole."""


class EmaConfig(Config):
    """An exponential moving average of the weights, judged and kept beside them."""

    decay: float = Field(default=0.9999, gt=0.0, lt=1.0)
    """Share of the average that stays at each update."""
    every_steps: int = Field(default=1, ge=1)
    warmup: bool = False
    """Begin with the smaller decay (1 + n) / (10 + n) at update n."""


class FreezeConfig(Config):
    """Parts of the network that do not move; their batch norms use running statistics."""

    parts: tuple[Part, ...] = Field(default=("features",), min_length=1)
    until_epoch: int | None = Field(default=None, ge=1)
    """Epochs after which they move as well; null keeps them for the whole training."""


class CacheFeaturesConfig(Config):
    """The features of a backbone that never moves, computed once and used by every epoch, and by
    every training that has the same backbone, images and settings."""

    views: int = Field(default=1, ge=1, le=10_000)
    """Augmented views of each training image: epoch e sees view e modulo `views`. With as many as
    epochs nothing is lost, and nothing is gained but by other trainings."""
    dtype: Literal["float32", "float16"] = "float32"
    """How they are stored; float16 takes half the room and rounds to 11 bits."""


class InitConfig(Config):
    """Weights to begin with."""

    weights: Location
    """A file of weights (a published one, torchvision's, a `.gcpnet`, a checkpoint of ours), as
    the cluster's nodes see it; or a job of the cluster: `JOB`, `JOB:best`, `JOB:last`."""
    classifier: Literal["auto", "keep", "new"] = "auto"
    """Take the file's classifier, or draw a new one; `auto` draws one where it does not fit."""


class EarlyStoppingConfig(Config):
    """End the training when validation no longer improves."""

    metric: Literal["top1", "loss"] = "top1"
    patience_epochs: int = Field(default=10, ge=1)
    min_delta: float = Field(default=0.0, ge=0.0)
    """What counts as an improvement: percentage points of top-1, or loss."""


class NonFiniteConfig(Config):
    """What happens when a loss or gradient is not finite."""

    action: Literal["stop", "skip"] = "stop"
    """Stop and name batch and layer; or leave the step out and count it."""
    max_skipped: int = Field(default=10, ge=1)
    """Steps left out in a row after which the training stops all the same."""


class ValidationConfig(Config):
    """When and how the network is judged during training."""

    every_epochs: int = Field(default=1, ge=1)
    """The last epoch is judged in any case."""
    from_epoch: int = Field(default=1, ge=1)
    """First epoch that is judged."""
    crops: Crops = "centre"


class CheckpointConfig(Config):
    """When the state that resume needs is saved."""

    every_steps: int | None = Field(default=None, ge=1)
    """Also save every so many optimizer steps."""
    every_epochs: int = Field(default=1, ge=1)
    """Save at the end of every so many epochs, of the last, and where it is the best so far."""
    keep: int = Field(default=2, ge=2, le=100)
    """Newest checkpoints kept. Never 1: the newest may be torn."""
    keep_best: int = Field(default=1, ge=1, le=100)
    """Checkpoints with the best validation results kept besides."""
    asynchronous: bool = True
    """Write beside the training; at most one write is under way."""


class ImageSizeStep(Config):
    """From an epoch on, images of another size in training."""

    from_epoch: int = Field(ge=0)
    """Completed epochs."""
    size: int = Field(ge=4, le=2048)


class TrainConfig(Config):
    """A training run: data, network, optimization, bookkeeping."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    data: DataConfig = DigitsConfig()
    images: ImagesConfig = DigitsConfig.usual_images
    """What the network sees of an image; what is not given is the usual of `data`."""
    augment: AugmentConfig = DigitsConfig.usual_augment
    """How training images are varied; what is not given is the usual of `data`."""
    mix: MixConfig | None = None
    progressive: tuple[ImageSizeStep, ...] = ()
    """Sizes of the training images over the epochs, the first from epoch 0; validation keeps
    `images.size`. Empty keeps it in training too."""
    model: ModelConfig = ModelConfig()
    init: InitConfig | None = None
    freeze: FreezeConfig | None = None
    cache_features: CacheFeaturesConfig | None = None
    optim: OptimConfig = SgdConfig()
    schedule: ScheduleConfig = CosineConfig()
    epochs: int = Field(default=20, ge=1, le=100_000)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    """Optimizer steps that make an epoch; None uses every full batch of the data once. Fewer are
    for smoke tests, more than the data holds are refused."""
    global_batch_size: int = Field(default=64, ge=1, le=1_000_000)
    """Images per optimizer step over all workers; must divide by the number of workers."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    label_smoothing_over: Literal["all", "others"] = "all"
    """What the smoothed share is spread over: all K classes (PyTorch: eps / K each), or the others
    (eps / (K - 1) each), as the TPAMI 2023 code does."""
    clip_norm: float | None = Field(default=None, gt=0.0)
    """Largest L2 norm of all gradients together; larger ones are scaled down to it."""
    ema: EmaConfig | None = None
    compute: ComputeConfig = ComputeConfig()
    non_finite: NonFiniteConfig = NonFiniteConfig()
    validation: ValidationConfig = ValidationConfig()
    early_stopping: EarlyStoppingConfig | None = None
    log_every_steps: int = Field(default=10, ge=1)
    """Distance of the points of `train/step_loss`, in optimizer steps."""
    checkpoint: CheckpointConfig = CheckpointConfig()

    @classmethod
    def with_usual_values(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return `document` with the usual images and augmentations of its source."""
        return fill_usual(document, sections=("images", "augment"))

    @model_validator(mode="before")
    @classmethod
    def _usual_of_the_source(cls, document: Any) -> Any:
        return cls.with_usual_values(document) if isinstance(document, dict) else document

    def logs_step(self, step: int) -> bool:
        """Whether the curves over steps have a point at optimizer step `step`, from 1."""
        return step % self.log_every_steps == 0

    def train_image_size(self, epoch: int) -> int:
        """Return the side of the training images in an epoch, counted from 0, in pixels."""
        sizes = [step.size for step in self.progressive if step.from_epoch <= epoch]
        return sizes[-1] if sizes else self.images.size

    def image_sizes(self) -> list[int]:
        """Return the sides of all images that the network sees, ascending."""
        return sorted({self.images.size, *(step.size for step in self.progressive)})

    @model_validator(mode="after")
    def _warmup_fits(self) -> "TrainConfig":
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs:g}) must be less than "
                f"epochs ({self.epochs})"
            )
        cooldown = getattr(self.schedule, "cooldown_epochs", 0)
        if self.schedule.warmup_epochs + cooldown >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs:g}) and cooldown_epochs "
                f"({cooldown}) leave nothing of {self.epochs} epochs"
            )
        return self

    @model_validator(mode="after")
    def _parts_agree(self) -> "TrainConfig":
        channels, mean = self.data.in_channels, len(self.images.mean)
        if mean not in (1, channels):
            raise ValueError(
                f"images.mean and std have {mean} numbers; images of {self.data.name} have "
                f"{channels} channel{'s'[: channels > 1]}"
            )
        by_colour = [n for n in ("color_jitter", "rand_augment") if getattr(self.augment, n)]
        if by_colour and self.data.white != 255:
            names = " and ".join(f"augment.{name}" for name in by_colour)
            raise ValueError(
                f"for {names} pixels go from 0 to 255, and those of {self.data.name} go to "
                f"{self.data.white}; write {' '.join(f'augment.{n}=null' for n in by_colour)}"
            )
        starts = [step.from_epoch for step in self.progressive]
        if starts and (starts[0] != 0 or starts != sorted(set(starts))):
            raise ValueError(f"progressive begins at epoch 0 and ascends; got from_epoch {starts}")
        if self.compute.loss_scale is not None and self.compute.precision != "fp16":
            raise ValueError("compute.loss_scale is for compute.precision fp16 only")
        if self.mix is not None and self.global_batch_size % 2:
            raise ValueError(
                f"mix blends pairs of images, and global_batch_size {self.global_batch_size} is odd"
            )
        classes = self.data.num_classes
        if classes is not None and self.label_smoothing_over == "others":
            check_smoothing_over_others(self.label_smoothing, classes)
        with_weights = self._parts_with_weights()
        frozen = set(self.freeze.parts) if self.freeze is not None else set[str]()
        if frozen >= with_weights:
            listed = ", ".join(sorted(with_weights))
            raise ValueError(f"freeze.parts has all parts with weights ({listed}): none is trained")
        held = {part for part in with_weights if getattr(self.optim.lr_factors, part) == 0.0}
        if self.freeze is not None and self.freeze.until_epoch is None:
            held |= frozen
        if held >= with_weights:
            raise ValueError("optim.lr_factors of 0 and freeze.parts leave nothing to train")
        if self.cache_features is not None and (reason := self._why_features_differ()):
            raise ValueError(f"cache_features: {reason}")
        if self.validation.from_epoch > self.epochs:
            raise ValueError(
                f"validation.from_epoch ({self.validation.from_epoch}) is after the last epoch "
                f"({self.epochs})"
            )
        return self

    def _parts_with_weights(self) -> set[str]:
        """Return the parts of the network that have anything to train."""
        head = self.model.head
        parts = {"features", "classifier"}
        if self.model.uses_class_token_only:
            return parts
        if head.reduced_channels is not None:
            parts.add("reduction")
        if head.pooling is not None and head.pooling.has_weights:
            parts.add("pooling")
        return parts

    def _why_features_differ(self) -> str:
        """Return what keeps an image's features from being the same at each look, if anything."""
        freeze = self.freeze
        if freeze is None or "features" not in freeze.parts or freeze.until_epoch is not None:
            return "the features must never move; write freeze.parts=[features]"
        if self.init is None:
            return "features that were drawn and never trained tell little; write init.weights=..."
        if self.mix is not None:
            return "mix blends images, which have been made features by then; write mix=null"
        if self.progressive:
            return "progressive changes the size of images; write progressive=[]"
        if self.validation.crops != "centre":
            return "one view of each validation image is kept; write validation.crops=centre"
        return ""

    @model_validator(mode="after")
    def _features_have_positions(self) -> "TrainConfig":
        """One position has no variance: its covariance is zero, and nothing would be learnt."""
        for size in self.image_sizes():
            check_positions(self.model, size)
        return self


def check_smoothing_over_others(smoothing: float, num_classes: int) -> None:
    """Raise ValueError if a part of the label would leave it less than another class gets."""
    most = (num_classes - 1) / num_classes
    if smoothing > most:
        raise ValueError(
            f"label_smoothing ({smoothing:g}): of {num_classes} classes at most {most:g} can go to "
            "the others, or one of them would outweigh the label; label_smoothing_over=all takes "
            "more"
        )


def check_positions(model: ModelConfig, size: int, found: int | None = None) -> None:
    """Raise ValueError unless square images of `size` pixels leave something to pool.

    Args:
        model: The network.
        size: Side of the images.
        found: Positions that were counted, for a backbone whose config does not tell them.
    """
    positions, backbone = model.num_positions(size), model.backbone
    positions = found if positions is None else positions
    options = backbone.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    shape = ", ".join(f"{name} {_as_written(value)}" for name, value in options.items())
    after = f"{backbone.name} ({shape})" if shape else backbone.name
    pooling = model.head.pooling
    settings = _settings_that_help(backbone, size, needed=model.min_positions)
    if positions == 0:
        raise ValueError(
            f"model.backbone {after} cannot take images of {size}x{size}. Choose "
            f"{_one_of([*settings, 'another images.size', 'another backbone'])}"
        )
    if positions is not None and positions < model.min_positions:
        stages = ["fewer stages"] if "blocks" in options else []
        raise ValueError(
            f"model.head.pooling {pooling.name} needs a map of more than one position; images "
            f"of {size}x{size} give 1x1 after {after}. Choose "
            f"{_one_of(['larger images', *settings, *stages])}"
        )


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
        positions = changed.num_positions(image_size)
        told = positions is not None and positions >= needed
        if told or (positions is None and key == "image_size"):  # as the network itself would say
            found.append(f"{key} {_as_written(value)}")
    return found


def _as_written(value: Any) -> str:
    """Return a setting's value as a recipe has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _one_of(choices: list[str]) -> str:
    """Write choices as a sentence does: a, b or c."""
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
