"""Keeps the services alive: `python -m cluster.supervisor --home HOME`.

Holds no state of its own: pid files say what runs, profile.json says what should. It may be
killed at any time; services live on and the next supervisor adopts them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from cluster.healing import Action, Record, decide, load_record, save_record, started
from cluster.layout import Layout
from cluster.plan import ClusterPlan, load_plan
from cluster.ports import renew_ports
from cluster.processes import end_marked, identify, is_alive
from cluster.services import (
    PATIENCE,
    SERVICES,
    build_command,
    build_environment,
    is_healthy,
)

TICK_S = 0.5
HEALTH_EVERY_S = 5.0
LOG_LIMIT_BYTES = 10 * 2**20
PORT_PATIENCE_S = 10.0
"""A service that is started again waits so long for its port before it takes another."""
# Commands of what a dead Ray head leaves behind. A driver that gets SIGTERM believes that a user
# stopped its job and reports so; killed, it says nothing, and the controller tries again.
ORPHANS = ("orchestrator.drivers.main", "ray::")


class Supervisor:
    """The loop's state and its acts; what to do is decided in `healing.py`.

    Args:
        layout: The home.
        plan: What the cluster is.
        check: Health of a service; replaced in tests.
        clock: Seconds since the epoch; replaced in tests.
        stopwatch: Seconds that no setting of the clock changes; replaced in tests.
    """

    def __init__(
        self,
        layout: Layout,
        plan: ClusterPlan,
        check: Callable[[str, Layout, ClusterPlan], bool] = is_healthy,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self.layout = layout
        self.plan = plan
        self._check = check
        self._clock = clock
        self._stopwatch = stopwatch
        self._records = {name: load_record(layout, name) for name in SERVICES}
        self._saved = dict(self._records)
        self._asked_at = dict.fromkeys(SERVICES, float("-inf"))
        self._unwell_since: dict[str, float] = {}  # by the stopwatch; empty: all count as well
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def step(self) -> dict[str, Action]:
        """Look after every service once; return what was done."""
        self._children = {p: child for p, child in self._children.items() if child.poll() is None}
        return {name: self._look_after(name) for name in SERVICES}

    def forgive(self) -> None:
        """Forget past failures: a person asked for the cluster, so try now."""
        for name, record in self._records.items():
            self._records[name] = replace(record, failures=0)

    def _look_after(self, name: str) -> Action:
        record, now = self._records[name], self._clock()
        alive = is_alive(record.identity)
        healthy = self._ask(name, record) if alive else None
        action, seen = decide(
            record,
            alive=alive,
            healthy=healthy,
            unwell_s=self._measure_unwell(name, healthy),
            now=now,
            patience=PATIENCE[name],
        )
        self._records[name] = seen
        if action is not Action.NOTHING:
            note = "unwell for too long" if action is Action.REPLACE else ""
            note = note or (f"pid {record.pid} ended" if record.pid else "first start")
            self._start(name, seen, note)
        if self._is_worth_saving(name):
            save_record(self.layout, name, self._records[name])
            self._saved[name] = self._records[name]
        return action

    def _ask(self, name: str, record: Record) -> bool | None:
        now = self._stopwatch()
        if record.well_at and now - self._asked_at[name] < HEALTH_EVERY_S:
            return None
        self._asked_at[name] = now
        self._trim_log(name)
        return self._check(name, self.layout, self.plan)

    def _measure_unwell(self, name: str, healthy: bool | None) -> float:
        """Return the seconds since the first of the failed checks in a row."""
        if healthy:
            self._unwell_since.pop(name, None)
        if healthy is not False:
            return 0.0
        now = self._stopwatch()
        return now - self._unwell_since.setdefault(name, now)

    def _is_worth_saving(self, name: str) -> bool:
        """Tell whether more changed than a repeated "well"."""
        before, after = self._saved[name], self._records[name]
        return replace(before, well_at=0) != replace(after, well_at=0) or bool(
            before.well_at
        ) != bool(after.well_at)

    def _start(self, name: str, record: Record, note: str) -> None:
        """Clear what a former process left, then start the service on its ports."""
        self._unwell_since.pop(name, None)
        orphans = ORPHANS if name == "ray" else ()
        end_marked(self.plan.cluster_id, [name], grace_s=1.0, at_once=orphans)
        patience_s = PORT_PATIENCE_S if record.starts else 0.0
        ports = renew_ports(name, self.plan.ports, self.plan.pinned, patience_s=patience_s)
        if ports != self.plan.ports:
            self.plan = replace(self.plan, ports=ports)
            self.plan.save(self.layout)
            note += "; others had taken a port"
        if name == "controller":
            self.layout.heartbeat.unlink(missing_ok=True)
        say(f"starting {name}: {note}")
        log = self.layout.log(name)
        with log.open("ab") as output:
            child = subprocess.Popen(
                build_command(name, self.layout, self.plan),
                env=build_environment(name, self.layout, self.plan, os.environ),
                cwd=self.layout.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[child.pid] = child
        identity = identify(child.pid)
        if identity is None:
            self._records[name] = replace(
                record,
                started_at=self._clock(),
                failures=record.failures + 1,
                starts=record.starts + 1,
                note="ended at once",
            )
            return
        self._records[name] = started(record, identity, self._clock(), note)

    def _trim_log(self, name: str) -> None:
        """Keep one older log; services append, so their log can be cut under them."""
        log = self.layout.log(name)
        try:
            if log.stat().st_size > LOG_LIMIT_BYTES:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)
        except OSError:
            return


def is_gone(path: Path) -> bool:
    """Tell whether a file was removed; one that may not be looked at was not."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def say(text: str) -> None:
    """Write a line to the supervisor's log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def main(arguments: list[str]) -> int:
    """Run until SIGTERM. A second supervisor of the same home leaves at once."""
    parser = argparse.ArgumentParser(prog="cluster.supervisor")
    parser.add_argument("--home", type=Path, required=True)
    layout = Layout(parser.parse_args(arguments).home)
    forgiven: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda number, frame: forgiven.append(number))
    os.umask(0o077)
    try:
        lock = FileLock(layout.supervisor_lock).acquire(timeout=0)
    except Timeout:
        return 0
    with lock:
        plan, myself = load_plan(layout), identify(os.getpid())
        if plan is None or myself is None:
            say(f"no usable {layout.profile}; run `gcpctl cluster up`")
            return 1
        save_record(layout, "supervisor", started(Record(), myself, time.time(), ""))
        supervisor = Supervisor(layout, plan)
        supervisor.forgive()
        while not is_gone(layout.profile):
            if forgiven:
                forgiven.clear()
                supervisor.forgive()
            try:
                supervisor.step()
            except OSError as error:  # a full disk passes; without a supervisor nothing heals
                say(f"step failed: {error}")
            time.sleep(TICK_S)
        end_marked(plan.cluster_id, SERVICES)  # the home was removed under a running cluster
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
