"""Stopping at the first loss or gradient that is not finite."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from workloads.models.gcp_net import find_non_finite_layer
from workloads.worker.failures import DivergedError


class FiniteGuard:
    """Watches gradients after they were averaged over ranks, so all ranks see and do the same.

    A NaN or infinite loss makes the gradients NaN, and a matrix root can make them so from a
    finite loss. On a CPU each step is judged before its update. On a GPU that would wait for the
    device every step; there the flag stays on the device and is read by `confirm` before anything
    is logged or saved, so an update from a bad step never leaves the process.

    Args:
        model: The network, without a wrapper.
        device: Where it is.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._immediate = device.type == "cpu"
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def check(self, images: Tensor, *, step: int, lr: float) -> None:
        """Judge the gradients of a step that is not yet taken."""
        norm = nn.utils.get_total_norm(_gradients(self._parameters), foreach=True)
        if self._immediate:
            if not math.isfinite(norm.item()):
                raise _diverged(step, lr, find_non_finite_layer(self._model, images))
        else:
            fresh = ~norm.isfinite() & (self._first_bad < 0)
            self._first_bad = torch.where(fresh, step, self._first_bad)

    def confirm(self, lr: float) -> None:
        """Raise if a step since the last call was bad."""
        if not self._immediate and (bad := int(self._first_bad)) >= 0:
            raise _diverged(bad, lr, None)


def check_finite_loss(loss: float, *, step: int, lr: float) -> float:
    """Return the loss, which all ranks share, or raise."""
    if not math.isfinite(loss):
        raise _diverged(step, lr, None)
    return loss


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _diverged(step: int, lr: float, layer: str | None) -> DivergedError:
    where = f", first seen in {layer}" if layer else ""
    return DivergedError(
        f"loss or gradient is not finite at step {step} (learning rate {lr:g}){where}; nothing "
        "was saved from it. Lower optim.lr, or set schedule.warmup_epochs"
    )
