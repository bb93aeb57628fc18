"""The training of one network, from the seed to the result."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from workloads.config.rates import learning_rate
from workloads.config.schedule import StepConfig
from workloads.config.train import TrainConfig
from workloads.data.loaders import train_batches
from workloads.models.weights.digest import digest_weights
from workloads.training.cost import count_network
from workloads.training.ema import WeightAverage
from workloads.training.feature_cache import use_cached_features
from workloads.training.guard import FiniteGuard, check_finite_loss
from workloads.training.init import load_initial_weights
from workloads.training.network import prepare_network
from workloads.training.pacing import Reporter, StopAgreement
from workloads.training.run import Run, build_run
from workloads.training.snapshot import refuse_another_job, restore, restore_rank, take_snapshot
from workloads.training.step import take_step
from workloads.training.step_log import StepLog
from workloads.training.stopping import is_judged, note_validation
from workloads.training.validation import validate
from workloads.worker import distributed
from workloads.worker.context import WorkerContext
from workloads.worker.records import TrainResult

__all__ = ["TrainResult", "train"]

_MUCH_OF_THE_BEGINNING = 0.1
"""Share of the first weights in a moving average at the end that is worth a warning."""


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
        ConfigError: The global batch cannot be shared out, the weights to begin with do not fit,
            or the network cannot be compiled.
        DataError: The images are missing or broken, or differ between ranks.
        CheckpointError: The checkpoint is of another network or other classes.
        DivergedError: The loss or a gradient is not finite.
    """
    run = build_run(config, context)
    try:
        return _train(run)
    finally:
        run.train_loader.close()
        run.val_loader.close()


def _train(run: Run) -> TrainResult:
    config, context = run.config, run.context
    _describe(run)
    saved = context.load_checkpoint()
    if saved is None:
        _begin(run)
    else:
        _resume(run, saved)
    state = run.state
    reporter, stop = Reporter(run), StopAgreement(run)

    while state.epoch < config.epochs and not state.stopped_early:
        if _train_epoch(run, reporter, stop):
            _save(run, is_best=False)
            return _finish(run, reporter, stopped=True)
        is_best = _judge_epoch(run, reporter)
        is_last = state.epoch == config.epochs or state.stopped_early
        stops = not is_last and stop.reached()
        if is_last or stops or is_best or state.epoch % config.checkpoint.every_epochs == 0:
            _save(run, is_best=is_best, score=_score(run))
        if stops:
            return _finish(run, reporter, stopped=True)
    return _finish(run, reporter, stopped=False)


def _begin(run: Run) -> None:
    """Take the first weights from where the config says, if it does."""
    config = run.config
    if config.init is not None:
        run.say(load_initial_weights(run.model, config.init, classes=list(run.data.classes)))
        if config.ema is not None:
            run.average = WeightAverage(run.model, config.ema)
    use_cached_features(run)
    prepare_network(run)


def _resume(run: Run, saved: dict[str, Any]) -> None:
    """Go on exactly where a checkpoint was taken."""
    refuse_another_job(run, saved)
    restore(run, saved)
    use_cached_features(run)
    prepare_network(run)
    restore_rank(run, saved)
    run.say(f"resumed at epoch {run.state.epoch + 1}, step {run.state.global_step}")


def _train_epoch(run: Run, reporter: Reporter, stop: StopAgreement) -> bool:
    """Train the rest of the epoch under way; return whether it was left to stop.

    A wish to stop during its last step is taken up after the validation.
    """
    state, every = run.state, run.config.checkpoint.every_steps
    prepare_network(run)
    guard, log = FiniteGuard(run), StepLog(run, reporter)
    seconds_before, start_s = run.meters.seconds, time.perf_counter()
    for images, labels in _epoch_batches(run):
        log.note(take_step(run, guard, images, labels))
        run.meters.seconds = seconds_before + time.perf_counter() - start_s
        is_last = state.step_in_epoch == run.steps_per_epoch
        stopped = not is_last and stop.reached()
        saves = not is_last and every is not None and state.global_step % every == 0
        if stopped or saves or is_last or (stop.met and log.is_waiting):
            guard.confirm()
            log.flush()
        reporter.after_step()
        if stopped:
            return True
        if saves:
            _save(run, is_best=False)
    return False


