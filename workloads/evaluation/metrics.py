"""Figures of a classification, from what was said of each image.

Shapes: N images, K classes, M bins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def count_confusions(labels_N: Ints, predicted_N: Ints, num_classes: int) -> Ints:
    """Return how many images of each true class (row) were taken for each class, (K, K) int64.

    Args:
        labels_N: True classes.
        predicted_N: Predicted ones; -1 for an image without a prediction, which counts nowhere.
        num_classes: K.
    """
    said = predicted_N >= 0
    cells = labels_N[said] * num_classes + predicted_N[said]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class PerClass:
    """Figures of each class, (K,) each; NaN where there is nothing to divide by.

    Attributes:
        support: Images of the class.
        predicted: Images that were taken for it.
        correct: Images of which both hold.
        recall: `correct` / `support`: the class's accuracy.
        precision: `correct` / `predicted`.
        f1: Their harmonic mean.
    """

    support: Ints
    predicted: Ints
    correct: Ints
    recall: Floats
    precision: Floats
    f1: Floats

    @property
    def mean_recall(self) -> float:
        """Mean of the classes' accuracies, over the classes that have images."""
        return float(self.recall[self.support > 0].mean())


def judge_classes(labels_N: Ints, confusions_KK: Ints) -> PerClass:
    """Return the figures of each class; an image without a prediction counts in `support` only."""
    support = np.bincount(labels_N, minlength=len(confusions_KK))
    predicted, correct = confusions_KK.sum(axis=0), confusions_KK.diagonal().copy()
    return PerClass(
        support=support,
        predicted=predicted,
        correct=correct,
        recall=_share(correct, support),
        precision=_share(correct, predicted),
        f1=_share(2 * correct, support + predicted),
    )


def _share(part: Ints, whole: Ints) -> Floats:
    nowhere = np.full(len(whole), np.nan)
    return np.divide(part, whole, out=nowhere, where=whole > 0)


@dataclass(frozen=True)
class Calibration:
    """How far a network's confidence and its accuracy are apart (Guo et al., 2017, section 2).

    Bin m of M holds the images whose likeliest class has a probability in ((m - 1) / M, m / M].

    Attributes:
        ece: Expected calibration error: sum over bins of (images in it / N) * |accuracy - mean
            confidence|, from 0 to 1.
        mce: Maximum calibration error: the largest |accuracy - mean confidence| of a bin.
        counts: Images in each bin, (M,).
        confidence: Their mean confidence, (M,); NaN in an empty bin.
        accuracy: Share of them that is right, (M,); NaN in an empty bin.
    """

    ece: float
    mce: float
    counts: Ints
    confidence: Floats
    accuracy: Floats


def calibrate(confidence_N: Floats, correct_N: NDArray[np.bool_], num_bins: int) -> Calibration:
    """Sort images into bins of equal width by their confidence and compare it with accuracy.

    Images whose confidence is NaN are in no bin and do not count in N. Both errors are NaN if no
    image is left.
    """
    known = ~np.isnan(confidence_N)
    confidence, correct = confidence_N[known].astype(np.float64), correct_N[known]
    edges = np.arange(1, num_bins) / num_bins
    bins = np.digitize(confidence, edges, right=True)
    counts = np.bincount(bins, minlength=num_bins)
    hits = np.bincount(bins[correct], minlength=num_bins)
    sums = np.bincount(bins, weights=confidence, minlength=num_bins)
    nowhere = np.full(num_bins, np.nan)
    mean_confidence = np.divide(sums, counts, out=nowhere, where=counts > 0)
    accuracy = _share(hits, counts)
    filled = counts > 0
    gaps = np.abs(accuracy - mean_confidence)[filled]
    return Calibration(
        ece=float((gaps * counts[filled]).sum() / counts.sum()) if filled.any() else np.nan,
        mce=float(gaps.max()) if filled.any() else np.nan,
        counts=counts,
        confidence=mean_confidence,
        accuracy=accuracy,
    )
