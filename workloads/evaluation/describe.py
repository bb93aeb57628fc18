"""The verb `describe` of ``python -m workloads.evaluation``: what a checkpoint of ours says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workloads.evaluation.opening import open_network


def describe_weights(request: Mapping[str, Any]) -> dict[str, Any]:
    """Say what an evaluation of weights begins with.

    Args:
        request: `weights`, the path of a checkpoint's folder, a job's folder or a file.

    Returns:
        `network`, a line for people; `model` and, or null, `images` as documents; `in_channels`,
        `num_classes` and, or null, `classes`.

    Raises:
        CheckpointError: See `workloads.evaluation.opening.open_network`, for others as well.
    """
    opened = open_network(Path(request["weights"]))
    return {
        "network": opened.description,
        "model": opened.config.model_dump(mode="json"),
        "images": None if opened.images is None else opened.images.model_dump(mode="json"),
        "in_channels": opened.in_channels,
        "num_classes": opened.num_outputs,
        "classes": None if opened.classes is None else list(opened.classes),
    }
