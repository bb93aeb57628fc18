"""One evaluation from a config to its figures, on all ranks together."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from workloads.config.evaluate import EvalConfig
from workloads.config.train import check_positions
from workloads.data.bundle import EvalData
from workloads.data.sources import build_eval_data
from workloads.evaluation.agreement import build_together
from workloads.evaluation.class_match import refuse_other_classes
from workloads.evaluation.class_order import refuse_permuted
from workloads.evaluation.classification import exact_mean, judge_dataset
from workloads.evaluation.errors import EvaluationError
from workloads.evaluation.metrics import calibrate, count_confusions, judge_classes
from workloads.evaluation.opening import Opened, open_network
from workloads.evaluation.outcomes import TOP_K, Outcomes
from workloads.evaluation.result import EvalResult, Evaluation
from workloads.worker import distributed
from workloads.worker.lines import say
from workloads.worker.records import Progress
from workloads.worker.seeding import seed_everything

_PROGRESS_EVERY_S = 1.0
_LOOKS_FOR_STOP = 100
"""How often in an evaluation the ranks agree on whether to go on."""


class EvalContext(Protocol):
    """What an evaluation needs of its worker; see `workloads.worker.context.WorkerContext`."""

    rank: int
    world_size: int
    device: torch.device

    def report_progress(self, progress: Progress) -> None:
        """Show how far it is."""

    def should_stop(self) -> bool:
        """Whether somebody asked to stop, as rank 0 sees it."""


def evaluate_in_full(config: EvalConfig, context: EvalContext) -> Evaluation | None:
    """Judge weights on a split; every rank calls it and gets the same, to the last bit.

    Returns:
        None where somebody asked to stop.

    Raises:
        DataError: The data are missing or broken, or differ between ranks.
        CheckpointError: The checkpoint is missing, damaged or of a newer format.
        WeightsError: The file is missing, damaged, unknown, or does not fit the network.
        EvaluationError: Weights and data do not belong together; nothing is scored.
        ConfigError: The network cannot be told from the weights.
    """
    seed_everything(0)  # for its deterministic kernels: an evaluation draws nothing
    opened, data = build_together(
        lambda peers: _open_both(config, peers),
        _facts,
        rank=context.rank,
        world_size=context.world_size,
    )
    names = config.classes or opened.classes
    refuse_other_classes(
        data.classes,
        num_outputs=opened.num_outputs,
        names=names,
        origin="classes=[...]" if config.classes else "the weights' training",
    )
    notes = _notes(config, opened, data, names is not None)
    if context.rank == 0:
        say(
            f"evaluating {opened.description} on {len(data.labels):,} images of "
            f"{data.num_classes} classes, {context.world_size} worker(s), {context.device.type}"
        )
        for note in notes:
            say(f"note: {note}")
    try:
        outcomes = judge_dataset(
            opened.network.to(context.device),
            data.dataset,
            scale=data.scale,
            device=context.device,
            batch_size=config.batch_size,
            rank=context.rank,
            world_size=context.world_size,
            loader_workers=getattr(config.data, "loader_workers", 0),
            crops=config.crops,
            precision=config.precision,
            before_batch=_watch(context, len(data.labels), config.batch_size),
        )
    except _StopError:
        return None
    if names is None:
        predicted = outcomes.predicted.numpy()
        refuse_permuted(outcomes.labels.numpy(), predicted, data.classes)
    return _conclude(config, opened, data, outcomes, notes)


def _open_both(config: EvalConfig, peers: Any) -> tuple[Opened, EvalData]:
    """Open the weights first: the data may take minutes to look through."""
    opened = open_network(
        Path(config.weights),
        model=config.model,
        average=config.average,
        in_channels=config.data.in_channels,
    )
    try:
        check_positions(opened.config, config.images.size)
    except ValueError as error:
        raise EvaluationError(f"{opened.description}: {error}") from None
    data = build_eval_data(
        config.data, images=config.images, split=config.split, views=config.crops, peers=peers
    )
    if not len(data.labels):
        raise EvaluationError(f"the split {config.split!r} of {config.data.name} has no images")
    return opened, data


def _facts(both: tuple[Opened, EvalData]) -> dict[str, Any]:
    opened, data = both
    return {
        "images": len(data.labels),
        "skipped images": len(data.skipped),
        "classes": data.classes,
        "digest": data.digest,
        "weights": opened.sha256,
    }


def _notes(config: EvalConfig, opened: Opened, data: EvalData, named: bool) -> tuple[str, ...]:
    """Say what a reader of the figures should know."""
    notes = []
    if not named:
        notes.append(
            "the weights do not name their classes; output i is taken for class i of the data"
        )
    if opened.images is not None and opened.images != config.images:
        before, now = opened.images.model_dump(), config.images.model_dump()
        differing = [
            f"{name} {before[name]} in training, {now[name]} here"
            for name in now
            if before[name] != now[name]
        ]
        notes.append(f"images are made otherwise than in the training: {'; '.join(differing)}")
    if data.skipped:
        notes.append(f"{len(data.skipped)} bad images were left out")
    return tuple(notes)


class _StopError(Exception):
    """Somebody asked to stop; every rank leaves at the same batch."""


def _watch(context: EvalContext, num_images: int, batch_size: int) -> Callable[[int], None]:
    """Return what is called before each batch: it shows progress and looks for a stop.

    The ranks ask each other only in rounds in which all of them have a batch.
    """
    num_batches = -(-num_images // batch_size)
    full_rounds = num_batches // context.world_size
    every = max(1, full_rounds // _LOOKS_FOR_STOP)
    start_s = time.monotonic()
    shown_s = float("-inf")

    def before_batch(number: int) -> None:
        nonlocal shown_s
        all_here = number % every == 0 and number < full_rounds
        if all_here and distributed.broadcast_flag(context.should_stop()):
            raise _StopError
        now_s = time.monotonic()
        if now_s - shown_s >= _PROGRESS_EVERY_S:
            shown_s = now_s
            done = number * context.world_size
            context.report_progress(_progress(done, num_batches, batch_size, now_s - start_s))

    return before_batch


def _progress(done: int, num_batches: int, batch_size: int, seconds: float) -> Progress:
    """Return progress in batches, over all ranks."""
    return Progress(
        phase="evaluate",
        epoch=1,
        epochs=1,
        step=done,
        steps_per_epoch=num_batches,
        global_step=done,
        total_steps=num_batches,
        images_per_s=done * batch_size / seconds if done and seconds > 0 else None,
        eta_s=seconds / done * (num_batches - done) if done else None,
    )


def _conclude(
    config: EvalConfig,
    opened: Opened,
    data: EvalData,
    outcomes: Outcomes,
    notes: tuple[str, ...],
) -> Evaluation:
    labels, predicted = outcomes.labels.numpy(), outcomes.predicted.numpy()
    confusions = count_confusions(labels, predicted, data.num_classes)
    per_class = judge_classes(labels, confusions)
    confidence = outcomes.confidence.double().numpy()
    calibration = calibrate(confidence, outcomes.hits(1).numpy(), config.calibration_bins)
    count, lost = len(labels), int(np.count_nonzero(predicted < 0))
    if lost:
        notes = (*notes, f"{lost} images have logits that are not finite; they count as wrong")
    return Evaluation(
        result=EvalResult(
            top1=100.0 * int(outcomes.hits(1).sum()) / count,
            top5=100.0 * int(outcomes.hits(TOP_K).sum()) / count,
            loss=exact_mean(outcomes.loss),
            ece=calibration.ece,
            mce=calibration.mce,
            brier=exact_mean(outcomes.brier),
            mean_class_recall=100.0 * per_class.mean_recall,
            num_images=count,
            num_classes=data.num_classes,
            non_finite_images=lost,
            skipped_images=len(data.skipped),
            network=opened.description,
            weights_sha256=opened.sha256,
            data_digest=data.digest,
            notes=notes,
            config=config,
        ),
        outcomes=outcomes,
        classes=[_as_text(name) for name in data.classes],
        names=[_as_text(name) for name in data.names],
        per_class=per_class,
        confusions=confusions,
        calibration=calibration,
    )


def _as_text(name: str) -> str:
    """Return a name that every file can hold: a file system's bytes need not be text."""
    return name.encode("utf-8", "backslashreplace").decode()
