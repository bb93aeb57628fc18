"""The supervisor: its decision as a table, its step with fakes."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.healing import Action, Record, decide, load_record, started
from cluster.home import prepare_home
from cluster.layout import Layout
from cluster.plan import ClusterPlan, make_plan
from cluster.processes import Identity, end_marked
from cluster.services import PATIENCE as PATIENCE_OF
from cluster.services import SERVICES, Patience, is_healthy
from cluster.supervisor import Supervisor, is_gone

PATIENCE = Patience(start_s=60, later_s=30)
RUNS = Record(pid=5, born=1, started_at=1000, starts=1)


@pytest.mark.parametrize(
    ("record", "alive", "healthy", "unwell_s", "now", "action"),
    [
        (Record(), False, None, 0, 0, Action.START),
        (RUNS, False, None, 0, 1001, Action.START),
        (replace(RUNS, failures=3), False, None, 0, 1003.9, Action.NOTHING),
        (replace(RUNS, failures=3), False, None, 0, 1004, Action.START),
        (replace(RUNS, failures=60), False, None, 0, 1029, Action.NOTHING),
        (replace(RUNS, failures=60), False, None, 0, 1030, Action.START),
        (replace(RUNS, failures=60), False, None, 0, 500, Action.START),  # a clock set back
        (RUNS, True, True, 0, 1001, Action.NOTHING),
        (RUNS, True, False, 60, 1060, Action.NOTHING),
        (RUNS, True, False, 61, 1061, Action.REPLACE),
        (RUNS, True, False, 61, 500, Action.REPLACE),
        (RUNS, True, False, 0, 9000, Action.NOTHING),
        (RUNS, True, None, 0, 5000, Action.NOTHING),
        (replace(RUNS, well_at=4000), True, False, 30, 4030, Action.NOTHING),
        (replace(RUNS, well_at=4000), True, False, 31, 4031, Action.REPLACE),
        (replace(RUNS, well_at=1001), True, False, 0, 90000, Action.NOTHING),
    ],
)
def test_decisions(
    record: Record,
    alive: bool,
    healthy: bool | None,
    unwell_s: float,
    now: float,
    action: Action,
) -> None:
    found, _ = decide(
        record, alive=alive, healthy=healthy, unwell_s=unwell_s, now=now, patience=PATIENCE
    )
    assert found is action


def test_failures_are_forgotten_after_a_stable_minute() -> None:
    record = replace(RUNS, failures=4)
    _, soon = decide(record, alive=True, healthy=True, now=1059, patience=PATIENCE)
    _, later = decide(record, alive=True, healthy=True, now=1060, patience=PATIENCE)
    assert (soon.failures, later.failures) == (4, 0)


def test_a_start_counts_as_failed_until_stable() -> None:
    first = started(Record(), Identity(5, 1), 1000, "first start")
    assert (first.starts, first.failures) == (1, 0)
    again = started(first, Identity(6, 2), 1001, "pid 5 ended")
    assert (again.starts, again.failures) == (2, 1)
    stable = replace(again, well_at=1070)
    assert started(stable, Identity(7, 3), 1080, "pid 6 ended").failures == 0


class FakeSupervisor(Supervisor):
    """Starts sleeping processes in place of services."""

    @property
    def pids(self) -> list[int]:
        return [self._records[name].pid for name in SERVICES]


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSupervisor:
    layout = Layout(tmp_path / "home")
    prepare_home(layout)
    plan = make_plan(None, layout.home)

    def build(service: str, layout: Layout, plan: ClusterPlan) -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(60)"]

    monkeypatch.setattr("cluster.supervisor.build_command", build)
    return FakeSupervisor(layout, plan, check=lambda *_: True)


def test_a_step_starts_what_is_missing_and_leaves_what_runs(supervisor: FakeSupervisor) -> None:
    try:
        assert set(supervisor.step().values()) == {Action.START}
        before = supervisor.pids
        assert set(supervisor.step().values()) == {Action.NOTHING}
        end_marked(supervisor.plan.cluster_id, ["mlflow"])
        assert supervisor.step() == {
            "mlflow": Action.START,
            "ray": Action.NOTHING,
            "controller": Action.NOTHING,
        }
        assert supervisor.pids[1:] == before[1:]
        assert load_record(supervisor.layout, "mlflow").starts == 2
    finally:
        end_marked(supervisor.plan.cluster_id)


def test_the_next_supervisor_adopts(supervisor: FakeSupervisor) -> None:
    try:
        supervisor.step()
        successor = FakeSupervisor(supervisor.layout, supervisor.plan, check=lambda *_: True)
        assert set(successor.step().values()) == {Action.NOTHING}
        assert successor.pids == supervisor.pids
    finally:
        end_marked(supervisor.plan.cluster_id)


def test_only_checks_that_failed_here_count_as_unwell(supervisor: FakeSupervisor) -> None:
    """Neither the pid file, nor sleep, nor a clock that is set makes a service unwell."""
    wall, elapsed, answers = [time.time()], [100.0], [True]
    options: dict[str, Any] = {
        "check": lambda *_: answers[0],
        "clock": lambda: wall[0],
        "stopwatch": lambda: elapsed[0],
    }
    layout, plan = supervisor.layout, supervisor.plan
    quiet = dict.fromkeys(SERVICES, Action.NOTHING)
    try:
        first = FakeSupervisor(layout, plan, **options)
        first.step()
        assert first.step() == quiet  # well, and the pid files say so
        wall[0] += 9 * 3600  # nobody looked, or the laptop slept
        answers[0] = False
        adopting = FakeSupervisor(layout, plan, **options)
        for keeper in (first, adopting):
            elapsed[0] += 10
            assert keeper.step() == quiet
        wall[0] -= 24 * 3600
        elapsed[0] += PATIENCE_OF["ray"].later_s - 1
        assert adopting.step() == {**quiet, "mlflow": Action.REPLACE, "controller": Action.REPLACE}
        elapsed[0] += 6
        assert adopting.step()["ray"] is Action.REPLACE
    finally:
        end_marked(plan.cluster_id)


def test_one_good_answer_ends_unwellness(supervisor: FakeSupervisor) -> None:
    elapsed, answers = [100.0], [True]
    keeper = FakeSupervisor(
        supervisor.layout,
        supervisor.plan,
        check=lambda *_: answers[0],
        stopwatch=lambda: elapsed[0],
    )
    try:
        keeper.step()
        for answer in (True, False, True, False):
            answers[0] = answer
            elapsed[0] += 50
            assert set(keeper.step().values()) == {Action.NOTHING}
    finally:
        end_marked(keeper.plan.cluster_id)


def test_drivers_of_a_dead_head_are_killed_at_once(
    supervisor: FakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def note(cluster_id: str, services: list[str], **options: Any) -> int:
        asked[services[0]] = options["at_once"]
        return 0

    monkeypatch.setattr("cluster.supervisor.end_marked", note)
    try:
        supervisor.step()
    finally:
        end_marked(supervisor.plan.cluster_id)
    assert asked == {"mlflow": (), "ray": ("orchestrator.drivers.main", "ray::"), "controller": ()}


def test_a_heartbeat_of_the_future_is_none(supervisor: FakeSupervisor) -> None:
    heartbeat = supervisor.layout.heartbeat
    heartbeat.touch()
    assert is_healthy("controller", supervisor.layout, supervisor.plan)
    os.utime(heartbeat, (time.time() + 3600,) * 2)
    assert not is_healthy("controller", supervisor.layout, supervisor.plan)


def test_a_home_that_may_not_be_looked_at_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_gone(tmp_path / "profile.json")

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert not is_gone(tmp_path / "profile.json")
