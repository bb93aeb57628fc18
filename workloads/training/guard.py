"""Deciding at each step whether its gradients may reach the weights."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workloads.training.divergence import explain_divergence
from workloads.training.run import Run

_MOST_OVERFLOWS = 40
"""Steps in a row that fp16's loss scale may take to fall; it begins 2^24 at most."""


@dataclass(frozen=True)
class Judgement:
    """What the gradients of a step came to.

    Attributes:
        norm: Their L2 norm, on their device; None where nothing needs it.
        may_step: Whether the optimizer is to be called.
    """

    norm: Tensor | None
    may_step: bool


class FiniteGuard:
    """Judges gradients after they were averaged over ranks, so all ranks see and do the same.

    A gradient is bad if a number in it is not finite; with clipping also if its norm, which is then
    divided by, is too large to be worked out.

    A NaN or infinite loss makes the gradients NaN, and a matrix root can make them so from a
    finite loss. Such an update never reaches the weights, and nothing comes out of the process
    that was computed after it:

    - Where the step is judged at once, the training stops, or the update is left out, together
      with what the step did to running statistics. That is so on a CPU, and on a GPU where updates
      may be left out (fp16, or `non_finite.action: skip`).
    - Elsewhere reading what was found at each step would wait for the GPU. The flag stays
      there, and the optimizer's kernels leave out all updates from the first bad step on; the flag
      is read by `confirm` before anything is logged or saved.

    Args:
        run: Its trainable weights stay the same while the guard is used.
        at_once: Whether each step is judged before the next; None decides as above.
    """

    def __init__(self, run: Run, *, at_once: bool | None = None) -> None:
        config = run.config
        self._run = run
        self._parameters = [p for p in run.model.parameters() if p.requires_grad]
        self._skips = config.non_finite.action == "skip"
        self._may_leave_out = self._skips or config.compute.precision == "fp16"
        if at_once is None:
            kernels_can = getattr(run.optimizer, "_step_supports_amp_scaling", False)
            on_gpu = run.context.device.type == "cuda"
            at_once = self._may_leave_out or not (on_gpu and kernels_can)
        self._at_once = at_once
        self._first_bad = torch.zeros((), dtype=torch.int64, device=run.context.device)
        self._found_bad = torch.zeros((), device=run.context.device)  # nothing but us sets it to 0
        self._one = torch.ones((), device=run.context.device)
        buffers = list(run.model.buffers()) if self._may_leave_out else []
        self._buffers = [buffer for buffer in buffers if buffer.numel()]
        self._kept = [buffer.clone() for buffer in self._buffers]

    def before_step(self) -> None:
        """Note the running statistics, to bring them back if the update is left out."""
        if self._kept:
            torch._foreach_copy_(self._kept, self._buffers)

    def judge(self) -> Judgement:
        """Look at the gradients of the step under way, at their own scale.

        Raises:
            DivergedError: They are not finite, and the config does not pass over it.
        """
        run, step = self._run, self._run.state.global_step + 1
        clips = run.config.clip_norm is not None
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = None
        if clips or run.config.logs_step(step):
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if clips and norm is not None:
            # Clipping divides by the norm, whose squares overflow before the gradients do.
            self._found_bad.logical_or_(~norm.isfinite())  # kernels take 1 for a bad step, not 2
        else:
            # The kernel of torch's gradient scaler, one pass; the scale 1 changes nothing.
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, self._found_bad, self._one)
        if not self._at_once:
            fresh = (self._found_bad > 0) & (self._first_bad == 0)
            self._first_bad = torch.where(fresh, step, self._first_bad)
            optimizer: Any = run.optimizer
            optimizer.found_inf = self._found_bad
            return Judgement(norm, may_step=True)
        if not self._found_bad.item():
            return Judgement(norm, may_step=True)
        self._found_bad.zero_()
        self._allow_to_leave_out(step)
        if self._kept:
            torch._foreach_copy_(self._buffers, self._kept)
        return Judgement(norm, may_step=False)

    def confirm(self) -> None:
        """Raise DivergedError if a step since the last call was bad."""
        if not self._at_once and (step := int(self._first_bad)):
            raise explain_divergence(self._run, step, gradients_at_hand=False)

    def _allow_to_leave_out(self, step: int) -> None:
        """Raise DivergedError unless this step's update may be left out."""
        run, in_row = self._run, self._run.state.skipped_in_row + 1
        if run.loss_scale.can_fall and in_row < _MOST_OVERFLOWS:
            return
        reason = ""
        if self._skips:
            if in_row <= run.config.non_finite.max_skipped:
                run.say(f"warning: step {step} is left out: its gradient is not finite")
                return
            reason = f"{in_row - 1} steps in a row were left out; "
        raise explain_divergence(run, step, reason=reason, gradients_at_hand=True)


def check_finite_loss(run: Run, loss: float, *, step: int) -> float:
    """Return a loss that all ranks share, or raise DivergedError."""
    if not math.isfinite(loss):
        raise explain_divergence(run, step, gradients_at_hand=False)
    return loss
