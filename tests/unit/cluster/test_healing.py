"""The supervisor: its decision as a table, its step with fakes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.healing import Action, Record, decide, load_record, started
from cluster.home import prepare_home
from cluster.layout import Layout
from cluster.plan import ClusterPlan, make_plan
from cluster.processes import Identity, end_marked
from cluster.services import SERVICES, Patience
from cluster.supervisor import Supervisor

PATIENCE = Patience(start_s=60, later_s=30)
RUNS = Record(pid=5, born=1, started_at=1000, starts=1)


@pytest.mark.parametrize(
    ("record", "alive", "healthy", "now", "action"),
    [
        (Record(), False, None, 0, Action.START),
        (RUNS, False, None, 1001, Action.START),
        (replace(RUNS, failures=3), False, None, 1003.9, Action.NOTHING),
        (replace(RUNS, failures=3), False, None, 1004, Action.START),
        (replace(RUNS, failures=60), False, None, 1029, Action.NOTHING),
        (replace(RUNS, failures=60), False, None, 1030, Action.START),
        (RUNS, True, True, 1001, Action.NOTHING),
        (RUNS, True, False, 1060, Action.NOTHING),
        (RUNS, True, False, 1061, Action.REPLACE),
        (RUNS, True, None, 5000, Action.NOTHING),
        (replace(RUNS, well_at=4000), True, False, 4030, Action.NOTHING),
        (replace(RUNS, well_at=4000), True, False, 4031, Action.REPLACE),
    ],
)
def test_decisions(
    record: Record, alive: bool, healthy: bool | None, now: float, action: Action
) -> None:
    found, _ = decide(record, alive=alive, healthy=healthy, now=now, patience=PATIENCE)
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
