"""What a worker of an evaluation job calls."""

from pathlib import Path

from workloads.config.evaluate import EvalConfig
from workloads.evaluation.full import EvalContext, evaluate_in_full
from workloads.evaluation.plots import write_pictures
from workloads.evaluation.result import EvalResult
from workloads.evaluation.tables import write_tables
from workloads.worker.lines import say
from workloads.worker.records import Progress


def run_evaluation(config: EvalConfig, context: EvalContext, folder: Path) -> EvalResult | None:
    """Evaluate on all ranks; rank 0 writes tables and pictures into `folder`.

    The files are the same, byte for byte, for any number of workers: ``metrics.json``,
    ``per_class.csv``, ``confusion_matrix.csv`` and ``.png``, ``most_confused.csv``,
    ``calibration.png`` and ``predictions.parquet``.

    Args:
        config: What to evaluate.
        context: This worker; with several the process group is initialised.
        folder: Made if it is not there; only rank 0 needs to see it.

    Returns:
        None where somebody asked to stop; then nothing is written.

    Raises:
        EvaluationError: Weights and data do not belong together; nothing is written. For others
            see `workloads.evaluation.full.evaluate_in_full`.
    """
    evaluation = evaluate_in_full(config, context)
    if evaluation is None:
        return None
    result = evaluation.result
    if context.rank == 0:
        write_tables(evaluation, folder)
        write_pictures(evaluation, folder)
        say(
            f"top-1 {result.top1:.3f} %, top-5 {result.top5:.3f} %, loss {result.loss:.4f}, "
            f"ECE {result.ece:.4f} over {result.num_images:,} images; written to {folder}"
        )
    context.report_progress(
        Progress(
            phase="finished",
            epoch=1,
            epochs=1,
            step=1,
            steps_per_epoch=1,
            global_step=1,
            total_steps=1,
            val_top1=result.top1,
        )
    )
    return result
