"""The points of one metric of many runs, in few requests.

MLflow has a request for this that its own UI uses and its documentation does not name; where a
server lacks it, run by run gives the same.
"""

import urllib.parse
from collections.abc import Callable, Sequence

from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.http import HttpClient

Points = list[tuple[int, float]]
"""(step, value), in the order of storage."""

_BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
_MOST_RUNS = 100
_MOST_POINTS = 25_000
"""Limits of the server; it cuts an answer there without a word."""


def metric_histories(
    client: HttpClient, run_ids: Sequence[str], key: str, one: Callable[[str, str], Points]
) -> dict[str, Points]:
    """Return all points of a metric by run id; a run without any has an empty list.

    Args:
        one: Returns the points of one run, completely.
    """
    found: dict[str, Points] = {}
    for start in range(0, len(run_ids), _MOST_RUNS):
        some = run_ids[start : start + _MOST_RUNS]
        try:
            found |= _together(client, some, key) or {run: one(run, key) for run in some}
        except NotFoundError:
            found |= {run: one(run, key) for run in some}
    return found


def _together(client: HttpClient, run_ids: Sequence[str], key: str) -> dict[str, Points] | None:
    """Return the points of some runs in one request; None where the answer may have been cut."""
    pairs = [*(("run_id", run) for run in run_ids), ("metric_key", key)]
    answer = client.call("GET", f"{_BULK}?{urllib.parse.urlencode(pairs)}")
    points = answer.get("metrics", ())
    if len(points) >= _MOST_POINTS:
        return None
    found: dict[str, Points] = {run: [] for run in run_ids}
    for point in points:
        found[point["run_id"]].append((int(point["step"]), float(point["value"])))
    return found