def _epoch_batches(run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    batches = train_batches(
        run.train_loader,
        seed=run.config.seed,
        epoch=run.state.epoch,
        start_step=run.state.step_in_epoch,
        batch_size_per_worker=run.batch_size,
        rank=run.context.rank,
        world_size=run.context.world_size,
    )
    return itertools.islice(batches, run.steps_per_epoch - run.state.step_in_epoch)


def _judge_epoch(run: Run, reporter: Reporter) -> bool:
    """Validate where it is due, record the epoch and begin the next; return whether it is best."""
    config, state = run.config, run.state
    epoch = state.epoch + 1
    judged = is_judged(config, epoch)
    is_best = False
    start_s = time.perf_counter()
    if judged:
        reporter.report("validate")
        state.val = validate(run)
        is_best = note_validation(config, state, epoch)
    loss_sum, correct, count, seconds = distributed.all_reduce_sum(run.meters.values())
    seconds /= run.context.world_size
    state.train_seconds += seconds + time.perf_counter() - start_s
    images_per_s = run.steps_per_epoch * config.global_batch_size / seconds if seconds > 0 else 0.0
    metrics = {
        **(
            {"train/loss": loss_sum / count, "train/top1": 100.0 * correct / count} if count else {}
        ),
        **({f"val/{k}": v for k, v in state.val.items() if k != "num_images"} if judged else {}),
        "optim/lr": run.lr,
        "perf/images_per_s": images_per_s,
        "time/epoch_s": seconds,
        "time/train_s": state.train_seconds,
        **run.peak_memory.metrics(),
        **_network_cost(run),
        "progress/epoch": float(epoch),
        "progress/samples": float(state.global_step * config.global_batch_size),
    }
    if config.non_finite.action == "skip" or config.compute.precision == "fp16":
        metrics["train/skipped_steps"] = float(state.skipped_steps)
    check_finite_loss(run, metrics.get("train/loss", 0.0), step=state.global_step)
    run.context.log_metrics(epoch, metrics, at=state.global_step)
    shown = f"  val top-1 {state.val['top1']:.2f} %" if judged else ""
    run.say(
        f"epoch {epoch}/{config.epochs}  loss {metrics.get('train/loss', float('nan')):.3f}{shown}"
        f"  {images_per_s:.0f} images/s"
    )
    state.epoch, state.step_in_epoch = epoch, 0
    run.meters.reset()
    return is_best


def _network_cost(run: Run) -> dict[str, float]:
    """Return what the network has and costs, once and on one rank."""
    if run.state.epoch > 0 or run.context.rank != 0:
        return {}
    size, channels = run.config.images.size, run.data.in_channels
    return count_network(run.model, image_size=size, in_channels=channels)


def _score(run: Run) -> float | None:
    """Return the newest validation's result if it is of the epoch just closed."""
    return run.state.val["top1"] if is_judged(run.config, run.state.epoch) else None


def _save(run: Run, *, is_best: bool, score: float | None = None) -> None:
    snapshot = take_snapshot(run)
    step = run.state.global_step
    run.context.save_checkpoint(snapshot, step=step, is_best=is_best, score=score)


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
        stopped_early=state.stopped_early,
        skipped_steps=state.skipped_steps,
        num_train_images=len(run.data.train),
        num_classes=run.data.num_classes,
        data_digest=run.data.digest,
    )
    run.context.finish(result)
    reporter.report("stopped" if stopped else "finished")
    if stopped:
        run.say(f"stopped in epoch {state.epoch + 1} at step {state.global_step}; it is saved")
    else:
        early = f"no improvement since epoch {state.improved_epoch}, " * state.stopped_early
        run.say(
            f"finished: {early}best val top-1 {state.best_top1:.2f} % in epoch {state.best_epoch}"
        )
    return result


def _describe(run: Run) -> None:
    weights = sum(parameter.numel() for parameter in run.model.parameters())
    parts = f" in {run.num_parts} parts" if run.num_parts > 1 else ""
    run.say(
        f"training {weights:,} weights on {len(run.data.train):,} images of "
        f"{run.data.num_classes} classes, {run.config.epochs} epochs of {run.steps_per_epoch} "
        f"steps; {run.context.world_size} worker(s) of {run.batch_size} images{parts}, "
        f"{run.context.device.type}"
    )
    if held := run.freezer.describe():
        run.say(held)
    for setting in run.config.model.settings_without_effect():
        run.say(f"warning: without effect is {setting}")
    if run.data.skipped:
        run.say(f"warning: {len(run.data.skipped)} bad images were left out")
    for warning in _settings_that_waste(run):
        run.say(f"warning: {warning}")


def _settings_that_waste(run: Run) -> Iterator[str]:
    """Yield what is allowed but leaves steps, or what is judged, without effect."""
    config, schedule = run.config, run.config.schedule
    if isinstance(schedule, StepConfig) and schedule.milestones[0] >= config.epochs:
        yield (
            f"no milestone of the schedule comes before the end: the first is "
            f"{schedule.milestones[0]}, of {config.epochs} epochs"
        )
    moving = config.epochs
    while (
        moving
        and learning_rate(config, run.steps_per_epoch, (moving - 1) * run.steps_per_epoch) == 0
    ):
        moving -= 1
    if moving < config.epochs:
        yield (
            f"the learning rate is 0 after epoch {moving}: the last {config.epochs - moving} of "
            f"{config.epochs} epochs move no weight"
        )
    late = [step.from_epoch for step in config.progressive if step.from_epoch >= config.epochs]
    if late:
        yield f"progressive: nothing begins at epoch {late[0]}, the training ends before it"
    thaw = config.freeze.until_epoch if config.freeze is not None else None
    if thaw is not None and thaw >= config.epochs:
        yield f"freeze.until_epoch {thaw}: the training ends before the frozen parts may move"
    if config.ema is not None and not config.ema.warmup:
        left = config.ema.decay ** (run.total_steps // config.ema.every_steps)
        if left > _MUCH_OF_THE_BEGINNING:
            yield (
                f"at the end {100.0 * left:.0f} % of the moving average, which is judged, are the "
                f"first weights; choose ema.warmup=true or an ema.decay below {config.ema.decay:g}"
            )
