"""`--follow` and `watch` of studies and sweeps: what is written, and how it ends."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from orchestrator.cli import group_page, live_page
from orchestrator.cli.commands import logs as logs_command
from orchestrator.cli.commands import watch as watch_command
from orchestrator.cli.follow import follow
from orchestrator.jobs.errors import UnreachableError
from orchestrator.jobs.job import TAG_SPEC, Job
from orchestrator.jobs.states import State
from tests.unit.orchestrator.results.test_live_group import Store
from tests.unit.orchestrator.results.test_progress import PARENT, STUDY, job, members

SPEC = {"config": {"question": "Which?"}, "description": "Which?", "recipe": "pooling"}
STARTED = replace(PARENT, tags={**PARENT.tags, TAG_SPEC: json.dumps(SPEC)})


class Server(Store):
    """A store in which things happen between looks."""

    def __init__(self, parent: Job, *jobs: Job, then=()) -> None:
        super().__init__(*jobs)
        self.parent, self.then = parent, list(then)

    def get(self, run_id):
        if run_id != self.parent.run_id:
            return super().get(run_id)
        return self.parent

    def find(self, name):
        return self.parent

    def pass_time(self, seconds: float) -> None:
        self.then.pop(0)(self)


def end(state: State, reason: str = ""):
    def happen(server: Server) -> None:
        tags = {**server.parent.tags, "gcpctl.reason": reason}
        server.parent = replace(server.parent, state=state, end_ms=60_001, tags=tags)

    return happen


@pytest.fixture
def session(monkeypatch):
    """Return how to open a session on a server; time passes on it between looks."""

    def open_on(server: Server):
        monkeypatch.setattr(live_page.time, "sleep", server.pass_time)
        profile = SimpleNamespace(mlflow_url="http://m")
        return SimpleNamespace(store=server, profile=profile)

    monkeypatch.setattr(group_page, "_takes_marks", lambda: True)
    return open_on


@pytest.mark.parametrize(
    ("state", "code"), [(State.FINISHED, 0), (State.FAILED, 10), (State.KILLED, 11)]
)
def test_following_a_study_ends_with_it(session, capsys, state, code):
    server = Server(STARTED, *members(), then=[end(state, "best pooling=isqrt")])
    assert follow(session(server), STARTED) == code
    said = capsys.readouterr().out
    assert f"{state} {STUDY} after 1 min" in said
    assert "best pooling=isqrt" in said
    assert ("its cells side by side" in said) is (state is State.FINISHED)


def test_in_a_pipe_only_lines_that_are_new_are_written(session, capsys):
    def next_epoch(server: Server) -> None:
        tags = {**server.jobs["g0"].tags, "gcpctl.progress": '{"epoch": 4}'}
        server.jobs["g0"] = replace(server.jobs["g0"], tags=tags)

    nothing = lambda server: None  # noqa: E731
    then = [nothing, next_epoch, end(State.FINISHED)]
    follow(session(Server(STARTED, *members(), then=then)), STARTED)
    said = capsys.readouterr().out
    assert said.count("pooling=isqrt  ") == 1
    assert said.count("seed 0: epoch 3/8") == said.count("seed 0: epoch 4/8") == 1


def test_a_server_that_is_away_is_waited_for(session, capsys):
    server = Server(STARTED, *members())
    there = server.members

    def away(*args, **kwargs):
        raise UnreachableError("MLflow does not answer")

    def come_back(_) -> None:
        server.members = there

    server.members = away
    server.then = [lambda _: None, come_back, end(State.FINISHED)]
    assert follow(session(server), STARTED) == 0
    assert capsys.readouterr().err.count("waiting for it") == 1


def test_ctrl_c_ends_only_the_watching(session, capsys):
    def interrupt(_) -> None:
        raise KeyboardInterrupt

    assert follow(session(Server(STARTED, *members(), then=[interrupt])), STARTED) == 130
    assert f"watch {STUDY}" in capsys.readouterr().err


def test_a_sweep_is_followed_by_its_trials(session, capsys):
    objective = {"metric": "val/top1", "direction": "max"}
    spec = {
        "config": {"num_trials": 2, "objectives": [objective]},
        "description": "",
        "recipe": "r",
    }
    tags = {TAG_SPEC: json.dumps(spec), "gcpctl.progress": '{"text": "1 of 2 trials ended"}'}
    sweep = job("s", "tune", State.RUNNING, "", group="", tags=tags)
    trial = job("s-t0", "trial", State.RUNNING, "lr=1", group="s", metrics={"val/top1": 50.0})
    assert follow(session(Server(sweep, trial, then=[end(State.FINISHED)])), sweep) == 0
    said = capsys.readouterr().out
    assert "s  RUNNING  1 of 2 trials ended" in said
    assert "s-t0   RUNNING  -      50        lr=1" in said


def test_a_page_is_cut_to_the_terminal_and_drawn_over_itself(session, monkeypatch):
    written: list[str] = []
    monkeypatch.setattr(live_page, "answer", written.append)
    many = [job(f"w{n}", "train", State.SCHEDULED, f"a={n}", n) for n in range(40)]
    runs = job("late", "train", State.RUNNING, "b=1", 0, tags={"gcpctl.progress": '{"epoch": 2}'})
    monkeypatch.setattr(live_page, "is_terminal", lambda: True)
    size = SimpleNamespace(lines=20, columns=80)
    monkeypatch.setattr(live_page.shutil, "get_terminal_size", lambda: size)
    screen = live_page._Screen()
    screen.show(STARTED, [*many, runs])
    screen.show(STARTED, [*many, runs])
    (said,) = written
    assert said.startswith("\x1b[H")
    assert len(said.split("\n")) < 20
    assert "seed 0: epoch 2/8" in said  # what runs has a place however many wait
    assert "and 28 more cells" in said


@pytest.mark.parametrize(("kind", "code"), [("ablation", 0), ("tune", 0)])
def test_watch_takes_the_same_way(session, monkeypatch, kind, code):
    objective = {"metric": "val/top1", "direction": "max"}
    spec = SPEC | {"config": {"objectives": [objective]}}
    tags = {**PARENT.tags, "gcpctl.kind": kind, TAG_SPEC: json.dumps(spec)}
    done = replace(PARENT, state=State.FINISHED, end_ms=60_001, tags=tags)
    monkeypatch.setattr(watch_command, "connect", lambda: session(Server(done, *members())))
    result = CliRunner().invoke(watch_command.watch, ["x"])
    assert result.exit_code == code, result.output
    assert "Next:" in result.output


def test_the_log_of_a_study_that_waits_is_explained(session, monkeypatch):
    monkeypatch.setattr(logs_command, "connect", lambda: session(Server(STARTED)))
    result = CliRunner().invoke(logs_command.logs, ["x"])
    assert f"watch {STUDY}" in result.output
    assert "has not started yet" in result.output
