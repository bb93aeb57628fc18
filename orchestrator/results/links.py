"""Links into the MLflow UI."""

import json
import urllib.parse
from collections.abc import Sequence

from orchestrator.jobs.job import Job

# Without it a first visitor gets the sidebar for language models.
_SIDEBAR = "workflowType=machine_learning"


def run_page(job: Job) -> str:
    """Return the address of a job's page, to be put behind that of the server."""
    return f"#/experiments/{job.experiment_id}/runs/{job.run_id}?{_SIDEBAR}"


def artifact_page(experiment_id: str, run_id: str, path: str) -> str:
    """Return the address of a run's file, to be put behind that of the server."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{path}?{_SIDEBAR}"


def start_page() -> str:
    """Return the address of the list of studies, to be put behind that of the server."""
    return f"#/experiments?{_SIDEBAR}"


def view_page(experiment_id: str, view_id: str, mode: str) -> str:
    """Return the address of a saved view, to be put behind that of the server.

    Args:
        mode: `CHART` or `TABLE`. The view does not hold it, and any parameter of the search that
            is added would make the UI ignore the view without a word.
    """
    return (
        f"#/experiments/{experiment_id}/runs?viewStateShareKey={view_id}"
        f"&compareRunsMode={mode}&{_SIDEBAR}"
    )


def compare_page(run_ids: Sequence[str], experiment_ids: Sequence[str]) -> str:
    """Return the address of MLflow's own page of runs side by side."""
    runs, experiments = (
        urllib.parse.quote(json.dumps(list(ids), separators=(",", ":")))
        for ids in (run_ids, experiment_ids)
    )
    return f"#/compare-runs?runs={runs}&experiments={experiments}&{_SIDEBAR}"
