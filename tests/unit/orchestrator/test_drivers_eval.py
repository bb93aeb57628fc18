"""The evaluation's driver, as far as it needs no cluster."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.profiles import Profile
from orchestrator.drivers import weights
from orchestrator.drivers.evaluate import _result, run_evaluation_job
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.drivers.weights import locate_weights
from orchestrator.jobs.errors import ApiError, NotFoundError
from orchestrator.jobs.job import TAG_KIND, TAG_RESULT, TAG_SPEC, Job
from orchestrator.jobs.plan_eval import KnownNetwork, plan_eval
from orchestrator.jobs.states import State
from orchestrator.results import evaluation
from orchestrator.results.status import details, row, to_json
from tests.unit.orchestrator.test_checkpoints import profile_of, save
from tests.unit.orchestrator.test_plan_eval import request, trained
from workloads.worker.paths import JobPaths

RESULT = {
    "stopped": False,
    "top1": 90.5,
    "top5": 99.0,
    "loss": None,
    "num_images": 359,
    "network": "small_resnet with isqrt",
    "notes": ["10 bad images were left out"],
    "config": {"weights": "/w"},
    "metrics": {"top1": 90.5, "top5": 99.0, "ece": 0.01, "mce": float("nan")},
}


class Store:
    """Takes metrics and files; refuses the files it is told to."""

    def __init__(self, *, refuse: str = "") -> None:
        self.refuse = refuse
        self.points: list[tuple[str, float, int, int]] = []
        self.files: dict[str, bytes] = {}

    def log_metrics(self, job, points):
        self.points += points

    def put_artifact(self, job, name, content):
        if name.endswith(self.refuse or "?"):
            raise ApiError("too large", status=413, text="")
        self.files[name] = content


@pytest.fixture
def paths(tmp_path) -> JobPaths:
    found = JobPaths(tmp_path / "storage" / "eval-a")
    found.evaluation.mkdir(parents=True)
    return found


def make_job(state: State = State.RUNNING, **tags: str) -> Job:
    spec = plan_eval(trained(), KnownNetwork(), (), request(name="eval-a")).spec
    given = {
        TAG_KIND: "eval",
        "gcpctl.job_id": "eval-a",
        "gcpctl.attempt": "1",
        "gcpctl.checkpoint": "train-a:best",
        TAG_SPEC: json.dumps(spec.model_dump(mode="json")),
        "mlflow.note.content": "what was asked",
    }
    return Job("r", "1", state, given | tags, {}, 0, 1000, "mlflow-artifacts:/1/r/artifacts")


def write_result(paths: JobPaths, result=RESULT) -> None:
    paths.result.write_text(json.dumps(result))
    (paths.evaluation / "metrics.json").write_text("{}")
    (paths.evaluation / "predictions.parquet").write_bytes(b"PAR1")
    (paths.evaluation / ".part").write_bytes(b"")


def test_numbers_and_files_are_stored_with_the_job(paths):
    store = Store()
    write_result(paths)
    outcome = _result(store, make_job(), paths)
    assert outcome.kind == "finished"
    assert outcome.reason == "top-1 90.50 %, top-5 99.00 %"
    assert {(key, value, step) for key, value, _, step in store.points} == {
        ("eval/top1", 90.5, 0),
        ("eval/top5", 99.0, 0),
        ("eval/ece", 0.01, 0),  # a number that is none stays in metrics.json
    }
    assert len({time_ms for _, _, time_ms, _ in store.points}) == 1
    assert set(store.files) == {"evaluation/metrics.json", "evaluation/predictions.parquet"}
    result = json.loads(outcome.tags[TAG_RESULT])
    assert result["num_images"] == 359
    assert result["notes"] == RESULT["notes"]
    assert result["files"] == sorted(store.files)
    assert "config" not in result
    assert outcome.tags["mlflow.note.content"].startswith("what was asked\n\n| metric")


def test_a_file_that_the_server_refuses_costs_nothing_else(paths, capsys):
    store = Store(refuse=".parquet")
    write_result(paths)
    outcome = _result(store, make_job(), paths)
    assert outcome.kind == "finished"
    assert json.loads(outcome.tags[TAG_RESULT])["files"] == ["evaluation/metrics.json"]
    said = capsys.readouterr().out
    assert str(paths.evaluation / "predictions.parquet") in said


def test_a_result_always_fits_into_a_tag(paths):
    long = {**RESULT, "network": "n" * 50_000, "notes": ["ü" * 9_000] * 50}
    write_result(paths, long)
    assert len(_result(Store(), make_job(), paths).tags[TAG_RESULT]) < 8000


def test_a_stop_and_a_missing_result(paths):
    assert _result(Store(), make_job(), paths).failure_class == "infrastructure"
    paths.result.write_text('{"stopped": true}')
    store = Store()
    assert _result(store, make_job(), paths).kind == "stopped"
    assert store.points == []


def test_a_missing_checkpoint_is_the_users_to_mend(paths):
    outcome = run_evaluation_job(
        profile_of(paths.root.parent),
        make_job(),
        1,
        paths,
        StopSignal(paths),
        lambda *args, **kwargs: pytest.fail("it was run"),
    )
    assert (outcome.kind, outcome.failure_class) == ("failed", "user")
    assert "the cluster sees no" in outcome.reason


# --- where the weights are -----------------------------------------------------------------------


def locate(text: str, paths: JobPaths) -> Path:
    return locate_weights(profile_of(paths.root.parent), text, paths)


def test_a_checkpoint_that_was_waited_for_is_found_now(paths):
    trained_in = paths.root.parent / "train-a"
    save(trained_in, 4, 8, best=4)
    assert locate(f"{trained_in}:best", paths).name == "step-0000000004"
    assert locate(f"{trained_in}:last", paths).name == "step-0000000008"
    assert locate(str(trained_in / "checkpoints" / "step-0000000008"), paths).is_dir()


def test_a_checkpoint_that_was_tidied_away_says_so(paths):
    trained_in = paths.root.parent / "train-a"
    save(trained_in, 8, best=8)
    with pytest.raises(NotFoundError, match="train-a went on") as caught:
        locate(str(trained_in / "checkpoints" / "step-0000000004"), paths)
    assert "train-a:best" in caught.value.hint


def download_of(files: list[str], seen: list[str]):
    def download(artifact_uri: str, dst_path: str) -> str:
        seen.append(artifact_uri)
        for name in files:
            path = Path(dst_path) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return dst_path

    return download


@pytest.fixture
def cluster(paths) -> Profile:
    token = paths.root.parent / "token"
    token.write_text("secret")
    token.chmod(0o600)
    return profile_of(paths.root.parent)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, "")


def test_an_artifact_is_fetched_once_for_all_attempts(paths, cluster, monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr(weights, "_fetch", download_of(["model/data/net.pth", "MLmodel"], seen))
    for _ in range(2):
        found = locate_weights(cluster, "runs:/r/model", paths)
        assert found == paths.root / "weights" / "model" / "data" / "net.pth"
    assert seen == ["runs:/r/model"]


@pytest.mark.parametrize(
    ("files", "words"),
    [(["MLmodel"], "no file of weights \\(MLmodel\\)"), (["a.pth", "b.pt"], "several files")],
)
def test_an_artifact_without_one_file_of_weights(paths, cluster, monkeypatch, files, words):
    monkeypatch.setattr(weights, "_fetch", download_of(files, []))
    with pytest.raises(NotFoundError, match=words):
        locate_weights(cluster, "models:/birds/3", paths)


def test_the_driver_of_an_evaluation_needs_no_torch_and_no_mlflow():
    code = (
        "import sys, orchestrator.drivers.evaluate\n"
        "print(*{'torch', 'mlflow', 'ray', 'numpy'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "", answer.stdout + answer.stderr


# --- what people see of it -----------------------------------------------------------------------

METRICS = {"eval/top1": 90.5, "eval/loss": 0.25, "eval/ece": 0.0123, "eval/other": 1.0}


def test_the_main_numbers_come_first():
    assert evaluation.numbers(METRICS) == [
        ("top-1", "90.50 %"),
        ("loss", "0.2500"),
        ("ECE", "0.0123"),
        ("other", "1.0000"),
    ]


def test_status_of_an_evaluation():
    result = json.dumps({"files": ["evaluation/a.csv", "evaluation/b.png"]})
    job = make_job(State.FINISHED, **{TAG_RESULT: result, "gcpctl.evaluation": "/s/evaluation"})
    job = Job(**{**job.__dict__, "metrics": METRICS})
    assert row(job)[2:4] == ("-", "90.50")
    shown = dict(details(job, "http://m"))
    assert shown["checkpoint"] == "train-a:best"
    assert shown["top-1"] == "90.50 %"
    assert shown["files"] == "/s/evaluation"
    assert shown["in MLflow"] == "evaluation/: a.csv, b.png"
    assert "seed" not in shown
    said = to_json(job)
    assert (said["kind"], said["checkpoint"]) == ("eval", "train-a:best")
    assert said["metrics"]["eval/top1"] == 90.5


def test_status_of_one_that_runs():
    job = make_job(**{"gcpctl.progress": json.dumps({"global_step": 3, "total_steps": 12})})
    assert dict(details(job, "http://m"))["progress"] == "batch 3/12"
