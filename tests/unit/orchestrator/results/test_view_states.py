"""The JSON of saved views, held to what MLflow's pages take; the browser test opens them."""

import base64
import itertools
import json
import re
import string
import zlib
from typing import Any

import pytest

from orchestrator.results.view_cards import TAG_LIMIT, VIEW_TAG, SavedView, layout, line
from orchestrator.results.view_states import (
    StudyFacts,
    SweepFacts,
    experiment_view,
    study_views,
    sweep_views,
)

STUDY = StudyFacts(
    job_id="pooling-k7x2",
    common_keys=("model.head.pooling.name",),
    all_keys=("model.head.pooling.name", "model.head.pooling.num_iters"),
    metrics=frozenset({"val/top1", "gcp/layer4/cond", "plain"}),
    baseline_run="0123456789abcdef0123456789abcdef",
    baseline_seed=0,
    top1_range=(90.5, 98.0),
)
SWEEP = SweepFacts(
    job_id="tune-lr-k7x2",
    common_keys=("optim.lr",),
    all_keys=("optim.lr", "model.head.pooling.num_iters"),
    objectives=(("val/loss", False), ("model/macs", False)),
)
VIEWS = [*study_views(STUDY), *sweep_views(SWEEP), experiment_view()]
CHARTS = [view for view in VIEWS if view.mode == "CHART"]
TABLES = [view for view in VIEWS if view.mode == "TABLE"]

BACKTICKED = re.compile(r"(metrics|params|tags|attributes)\.`[^`]+`")


def name_of(view: SavedView) -> str:
    return view.view_id


@pytest.mark.parametrize("view", VIEWS, ids=name_of)
def test_a_view_is_found_by_an_id_that_links_need_not_escape(view: SavedView) -> None:
    assert set(view.view_id) <= set(string.ascii_lowercase + string.digits + ".-")
    assert view.tag == VIEW_TAG + view.view_id
    assert len(view.tag) <= 250


def test_each_study_has_ids_of_its_own() -> None:
    assert [view.view_id for view in study_views(STUDY)] == [
        "gcpctl.pooling-k7x2.params",
        "gcpctl.pooling-k7x2.convergence",
        "gcpctl.pooling-k7x2.baseline",
        "gcpctl.pooling-k7x2.table",
    ]


@pytest.mark.parametrize("view", VIEWS, ids=name_of)
def test_the_envelope_is_what_the_menu_reads(view: SavedView) -> None:
    content = json.loads(view.encode(1_795_335_378_277))
    assert isinstance(content["name"], str)
    assert content["createdAt"] == 1_795_335_378_277
    assert json.loads(content["state"]) == view.state  # text within text
    assert len(view.encode(1_795_335_378_277)) < 5_000


@pytest.mark.parametrize("view", VIEWS, ids=name_of)
def test_all_runs_are_searched_in_an_order_that_unfolds_them(view: SavedView) -> None:
    state = view.state
    assert state["runsHiddenMode"] == "SHOW_ALL"
    assert isinstance(state["orderByAsc"], bool)
    if state["orderByKey"] != "attributes.start_time":
        assert BACKTICKED.fullmatch(state["orderByKey"])
    for tag in re.findall(r"tags\.(\S+)", state["searchFilter"]):
        assert re.fullmatch(r"`[^`]+`", tag)
    # MLflow has no IN for tags: it answers with an error in place of the table.
    assert not re.search(r"tags\.`[^`]+` IN", state["searchFilter"])


@pytest.mark.parametrize("view", CHARTS, ids=name_of)
def test_every_card_stands_in_a_section_that_is_open(view: SavedView) -> None:
    cards, sections = view.state["compareRunCharts"], view.state["compareRunSections"]
    opened = {section["uuid"] for section in sections if section["display"]}
    assert cards
    assert {card["metricSectionId"] for card in cards} == opened
    every = [item["uuid"] for item in (*cards, *sections)]
    assert len(set(every)) == len(every)
    assert view.state["isAccordionReordered"] is True


@pytest.mark.parametrize("view", CHARTS, ids=name_of)
def test_cards_have_what_their_kind_needs(view: SavedView) -> None:
    for card in view.state["compareRunCharts"]:
        check_card(card)


