"""The three services of the embedded cluster: what each runs, with what, and when it is well."""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cluster
from cluster.credentials import read_token
from cluster.errors import ClusterError
from cluster.layout import Layout
from cluster.plan import ClusterPlan
from cluster.ports import LOOPBACK
from cluster.processes import MARKER, SERVICE

SERVICES = ("mlflow", "ray", "controller")  # in the order they are started
HEARTBEAT_MAX_AGE_S = 10.0
OBJECT_STORE_BYTES = 100_000_000
# Variables of the caller that would lead a service or a job to another cluster or store.
_FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_", "RAY_JOB_", "MLFLOW_", "GCPCTL_PROFILE", "GCPCTL_NUM_CPUS")


@dataclass(frozen=True)
class Patience:
    """How long a living process may be unwell before it is replaced, in seconds."""

    start_s: float
    later_s: float


# A busy machine answers late, and a replaced Ray head costs every job its attempt: be slow there.
PATIENCE = {
    "mlflow": Patience(start_s=60, later_s=60),
    "ray": Patience(start_s=90, later_s=180),
    "controller": Patience(start_s=45, later_s=60),
}


def build_command(service: str, layout: Layout, plan: ClusterPlan) -> list[str]:
    """Return the argument vector of a service. Secrets travel by path, never here."""
    if service == "mlflow":
        return [
            sys.executable,
            "-m",
            "cluster.mlflow_server",
            "--home",
            str(layout.home),
            "--port",
            str(plan.ports["mlflow"]),
        ]
    if service == "controller":
        loop = ["-m", "orchestrator.controller.loop", "--profile-home", str(layout.home)]
        return plan.controller or [sys.executable, *loop]
    ports = plan.ports
    return [
        sys.executable,
        "-m",
        "cluster.ray_head",
        "--head",
        f"--node-ip-address={LOOPBACK}",
        f"--dashboard-host={LOOPBACK}",
        f"--port={ports['gcs']}",
        f"--dashboard-port={ports['dashboard']}",
        f"--dashboard-agent-listen-port={ports['agent']}",
        f"--dashboard-agent-grpc-port={ports['agent_grpc']}",
        f"--runtime-env-agent-port={ports['runtime_env']}",
        f"--metrics-export-port={ports['metrics']}",
        f"--node-manager-port={ports['node_manager']}",
        f"--object-manager-port={ports['object_manager']}",
        "--min-worker-port=0",  # 0: the system chooses, so two heads do not meet
        "--max-worker-port=0",
        f"--num-cpus={plan.num_cpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={plan.ray_temp(layout)}",
        "--disable-usage-stats",
        "--no-monitor",  # the autoscaler: this cluster has one node
        # Workers write their lines to files, which the driver copies into its log.
        "--include-log-monitor=false",
    ]


def build_environment(
    service: str, layout: Layout, plan: ClusterPlan, caller: Mapping[str, str]
) -> dict[str, str]:
    """Return a service's environment: the caller's, less what misleads, plus ours."""
    environment = {k: v for k, v in caller.items() if not k.startswith(_FOREIGN)}
    root = str(Path(cluster.__file__).resolve().parent.parent)
    paths = [root, *filter(None, caller.get("PYTHONPATH", "").split(os.pathsep))]
    environment |= {
        MARKER: plan.cluster_id,
        SERVICE: service,
        "GCPCTL_HOME": str(layout.home),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if service == "ray":
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(layout.token),
            "RAY_worker_niceness": "0",  # 15 by default: training would starve behind anything
            "RAY_enable_metrics_collection": "false",
            # From SIGTERM to SIGKILL: time to finish a step and save a checkpoint (Ray: 3 s).
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
            "DASHBOARD_METRIC_PORT": "-1",  # none: it would answer without a token
            # Ray replaces 127.0.0.1 by the machine's address and listens on all interfaces,
            # except on systems where it deems clusters unsupported. This makes it think so.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "SPT_NOENV": "1",  # see processes.py: keeps the marker readable
        }
    return environment


def fetch(url: str, token: str | None, timeout_s: float = 2.0) -> str | None:
    """GET from one of our servers; None when it does not answer 200 in time."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=timeout_s) as reply:
            return str(reply.read().decode())
    except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError):
        return None


def is_healthy(service: str, layout: Layout, plan: ClusterPlan) -> bool:
    """Tell whether the service does its work now (not only: exists)."""
    if service == "controller":
        try:
            # abs: after a clock was set back, a heartbeat of the future proves nothing
            return abs(time.time() - layout.heartbeat.stat().st_mtime) < HEARTBEAT_MAX_AGE_S
        except OSError:
            return False
    if service == "mlflow":
        return fetch(f"http://{LOOPBACK}:{plan.ports['mlflow']}/health", None) is not None
    return bool(fetch_resources(layout, plan))


def fetch_resources(layout: Layout, plan: ClusterPlan) -> dict[str, float]:
    """Return what Ray's living nodes hold together; empty when Ray does not answer."""
    total: dict[str, float] = {}
    try:
        url = f"http://{LOOPBACK}:{plan.ports['dashboard']}/api/v0/nodes"
        nodes = json.loads(fetch(url, read_token(layout.token), 5.0) or "")
        for node in nodes["data"]["result"]["result"]:
            if node["state"] == "ALIVE":
                for name, amount in {"nodes": 1, **node.get("resources_total", {})}.items():
                    total[name] = total.get(name, 0.0) + float(amount)
    except (ClusterError, ValueError, KeyError, TypeError):
        return {}
    return total
