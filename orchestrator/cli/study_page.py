"""A study before and after it is submitted: its cells, what is there of each, what it will cost."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.cli.output import duration, table
from orchestrator.jobs.plan_study import PlannedCell, StudyPlan
from orchestrator.jobs.study_file import as_override
from orchestrator.jobs.study_parts import Found, Part, Slot, reused
from orchestrator.results.past_cost import Estimate

_HEADER = ("CELL", "SEEDS", "TRAININGS", "EACH", "WHAT DIFFERS")
_MANY_REUSED = 12

Estimates = Mapping[str, Estimate | None]
"""Cell -> what one training of it takes; None where nothing like it was measured."""


def study_text(plan: StudyPlan, found: Found, estimates: Estimates) -> str:
    """Return what `--dry-run` prints."""
    config = plan.config
    heading = [
        f"# {config.question}",
        f"# recipe {config.recipe}, {config.mode}, {len(plan.cells)} cells, "
        f"seeds {_numbers(config.seeds)}",
        f"# compared by {config.metric}, in the experiment {plan.spec.study}",
    ]
    if config.overrides:
        said = " ".join(as_override(key, value) for key, value in config.overrides.items())
        heading.append(f"# in every cell: {said}")
    rows = [_row(planned, found, estimates) for planned in plan.cells]
    return "\n".join([*heading, "", table(_HEADER, rows), "", work_text(found, estimates)])


def work_text(found: Found, estimates: Estimates) -> str:
    """Return how much there is to do, in a sentence or two."""
    trainings, evaluations = work(found)
    if not trainings and not evaluations:
        return "nothing is to be run"
    parts = []
    if trainings:
        parts.append(f"{trainings} training{'s'[: trainings > 1]}")
    if evaluations:
        parts.append(f"{evaluations} evaluation{'s'[: evaluations > 1]}")
    text = f"to be run: {' and '.join(parts)}"
    if not trainings:
        return text
    to_come = [slot.cell.name for slot in found.slots if slot.training.action != "use"]
    known = [known for name in to_come if (known := estimates.get(name)) is not None]
    if not known:
        return f"{text}; nothing like them was trained here yet, so their time is unknown"
    said = f"about {duration(sum(estimate.seconds for estimate in known))} of training"
    if len(known) < len(to_come):
        said = f"at least {said.removeprefix('about ')}: {len(known)} of them can be estimated"
    return f"{text}; {said}, one after the other"


def reuse_lines(found: Found, commit: str) -> Iterator[str]:
    """Yield what is not trained again, and where it comes from.

    Args:
        commit: Of the code that submits.
    """
    by_study: dict[str, list[Slot]] = {}
    for slot, job in reused(found):
        by_study.setdefault(job.group, []).append(slot)
    alone = by_study.pop("", [])
    for study, slots in by_study.items():
        yield f"  {len(slots)} of the study {study}: {_states(slots)}{_commits(slots, commit)}"
    for slot in alone[:_MANY_REUSED]:
        said = f"{slot.training.job_id}, {_states([slot])}{_commits([slot], commit)}"
        yield f"  {slot.cell.name}, seed {slot.seed}: {said}"
    if len(alone) > _MANY_REUSED:
        yield f"  and {len(alone) - _MANY_REUSED} more of no study"


def _states(slots: Sequence[Slot]) -> str:
    counts = Counter(_state(slot.training) for slot in slots)
    if len(slots) == 1:
        return next(iter(counts))
    return ", ".join(f"{number} {state}" for state, number in counts.items())


def _commits(slots: Sequence[Slot], commit: str) -> str:
    """Return a remark on results of other code than the one that submits."""
    jobs = [slot.training.job for slot in slots if slot.training.job is not None]
    commits = {job.tags.get("mlflow.source.git.commit", "") for job in jobs} - {"", commit}
    return f" (at another commit: {', '.join(c[:8] for c in sorted(commits))})" if commits else ""


def study_json(plan: StudyPlan, found: Found, estimates: Estimates) -> dict[str, Any]:
    """Return the same for scripts."""
    trainings, evaluations = work(found)
    return {
        "study": plan.name,
        "job_id": found.group or plan.job_id,
        "state": found.parent.state.value if found.parent else "new",
        "question": plan.config.question,
        "recipe": plan.config.recipe,
        "experiment": plan.spec.study,
        "baseline": plan.baseline.cell.name,
        "config": plan.config.model_dump(mode="json"),
        "new_trainings": trainings,
        "new_evaluations": evaluations,
        "cells": [_cell_json(planned, found, estimates) for planned in plan.cells],
    }


def work(found: Found) -> tuple[int, int]:
    """Return how many trainings and evaluations are still to be run, retries among them."""
    trainings = sum(slot.training.action != "use" for slot in found.slots)
    judged = [slot.evaluation for slot in found.slots if slot.evaluation is not None]
    return trainings, sum(part.action != "use" for part in judged)


def _row(planned: PlannedCell, found: Found, estimates: Estimates) -> tuple[str, ...]:
    cell = planned.cell
    slots = _slots_of(planned, found)
    states = _states(slots) if len(slots) > 1 else f"1 {_states(slots)}"
    if len(slots) == 1 and (job := slots[0].training.job) is not None:
        states = f"{_state(slots[0].training)}: {job.job_id}"
    differs = " ".join(as_override(key, value) for key, value in cell.differs.items())
    seeds = _numbers([slot.seed for slot in slots])
    what = "the baseline" if cell.is_baseline else differs
    return cell.name, seeds, states, _each(estimates.get(cell.name)), what


def _each(estimate: Estimate | None) -> str:
    if estimate is None:
        return "?"
    mark = "" if estimate.basis == "equal" else "~"
    short = estimate.seconds < 10
    return mark + (f"{estimate.seconds:.1f} s" if short else duration(estimate.seconds))


def _slots_of(planned: PlannedCell, found: Found) -> list[Slot]:
    return [slot for slot in found.slots if slot.cell.name == planned.cell.name]


def _state(part: Part[Any]) -> str:
    """Return a word on what is there, and will be done."""
    if part.job is None:
        return "new"
    state = part.job.state.value.lower()
    words = {"scheduled": "queued", "killed": "stopped"}
    word = words.get(state, state)
    return f"{word} (again)" if part.action == "retry" else word


def _cell_json(planned: PlannedCell, found: Found, estimates: Estimates) -> dict[str, Any]:
    cell, estimate = planned.cell, estimates.get(planned.cell.name)
    return {
        "name": cell.name,
        "is_baseline": cell.is_baseline,
        "levels": dict(cell.levels),
        "differs": dict(cell.differs),
        "seconds_each": None if estimate is None else round(estimate.seconds, 1),
        "estimated_from": None if estimate is None else estimate.basis,
        "jobs": [
            {
                "seed": slot.seed,
                "training": _part_json(slot.training),
                "evaluation": None if slot.evaluation is None else _part_json(slot.evaluation),
            }
            for slot in _slots_of(planned, found)
        ],
    }


def _part_json(part: Part[Any]) -> dict[str, Any]:
    return {
        "job_id": part.job_id,
        "action": part.action,
        "state": None if part.job is None else part.job.state.value,
        "made_for": None if part.job is None else part.job.group,
        "config_sha256": part.plan.config_sha256,
    }


def _numbers(numbers: Any) -> str:
    return " ".join(map(str, numbers))
