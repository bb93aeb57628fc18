"""The job store against recorded answers."""

import json

import pytest

from orchestrator.jobs.errors import ConflictError, NotFoundError
from orchestrator.jobs.job import Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore
from tests.unit.orchestrator.controller.world import World


def run(run_id: str, status: str) -> dict:
    return {
        "info": {
            "run_id": run_id,
            "experiment_id": "1",
            "status": status,
            "start_time": 1,
            "artifact_uri": "mlflow-artifacts:/1/x/artifacts",
        },
        "data": {
            "tags": [
                {"key": "gcpctl.job_id", "value": "a"},
                {"key": "gcpctl.spec", "value": '{"after": []}'},
            ]
        },
    }


class Client:
    """Answers one request after another."""

    def __init__(self, *answers: dict) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict]] = []

    def call(self, method, path, body=None, **more):
        self.requests.append((path, body))
        return self.answers.pop(0)


def test_a_job_that_moves_between_two_requests_is_seen_once():
    client = Client(
        {"experiments": [{"experiment_id": "1", "name": "digits"}]},
        {"runs": [run("r1", "RUNNING")]},
        {},
        {"runs": [run("r1", "SCHEDULED")]},
    )
    (job,) = JobStore(client).active()  # type: ignore[arg-type]
    assert job.state is State.SCHEDULED


def test_the_queue_is_read_on_past_jobs_that_let_others_pass():
    def queued(run_id: str, after: list[str], not_before_ms: int) -> dict:
        found = run(run_id, "SCHEDULED")
        found["data"]["tags"][1]["value"] = json.dumps({"after": after})
        found["data"]["tags"].append({"key": "gcpctl.not_before_ms", "value": str(not_before_ms)})
        return found

    far_future = 10**14
    client = Client(
        {"experiments": []},
        {},
        {},
        {"runs": [queued("r1", ["x"], 0)], "next_page_token": "2"},
        {"runs": [queued("r2", [], far_future)], "next_page_token": "3"},
        {"runs": [queued("r3", [], 0)], "next_page_token": "4"},
    )
    jobs = JobStore(client).active()  # type: ignore[arg-type]
    assert [job.run_id for job in jobs] == ["r1", "r2", "r3"]


def test_the_queue_is_read_on_past_studies_and_studies_at_their_limit():
    def in_study(run_id: str, status: str, number: int) -> dict:
        found = run(run_id, status)
        found["data"]["tags"][0]["value"] = f"cell-{number}"
        found["data"]["tags"][1]["value"] = json.dumps({"max_parallel": 2})
        found["data"]["tags"] += [
            {"key": "gcpctl.group", "value": "study"},
            {"key": "gcpctl.attempt", "value": "1" if status == "RUNNING" else "0"},
        ]
        return found

    study = run("r0", "SCHEDULED")
    study["data"]["tags"].append({"key": "gcpctl.kind", "value": "ablation"})
    beside = in_study("r2", "RUNNING", 2)
    beside["data"]["tags"].append({"key": "gcpctl.shared_driver", "value": "cell-1-a1"})
    queue = [
        {"runs": [study, in_study("r3", "SCHEDULED", 3)], "next_page_token": "2"},
        {"runs": [run("r4", "SCHEDULED")], "next_page_token": "3"},
    ]
    # Two jobs in one driver leave room for another of the study, which is next then.
    shares = {"runs": [in_study("r1", "RUNNING", 1), beside]}
    jobs = JobStore(Client({"experiments": []}, shares, {}, *queue)).active()  # type: ignore[arg-type]
    assert [job.run_id for job in jobs] == ["r1", "r2", "r0", "r3"]
    full = {"runs": [in_study("r1", "RUNNING", 1), in_study("r2", "RUNNING", 2)]}
    jobs = JobStore(Client({"experiments": []}, full, {}, *queue)).active()  # type: ignore[arg-type]
    assert [job.run_id for job in jobs] == ["r1", "r2", "r0", "r3", "r4"]


def test_the_queue_is_read_on_past_jobs_larger_than_the_cluster():
    world = World(cpus=4)
    world.submit("large", num_workers=8)
    world.step()
    large = run("r1", "SCHEDULED")
    large["data"]["tags"].append({"key": "gcpctl.reason", "value": world.job("large").reason})
    pages = [
        {"runs": [large], "next_page_token": "2"},
        {"runs": [run("r2", "SCHEDULED")], "next_page_token": "3"},
    ]
    jobs = JobStore(Client({"experiments": []}, {}, {}, *pages)).active()  # type: ignore[arg-type]
    assert [job.run_id for job in jobs] == ["r1", "r2"]


def test_names_cannot_reach_into_the_filter():
    client = Client({"experiments": []}, {"runs": []}, {"runs": []})
    with pytest.raises(NotFoundError, match="no job"):
        JobStore(client).find("x' OR tags.a = 'b`%")  # type: ignore[arg-type]
    asked = client.requests[1][1]["filter"]
    assert asked.startswith("tags.`gcpctl.job_id` LIKE '%x OR tags.a = b%' AND ")


def ended(kind: str, state: str) -> Job:
    """Return a job of a kind in a state."""
    found = run("r1", state)
    found["data"]["tags"].append({"key": "gcpctl.kind", "value": kind})
    return Job.from_run(found)


@pytest.mark.parametrize(
    ("kind", "state", "may"),
    [
        ("train", "FAILED", True),
        ("train", "KILLED", True),
        ("train", "FINISHED", False),
        ("train", "RUNNING", False),
        ("ablation", "FINISHED", True),
        ("ablation", "RUNNING", False),
    ],
)
def test_only_what_failed_and_finished_studies_are_queued_again(kind, state, may):
    client = Client({}, {})
    store = JobStore(client)  # type: ignore[arg-type]
    if not may:
        with pytest.raises(ConflictError, match="cannot be queued again"):
            store.queue_again(ended(kind, state), phase="queued")
        assert client.requests == []
        return
    store.queue_again(ended(kind, state), phase="queued", tags={"a": "b"})
    (_, tags), (_, update) = client.requests  # the tags first: who sees the state finds them there
    assert {tag["key"] for tag in tags["tags"]} == {"gcpctl.phase", "gcpctl.reason", "a"}
    assert update == {"run_id": "r1", "status": "SCHEDULED"}


def test_jobs_with_one_of_several_values_of_a_tag():
    client = Client(
        {"experiments": [{"experiment_id": "1", "name": "digits"}]},
        {"runs": [run("r1", "FINISHED")]},
        {"runs": []},
    )
    found = JobStore(client).with_config(["b'", "a", "a"])  # type: ignore[arg-type]
    assert [(value, [job.run_id for job in jobs]) for value, jobs in found.items()] == [
        ("a", ["r1"])
    ]
    assert "tags.`gcpctl.config_sha256` = 'b'" in client.requests[2][1]["filter"]
    assert JobStore(Client()).with_config([]) == {}  # type: ignore[arg-type]
