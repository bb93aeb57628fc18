"""Whether a network's outputs and the data's classes mean the same, told by their names.

Needs neither torch nor NumPy: a terminal asks before a worker does.
"""

from collections.abc import Sequence

from workloads.evaluation.errors import EvaluationError

_MOST_SHOWN = 5


def refuse_other_classes(
    data: Sequence[str], *, num_outputs: int, names: Sequence[str] | None, origin: str
) -> None:
    """Raise EvaluationError unless output i of the network stands for class i of the data.

    Args:
        data: The data's classes in their order.
        num_outputs: The network's.
        names: What its outputs are called, None if nobody knows.
        origin: Where the names come from, for the message.
    """
    if names is None or len(names) != num_outputs:
        if names is not None:
            raise EvaluationError(
                f"{origin} names {len(names)} classes, and the network has {num_outputs} outputs"
            )
        if num_outputs != len(data):
            raise EvaluationError(
                f"the network has {num_outputs} outputs and the data {len(data)} classes",
                number_hint(num_outputs, len(data)),
            )
        return
    if list(names) == list(data):
        return
    if sorted(names) == sorted(data):
        _refuse_order(list(data), list(names), origin)
    of_data, of_weights = set(data), set(names)
    missing = [name for name in data if name not in of_weights]
    unknown = [name for name in names if name not in of_data]
    parts = [f"{origin} has {len(names)} classes, the data {len(data)}"]
    if missing:
        parts.append(f"only the data has {_shorten(missing)}")
    if unknown:
        parts.append(f"only the weights have {_shorten(unknown)}")
    raise EvaluationError(
        "; ".join(parts),
        "evaluate on the classes that the network was trained on; where only their names differ, "
        "give the outputs' names as the data have them: classes=[...]",
    )


def _refuse_order(data: list[str], names: list[str], origin: str) -> None:
    wrong = [i for i, (a, b) in enumerate(zip(names, data, strict=True)) if a != b]
    shown = [f"output {i}: {names[i]!r}, the data's class {i}: {data[i]!r}" for i in wrong]
    raise EvaluationError(
        f"{origin} and the data have the same {len(data)} classes in another order"
        f"{_known_order(data, names)}: {list_some(shown)}. The accuracy would say nothing of it",
        "bring the data's classes into the network's order: rename the folders so that they sort "
        "that way, or pack them anew; where the names are wrong and not the order, give the right "
        "ones as classes=[...]",
    )


def _known_order(data: Sequence[str], names: Sequence[str]) -> str:
    """Say which usual mistake this is, if it is one."""
    if all(name.isdigit() for name in data):
        by_number, as_text = sorted(data, key=int), sorted(data)
        if list(data) == as_text and list(names) == by_number:
            return " (the data's sorted as text, 10 before 2; the weights' as numbers)"
        if list(data) == by_number and list(names) == as_text:
            return " (the weights' sorted as text, 10 before 2; the data's as numbers)"
    if list(names) == list(reversed(data)):
        return " (reversed)"
    by_code, by_letter = sorted(data), sorted(data, key=str.lower)
    if [list(data), list(names)] in ([by_code, by_letter], [by_letter, by_code]):
        return " (sorted with and without regard to capitals)"
    return ""


def number_hint(num_outputs: int, num_classes: int) -> str:
    """Return what to do about a network of so many outputs on data of so many classes."""
    if num_outputs == num_classes + 1:
        return (
            "one more: networks converted from TensorFlow have a background class as output 0; "
            "take its row out of the classifier's weight and bias"
        )
    if num_outputs == 1000:
        return "1000 outputs are ImageNet's classes; fine-tune the network for these data"
    return "evaluate on the classes that the network was trained on"


def list_some(sentences: list[str]) -> str:
    """Join the first ones on one line, as a job's reason is shown in tables."""
    more = len(sentences) - _MOST_SHOWN
    return "; ".join(sentences[:_MOST_SHOWN] + [f"and {more} more"] * (more > 0))


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST_SHOWN])
    more = len(names) - _MOST_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
