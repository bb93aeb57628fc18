"""What is tried next follows from the seed and the trials before, and from nothing else."""

import json

import pytest

from orchestrator.drivers.tuning.journal import Trial
from orchestrator.drivers.tuning.search import build_search
from orchestrator.jobs.space_text import parse_dimension
from workloads.config.sweep import Objective, SweepConfig
from workloads.worker.spool import SpoolRow

SPACE = (
    "optim.lr=loguniform(1e-3, 1)",
    "model.head.pooling=choice(gap, isqrt)",
    "model.head.pooling.num_iters=int(1, 7, 2) if model.head.pooling=isqrt",
)


def sweep_of(*space: str, **fields) -> SweepConfig:
    return SweepConfig(
        recipe="digits",
        base={},
        space=tuple(map(parse_dimension, space or SPACE)),
        **{"num_trials": 20, **fields},
    )


def quality(values) -> float:
    """Best at a learning rate of 0.1 with isqrt and five iterations."""
    import math

    score = -abs(math.log10(values["optim.lr"]) + 1)
    if values.get("model.head.pooling") == "isqrt":
        score += 1 - abs(values["model.head.pooling.num_iters"] - 5) / 10
    return score


def end(trial: Trial, *values: float, how="finished", metrics=("val/top1",)) -> None:
    trial.rows = [SpoolRow(1, 1, 1, dict(zip(metrics, values, strict=True)))]
    trial.epoch, trial.end = 1, how


def run(sweep, count, *, ending=None, restart_at=()) -> dict[int, Trial]:
    """Run trials one after another; make the search anew before those of `restart_at`."""
    search, trials = build_search(sweep), {}
    for number in range(count):
        if number in restart_at:
            search = build_search(sweep)
        values = search.choose(number, trials)
        if values is None:
            break
        trials[number] = Trial(number, values, number)
        if ending is None:
            end(trials[number], quality(values))
        else:
            ending(trials[number])
    return trials


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_the_same_seed_gives_the_same_trials_and_another_others(search):
    first = run(sweep_of(search=search, seed=3), 15)
    again = run(sweep_of(search=search, seed=3), 15)
    other = run(sweep_of(search=search, seed=4), 15)
    assert [t.values for t in first.values()] == [t.values for t in again.values()]
    assert [t.values for t in first.values()] != [t.values for t in other.values()]


@pytest.mark.parametrize("search", ["tpe", "random", "grid"])
def test_a_search_that_was_killed_asks_on_where_it_was(search):
    space = SPACE if search != "grid" else ("optim.lr=choice(0.1, 0.01)", *SPACE[1:])
    sweep = sweep_of(*space, search=search, num_trials=1 if search == "grid" else 20)
    whole, killed = run(sweep, 14), run(sweep, 14, restart_at=(1, 5, 6, 13))
    assert [t.values for t in whole.values()] == [t.values for t in killed.values()]


def test_tpe_takes_up_ends_of_all_kinds_after_a_kill():
    def ending(trial: Trial) -> None:
        how = ("finished", "pruned", "failed")[trial.number % 3]
        end(trial, quality(trial.values), how=how)

    whole = run(sweep_of(), 16, ending=ending)
    killed = run(sweep_of(), 16, ending=ending, restart_at=(7, 12))
    assert [t.values for t in whole.values()] == [t.values for t in killed.values()]


def test_tpe_finds_what_chance_does_not():
    def tail(search: str) -> float:
        """Return the mean quality of the last ten of 40 trials, over three seeds."""
        found = []
        for seed in range(3):
            trials = run(sweep_of(search=search, seed=seed, num_trials=40), 40)
            found += [quality(trials[n].values) for n in range(30, 40)]
        return sum(found) / len(found)

    assert tail("tpe") > tail("random") + 0.3


def test_conditional_values_exist_only_under_their_condition():
    for trial in run(sweep_of(), 20).values():
        has = "model.head.pooling.num_iters" in trial.values
        assert has == (trial.values["model.head.pooling"] == "isqrt")


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_no_point_is_tried_twice_and_a_finite_space_ends(search):
    sweep = sweep_of("optim.lr=choice(0.1, 0.2, 0.3)", *SPACE[1:], search=search)
    trials = run(sweep, 99)
    points = {json.dumps(t.values, sort_keys=True) for t in trials.values()}
    assert len(trials) == len(points) == 3 * (1 + 4)


def test_a_grid_has_each_point_once():
    sweep = sweep_of("optim.lr=choice(0.1, 0.2)", *SPACE[1:], search="grid", num_trials=1)
    trials = run(sweep, 99)
    assert len(trials) == 2 * (1 + 4)
    assert [t.values["optim.lr"] for t in trials.values()] == [0.1] * 5 + [0.2] * 5


def test_two_objectives_are_searched_together():
    objectives = (Objective(), Objective(metric="model/macs", direction="min"))
    sweep = sweep_of("optim.lr=uniform(0, 1)", objectives=objectives)

    def ending(trial: Trial) -> None:
        # Both want a small one: the search must learn it from either.
        lr = trial.values["optim.lr"]
        how = "failed" if trial.number == 4 else "finished"
        end(trial, 1 - lr, lr, how=how, metrics=("val/top1", "model/macs"))

    trials = run(sweep, 30, ending=ending)
    late = [trials[n].values["optim.lr"] for n in range(20, 30)]
    assert sum(late) / len(late) < 0.3


def test_trials_under_way_keep_others_from_their_place():
    sweep = sweep_of("optim.lr=uniform(0, 1)", num_trials=9)
    search, trials = build_search(sweep), {}
    for number in range(12):
        trials[number] = Trial(number, search.choose(number, trials), number)
    # None has ended, so nothing is known: they still differ.
    assert len({t.values["optim.lr"] for t in trials.values()}) == 12
