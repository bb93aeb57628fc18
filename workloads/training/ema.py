"""An exponential moving average of a network's weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from workloads.config.train import EmaConfig


class WeightAverage:
    """The average a of all floating weights and buffers w: a <- d a + (1 - d) w at each update.

    Batch statistics are averaged like weights; whole numbers (counters) are taken over. It starts
    as a copy. Nothing waits for the device.

    Args:
        model: The network, without a wrapper.
        config: The decay d.

    References:
        Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; with a
        decay, as in Szegedy et al., Rethinking the Inception Architecture, CVPR 2016.
    """

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self._config = config
        self._average = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, num_updates: int) -> None:
        """Move towards the weights.

        Args:
            model: The network that the average was made of.
            num_updates: Number of this update, from 1; of use to a decay that warms up.
        """
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for name, tensor in _tensors(model).items():
            if tensor.is_floating_point():
                averages.append(self._average[name])
                weights.append(tensor)
            else:
                self._average[name].copy_(tensor)
        torch._foreach_lerp_(averages, weights, 1.0 - self.decay(num_updates))

    def decay(self, num_updates: int) -> float:
        """Return d at an update, counted from 1."""
        if not self._config.warmup:
            return self._config.decay
        return min(self._config.decay, (1 + num_updates) / (10 + num_updates))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average under the network's own names; the tensors are the live ones."""
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: It is of another network.
        """
        differing = [
            name
            for name in {**self._average, **state}
            if name not in state
            or name not in self._average
            or state[name].shape != self._average[name].shape
        ]
        if differing:
            raise ValueError(
                f"the saved average is of another network: {', '.join(differing[:5])}"
                + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
            )
        for name, tensor in self._average.items():
            tensor.copy_(state[name])

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Give a network the average for a while, and its own weights back to the last bit.

        Meanwhile the average here holds the network's own weights: it is neither to be updated nor
        to be saved.
        """
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        # In place: wrappers and compiled programs keep the tensors that they have seen.
        for name, tensor in _tensors(model).items():
            kept = tensor.clone()
            tensor.copy_(self._average[name])
            self._average[name].copy_(kept)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what a checkpoint of the network holds, not copied."""
    state: dict[str, Tensor] = model.state_dict()
    return state
