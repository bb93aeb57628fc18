"""Half precision: where it is computed in, and the scale that keeps fp16's gradients apart from 0.

Weights, gradients, optimizer and second-order poolings stay in float32.
"""

import contextlib
from contextlib import AbstractContextManager

import torch

from workloads.config.train import ComputeConfig

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FIRST_SCALE = 65536.0


def half_precision(compute: ComputeConfig, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass; the backward pass belongs outside of it."""
    dtype = _HALF.get(compute.precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


class LossScale:
    """The factor on the loss of fp16, fixed or adapted; without effect in other precisions.

    An adapted scale doubles after 2000 good steps and halves where a scaled gradient is not
    finite, whose update is left out (Micikevicius et al., "Mixed Precision Training", 2018).
    Gradients are averaged over ranks before they are looked at: all ranks decide alike.
    """

    def __init__(self, compute: ComputeConfig, device: torch.device) -> None:
        self._fixed = compute.loss_scale
        self._is_on = compute.precision == "fp16"
        self._scaler = torch.amp.GradScaler(
            device.type, init_scale=self._fixed or _FIRST_SCALE, enabled=self._is_on
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Add the scaled loss's gradients."""
        (self._scaler.scale(loss) if self._is_on else loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the gradients their own size."""
        if self._is_on:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer update the weights."""
        if self._is_on:
            self._scaler.step(optimizer)
        else:
            optimizer.step()

    def update(self) -> None:
        """Adapt the scale; after each step, whether its update was made or not."""
        if self._is_on:
            self._scaler.update(self._fixed)

    @property
    def can_fall(self) -> bool:
        """Whether a gradient that is not finite may be the scale's fault; waits for the device."""
        return self._is_on and self._fixed is None and self._scaler.get_scale() > 1.0

    def metrics(self) -> dict[str, float]:
        """Return what a log shows of it."""
        return {"optim/loss_scale": self._scaler.get_scale()} if self._is_on else {}

    def state_dict(self) -> dict[str, float]:
        """Return plain data; empty where it has no effect."""
        state: dict[str, float] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from `state_dict`; a fixed scale stays the config's."""
        if self._is_on and self._fixed is None and state:
            self._scaler.load_state_dict(state)
