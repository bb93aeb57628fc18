"""An evaluation as files for programs: JSON, CSV and Parquet.

Equal evaluations give equal bytes: nothing is written that depends on when, where or on how many
workers it ran.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workloads import durable
from workloads.evaluation.outcomes import TOP_K
from workloads.evaluation.result import Evaluation

METRICS_FILE = "metrics.json"
PER_CLASS_FILE = "per_class.csv"
CONFUSION_FILE = "confusion_matrix.csv"
MOST_CONFUSED_FILE = "most_confused.csv"
PREDICTIONS_FILE = "predictions.parquet"

_MOST_PAIRS = 200


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """Write all of them, each whole or not at all; what is there is replaced.

    Raises:
        OSError: The storage failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_file(folder / PER_CLASS_FILE, _per_class(evaluation))
    durable.write_file(folder / CONFUSION_FILE, _confusions(evaluation))
    durable.write_file(folder / MOST_CONFUSED_FILE, _most_confused(evaluation))
    durable.write_file(folder / PREDICTIONS_FILE, _predictions(evaluation))
    # Last: where it is, the others are.
    durable.write_file(folder / METRICS_FILE, _metrics(evaluation))


def most_confused(evaluation: Evaluation) -> list[tuple[int, int, int]]:
    """Return (true class, predicted class, images), the most images first."""
    wrong = evaluation.confusions.copy()
    np.fill_diagonal(wrong, 0)
    true, predicted = np.nonzero(wrong)
    counts = wrong[true, predicted]
    order = np.lexsort((predicted, true, -counts))[:_MOST_PAIRS]
    return [(int(true[i]), int(predicted[i]), int(counts[i])) for i in order]


def _metrics(evaluation: Evaluation) -> bytes:
    calibration = evaluation.calibration
    document = {
        **evaluation.result.to_dict(),
        "calibration": {
            "images": calibration.counts.tolist(),
            "confidence": _nulls(calibration.confidence),
            "accuracy": _nulls(calibration.accuracy),
        },
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _per_class(evaluation: Evaluation) -> bytes:
    figures = evaluation.per_class
    columns = ("support", "predicted", "correct", "recall", "precision", "f1")
    values = zip(*(_nulls(getattr(figures, name)) for name in columns), strict=True)
    return _csv(
        ("index", "class", *columns),
        ((i, name, *row) for i, (name, row) in enumerate(zip(evaluation.classes, values))),  # noqa: B905
    )


def _confusions(evaluation: Evaluation) -> bytes:
    rows = zip(evaluation.classes, evaluation.confusions.tolist(), strict=True)
    return _csv(("true", *evaluation.classes), ((name, *row) for name, row in rows))


def _most_confused(evaluation: Evaluation) -> bytes:
    classes, support = evaluation.classes, evaluation.per_class.support
    return _csv(
        ("true", "predicted", "images", "share_of_true"),
        (
            (classes[true], classes[predicted], images, images / int(support[true]))
            for true, predicted, images in most_confused(evaluation)
        ),
    )


def _predictions(evaluation: Evaluation) -> bytes:
    """One row per image, in the dataset's order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    outcomes = evaluation.outcomes
    k = min(TOP_K, len(evaluation.classes))
    lost = (outcomes.predicted < 0).numpy()
    classes = outcomes.classes[:, :k].numpy().astype(np.int32)
    probabilities = outcomes.probabilities[:, :k].numpy()
    table = pa.table(
        {
            "index": pa.array(np.arange(len(outcomes))),
            "name": pa.array(list(evaluation.names), pa.string()),
            "label": pa.array(outcomes.labels.numpy().astype(np.int32)),
            "predicted": pa.array(classes[:, 0], mask=lost),
            "correct": pa.array(outcomes.hits(1).numpy()),
            "confidence": pa.array(probabilities[:, 0], mask=lost),
            "loss": pa.array(outcomes.loss.numpy()),
            "top_classes": _lists(classes, lost),
            "top_probabilities": _lists(probabilities, lost),
        }
    )
    table = table.replace_schema_metadata(
        {"classes": json.dumps(list(evaluation.classes), ensure_ascii=False)}
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _lists(values: Any, lost: Any) -> Any:
    """Return (N, k) as a column of lists, null where nothing was said."""
    import pyarrow as pa

    flat = pa.array(values[~lost].ravel())
    ends = np.cumsum(np.where(lost, 0, values.shape[1]))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(lost))


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _nulls(values: Any) -> list[Any]:
    """Return numbers as plain ones, None for what is no number."""
    return [None if isinstance(v, float) and math.isnan(v) else v for v in values.tolist()]
