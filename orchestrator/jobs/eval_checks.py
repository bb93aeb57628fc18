"""What an evaluation needs beside its config, looked at before anything is recorded.

To be asked only where the cluster is this machine; another one may see other folders. What takes
longer, or torch, the workers check before they judge an image.
"""

from pathlib import Path

from orchestrator.jobs.checkpoints import ResolvedCheckpoint
from orchestrator.jobs.plan_eval import EvalPlan, KnownNetwork
from orchestrator.jobs.source_checks import CHECKS, check_image_folder, is_in_a_store
from workloads.config.data import ImageFolderConfig
from workloads.config.evaluate import EvalConfig
from workloads.data.class_names import class_names
from workloads.evaluation.class_match import refuse_other_classes
from workloads.worker.failures import CheckpointError
from workloads.worker.manifest import DamagedError, read_manifest


def check_evaluation(plan: EvalPlan, checkpoint: ResolvedCheckpoint, network: KnownNetwork) -> None:
    """Meet images that are missing or broken, and classes that are not the network's.

    Raises:
        DataError: The images are missing or not laid out as they must be.
        EvaluationError: The network's outputs stand for other classes, or for these in another
            order.
    """
    config = plan.config
    if is_in_a_store(config.data):
        return
    if isinstance(config.data, ImageFolderConfig):
        check_image_folder(config.data, config.split)  # the other split need not be there
    else:
        CHECKS[config.data.name](config.data)
    _check_classes(config, checkpoint, network)


def _check_classes(
    config: EvalConfig, checkpoint: ResolvedCheckpoint, network: KnownNetwork
) -> None:
    """Say what the workers would say, in the same words, where both sides can be told now."""
    known = network.classes
    if known is None and not checkpoint.is_pending and not checkpoint.is_remote:
        known = _classes_of_checkpoint(Path(checkpoint.weights))
    num_outputs = len(known) if known is not None else network.num_classes
    there = class_names(config.data, config.split)
    if num_outputs is None or there is None:
        return
    refuse_other_classes(
        there,
        num_outputs=num_outputs,
        names=config.classes or known,
        origin="classes=[...]" if config.classes else "the weights' training",
    )


def _classes_of_checkpoint(folder: Path) -> tuple[str, ...] | None:
    """Return the classes that the manifest of a checkpoint of ours tells, if it does."""
    try:
        return read_manifest(folder).classes
    except (DamagedError, CheckpointError, OSError):
        return None  # a file of weights, or for the workers to explain
