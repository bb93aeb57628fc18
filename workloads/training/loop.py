"""The training of one network, from the seed to the result."""

import itertools
import time
from typing import Any

import torch
from torch import Tensor, nn

from workloads.config.optim import StepConfig
from workloads.config.train import TrainConfig
from workloads.data.loaders import train_batches
from workloads.evaluation.classification import evaluate
from workloads.training.guard import FiniteGuard, check_finite_loss
from workloads.training.observables import observe_pooling
from workloads.training.optim import set_learning_rate
from workloads.training.pacing import Reporter, StopAgreement
from workloads.training.run import (
    Run,
    build_run,
    digest_weights,
    settle_buckets,
    wrap_for_ranks,
)
from workloads.training.schedules import learning_rate
from workloads.training.snapshot import refuse_another_job, restore, restore_rank, take_snapshot
from workloads.worker import distributed
from workloads.worker.context import WorkerContext
from workloads.worker.records import TrainResult

__all__ = ["TrainResult", "train"]


def train(config: TrainConfig, context: WorkerContext) -> TrainResult:
    """Train, validate and save until the last epoch or until asked to stop.

    Called alike on every rank. Two runs with equal configs on equal machines give equal weights
    to the last bit, however often either was interrupted.

    Args:
        config: What to train.
        context: Which worker this is, and its way to the outside.

    Returns:
        What the training came to, which went to `context.finish` too.

    Raises:
        ConfigError: The global batch does not divide by the workers.
        DataError: The images are missing or broken, or differ between ranks.
        CheckpointError: The checkpoint is of another network or other classes.
        DivergedError: The loss or a gradient is not finite.
    """
    run = build_run(config, context)
    _describe(run)
    saved = context.load_checkpoint()
    run.network = wrap_for_ranks(run.model, context)
    if saved is not None:
        refuse_another_job(run, saved)
        settle_buckets(run)
        restore(run, saved)
        restore_rank(run, saved)
        run.say(f"resumed at epoch {run.state.epoch + 1}, step {run.state.global_step}")
    reporter, stop = Reporter(run), StopAgreement(run)

    while run.state.epoch < config.epochs:
        if _train_epoch(run, reporter, stop):
            _save(run, is_best=False)
            return _finish(run, reporter, stopped=True)
        reporter.report("validate")
        _validate(run)
        is_best = _close_epoch(run)
        _save(run, is_best=is_best)
        if stop.reached() and run.state.epoch < config.epochs:
            return _finish(run, reporter, stopped=True)
    return _finish(run, reporter, stopped=False)


def _train_epoch(run: Run, reporter: Reporter, stop: StopAgreement) -> bool:
    """Train the rest of the epoch under way; return whether it was left to stop.

    A wish to stop during its last step is taken up after the validation.
    """
    config, state, device = run.config, run.state, run.context.device
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    guard = FiniteGuard(run.model, device)
    every = config.checkpoint.every_steps
    run.network.train()
    seconds_before, start_s = run.meters.seconds, time.perf_counter()
    for images, labels in _epoch_batches(run):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        run.lr = learning_rate(config, run.steps_per_epoch, state.global_step)
        set_learning_rate(run.optimizer, run.lr)
        logits = run.network(images)
        loss = criterion(logits, labels)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        guard.check(images, step=state.global_step + 1, lr=run.lr)
        run.optimizer.step()

        run.meters.update(loss, logits, labels)
        state.global_step += 1
        state.step_in_epoch += 1
        if state.global_step % config.log_every_steps == 0:
            guard.confirm(run.lr)
            reporter.loss = _log_step(run, loss)
        reporter.after_step()
        if state.step_in_epoch < run.steps_per_epoch:
            run.meters.seconds = seconds_before + time.perf_counter() - start_s
            stopped = stop.reached()
            if stopped or (every and state.global_step % every == 0):
                guard.confirm(run.lr)
            if stopped:
                return True
            if every and state.global_step % every == 0:
                _save(run, is_best=False)
    run.meters.seconds = seconds_before + time.perf_counter() - start_s
    guard.confirm(run.lr)
    return False


def _epoch_batches(run: Run) -> Any:
    batches = train_batches(
        run.data.train,
        seed=run.config.seed,
        epoch=run.state.epoch,
        start_step=run.state.step_in_epoch,
        batch_size_per_worker=run.batch_size,
        rank=run.context.rank,
        world_size=run.context.world_size,
        loader_workers=run.loader_workers,
        pin_memory=run.context.device.type == "cuda",
    )
    return itertools.islice(batches, run.steps_per_epoch - run.state.step_in_epoch)


