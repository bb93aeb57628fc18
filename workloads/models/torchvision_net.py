"""Any classification network of torchvision as a backbone."""

import difflib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from workloads.models.backbone import Backbone, fit_input
from workloads.models.errors import ModelError
from workloads.models.shapes import meta_call

PROBE_SIZE = 224
"""Image size at which a network is looked at; all of torchvision's take it."""

HEADS = ("avgpool", "classifier", "fc", "head", "heads")
"""What torchvision calls the parts after the last maps."""

OPTIONS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


class TorchvisionNet(Backbone):
    """A classification network of torchvision up to its pooling, untrained.

    (B, in_channels, H, W) -> (B, C, h, w). Parameter names and initialisation are torchvision's.
    All its networks of maps are layers one after another, up to their pooling; a network that is
    not is refused.

    Args:
        in_channels: Channels of the images.
        model: Name for `torchvision.models.get_model`.
        node: Name of the layer whose maps are pooled, such as `layer3` or `features.5`; None takes
            the last that gives maps of more than one position. What follows it is left out.

    Raises:
        ModelError: torchvision has no such network, the network no such layer, or the layer gives
            no maps.
    """

    def __init__(self, *, in_channels: int = 3, model: str, node: str | None = None) -> None:
        from torchvision import models  # takes seconds: only who builds one pays

        super().__init__(out_channels=0)  # known below, from the maps
        refuse_unknown("network of torchvision", model, models.list_models(module=models))
        net = _build(model)
        shapes = _shapes(net)
        if "encoder" in shapes:
            raise ModelError(
                f"{model} ends in tokens, not maps",
                "use deit_tiny, deit_small, deit_base, or a vision transformer of timm",
            )
        if node is None:
            node = [name for name, shape in shapes.items() if _is_map(shape)][-1]
        refuse_unknown(f"layer of {model}", node, list(shapes))
        if not _is_map(shapes[node]):
            raise ModelError(
                f"layer {node} of {model} turns an image of {PROBE_SIZE} pixels into "
                f"{shapes[node]}, which is no map (1, C, h, w) of more than one position",
                "choose another layer as node",
            )
        _fit_first_convolution(net, in_channels)
        last, _, inner = node.partition(".")
        for name, layer in net.named_children():
            if name == last:
                self.add_module(name, _up_to(layer, inner) if inner else layer)
                break
            self.add_module(name, layer)
        images = torch.empty(1, in_channels, PROBE_SIZE, PROBE_SIZE, device="meta")
        assert tuple(meta_call(self, images).shape) == shapes[node]
        self.out_channels = shapes[node][1]

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for layer in self.children():
            x = layer(x)
        return x


def refuse_unknown(what: str, name: str, known: Sequence[str]) -> None:
    """Do nothing for a known name.

    Raises:
        ModelError: The name is unknown; the hint gives the closest known ones.
    """
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=5)
    hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known[:40])}"
    raise ModelError(f"there is no {what} named {name!r}", hint)


def _build(model: str) -> nn.Module:
    from torchvision.models import get_model

    device = torch.get_default_device()
    # RegNet works its widths out with tensors, which have no numbers on the meta device.
    with torch.device("cpu" if model.startswith("regnet") else device):
        return get_model(model, weights=None, **OPTIONS.get(model, {})).to(device)


def _fit_first_convolution(net: nn.Module, in_channels: int) -> None:
    layers = dict(net.named_modules())
    first = next(name for name, layer in layers.items() if isinstance(layer, nn.Conv2d))
    parent, _, attribute = first.rpartition(".")
    setattr(layers[parent], attribute, fit_input(layers[first], in_channels))


def _shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return what every layer before the head gives for one image, in the order of running."""
    outputs: dict[str, tuple[int, ...]] = {}

    def recorder(name: str) -> Callable[[nn.Module, object, object], None]:
        def record(_layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs[name] = tuple(output.shape)

        return record

    handles = []
    for name, layer in net.named_children():
        if name not in HEADS:
            handles.append(layer.register_forward_hook(recorder(name)))
            if isinstance(layer, nn.Sequential | nn.ModuleList):
                for inner, part in layer.named_children():
                    handles.append(part.register_forward_hook(recorder(f"{name}.{inner}")))
    meta_call(net, torch.empty(1, 3, PROBE_SIZE, PROBE_SIZE, device="meta"))
    for handle in handles:
        handle.remove()
    return outputs


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] == shape[3] > 1


def _up_to(layers: nn.Module, last: str) -> nn.Sequential:
    """Return the parts of a sequence of layers up to the one of that name."""
    parts = OrderedDict(layers.named_children())
    keep = list(parts).index(last) + 1
    return nn.Sequential(OrderedDict(list(parts.items())[:keep]))
