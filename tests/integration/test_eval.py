"""Evaluation jobs on a real cluster: from a training to numbers, files and predictions."""

import json
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.jobs.job import Job
from orchestrator.jobs.states import State
from tests.live import Live, wait_for

pytestmark = pytest.mark.integration

FILES = {
    "calibration.png",
    "confusion_matrix.csv",
    "confusion_matrix.png",
    "metrics.json",
    "most_confused.csv",
    "per_class.csv",
    "predictions.parquet",
}
SHORT = ("epochs=2", "schedule.warmup_epochs=0", "job.num_workers=1")


@pytest.fixture(scope="module")
def trained(live: Live) -> Job:
    """A finished training of digits, of two epochs."""
    job = live.wait_final(live.submit("--name", "judged", *SHORT))
    assert job.state is State.FINISHED, job.reason
    return job


def evaluation(live: Live, name: str) -> Path:
    return live.profile.storage_path / name / "evaluation"


def test_the_number_of_workers_changes_nothing(live: Live, trained: Job):
    said = live.gcpctl("submit", "eval", "-c", "judged", "--name", "one", "--follow").stdout
    live.gcpctl("submit", "eval", "-c", "judged", "--name", "two", "--workers", "2")
    one, two = live.wait_final("one"), live.wait_final("two")
    assert two.state is State.FINISHED, two.reason
    files = {path.name for path in evaluation(live, "one").iterdir()}
    assert files == FILES
    for name in FILES:
        same = (evaluation(live, folder) / name for folder in ("one", "two"))
        assert len({path.read_bytes() for path in same}) == 1, name
    # The best checkpoint's number is what its training said of it, to the last image.
    assert one.metrics["eval/top1"] == trained.result["best_top1"]
    assert one.result["num_images"] == trained.result["num_val_images"]
    assert set(live.store.list_artifacts(one, "evaluation")) == {f"evaluation/{n}" for n in FILES}
    stored = json.loads(live.store.read_artifact(one, "evaluation/metrics.json"))
    assert stored["top1"] == one.metrics["eval/top1"]
    assert one.experiment_id == trained.experiment_id  # so that MLflow shows them side by side
    assert one.tags["gcpctl.evaluated_job"] == "judged"
    assert f"top-1        {one.metrics['eval/top1']:.2f} %" in said
    status = live.status("one")
    assert (status["kind"], status["checkpoint"]) == ("eval", "judged:best")
    assert status["result"]["ece"] == pytest.approx(one.metrics["eval/ece"])


@pytest.fixture(scope="module")
def in_mlflow(live: Live, trained: Job) -> str:
    """Its best weights as MLflow holds them, where no submit looks into them."""
    checkpoints = live.profile.storage_path / "judged" / "checkpoints"
    best = json.loads((checkpoints / "best.json").read_text())["step"]
    state = (checkpoints / f"step-{best:010d}" / "state.pt").read_bytes()
    live.store.put_artifact(trained, "kept/best.pt", state)
    return f"runs:/{trained.run_id}/kept"


def test_weights_out_of_mlflow(live: Live, trained: Job, in_mlflow: str):
    uri = in_mlflow
    missing = live.gcpctl("submit", "eval", "-c", f"{uri}/no.pt", "--data", "digits", check=False)
    assert missing.returncode == 5
    assert "kept/best.pt" in missing.stderr
    live.gcpctl("submit", "eval", "-c", uri, "--data", "digits", "--name", "fetched")
    job = live.wait_final("fetched")
    assert job.state is State.FINISHED, job.reason
    assert job.metrics["eval/top1"] == trained.result["best_top1"]


def test_an_evaluation_waits_for_its_training(live: Live):
    live.submit("--name", "later", *SHORT)
    early = live.gcpctl("submit", "eval", "-c", "later", check=False)
    if early.returncode:  # unless it has saved its first checkpoint already
        assert early.returncode == 5
        assert "--after later" in early.stderr
    live.gcpctl("submit", "eval", "-c", "later:last", "--after", "later", "--name", "waited")
    job = live.wait_final("waited")
    assert job.state is State.FINISHED, job.reason
    assert job.raw_spec["config"]["weights"].endswith("/later:last")  # found when it started
    assert job.metrics["eval/top1"] == live.wait_final("later").result["val_top1"]


def test_classes_in_another_order_are_explained_and_not_scored(live: Live, in_mlflow: str):
    """At submit, and by the worker where submit could not look."""
    swapped = "classes=['1','0','2','3','4','5','6','7','8','9']"
    options = ("--follow", "--name", "swapped", swapped)
    refused = live.gcpctl("submit", "eval", "-c", "judged", *options, check=False)
    assert refused.returncode == 2
    assert "the same 10 classes in another order" in refused.stderr
    assert live.gcpctl("status", "swapped", check=False).returncode == 5
    answer = live.gcpctl(
        "submit", "eval", "-c", in_mlflow, "--data", "digits", *options, check=False
    )
    job = live.wait_final("swapped")
    assert answer.returncode == 10
    assert (job.state, job.attempt) == (State.FAILED, 1)  # a user's error is not tried again
    assert "order" in job.reason
    assert not {key for key in job.metrics if key.startswith("eval/")}
    assert not evaluation(live, "swapped").exists()
    assert "order" in live.gcpctl("logs", "swapped").stdout
    assert "order" in live.gcpctl("status", "swapped").stdout


def test_a_stop_ends_it_without_a_result(live: Live, trained: Job):
    slow = ("split=train", "crops=ten", "images.resize=10", "batch_size=1")
    live.gcpctl("submit", "eval", "-c", "judged", "--name", "stopped", *slow)
    wait_for("a batch", lambda: live.status("stopped")["progress"].get("global_step"))
    live.gcpctl("stop", "stopped", "--wait")
    job = live.wait_final("stopped")
    assert job.state is State.KILLED
    assert "nothing was recorded" in job.reason
    assert not evaluation(live, "stopped").exists()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("-c", "jugded"), 5, "did you mean 'judged'"),
        (("-c", "judged:7"), 5, "it has judged:"),
        (("-c", "judged", "--data", "/no/such"), 5, "/no/such"),
        (("-c", "judged", "--workers", "64"), 7, "--workers 2"),
        (("-c", "judged", "images.sise=9"), 2, "did you mean"),
        (("-c", "models:/no/1", "--data", "digits"), 5, "registry"),
        (("-c", "judged", "--name", "judged"), 6, "already"),
    ],
)
def test_mistakes_are_met_at_submit(live: Live, trained: Job, args, code, words):
    answer = live.gcpctl("submit", "eval", *args, check=False)
    assert words in answer.stderr
    assert answer.returncode == code


def test_predict_with_a_jobs_checkpoint(live: Live, trained: Job, tmp_path):
    Image.new("L", (8, 8), 0).save(tmp_path / "empty.png")
    answer = live.gcpctl("predict", str(tmp_path), "-c", "judged", "-o", "json")
    found = json.loads(answer.stdout)
    assert [guess["class"] for guess in found["images"][0]["predictions"]] != []
    assert found["classes_known"]
