"""From what a person writes for a checkpoint to a place where its weights are.

Three things can be meant: a training job (`train-x7`, `train-x7:last`, `train-x7:1200`), a file or
folder (`resnet50.pth`, `./weights`, `/storage/train-x7:best`), and an artifact in MLflow
(`runs:/RUN_ID/path`, `models:/name/3`). Only names and places are looked at here; the weights
themselves are read, and checked, where they are used.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.profiles import Profile
from orchestrator.jobs.errors import EXIT_USAGE, ConflictError, GcpctlError, NotFoundError
from orchestrator.jobs.job import Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore
from workloads.config.errors import did_you_mean
from workloads.worker.paths import JobPaths

BEST, LAST = "best", "last"
_WHICH = re.compile(r"(?P<name>.+):(?P<which>best|last|\d+)")
_JOB = re.compile(r"[a-z0-9-]+")
_STEP = re.compile(r"step-(\d{10})(\.old)?")
_MANIFEST = "MANIFEST.json"
_SCHEMES = ("runs:/", "models:/", "mlflow-artifacts:/")
_MODEL = re.compile(r"models:/+(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[^/]+))")
_KNOWN_JOBS = 1000


@dataclass(frozen=True)
class CheckpointName:
    """What a person asked for, by its form alone.

    Attributes:
        kind: `job`, `file` (a folder counts as one) or `mlflow`.
        name: A job's id or a part of it, a path, or a URI.
        which: Of a job's checkpoints: `best`, `last` or the digits of a step.
        said: Whether `which` was written or is the usual one.
    """

    kind: Literal["job", "file", "mlflow"]
    name: str
    which: str = BEST
    said: bool = False


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """Where weights are.

    Attributes:
        weights: A checkpoint's folder, a file, a URI of MLflow, or `<job folder>:<which>` where
            the checkpoint will only be known when the attempt starts (`is_pending`).
        origin: What was asked for, with the job's full id; for reports.
        job: The job that trained them, if one of this cluster did.
    """

    weights: str
    origin: str
    job: Job | None = None

    @property
    def is_pending(self) -> bool:
        """Whether the folder is still to be found, by `find_checkpoint`."""
        return parse_pending(self.weights) is not None

    @property
    def is_remote(self) -> bool:
        """Whether MLflow has them."""
        return is_mlflow_uri(self.weights)


def is_mlflow_uri(text: str) -> bool:
    """Whether a text names something in MLflow's artifact store."""
    return text.startswith(_SCHEMES)


def parse_checkpoint(text: str) -> CheckpointName:
    """Tell a job from a file and from a URI by their form.

    A name of lower-case letters, digits and hyphens is a job; a file of such a name is written
    with its folder, `./weights`.

    Raises:
        GcpctlError: An empty text, or something after the colon that names no checkpoint.
    """
    text = text.strip()
    if is_mlflow_uri(text):
        return CheckpointName("mlflow", text)
    match = _WHICH.fullmatch(text)
    name, which = (match["name"], match["which"]) if match else (text, BEST)
    if _JOB.fullmatch(name):
        return CheckpointName("job", name, which, said=match is not None)
    job, colon, rest = text.partition(":")
    if colon and _JOB.fullmatch(job) and "/" not in rest:
        raise GcpctlError(
            f"--checkpoint {text!r}: {rest!r} is no checkpoint of {job}",
            f"write {job}:best, {job}:last, or {job}:STEP with a number",
            exit_code=EXIT_USAGE,
        )
    if not name:
        raise GcpctlError(
            "--checkpoint is empty",
            "give a job, a file of weights or a URI of MLflow",
            exit_code=EXIT_USAGE,
        )
    return CheckpointName("file", name, which, said=match is not None)


def resolve_checkpoint(
    store: JobStore | None,
    profile: Profile | None,
    text: str,
    *,
    may_wait: tuple[str, ...] = (),
    folder: Path | None = None,
) -> ResolvedCheckpoint:
    """Find the weights that a person asked for.

    Args:
        store: The cluster's jobs; needed for a job and for MLflow.
        profile: The cluster; needed for a job.
        text: See `parse_checkpoint`.
        may_wait: Ids of jobs whose checkpoint need not be there yet (those of `--after`).
        folder: Where relative paths begin; None where the cluster sees other folders than we do,
            and nothing is looked at.

    Raises:
        NotFoundError: No such job, checkpoint, file or artifact.
        ConflictError: A job that trains nothing.
        GcpctlError: A text of no known form.
    """
    asked = parse_checkpoint(text)
    if asked.kind == "mlflow":
        assert store is not None
        _look_for_artifact(store, asked.name)
        return ResolvedCheckpoint(asked.name, asked.name)
    if asked.kind == "file":
        return _resolve_path(asked, folder)
    assert store is not None
    assert profile is not None
    return _resolve_job(store, profile, asked, may_wait)


def find_checkpoint(job_folder: Path, which: str) -> Path:
    """Return the folder of one of a job's checkpoints.

    Args:
        job_folder: `<storage>/<job>`.
        which: `best`, `last` or the digits of a step.

    Raises:
        NotFoundError: There is none; says which there are.
    """
    name = job_folder.name
    found = _checkpoints(job_folder)
    if not found:
        raise NotFoundError(
            f"{name} has no checkpoint in {job_folder / 'checkpoints'}",
            f"it saves the first at the end of an epoch; see: gcpctl status {name}",
        )
    there = f"it has {', '.join(f'{name}:{step}' for step in sorted(found))}"
    if which == LAST:
        return found[max(found)]
    if which != BEST:
        if int(which) not in found:
            raise NotFoundError(f"{name} has no checkpoint of step {int(which)}", there)
        return found[int(which)]
    best = _best_step(job_folder)
    if best is None:
        raise NotFoundError(
            f"{name} has no best checkpoint: it was not validated yet", f"take {name}:last; {there}"
        )
    if best not in found:
        raise NotFoundError(f"the best checkpoint of {name}, of step {best}, is gone", there)
    return found[best]


