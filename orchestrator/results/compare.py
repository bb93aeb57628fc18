"""Trainings side by side: cells, means over seeds, differences to a baseline. Pure."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from orchestrator.jobs.errors import ConflictError, NotFoundError
from orchestrator.results import caveats
from orchestrator.results.cells import Group, differing_keys, grouped, names_of
from orchestrator.results.columns import column_of, is_usual, on_validation, shown_columns, value_of
from orchestrator.results.comparison import Cell, Column, Comparison, Delta, Estimate, Training
from orchestrator.results.estimates import estimate, holm, is_number, judge, paired_delta
from workloads.config.errors import did_you_mean

_FINISHED = "FINISHED"
_ACTIVE = ("RUNNING", "SCHEDULED")


def compare(
    trainings: Sequence[Training],
    metric: str = "top1",
    baseline: str = "",
    *,
    title: str = "",
    all_keys: bool = False,
) -> Comparison:
    """Put trainings side by side.

    Trainings that differ in nothing but the seed are one cell. Only finished ones count; the
    others are listed in `Cell.missing`. A cell whose seed was trained more than once counts the
    newest that finished.

    Args:
        trainings: As `collect` gives them.
        metric: What cells are compared by: a number of the evaluation (`top1`), which is that of
            the last validation where the trainings were not all evaluated; or any metric that
            they recorded (`val/top1`, `time/train_s`).
        baseline: Name of a cell, or a job in it. Empty takes the study's; where there is none,
            the cell of the first training; for the trials of a sweep, none.
        all_keys: Also show keys that follow from a choice, and those that change no number.

    Raises:
        NotFoundError: There is nothing to compare, or no such cell or metric.
        ConflictError: The baseline's name fits several cells.
    """
    if not trainings:
        raise NotFoundError("there is nothing to compare: no trainings were found")
    groups = grouped(trainings)
    column, about_metric = _metric_column(metric, trainings)
    _refuse_unknown(column, trainings)
    keys = differing_keys(groups, all_keys=all_keys)
    names = names_of(groups, differing_keys(groups, all_keys=False))
    missing = [_missing(group, column) for group in groups]
    counted = [
        [training for training in group.trainings if training.job_id not in absent]
        for group, absent in zip(groups, missing, strict=True)
    ]
    columns = shown_columns(column, [training for some in counted for training in some])
    base = _baseline(groups, names, baseline)
    cells = [
        Cell(
            name=names[index],
            is_baseline=index == base,
            trainings=group.trainings,
            differs={k: group.config[k] for k in keys if k in group.config},
            values=_values(counted[index], columns),
            published=_published(counted[index]),
            missing=missing[index],
        )
        for index, group in enumerate(groups)
    ]
    counted_in = dict(zip(names, counted, strict=True))
    if base is not None and len(cells) > 1:
        cells = _with_deltas(cells, counted_in, base, column)
    warnings = [
        *about_metric,
        *caveats.about_seeds(cells, counted_in),
        *caveats.about_deltas(cells),
        *caveats.about_numbers(cells, columns),
        *caveats.about_facts(counted_in, keys),
    ]
    return Comparison(
        title=title or _title(trainings),
        metric=column,
        columns=columns,
        cells=tuple(cells),
        differing_keys=keys,
        baseline=cells[base].name if base is not None else "",
        warnings=tuple(warnings),
    )


def _metric_column(metric: str, trainings: Sequence[Training]) -> tuple[Column, list[str]]:
    """Return what to compare by, and what must be said of it.

    The evaluation's number and the validation's are not the same one: never both in a column.
    """
    column = column_of(metric)
    instead = on_validation(column)
    if metric.startswith("eval/") or instead is None:
        return column, []
    finished = [t for t in trainings if t.state == _FINISHED]
    without = [t.job_id for t in finished if not t.evaluation]
    of_study = all(t.cell and t.kind == "train" for t in trainings)
    evaluated = len(without) < len(finished)
    if evaluated and (of_study or not without):
        return column, []
    if not finished and any(t.evaluation for t in trainings):
        return column, []
    if not evaluated:
        return instead, []
    text = f"{caveats.listed(without)} not evaluated: comparing by the last validation of each"
    return instead, [f"{text} (gcpctl submit eval -c JOB)"]


def _refuse_unknown(column: Column, trainings: Sequence[Training]) -> None:
    """Raise NotFoundError if a metric is not one that trainings usually have, and none has it."""
    if is_usual(column) or any(value_of(t, column) is not None for t in trainings):
        return
    there = dict.fromkeys(key for t in trainings for key in (*t.evaluation, *t.metrics))
    hint = did_you_mean(column.key, there) or f"they have: {', '.join(sorted(there))}"
    raise NotFoundError(f"none of the trainings has recorded {column.key!r}", hint)


def _missing(group: Group, column: Column) -> dict[str, str]:
    """Return the trainings that do not count, by job id, with their state and the reason."""
    newest: dict[object, Training] = {}
    for training in group.trainings:
        key: object = training.seed if training.seed is not None else training.run_id
        before = newest.get(key)
        if before is None or _rank(training) >= _rank(before):
            newest[key] = training
    chosen = {training.run_id for training in newest.values()}
    missing = {}
    for training in group.trainings:
        value = value_of(training, column)
        if training.state != _FINISHED:
            words = training.reason.strip().splitlines()
            missing[training.job_id] = training.state + (f": {words[0]}" if words else "")
        elif training.run_id not in chosen:
            missing[training.job_id] = f"{_FINISHED}: trained again since, with the same seed"
        elif not is_number(value):
            if value is not None:
                why = f"{column.title} is not finite"
            elif _awaits_evaluation(training, column):
                why = "not evaluated"
            else:
                why = f"no {column.title}"
            missing[training.job_id] = f"{_FINISHED}: {why}"
    return missing


def _awaits_evaluation(training: Training, column: Column) -> bool:
    return "/" not in column.key and not training.evaluation


def _rank(training: Training) -> int:
    return 2 if training.state == _FINISHED else int(training.state in _ACTIVE)


def _values(counted: Sequence[Training], columns: Sequence[Column]) -> dict[str, Estimate]:
    found = {}
    for column in columns:
        values = [v for t in counted if (v := value_of(t, column)) is not None and is_number(v)]
        if values:
            found[column.key] = estimate(values)
    return found


def _published(counted: Sequence[Training]) -> float | None:
    numbers = {training.published for training in counted}
    return numbers.pop() if len(numbers) == 1 else None


def _baseline(groups: Sequence[Group], names: Sequence[str], wanted: str) -> int | None:
    """Return the index of the cell that the others are compared with."""
    if not wanted:
        for index, group in enumerate(groups):
            if any(training.is_baseline for training in group.trainings):
                return index
        is_sweep = all(t.kind == "trial" for group in groups for t in group.trainings)
        return None if is_sweep else 0
    jobs = [[t.job_id for t in group.trainings] for group in groups]
    tests: tuple[Callable[[int], bool], ...] = (
        lambda i: names[i] == wanted or wanted in jobs[i],
        lambda i: wanted in names[i].split(","),
        lambda i: any(job.startswith(wanted) or job.endswith(wanted) for job in jobs[i]),
        lambda i: wanted in names[i],
    )
    for fits in tests:
        found = [index for index in range(len(groups)) if fits(index)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(names[index] for index in found[:5])
            raise ConflictError(f"--baseline {wanted!r} fits several cells: {some}")
    hint = did_you_mean(wanted, names) or f"the cells: {', '.join(names[:12])}"
    raise NotFoundError(f"there is no cell {wanted!r} to compare with", hint)


def _with_deltas(
    cells: Sequence[Cell], counted: Mapping[str, Sequence[Training]], base: int, column: Column
) -> list[Cell]:
    """Return the cells with their differences to the baseline, p values corrected together."""
    reference = _by_seed(counted[cells[base].name], column)
    deltas: list[Delta] = []
    for index, cell in enumerate(cells):
        values = _by_seed(counted[cell.name], column)
        if index == base:
            zeros = (0.0,) * len(values)
            deltas.append(Delta(0.0, None, None, len(values), None, "", zeros))
        else:
            shared = [seed for seed in values if seed in reference]
            deltas.append(paired_delta([values[seed] - reference[seed] for seed in shared]))
    tested = {index: delta.p for index, delta in enumerate(deltas) if delta.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    judged = [
        delta if index == base else judge(delta, corrected.get(index), column)
        for index, delta in enumerate(deltas)
    ]
    return [
        dataclasses.replace(cell, delta=delta if delta.n else None)
        for cell, delta in zip(cells, judged, strict=True)
    ]


def _by_seed(trainings: Sequence[Training], column: Column) -> dict[int | None, float]:
    values = ((t.seed, value_of(t, column)) for t in trainings)
    return {seed: v for seed, v in values if v is not None and is_number(v)}


def _title(trainings: Sequence[Training]) -> str:
    count = len(trainings)
    recipes = list(dict.fromkeys(t.recipe for t in trainings if t.recipe))
    some = ", ".join(recipes[:3]) + (" ..." if len(recipes) > 3 else "")
    return f"{count} training{'s'[: count != 1]}" + (f" of {some}" if some else "")
