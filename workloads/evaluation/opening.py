"""From any weights to a network that can judge images: a checkpoint of ours or a file of others."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from torch import Tensor, nn

from workloads.config.images import ImagesConfig
from workloads.config.model import ModelConfig
from workloads.evaluation.errors import EvaluationError
from workloads.models.weights.convert import convert_read
from workloads.models.weights.digest import digest_weights
from workloads.models.weights.model_file import ModelFile, is_model_file, refuse_misfit
from workloads.models.weights.reading import WeightFile, read_weights
from workloads.models.weights.trained import trained_images
from workloads.worker.checkpoint_reader import open_checkpoint
from workloads.worker.manifest import MANIFEST_FILE, STATE_FILE
from workloads.worker.paths import JobPaths

Average = Literal["auto", "model", "ema"]


@dataclass(frozen=True)
class Opened:
    """A network and what its file says of it.

    Attributes:
        network: In evaluation mode, on the CPU.
        config: Its backbone and head.
        classes: What its outputs are called, in their order; None where the file does not say.
        images: How images became what it took in its training; None where the file does not say.
        description: One line for people: network, kind of file, step, which weights.
        sha256: Digest of the weights, as a training reports it in its result.
    """

    network: nn.Module
    config: ModelConfig
    in_channels: int
    num_outputs: int
    classes: tuple[str, ...] | None
    images: ImagesConfig | None
    description: str
    sha256: str


def open_network(
    weights: Path,
    *,
    model: ModelConfig | None = None,
    average: Average = "auto",
    in_channels: int | None = None,
) -> Opened:
    """Build the network of a file or folder of weights.

    Args:
        weights: The folder of a checkpoint or of a job (its best checkpoint, else the newest), a
            model file, or a file that `workloads.models.weights.convert` recognises.
        model: The network, where the file does not tell it or tells it wrongly.
        average: Which of a checkpoint's weights: the trained ones, their moving average, or
            (`auto`) the average where there is one.
        in_channels: Of the images; None takes the network's.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of a newer format.
        WeightsError: The file is missing, damaged, unknown, or does not fit the network.
        EvaluationError: It takes other images, or has no moving average.
        ConfigError: The network cannot be told from the weights and `model` is None.
    """
    file, what = _read(weights)
    entries = {} if file is None else file.entries
    images = None
    if _is_checkpoint(entries):
        found, chosen = _from_checkpoint(entries, weights, model, average)
        images = trained_images(entries)
        what = f"{what}, step {entries.get('step', '?')}, {chosen}"
    else:
        assert file is not None
        if average == "ema":
            raise EvaluationError(f"{weights} is {what} and has no moving average", _NO_AVERAGE)
        conversion = convert_read(file, model=model)
        found = conversion.model
        if not is_model_file(entries):
            what = f"{what} in the layout {conversion.layout}"
    if in_channels is not None and in_channels != found.in_channels:
        raise EvaluationError(
            f"the network takes images of {_channels(found.in_channels)}, the data have "
            f"{_channels(in_channels)}",
            "evaluate on images of the kind that it was trained on",
        )
    network = found.build()
    pooling = found.config.head.pooling.name
    return Opened(
        network=network,
        config=found.config,
        in_channels=found.in_channels,
        num_outputs=found.num_classes,
        classes=found.classes,
        images=images,
        description=f"{found.config.backbone.name} with {pooling}; {what}",
        sha256=digest_weights(network),
    )


_NO_AVERAGE = "average=model evaluates the trained weights"


def _read(weights: Path) -> tuple[WeightFile | None, str]:
    """Return the file and what it is; a checkpoint of ours is verified first."""
    if weights.name == STATE_FILE and (weights.parent / MANIFEST_FILE).is_file():
        weights = weights.parent
    if weights.is_dir():
        has_best = (
            JobPaths(weights).best.exists() or (weights / JobPaths(weights).best.name).exists()
        )
        state = open_checkpoint(weights, "best" if has_best else "last")
        return WeightFile(weights, "", {}, entries=state), "a checkpoint"
    file = read_weights(weights)
    if is_model_file(file.entries):
        return file, "a model file"
    if _is_checkpoint(file.entries):
        return file, "a checkpoint's state"
    return file, "weights"


def _is_checkpoint(entries: Mapping[str, Any]) -> bool:
    """Whether a dict is the state of a training of ours."""
    own = (entries.get("config"), entries.get("identity"), entries.get("model"))
    return all(isinstance(value, Mapping) for value in own)


def _from_checkpoint(
    entries: Mapping[str, Any], weights: Path, model: ModelConfig | None, average: Average
) -> tuple[ModelFile, str]:
    """Return the network and which of its weights were taken."""
    identity = entries["identity"]
    averaged = _averaged(entries, weights)
    if average == "ema" and averaged is None:
        raise EvaluationError(f"{weights} has no moving average of the weights", _NO_AVERAGE)
    use_average = averaged is not None and average != "model"
    state: dict[str, Tensor] = dict(entries["model"])
    if use_average:
        # What is not averaged, such as counters, is the training's own.
        state |= averaged or {}
    found = ModelFile(
        config=model or _own_config(entries, weights),
        in_channels=int(identity["input channels"]),
        num_classes=len(identity["classes"]),
        classes=tuple(str(name) for name in identity["classes"]),
        state=state,
    )
    refuse_misfit(found, str(weights))
    order = identity.get("vector order")
    if order is not None and found.vector_order is not None and order != found.vector_order:
        raise EvaluationError(
            f"{weights}: its weights are for vectors in the order {order}, the network given has "
            f"{found.vector_order}"
        )
    return found, "moving average" if use_average else "trained weights"


def _own_config(entries: Mapping[str, Any], weights: Path) -> ModelConfig:
    try:
        return ModelConfig.model_validate(entries["config"]["model"])
    except (KeyError, ValidationError) as error:
        raise EvaluationError(
            f"{weights}: its network cannot be read: {error}",
            "evaluate it with the gcpctl that trained it, or give the network: model.backbone=...",
        ) from None


def _averaged(entries: Mapping[str, Any], weights: Path) -> dict[str, Tensor] | None:
    """Return the moving average by the network's own names, if there is one."""
    average = entries.get("ema")
    if average is None:
        return None
    # By itself, or beside what else its keeper remembers.
    for candidate in (average, *average.values()):
        if isinstance(candidate, Mapping) and entries["model"].keys() & candidate.keys():
            return {name: candidate[name] for name in entries["model"] if name in candidate}
    raise EvaluationError(
        f"{weights}: its moving average is not one of the network's weights", _NO_AVERAGE
    )


def _channels(count: int) -> str:
    return {1: "1 channel (gray)", 3: "3 channels"}.get(count, f"{count} channels")
