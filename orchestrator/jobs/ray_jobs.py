"""Ray's Jobs API: the only module that speaks it. Needs neither ray nor its client."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.jobs.errors import ApiError, NotFoundError, UnreachableError
from orchestrator.jobs.http import HttpClient

if TYPE_CHECKING:
    from cluster.profiles import Profile

_DEAD = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


@dataclass(frozen=True)
class RayJob:
    """An attempt as Ray sees it."""

    submission_id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str = ""
    exit_code: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the driver has ended."""
        return self.status in _DEAD


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers in all, busy or not."""

    cpus: float
    gpus: float


class RayJobs:
    """Submits, watches and stops attempts on one Ray cluster."""

    def __init__(self, client: HttpClient, token: str) -> None:
        self._client = client
        self._token = token

    @classmethod
    def of(cls, profile: "Profile", *, timeout_s: float = 30.0) -> "RayJobs":
        """Return the Jobs API of a cluster."""
        token = profile.token()
        return cls(HttpClient(profile.ray_url, token, what="Ray", timeout_s=timeout_s), token)

    def submit(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        """Start a driver. Submitting an id that Ray knows already changes nothing."""
        body: dict[str, Any] = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "metadata": metadata,
            # An empty environment on purpose: any entry makes every process of the job start
            # through a shim that costs half a second.
            "runtime_env": {},
        }
        try:
            self._client.call("POST", "/api/jobs/", body, retry=False)
        except ApiError as exc:
            if "already exists" not in exc.text:
                raise

    def get(self, submission_id: str) -> RayJob | None:
        """Return the attempt, or None when Ray does not know it (any more)."""
        try:
            answer = self._client.call("GET", f"/api/jobs/{submission_id}")
        except NotFoundError:
            return None
        return RayJob(
            submission_id=submission_id,
            status=answer["status"],
            message=answer.get("message") or "",
            exit_code=answer.get("driver_exit_code"),
        )

    def stop(self, submission_id: str) -> bool:
        """Ask the driver to end: SIGTERM, and SIGKILL after the cluster's grace.

        Returns:
            Whether it was told; False for one that is not running.
        """
        try:
            answer = self._client.call("POST", f"/api/jobs/{submission_id}/stop")
        except NotFoundError:
            return False
        return bool(answer.get("stopped"))

    def logs(self, submission_id: str) -> str:
        """Return all that the driver has written; NotFoundError when Ray lost it."""
        answer = self._client.call("GET", f"/api/jobs/{submission_id}/logs")
        return str(answer.get("logs") or "")

    def nodes(self) -> list[Node]:
        """Return the machines of the cluster that are alive."""
        answer = self._client.call("GET", "/api/v0/nodes", query={"detail": "1"})
        rows = answer["data"]["result"]["result"]
        return [
            Node(
                cpus=float(row.get("resources_total", {}).get("CPU", 0)),
                gpus=float(row.get("resources_total", {}).get("GPU", 0)),
            )
            for row in rows
            if row.get("state") == "ALIVE"
        ]

    async def tail(self, submission_id: str) -> AsyncIterator[str]:
        """Yield the driver's log from its beginning, and go on while it grows.

        The stream may end before the job does (Ray closes it now and then): ask for the status
        and call again.
        """
        import aiohttp

        url = f"{self._client.url}/api/jobs/{submission_id}/logs/tail"
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.ws_connect(url, heartbeat=20.0) as socket,
            ):
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        yield message.data
        except aiohttp.WSServerHandshakeError as exc:
            if exc.status == 404:
                raise NotFoundError(f"Ray knows no {submission_id}") from exc
            raise ApiError(str(exc), status=exc.status, text=str(exc)) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise UnreachableError(f"Ray at {self._client.url} does not answer ({exc})") from exc