def check_card(card: dict[str, Any]) -> None:
    if card["type"] == "LINE":
        assert card["lineSmoothness"] == 0  # without it the curve is smoothed: wrong values
        assert card["xAxisKey"] == "step"
        assert card["metricKey"]
    elif card["type"] == "PARALLEL":
        assert card["selectedParams"]
        assert card["selectedMetrics"]
        assert card["showAllRuns"] is True
    elif card["type"] == "DIFFERENCE":
        assert card["compareGroups"] == ["Model metrics", "Parameters"]
    else:
        assert card["type"] == "SCATTER"
        assert {card["xaxis"]["type"], card["yaxis"]["type"]} == {"METRIC"}


@pytest.mark.parametrize("view", TABLES, ids=name_of)
def test_columns_are_named_with_backticks_and_ordered(view: SavedView) -> None:
    state = view.state
    assert all(BACKTICKED.fullmatch(column) for column in state["columnOrder"])
    assert set(state["selectedColumns"]) <= set(state["columnOrder"])
    assert set(state["columnWidths"]) <= set(state["columnOrder"])  # others have no effect
    assert len(set(state["columnOrder"])) == len(state["columnOrder"])


def test_metrics_that_no_card_shows_are_folded_away() -> None:
    sections = layout([], metrics=STUDY.metrics)["compareRunSections"]
    folded = [section["name"] for section in sections if not section["display"]]
    # MLflow's section of a metric is its name without the last part.
    assert {"gcp/layer4", "val", "train", "Model metrics", "System metrics"} <= set(folded)
    assert "" not in folded


def test_a_study_without_results_has_its_views_already() -> None:
    early = StudyFacts(job_id="s", common_keys=("optim.lr",), all_keys=("optim.lr",))
    views = {view.view_id: view.state for view in study_views(early)}
    (card,) = views["gcpctl.s.baseline"]["compareRunCharts"]
    assert "baselineColumnUuid" not in card
    curves = views["gcpctl.s.convergence"]["compareRunCharts"]
    assert [card["metricKey"] for card in curves] == ["val/top1", "val/loss", "train/loss"]


def test_means_are_of_a_cell_of_this_study() -> None:
    views = {view.view_id.rpartition(".")[2]: view.state for view in study_views(STUDY)}
    keys = [{"mode": "tag", "groupByData": "gcpctl.in.pooling-k7x2"}]
    for word in ("convergence", "table"):
        assert views[word]["groupBy"] == {"aggregateFunction": "average", "groupByKeys": keys}
    for word in ("params", "baseline"):  # MLflow draws these empty when grouped
        assert "groupBy" not in views[word]
    assert views["baseline"]["searchFilter"].endswith("AND tags.`gcpctl.seed` = '0'")


def test_a_sweep_is_sorted_by_what_it_searches() -> None:
    views = {view.view_id.rpartition(".")[2]: view.state for view in sweep_views(SWEEP)}
    assert views["table"]["orderByKey"] == "metrics.`val/loss`"
    assert views["table"]["orderByAsc"] is True  # the smallest loss on top
    parallel = views["params"]["compareRunCharts"][0]
    assert parallel["selectedParams"] == ["optim.lr"]  # all trials have it
    assert parallel["selectedMetrics"] == ["model/macs", "val/loss"]  # the last one colours
    drawn = [card["metricKey"] for card in views["convergence"]["compareRunCharts"]]
    assert drawn == ["val/loss", "train/loss"]  # a constant has no course


def test_a_large_view_is_compressed_as_the_pages_read_it() -> None:
    state = {"cards": [line(f"metric-{number}") for number in range(300)]}
    value = SavedView("v", "many", "CHART", state).encode(1)
    assert len(value) <= TAG_LIMIT
    packed = json.loads(value)["state"]
    assert packed.startswith("deflate;")
    text = zlib.decompress(base64.b64decode(packed.removeprefix("deflate;")))
    assert json.loads(text) == state


def test_a_view_too_large_for_mlflow_is_refused() -> None:
    letters = itertools.islice(itertools.cycle(string.printable), 10)
    state = {f"{number**7}": "".join(letters) for number in range(5_000)}
    with pytest.raises(ValueError, match="too many"):
        SavedView("v", "endless", "CHART", state).encode(1)
