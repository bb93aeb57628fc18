"""When a network is judged, and when judging it has shown enough."""

from workloads.config.train import TrainConfig
from workloads.training.state import TrainState


def is_judged(config: TrainConfig, epoch: int) -> bool:
    """Whether the network is validated after `epoch`, counted from 1; the last always is."""
    if epoch == config.epochs:
        return True
    return epoch >= config.validation.from_epoch and epoch % config.validation.every_epochs == 0


def note_validation(config: TrainConfig, state: TrainState, epoch: int) -> bool:
    """Take up the results of `epoch`, counted from 1; return whether they are the best so far.

    With early stopping, `patience_epochs` without an improvement since the last one end the
    training; only epochs that are judged can end it.
    """
    is_best = state.best_top1 is None or state.val["top1"] > state.best_top1
    if is_best:
        state.best_top1, state.best_epoch = state.val["top1"], epoch
    early = config.early_stopping
    if early is not None:
        # Counted so that more is better, whichever it is.
        result = state.val["top1"] if early.metric == "top1" else -state.val["loss"]
        if state.improved_to is None or result > state.improved_to + early.min_delta:
            state.improved_to, state.improved_epoch = result, epoch
        elif epoch - state.improved_epoch >= early.patience_epochs:
            state.stopped_early = epoch < config.epochs
    return is_best
