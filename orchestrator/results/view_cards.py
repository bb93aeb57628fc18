"""What a saved view of the MLflow UI is made of: its tag, its search, its charts, its columns.

The format is MLflow's own and undocumented. It is held to `TESTED_MLFLOW` by a test that opens
views in a browser; nearly every mistake in it falls back to default charts without a message.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

TESTED_MLFLOW = "3.17.2"
VIEW_TAG = "mlflow.sharedViewState."
"""Prefix of the experiment tags that are views; the rest of the tag's key is the view's id."""
TAG_LIMIT = 20_000
"""Characters that MLflow takes as an experiment tag's value."""

# MLflow adds a chart for every metric that no card names, in the section of its prefix. A closed
# section for each keeps these out of sight, a click away.
_PREFIXES = (
    "eval",
    "model",
    "optim",
    "perf",
    "pooling",
    "progress",
    "time",
    "train",
    "val",
)
_MLFLOW_SECTIONS = ("Model metrics", "System metrics")
_COLUMN_PX, _NAME_PX = 130, 340

State = dict[str, Any]
Card = dict[str, Any]


@dataclass(frozen=True)
class SavedView:
    """One named view of an experiment.

    Attributes:
        view_id: Ends the tag's key and stands in links: letters, digits, `.` and `-`.
        name: What the UI's menu of views calls it.
        mode: How its link opens it; MLflow does not keep that with the view.
        state: What is searched, sorted, grouped and drawn.
    """

    view_id: str
    name: str
    mode: Literal["CHART", "TABLE"]
    state: State = field(compare=False)

    @property
    def tag(self) -> str:
        """Key of the experiment tag."""
        return VIEW_TAG + self.view_id

    def encode(self, created_ms: int) -> str:
        """Return the tag's value.

        Args:
            created_ms: Decides the order in the menu, so a view that is rewritten keeps it.

        Raises:
            ValueError: It is too large for MLflow even when compressed.
        """
        text = json.dumps(self.state, separators=(",", ":"), ensure_ascii=False)
        value = self._envelope(text, created_ms)
        if len(value) > TAG_LIMIT:
            packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
            value = self._envelope(f"deflate;{packed}", created_ms)
        if len(value) > TAG_LIMIT:
            raise ValueError(f"the view {self.name!r} has {len(value)} characters: too many")
        return value

    def _envelope(self, state: str, created_ms: int) -> str:
        content = {"name": self.name, "createdAt": created_ms, "state": state}
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Section:
    """Charts under one heading.

    Attributes:
        height: Of a chart, in pixels.
        columns: Charts beside each other.
    """

    name: str
    cards: Sequence[Card]
    height: int = 440
    columns: int = 2


def search(where: str, *, order_by: str, ascending: bool = False) -> State:
    """Return which runs are shown, and in which order.

    Args:
        where: MLflow's filter text.
        order_by: A metric, or an attribute with its prefix.
    """
    # Sorted by anything but the time of creation, rows do not nest: children of a parent that is
    # folded up would not be drawn at all.
    key = order_by if order_by.startswith("attributes.") else f"metrics.`{order_by}`"
    return {
        "searchFilter": where,
        "orderByKey": key,
        "orderByAsc": ascending,
        "runsHiddenMode": "SHOW_ALL",  # ten are drawn otherwise
    }


def means_over(tag: str) -> State:
    """Group runs by a tag: charts and rows show the mean of each group."""
    keys = [{"mode": "tag", "groupByData": tag}]
    return {"groupBy": {"aggregateFunction": "average", "groupByKeys": keys}}


def layout(sections: Sequence[Section], *, metrics: Iterable[str]) -> State:
    """Return charts and their sections.

    Args:
        metrics: Names of metrics that runs have besides the usual ones.
    """
    drawn: list[Card] = []
    shown: list[State] = []
    for section in sections:
        section_id = f"s{len(shown)}"
        shown.append(
            {
                "uuid": section_id,
                "name": section.name,
                "display": True,
                "columns": section.columns,
                "cardHeight": section.height,
            }
        )
        for card in section.cards:
            drawn.append({"uuid": f"c{len(drawn)}", "metricSectionId": section_id, **card})
    prefixes = sorted({*_PREFIXES, *(key.rpartition("/")[0] for key in metrics)} - {""})
    closed = [
        {"uuid": f"a{number}", "name": name, "display": False}
        for number, name in enumerate((*prefixes, *_MLFLOW_SECTIONS))
    ]
    # Without either list MLflow draws its own charts instead.
    return {
        "isAccordionReordered": True,
        "compareRunCharts": drawn,
        "compareRunSections": shown + closed,
    }


def table(columns: Sequence[str]) -> State:
    """Return the columns of a table, in their order, behind the run's name."""
    name = "attributes.`Run Name`"
    return {
        "selectedColumns": list(columns),
        "columnOrder": [name, *columns],
        "columnWidths": {name: _NAME_PX} | {column: _width(column) for column in columns},
    }


def _width(column: str) -> int:
    """Return room for a column's heading, in pixels; numbers have as many digits as they have."""
    heading = column.split("`")[1]
    return min(max(_COLUMN_PX, 8 * len(heading) + 40), _NAME_PX)


def parallel(params: Sequence[str], metrics: Sequence[str]) -> Card:
    """Return parallel coordinates; the last metric colours the lines.

    A run that lacks one of the keys is not drawn.
    """
    return {
        "type": "PARALLEL",
        "selectedParams": list(params),
        "selectedMetrics": list(metrics),
        "showAllRuns": True,
    }


def line(metric: str, y_range: tuple[float, float] | None = None) -> Card:
    """Return a metric by epoch."""
    # Without lineSmoothness the UI draws a smoothed curve: wrong values, and nothing says so.
    card = {"type": "LINE", "metricKey": metric, "lineSmoothness": 0, "xAxisKey": "step"}
    return card | ({"range": {"yMin": y_range[0], "yMax": y_range[1]}} if y_range else {})


def scatter(x_metric: str, y_metric: str) -> Card:
    """Return a metric against another."""
    x_axis, y_axis = ({"key": metric, "type": "METRIC"} for metric in (x_metric, y_metric))
    return {"type": "SCATTER", "xaxis": x_axis, "yaxis": y_axis}


def difference(title: str, baseline_run: str) -> Card:
    """Return a table of what differs from a run, which must be among those that are shown.

    Args:
        baseline_run: Its run id; empty takes the first one of the list.
    """
    card: Card = {
        "type": "DIFFERENCE",
        "chartName": title,
        "compareGroups": ["Model metrics", "Parameters"],
        "showChangeFromBaseline": True,
        "showDifferencesOnly": True,
    }
    return card | ({"baselineColumnUuid": baseline_run} if baseline_run else {})
