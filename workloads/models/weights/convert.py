"""From a published file, or a training of ours, to a model file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workloads.config.document import apply_overrides
from workloads.config.errors import did_you_mean
from workloads.config.model import ModelConfig
from workloads.config.validate import validate
from workloads.config.zoo import load_zoo
from workloads.models.weights import model_file
from workloads.models.weights.detect import Found, detect, hidden_layers
from workloads.models.weights.errors import NOT_FOUND, WeightsError
from workloads.models.weights.layouts import find_layout, rename_all
from workloads.models.weights.model_file import ModelFile
from workloads.models.weights.reading import WeightFile, read_weights
from workloads.models.weights.trained import trained_images
from workloads.pooling.vectorise import ORDERS


@dataclass(frozen=True)
class Conversion:
    """A network and what became of the file's tensors.

    Attributes:
        model: The network.
        layout: Name of the layout that the file has.
        assumed: What no weight tells and was taken for granted, in sentences.
        renamed: Names in the file -> names here, where they differ.
        used: How many tensors of the file the network has.
        filled: Names here that the file lacks, with what they were set to.
        dropped: Names in the file that were left out, with the reason.
    """

    model: ModelFile
    layout: str
    assumed: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    used: int = 0
    filled: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def convert(
    path: Path,
    *,
    zoo_name: str | None = None,
    model: ModelConfig | None = None,
    overrides: Sequence[str] = (),
    vector_order: str | None = None,
    reorder: bool = False,
) -> Conversion:
    """Read any file that holds a network's weights and name them as they are named here.

    Every tensor is used once or reported as dropped. The network is told from names and shapes,
    or taken from `zoo_name` or `model`; either way all shapes must fit.

    Args:
        path: A file of torch.save or safetensors; a model file; a checkpoint or job folder.
        zoo_name: Take the config of this named network instead of telling it from the weights.
        model: Take this config instead.
        overrides: ``head.pooling=cov``, ``backbone.last_stride=2``: laid over the config.
        vector_order: Order of the vector that the classifier was trained on.
        reorder: Sort the classifier's inputs, so that the network's order is `upper_rows`.

    Raises:
        WeightsError: The file cannot be read, is of no known layout, or does not fit.
        ConfigError: An override cannot be used.
    """
    return convert_read(
        read_weights(path),
        zoo_name=zoo_name,
        model=model,
        overrides=overrides,
        vector_order=vector_order,
        reorder=reorder,
    )


def convert_read(
    file: WeightFile,
    *,
    zoo_name: str | None = None,
    model: ModelConfig | None = None,
    overrides: Sequence[str] = (),
    vector_order: str | None = None,
    reorder: bool = False,
) -> Conversion:
    """Do what `convert` does with a file that has been read."""
    given = None if model is None else model.model_dump(mode="json")
    if model_file.is_model_file(file.entries):
        return _from_model_file(file, zoo_name, given, overrides, vector_order, reorder=reorder)
    layout = find_layout(file.tensors, str(file.path))
    tensors, dropped = rename_all(layout, file.tensors)
    arch = file.facts.get("arch")
    found = detect(
        {name: tuple(value.shape) for name, value in tensors.items()},
        layout,
        None if arch is None else str(arch),
    )
    document, assumed = _document(file, found, zoo_name, given)
    config = _config(document, overrides, vector_order, file)
    images = trained_images(file.entries)
    converted, filled = _with_counters(
        ModelFile(
            config=config,
            in_channels=found.in_channels,
            num_classes=found.num_classes,
            classes=_classes(file, found.num_classes),
            image_size=None if images is None else images.size,
            source={
                **file.facts,
                "file": file.path.name,
                "sha256": file.sha256,
                "layout": layout.name,
            },
            state=_place_hidden(tensors, config),
        )
    )
    names = {id(tensor): name for name, tensor in file.tensors.items()}
    origin = {name: names[id(t)] for name, t in converted.state.items() if id(t) in names}
    hint = "" if zoo_name is None else "without --as the network is told from the file"
    model_file.refuse_misfit(converted, str(file.path), origin=origin, hint=hint)
    return Conversion(
        model=_sorted_inputs(_widened(converted)) if reorder else _widened(converted),
        layout=layout.name,
        assumed=assumed,
        renamed={old: new for new, old in origin.items() if old != new},
        used=len(origin),
        filled=filled,
        dropped={**dropped, **file.left},
    )


def sort_inputs(weight: Tensor, size: int, order: str) -> Tensor:
    """Return a Linear's weight for vectors in `upper_rows`, given it for another triangle order.

    Args:
        weight: (outputs, T) with T = size (size + 1) / 2.
        size: Rows of the matrix whose triangle is the input.
        order: The order that the columns have now.

    Returns:
        The same columns in another order: the logits stay the same to rounding.
    """
    # Places in the matrix, row by row, ascend in `upper_rows`.
    return weight[:, ORDERS[order](size).argsort()]


def _document(
    file: WeightFile, found: Found, zoo_name: str | None, given: dict[str, Any] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the config's document and what it assumes."""
    if given is not None:
        return given, ()
    if zoo_name is not None:
        zoo = load_zoo()
        if zoo_name not in zoo:
            hint = did_you_mean(zoo_name, zoo) or "see them with: gcpctl model list"
            raise WeightsError(f"there is no network {zoo_name!r}", hint, exit_code=NOT_FOUND)
        return zoo[zoo_name].model.model_dump(mode="json"), ()
    trained = file.entries.get("config")
    if isinstance(trained, dict) and "model" in trained:  # a checkpoint of ours
        return trained["model"], ()
    return found.model, tuple(found.assumed)


