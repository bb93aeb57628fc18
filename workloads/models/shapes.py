"""Run networks for the shapes alone, on torch's meta device: no numbers, no memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call


def meta_call(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module on the shape of `x` and return a result without numbers.

    The module stays as it is, wherever its weights lie; it runs in evaluation mode. Batch
    normalisation is passed over: it changes no shape, and would take most of the time.
    """
    with evaluation_mode(module), _without_batch_norm(module), torch.no_grad():
        return functional_call(module, _meta_state(module), (x.to("meta"),))


def unused_parameters(module: nn.Module, x: Tensor) -> list[str]:
    """Name the parameters that no gradient would reach."""
    state = _meta_state(module)
    parameters = {name: state[name].requires_grad_() for name, _ in module.named_parameters()}
    with evaluation_mode(module), torch.enable_grad():
        result = functional_call(module, state, (x.to("meta"),)).sum()
        gradients = torch.autograd.grad(result, list(parameters.values()), allow_unused=True)
    return [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None]


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode; afterwards each layer has its own mode again."""
    modes = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for layer, training in modes.items():
            layer.training = training


@contextmanager
def _without_batch_norm(module: nn.Module) -> Iterator[None]:
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.forward = _same
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _same(x: Tensor) -> Tensor:
    return x


def _meta_state(module: nn.Module) -> dict[str, Tensor]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: torch.empty_like(value, device="meta") for name, value in named}