def parse_pending(weights: str) -> tuple[Path, str] | None:
    """Return job folder and `which` of weights that are still to be found, else None."""
    match = None if is_mlflow_uri(weights) else _WHICH.fullmatch(weights)
    return (Path(match["name"]), match["which"]) if match else None


def _checkpoints(job_folder: Path) -> dict[int, Path]:
    """Return step -> folder of the complete checkpoints."""
    folder = JobPaths(job_folder).checkpoints
    # What a crash left of a replaced checkpoint counts only until its successor is there.
    names = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    matches = [(path, _STEP.fullmatch(path.name)) for path in names]
    return {int(match[1]): path for path, match in matches if match}


def _best_step(job_folder: Path) -> int | None:
    try:
        return int(json.loads(JobPaths(job_folder).best.read_text())["step"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _resolve_path(asked: CheckpointName, folder: Path | None) -> ResolvedCheckpoint:
    path = Path(os.path.expanduser(asked.name))
    suffix = f":{asked.which}" if asked.said else ""
    if folder is None:
        if not path.is_absolute():
            raise GcpctlError(
                f"--checkpoint {asked.name!r} is relative; say where it is on the cluster",
                "begin it with /",
                exit_code=EXIT_USAGE,
            )
        return ResolvedCheckpoint(f"{path}{suffix}", f"{path}{suffix}")
    path = Path(folder / path).resolve()
    if not path.exists():
        raise NotFoundError(
            f"there is no file {path}",
            "--checkpoint takes a job (see: gcpctl status), a file of weights or a URI of MLflow",
        )
    if path.is_dir() and JobPaths(path).checkpoints.is_dir():
        return ResolvedCheckpoint(str(find_checkpoint(path, asked.which)), f"{path}{suffix}")
    if path.is_dir() and not (path / _MANIFEST).is_file():
        raise NotFoundError(
            f"{path} is a folder, and neither a job's nor one of its checkpoints",
            "name the file of weights, or <storage>/<job>/checkpoints/<step>",
        )
    return ResolvedCheckpoint(str(path), str(path))


def _resolve_job(
    store: JobStore, profile: Profile, asked: CheckpointName, may_wait: tuple[str, ...]
) -> ResolvedCheckpoint:
    job = _find_job(store, asked)
    if job.kind != "train":
        origin = job.raw_spec["config"].get("origin", "")
        raise ConflictError(
            f"{job.job_id} is a job of kind {job.kind!r}; it has no checkpoints",
            f"it evaluated {origin}" if origin else "",
        )
    origin = f"{job.job_id}:{asked.which}"
    folder = profile.storage_path / job.job_id
    pending = ResolvedCheckpoint(f"{folder}:{asked.which}", origin, job)
    if job.job_id in may_wait and job.state is not State.FINISHED:
        return pending
    if not profile.storage_path.is_dir():  # of a cluster whose folders we do not see
        return pending
    if not _checkpoints(folder):
        why = job.reason or job.phase
        hint = f"let the new job wait for it: --after {job.job_id}"
        raise NotFoundError(
            f"{job.job_id} has no checkpoint yet; it is {job.state}" + (f" ({why})" if why else ""),
            "" if job.state.is_final else hint,
        )
    return ResolvedCheckpoint(str(find_checkpoint(folder, asked.which)), origin, job)


def _find_job(store: JobStore, asked: CheckpointName) -> Job:
    try:
        return store.find(asked.name)
    except NotFoundError as exc:
        if Path(asked.name).exists():
            hint = f"a file of that name is here: write ./{asked.name}"
        else:
            known = [job.job_id for job in store.search(limit=_KNOWN_JOBS)]
            hint = did_you_mean(asked.name, known) or exc.hint
        raise NotFoundError(exc.message, hint) from None


def _look_for_artifact(store: JobStore, uri: str) -> None:
    """Raise NotFoundError where MLflow has no such artifact or model."""
    if uri.startswith("runs:/"):
        run_id, _, path = uri.removeprefix("runs:/").lstrip("/").partition("/")
        if not path:
            raise NotFoundError(f"{uri} names a run and no file", "write runs:/RUN_ID/PATH")
        try:
            run = store.get(run_id)
        except NotFoundError:
            raise NotFoundError(
                f"MLflow has no run {run_id!r}", "its pages show a run's id as `Run ID`"
            ) from None
        parent = path.rstrip("/").rpartition("/")[0]
        there = store.list_artifacts(run, parent)
        if path.rstrip("/") not in there and not store.list_artifacts(run, path):
            listed = f"in {parent or 'its folder'}: {', '.join(there)}" if there else ""
            raise NotFoundError(f"the run {run_id} has no artifact {path!r}", listed)
        return
    if uri.startswith("models:/"):
        match = _MODEL.fullmatch(uri)
        if match is None:
            raise GcpctlError(
                f"{uri!r} is no model of MLflow's registry",
                "write models:/NAME/VERSION or models:/NAME@ALIAS",
                exit_code=EXIT_USAGE,
            )
        if not store.has_model(match["name"], version=match["version"], alias=match["alias"]):
            raise NotFoundError(f"MLflow's registry has no {uri}")
