"""From what a person writes for a checkpoint to where its weights are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.profiles import Profile
from orchestrator.jobs.checkpoints import (
    find_checkpoint,
    parse_checkpoint,
    parse_pending,
    resolve_checkpoint,
)
from orchestrator.jobs.errors import ConflictError, GcpctlError, NotFoundError
from orchestrator.jobs.job import TAG_JOB_ID, TAG_KIND, TAG_SPEC, Job
from orchestrator.jobs.states import State


def make_job(job_id: str, *, kind: str = "train", state: State = State.FINISHED) -> Job:
    spec = {"config": {"origin": "digits-a:best"}, "recipe": "r", "study": "s"}
    tags = {TAG_JOB_ID: job_id, TAG_KIND: kind, TAG_SPEC: json.dumps(spec)}
    return Job(f"run-{job_id}", "1", state, tags, {}, 0, None, "mlflow-artifacts:/1/r/artifacts")


class Store:
    """Finds jobs and artifacts as `JobStore` does."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = jobs
        self.artifacts: dict[str, list[str]] = {}
        self.models: set[tuple[str, str | None, str | None]] = set()

    def find(self, name: str) -> Job:
        for job in self.jobs:
            if job.job_id.startswith(name):
                return job
        raise NotFoundError(f"there is no job {name!r} on this cluster", "see: gcpctl status")

    def search(self, limit: int) -> list[Job]:
        return list(self.jobs)

    def get(self, run_id: str) -> Job:
        for job in self.jobs:
            if job.run_id == run_id:
                return job
        raise NotFoundError("MLflow knows no such run")

    def list_artifacts(self, job: Job, folder: str = "") -> list[str]:
        return self.artifacts.get(folder.rstrip("/"), [])

    def has_model(self, name, *, version, alias):
        return (name, version, alias) in self.models


@pytest.fixture
def storage(tmp_path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


def profile_of(storage: Path) -> Profile:
    return Profile("lab", "http://r", "r:1", "http://m", storage / "token", storage)


def save(job_folder: Path, *steps: int, best: int | None = None) -> None:
    for step in steps:
        folder = job_folder / "checkpoints" / f"step-{step:010d}"
        folder.mkdir(parents=True)
        (folder / "MANIFEST.json").write_text("{}")
    if best is not None:
        (job_folder / "checkpoints" / "best.json").write_text(json.dumps({"step": best}))


# --- the form of the text ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "name", "which", "said"),
    [
        ("k7x2", "job", "k7x2", "best", False),
        ("train-a:last", "job", "train-a", "last", True),
        (" train-a:120 ", "job", "train-a", "120", True),
        ("resnet50.pth", "file", "resnet50.pth", "best", False),
        ("./weights", "file", "./weights", "best", False),
        ("/storage/train-a:best", "file", "/storage/train-a", "best", True),
        ("a/b:c.pth", "file", "a/b:c.pth", "best", False),
        ("runs:/0af3/model.pth", "mlflow", "runs:/0af3/model.pth", "best", False),
        ("models:/birds@champion", "mlflow", "models:/birds@champion", "best", False),
    ],
)
def test_jobs_files_and_uris_are_told_apart(text, kind, name, which, said):
    asked = parse_checkpoint(text)
    assert (asked.kind, asked.name, asked.which, asked.said) == (kind, name, which, said)


@pytest.mark.parametrize("text", ["", "  ", "train-a:newest", "train-a:"])
def test_what_is_neither_is_wrong_usage(text):
    with pytest.raises(GcpctlError) as caught:
        parse_checkpoint(text)
    assert caught.value.exit_code == 2
    if ":" in text:
        assert "train-a:last" in caught.value.hint


# --- a job's -------------------------------------------------------------------------------------


def test_best_last_and_step_of_a_job(storage):
    save(storage / "train-a", 10, 20, 30, best=20)
    store, profile = Store(make_job("train-a")), profile_of(storage)
    for text, step in (
        ("train", 20),
        ("train-a:last", 30),
        ("train-a:10", 10),
        ("train-a:030", 30),
    ):
        found = resolve_checkpoint(store, profile, text)
        assert found.weights == str(storage / "train-a" / "checkpoints" / f"step-{step:010d}")
        assert found.job is not None
        assert not found.is_pending
    assert resolve_checkpoint(store, profile, "train").origin == "train-a:best"


def test_what_a_crash_left_counts_until_its_successor_is_there(storage):
    save(storage / "a", 10, best=10)
    folder = storage / "a" / "checkpoints"
    old = (folder / "step-0000000010").rename(folder / "step-0000000010.old")
    (folder / "step-0000000020.1.tmp").mkdir()
    (folder / "step-0000000030.bad-1-1").mkdir()
    assert find_checkpoint(storage / "a", "last") == old
    save(storage / "a", 10)
    assert find_checkpoint(storage / "a", "best") == folder / "step-0000000010"


