"""The gate, called as ASGI calls it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from cluster.token_gate import Message, Receive, Scope, Send, TokenGate

TOKEN = "s3cret-token"


def call(
    method: str = "GET",
    path: str = "/",
    query: str = "",
    kind: str = "http",
    inner: int = 200,
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request through a gate; the application behind answers `inner` "inside"."""
    sent: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": inner, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    asyncio.run(TokenGate(application, TOKEN, 8123)(scope, receive, send))
    if kind == "websocket":
        return sent[0]["code"], {}, b""
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer {TOKEN}"}, 200),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": TOKEN}, 401),
        ({"authorization": basic(TOKEN)}, 200),
        ({"authorization": basic("")}, 401),
        ({"authorization": "Basic !!"}, 401),
        ({"cookie": f"gcpctl_8123={TOKEN}"}, 200),
        ({"cookie": f"a=b; gcpctl_8123={TOKEN}"}, 200),
        ({"cookie": f"gcpctl_9999={TOKEN}"}, 401),
        ({"cookie": "gcpctl_8123=wrong"}, 401),
        ({"cookie": ";;=;"}, 401),
    ],
)
def test_who_gets_in(headers: dict[str, str], status: int) -> None:
    assert call(**headers)[0] == status


def test_health_is_open_and_the_refusal_says_what_to_do() -> None:
    assert call(path="/health")[0] == 200
    status, _, body = call(path="/healthx")
    assert status == 401
    assert b"gcpctl ui" in body


def test_the_link_sets_a_cookie_and_leads_on_without_the_token() -> None:
    status, headers, _ = call(query=f"token={TOKEN}&a=1")
    assert status == 303
    assert headers["location"] == "/?a=1"
    assert headers["set-cookie"] == f"gcpctl_8123={TOKEN}; Path=/; HttpOnly; SameSite=Lax"
    assert call(query="token=wrong")[0] == 401
    assert call(method="POST", query=f"token={TOKEN}")[0] == 401


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "///evil.example"])
def test_the_link_leads_nowhere_else(path: str) -> None:
    location = call(path=path, query=f"token={TOKEN}")[1]["location"]
    assert not location.startswith("//")
    assert "\\" not in location


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://127.0.0.1:8123", 200), ("http://127.0.0.1:9", 403), ("null", 403)],
)
def test_a_cookie_changes_nothing_from_another_origin(origin: str, status: int) -> None:
    headers = {"cookie": f"gcpctl_8123={TOKEN}", "host": "127.0.0.1:8123", "origin": origin}
    assert call(method="POST", **headers)[0] == status


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_401_is_about_the_token_and_403_about_host_or_origin(method: str) -> None:
    foreign = {"host": "evil.example", "origin": "http://evil.example"}
    for shown in ({}, {"authorization": "Bearer wrong"}, {"cookie": "gcpctl_8123=wrong"}):
        assert call(method=method, inner=403, **foreign, **shown)[0] == 401
    right = {"authorization": f"Bearer {TOKEN}"}
    status, _, body = call(method=method, inner=403, **foreign, **right)
    assert (status, body) == (403, b"inside")  # the server's own refusal passes unchanged


def test_websockets_are_refused() -> None:
    assert call(kind="websocket", authorization=f"Bearer {TOKEN}")[0] == 1008
