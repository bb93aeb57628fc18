"""The trials of a sweep in the store: runs that the sweep's driver alone makes, fills and ends."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.jobs.http import HttpClient
from orchestrator.jobs.job import PREFIX, Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, MetricPoint

if TYPE_CHECKING:
    from cluster.profiles import Profile

TAG_SECONDS = PREFIX + "seconds"
"""Seconds that a trial held its workers, over all attempts."""

_API = "/api/2.0/mlflow"
_MOST_METRICS = 900
_MOST_PARAMS = 100


class TrialStore(JobStore):
    """A job store that also writes trials, in few requests each."""

    @classmethod
    def of(cls, profile: "Profile", *, timeout_s: float = 10.0) -> "TrialStore":
        """Return the store of a cluster."""
        client = HttpClient(profile.mlflow_url, profile.token(), what="MLflow", timeout_s=timeout_s)
        return cls(client)

    def begin_trial(
        self, name: str, experiment_id: str, tags: Mapping[str, str], *, start_ms: int
    ) -> Job:
        """Create the run of a trial, RUNNING at once: no controller moves it.

        A request whose answer is lost may have made it; look with `trials` before the next.
        """
        body = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": start_ms,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        answer = self._client.call("POST", f"{_API}/runs/create", body, retry=False)
        return Job.from_run(answer["run"])

    def fill_trial(
        self,
        trial: Job,
        *,
        points: Sequence[MetricPoint] = (),
        params: Mapping[str, Any] = {},
        tags: Mapping[str, str] = {},
    ) -> None:
        """Store metrics, params and tags of a trial, most often in one request.

        A point or param stored before, with equal content, stays one.
        """
        metrics = [
            {"key": key, "value": value, "timestamp": time_ms, "step": step}
            for key, value, time_ms, step in points
        ]
        items = [{"key": key, "value": str(value)[:6000]} for key, value in params.items()]
        texts = [{"key": key, "value": value[:8000]} for key, value in tags.items()]
        while metrics or items or texts:
            body = {
                "run_id": trial.run_id,
                "metrics": metrics[:_MOST_METRICS],
                "params": items[:_MOST_PARAMS],
                "tags": texts,
            }
            self._client.call("POST", f"{_API}/runs/log-batch", body)
            metrics, items, texts = metrics[_MOST_METRICS:], items[_MOST_PARAMS:], []

    def set_trial_state(self, trial: Job, state: State, *, end_ms: int | None = None) -> None:
        """End a trial, or take one up again that was stopped with its sweep."""
        body: dict[str, Any] = {"run_id": trial.run_id, "status": state.value}
        if end_ms is not None:
            body["end_time"] = end_ms
        self._client.call("POST", f"{_API}/runs/update", body)
