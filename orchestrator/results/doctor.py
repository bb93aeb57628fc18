"""What `gcpctl doctor` looks at. Each check is one function; none raises."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cluster.profiles import ClusterError, Profile, gcpctl_home, load_profile
from orchestrator.jobs.errors import GcpctlError
from orchestrator.jobs.http import HttpClient
from orchestrator.jobs.ray_jobs import RayJobs
from orchestrator.jobs.store import JobStore
from orchestrator.results.view_cards import TESTED_MLFLOW

FLOORS = {"ray": (2, 56), "mlflow": (3, 11), "torch": (2, 11)}
"""Oldest releases without a published hole that a job of ours would meet."""
_MIN_FREE_GIB = 5


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it."""

    subject: str
    verdict: Literal["ok", "warn", "bad"]
    message: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the finding with stable keys."""
        return asdict(self)


def examine() -> list[Finding]:
    """Run all checks."""
    findings = [_python(), *(_package(name) for name in FLOORS), _home(), _space()]
    try:
        profile = load_profile()
    except ClusterError as exc:
        return [*findings, Finding("profile", "bad", exc.message, exc.hint)]
    if profile is None:
        hint = "gcpctl cluster up, or submit a job"
        return [*findings, Finding("cluster", "warn", "none was brought up here yet", hint)]
    servers = [_mlflow(profile), *_views(profile), _ray(profile)]
    return [*findings, _token(profile), *servers, _storage(profile)]


def _python() -> Finding:
    text = ".".join(map(str, sys.version_info[:3]))
    inside = sys.prefix != sys.base_prefix
    return Finding("python", "ok", text + (" in its own environment" if inside else ""))


def _package(name: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "bad", "not installed", "make setup")
    floor = FLOORS[name]
    if tuple(int(part) for part in version.split(".")[:2]) < floor:
        wanted = ".".join(map(str, floor))
        return Finding(name, "bad", version, f"older than {wanted}, which closes known holes")
    return Finding(name, "ok", version)


def _home() -> Finding:
    home = gcpctl_home()
    place = home if home.exists() else _nearest_parent(home)
    problem = _write_problem(place)
    if problem:
        return Finding("home", "bad", f"{home}: {problem}", "set GCPCTL_HOME to another folder")
    return Finding("home", "ok", str(home))


def _nearest_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _write_problem(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as exc:
        return exc.strerror or str(exc)


def _space() -> Finding:
    free = shutil.disk_usage(_nearest_parent(gcpctl_home())).free / 2**30
    if free < _MIN_FREE_GIB:
        return Finding("disk", "warn", f"{free:.1f} GiB free", "checkpoints need room")
    return Finding("disk", "ok", f"{free:.0f} GiB free")


def _token(profile: Profile) -> Finding:
    try:
        profile.token()
    except ClusterError as exc:
        return Finding("token", "bad", exc.message, exc.hint)
    return Finding("token", "ok", f"{profile.token_path}, readable by you alone")


def _mlflow(profile: Profile) -> Finding:
    def ask() -> str:
        count = len(JobStore.of(profile, timeout_s=3).experiments())
        return f"{profile.mlflow_url}, {count} studies"

    return _asked("mlflow server", ask)


def _views(profile: Profile) -> list[Finding]:
    """Compare the server's MLflow with the one whose pages our saved views were opened in."""
    try:
        client = HttpClient(profile.mlflow_url, profile.token(), what="MLflow", timeout_s=3)
        version = client.send("GET", "/version").decode().strip()
    except (GcpctlError, ClusterError):
        return []  # the server's own finding says why
    if version == TESTED_MLFLOW:
        return [Finding("mlflow views", "ok", f"MLflow {version}, as tested")]
    message = f"the server's MLflow is {version}; saved views were tested with {TESTED_MLFLOW}"
    remedy = "where a view shows other charts than its name says, trust `gcpctl compare`"
    return [Finding("mlflow views", "warn", message, remedy)]


def _ray(profile: Profile) -> Finding:
    def ask() -> str:
        nodes = RayJobs.of(profile, timeout_s=5).nodes()
        cpus, gpus = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
        return f"{profile.ray_url}, {len(nodes)} node(s), {cpus:g} CPUs, {gpus:g} GPUs"

    return _asked("ray head", ask)


def _asked(subject: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, "ok", ask())
    except (GcpctlError, ClusterError) as exc:
        return Finding(subject, "bad", exc.message, exc.hint)


def _storage(profile: Profile) -> Finding:
    if not profile.storage_path.exists():
        return Finding("storage", "warn", f"{profile.storage_path} is not visible from here")
    problem = _write_problem(profile.storage_path)
    if problem and os.access(profile.storage_path, os.R_OK):
        return Finding("storage", "warn", f"{profile.storage_path}: {problem} (for this user)")
    return Finding("storage", "ok", str(profile.storage_path))
