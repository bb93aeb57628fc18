"""Numbers and names that nobody plans for, in every form that a comparison is written in."""

import csv
import io
import math
import random
import re

import numpy as np
import pytest
from scipy import stats

from orchestrator.jobs.plan import Request, plan_train
from orchestrator.results.cells import shortened
from orchestrator.results.columns import column_of
from orchestrator.results.compare import compare
from orchestrator.results.comparison import Column, Delta, Estimate
from orchestrator.results.estimates import judge
from orchestrator.results.exports import to_csv
from orchestrator.results.figures import cost_columns, front
from orchestrator.results.latex import to_latex
from orchestrator.results.numbers import estimate_text, number_text
from orchestrator.results.published_rows import is_published
from orchestrator.results.tables import for_terminal, notes
from tests.unit.orchestrator.results.trainings import training
from workloads.config.validate import flatten

SEEDS = (0, 1, 2)


def study(key: str, **cells: list[float]):
    """Return a comparison by a metric of training; the first cell is the baseline."""
    first = next(iter(cells))
    trainings = [
        training(
            name, seed, None, cell=f"p={name}", is_baseline=name == first, metrics={key: value}
        )
        for name, values in cells.items()
        for seed, value in enumerate(values)
    ]
    return compare(trainings, key)


# --- against scipy -------------------------------------------------------------------------------


def holm(values: list[float]) -> np.ndarray:
    p, m = np.asarray(values), len(values)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(m)
    corrected[order] = np.minimum(1, np.maximum.accumulate((m - np.arange(m)) * p[order]))
    return corrected


def invented(draw: random.Random, key: str):
    """Return trainings with all that goes wrong, and by cell and seed the numbers that count."""
    trainings, truth = [], {}
    for number in range(draw.randint(2, 7)):
        cell = f"p={number}"
        truth[cell] = {}
        for seed in draw.sample(range(8), draw.choice([1, 2, 3, 3, 5, 8])):
            state = draw.choice(["FINISHED"] * 6 + ["FAILED", "RUNNING", "KILLED"])
            usual = draw.gauss(50 + number, 1) + seed
            value = draw.choice([*[usual] * 8, 50.0, 50.0, math.nan, math.inf, 1.7976e308, None])
            metrics = {"other": 1.0} if value is None else {key: value}
            trainings.append(
                training(
                    str(number), seed, None, cell=cell, is_baseline=number == 0, state=state,
                    metrics=metrics,
                )
            )  # fmt: skip
            if state == "FINISHED" and value is not None and abs(value) < 1e300:
                truth[cell][seed] = value
    draw.shuffle(trainings)
    return trainings, truth


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # scipy, of one seed
@pytest.mark.parametrize("start", range(5))
def test_means_intervals_p_and_verdicts_are_those_of_scipy(start):
    for number in range(start, 100, 5):
        draw = random.Random(number)
        key = draw.choice(["val/top1", "val/loss"])
        trainings, truth = invented(draw, key)
        comparison = compare(trainings, key)
        base, tested = truth["p=0"], {}
        for cell in comparison.cells:
            own = truth[cell.name]
            assert (cell.values[key].n if key in cell.values else 0) == len(own)
            if own:
                array = np.array(list(own.values()))
                assert cell.values[key].mean == pytest.approx(array.mean())
            if len(own) > 1:
                assert cell.values[key].deviation == pytest.approx(array.std(ddof=1))
            shared = sorted(own.keys() & base.keys())
            if cell.is_baseline or not shared:
                continue
            found = stats.ttest_rel([own[s] for s in shared], [base[s] for s in shared])
            differences = np.array([own[s] - base[s] for s in shared])
            assert cell.delta is not None
            assert (cell.delta.mean, cell.delta.n) == (
                pytest.approx(differences.mean()),
                len(shared),
            )
            if np.ptp(differences) > 0:
                ends = tuple(found.confidence_interval(0.95))
                assert (cell.delta.low, cell.delta.high) == pytest.approx(ends)
            if len(shared) > 2 and (np.ptp(differences) > 0 or not differences.any()):
                tested[cell.name] = found.pvalue if differences.any() else 1.0
        p = dict(zip(tested, holm(list(tested.values())), strict=True))
        good = -1 if key == "val/loss" else 1
        for cell in comparison.cells:
            if cell.delta is None or cell.is_baseline:
                continue
            if cell.delta.n < 3:
                verdict = "too few seeds"
            elif p.get(cell.name, 1.0) >= 0.05:
                verdict = "unclear"
            else:
                verdict = "better" if good * cell.delta.mean > 0 else "worse"
            assert (cell.delta.p is None) == (cell.name not in p)
            assert cell.delta.p is None or cell.delta.p == pytest.approx(p[cell.name])
            assert cell.delta.verdict == verdict


