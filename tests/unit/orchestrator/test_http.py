"""The HTTP client, against a real server on loopback."""

import http.server
import json
import socket
import threading
from typing import ClassVar

import pytest

from orchestrator.jobs.errors import ApiError, AuthError, NotFoundError, UnreachableError
from orchestrator.jobs.http import HttpClient


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[str]] = []
    drop = 0

    def do_GET(self):
        type(self).requests.append(self.path)
        if type(self).drop > 0:
            type(self).drop -= 1
            self.close_connection = True
            return
        code = 200 if self.headers["Authorization"] == "Bearer secret" else 401
        code = {"/missing": 404, "/broken": 500}.get(self.path, code)
        body = b"<html>" if self.path == "/html" else json.dumps({"path": self.path}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Handler.requests, Handler.drop = [], 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_answers_come_back(server):
    client = HttpClient(server, "secret", what="Test")
    assert client.call("GET", "/x", query={"a": "b c"}) == {"path": "/x?a=b+c"}
    client.close()


@pytest.mark.parametrize(
    ("path", "token", "error"),
    [
        ("/x", "wrong", AuthError),
        ("/missing", "secret", NotFoundError),
        ("/broken", "secret", ApiError),
        ("/html", "secret", ApiError),
    ],
)
def test_errors_have_names_and_say_where(server, path, token, error):
    client = HttpClient(server, token, what="Test")
    with pytest.raises(error, match=server):
        client.call("GET", path)
    client.close()


def test_a_dropped_connection_is_tried_again_unless_told_not_to(server):
    client = HttpClient(server, "secret", what="Test")
    Handler.drop = 2
    assert client.call("GET", "/x") == {"path": "/x"}
    Handler.drop, Handler.requests = 1, []
    with pytest.raises(UnreachableError):
        client.call("GET", "/once", retry=False)
    assert Handler.requests == ["/once"]
    client.close()


def test_nobody_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(UnreachableError, match="connection refused"):
            HttpClient(f"http://127.0.0.1:{port}", "t", what="Test").call("GET", "/")
