"""One optimizer step, from a batch of bytes to moved weights."""

from dataclasses import dataclass

from torch import Tensor, nn

from workloads.config.rates import learning_rate
from workloads.training.accumulation import accumulate_gradients
from workloads.training.guard import FiniteGuard
from workloads.training.optim import set_learning_rate
from workloads.training.run import Run


@dataclass(frozen=True)
class StepResult:
    """What a step came to; the tensors stay on their device.

    Attributes:
        loss: Mean over this worker's images.
        grad_norm: L2 norm of all gradients, averaged over ranks, before clipping; None where the
            step is neither logged nor clipped.
        taken: Whether the weights were updated.
    """

    loss: Tensor
    grad_norm: Tensor | None
    taken: bool


def take_step(run: Run, guard: FiniteGuard, images: Tensor, labels: Tensor) -> StepResult:
    """Train on one batch and count it.

    Args:
        run: What is trained.
        guard: Watches this run.
        images: This worker's share of the global batch, bytes (B, C, S, S).
        labels: Classes (B,).

    Raises:
        DivergedError: The loss or a gradient is not finite.
    """
    config, state, optimizer = run.config, run.state, run.optimizer
    run.lr = learning_rate(config, run.steps_per_epoch, state.global_step)
    set_learning_rate(optimizer, run.lr)
    guard.before_step()
    batch = accumulate_gradients(run, images, labels)

    run.loss_scale.unscale(optimizer)
    judged = guard.judge()
    if judged.may_step:
        if config.clip_norm is not None:
            assert judged.norm is not None
            limit, norm = config.clip_norm, judged.norm
            nn.utils.clip_grads_with_norm_(run.trainable, limit, norm, foreach=True)
        run.loss_scale.step(optimizer)
        run.meters.update(batch.loss, batch.correct, len(labels))
    run.loss_scale.update()
    state.count_step(taken=judged.may_step)

    if run.average is not None and config.ema is not None:
        updates, rest = divmod(state.global_step, config.ema.every_steps)
        if rest == 0:
            run.average.update(run.model, updates)
    return StepResult(batch.loss, judged.norm, judged.may_step)
