"""The numbers that comparisons show: what they are called, their units, which way is better."""

from orchestrator.results.comparison import Column, Training
from orchestrator.results.estimates import is_number

_EVALUATED = (
    Column("top1", "top-1", "%", "higher", 2),
    Column("top5", "top-5", "%", "higher", 2),
    Column("loss", "loss", "", "lower", 4),
    Column("ece", "ECE", "", "lower", 4),
)
_OTHER_EVALUATED = (
    Column("mce", "MCE", "", "lower", 4),
    Column("brier", "Brier score", "", "lower", 4),
    Column("mean_class_recall", "mean recall", "%", "higher", 2),
)
_VALIDATED = (
    Column("val/top1", "val top-1", "%", "higher", 2),
    Column("val/top5", "val top-5", "%", "higher", 2),
    Column("val/loss", "val loss", "", "lower", 4),
)
_COSTS = (
    Column("model/parameters", "parameters", "", "", 0),
    Column("model/macs", "MACs", "", "", 0),
    Column("perf/images_per_s", "images/s", "", "higher", 0),
    Column("time/train_s", "time", "s", "lower", 0),
    Column("perf/peak_memory_mb", "memory", "MB", "lower", 0),
)
_KNOWN = {c.key: c for c in (*_EVALUATED, *_OTHER_EVALUATED, *_VALIDATED, *_COSTS)}
_VALIDATION_OF = {"top1": "val/top1", "top5": "val/top5", "loss": "val/loss"}
_SHORT = {
    "parameters": "model/parameters",
    "macs": "model/macs",
    "images_per_s": "perf/images_per_s",
    "time": "time/train_s",
    "memory": "perf/peak_memory_mb",
}
TOP1 = ("top1", "val/top1")
"""What published results are set beside."""


def column_of(name: str) -> Column:
    """Return the column of a number, by the name that MLflow or a person has for it."""
    key = _SHORT.get(name, name.removeprefix("eval/"))
    if key in _KNOWN:
        return _KNOWN[key]
    word = key.rpartition("/")[2]
    twin = _KNOWN.get(word)  # train/loss: as a loss of the evaluation
    if twin is not None:
        return Column(key, key, twin.unit, twin.better, twin.decimals)
    return Column(key, key, decimals=None)


def is_usual(column: Column) -> bool:
    """Whether all trainings or evaluations record it, some day."""
    return column.key in _KNOWN


def on_validation(column: Column) -> Column | None:
    """Return the same number of the last validation of the training itself, where it has one."""
    return column_of(_VALIDATION_OF[column.key]) if column.key in _VALIDATION_OF else None


def value_of(training: Training, column: Column) -> float | None:
    """Return a training's number as it was recorded; None where it has none."""
    numbers = training.metrics if "/" in column.key else training.evaluation
    return numbers.get(column.key)


def shown_columns(metric: Column, trainings: list[Training]) -> tuple[Column, ...]:
    """Return the metric, then the usual columns that some training has a number for."""
    validated = _VALIDATED if "/" in metric.key else ()
    usual = (*validated, *_EVALUATED, *_COSTS)
    there = [c for c in usual if any(is_number(value_of(t, c)) for t in trainings)]
    return (metric, *(column for column in there if column != metric))
