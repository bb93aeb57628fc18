"""Where the weights of an evaluation are once its attempt starts: on a path that workers read."""

import os
from pathlib import Path

from cluster.profiles import Profile
from orchestrator.drivers.outcome import say
from orchestrator.jobs.checkpoints import find_checkpoint, is_mlflow_uri, parse_pending
from orchestrator.jobs.errors import ApiError, NotFoundError
from workloads import durable
from workloads.worker.paths import JobPaths

_SUFFIXES = (".gcpnet", ".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt")
_DONE = ".complete"


def locate_weights(profile: Profile, weights: str, paths: JobPaths) -> Path:
    """Return the folder or file of the weights that a spec names.

    Args:
        profile: The cluster; its MLflow is asked for what only MLflow has.
        weights: See `orchestrator.jobs.checkpoints.ResolvedCheckpoint`.
        paths: The job's folder, which takes what is downloaded.

    Raises:
        NotFoundError: There is no such checkpoint, file or artifact.
        ApiError: MLflow did not give it out.
    """
    if is_mlflow_uri(weights):
        return _download(profile, weights, paths.root / "weights")
    pending = parse_pending(weights)
    if pending is not None:
        return find_checkpoint(*pending)
    path = Path(weights)
    if path.exists():
        return path
    if path.parent.name == paths.checkpoints.name and path.parent.is_dir():
        job = path.parents[1].name
        raise NotFoundError(
            f"the checkpoint {path} is gone: {job} went on and kept newer ones",
            f"name one that stays: {job}:best, or raise checkpoint.keep",
        )
    raise NotFoundError(f"the cluster sees no {path}", "put it where all nodes see it")


def _download(profile: Profile, uri: str, folder: Path) -> Path:
    """Fetch a file, or the only file of weights in a folder, once for all attempts."""
    if not (folder / _DONE).exists():
        durable.remove_tree(folder)
        folder.mkdir(parents=True)
        os.environ["MLFLOW_TRACKING_URI"] = profile.mlflow_url
        os.environ["MLFLOW_TRACKING_TOKEN"] = profile.token()
        say(f"downloading {uri}")
        _fetch(artifact_uri=uri, dst_path=str(folder))
        (folder / _DONE).touch()
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    if len(files) == 1:
        return files[0]
    there = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    listed = ", ".join(str(name) for name in there if str(name) != _DONE)
    what = "several files" if files else "no file"
    raise NotFoundError(
        f"{uri} holds {what} of weights ({listed})",
        f"name one of them; weights end in {', '.join(_SUFFIXES)}",
    )


def _fetch(*, artifact_uri: str, dst_path: str) -> None:
    # Imported here: it takes seconds, and only such weights need it.
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        download_artifacts(artifact_uri=artifact_uri, dst_path=dst_path)
    except MlflowException as exc:
        status = exc.get_http_status_code()
        if status in (400, 404):
            raise NotFoundError(f"MLflow has no {artifact_uri}: {exc}") from exc
        raise ApiError(f"MLflow: {exc}", status=status, text=str(exc)) from exc
