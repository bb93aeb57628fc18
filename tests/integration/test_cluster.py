"""The embedded cluster with real Ray and MLflow, and a stand-in for the controller."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import local
from cluster.errors import ClusterError
from cluster.layout import Layout, ray_temp_dir
from cluster.plan import cluster_id_of
from cluster.processes import find_marked
from cluster.profiles import Profile

pytestmark = pytest.mark.integration

STAND_IN = """
import pathlib, sys, time
while True:
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(0.5)
"""
UP = """
import json, sys
from pathlib import Path
from cluster import local
profile = local.up(home=Path(sys.argv[1]), num_cpus=2, controller=json.loads(sys.argv[2]))
sys.stdout.write(profile.mlflow_url)
"""


def controller_of(home: Path) -> list[str]:
    return [sys.executable, "-c", STAND_IN, str(Layout(home).heartbeat)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # The folder's name is long enough to need the short Ray folder, and awkward on purpose.
    home = tmp_path_factory.mktemp("a home with spaces and ümlauts, too long for sockets " * 2)
    yield home
    local.down(home=home)
    shutil.rmtree(ray_temp_dir(home, cluster_id_of(home)).parent, ignore_errors=True)


@pytest.fixture(scope="module")
def profile(home: Path) -> Profile:
    """Two terminals bring one home up at once."""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", UP, str(home), json.dumps(controller_of(home))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    urls = {process.communicate(timeout=130)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(urls) == 1
    assert sum(len(find_service(home, name)) for name in ("supervisor", "mlflow")) == 2
    return bring_up(home)


def bring_up(home: Path) -> Profile:
    return local.up(home=home, controller=controller_of(home))


def find_service(home: Path, name: str) -> list[int]:
    return [process.pid for process in find_marked(cluster_id_of(home), [name])]


def pids(home: Path) -> dict[str, int | None]:
    return {service.name: service.pid for service in local.status(home=home).services}


def wait_for(condition: Callable[[], bool], deadline_s: float = 30) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)


def fetch_status(url: str, token: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as r:
            return int(r.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_up_again_changes_nothing_and_is_fast(home: Path, profile: Profile) -> None:
    before = pids(home)
    began = time.monotonic()
    assert bring_up(home) == profile
    assert time.monotonic() - began < 1.0
    assert pids(home) == before
    assert all(service.state == "up" for service in local.status(home=home).services)


@pytest.mark.parametrize(
    "path", ["ray:/api/v0/nodes", "ray:/api/jobs/", "mlflow:/", "mlflow:/version"]
)
def test_nothing_answers_without_the_token(profile: Profile, path: str) -> None:
    service, _, route = path.partition(":")
    url = (profile.ray_url if service == "ray" else profile.mlflow_url) + route
    assert fetch_status(url) == 401
    # MLflow's 403 is about host or origin; Ray says 403 of a wrong token.
    assert fetch_status(url, "wrong") == (403 if service == "ray" else 401)
    assert fetch_status(url, profile.token()) == 200


def test_the_token_is_in_no_argument_and_no_log(home: Path, profile: Profile) -> None:
    fetch_status(f"{profile.mlflow_url}/?token={profile.token()}")
    for process in find_marked(cluster_id_of(home)):
        assert profile.token() not in " ".join(process.cmdline())
    for log in Layout(home).logs.iterdir():
        assert profile.token() not in log.read_text(errors="replace")


def test_every_socket_listens_on_loopback(home: Path, profile: Profile) -> None:
    for process in find_marked(cluster_id_of(home)):
        for connection in process.net_connections("tcp"):
            if connection.status == "LISTEN":
                assert connection.laddr.ip.removeprefix("::ffff:") == "127.0.0.1", process


def test_another_size_is_a_conflict(home: Path, profile: Profile) -> None:
    with pytest.raises(ClusterError, match="gcpctl cluster down") as caught:
        local.up(home=home, num_cpus=7)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("service", ["mlflow", "controller"])
def test_a_killed_service_comes_back_on_its_port(
    home: Path, profile: Profile, service: str
) -> None:
    before = pids(home)[service]
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: pids(home)[service] not in (None, before))
    assert bring_up(home) == profile
    if service == "mlflow":
        assert fetch_status(f"{profile.mlflow_url}/version", profile.token()) == 200


def test_a_killed_supervisor_is_replaced_and_adopts(home: Path, profile: Profile) -> None:
    before = pids(home)
    assert before["supervisor"] is not None
    os.kill(before["supervisor"], signal.SIGKILL)
    wait_for(lambda: pids(home)["supervisor"] is None)
    assert bring_up(home) == profile
    after = pids(home)
    assert after.pop("supervisor") != before.pop("supervisor")
    assert after == before


def test_a_killed_raylet_brings_a_whole_new_head(home: Path, profile: Profile) -> None:
    before = find_service(home, "ray")
    raylets = [p for p in find_marked(cluster_id_of(home), ["ray"]) if p.name() == "raylet"]
    assert len(raylets) == 1
    raylets[0].kill()
    wait_for(lambda: not set(before) & set(find_service(home, "ray")))
    assert bring_up(home) == profile
    assert fetch_status(f"{profile.ray_url}/api/v0/nodes", profile.token()) == 200


def test_down_leaves_nobody_and_only_its_own(home: Path, profile: Profile) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        report = local.down(home=home)
        assert report.was_running
        assert find_marked(cluster_id_of(home)) == []
        assert bystander.poll() is None
        assert not local.down(home=home).was_running
    finally:
        bystander.kill()
        bystander.wait()
