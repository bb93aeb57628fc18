"""The job store against recorded answers."""

import json

import pytest

from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore


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


def test_names_cannot_reach_into_the_filter():
    client = Client({"experiments": []}, {"runs": []}, {"runs": []})
    with pytest.raises(NotFoundError, match="no job"):
        JobStore(client).find("x' OR tags.a = 'b`%")  # type: ignore[arg-type]
    asked = client.requests[1][1]["filter"]
    assert asked.startswith("tags.`gcpctl.job_id` LIKE '%x OR tags.a = b%' AND ")
