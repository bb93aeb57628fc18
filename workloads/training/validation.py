"""Judging a network during its training."""

from workloads.evaluation.classification import (
    ClassificationResult,
    evaluate,
    evaluation_batch_size,
)
from workloads.training.run import Run
from workloads.worker import distributed


def validate(run: Run) -> dict[str, float]:
    """Judge the network as rank 0 has it, each image once over all ranks.

    With a moving average of the weights it is the average that is judged, for it is what one keeps;
    the trained weights' own loss and top-1 stand beside it as `raw_loss` and `raw_top1`.
    """
    raw = _judge(run)
    found = {
        "loss": raw.loss,
        "top1": raw.top1,
        "top5": raw.top5,
        "num_images": raw.num_images,
    }
    if run.average is None:
        return found
    with run.average.applied_to(run.model):
        smooth = _judge(run)
    return {
        **found,
        "loss": smooth.loss,
        "top1": smooth.top1,
        "top5": smooth.top5,
        "raw_loss": raw.loss,
        "raw_top1": raw.top1,
    }


def _judge(run: Run) -> ClassificationResult:
    distributed.broadcast_buffers(run.model)
    most = run.config.compute.max_images_per_worker
    batch_size = evaluation_batch_size(run.config.global_batch_size)
    return evaluate(
        run.model,
        run.val_loader,
        scale=run.data.scale,
        device=run.context.device,
        batch_size=batch_size if most is None else min(batch_size, most),
        rank=run.context.rank,
        world_size=run.context.world_size,
        crops=run.config.validation.crops,
        precision=run.config.compute.precision,
    )
