"""Weights to begin a training with, from any file that holds a network's.

Parts of the network are taken or drawn anew as wholes: half a reduction is of no use to anybody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from workloads.config.optim import Part
from workloads.config.train import InitConfig
from workloads.models.gcp_net import GCPNet
from workloads.models.timm_net import TimmNet
from workloads.models.torchvision_net import TorchvisionNet
from workloads.models.weights import model_file
from workloads.models.weights.detect import find_backbone, hidden_layers
from workloads.models.weights.errors import WeightsError, shorten
from workloads.models.weights.layouts import find_layout, rename_all
from workloads.models.weights.reading import WeightFile, read_weights
from workloads.training.parts import part_of

Weights = dict[str, Tensor]

_TRIANGLES = ("upper_rows", "upper_columns")
_BARE_PREFIXES = ("", "features.", "features.net.")
"""What the names of features alone may lack to be those of a network here."""


@dataclass(frozen=True)
class Source:
    """A file's weights, named as they are named here.

    Attributes:
        name: The file, and what it was told to be.
        classes: Names of its classes, None where it has none.
        vector_order: Order of the vectors that its classifier was trained on, None where they were
            no matrices. Files that do not say are of PyTorch code, where it is `upper_rows`.
    """

    name: str
    weights: Weights
    classes: tuple[str, ...] | None = None
    vector_order: str | None = "upper_rows"


def load_initial_weights(model: GCPNet, config: InitConfig, *, classes: Sequence[str]) -> str:
    """Give an untrained network the weights of a file, part by part.

    The features must be there, to the last tensor. Reduction and pooling are taken where the file
    has them, and then must fit; a backbone of GAP has none, and they keep what they were drawn.
    The classifier is taken whole or drawn anew, as `config.classifier` says; `auto` takes it where
    shapes, classes (if the file names them) and vector order are those of this training.

    Args:
        model: The network, on any device.
        config: The file, and what to do with its classifier. Of a checkpoint of ours with an
            average of the weights, that is taken: it is what was judged.
        classes: Names of the classes of this training.

    Returns:
        A sentence on what was taken and what was not, for the log.

    Raises:
        WeightsError: The file cannot be read, is of no known layout, or does not fit.
        OSError: The storage failed.
    """
    wanted: Weights = model.state_dict()
    source = _read(Path(config.weights), wanted)
    there = _by_part(_with_hidden_places(source.weights, wanted))
    here = _by_part(wanted)
    taken: Weights = {}
    kept: list[str] = []
    fresh: list[str] = []
    left: list[str] = []
    parts: tuple[Part, ...] = ("features", "reduction", "pooling")
    for part in parts:
        if here[part] and (there[part] or part == "features"):
            more_is_fine = part == "features" and _is_cut(model)
            _refuse_misfit(source, part, there, here, more_is_fine=more_is_fine)
            taken |= {name: t for name, t in there[part].items() if name in here[part]}
            kept.append(part)
        elif here[part]:
            fresh.append(f"{part} (the file has none)")
        elif there[part]:
            left.append(part)
    reason = _why_not_the_classifier(model, config, source, there, here, classes)
    if reason is None:
        taken |= there["classifier"]
        kept.append("classifier")
    elif config.classifier == "keep":
        raise WeightsError(
            f"{source.name}: its classifier cannot be kept: {reason}",
            "draw a new one: init.classifier=new",
        )
    else:
        fresh.append(f"classifier ({reason})")
    _refuse_unusable(source, taken, wanted)
    model.load_state_dict({**wanted, **taken})
    told = [
        f"began with {', '.join(kept)} of {source.name}",
        f"drawn anew: {', '.join(fresh)}" if fresh else "",
        f"the file's {' and '.join(left)} left out" if left else "",
    ]
    return "; ".join(filter(None, told))


def outputs_of_file(model: GCPNet, config: InitConfig) -> list[str]:
    """Return a name for each class of a file; empty if it has no classifier.

    Args:
        model: The network that the file is for, with any number of classes.
        config: The file.

    Raises:
        WeightsError: The file cannot be read, or is of no known layout.
        OSError: The storage failed.
    """
    source = _read(Path(config.weights), model.state_dict())
    if source.classes is not None:
        return list(source.classes)
    counts = _outputs(_by_part(source.weights)["classifier"])
    return [f"class {number}" for number in range(min(counts, default=0))]


# --- the file ------------------------------------------------------------------------------------


def _read(path: Path, wanted: Weights) -> Source:
    file = read_weights(path)
    if model_file.is_model_file(file.entries):
        model = model_file.parse(file.entries, file.path)
        return Source(
            f"{file.path} (model file)",
            dict(model.state),
            model.classes,
            model.vector_order,
        )
    identity = file.entries.get("identity")
    if isinstance(identity, Mapping):  # a checkpoint of ours
        classes = identity.get("classes")
        return Source(
            f"{file.path} (checkpoint)",
            _average(file) or file.tensors,
            None if classes is None else tuple(map(str, classes)),
            identity.get("vector order", "upper_rows"),
        )
    try:
        layout = find_layout(file.tensors, str(file.path))
    except WeightsError:
        bare = _bare_features(file.tensors, wanted)
        if bare is None:
            raise
        return Source(f"{file.path} (features alone)", bare)
    weights, _ = rename_all(layout, file.tensors)
    if any(name.startswith("features.net.") for name in wanted):
        weights = {_below_net(name): tensor for name, tensor in weights.items()}
    return Source(f"{file.path} ({layout.name})", weights)


def _average(file: WeightFile) -> Weights | None:
    """Return the average of the weights that a checkpoint of ours has beside them, if any."""
    average = file.entries.get("ema")
    if not isinstance(average, Mapping) or average.keys() != file.tensors.keys():
        return None
    return dict(average)


def _bare_features(tensors: Weights, wanted: Weights) -> Weights | None:
    """Return the weights of a backbone by itself, named as here; None if not so."""
    needed = [n for n in wanted if part_of(n) == "features" and not _is_counter(n)]
    for prefix in _BARE_PREFIXES:
        if needed and all(name.removeprefix(prefix) in tensors for name in needed):
            return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    return None


def _below_net(name: str) -> str:
    """Name a backbone's weight as timm's networks have it here."""
    return f"features.net.{name.removeprefix('features.')}" if part_of(name) == "features" else name


def _with_hidden_places(weights: Weights, wanted: Weights) -> Weights:
    """Number the hidden layers as the network does; dropouts between them move their places."""
    places = [
        hidden_layers({name: tuple(t.shape) for name, t in w.items()}) for w in (weights, wanted)
    ]
    moved = {f"head.hidden.{old}": f"head.hidden.{new}" for old, new in zip(*places, strict=False)}
    renamed = {}
    for name, tensor in weights.items():
        layer, dot, last = name.rpartition(".")
        renamed[f"{moved.get(layer, layer)}{dot}{last}"] = tensor
    return renamed


# --- what fits -----------------------------------------------------------------------------------


def _by_part(weights: Weights) -> dict[Part, Weights]:
    parts: dict[Part, Weights] = {p: {} for p in ("features", "reduction", "pooling", "classifier")}
    for name, tensor in weights.items():
        parts[part_of(name)][name] = tensor
    return parts


def _is_cut(model: GCPNet) -> bool:
    """Whether the features are a part of what the file's program calls its network."""
    return isinstance(model.features, TorchvisionNet | TimmNet)


