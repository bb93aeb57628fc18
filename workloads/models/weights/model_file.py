"""The model file: a network as plain data, config and weights in one.

``torch.save`` of a dict: ``format``, ``version``, ``model`` (a ModelConfig's dump),
``in_channels``, ``num_classes``, ``classes`` (names or None), ``image_size`` (pixels per side that
it was trained on, or None), ``vector_order``, ``source`` (where the weights come from) and
``state``. It holds tensors, numbers, texts, lists and dicts only.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from workloads import durable
from workloads.config.model import ModelConfig
from workloads.models.gcp_net import GCPNet, build_model
from workloads.models.weights.errors import CONFLICT, NOT_FOUND, WeightsError, shorten
from workloads.models.weights.reading import read_plain

FORMAT = "gcpctl-model"
VERSION = 1
SUFFIX = ".gcpnet"


@dataclass(frozen=True)
class ModelFile:
    """A network as it stands in a file.

    Attributes:
        config: Backbone and head.
        classes: Their names, or None where the source had none.
        image_size: Pixels per side that it was trained on, or None where the source does not say.
        source: `file`, `sha256` and `layout` of what it was made from, and the like.
        state: The network's state dict.
    """

    config: ModelConfig
    in_channels: int
    num_classes: int
    state: Mapping[str, Tensor]
    classes: tuple[str, ...] | None = None
    image_size: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vector_order(self) -> str | None:
        """Order of the pooled vector, None where it has none."""
        order: str | None = getattr(self.config.head.pooling, "vector", None)
        return order

    def outline(self) -> GCPNet:
        """Return the network without weights: it has names and shapes alone."""
        with torch.device("meta"):
            return build_model(
                self.config, in_channels=self.in_channels, num_classes=self.num_classes
            )

    def build(self) -> GCPNet:
        """Return the network in evaluation mode, in the weights' own floating type."""
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn and overwritten
            model = build_model(
                self.config, in_channels=self.in_channels, num_classes=self.num_classes
            )
        types = {tensor.dtype for tensor in self.state.values() if tensor.is_floating_point()}
        if types == {torch.float64}:
            model.double()
        model.load_state_dict(self.state)
        return model.eval()


def save_model(model: ModelFile, path: Path, *, force: bool = False) -> None:
    """Write a model file, whole or not at all.

    Raises:
        WeightsError: There is a file already and `force` is false, or no folder to write to.
    """
    refuse_existing(path, force=force)
    buffer = io.BytesIO()
    torch.save(
        {
            "format": FORMAT,
            "version": VERSION,
            "model": model.config.model_dump(mode="json"),
            "in_channels": model.in_channels,
            "num_classes": model.num_classes,
            "classes": None if model.classes is None else list(model.classes),
            "image_size": model.image_size,
            "vector_order": model.vector_order,
            "source": dict(model.source),
            "state": {name: tensor.detach().cpu() for name, tensor in model.state.items()},
        },
        buffer,
    )
    durable.write_file(path, buffer.getbuffer())


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise WeightsError if a file could not or should not be written to `path`."""
    if path.is_dir():
        raise WeightsError(f"{path} is a folder", "name the file to write: -o FILE")
    if path.exists() and not path.is_file():  # the rename would put a file in a device's place
        raise WeightsError(f"{path} is not a regular file", "name the file to write: -o FILE")
    if not path.parent.is_dir():
        raise WeightsError(f"there is no folder {path.parent}", exit_code=NOT_FOUND)
    if path.exists() and not force:
        raise WeightsError(
            f"{path} exists",
            "write to another file with -o, or over it: --force",
            exit_code=CONFLICT,
        )


def load_model(path: Path) -> GCPNet:
    """Build the network of a model file, in evaluation mode.

    Raises:
        WeightsError: It is missing, damaged, of a newer format or no model file; or its parts
            do not fit each other: config, vector order and weights.
    """
    return read_model_file(path).build()


def read_model_file(path: Path) -> ModelFile:
    """Read a model file and hold its parts against each other.

    Raises:
        WeightsError: See `load_model`.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}", exit_code=NOT_FOUND)
    entries = read_plain(path)
    if not is_model_file(entries):
        raise WeightsError(
            f"{path} is not a model file of gcpctl", f"make it one: gcpctl model convert {path}"
        )
    return parse(entries, path)


def is_model_file(entries: Mapping[str, Any]) -> bool:
    """Whether a dict read from a file is a model file's, of any version."""
    return entries.get("format") == FORMAT


def parse(entries: Mapping[str, Any], path: Path) -> ModelFile:
    """Turn the dict of a model file into a `ModelFile`, as `read_model_file` does."""
    version = entries.get("version")
    if version != VERSION:
        raise WeightsError(
            f"{path} has format {version}, this gcpctl reads format {VERSION}",
            "use the newer gcpctl that wrote it",
        )
    try:
        config = ModelConfig.model_validate(entries["model"])
        classes = entries["classes"]
        model = ModelFile(
            config=config,
            in_channels=int(entries["in_channels"]),
            num_classes=int(entries["num_classes"]),
            classes=None if classes is None else tuple(classes),
            image_size=entries["image_size"],
            source=entries["source"],
            state=entries["state"],
        )
        order = entries["vector_order"]
    except KeyError as error:
        raise WeightsError(f"{path} lacks the entry {error}; it was altered") from None
    except ValidationError as error:
        raise WeightsError(f"{path}: its config cannot be used: {error}") from None
    if order != model.vector_order:
        raise WeightsError(
            f"{path}: its weights are for vectors in the order {order}, its config says "
            f"{model.vector_order}",
            "the classifier would see other features than it learnt; convert the source again",
        )
    refuse_misfit(model, str(path))
    return model


def refuse_misfit(
    model: ModelFile,
    source: str,
    *,
    origin: Mapping[str, str] | None = None,
    hint: str = "",
) -> None:
    """Check that the state is that of the config's network.

    Args:
        model: Config and state.
        source: The file, for the message.
        origin: What weights are called in the file, by their names here.
        hint: What to do if they do not fit.

    Raises:
        WeightsError: It is not; lists what is of another shape, missing or too many.
    """
    outline = model.outline().state_dict()
    lines = []
    for name in [*outline, *(name for name in model.state if name not in outline)]:
        there, wanted = model.state.get(name), outline.get(name)
        if there is None or wanted is None or there.shape != wanted.shape:
            known_as = (origin or {}).get(name, name)
            label = name if known_as == name else f"{known_as} ({name})"
            lines.append(f"{label}: {_shape(there)} in the file, {_shape(wanted)} in the network")
    if lines:
        places = "1 place" if len(lines) == 1 else f"{len(lines)} places"
        raise WeightsError(
            f"{source}: the weights do not fit the network, in {places}\n{shorten(lines)}", hint
        )


def _shape(tensor: Tensor | None) -> str:
    return "not" if tensor is None else str(list(tensor.shape))
