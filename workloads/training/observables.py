"""What a network's pooling shows of itself while it is trained."""

from torch import Tensor, nn

from workloads.pooling.base import GlobalPooling


def find_pooling(model: nn.Module) -> GlobalPooling | None:
    """Return the network's global pooling; None where it has none."""
    return next((m for m in model.modules() if isinstance(m, GlobalPooling)), None)


def observe_pooling(model: nn.Module) -> dict[str, Tensor]:
    """Return the observables of the network's pooling by their metric names, sorted.

    Equal networks after equally many steps give equal names, so that ranks can be summed. The
    values stay on their device.
    """
    pooling = find_pooling(model)
    observables = {} if pooling is None else pooling.observables()
    return {f"pooling/{name}": observables[name] for name in sorted(observables)}