def _is_counter(name: str) -> bool:
    """Whether old files lack it, and nothing but a momentum of None reads it."""
    return name.endswith(".num_batches_tracked")


def _misfits(there: Weights, here: Weights, *, more_is_fine: bool = False) -> list[str]:
    lines = []
    names = [*here, *([] if more_is_fine else [name for name in there if name not in here])]
    for name in names:
        theirs, ours = there.get(name), here.get(name)
        if theirs is None and _is_counter(name):
            continue
        if theirs is None or ours is None or theirs.shape != ours.shape:
            lines.append(f"{name}: {_shape(theirs)} in the file, {_shape(ours)} in the network")
    return lines


def _shape(tensor: Tensor | None) -> str:
    return "not" if tensor is None else str(list(tensor.shape))


def _refuse_misfit(
    source: Source,
    part: Part,
    there: dict[Part, Weights],
    here: dict[Part, Weights],
    *,
    more_is_fine: bool,
) -> None:
    lines = _misfits(there[part], here[part], more_is_fine=more_is_fine)
    if not lines:
        return
    hint = ""
    if part == "features":
        found, own = (
            find_backbone({name: tuple(t.shape) for name, t in side[part].items()})
            for side in (there, here)
        )
        if found is not None and found == own:
            hint = _other_channels(there[part], here[part])
        elif found is not None:
            options = " ".join(f"model.backbone.{key}={value}" for key, value in found.items())
            hint = f"the file's backbone is {options}"
    elif part == "reduction" and (width := there[part].get("head.reduction.0.weight")) is not None:
        hint = f"model.head.reduced_channels={len(width)} is the file's"
    places = "1 place" if len(lines) == 1 else f"{len(lines)} places"
    raise WeightsError(
        f"{source.name}: its {part} do{'es'[: 2 * (part != 'features')]} not fit the network, in "
        f"{places}\n{shorten(lines)}",
        hint,
    )