def _config(
    document: dict[str, Any],
    overrides: Sequence[str],
    vector_order: str | None,
    file: WeightFile,
) -> ModelConfig:
    if vector_order is not None:
        overrides = [*overrides, f"head.pooling.vector={vector_order}"]
    # A leading `model.`, as recipes have it, is fine.
    document = apply_overrides(document, [item.removeprefix("model.") for item in overrides])
    unknown = [
        key
        for key, there in (
            ("backbone", document.get("backbone")),
            ("head.pooling", document.get("head", {}).get("pooling")),
        )
        if not there
    ]
    if unknown:
        raise WeightsError(
            f"{file.path}: its weights do not tell {' and '.join(unknown)}",
            f"say it: {' '.join(f'{key}=NAME' for key in unknown)}, or --as NETWORK",
        )
    return validate(ModelConfig, document, f"the network of {file.path.name}")


def _place_hidden(tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Give hidden layers the places they have here: Linear, ReLU and, if any, dropout."""
    step = 3 if config.head.dropout else 2
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    place = {str(old): str(step * i) for i, old in enumerate(hidden_layers(shapes))}

    def moved(name: str) -> str:
        parts = name.split(".")
        if parts[:2] != ["head", "hidden"]:
            return name
        return ".".join([*parts[:2], place[parts[2]], *parts[3:]])

    return {moved(name): tensor for name, tensor in tensors.items()}


def _with_counters(model: ModelFile) -> tuple[ModelFile, dict[str, str]]:
    """Add the counters of BN that old files lack, and put the weights in the network's order."""
    names = list(model.outline().state_dict())
    filled = {
        name: "0, which nothing but a momentum of None reads"
        for name in names
        if name.endswith(".num_batches_tracked") and name not in model.state
    }
    zeros = {name: torch.zeros((), dtype=torch.int64) for name in filled}
    state = {**model.state, **zeros}
    order = [name for name in names if name in state]
    rest = [name for name in state if name not in set(names)]
    return replace(model, state={name: state[name] for name in [*order, *rest]}), filled


def _widened(model: ModelFile) -> ModelFile:
    """Return the weights in float32 where they were stored in half precision; that is exact."""
    half = (torch.float16, torch.bfloat16)
    state = {name: t.float() if t.dtype in half else t for name, t in model.state.items()}
    return replace(model, state=state)


def _sorted_inputs(model: ModelFile) -> ModelFile:
    pooling, order = model.config.head.pooling, model.vector_order
    if order in (None, "full"):
        raise WeightsError(
            f"--reorder sorts a triangle, and the vectors of {pooling.name} are none"
        )
    first = "head.hidden.0.weight" if model.config.head.hidden else "head.classifier.weight"
    width = model.state[first].shape[1]
    size = int((2 * width) ** 0.5)  # size^2 < 2 width < (size + 1)^2
    state = {**model.state, first: sort_inputs(model.state[first], size, str(order))}
    pooling = pooling.model_copy(update={"vector": "upper_rows"})
    head = model.config.head.model_copy(update={"pooling": pooling})
    config = model.config.model_copy(update={"head": head})
    return replace(model, config=config, state=state)


def _from_model_file(
    file: WeightFile,
    zoo_name: str | None,
    given: dict[str, Any] | None,
    overrides: Sequence[str],
    vector_order: str | None,
    *,
    reorder: bool,
) -> Conversion:
    model = model_file.parse(file.entries, file.path)
    document: dict[str, Any] = model.config.model_dump(mode="json")
    if zoo_name is not None or given is not None:
        found = Found({}, model.in_channels, model.num_classes)
        document, _ = _document(file, found, zoo_name, given)
    model = replace(model, config=_config(document, overrides, vector_order, file))
    model_file.refuse_misfit(model, str(file.path))
    return Conversion(
        model=_sorted_inputs(model) if reorder else model,
        layout="gcpctl model file",
        used=len(model.state),
    )


def _classes(file: WeightFile, num_classes: int) -> tuple[str, ...] | None:
    """Return the names of the classes, which a checkpoint of ours keeps."""
    identity = file.entries.get("identity")
    names = identity.get("classes") if isinstance(identity, dict) else None
    return tuple(map(str, names)) if names is not None and len(names) == num_classes else None
