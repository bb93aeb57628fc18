"""The embedded cluster: bring it up, take it down. How it is, `state.py` says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cluster.capacity import planned_cpus, planned_gpus
from cluster.errors import CONFLICT, ClusterError
from cluster.healing import Record, load_record
from cluster.home import explained, prepare_home
from cluster.layout import Layout, load_json
from cluster.plan import ClusterPlan, cluster_id_of, load_plan, make_plan
from cluster.ports import LOOPBACK, is_free
from cluster.processes import end_marked, is_alive
from cluster.profiles import EMBEDDED, Profile, gcpctl_home, parse_profile
from cluster.services import SERVICES, build_environment, fetch_resources, is_healthy
from cluster.state import ClusterStatus, ServiceStatus, is_supervised, status

__all__ = [
    "ClusterStatus",
    "DownReport",
    "ServiceStatus",
    "down",
    "plan_resources",
    "planned_cpus",
    "status",
    "up",
]

UP_DEADLINE_S = 120.0
GIVE_UP_AFTER = 3  # starts in a row that failed while `up` looks on
LOG_LINES_SHOWN = 15
Say = Callable[[str], None]


def _silent(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class DownReport:
    """What `down` ended: how many processes, of which services."""

    processes: int
    services: list[str]

    @property
    def was_running(self) -> bool:
        return self.processes > 0


def up(
    *,
    home: Path | None = None,
    num_cpus: int | None = None,
    ui_port: int | None = None,
    say: Say = _silent,
    controller: Sequence[str] | None = None,
) -> Profile:
    """Bring the embedded cluster up, or repair it; return its profile when all is well.

    Args:
        home: State folder; `gcpctl_home()` when left out.
        num_cpus: CPUs Ray may hand out; what was chosen at an earlier `up`, else
            `planned_cpus()`, when left out.
        ui_port: Port of the MLflow page; the system chooses when left out.
        say: Told what is being waited for.
        controller: Another controller's command, for tests of this package.

    Raises:
        ClusterError: It cannot start (3) or contradicts what runs (6).
    """
    layout = Layout((home or gcpctl_home()).expanduser().absolute())
    prepare_home(layout)
    with explained(layout.home), _alone(layout, say):
        plan, supervised = load_plan(layout), is_supervised(layout)
        if plan is None:
            end_marked(cluster_id_of(layout.home))  # a cluster whose addresses are lost
            supervised = False
        if plan is not None and supervised:
            _refuse_contradiction(plan, num_cpus, ui_port)
        else:
            plan = _settle(layout, plan, num_cpus, ui_port, controller)
        if not (supervised and _all_well(layout, plan)):
            if supervised:
                os.kill(load_record(layout, "supervisor").pid, signal.SIGUSR1)
            _wait_until_well(layout, say, fresh=not supervised)
    return parse_profile(EMBEDDED, load_json(layout.profile) or {}, layout.cluster)


def down(*, home: Path | None = None, say: Say = _silent) -> DownReport:
    """End every process of this home's cluster, and no other. Its state stays."""
    layout = Layout((home or gcpctl_home()).expanduser().absolute())
    with explained(layout.home):
        if not layout.cluster.is_dir():
            return DownReport(0, [])
    with explained(layout.home), _alone(layout, say):
        cluster_id = cluster_id_of(layout.home)
        running = _find_living(layout)
        count = end_marked(cluster_id, ["supervisor"], grace_s=2.0)  # first: it would heal
        if running:
            say(f"stopping {', '.join(reversed(running))}")
        count += end_marked(cluster_id)
        for name in (*SERVICES, "supervisor"):
            layout.record(name).unlink(missing_ok=True)
        layout.heartbeat.unlink(missing_ok=True)
    return DownReport(count, running)


def plan_resources(home: Path | None = None) -> tuple[int, int]:
    """Return the CPUs and GPUs jobs get: of the cluster that runs, else of one `up` would start.

    Starts nothing and needs no home.
    """
    layout = Layout((home or gcpctl_home()).expanduser().absolute())
    plan = load_plan(layout)
    living = [] if plan is None else _find_living(layout)
    if plan is not None and "ray" in living and (held := fetch_resources(layout, plan)):
        return int(held.get("CPU", 0)), int(held.get("GPU", 0))
    return _choose_cpus(plan, living), planned_gpus()


@contextlib.contextmanager
def _alone(layout: Layout, say: Say) -> Any:
    """Hold the home's lock; a second terminal waits for the first."""
    lock = FileLock(layout.lock, mode=0o600)
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        say("another gcpctl is working on this cluster; waiting for it")
        try:
            lock.acquire(timeout=UP_DEADLINE_S + 30)
        except Timeout:
            raise ClusterError(
                f"Another gcpctl holds {layout.lock} for too long.",
                "End it, then run `gcpctl cluster up` again.",
                CONFLICT,
            ) from None
    with lock:
        try:
            yield
        finally:
            lock.release(force=True)


