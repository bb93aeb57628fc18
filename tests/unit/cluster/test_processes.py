"""Identity and marker: a pid alone is never enough."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.healing import Record, load_record, save_record
from cluster.layout import Layout
from cluster.processes import MARKER, SERVICE, end_marked, find_marked, identify, is_alive
from cluster.supervisor import ORPHANS

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
STUBBORN += "sys.stdout.write('x'); sys.stdout.flush(); time.sleep(60)"


@pytest.fixture
def marked() -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, MARKER: "unit-test", SERVICE: "ray"}
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(1)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_living_process_is_itself_and_no_other() -> None:
    identity = identify(os.getpid())
    assert identity is not None
    assert is_alive(identity)
    assert not is_alive(replace(identity, born=identity.born - 1))
    assert not is_alive(None)


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # ends when the process does; not reaped yet
    identity = identify(process.pid)
    process.wait()
    process.stdout.close()
    assert identity is None or not is_alive(identity)


@pytest.mark.parametrize("text", ["", "{", "[]", "123", '{"pid": "x"}', '{"pid": 1}'])
def test_a_damaged_pid_file_means_never_started(tmp_path: Path, text: str) -> None:
    layout = Layout(tmp_path)
    layout.cluster.mkdir()
    layout.record("ray").write_text(text)
    assert load_record(layout, "ray") == Record()


def test_a_pid_file_is_read_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.cluster.mkdir()
    record = Record(pid=7, born=1.5, started_at=3.0, starts=2, note="pid 6 ended")
    save_record(layout, "ray", record)
    assert load_record(layout, "ray") == record
    assert sorted(path.name for path in layout.cluster.iterdir()) == ["ray.pid.json"]


def test_marked_processes_are_found_by_id_and_service(marked: subprocess.Popen[bytes]) -> None:
    assert [process.pid for process in find_marked("unit-test")] == [marked.pid]
    assert [process.pid for process in find_marked("unit-test", ["ray"])] == [marked.pid]
    assert find_marked("unit-test", ["mlflow"]) == []
    assert find_marked("unit-test-2") == []


def test_some_are_killed_before_they_can_say_anything(tmp_path: Path) -> None:
    speaker = "import signal, sys, time, pathlib\n"
    speaker += "def say(*_): pathlib.Path(sys.argv[2]).touch(); sys.exit(7)\n"
    speaker += "signal.signal(signal.SIGTERM, say); print('x', flush=True); time.sleep(60)"
    environment = {**os.environ, MARKER: "unit-orphans", SERVICE: "ray"}
    with contextlib.ExitStack() as stack:
        ends = []
        for name in ("orchestrator.drivers.main", "raylet"):
            command = [sys.executable, "-c", speaker, name, str(tmp_path / name)]
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.read(1)
            ends.append(process)
        assert end_marked("unit-orphans", ["ray"], grace_s=10, at_once=ORPHANS) == 2
        assert [process.wait(5) for process in ends] == [-9, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["raylet"]


def test_one_that_ignores_sigterm_is_killed_and_others_live(
    marked: subprocess.Popen[bytes],
) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", SLEEP])
    try:
        assert end_marked("unit-test", grace_s=0.2) == 1
        assert marked.wait(5) == -9
        assert bystander.poll() is None
        assert end_marked("unit-test") == 0
    finally:
        bystander.kill()
        bystander.wait()
