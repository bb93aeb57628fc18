"""Every process killed with -9 at a random moment; the numbers must not notice.

The seed of the moments is printed and can be given again in GCPCTL_FAULT_SEED.
"""

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.jobs.job import Job
from orchestrator.jobs.states import State
from tests.live import Live, kill, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

CONFIG = ("epochs=40", "seed=3", "job.max_retries=5", "log_every_steps=1")
SEED = int(os.environ.get("GCPCTL_FAULT_SEED", random.SystemRandom().randrange(10**6)))
TIMING = ("perf/", "time/")
"""Metrics that measure the machine; all others must repeat exactly."""


def history(live: Live, job: Job) -> dict[str, list[tuple[int, float]]]:
    """Return all metric points of a job, by key."""
    return {key: live.store.metric_history(job.run_id, key) for key in sorted(job.metrics)}


@pytest.fixture(scope="module")
def reference(live: Live) -> tuple[dict[str, Any], dict[str, list[tuple[int, float]]], float]:
    """The undisturbed run: its result, its metrics, and the seconds it took."""
    started = time.monotonic()
    job = live.wait_final(live.submit(*CONFIG, "--name", "undisturbed"))
    took = time.monotonic() - started
    assert job.state is State.FINISHED
    assert job.attempt == 1
    return job.result, history(live, job), took


def kill_worker(live: Live, job_id: str, rng: random.Random) -> None:
    kill(rng.choice(wait_for("workers", lambda: live.workers())))


def kill_driver(live: Live, job_id: str, rng: random.Random) -> None:
    driver = wait_for("a driver", lambda: live.driver(job_id))
    kill(driver)


def kill_controller(live: Live, job_id: str, rng: random.Random) -> None:
    kill(live.services()["controller"])


def kill_mlflow(live: Live, job_id: str, rng: random.Random) -> None:
    kill(live.services()["mlflow"])


def kill_head(live: Live, job_id: str, rng: random.Random) -> None:
    """All of Ray at once: raylet, GCS, dashboard, agents. Not the driver, not the workers."""
    root = psutil.Process(live.services()["ray"])
    victims = [root.pid]
    for process in root.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if "orchestrator.drivers.main" not in command and "ray::" not in command:
                victims.append(process.pid)
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            kill(pid)
    live.gcpctl("cluster", "up")


@pytest.mark.parametrize(
    "strike", [kill_worker, kill_driver, kill_controller, kill_mlflow, kill_head]
)
def test_a_kill_at_a_random_moment_changes_no_number(
    live: Live, reference, strike: Callable[[Live, str, random.Random], None]
):
    result, metrics, took = reference
    rng = random.Random(f"{SEED}-{strike.__name__}")
    job_id = live.submit(*CONFIG, "--name", strike.__name__.replace("_", "-"))
    delay = rng.uniform(0, 0.7 * took)
    time.sleep(delay)
    strike(live, job_id, rng)
    job = live.wait_final(job_id)
    told = f"seed {SEED}, struck after {delay:.1f} of {took:.1f} s, {job.attempt} attempts"
    assert job.state is State.FINISHED, f"{told}: {job.reason}"
    assert job.result["weights_sha256"] == result["weights_sha256"], told
    found = history(live, job)
    assert found.keys() == metrics.keys(), told
    for key, points in metrics.items():
        assert [step for step, _ in found[key]] == [step for step, _ in points], (told, key)
        if not key.startswith(TIMING):
            assert found[key] == points, (told, key)


def fill(path: Path) -> None:
    """Write until the file system is full."""
    with contextlib.suppress(OSError), path.open("wb") as ballast:
        while True:
            ballast.write(b"\0" * 65536)
            ballast.flush()


def test_the_disk_fills_up_while_a_checkpoint_is_saved(live: Live, tmp_path):
    """The job fails with the reason, loses nothing, and goes on when there is room again."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    folder = live.profile.storage_path / "full-disk"
    try:
        folder.symlink_to(small)
        job_id = live.submit("epochs=12", "--name", "full-disk")
        wait_for("a checkpoint", lambda: list(small.glob("checkpoints/step-*/MANIFEST.json")))
        fill(small / "ballast")
        job = live.wait_final(job_id)
        assert (job.state, job.attempt) == (State.FAILED, 1), job.reason
        assert "gcpctl retry" in job.reason
        (small / "ballast").unlink()
        live.gcpctl("retry", job_id)
        job = live.wait_final(job_id)
        assert job.state is State.FINISHED, job.reason
        assert "resum" in live.gcpctl("logs", job_id).stdout
    finally:
        folder.unlink(missing_ok=True)
        subprocess.run(["umount", "-l", str(small)], capture_output=True, check=False)
