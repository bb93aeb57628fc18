"""MLflow's datasets and models: what a run read, what it made, and the numbers of both.

A model here is a record that names a checkpoint on the cluster's storage; no weights are copied.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.jobs.http import HttpClient
from orchestrator.jobs.store import safe_text

if TYPE_CHECKING:
    from cluster.profiles import Profile

_API = "/api/2.0/mlflow"
_READY = "LOGGED_MODEL_READY"
_DIGEST_CHARACTERS = 12
"""Of the 64 that ours have; MLflow takes 36."""
_PARAM_LIMIT = 6000
_MODEL_PARAMS = 100


@dataclass(frozen=True)
class Dataset:
    """One split of a source of images.

    MLflow tells datasets apart by name and digest and keeps the rest as it was first said, so all
    of it must follow from these two.

    Attributes:
        context: What a run used it for: `training`, `validation`, `evaluation`.
        source: Where the images are, as the config says.
        channels: Of an image.
        profile: Counts, by their names.
    """

    name: str
    digest: str
    context: str
    kind: str
    source: Mapping[str, Any]
    channels: int
    profile: Mapping[str, int]

    @property
    def short_digest(self) -> str:
        """The part of the digest that MLflow has room for."""
        return self.digest[:_DIGEST_CHARACTERS]

    def to_json(self) -> dict[str, Any]:
        """Return it as MLflow's API takes it."""
        return {
            "tags": [{"key": "mlflow.data.context", "value": self.context}],
            "dataset": {
                "name": self.name,
                "digest": self.short_digest,
                "source_type": self.kind,
                "source": json.dumps(self.source),
                "schema": json.dumps({"mlflow_tensorspec": self._tensors()}),
                "profile": json.dumps(self.profile),
            },
        }

    def _tensors(self) -> dict[str, str]:
        """Return the images and labels as MLflow describes tensors; sizes are the config's."""
        images = {"dtype": "uint8", "shape": [-1, self.channels, -1, -1]}
        labels = {"dtype": "int64", "shape": [-1]}
        return {
            "features": json.dumps([{"type": "tensor", "tensor-spec": images}]),
            "targets": json.dumps([{"type": "tensor", "tensor-spec": labels}]),
        }


@dataclass(frozen=True)
class ModelRecord:
    """What MLflow knows of a checkpoint.

    Attributes:
        name: Of MLflow's alphabet; it need not be unique.
        source_run: The run that trained it.
        params: Its network, flat.
    """

    name: str
    source_run: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]


class LineageStore:
    """Reads and writes datasets and models of runs; all of it may be repeated."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    @classmethod
    def of(cls, profile: "Profile", *, timeout_s: float = 10.0) -> "LineageStore":
        """Return the store of a cluster."""
        token = profile.token()
        return cls(HttpClient(profile.mlflow_url, token, what="MLflow", timeout_s=timeout_s))

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()

    def add_inputs(
        self, run_id: str, datasets: Sequence[Dataset], models: Sequence[str] = ()
    ) -> None:
        """Say what a run read.

        Args:
            models: Ids of the models that it judged.
        """
        body = {
            "run_id": run_id,
            "datasets": [dataset.to_json() for dataset in datasets],
            "models": [{"model_id": model} for model in models],
        }
        self._client.call("POST", f"{_API}/runs/log-inputs", body)

    def find_model(self, experiment_id: str, source_run: str, tag: str, value: str) -> str | None:
        """Return the id of the oldest finished model of a run with this tag; None if none."""
        body = {
            "experiment_ids": [experiment_id],
            "filter": f"source_run_id = '{safe_text(source_run)}' "
            f"AND tags.`{tag}` = '{safe_text(value)}'",
            "order_by": [{"field_name": "creation_timestamp", "ascending": True}],
        }
        answer = self._client.call("POST", f"{_API}/logged-models/search", body)
        ready = [m["info"] for m in answer.get("models", ()) if m["info"]["status"] == _READY]
        return str(ready[0]["model_id"]) if ready else None

    def create_model(self, experiment_id: str, model: ModelRecord) -> str:
        """Record a model and return its id."""
        params = list(model.params.items())[:_MODEL_PARAMS]
        body = {
            "experiment_id": experiment_id,
            "name": model.name,
            "model_type": "gcp network",
            "source_run_id": model.source_run,
            "params": [{"key": key, "value": str(v)[:_PARAM_LIMIT]} for key, v in params],
            "tags": [{"key": key, "value": value} for key, value in model.tags.items()],
        }
        answer = self._client.call("POST", f"{_API}/logged-models", body, retry=False)
        model_id = str(answer["model"]["info"]["model_id"])
        # Until this it is PENDING, and nobody finds one whose maker died here.
        body = {"model_id": model_id, "status": _READY}
        self._client.call("PATCH", f"{_API}/logged-models/{model_id}", body)
        return model_id

    def add_output(self, run_id: str, model_id: str, step: int) -> None:
        """Say which model a run made."""
        run = self._client.call("GET", f"{_API}/runs/get", query={"run_id": run_id})["run"]
        made = run.get("outputs", {}).get("model_outputs", ())
        if all(output["model_id"] != model_id for output in made):  # MLflow refuses it twice
            body = {"run_id": run_id, "models": [{"model_id": model_id, "step": step}]}
            self._client.call("POST", f"{_API}/runs/outputs", body)

    def link_metrics(
        self, run_id: str, model_id: str, datasets: Mapping[str, Dataset | None]
    ) -> None:
        """Say of which model, on which images, a run's newest numbers are.

        The points themselves stay as they are, and stay one.

        Args:
            datasets: First part of a metric's name -> the images; None for a number of the model
                itself. Other metrics are not the model's.
        """
        run = self._client.call("GET", f"{_API}/runs/get", query={"run_id": run_id})["run"]
        metrics = []
        for metric in run["data"].get("metrics", ()):
            part = metric["key"].partition("/")[0]
            if part not in datasets:
                continue
            point = {key: metric[key] for key in ("key", "value", "timestamp", "step")}
            if (dataset := datasets[part]) is not None:
                point |= {
                    "dataset_name": dataset.name,
                    "dataset_digest": dataset.short_digest,
                }
            metrics.append(point | {"model_id": model_id})
        if metrics:
            body = {"run_id": run_id, "metrics": metrics}
            self._client.call("POST", f"{_API}/runs/log-batch", body)
