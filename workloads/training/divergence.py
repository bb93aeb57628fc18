"""Finding out where a loss or gradient stopped being finite, once it is known that one did."""

import torch
from torch import Tensor

from workloads.config.rates import learning_rate
from workloads.data.loaders import epoch_order
from workloads.models.gcp_net import find_non_finite_layer
from workloads.training.accumulation import forward, parts_of_batch
from workloads.training.run import Run
from workloads.worker import distributed
from workloads.worker.failures import DivergedError

_MOST_IMAGES = 5


def explain_divergence(
    run: Run, step: int, *, reason: str = "", gradients_at_hand: bool
) -> DivergedError:
    """Return the error for a bad step, with the batch and the layer where it begins.

    Every rank calls it. The batch is read anew, for it depends on seed and step alone.

    Args:
        run: Its weights are those that the step began with.
        step: The optimizer step, from 1.
        reason: A sentence to begin with.
        gradients_at_hand: The weights hold the gradients of this step.
    """
    epoch, done = divmod(step - 1, run.steps_per_epoch)
    found = distributed.gather_objects(_search(run, step - 1))
    where = next((text for text in found if text is not None), None)
    if where is None and gradients_at_hand:
        where = _last_bad_gradient(run)  # averaged over ranks: whose it was does not show
    where = f", first seen in {where}" if where else ""
    lr = learning_rate(run.config, run.steps_per_epoch, step - 1)
    scale = ", lower compute.loss_scale" if run.config.compute.loss_scale is not None else ""
    return DivergedError(
        f"{reason}loss or gradient is not finite at step {step} (epoch {epoch + 1}, step "
        f"{done + 1} of {run.steps_per_epoch} in it, learning rate {lr:g}){where}; nothing was "
        f"saved from it. Lower optim.lr{scale}, or set schedule.warmup_epochs"
    )


def _search(run: Run, done: int) -> str | None:
    """Compute this rank's share of the batch after `done` steps once more, looking everywhere.

    Returns:
        The layer, rank and images where something is not finite on the way to the loss.
    """
    epoch, step_in_epoch = divmod(done, run.steps_per_epoch)
    order = epoch_order(len(run.data.train), run.config.seed, epoch)
    first = step_in_epoch * run.config.global_batch_size + run.context.rank * run.batch_size
    numbers = order[first : first + run.batch_size]
    batch = run.data.train.get_batch(numbers, epoch)
    split = numbers.split(run.batch_size // run.num_parts)
    with torch.no_grad():
        for own, part in zip(split, parts_of_batch(run, *batch, step=done), strict=True):
            with run.half_precision():
                layer = find_non_finite_layer(run.model, part.images)
            if layer is None and not bool(forward(run, run.model, part).loss.isfinite()):
                layer = "the loss"
            if layer is not None:
                return f"{layer} on rank {run.context.rank} with training images {_names(run, own)}"
    return None


def _last_bad_gradient(run: Run) -> str | None:
    """Name the gradient that is not finite and nearest to the loss: there the trouble begins."""
    bad = [
        name
        for name, parameter in run.model.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    return f"the gradient of {bad[-1]}" if bad else None


def _names(run: Run, numbers: Tensor) -> str:
    """Name a few images."""
    names = run.data.train_names
    shown = [names[n] if names else str(n) for n in numbers[:_MOST_IMAGES].tolist()]
    more = len(numbers) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
