"""Drawings: readable wherever they stand, the same bytes for the same numbers."""

import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.results import curve_figures, figures
from orchestrator.results.drawing import draw, inline, spread
from orchestrator.results.page_style import LIGHT
from orchestrator.results.study_report import gather
from tests.unit.orchestrator.results.studies import StudyStore, whole_study

NUMBERS = st.floats(-1e3, 1e3)


@given(st.lists(NUMBERS, max_size=12), st.floats(0.01, 10.0))
def test_spread_keeps_order_and_distance_and_moves_no_more_than_needed(places, gap):
    moved = spread(places, gap)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for one, other in itertools.pairwise(order):
        assert moved[other] - moved[one] >= gap - 1e-6
    # Where no two are too close, nothing moves.
    apart = all(places[b] - places[a] >= gap for a, b in itertools.pairwise(order))
    if apart:
        assert moved == pytest.approx(places)
    # Least squares: the mean stays where it was.
    assert sum(moved) == pytest.approx(sum(places), abs=1e-6)


def test_three_in_one_place_are_spread_around_it():
    assert spread([5.0, 5.0, 5.0, 20.0], 2.0) == [3.0, 5.0, 7.0, 20.0]


def test_names_are_short_where_one_factor_tells_all():
    assert figures.short_names(["pooling=gap", "pooling=isqrt"]) == {
        "pooling=gap": "gap",
        "pooling=isqrt": "isqrt",
    }
    two = ["pooling=gap,stride=2", "pooling=isqrt"]
    assert figures.short_names(two) == dict(zip(two, two, strict=True))


@pytest.fixture(scope="module")
def deltas() -> bytes:
    store = StudyStore(whole_study())
    report = gather(store, store.study)  # type: ignore[arg-type]
    drawn = figures.deltas(report.comparison)
    assert drawn is not None
    return drawn["svg"]


def test_a_drawing_is_a_picture_without_dates(deltas):
    root = ElementTree.fromstring(deltas)
    assert root.tag.endswith("svg")
    assert b"date" not in deltas.lower()
    assert b"<text" not in deltas  # letters are shapes: no reader needs the font


def test_in_a_page_it_has_the_pages_colours_and_ids_of_its_own(deltas):
    element = inline(deltas, "deltas")
    root = ElementTree.fromstring(element)
    assert "width" not in root.attrib
    assert "viewBox" in root.attrib
    ids = re.findall(r'\bid="([^"]+)"', element)
    assert ids
    assert all(name.startswith("deltas-") for name in ids)
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', element)
    assert {a or b for a, b in used} <= set(ids)
    # Every colour follows the reader's choice of light or dark.
    assert "var(--ink)" in element
    assert re.findall(r"#[0-9a-f]{6}\b", element) == []


def test_a_dollar_in_a_name_is_no_formula():
    def paint(figure):
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LIGHT["c1"])
        axes.set_title("a $x_ <b> & é")
        axes.set_yticks([0, 1], ["$", "$$"])

    assert ElementTree.fromstring(draw(1.5, paint)["svg"]) is not None


@pytest.mark.parametrize("count", [2, 9])
def test_few_and_many_cells_are_drawn(count, monkeypatch):
    from tests.unit.orchestrator.results import studies

    levels = ["gap", *(f"level{i}" for i in range(1, count))]
    top1 = {level: (90.0 + i, 90.5 + i) for i, level in enumerate(levels)}
    monkeypatch.setattr(studies, "TOP1", top1)
    store = StudyStore(whole_study(levels=levels, seeds=(0, 1)))
    report = gather(store, store.study)  # type: ignore[arg-type]
    for drawn in (
        curve_figures.convergence_bands(report.comparison, report.curves),
        figures.deltas(report.comparison),
    ):
        assert drawn is not None
        assert drawn["pdf"].startswith(b"%PDF")
