"""A real cluster as the tests handle it: through the CLI, and by killing its processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from cluster.profiles import Profile, load_profile
from orchestrator.jobs.job import Job
from orchestrator.jobs.store import JobStore

_T = TypeVar("_T")


def wait_for(what: str, look: Callable[[], _T | None], *, seconds: float = 120) -> _T:
    """Return what `look` returns once that is true; fail after a deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


@dataclass
class Live:
    """A cluster that is up, in `home`."""

    home: Path

    def gcpctl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the CLI as a user would."""
        answer = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli.main", *args],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=280,
            check=False,
        )
        assert not check or answer.returncode == 0, f"{args}: {answer.stdout}{answer.stderr}"
        assert "Traceback" not in answer.stderr, answer.stderr
        return answer

    @property
    def profile(self) -> Profile:
        """The addresses of the cluster."""
        profile = load_profile()
        assert profile is not None
        return profile

    @property
    def store(self) -> JobStore:
        """A fresh connection to the job store."""
        return JobStore.of(self.profile)

    def submit(self, *overrides: str, recipe: str = "digits_resnet_isqrt") -> str:
        """Submit a training and return its id."""
        return self.gcpctl("submit", "train", recipe, *overrides).stdout.strip()

    def status(self, job_id: str) -> dict[str, Any]:
        """Return `gcpctl status JOB -o json`."""
        return dict(json.loads(self.gcpctl("status", job_id, "-o", "json").stdout))

    def wait_final(self, job_id: str, *, seconds: float = 240) -> Job:
        """Return the job once it has ended, whatever is killed meanwhile."""

        def look() -> Job | None:
            try:
                job = self.store.find(job_id)
            except Exception:  # a server that was just killed
                return None
            return job if job.state.is_final else None

        try:
            return wait_for(f"the end of {job_id}", look, seconds=seconds)
        except AssertionError:
            log = self.home / "cluster" / "logs" / "controller.log"
            raise AssertionError(
                f"{job_id} did not end: {self.gcpctl('status', job_id, check=False).stdout}\n"
                f"{log.read_text()[-3000:]}"
            ) from None

    def services(self) -> dict[str, int]:
        """Return the process ids of the services by name."""
        answer = self.gcpctl("cluster", "status", "-o", "json", check=False)
        return {s["name"]: s["pid"] for s in json.loads(answer.stdout)["services"] if s["pid"]}

    def driver(self, job_id: str) -> psutil.Process | None:
        """Return the driver of a job's newest attempt."""
        job = self.store.find(job_id)
        return _find(lambda words: "orchestrator.drivers.main" in words and job.run_id in words)

    def workers(self) -> list[psutil.Process]:
        """Return the training processes of this home's cluster."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any("RayTrainWorker" in word for word in process.info["cmdline"] or ())
            and belongs(process, self.home)
        ]


def kill(process: psutil.Process | int) -> None:
    """Kill with -9, as nothing can prevent."""
    os.kill(process if isinstance(process, int) else process.pid, signal.SIGKILL)


def _find(matches: Callable[[list[str]], bool]) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        # The shell around the driver has the same words in one argument.
        if matches(words):
            return process
    return None


def belongs(process: psutil.Process, home: Path) -> bool:
    """Whether a process is of the cluster in `home`."""
    try:
        return process.environ().get("GCPCTL_HOME") == str(home)
    except psutil.Error:
        return False