@pytest.mark.parametrize(
    ("steps", "best", "which", "message", "hint"),
    [
        ((), None, "best", "no checkpoint", "epoch"),
        ((10, 20), None, "best", "not validated", "a:last; it has a:10, a:20"),
        ((10, 20), 5, "best", "of step 5, is gone", "a:10, a:20"),
        ((10, 20), 20, "15", "no checkpoint of step 15", "a:10, a:20"),
    ],
)
def test_a_checkpoint_that_is_not_there(storage, steps, best, which, message, hint):
    save(storage / "a", *steps, best=best)
    with pytest.raises(NotFoundError) as caught:
        find_checkpoint(storage / "a", which)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_torn_pointer_is_no_best(storage):
    save(storage / "a", 10)
    (storage / "a" / "checkpoints" / "best.json").write_text('{"st')
    with pytest.raises(NotFoundError, match="not validated"):
        find_checkpoint(storage / "a", "best")


def test_a_job_that_has_saved_nothing_can_be_waited_for(storage):
    running = make_job("train-a", state=State.RUNNING)
    store, profile = Store(running), profile_of(storage)
    with pytest.raises(NotFoundError) as caught:
        resolve_checkpoint(store, profile, "train-a")
    assert "--after train-a" in caught.value.hint
    found = resolve_checkpoint(store, profile, "train-a:last", may_wait=("train-a",))
    assert found.is_pending
    folder, which = parse_pending(found.weights)
    assert (folder, which) == (storage / "train-a", "last")
    save(folder, 8, best=8)
    assert find_checkpoint(folder, which).name == "step-0000000008"
    # Once it has ended, waiting means nothing: what is there now is meant.
    ended = Store(replace(running, state=State.FINISHED))
    assert not resolve_checkpoint(ended, profile, "train-a", may_wait=("train-a",)).is_pending


def test_storage_that_is_not_seen_from_here_is_left_to_the_attempt(storage):
    found = resolve_checkpoint(Store(make_job("train-a")), profile_of(storage / "no"), "train-a")
    assert parse_pending(found.weights) == (storage / "no" / "train-a", "best")


def test_an_unknown_job_names_the_closest(storage):
    with pytest.raises(NotFoundError) as caught:
        resolve_checkpoint(Store(make_job("train-birds")), profile_of(storage), "trian-birds")
    assert "did you mean 'train-birds'?" in caught.value.hint


def test_a_file_with_the_name_of_a_job(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").touch()
    with pytest.raises(NotFoundError) as caught:
        resolve_checkpoint(Store(), profile_of(storage), "weights")
    assert "./weights" in caught.value.hint


def test_an_evaluation_has_no_checkpoints(storage):
    with pytest.raises(ConflictError, match="'eval'") as caught:
        resolve_checkpoint(Store(make_job("eval-a", kind="eval")), profile_of(storage), "eval-a")
    assert "digits-a:best" in caught.value.hint


# --- files ---------------------------------------------------------------------------------------


def test_files_and_folders(storage, tmp_path):
    (tmp_path / "net.pth").touch()
    assert resolve_checkpoint(None, None, "net.pth", folder=tmp_path).weights == str(
        tmp_path / "net.pth"
    )
    save(storage / "a", 10, 20, best=10)
    of_job = resolve_checkpoint(None, None, "storage/a:last", folder=tmp_path)
    assert of_job.weights.endswith("a/checkpoints/step-0000000020")
    assert of_job.origin == f"{storage / 'a'}:last"
    one = f"{storage}/a/checkpoints/step-0000000010"
    assert resolve_checkpoint(None, None, one, folder=tmp_path).weights == one


@pytest.mark.parametrize(("text", "message"), [("no.pth", "no file"), (".", "neither a job's")])
def test_files_that_are_none(tmp_path, text, message):
    with pytest.raises(NotFoundError, match=message):
        resolve_checkpoint(None, None, text, folder=tmp_path)


def test_on_another_cluster_a_file_is_not_looked_at_but_absolute():
    assert resolve_checkpoint(None, None, "/data/net.pth").weights == "/data/net.pth"
    with pytest.raises(GcpctlError, match="relative") as caught:
        resolve_checkpoint(None, None, "net.pth")
    assert caught.value.exit_code == 2


# --- MLflow --------------------------------------------------------------------------------------


def test_artifacts_of_runs():
    store = Store(make_job("a"))
    store.artifacts = {"models": ["models/net.pth"], "models/all": ["models/all/net.pth"]}
    for path in ("models/net.pth", "models/all", "models/all/"):
        found = resolve_checkpoint(store, None, f"runs:/run-a/{path}")
        assert found.is_remote
        assert not found.is_pending
    with pytest.raises(NotFoundError, match=r"no artifact 'models/x\.pth'") as caught:
        resolve_checkpoint(store, None, "runs:/run-a/models/x.pth")
    assert "models/net.pth" in caught.value.hint
    with pytest.raises(NotFoundError, match="no run 'x'"):
        resolve_checkpoint(store, None, "runs:/x/models/net.pth")
    with pytest.raises(NotFoundError, match="no file"):
        resolve_checkpoint(store, None, "runs:/run-a")


def test_models_of_the_registry():
    store = Store()
    store.models = {("birds", "3", None), ("birds", None, "champion")}
    for uri in ("models:/birds/3", "models:/birds@champion"):
        assert resolve_checkpoint(store, None, uri).weights == uri
    with pytest.raises(NotFoundError, match="registry"):
        resolve_checkpoint(store, None, "models:/birds/4")
    with pytest.raises(GcpctlError, match="no model") as caught:
        resolve_checkpoint(store, None, "models:/birds")
    assert caught.value.exit_code == 2
