"""A private MLflow server as the cluster runs it, and a browser that is logged in to it."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.credentials import create_token
from cluster.layout import Layout
from cluster.ports import LOOPBACK, choose_ports
from cluster.profiles import Profile
from tests.browser.chromium import Browser, find_chromium

_START_S = 120.0
# The assistant opens by itself on a first visit and takes a quarter of the page.
_NO_ASSISTANT = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profile]:
    """The addresses of a tracking server of the tests' own."""
    layout = Layout(tmp_path_factory.mktemp("mlflow"))
    layout.cluster.mkdir(mode=0o700)
    create_token(layout.token)
    port = choose_ports(["mlflow"])["mlflow"]
    log = layout.cluster / "mlflow.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cluster.mlflow_server",
                f"--home={layout.home}",
                f"--port={port}",
            ],
            stdout=output,
            stderr=output,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        url = f"http://{LOOPBACK}:{port}"
        _wait_until_healthy(url, server, log)
        yield Profile(
            name="browser",
            ray_url="",
            ray_address="",
            mlflow_url=url,
            token_path=layout.token,
            storage_path=layout.home / "storage",
        )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)


def _wait_until_healthy(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"MLflow did not start: {log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def browser(profile: Profile) -> Iterator[Browser]:
    """A browser with the server's cookie."""
    if find_chromium() is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with Browser() as opened:
        opened.before_each_page(_NO_ASSISTANT)
        opened.open(f"{profile.mlflow_url}/?token={profile.token()}")
        opened.wait_for("document.querySelector('#root, #app, main') !== null")
        yield opened


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: a folder of the test, or the one that GCPCTL_PICTURES names."""
    chosen = os.environ.get("GCPCTL_PICTURES")
    if not chosen:
        return tmp_path_factory.mktemp("pictures")
    folder = Path(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
