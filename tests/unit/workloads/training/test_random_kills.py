"""A training killed with -9 at random points ends with the weights and the metrics of an
undisturbed one.

The seed of the points is printed and can be given again in GCPCTL_FAULT_SEED.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from workloads.training.__main__ import main
from workloads.training.loop import train
from workloads.worker.checkpoint_reader import complete, open_checkpoint, step_of
from workloads.worker.context import MemoryContext
from workloads.worker.failures import read_json
from workloads.worker.paths import JobPaths
from workloads.worker.spool import read_committed

SEED = int(os.environ.get("GCPCTL_FAULT_SEED", random.SystemRandom().randrange(10**6)))
TIMING = ("perf/", "time/")
"""Metrics that measure the machine; all others must repeat exactly."""
DEADLINE_S = 120.0
LAST_KILL = 50
"""Step after which no attempt is let on before it is killed: 66 are the whole training."""
WITH_EVERYTHING = {
    "compute": {"max_images_per_worker": 32},
    "ema": {"decay": 0.9},
    "mix": {"mixup": 0.4},
    "optim": {"name": "adamw", "lr": 0.01},
    "checkpoint": {"every_steps": 3, "keep_best": 2},
}


class Killed:
    """A training in processes of its own, killed again and again.

    Args:
        root: Where its job's folder is made.
        config: Its config's file.
        start: Starts the ranks of an attempt from the arguments of `workloads.training`; returns
            their process ids, rank 0's first.
        rng: Draws the points.
    """

    def __init__(self, root, config, start: Callable[[list[str]], list[int]], rng) -> None:
        self.paths = JobPaths(root)
        self.config, self.start, self.rng = config, start, rng
        self.attempt = 0
        self.in_a_write = 0

    def run(self) -> None:
        """Let one attempt come through."""
        assert [wait_for_exit(pid) for pid in self._begin()] == [0] * self.ranks

    def run_and_kill(self) -> None:
        """Kill an attempt: right after its claim, in a write, or some time after a checkpoint."""
        start = self._newest()
        further = self.rng.randint(0, 3) if start < LAST_KILL else 0
        in_a_write = further > 0 and self.rng.random() < 0.5
        pids = self._begin()
        deadline_s = time.monotonic() + DEADLINE_S
        while not self._is_there(start + further, in_a_write):
            assert time.monotonic() < deadline_s, f"attempt {self.attempt} got nowhere"
            assert os.waitpid(pids[0], os.WNOHANG) == (0, 0), "it ended by itself"
            time.sleep(0.0005)
        if not in_a_write:
            time.sleep(self.rng.uniform(0.0, 0.05))
        # Where there are more ranks than one, some attempts lose only one; the others must notice.
        victims = pids if self.rng.random() < 0.5 else [self.rng.choice(pids)]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert all(wait_for_exit(pid) != 0 for pid in pids)
        self.in_a_write += any(self.paths.checkpoints.glob("*.tmp"))

    def _begin(self) -> list[int]:
        self.attempt += 1
        arguments = ["--config", str(self.config), "--root", str(self.paths.root)]
        pids = self.start([*arguments, "--attempt", str(self.attempt), "--threads", "1"])
        self.ranks = len(pids)
        return pids

    def _newest(self) -> int:
        return max(map(step_of, complete(self.paths.checkpoints)), default=0)

    def _is_there(self, step: int, in_a_write: bool) -> bool:
        if (read_json(self.paths.owner) or {}).get("attempt") != self.attempt:
            return False
        if not in_a_write:
            return self._newest() >= step
        names = (path.name for path in self.paths.checkpoints.glob(f"step-*.{self.attempt}.tmp"))
        return any(int(re.findall(r"\d+", name)[0]) >= step for name in names)


def wait_for_exit(pid: int) -> int:
    """Return the exit status of a child; one that outlives its peers for long is killed."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail(f"process {pid} went on for {DEADLINE_S:.0f} s after its peers were gone")


def outcome(paths: JobPaths) -> tuple[str, list]:
    """Return the digest of the weights, and every row of metrics but times."""
    rows, _ = read_committed(paths.spool, 0)
    numbers = [
        (row.step, row.at, key, value.hex())
        for row in rows
        for key, value in sorted(row.metrics.items())
        if not key.startswith(TIMING)
    ]
    return json.loads(paths.result.read_bytes())["weights_sha256"], numbers


def start_program(arguments: list[str]) -> list[int]:
    command = [sys.executable, "-m", "workloads.training", *arguments]
    return [subprocess.Popen(command, stdout=subprocess.DEVNULL).pid]


def fork_ranks(world_size: int) -> Callable[[list[str]], list[int]]:
    """The same program without the seconds that its imports take."""

    def start(arguments: list[str]) -> list[int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        pids = []
        for rank in range(world_size):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
                    os.environ |= {"LOCAL_RANK": str(rank)}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                    os.fsync = lambda descriptor: None  # a kill takes back nothing
                    code = main(arguments)
                finally:
                    os._exit(code)
            pids.append(pid)
        return pids

    return start


@pytest.fixture
def check(tiny, tmp_path):
    """Train undisturbed, then with so many kills, and compare."""

    def run(changes: dict, start: Callable[[list[str]], list[int]], kills: int) -> Killed:
        sys.stderr.write(f"GCPCTL_FAULT_SEED={SEED}\n")
        file = tmp_path / "config.json"
        config = tiny(**{"epochs": 6, "checkpoint": {"every_steps": 1}, **changes})
        assert config.checkpoint.asynchronous
        file.write_text(config.model_dump_json())
        train(config.model_copy(update={"epochs": 1}), MemoryContext())  # imports, before forks
        whole = Killed(tmp_path / "whole", file, start, None)
        whole.run()
        killed = Killed(tmp_path / "killed", file, start, random.Random(SEED))
        for _ in range(kills):
            killed.run_and_kill()
        killed.run()
        assert outcome(killed.paths) == outcome(whole.paths)
        assert json.loads(killed.paths.result.read_bytes())["global_step"] == 66
        assert open_checkpoint(killed.paths.root)["step"] == 66
        assert not list(killed.paths.checkpoints.glob("*.tmp"))
        assert not list(killed.paths.checkpoints.glob("*.bad-*"))
        return killed

    return run


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_twenty_kills_of_the_program(check):
    assert check({}, start_program, 20).in_a_write > 0


def test_twenty_kills(check):
    assert check({}, fork_ranks(1), 20).in_a_write > 0


@pytest.mark.faults
def test_twenty_kills_with_everything_that_has_a_state(check):
    check(WITH_EVERYTHING, fork_ranks(1), 20)


@pytest.mark.faults
def test_kills_of_one_or_all_of_two_ranks(check):
    check({"checkpoint": {"every_steps": 2}}, fork_ranks(2), 6)
