"""What an evaluation came to: the figures that are reported, and what they were made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from workloads.config.evaluate import EvalConfig
from workloads.evaluation.metrics import Calibration, PerClass
from workloads.evaluation.outcomes import Outcomes

_FIGURES = ("top1", "top5", "loss", "ece", "mce", "brier", "mean_class_recall")


@dataclass(frozen=True)
class EvalResult:
    """The figures of an evaluation; equal to the last bit for any number of workers.

    Attributes:
        top1: Percent of the images whose likeliest class is right.
        top5: Percent of the images whose class is among the five likeliest.
        loss: Mean cross entropy (negative log likelihood), in nats.
        ece: Expected calibration error, from 0 to 1, see `workloads.evaluation.metrics`.
        mce: Maximum calibration error, from 0 to 1.
        brier: Mean over images of the sum over classes of (probability - truth)^2, from 0 to 2.
        mean_class_recall: Mean of the classes' accuracies, in percent.
        num_images: Images of the split, each counted once.
        non_finite_images: Images with a NaN or an infinity among their logits: counted as wrong,
            and left out of the calibration.
        skipped_images: Bad images that were left out of the data.
        network: One line for people.
        weights_sha256: Digest of the weights, as a training reports it.
        data_digest: Digest of what identifies the data.
        notes: What a reader of the figures should know.
        config: What was asked for.
    """

    top1: float
    top5: float
    loss: float
    ece: float
    mce: float
    brier: float
    mean_class_recall: float
    num_images: int
    num_classes: int
    non_finite_images: int
    skipped_images: int
    network: str
    weights_sha256: str
    data_digest: str
    notes: tuple[str, ...]
    config: EvalConfig

    def metrics(self) -> dict[str, float]:
        """Return the figures that are numbers, by their names."""
        values = {name: float(getattr(self, name)) for name in _FIGURES}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON has it; figures that are no numbers are null."""
        finite = self.metrics()
        return {
            **{name: finite.get(name) for name in _FIGURES},
            "num_images": self.num_images,
            "num_classes": self.num_classes,
            "non_finite_images": self.non_finite_images,
            "skipped_images": self.skipped_images,
            "network": self.network,
            "origin": self.config.origin or self.config.weights,
            "weights_sha256": self.weights_sha256,
            "data_digest": self.data_digest,
            "notes": list(self.notes),
            "config": self.config.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Evaluation:
    """The result and everything that tables and pictures are drawn from.

    Attributes:
        classes: Names of the data's classes, (K,).
        names: What to call each image, (N,).
        confusions: Images of each true class (row) taken for each class, (K, K) int64.
    """

    result: EvalResult
    outcomes: Outcomes
    classes: Sequence[str]
    names: Sequence[str]
    per_class: PerClass
    confusions: NDArray[Any]
    calibration: Calibration
