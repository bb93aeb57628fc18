"""Curves over seeds and matching epochs, against numbers worked out by hand."""

import math

import pytest

from orchestrator.results.comparison import Cell, Training
from orchestrator.results.convergence import convergence, matching_epochs


def training(run_id: str, seed: int, state: str = "FINISHED") -> Training:
    return Training(run_id, run_id, "1", "train", state, "recipe", seed)


def cell(name: str, *runs: Training, is_baseline: bool = False) -> Cell:
    return Cell(name, is_baseline, runs, {}, {})


BASE = cell("gap", training("a", 0), training("b", 1), is_baseline=True)
OTHER = cell("isqrt", training("c", 0), training("d", 1))
HISTORIES = {
    "a": [(1, 10.0), (2, 20.0), (3, 31.0)],
    "b": [(1, 12.0), (2, 26.0), (3, 29.0)],
    "c": [(1, 20.0), (2, 33.0), (3, 40.0)],
    "d": [(1, 30.0), (2, 27.5), (3, 38.0)],
}


def test_the_mean_and_deviation_of_each_epoch_are_over_seeds():
    found = convergence(BASE, HISTORIES)
    assert found is not None
    assert found.epochs == (1, 2, 3)
    assert found.mean == (11.0, 23.0, 30.0)
    assert found.deviation == pytest.approx((math.sqrt(2), math.sqrt(18), math.sqrt(2)))
    assert (found.n, found.seeds, found.final, found.last_epoch) == (2, (0, 1), 30.0, 3)


def test_the_matching_epoch_is_the_first_at_the_baselines_final_mean():
    curves = [c for c in (convergence(x, HISTORIES) for x in (BASE, OTHER)) if c]
    base, other = matching_epochs(curves)
    assert (base.target, base.epoch, base.by_seed) == (30.0, 3, (3, None))
    # Means 25, 30.25, 39: the second epoch; seed 0 needs two, seed 1 is there after one.
    assert (other.epoch, other.by_seed, other.of_epochs, other.baseline_epochs) == (2, (2, 1), 3, 3)


def test_a_cell_that_never_gets_there_has_no_matching_epoch():
    low = {**HISTORIES, "c": [(1, 1.0), (2, 2.0)], "d": [(1, 1.0), (2, 2.0)]}
    curves = [c for c in (convergence(x, low) for x in (BASE, OTHER)) if c]
    assert matching_epochs(curves)[1].epoch is None
    assert matching_epochs(curves[1:]) == ()


def test_a_seed_that_ends_early_does_not_bend_the_mean():
    short = {**HISTORIES, "b": [(1, 12.0)]}
    found = convergence(BASE, short)
    assert found is not None
    assert (found.epochs, found.mean) == ((1,), (11.0,))
    assert found.final == (31.0 + 12.0) / 2
    assert found.last_epoch == 3


def test_what_is_not_finished_or_not_a_number_is_left_out():
    runs = cell("gap", training("a", 0), training("b", 1, "RUNNING"))
    odd = {"a": [(1, 10.0), (2, math.nan), (2, 20.0), (3, math.nan)], "b": [(1, 50.0)]}
    found = convergence(runs, odd)
    assert found is not None
    assert (found.epochs, found.mean, found.deviation) == ((1, 2), (10.0, 20.0), ())
    assert convergence(OTHER, {}) is None


def test_the_newest_point_of_an_epoch_counts():
    found = convergence(cell("gap", training("a", 0)), {"a": [(1, 30.0), (1, 10.0)]})
    assert found is not None
    assert found.mean == (10.0,)


def test_a_seed_that_was_trained_twice_counts_once_the_newest():
    twice = cell("gap", training("a", 0), training("b", 1), training("c", 0))
    found = convergence(twice, HISTORIES)
    assert found is not None
    assert sorted(found.seeds) == [0, 1]  # type: ignore[type-var]
    assert found.mean == pytest.approx((16.0, 29.5, 34.5))
