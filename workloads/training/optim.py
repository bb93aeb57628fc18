"""Optimizers from their configs, with a group for every pair of learning rate and weight decay."""

from typing import Any

import torch
from torch import nn

from workloads.config.optim import AdamWConfig, LarsConfig, OptimConfig
from workloads.training.lars import Lars
from workloads.training.parts import part_of


def build_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build an optimizer over all parameters of a network.

    Parameters that share a multiple of the learning rate and are all decayed, or all not, are one
    group; so there is a single one unless the config tells parts apart, as in the GCP papers'
    published code. Each group has its multiple as `lr_factor`. Parameters without a gradient are
    passed over at each step: frozen ones are listed too and need no new optimizer later.

    The learning rate is set anew before each step (`set_learning_rate`). The fused kernels take
    one pass over the parameters instead of one per operation.

    Args:
        config: What optimizer, and which parts differ.
        model: A network whose parameters are named as a `GCPNet`'s.
    """
    groups = _groups(config, model)
    if isinstance(config, AdamWConfig):
        return torch.optim.AdamW(
            groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
        )
    if isinstance(config, LarsConfig):
        return Lars(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            trust_coefficient=config.trust_coefficient,
            eps=config.eps,
        )
    sgd = torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True
    )
    if config.momentum:
        sgd.register_step_pre_hook(_begin_momenta)
    return sgd


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr`, times each group's `lr_factor`, for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def undecayed_names(model: nn.Module) -> set[str]:
    """Return the parameters that are normalisations, biases or positions, by name.

    All of one dimension or none, and what a layer names in `no_weight_decay()`: class tokens and
    position embeddings.
    """
    names = {name for name, weight in model.named_parameters() if weight.dim() <= 1}
    for prefix, layer in model.named_modules():
        own = getattr(layer, "no_weight_decay", None)
        if callable(own):
            names |= {f"{prefix}.{name}" if prefix else name for name in own()}
    return names


def _begin_momenta(sgd: torch.optim.Optimizer, *_: object) -> None:
    """Give weights that are about to move for the first time a momentum of zero.

    The fused kernel of torch wants a momentum for all weights of a group or for none, which weights
    that are let go late would break; and it would leave the first momentum as the memory was, had
    a gradient scaler left that step out.
    """
    if len(sgd.state) == sum(len(group["params"]) for group in sgd.param_groups):
        return
    for group in sgd.param_groups:
        for weight in group["params"]:
            if weight.grad is not None and weight not in sgd.state:
                sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def _groups(config: OptimConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Sort the parameters into groups, in the network's order within each."""
    spared = set() if config.decay_norms_and_biases else undecayed_names(model)
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, weight in model.named_parameters():
        part = part_of(name)
        factor: float = getattr(config.lr_factors, part)
        decays = name not in spared and part not in config.no_decay_parts
        # Without any decay the distinction matters to LARS alone, whose rates follow it.
        if config.weight_decay == 0.0 and not isinstance(config, LarsConfig):
            decays = True
        if (factor, decays) not in groups:
            groups[factor, decays] = {
                "params": [],
                "lr": config.lr * factor,
                "lr_factor": factor,
                "weight_decay": config.weight_decay if decays else 0.0,
                **({"adaptive": decays} if isinstance(config, LarsConfig) else {}),
            }
        groups[factor, decays]["params"].append(weight)
    return list(groups.values())
