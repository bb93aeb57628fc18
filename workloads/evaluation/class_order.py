"""Whether a network's outputs and the data's classes mean the same, told by its predictions.

A network whose outputs stand in another order scores like chance, and nothing in the number says
why. Names are compared where both sides have them (`class_match`); where the weights have none, the
confusions are searched for another order that fits.

Shapes: N images, K classes.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from workloads.evaluation.class_match import list_some
from workloads.evaluation.errors import EvaluationError
from workloads.evaluation.metrics import count_confusions

Ints = NDArray[np.int64]

_WNID = re.compile(r"n\d{8}")
_RECALL_ABOVE_CHANCE = 0.3
"""How good another order must be, between chance (0) and perfect (1), to be more than luck: an
untrained network groups images too."""
_TIMES_BETTER = 3
_MORE_HITS = 10


def refuse_permuted(labels_N: Ints, predicted_N: Ints, classes: Sequence[str]) -> None:
    """Raise EvaluationError if another order of the classes explains the predictions far better.

    The order that fits best is sought on one half of the images and judged on the other, and the
    other way round, by the mean accuracy over the classes: so neither luck among many orders nor
    a network that always says the most frequent class can pass for one.

    Args:
        labels_N: True classes.
        predicted_N: Predicted ones, -1 for none.
        classes: Names of the data's classes.
    """
    from scipy.optimize import linear_sum_assignment

    num_classes = len(classes)
    halves = [
        count_confusions(labels_N[half::2], predicted_N[half::2], num_classes).astype(np.float64)
        for half in (0, 1)
    ]
    support = np.bincount(labels_N, minlength=num_classes)
    present = support > 0
    if len(labels_N) < 2 or present.sum() < 2:
        return
    hits_of_order = np.zeros(num_classes)
    for sought, judged in (halves, halves[::-1]):
        share = sought / np.maximum(support, 1)[:, None]
        rows, columns = linear_sum_assignment(share, maximize=True)
        hits_of_order[rows] += judged[rows, columns]
    hits = sum(half.diagonal() for half in halves)
    recall = float((hits[present] / support[present]).mean())
    of_order = float((hits_of_order[present] / support[present]).mean())
    chance = 1.0 / num_classes
    if (
        of_order < chance + _RECALL_ABOVE_CHANCE * (1.0 - chance)
        or of_order < _TIMES_BETTER * recall
        or hits_of_order.sum() < hits.sum() + _MORE_HITS
    ):
        return
    _, meant = linear_sum_assignment((halves[0] + halves[1]).T, maximize=True)
    _refuse_permutation(meant, recall, of_order, classes)


def _refuse_permutation(
    meant: Ints, recall: float, of_order: float, classes: Sequence[str]
) -> None:
    """Raise for outputs of which output j means class `meant[j]`."""
    moved = [int(j) for j in np.flatnonzero(meant != np.arange(len(meant)))]
    shown = [f"output {j} stands for class {meant[j]}, {classes[meant[j]]!r}" for j in moved]
    raise EvaluationError(
        f"the network's outputs stand in another order than the data's classes{_shape(meant)}: its "
        f"mean accuracy per class is {100 * recall:.1f} % as they stand, and "
        f"{100 * of_order:.1f} % if {list_some(shown)}. Neither is reported: the weights do not "
        "name their classes, so the order is a guess",
        _permutation_hint(meant, classes),
    )


def _shape(meant: Ints) -> str:
    """Say which usual mistake a permutation is, if it is one."""
    count = len(meant)
    places = np.arange(count)
    shift = int(np.bincount((meant - places) % count).argmax())
    if shift and np.mean((meant - places) % count == shift) > 0.9:
        by = min(shift, count - shift)
        where = "later" if shift == by else "earlier"
        return f" (each stands for the class {by} place{'s'[: by > 1]} {where})"
    if np.mean(meant == places[::-1]) > 0.9:
        return " (reversed)"
    texts = sorted(range(count), key=str)
    if np.mean(meant == texts) > 0.9 or np.mean(meant == np.argsort(texts)) > 0.9:
        return " (numbers sorted as text, 10 before 2, on one side)"
    return ""


def _permutation_hint(meant: Ints, classes: Sequence[str]) -> str:
    known = "if the order is right all the same, say so with classes=[...]"
    if all(_WNID.fullmatch(name) for name in classes):
        return (
            "the data's classes are WordNet ids in their order, the usual one of ImageNet; the "
            "weights may be trained on folders named by words. Name the folders as then; " + known
        )
    return f"name the folders so that they sort in the order of the training; {known}"
