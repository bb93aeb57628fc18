"""Layer-wise adaptive rate scaling."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose rate for each weight tensor w follows its norm and its gradient's g.

        r = trust_coefficient * |w| / (|g| + weight_decay * |w| + eps)      eq. 6 of the paper
        v <- momentum * v + r * (g + weight_decay * w)
        w <- w - lr * v

    r is 1 where |w| or |g| is 0: a weight that starts at zero would never leave it. Groups with
    `adaptive: false` have r = 1 throughout, which is plain SGD. Nothing waits for the device.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        momentum: Share of v that stays.
        weight_decay: L2 decay.
        trust_coefficient: The paper's eta.
        eps: Added to the norms.
        adaptive: Whether r is used.

    References:
        You, Gitman and Ginsburg, Large Batch Training of Convolutional Networks, 2017.

    Deviation:
        The paper's algorithm 1 has the learning rate inside v. As in torch's SGD and in the
        MindSpore code of the TPAMI 2023 paper it stands outside, so that a change of the rate acts
        on the whole of v at once.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        eps: float = 0.0,
        adaptive: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "adaptive": adaptive,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step on the gradients as they are; return what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._update(weights, group)
        return loss

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [weight.grad for weight in weights]
        updates = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        if group["adaptive"]:
            torch._foreach_mul_(updates, _ratios(weights, gradients, group))
        if group["momentum"]:
            momenta = [self._momentum(weight) for weight in weights]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, updates)
            updates = momenta
        torch._foreach_add_(weights, updates, alpha=-group["lr"])

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _ratios(weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Return r of each weight, as scalars on the device."""
    of_weights = torch.stack(torch._foreach_norm(weights))
    of_gradients = torch.stack(torch._foreach_norm(gradients))
    below = of_gradients + group["weight_decay"] * of_weights + group["eps"]
    ratios = group["trust_coefficient"] * of_weights / below
    usable = (of_weights > 0) & (of_gradients > 0)
    return list(torch.where(usable, ratios, torch.ones_like(ratios)).unbind())
