"""The files that MLflow keeps with a job."""

import urllib.parse

from orchestrator.jobs.errors import ApiError, ConflictError, NotFoundError
from orchestrator.jobs.http import HttpClient
from orchestrator.jobs.job import Job

_LIST = "/api/2.0/mlflow/artifacts/list"
_FILES = "/api/2.0/mlflow-artifacts/artifacts"
_SCHEME = "mlflow-artifacts:/"


class Artifacts:
    """Reads and writes the files of jobs, through the tracking server."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def put_artifact(self, job: Job, name: str, content: bytes) -> None:
        """Store a file with the job, in place of an earlier one of that name."""
        self._client.send("PUT", self._artifact_path(job, name), content)

    def read_artifact(self, job: Job, name: str) -> bytes:
        """Return a file stored with the job; NotFoundError when there is none."""
        try:
            return self._client.send("GET", self._artifact_path(job, name))
        except ApiError as exc:
            # MLflow answers a missing file with 500 on some of its stores.
            raise NotFoundError(f"{job.job_id} has no artifact {name}") from exc

    def list_artifacts(self, job: Job, folder: str = "") -> list[str]:
        """Return the paths of the files in a folder of the job's artifacts."""
        answer = self._client.call("GET", _LIST, query={"run_id": job.run_id, "path": folder})
        return [file["path"] for file in answer.get("files", ()) if not file["is_dir"]]

    def _artifact_path(self, job: Job, name: str) -> str:
        if not job.artifact_uri.startswith(_SCHEME):
            raise ConflictError(
                f"the artifacts of {job.job_id} lie at {job.artifact_uri}, outside the tracking "
                "server; start the server with --serve-artifacts"
            )
        root = job.artifact_uri.removeprefix(_SCHEME).lstrip("/")
        return f"{_FILES}/{urllib.parse.quote(root)}/{urllib.parse.quote(name)}"