def _refuse_contradiction(plan: ClusterPlan, num_cpus: int | None, ui_port: int | None) -> None:
    remedy = "Run `gcpctl cluster down` first."
    if num_cpus is not None and num_cpus != plan.num_cpus:
        raise ClusterError(
            f"The cluster runs with {plan.num_cpus} CPUs, not {num_cpus}.", remedy, CONFLICT
        )
    if ui_port is not None and ui_port != plan.ports["mlflow"]:
        raise ClusterError(
            f"MLflow's page is on port {plan.ports['mlflow']}, not {ui_port}.", remedy, CONFLICT
        )


def _settle(
    layout: Layout,
    plan: ClusterPlan | None,
    num_cpus: int | None,
    ui_port: int | None,
    controller: Sequence[str] | None,
) -> ClusterPlan:
    """Decide what the cluster is before its supervisor starts, and write it down."""
    if plan is not None and _find_living(layout):
        _refuse_contradiction(plan, num_cpus, ui_port)
        return plan
    if num_cpus is not None and num_cpus < 1:
        raise ClusterError(f"A cluster needs at least 1 CPU, not {num_cpus}.", "", 2)
    if ui_port is not None and not is_free(ui_port):
        raise ClusterError(
            f"Port {ui_port} on {LOOPBACK} is in use.",
            "Choose another --ui-port, or leave it out: the system then chooses.",
            CONFLICT,
        )
    chosen = num_cpus is not None or (plan is not None and plan.cpus_chosen)
    num_cpus = num_cpus or _choose_cpus(plan, [])
    plan = make_plan(plan, layout.home, num_cpus=num_cpus, cpus_chosen=chosen)
    if controller is not None:
        plan = make_plan(plan, layout.home, controller=list(controller))
    if ui_port is not None:
        ports = {**plan.ports, "mlflow": ui_port}
        plan = make_plan(plan, layout.home, ports=ports, pinned=["mlflow"])
    plan.save(layout)
    return plan


def _find_living(layout: Layout) -> list[str]:
    return [name for name in SERVICES if is_alive(load_record(layout, name).identity)]


def _choose_cpus(plan: ClusterPlan | None, living: Sequence[str]) -> int:
    """Return the plan's number where it runs or a person chose it, else the machine's."""
    return plan.num_cpus if plan and (living or plan.cpus_chosen) else planned_cpus()


def _all_well(layout: Layout, plan: ClusterPlan) -> bool:
    return all(
        is_alive(load_record(layout, name).identity) and is_healthy(name, layout, plan)
        for name in SERVICES
    )


def _wait_until_well(layout: Layout, say: Say, *, fresh: bool) -> None:
    """Wait for every service, starting a supervisor whenever there is none."""
    began, waiting_for = time.monotonic(), ""
    first = {name: load_record(layout, name).starts for name in SERVICES}
    keeper: subprocess.Popen[bytes] | None = None
    while time.monotonic() - began < UP_DEADLINE_S:
        plan = load_plan(layout)
        if plan is None:
            raise ClusterError(f"{layout.profile} vanished.", "Run `gcpctl cluster up` again.")
        if not is_supervised(layout) and (keeper is None or keeper.poll() is not None):
            keeper = _start_supervisor(layout, plan)
        unwell = []
        for name in SERVICES:
            record = load_record(layout, name)
            if is_alive(record.identity) and is_healthy(name, layout, plan):
                continue
            unwell.append(name)
            if record.starts - first[name] > GIVE_UP_AFTER and not is_alive(record.identity):
                _give_up(layout, plan, name, record, fresh)
        if not unwell and is_supervised(layout):
            return
        if (text := ", ".join(unwell)) != waiting_for:
            waiting_for = text
            if text:
                say(f"waiting for {text}")
        time.sleep(0.1)
    name = (waiting_for or "supervisor").split(", ")[0]
    raise ClusterError(
        f"{name} was not ready after {UP_DEADLINE_S:.0f} s. {_log_tail(layout, name)}",
        "Try `gcpctl cluster down` and `gcpctl cluster up`.",
    )


def _give_up(layout: Layout, plan: ClusterPlan, name: str, record: Record, fresh: bool) -> None:
    if fresh:  # leave nothing behind that would go on trying for ever
        end_marked(plan.cluster_id, ["supervisor"], grace_s=1.0)
        end_marked(plan.cluster_id)
    raise ClusterError(
        f"{name} ended {record.starts} times instead of starting. {_log_tail(layout, name)}",
        "Mend what the log says, then run `gcpctl cluster up` again.",
    )


def _log_tail(layout: Layout, name: str) -> str:
    log = layout.log(name)
    try:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    except OSError:
        lines = []
    return "\n".join([f"Its log, {log}, ends:", *(f"    {line}" for line in lines)]) + "\n"


def _start_supervisor(layout: Layout, plan: ClusterPlan) -> subprocess.Popen[bytes]:
    with layout.log("supervisor").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "cluster.supervisor", "--home", str(layout.home)],
            env=build_environment("supervisor", layout, plan, os.environ),
            cwd=layout.home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
