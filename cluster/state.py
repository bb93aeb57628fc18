"""How the embedded cluster is: read from pid files, health checks and the process table."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.healing import load_record
from cluster.layout import Layout
from cluster.plan import ClusterPlan, load_plan
from cluster.ports import LOOPBACK
from cluster.processes import find_marked, is_alive, memory_mib
from cluster.profiles import gcpctl_home
from cluster.services import SERVICES, is_healthy


@dataclass(frozen=True)
class ServiceStatus:
    """One service now. State is up, starting or down; memory counts its process tree."""

    name: str
    state: str
    pid: int | None
    url: str | None
    uptime_s: float | None
    rss_mib: float
    pss_mib: float
    restarts: int
    note: str
    log: str


@dataclass(frozen=True)
class ClusterStatus:
    """All services of a home. `running` means: a supervisor lives and every service is up."""

    home: str
    running: bool
    num_cpus: int | None
    services: list[ServiceStatus]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def status(*, home: Path | None = None) -> ClusterStatus:
    """Look at every service; start nothing."""
    layout = Layout((home or gcpctl_home()).expanduser().absolute())
    plan, supervised = load_plan(layout), is_supervised(layout)
    if plan is None:
        return ClusterStatus(str(layout.home), False, None, [])
    found = [_service_status(name, layout, plan) for name in SERVICES]
    trees = find_marked(plan.cluster_id, ["supervisor"])
    rss, pss = memory_mib(trees)
    keeper = load_record(layout, "supervisor")
    found.append(
        ServiceStatus(
            name="supervisor",
            state="up" if supervised else "down",
            pid=keeper.pid if supervised else None,
            url=None,
            uptime_s=time.time() - keeper.started_at if supervised else None,
            rss_mib=round(rss, 1),
            pss_mib=round(pss, 1),
            restarts=0,
            note="",
            log=str(layout.log("supervisor")),
        )
    )
    running = all(service.state == "up" for service in found)
    return ClusterStatus(str(layout.home), running, plan.num_cpus, found)


def is_supervised(layout: Layout) -> bool:
    """Tell whether this home's supervisor lives."""
    return is_alive(load_record(layout, "supervisor").identity)


def _service_status(name: str, layout: Layout, plan: ClusterPlan) -> ServiceStatus:
    record = load_record(layout, name)
    alive = is_alive(record.identity)
    healthy = alive and is_healthy(name, layout, plan)
    rss, pss = memory_mib(find_marked(plan.cluster_id, [name]))
    port = plan.ports.get({"mlflow": "mlflow", "ray": "dashboard"}.get(name, ""))
    return ServiceStatus(
        name=name,
        state="up" if healthy else "starting" if alive else "down",
        pid=record.pid if alive else None,
        url=f"http://{LOOPBACK}:{port}" if port else None,
        uptime_s=time.time() - record.started_at if alive else None,
        rss_mib=round(rss, 1),
        pss_mib=round(pss, 1),
        restarts=max(0, record.starts - 1),
        note=record.note,
        log=str(layout.log(name)),
    )
