"""A worker process that stays for the next job, as long as nothing went wrong in it.

Starting a process and importing torch takes seconds, a small training hardly more. So jobs of one
worker that may share a process are run in a plain actor, one after the other, each from a clean
state (`workloads/worker/process_state.py`). A failure ends the process: what it leaves in a GPU or
in memory is no other job's to inherit.
"""

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from orchestrator.drivers.group import explain_failure
from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.worker import WorkerSettings, run_rank
from orchestrator.jobs.spec import Resources
from workloads.worker.paths import JobPaths

_POLL_S = 1.0
"""How soon a signal is heard, and a stop while the process is starting."""
_START_LIMIT_S = 300.0


class PackedWorker:
    """What lives in the worker process; an actor runs its methods one at a time.

    Args:
        threads: Torch threads of every job that comes.
    """

    def __init__(self, threads: int) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # read when torch is imported
        from workloads.worker.process_state import ProcessState

        self._clean = ProcessState.capture()

    def is_ready(self) -> bool:
        """Answer once the process is there."""
        return True

    def run(self, settings: dict[str, Any]) -> None:
        """Run one job on the only rank.

        Raises:
            WorkerError: It failed.
        """
        run_rank(WorkerSettings(**settings), rank=0, world_size=1, local_rank=0)

    def tidy(self) -> None:
        """Take the process back to where it was before its first job."""
        self._clean.restore()


class KeptWorker:
    """Runs one-worker jobs in a process that is kept from job to job; see `RunWorkers`.

    The process begins to start at once. Leaving the `with` block ends it.

    Args:
        resources: What every job of this driver holds.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._actor: Any = None
        self._tidied: Any = None
        self._start()

    def __call__(
        self, settings: WorkerSettings, resources: Resources, *, name: str, storage_path: Path
    ) -> Outcome | None:
        """Run a job; never raises for what the worker did."""
        if self._actor is None:
            self._start()
        stopped = self._wait_until_clean(JobPaths(Path(settings.root)))
        if stopped is not None:
            return stopped
        try:
            _wait_for(self._actor.run.remote(settings.to_dict()))
        except RayError as exc:
            self._discard()
            cause = exc.cause if isinstance(exc, RayTaskError) else exc
            return explain_failure(settings, [cause], exc, _first_line(exc))
        self._tidied = self._actor.tidy.remote()
        return None

    def __enter__(self) -> "KeptWorker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()

    def _start(self) -> None:
        actor = ray.remote(PackedWorker).options(
            num_cpus=self._resources.cpus_per_worker, num_gpus=self._resources.gpus_per_worker
        )
        self._actor = actor.remote(self._resources.cpus_per_worker)
        self._tidied = self._actor.is_ready.remote()

    def _wait_until_clean(self, paths: JobPaths) -> Outcome | None:
        """Wait for the process to be there and clean; return an outcome if it will not be."""
        deadline = time.monotonic() + _START_LIMIT_S
        for is_last in (False, True):
            try:
                while not _is_done(self._tidied):
                    if paths.stop.exists():
                        return Outcome(kind="stopped", reason="stopped before its worker started")
                    if time.monotonic() > deadline:
                        self._discard()
                        text = f"no worker process within {_START_LIMIT_S:.0f} s"
                        return Outcome.failed("infrastructure", text)
                ray.get(self._tidied)
                return None
            except RayError as exc:
                # It died between two jobs, or could not be made clean: that is no job's fault.
                say(f"the worker process is replaced: {_first_line(exc)}")
                self._discard()
                if is_last:
                    return Outcome.failed("infrastructure", _first_line(exc))
                self._start()
        return None

    def _discard(self) -> None:
        """End the process; the next job gets a new one."""
        if self._actor is not None:
            with contextlib.suppress(RayError):
                ray.kill(self._actor)
        self._actor = None


def _wait_for(reference: Any) -> None:
    """Wait for a call's end in short pieces, so that signals are heard; raise what it raised."""
    while not _is_done(reference):
        pass
    ray.get(reference)


def _is_done(reference: Any) -> bool:
    done, _ = ray.wait([reference], timeout=_POLL_S)
    return bool(done)


def _first_line(exc: Exception) -> str:
    """Return an error's first sentence: Ray adds pages to it."""
    lines = str(exc).strip().splitlines()
    return f"the worker process died: {lines[0] if lines else type(exc).__name__}"
