"""JSON over HTTP with a bearer token: all that the terminal and the controller need.

The standard library's client on purpose: `status` may take 300 ms in all, and the smallest
library of this kind costs a third of that to import.
"""

import http.client
import json
import time
import urllib.parse
from typing import Any

from orchestrator.jobs.errors import ApiError, AuthError, NotFoundError, UnreachableError

_RETRY_DELAYS_S = (0.1, 0.4)


class HttpClient:
    """One server, one kept-alive connection; not for use from several threads.

    Args:
        url: Base address, `http://host:port`.
        token: Sent as `Authorization: Bearer`.
        what: Name of the server in messages, such as `MLflow`.
        timeout_s: Bound on connecting and on each read.
    """

    def __init__(self, url: str, token: str, *, what: str, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.what = what
        self._parts = urllib.parse.urlsplit(self.url)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, str] | None = None,
        retry: bool = True,
    ) -> Any:
        """Send `body` as JSON and return the decoded answer.

        Args:
            retry: Whether a connection that fails is tried again; False where repeating the
                request would repeat its effect.

        Raises:
            UnreachableError: Nobody answered.
            AuthError: The token was refused.
            NotFoundError: The server knows no such thing.
            ApiError: Any other error status.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data is not None else {}
        raw = self.send(method, path, data, headers=headers, query=query, retry=retry)
        if not raw:
            return {}
        try:
            return json.loads(raw)
        except ValueError as exc:
            raise ApiError(
                f"{self.what} at {self.url} answered {method} {path} with something that is not "
                "JSON; another program may be listening there",
                status=200,
                text=raw[:500].decode(errors="replace"),
            ) from exc

    def send(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        *,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        retry: bool = True,
    ) -> bytes:
        """Send raw bytes and return the raw answer; raises as `call` does."""
        target = self._parts.path + path
        if query:
            target += "?" + urllib.parse.urlencode(query)
        delays = _RETRY_DELAYS_S if retry else ()
        for attempt in range(len(delays) + 1):
            try:
                status, text = self._once(method, target, data, headers or {})
                break
            except (OSError, http.client.HTTPException) as exc:
                self.close()
                if attempt == len(delays):
                    raise UnreachableError(
                        f"{self.what} at {self.url} does not answer ({_reason(exc)})",
                        "see: gcpctl cluster status",
                    ) from exc
                time.sleep(delays[attempt])
        if status < 400:
            return text
        raise self._error(status, method, path, text.decode(errors="replace"))

    def _once(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        if self._connection is None:
            kind = (
                http.client.HTTPSConnection
                if self._parts.scheme == "https"
                else http.client.HTTPConnection
            )
            self._connection = kind(self._parts.netloc, timeout=self._timeout_s)
        self._connection.request(method, target, body=data, headers=self._headers | headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def _error(self, status: int, method: str, path: str, text: str) -> Exception:
        # Ray answers a wrong token with 403; MLflow answers a foreign host with it.
        if status == 401 or (status == 403 and "token" in text.lower()):
            return AuthError(
                f"{self.what} at {self.url} refused the token",
                "the token belongs to another cluster, or the cluster was made anew; "
                "check GCPCTL_HOME and GCPCTL_PROFILE",
            )
        if status == 404:
            return NotFoundError(f"{self.what} at {self.url} knows no {path}")
        lines = text.strip().splitlines()
        return ApiError(
            f"{self.what} at {self.url} answered {method} {path} with {status}: "
            f"{lines[-1][:300] if lines else 'no text'}",
            status=status,
            text=text,
        )

    def close(self) -> None:
        """Drop the connection; the next call opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _reason(exc: BaseException) -> str:
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused"
    if isinstance(exc, TimeoutError):
        return "timed out"
    return str(exc) or type(exc).__name__