def _refuse_unusable(source: Source, taken: Weights, wanted: Weights) -> None:
    """Refuse numbers that would be cut to fit, or that no training comes back from."""
    for name, tensor in taken.items():
        if not wanted[name].is_floating_point():
            continue
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            hint = "save it in floating point"
            raise WeightsError(f"{source.name}: {name} has values of type {kind}", hint)
        if not bool(tensor.isfinite().all()):
            hint = "the training that wrote them had diverged; take an earlier file"
            raise WeightsError(f"{source.name}: {name} has values that are not finite", hint)


def _other_channels(theirs: Weights, ours: Weights) -> str:
    """Say that equal backbones are for other images, if that is how they differ."""
    name = next((name for name, t in ours.items() if t.dim() == 4), "")
    if name not in theirs or theirs[name].dim() != 4:
        return ""
    in_file, here = theirs[name].shape[1], ours[name].shape[1]
    if in_file == here:
        return ""
    channels = f"{in_file} channel{'s'[: in_file > 1]}"
    return f"the file's network takes images of {channels}, these have {here}"


def _why_not_the_classifier(
    model: GCPNet,
    config: InitConfig,
    source: Source,
    there: dict[Part, Weights],
    here: dict[Part, Weights],
    classes: Sequence[str],
) -> str | None:
    """Return why the file's classifier is not taken; None if it is."""
    theirs, ours = there["classifier"], here["classifier"]
    if config.classifier == "new":
        return "as asked"
    if not theirs:
        return "the file has none"
    if source.classes is not None and (reason := _other_classes(source.classes, classes, config)):
        return reason
    outputs = _outputs(theirs)
    if outputs and outputs != {len(classes)}:
        return f"the file's is for {outputs.pop()} classes, these data have {len(classes)}"
    if lines := _misfits(theirs, ours):
        return lines[0]
    if config.classifier == "auto" and here["reduction"] and not there["reduction"]:
        return "the reduction before it is new"
    order = model.head.pooling.vector_order if model.head.pooling is not None else None
    if order in _TRIANGLES and order != source.vector_order:
        if source.vector_order not in _TRIANGLES:
            return "it was trained on vectors of another kind"
        return (
            f"it was trained on vectors in the order {source.vector_order}, the network's are in "
            f"{order}; model.head.pooling.vector={source.vector_order} keeps it"
        )
    return None


def _outputs(classifier: Weights) -> set[int]:
    """Return the numbers of classes that a classifier's weights are for; one, if they agree."""
    return {len(tensor) for name, tensor in classifier.items() if "classifier.bias" in name}


def _other_classes(theirs: Sequence[str], ours: Sequence[str], config: InitConfig) -> str | None:
    """Return how the classes differ; only their order matters to who asked to keep them."""
    if list(theirs) == list(ours):
        return None
    if sorted(theirs) == sorted(ours):
        place = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        return (
            f"the file has these classes in another order: number {place} is {theirs[place]!r} "
            f"there and {ours[place]!r} here"
        )
    if config.classifier == "keep" and len(theirs) == len(ours):
        return None
    unknown = [name for name in ours if name not in set(theirs)]
    if not unknown:
        return f"the file's is for {len(theirs)} classes, these data have {len(ours)}"
    return f"the file's is for other classes, without {unknown[0]!r}"
