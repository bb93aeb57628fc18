"""A backbone as a table of its stages: what each makes of an image, and what it costs.

Built and run on torch's meta device: shapes only, no numbers and no memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from workloads.models.backbone import Backbone

_MANY = 12
"""More rows than this are drawn together where layers of one kind follow each other."""

_CONTAINERS = ("features", "stages")
"""Children that are shown by their own children."""

_LAYER_PRODUCTS = (torch.ops.aten.convolution, torch.ops.aten.mm, torch.ops.aten.addmm)
"""What convolutions and linear layers compute; products inside attention are none of these."""


@dataclass(frozen=True)
class Stage:
    """One row: a layer by its name in the backbone, or several that follow each other.

    Attributes:
        name: `layer1`, or `conv1 - maxpool`.
        last_layer: `layer1`, or `maxpool`: what the output comes from.
        shape: Of its output for one image: (C, H, W), or (N, C) for tokens; empty for parameters
            that stand in no layer.
        parameters: Their number.
        macs: Multiply-adds of its convolutions and linear layers for one image.
    """

    name: str
    last_layer: str
    shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class _Row:
    """Layers that are shown together, in the order in which they are called."""

    names: tuple[str, ...]
    layers: tuple[nn.Module, ...]
    shape: tuple[int, ...]
    opens_group: bool
    """Whether a single layer that follows belongs to this row."""

    def join(self, other: "_Row") -> "_Row":
        names, layers = self.names + other.names, self.layers + other.layers
        return _Row(names, layers, other.shape, other.opens_group)

    @property
    def is_single_layer(self) -> bool:
        return _is_leaf(self.layers[-1])


def backbone_stages(
    backbone: Backbone, *, image_size: int, in_channels: int
) -> tuple[list[Stage], Tensor]:
    """Return the stages of a backbone on the meta device, and the features that it gives.

    Args:
        backbone: Built on the meta device; it is put into evaluation mode.
        image_size: Pixels per side.
        in_channels: Channels of the images.
    """
    rows: list[_Row] = []
    handles = [
        layer.register_forward_hook(_appender(name, rows)) for name, layer in _layers(backbone, "")
    ]
    images = torch.empty(1, in_channels, image_size, image_size, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        features = backbone.eval()(images)
    for handle in handles:
        handle.remove()
    rows = _joined(rows, _continues_group)
    if len(rows) > _MANY:
        rows = _joined(rows, _are_kin)
    flops, root = counter.get_flop_counts(), type(backbone).__name__
    stages = [
        Stage(
            name=_span(row.names),
            last_layer=row.names[-1],
            shape=row.shape,
            parameters=sum(_num_parameters(layer) for layer in row.layers),
            macs=sum(_layer_macs(flops.get(f"{root}.{name}", {})) for name in row.names),
        )
        for row in rows
    ]
    return [*_loose_parameters(backbone, rows), *stages], features


def _layers(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers that get a row, by name."""
    children = list(module.named_children())
    for name, child in children:
        if not _is_leaf(child) and (len(children) == 1 or name in _CONTAINERS):
            yield from _layers(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _appender(
    name: str, rows: list[_Row]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def append(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pools = not _num_parameters(layer) and inputs[0].shape[2:] != output.shape[2:]
        rows.append(_Row((name,), (layer,), tuple(output.shape[1:]), _is_leaf(layer) and not pools))

    return append


def _joined(rows: Sequence[_Row], belongs: Callable[[_Row, _Row], bool]) -> list[_Row]:
    joined = [rows[0]]
    for row in rows[1:]:
        if belongs(joined[-1], row):
            joined[-1] = joined[-1].join(row)
        else:
            joined.append(row)
    return joined


def _continues_group(group: _Row, row: _Row) -> bool:
    """Whether convolution, BN, ReLU go on, up to the next pooling."""
    return group.opens_group and row.is_single_layer


def _are_kin(group: _Row, row: _Row) -> bool:
    """Whether layers are of one kind and one resolution."""
    alike = group.shape[1:] == row.shape[1:] or group.shape[:-1] == row.shape[:-1]
    return alike and type(group.layers[-1]) is type(row.layers[0])


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _layer_macs(flops: dict[object, int]) -> int:
    return sum(count for product, count in flops.items() if product in _LAYER_PRODUCTS) // 2


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} - {names[-1].rpartition('.')[2]}"


def _loose_parameters(backbone: nn.Module, rows: Sequence[_Row]) -> list[Stage]:
    """Return a row for parameters that stand in no layer, such as a class token."""
    shown = {id(p) for row in rows for layer in row.layers for p in layer.parameters()}
    loose = {name: p for name, p in backbone.named_parameters() if id(p) not in shown}
    if not loose:
        return []
    names = list(loose)
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    text = ", ".join(names[:2]) + more
    return [Stage(text, text, (), sum(p.numel() for p in loose.values()), 0)]
