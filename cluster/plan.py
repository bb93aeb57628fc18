"""What one home's embedded cluster is: its id, size, ports and addresses."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.layout import Layout, load_json, ray_temp_dir, save_json
from cluster.ports import LOOPBACK, PORTS_OF, choose_ports


@dataclass(frozen=True)
class ClusterPlan:
    """All that must survive a restart of any process; kept in profile.json.

    Attributes:
        cluster_id: Mark of this home; every process of the cluster carries it.
        num_cpus: What Ray may hand out.
        ports: Port per name in `PORTS_OF`.
        pinned: Names of ports a person chose.
        controller: Command of the controller; empty for the real one.
        cpus_chosen: Whether a person chose `num_cpus`; else the next start may follow the
            machine.
    """

    cluster_id: str
    num_cpus: int
    ports: dict[str, int]
    pinned: list[str] = field(default_factory=list)
    controller: list[str] = field(default_factory=list)
    cpus_chosen: bool = False

    def ray_temp(self, layout: Layout) -> Path:
        return ray_temp_dir(layout.home, self.cluster_id)

    def save(self, layout: Layout) -> None:
        """Write profile.json: the addresses everybody reads, and the plan itself."""
        save_json(
            layout.profile,
            {
                "ray_url": f"http://{LOOPBACK}:{self.ports['dashboard']}",
                "ray_address": f"{LOOPBACK}:{self.ports['gcs']}",
                "mlflow_url": f"http://{LOOPBACK}:{self.ports['mlflow']}",
                "token_path": str(layout.token),
                "storage_path": str(layout.storage),
                "nudge_path": str(layout.nudge),
                "ray_log_root": str(self.ray_temp(layout)),
                "cluster": asdict(self),
            },
        )


def load_plan(layout: Layout) -> ClusterPlan | None:
    """Return the home's plan; None when it has none or it is damaged."""
    stored = (load_json(layout.profile) or {}).get("cluster")
    if not isinstance(stored, dict):
        return None
    try:
        plan = ClusterPlan(**stored)
    except TypeError:
        return None
    return plan if all(n in plan.ports for names in PORTS_OF.values() for n in names) else None


def cluster_id_of(home: Path) -> str:
    """Return the home's mark. Made from its path, so that it outlives every file in it."""
    return hashlib.sha256(f"{os.getuid()}:{home.resolve()}".encode()).hexdigest()[:24]


def make_plan(previous: ClusterPlan | None, home: Path, **changes: Any) -> ClusterPlan:
    """Return the previous plan with `changes`, or a new one with new ports."""
    if previous is None:
        names = [name for group in PORTS_OF.values() for name in group]
        previous = ClusterPlan(cluster_id_of(home), 1, choose_ports(names))
    return replace(previous, **changes)
