"""Datasets and models of jobs, on a real MLflow server, and the page that lists them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.profiles import Profile
from orchestrator.drivers.lineage import record_lineage
from orchestrator.jobs.http import HttpClient
from orchestrator.jobs.job import TAG_RESULT, Job
from orchestrator.jobs.store import JobStore
from tests.browser.chromium import Browser
from tests.browser.runs import EPOCHS, make_evaluation, make_training, top1
from workloads.worker.paths import JobPaths

pytestmark = pytest.mark.integration

TRAINED: dict[str, Any] = {
    "epochs": EPOCHS,
    "num_train_images": 1437,
    "num_val_images": 360,
    "num_classes": 10,
    "data_digest": "0123456789abcdef" * 4,
    "weights_sha256": "a" * 64,
}
JUDGED: dict[str, Any] = {
    "num_images": 360,
    "num_classes": 10,
    "data_digest": TRAINED["data_digest"],
    "weights_sha256": TRAINED["weights_sha256"],
}


class Tracking:
    """What MLflow says of runs and models."""

    def __init__(self, profile: Profile) -> None:
        self._client = HttpClient(profile.mlflow_url, profile.token(), what="MLflow")

    def run(self, job: Job) -> dict[str, Any]:
        query = {"run_id": job.run_id}
        return dict(self._client.call("GET", "/api/2.0/mlflow/runs/get", query=query)["run"])

    def models(self, experiment: str) -> list[dict[str, Any]]:
        body = {"experiment_ids": [experiment]}
        answer = self._client.call("POST", "/api/2.0/mlflow/logged-models/search", body)
        return list(answer.get("models", ()))


def close(profile: Profile, job: Job, result: dict[str, Any]) -> None:
    record_lineage(profile, JobStore.of(profile), job, {TAG_RESULT: json.dumps(result)})


@pytest.fixture
def training(profile: Profile, request: pytest.FixtureRequest) -> Job:
    study = f"lineage-{request.node.name.replace('_', '-')[:40]}"
    job = make_training(JobStore.of(profile), study, f"train-{abs(hash(study)) % 10**6}")
    checkpoints = JobPaths(profile.storage_path / job.job_id).checkpoints
    (checkpoints / "step-0000000540").mkdir(parents=True)
    return job


def test_a_training_shows_its_images_and_its_network(profile: Profile, training: Job) -> None:
    close(profile, training, TRAINED)
    close(profile, training, TRAINED)  # as a driver does that was cut off before it could close
    run = Tracking(profile).run(training)
    datasets = {i["tags"][0]["value"]: i["dataset"] for i in run["inputs"]["dataset_inputs"]}
    assert {use: found["name"] for use, found in datasets.items()} == {
        "training": "digits train",
        "validation": "digits val",
    }
    assert {found["digest"] for found in datasets.values()} == {"0123456789ab"}
    counts = {"num_images": 1437, "num_classes": 10}
    assert json.loads(datasets["training"]["profile"]) == counts

    (model,) = Tracking(profile).models(training.experiment_id)
    info = model["info"]
    assert run["outputs"]["model_outputs"] == [{"model_id": info["model_id"], "step": EPOCHS}]
    assert (info["name"], info["status"]) == (training.job_id, "LOGGED_MODEL_READY")
    tags = {tag["key"]: tag["value"] for tag in info["tags"]}
    assert tags["gcpctl.path"].endswith("checkpoints/step-0000000540")
    params = {param["key"]: param["value"] for param in model["data"]["params"]}
    assert params["model.head.pooling.name"] == "isqrt"
    numbers = {m["key"]: (m["value"], m.get("dataset_name")) for m in model["data"]["metrics"]}
    assert numbers["val/top1"] == (pytest.approx(top1(90.0, 0, EPOCHS)), "digits val")
    assert numbers["model/macs"] == (1e6, None)
    # Linking a number to its model repeats no point.
    history = JobStore.of(profile).metric_history(training.run_id, "val/top1")
    assert [epoch for epoch, _ in history] == list(range(1, EPOCHS + 1))


def test_an_evaluation_shows_the_network_that_it_judged(profile: Profile, training: Job) -> None:
    close(profile, training, TRAINED)
    store, study = JobStore.of(profile), "evaluations"
    last = make_evaluation(store, study, f"eval-last-{training.job_id}", training, "last")
    best = make_evaluation(store, study, f"eval-best-{training.job_id}", training, "best")
    for _ in range(2):
        close(profile, last, JUDGED)
        close(profile, best, {**JUDGED, "weights_sha256": "b" * 64})
    models = {m["info"]["name"]: m for m in Tracking(profile).models(training.experiment_id)}
    assert set(models) == {training.job_id, f"{training.job_id}-best"}
    for job, name in ((last, training.job_id), (best, f"{training.job_id}-best")):
        inputs = Tracking(profile).run(job)["inputs"]
        assert inputs["model_inputs"] == [{"model_id": models[name]["info"]["model_id"]}]
        assert [found["dataset"]["name"] for found in inputs["dataset_inputs"]] == ["digits val"]
        numbers = {m["key"]: m["value"] for m in models[name]["data"]["metrics"]}
        assert numbers["eval/top1"] == 91.0


def test_what_cannot_be_recorded_is_said_and_goes_by(
    profile: Profile, training: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    close(profile, training, {"epochs": 3})  # of an earlier release
    assert "datasets and model are not recorded: KeyError: 'num_train_images'" in (
        capsys.readouterr().out
    )
    close(replace(profile, mlflow_url=f"{profile.mlflow_url}/nowhere"), training, TRAINED)
    assert "datasets and model are not recorded: MLflow at" in capsys.readouterr().out
    assert not Tracking(profile).models(training.experiment_id)


def test_the_page_of_models_lists_checkpoints_with_their_numbers(
    profile: Profile, training: Job, browser: Browser, pictures: Path
) -> None:
    close(profile, training, TRAINED)
    page = f"#/experiments/{training.experiment_id}/models?workflowType=machine_learning"
    browser.open(f"{profile.mlflow_url}/{page}")
    browser.wait_for("document.body.innerText.includes('digits val (#0123456789ab)')")
    browser.picture(pictures / "models.png")
    assert training.job_id in browser.text()
