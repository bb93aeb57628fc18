"""The log of an attempt whose driver was killed is kept with its job, and no other job's lines."""

from orchestrator.controller.archive import log_archiver
from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.job import TAG_ATTEMPT, TAG_HOST
from orchestrator.jobs.logs import begin_line, end_line
from tests.fakes import FakeStore, make_spec


class Store(FakeStore):
    """Keeps artifacts too."""

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[str, bytes] = {}

    def list_artifacts(self, job, folder):
        return [name.split("/", 1)[1] for name in self.artifacts if name.startswith(job.job_id)]

    def put_artifact(self, job, name, content):
        self.artifacts[f"{job.job_id}/{name}"] = content


class Ray:
    """Has lost all logs."""

    def logs(self, submission_id):
        raise NotFoundError(f"Ray knows no {submission_id}")


def test_a_shared_log_is_cut_to_the_jobs_own_lines(tmp_path):
    folder = tmp_path / "session_1" / "logs"
    folder.mkdir(parents=True)
    lines = ["it starts", begin_line("a", 1), "of a", end_line("a", 1), begin_line("b", 3), "of b"]
    (folder / "job-driver-a-a1.log").write_text("\n".join(lines) + "\nand it die")
    store = Store()
    first = store.add(make_spec("a", pack="p"), tags={TAG_ATTEMPT: "1"})
    second = store.add(make_spec("b", pack="p"), tags={TAG_ATTEMPT: "3", TAG_HOST: "a-a1"})
    archive = log_archiver(store, Ray(), tmp_path)  # type: ignore[arg-type]
    archive(store.get(second))
    archive(store.get(first))
    assert store.artifacts["b/logs/attempt-3.log"].decode() == "of b\nand it die"
    assert "of a" in (own := store.artifacts["a/logs/attempt-1.log"].decode())
    assert "of b" not in own


def test_a_log_that_is_nowhere_and_one_that_is_there_change_nothing(tmp_path):
    store = Store()
    job = store.get(store.add(make_spec("a"), tags={TAG_ATTEMPT: "1"}))
    archive = log_archiver(store, Ray(), tmp_path)  # type: ignore[arg-type]
    archive(job)
    assert store.artifacts == {}
    store.artifacts["a/logs/attempt-1.log"] = b"the driver's own"
    archive(job)
    assert store.artifacts == {"a/logs/attempt-1.log": b"the driver's own"}
