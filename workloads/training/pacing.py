"""When ranks agree to stop, and when a person hears how far it is. Changes no numbers."""

import math
import time

from workloads.training.run import Run
from workloads.worker import distributed
from workloads.worker.records import Progress

AGREE_EVERY_S = 0.5
REPORT_EVERY_S = 0.5
MAX_STRIDE = 256


class StopAgreement:
    """Rank 0 hears the wish to stop; all ranks leave at the same step.

    Ranks meet every few steps, counted in steps, because clocks differ. At each meeting rank 0
    says how many steps to the next, so that meetings are about half a second apart whatever a step
    takes. Alone there is nobody to meet, and each step looks.

    Attributes:
        met: Whether the ranks met at the newest look.
    """

    def __init__(self, run: Run) -> None:
        self._context = run.context
        self._alone = run.context.world_size == 1
        self._steps_left = self._stride = 1
        self._met_s = time.perf_counter()
        self.met = False

    def reached(self) -> bool:
        """Whether to stop now, the same on every rank; called once after each step."""
        if self._alone:
            self.met = True
            return self._context.should_stop()
        self._steps_left -= 1
        self.met = self._steps_left == 0
        if not self.met:
            return False
        now_s = time.perf_counter()
        step_s = max(now_s - self._met_s, 1e-6) / self._stride
        wanted = min(max(math.floor(AGREE_EVERY_S / step_s), 1), MAX_STRIDE)
        stop, stride = distributed.broadcast_values([self._context.should_stop(), wanted])
        self._steps_left = self._stride = int(stride)
        self._met_s = time.perf_counter()
        return stop != 0.0


class Reporter:
    """Tells rank 0's context how far training is, without a look at the device in between."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._active = run.context.rank == 0
        self._reported_s = float("-inf")
        self._start_s = time.perf_counter()
        self._start_step = run.state.global_step
        self.loss: float | None = None

    def after_step(self) -> None:
        """Report the first step at once and later ones about twice a second."""
        if self._active and (now_s := time.perf_counter()) - self._reported_s >= REPORT_EVERY_S:
            self._reported_s = now_s
            self.report("train")

    def report(self, phase: str) -> None:
        """Report now."""
        run, state = self._run, self._run.state
        in_epoch = phase in ("train", "validate")
        steps = state.global_step - self._start_step
        step_s = (time.perf_counter() - self._start_s) / steps if steps else None
        run.context.report_progress(
            Progress(
                phase=phase,
                epoch=min(state.epoch + in_epoch, run.config.epochs),
                epochs=run.config.epochs,
                step=state.step_in_epoch,
                steps_per_epoch=run.steps_per_epoch,
                global_step=state.global_step,
                total_steps=run.total_steps,
                loss=self.loss,
                images_per_s=run.config.global_batch_size / step_s if step_s else None,
                eta_s=(run.total_steps - state.global_step) * step_s if step_s else None,
                val_top1=state.val.get("top1"),
                best_top1=state.best_top1,
            )
        )
