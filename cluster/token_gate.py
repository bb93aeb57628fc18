"""ASGI middleware: nothing behind it answers without the cluster's token."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/health",)
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_REFUSAL = b"401: this MLflow server belongs to a gcpctl cluster. `gcpctl ui` prints the link.\n"
_FOREIGN = b"403: a page of another origin may not change anything here.\n"


class TokenGate:
    """Let a request through that shows the token.

    Three ways: `Authorization: Bearer TOKEN` (clients), Basic with the token as password
    (tools that know nothing else), and a cookie that opening `/?token=TOKEN` once sets.

    Args:
        app: The application behind.
        token: The secret.
        port: Part of the cookie's name: browsers share cookies between ports of a host.
    """

    def __init__(self, app: App, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self.cookie_name = f"gcpctl_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # MLflow has no WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.lower(): value for name, value in scope.get("headers", [])}
        if scope["path"] in OPEN_PATHS or self._is_shown_in_header(headers):
            await self._app(scope, receive, send)
        elif self._is_right(self._cookie(headers)):
            if scope["method"] not in _SAFE_METHODS and not _is_same_origin(headers):
                await _reply(send, 403, _FOREIGN)
            else:
                await self._app(scope, receive, send)
        elif (location := self._exchange(scope)) is not None:
            cookie = f"{self.cookie_name}={self._token.decode()}; Path=/; HttpOnly; SameSite=Lax"
            extra = [(b"location", location.encode()), (b"set-cookie", cookie.encode())]
            await _reply(send, 303, b"", extra)
        else:
            await _reply(send, 401, _REFUSAL, [(b"www-authenticate", b"Bearer")])

    def _is_right(self, shown: bytes | None) -> bool:
        return shown is not None and hmac.compare_digest(shown, self._token)

    def _is_shown_in_header(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            return self._is_right(rest.strip())
        if scheme.lower() == b"basic":
            try:
                return self._is_right(base64.b64decode(rest, validate=True).partition(b":")[2])
            except (binascii.Error, ValueError):
                return False
        return False

    def _cookie(self, headers: dict[bytes, bytes]) -> bytes | None:
        try:
            found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return None
        return found[self.cookie_name].value.encode() if self.cookie_name in found else None

    def _exchange(self, scope: Scope) -> str | None:
        """Return where to go on when the query holds the right token; it is not repeated."""
        if scope["method"] != "GET":
            return None
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        if not any(key == "token" and self._is_right(value.encode()) for key, value in query):
            return None
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        # Never "//host" or "/\\host": a browser would leave this server for that one.
        path = "/" + quote(str(scope["path"]).lstrip("/\\"), safe="/")
        return f"{path}?{rest}" if rest else path


def _is_same_origin(headers: dict[bytes, bytes]) -> bool:
    """Tell whether a cookie's request comes from our own pages.

    Same-site cookies ignore ports, so another program's page on this machine sends ours.
    """
    origin = headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2] == headers.get(b"host")


async def _reply(
    send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
        *(extra or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
