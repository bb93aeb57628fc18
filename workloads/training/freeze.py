"""Parts of a network that are held still."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from workloads.config.errors import ConfigError, Problem
from workloads.config.train import FreezeConfig
from workloads.training.parts import part_of


class Freezer:
    """Holds parts of a network still, for the whole training or its first epochs.

    Their weights get no gradient, and their batch norms normalise by running statistics, which do
    not change either. What never had a gradient gets none when the parts are let go.

    Args:
        model: The network, without a wrapper.
        config: What to hold; None holds nothing.

    Raises:
        ConfigError: Nothing would be left to train.
    """

    def __init__(self, model: nn.Module, config: FreezeConfig | None) -> None:
        self._config = config
        held = set() if config is None else set(config.parts)
        self._weights = [
            weight
            for name, weight in model.named_parameters()
            if part_of(name) in held and weight.requires_grad
        ]
        self._norms = [
            layer
            for name, layer in model.named_modules()
            if part_of(name) in held and isinstance(layer, _BatchNorm)
        ]
        trainable = sum(weight.requires_grad for weight in model.parameters())
        if self._weights and len(self._weights) == trainable:
            message = f"{', '.join(sorted(held))}: no weight is left to train"
            hint = "leave out a part that this network has"
            raise ConfigError("train", [Problem("freeze.parts", message, hint)])

    def holds(self, epoch: int) -> bool:
        """Whether the parts are held in an epoch, counted from 0."""
        if self._config is None:
            return False
        return self._config.until_epoch is None or epoch < self._config.until_epoch

    def apply(self, epoch: int) -> bool:
        """Hold the parts in an epoch, counted from 0, or let them go.

        To be called after each `model.train()`, which sets all batch norms to batch statistics.

        Returns:
            Whether other weights are trained than before: a wrapper that averages gradients must
            then be built anew.
        """
        held = self.holds(epoch)
        changed = [weight for weight in self._weights if weight.requires_grad == held]
        for weight in changed:
            weight.requires_grad_(not held)
            weight.grad = None  # a left-over one would move a weight that is held
        if held:
            for norm in self._norms:
                norm.eval()
        return bool(changed)

    def describe(self) -> str:
        """Return a sentence for the log; empty if nothing is held."""
        if self._config is None:
            return ""
        count = sum(weight.numel() for weight in self._weights)
        until = self._config.until_epoch
        time = "for the whole training" if until is None else f"until epoch {until} is done"
        return f"{', '.join(self._config.parts)} held still {time}: {count:,} weights"
