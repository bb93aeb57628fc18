"""Ports, paths, sizes and what is written down about a cluster."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import local
from cluster.capacity import planned_cpus
from cluster.errors import ClusterError
from cluster.layout import Layout, load_json, ray_temp_dir
from cluster.plan import cluster_id_of, load_plan, make_plan
from cluster.ports import LOOPBACK, choose_ports, is_free, renew_ports
from cluster.profiles import load_profile
from cluster.services import SERVICES, build_command, build_environment

SOCKET = "/session_2026-12-31_23-59-59_999999_4194304/sockets/dash_StateHead"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("GCPCTL_HOME", str(tmp_path))
    monkeypatch.delenv("GCPCTL_PROFILE", raising=False)
    found = Layout(tmp_path)
    found.cluster.mkdir()
    return found


@pytest.mark.parametrize("home", ["/h", "/home/ada/.local/share/gcpctl", "/" + "long/" * 40])
@pytest.mark.parametrize("temp", ["/tmp", "/" + "very/long/temporary/folder" * 5])
def test_rays_sockets_always_fit(home: str, temp: str) -> None:
    folder = ray_temp_dir(Path(home), "0123456789abcdef", Path(temp))
    assert len(str(folder) + SOCKET) <= 103
    assert folder.name == "ray"  # in a private folder: Ray opens its own to everybody


def test_ports_differ_and_are_free() -> None:
    ports = choose_ports("abcdefgh")
    assert len(set(ports.values())) == 8
    assert all(is_free(port) for port in ports.values())


def test_only_a_taken_port_is_renewed_and_a_pinned_one_never() -> None:
    ports = {**choose_ports(["mlflow"]), "gcs": 1}
    with socket.socket() as other:
        other.bind((LOOPBACK, ports["mlflow"]))
        other.listen()
        assert not is_free(ports["mlflow"])
        renewed = renew_ports("mlflow", ports, [])
        assert renewed["mlflow"] != ports["mlflow"]
        assert renewed["gcs"] == ports["gcs"]
        assert renew_ports("mlflow", ports, ["mlflow"]) == ports


def test_a_plan_is_read_back_and_makes_a_profile(layout: Layout) -> None:
    assert load_profile() is None
    plan = make_plan(None, layout.home, num_cpus=3)
    plan.save(layout)
    assert load_plan(layout) == plan
    profile = load_profile()
    assert profile is not None
    assert profile.ray_address == f"127.0.0.1:{plan.ports['gcs']}"
    assert profile.token_path == layout.token
    assert layout.profile.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", '{"cluster": {"ports": {}}}', '{"cluster": 3}'])
def test_a_damaged_plan_is_none(layout: Layout, text: str) -> None:
    layout.profile.write_text(text)
    assert load_plan(layout) is None


def test_two_homes_have_two_ids(tmp_path: Path) -> None:
    assert cluster_id_of(tmp_path / "a") != cluster_id_of(tmp_path / "b")
    assert cluster_id_of(tmp_path / "a") == cluster_id_of(tmp_path / "b" / ".." / "a")


def test_no_command_holds_the_token_and_no_environment_misleads(layout: Layout) -> None:
    layout.token.write_text("canary")
    plan = make_plan(None, layout.home)
    caller = {"PATH": "/bin", "RAY_ADDRESS": "x", "MLFLOW_TRACKING_URI": "y", "RAY_AUTH_TOKEN": "z"}
    for service in SERVICES:
        environment = build_environment(service, layout, plan, caller)
        assert "canary" not in " ".join(build_command(service, layout, plan))
        assert "canary" not in " ".join(environment.values())
        assert not {"RAY_ADDRESS", "MLFLOW_TRACKING_URI", "RAY_AUTH_TOKEN"} & set(environment)
        assert environment["PATH"] == "/bin"


def test_another_profile_is_chosen_by_name(layout: Layout) -> None:
    folder = layout.home / "profiles"
    folder.mkdir()
    (folder / "team.json").write_text(
        '{"ray_url": "https://ray.example/", "mlflow_url": "https://mlflow.example",'
        ' "token_path": "team.token", "storage_path": "/mnt/gcp"}'
    )
    profile = load_profile("team")
    assert profile is not None
    assert profile.ray_url == "https://ray.example"
    assert profile.token_path == folder / "team.token"
    assert profile.nudge_path is None
    with pytest.raises(ClusterError, match="there is: embedded, team"):
        load_profile("taem")
    (folder / "half.json").write_text('{"ray_url": "https://ray.example"}')
    with pytest.raises(ClusterError, match="lacks mlflow_url, token_path, storage_path"):
        load_profile("half")


def test_cpus_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCPCTL_NUM_CPUS", "5")
    assert planned_cpus() == 5
    monkeypatch.setenv("GCPCTL_NUM_CPUS", "many")
    with pytest.raises(ClusterError, match="GCPCTL_NUM_CPUS"):
        planned_cpus()
    monkeypatch.delenv("GCPCTL_NUM_CPUS")
    assert planned_cpus() >= 1


def test_a_taken_ui_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ClusterError, match=str(port)) as caught:
            local.up(home=tmp_path / "home", ui_port=port)
    assert caught.value.exit_code == 6
    assert load_json(Layout(tmp_path / "home").profile) is None


def test_a_home_that_is_a_file_gets_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match="GCPCTL_HOME") as caught:
        local.up(home=tmp_path / "file" / "home")
    assert caught.value.exit_code == 3


def test_a_home_never_used_is_down(tmp_path: Path) -> None:
    status = local.status(home=tmp_path / "none")
    assert not status.running
    assert status.to_json()["services"] == []
    assert not local.down(home=tmp_path / "none").was_running
    assert not (tmp_path / "none").exists()


def test_profiles_stay_light() -> None:
    code = (
        "import sys, cluster.profiles, cluster.local; "
        "sys.exit(bool({'torch', 'ray', 'mlflow', 'pydantic', 'platformdirs'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
