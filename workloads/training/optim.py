"""Optimizers from their configs."""

from collections.abc import Iterable

import torch
from torch import nn

from workloads.config.optim import AdamWConfig, OptimConfig


def build_optimizer(
    config: OptimConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Build an optimizer over all parameters as one group.

    Weight decay acts on every parameter, biases and batch-norm scales included: the plain rule of
    the GCP papers' published code. The learning rate is set anew before each step (`schedules`).
    The fused kernels take one pass over the parameters instead of one per operation.
    """
    if isinstance(config, AdamWConfig):
        return torch.optim.AdamW(
            parameters,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr` for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
