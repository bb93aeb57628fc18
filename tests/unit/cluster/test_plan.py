"""Ports, paths, sizes and what is written down about a cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster import local, ray_head
from cluster.capacity import planned_cpus, planned_gpus
from cluster.credentials import create_token
from cluster.errors import ClusterError
from cluster.healing import Record, save_record
from cluster.layout import Layout, load_json, ray_temp_dir
from cluster.plan import cluster_id_of, load_plan, make_plan
from cluster.ports import LOOPBACK, choose_ports, is_free, renew_ports
from cluster.processes import identify
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
    # In a private folder that is ours, not the home: Ray opens its own to everybody.
    assert folder.parent == Path(home) / "ray" or folder.parent.name == "gcpctl-01234567"


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


def test_a_port_that_is_free_again_soon_is_kept() -> None:
    ports = choose_ports(["mlflow"])
    other = socket.socket()
    other.bind((LOOPBACK, ports["mlflow"]))
    other.listen()
    threading.Timer(0.3, other.close).start()
    assert renew_ports("mlflow", ports, [], patience_s=10.0) == ports


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


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_profile_is_not_called_missing(layout: Layout, content: bytes) -> None:
    layout.profile.write_bytes(content)
    with pytest.raises(ClusterError, match=r"damaged.*`gcpctl cluster up` rewrites it") as caught:
        load_profile()
    assert caught.value.exit_code == 3
    assert load_plan(layout) is None  # so that `up` makes another


def test_an_unreadable_profile_is_not_called_missing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    for name in (None, "team"):
        with pytest.raises(ClusterError, match=r"Cannot read .*Permission denied") as caught:
            load_profile(name)
        assert caught.value.exit_code == 3


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
    for unknown in ("taem", "../profiles/team"):
        with pytest.raises(ClusterError, match="there is: embedded, team") as caught:
            load_profile(unknown)
        assert caught.value.exit_code == 5
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


def settle(layout: Layout, num_cpus: int | None = None) -> int:
    return local._settle(layout, load_plan(layout), num_cpus, None, None).num_cpus


def test_a_number_of_cpus_once_chosen_outlives_down(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCPCTL_NUM_CPUS", "5")
    assert settle(layout) == 5
    monkeypatch.setenv("GCPCTL_NUM_CPUS", "4")
    assert settle(layout) == 4  # nobody chose 5
    assert settle(layout, 2) == 2
    assert settle(layout) == 2
    assert local.plan_resources(layout.home)[0] == 2
    assert settle(layout, 3) == 3
    assert settle(layout) == 3


def test_resources_are_those_of_the_running_cluster_else_of_the_next(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCPCTL_NUM_CPUS", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert local.plan_resources() == (5, 2)
    make_plan(None, layout.home, num_cpus=3).save(layout)
    assert local.plan_resources() == (5, 2)  # nobody chose 3
    myself = identify(os.getpid())
    assert myself is not None
    save_record(layout, "ray", Record(myself.pid, myself.born))
    monkeypatch.setattr("cluster.services.fetch", lambda *_: None)
    assert local.plan_resources() == (3, 2)
    node = {"state": "ALIVE", "resources_total": {"CPU": 3.0, "GPU": 1.0}}
    reply = {"data": {"result": {"result": [node, {**node, "state": "DEAD"}]}}}
    monkeypatch.setattr("cluster.services.fetch", lambda *_: json.dumps(reply))
    create_token(layout.token)
    assert local.plan_resources() == (3, 1)


def test_ray_runs_without_a_log_monitor_and_nobody_waits_for_one(layout: Layout) -> None:
    plan = make_plan(None, layout.home)
    assert "--include-log-monitor=false" in build_command("ray", layout, plan)
    assert set(ray_head._DAEMONS) == {"gcs_server", "raylet", "dashboard.py"}


def test_a_driver_folder_that_may_not_be_looked_at_holds_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert planned_gpus() == 0


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
