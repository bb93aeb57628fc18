"""The points of the curves over steps: taken where they arise, averaged over ranks together."""

import torch
from torch import Tensor

from workloads.training.guard import check_finite_loss
from workloads.training.observables import observe_pooling
from workloads.training.pacing import Reporter
from workloads.training.run import Run
from workloads.training.state import read_scalars
from workloads.training.step import StepResult
from workloads.worker import distributed


class StepLog:
    """Keeps what logged steps show until the ranks meet, which costs less than to meet each time.

    Args:
        run: What is trained; its config says which steps are logged.
        reporter: Is told the newest loss.
    """

    def __init__(self, run: Run, reporter: Reporter) -> None:
        self._run = run
        self._reporter = reporter
        self._names: list[str] = []
        self._rows: list[Tensor] = []
        self._steps: list[int] = []

    @property
    def is_waiting(self) -> bool:
        """Whether something is kept; the same on every rank."""
        return bool(self._rows)

    def note(self, step: StepResult) -> None:
        """Keep the step just taken if it is to be logged; of one left out there is nothing to show.

        The values stay on their device.
        """
        run = self._run
        if not step.taken or not run.config.logs_step(run.state.global_step):
            return
        assert step.grad_norm is not None
        pooling = {} if run.pooling is None else observe_pooling(run.pooling)
        values = {"train/step_loss": step.loss, "optim/grad_norm": step.grad_norm, **pooling}
        for name, value in run.loss_scale.metrics().items():
            values[name] = torch.full_like(step.loss, value)
        self._names = list(values)
        self._rows += values.values()
        self._steps.append(run.state.global_step)

    def flush(self) -> None:
        """Log what is kept, as means over ranks; every rank calls it.

        Raises:
            DivergedError: A loss is not finite.
        """
        if not self._rows:
            return
        run, width = self._run, len(self._names)
        sums = distributed.all_reduce_sum(read_scalars(self._rows))
        means = [total / run.context.world_size for total in sums]
        for number, step in enumerate(self._steps):
            row = dict(zip(self._names, means[number * width :], strict=False))
            self._reporter.loss = check_finite_loss(run, row["train/step_loss"], step=step)
            run.context.log_metrics(step, row, at=step)
        self._rows.clear()
        self._steps.clear()
