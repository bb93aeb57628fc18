"""Points of many runs in few requests, and the same points where a server lacks that."""

import urllib.parse

from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.histories import metric_histories


class Server:
    """Answers the request as MLflow does; cuts at a limit without a word."""

    def __init__(self, *, limit: int = 25_000, known: bool = True) -> None:
        self.limit, self.known = limit, known
        self.requests: list[list[str]] = []

    def points(self, run: str) -> list[tuple[int, float]]:
        return [] if run == "none" else [(1, 10.0), (2, float(len(run)))]

    def call(self, method, path):
        assert method == "GET"
        if not self.known:
            raise NotFoundError("no such request")
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
        assert query["metric_key"] == ["val/top1"]
        self.requests.append(query["run_id"])
        assert len(query["run_id"]) <= 100
        metrics = [
            {"run_id": run, "key": "val/top1", "step": step, "value": value, "timestamp": 1}
            for run in query["run_id"]
            for step, value in self.points(run)
        ]
        return {"metrics": metrics[: self.limit]}

    def one(self, run, key):
        self.requests.append([run])
        return self.points(run)


def ask(server: Server, runs: list[str]) -> dict:
    return metric_histories(server, runs, "val/top1", server.one)  # type: ignore[arg-type]


def test_250_runs_take_three_requests():
    server = Server()
    runs = [f"run {i}&" for i in range(249)] + ["none"]
    found = ask(server, runs)
    assert found == {run: server.points(run) for run in runs}
    assert [len(request) for request in server.requests] == [100, 100, 50]


def test_a_server_without_the_request_is_asked_run_by_run():
    server = Server(known=False)
    assert ask(server, ["a", "none"]) == {"a": server.points("a"), "none": []}


def test_an_answer_that_may_have_been_cut_is_not_trusted():
    class Long(Server):
        def points(self, run):
            return [(step, 1.0) for step in range(20_000)]

    server = Long()
    found = ask(server, ["a", "b"])
    assert {run: len(points) for run, points in found.items()} == {"a": 20_000, "b": 20_000}
    assert server.requests == [["a", "b"], ["a"], ["b"]]