def _log_step(run: Run, loss: Tensor) -> float:
    """Log the step's loss and what the pooling shows, as means over ranks; return the loss."""
    own = {"train/step_loss": loss.detach(), **observe_pooling(run.model)}
    values = torch.stack([value.double() for value in own.values()]).tolist()  # waits once
    sums = distributed.all_reduce_sum(values)
    means = {name: total / run.context.world_size for name, total in zip(own, sums, strict=True)}
    step = run.state.global_step
    check_finite_loss(means["train/step_loss"], step=step, lr=run.lr)
    run.context.log_metrics(step, means, at=step)
    return means["train/step_loss"]


def _validate(run: Run) -> None:
    """Judge the model as rank 0 has it, each image once over all ranks."""
    distributed.broadcast_buffers(run.model)
    result = evaluate(
        run.model,
        run.data.val,
        device=run.context.device,
        batch_size=run.batch_size,
        rank=run.context.rank,
        world_size=run.context.world_size,
        loader_workers=run.loader_workers,
    )
    run.state.val = {
        "loss": result.loss,
        "top1": result.top1,
        "top5": result.top5,
        "num_images": result.num_images,
    }


def _close_epoch(run: Run) -> bool:
    """Record the epoch's metrics and begin the next; return whether it was the best so far."""
    config, state = run.config, run.state
    loss_sum, correct, count, seconds = distributed.all_reduce_sum(run.meters.values())
    seconds /= run.context.world_size
    loss = check_finite_loss(loss_sum / count, step=state.global_step, lr=run.lr)
    val, epoch = state.val, state.epoch + 1
    is_best = state.best_top1 is None or val["top1"] > state.best_top1
    if is_best:
        state.best_top1, state.best_epoch = val["top1"], epoch
    metrics = {
        "train/loss": loss,
        "train/top1": 100.0 * correct / count,
        "val/loss": val["loss"],
        "val/top1": val["top1"],
        "val/top5": val["top5"],
        "optim/lr": run.lr,
        "perf/images_per_s": count / seconds if seconds > 0 else 0.0,
        "time/epoch_s": seconds,
        "progress/epoch": float(epoch),
        "progress/samples": float(state.global_step * config.global_batch_size),
    }
    run.context.log_metrics(epoch, metrics, at=state.global_step)
    run.say(
        f"epoch {epoch}/{config.epochs}  loss {loss:.3f}  val top-1 {val['top1']:.2f} %  "
        f"{metrics['perf/images_per_s']:.0f} images/s"
    )
    state.epoch, state.step_in_epoch = epoch, 0
    run.meters.reset()
    return is_best


def _save(run: Run, *, is_best: bool) -> None:
    """Save on rank 0; nobody trains on before it is safe."""
    snapshot = take_snapshot(run)
    run.context.save_checkpoint(snapshot, step=run.state.global_step, is_best=is_best)
    distributed.barrier()


def _finish(run: Run, reporter: Reporter, *, stopped: bool) -> TrainResult:
    state = run.state
    distributed.broadcast_buffers(run.model)  # in mid-epoch the ranks' statistics differ
    result = TrainResult(
        epochs=state.epoch,
        global_step=state.global_step,
        stopped=stopped,
        best_top1=state.best_top1,
        best_epoch=state.best_epoch,
        val_top1=state.val.get("top1"),
        val_top5=state.val.get("top5"),
        val_loss=state.val.get("loss"),
        num_val_images=len(run.data.val),
        weights_sha256=digest_weights(run.model),
        skipped_images=len(run.data.skipped),
    )
    run.context.finish(result)
    reporter.report("stopped" if stopped else "finished")
    if stopped:
        run.say(f"stopped in epoch {state.epoch + 1} at step {state.global_step}; it is saved")
    else:
        run.say(f"finished: best val top-1 {state.best_top1:.2f} % in epoch {state.best_epoch}")
    return result


def _describe(run: Run) -> None:
    weights = sum(parameter.numel() for parameter in run.model.parameters())
    run.say(
        f"training {weights:,} weights on {len(run.data.train):,} images of "
        f"{run.data.num_classes} classes, {run.config.epochs} epochs of {run.steps_per_epoch} "
        f"steps; {run.context.world_size} worker(s) of {run.batch_size} images, "
        f"{run.context.device.type}"
    )
    for setting in run.config.model.settings_without_effect():
        run.say(f"warning: without effect is {setting}")
    if run.data.skipped:
        run.say(f"warning: {len(run.data.skipped)} bad images were left out")
    schedule = run.config.schedule
    if isinstance(schedule, StepConfig) and schedule.milestones[0] >= run.config.epochs:
        run.say(
            f"warning: no milestone of the schedule comes before the end: the first is "
            f"{schedule.milestones[0]}, of {run.config.epochs} epochs"
        )
