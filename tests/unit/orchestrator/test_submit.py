"""Recording a job exactly once."""

import pytest

from orchestrator.jobs import submit
from orchestrator.jobs.errors import JobExistsError, UnreachableError
from orchestrator.jobs.plan import Request, plan_train
from orchestrator.jobs.provenance import Provenance, collect
from tests.fakes import FakeStore

PROVENANCE = Provenance(user="me", command="gcpctl submit")


class Store(FakeStore):
    """Records runs as `JobStore` does; loses replies when told to."""

    def __init__(self, *, lose_reply: bool = False, away: bool = False) -> None:
        super().__init__()
        self.lose_reply, self.away = lose_reply, away
        self.created: list[dict[str, str]] = []

    def experiment_id(self, name: str) -> str:
        return "1"

    def create(self, job_id, experiment, tags):
        if self.away:
            raise UnreachableError("away")
        run_id = self.add(self.plan.spec)
        self.runs[run_id]["tags"].update(tags)
        self.created.append(dict(tags))
        if self.lose_reply:
            raise UnreachableError("the reply was lost")
        return self._job(run_id)


def make(**options) -> tuple[Store, object]:
    store = Store(**options)
    store.plan = plan_train("digits_resnet_isqrt", ["epochs=2"], Request(name="a"))
    return store, store.plan


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(submit.time, "sleep", lambda seconds: None)


def test_the_run_carries_spec_and_provenance_from_the_first_moment():
    store, plan = make()
    job = submit.record(store, plan, PROVENANCE, cluster="lab")
    assert job.spec == plan.spec
    assert job.tags["mlflow.user"] == "me"
    assert job.tags["gcpctl.cluster"] == "lab"
    assert job.tags["gcpctl.config_sha256"] == plan.config_sha256
    assert "iSQRT" in job.tags["mlflow.note.content"]


def test_a_lost_reply_makes_no_second_job():
    store, plan = make(lose_reply=True)
    assert submit.record(store, plan, PROVENANCE, cluster="lab").job_id == "a"
    assert len(store.created) == 1


def test_a_server_that_stays_away_ends_the_submit():
    store, plan = make(away=True)
    with pytest.raises(UnreachableError):
        submit.record(store, plan, PROVENANCE, cluster="lab")


def test_a_taken_name_is_refused():
    store, plan = make()
    submit.record(store, plan, PROVENANCE, cluster="lab")
    with pytest.raises(JobExistsError, match="already"):
        submit.record(store, plan, PROVENANCE, cluster="lab")


def test_a_plan_can_take_another_id():
    _, plan = make()
    other = plan.with_new_id()
    assert other.spec.job_id != plan.spec.job_id
    assert other.config_sha256 == plan.config_sha256


def test_provenance_of_this_checkout():
    found = collect(["submit", "train", "a b"])
    assert found.command == "gcpctl submit train 'a b'"
    assert found.user
    assert not found.commit or len(found.commit) == 40


def test_the_published_result_stands_in_the_note():
    store = Store()
    store.plan = plan_train("imagenet_resnet50_isqrt_lrfast", [], Request(to_be_given=True))
    job = submit.record(store, store.plan, PROVENANCE, cluster="lab")
    published = job.spec.published
    assert published == store.plan.spec.published
    assert f"Published: {published.describe()}" in job.tags["mlflow.note.content"]


def test_the_range_of_workers_crosses_to_the_cluster():
    store = Store()
    store.plan = plan_train("digits_resnet_isqrt", [], Request(workers=(2, 8)))
    job = submit.record(store, store.plan, PROVENANCE, cluster="lab")
    assert job.spec.worker_counts == (2, 4, 8)
    assert "2 to 8 workers x 1 CPU" in job.tags["mlflow.note.content"]