def test_a_p_of_just_five_percent_is_no_verdict():
    delta = Delta(1.0, 0.0, 2.0, 3, None, "unclear")
    assert judge(delta, 0.05, Column("top1", "top-1", better="higher")).verdict == "unclear"


def test_the_notes_say_how_many_tests_were_corrected_for():
    found = study("val/top1", a=[1.0, 2.0, 4.0], b=[3.0, 5.0, 9.0], c=[1.0, 2.0], d=[2.0, 3.0, 5.0])
    text = " ".join(notes(found))
    assert "after Holm for 1 cell tested" in text  # c has two seeds, d the same difference in all
    assert "not corrected for the number of cells" in text
    assert "Holm" not in " ".join(notes(study("val/top1", a=[1.0], b=[2.0])))


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("model/macs", 999_700.0, "1M"),
        ("model/macs", 999_400.0, "999k"),
        ("perf/images_per_s", 0.45, "0.45"),
        ("loss", 1e30, "1e+30"),
        ("pooling/gap", 3e-7, "3e-07"),
    ],
)
def test_numbers_of_any_size_can_be_read(key, value, text):
    assert number_text(value, column_of(key)) == text


def test_a_deviation_has_the_digits_of_its_mean():
    found = Estimate(120.0, 3.2, 3)
    assert estimate_text(found, column_of("perf/images_per_s")) == "120 ± 3"


def test_a_number_whose_sum_overflows_does_not_count():
    found = study("val/loss", a=[1.0, 2.0, 3.0], b=[1.6e308, 1.6e308, 1.0])
    assert found.cells[1].values["val/loss"].n == 1


def test_diverged_losses_keep_the_table_in_its_width():
    found = study("val/loss", a=[1.0, 2.0, 3.0], b=[1e30, 2e30, 4e30])
    for block in for_terminal(found, width=80):
        assert all(len("  ".join(row)) <= 80 for row in (block.header, *block.rows))


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        [f"pooling={p},stride=1,width=256" for p in ("isqrt", "isqrt_tri", "cov")],
        [f"a_long_name_with_what_tells_it_in_its_midst_{n}_and_more_of_it" for n in range(40)],
        [f"{a}{'-' * 30}{b}{'-' * 30}{c}" for a in "xy" for b in "xy" for c in "xy"],
    ],
)
def test_shortened_names_stay_apart(names):
    for longest in (22, 24, 32):
        found = shortened(names, longest)
        assert len(set(found)) == len(names)
        assert max(map(len, found)) <= longest
    assert shortened(names, 100) == names


def test_no_text_in_a_csv_is_a_formula():
    names = ["=cmd()", "+1+1", "-2+3", "@SUM(A1)", "-0.5", "plain"]
    found = compare([training(name, cell=name, recipe=name) for name in names], "top1")
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert [row["recipe"] for row in rows] == [
        "'=cmd()", "'+1+1", "'-2+3", "'@SUM(A1)", "-0.5", "plain",
    ]  # fmt: skip


def test_a_caption_of_latex_is_one_paragraph_and_one_sentence_after_the_other():
    found = compare([training("gap")], title="Which\n\npooling [a]?")
    caption = re.search(r"\\caption\{(.*)\}$", to_latex(found), re.MULTILINE)
    assert caption is not None
    assert caption[1].startswith("Which pooling {[}a]? n trainings")


def test_latex_keeps_what_is_compared_and_sets_its_minus():
    found = study("time/train_s", a=[100.0, 101.0, 103.0], b=[90.0, 93.0, 96.0])
    row = next(line for line in to_latex(found).splitlines() if line.lstrip().startswith("p=b"))
    assert r"p=b & 93.0 $\pm$ 3.0 s & $3$ & $-$8.3 s" in row


# --- what is claimed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "is_its"),
    [
        ({"data.path": "/d", "init.weights": "/w", "seed": 7}, True),
        ({"data.path": "/d", "init.weights": "/w", "data.dataset": "StanfordCars"}, False),
        ({"data.path": "/d", "init.weights": "/w", "data.val_split": "train"}, False),
    ],
)
def test_a_published_number_is_of_the_recipes_dataset(given, is_its):
    overrides = [f"{key}={value}" for key, value in given.items()]
    plan = plan_train("aircraft_resnet101_isqrt", overrides, Request(name="x"))
    assert is_published("aircraft_resnet101_isqrt", flatten(plan.spec.config)) is is_its


@pytest.mark.parametrize(("key", "best"), [("val/top1", "b"), ("val/loss", "a"), ("x/y", None)])
def test_the_front_is_of_the_good_direction_or_there_is_none(key, best):
    trainings = [
        training(name, 0, None, cell=name, metrics={key: value, "model/macs": macs})
        for name, value, macs in (("a", 1.0, 5.0), ("b", 2.0, 5.0), ("c", 1.5, 9.0))
    ]
    found = compare(trainings, key)
    (macs,) = cost_columns(found)
    assert [cell.name for cell in front(found, macs)] == ([best] if best else [])
