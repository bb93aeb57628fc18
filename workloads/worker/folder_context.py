"""A worker whose world is a folder: alone, under torchrun and under Ray Train alike."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from workloads import durable
from workloads.worker import distributed
from workloads.worker.checkpoints import CheckpointStore, is_full, storage_full
from workloads.worker.paths import JobPaths
from workloads.worker.records import Progress, TrainResult
from workloads.worker.spool import SpoolWriter, make_row

STOP_POLL_S = 0.2
OWNER_POLL_S = 2.0


class FolderContext:
    """A worker that reads and writes the files of `JobPaths`; only rank 0 writes.

    With more than one worker the process group must be initialised before `load_checkpoint`.

    Args:
        root: The job's folder ``<storage_path>/<job_id>``; only rank 0 must see it.
        rank: This worker's number.
        world_size: How many workers train together.
        local_rank: This worker's number on its machine.
        attempt: The fence: a folder that a newer attempt owns is refused.
        device: Where to compute.
        keep_checkpoints: Newest checkpoints kept besides the best.

    Raises:
        FencedError: A newer attempt owns the job.
        StorageFullError: No room for what it writes; every method but `report_progress` may say so.
    """

    def __init__(
        self,
        root: Path,
        *,
        rank: int = 0,
        world_size: int = 1,
        local_rank: int = 0,
        attempt: int = 1,
        device: torch.device | None = None,
        keep_checkpoints: int = 2,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.local_rank = local_rank
        self.attempt = attempt
        self.device = device or torch.device("cpu")
        self.paths = JobPaths(root)
        self._store = CheckpointStore(self.paths, attempt, keep_checkpoints)
        self._spool: SpoolWriter | None = None
        self._stop = False
        self._stop_polled_s = self._owner_polled_s = float("-inf")
        self._first_step_seen = False
        if rank == 0:
            with self._full_disk_told(self.paths.root):
                self._store.claim()

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Load on rank 0, continue the spool from there, and hand the state to the others."""
        state = None
        if self.rank == 0:
            with self._full_disk_told(self.paths.spool):
                state = self._store.load_latest()
                resume_at = 0 if state is None else int(state["step"])
                with self._store.ownership.commit():
                    self._spool = SpoolWriter.open(self.paths.spool, resume_at)
        return distributed.broadcast_object(state)

    def log_metrics(self, step: int, metrics: Mapping[str, float], *, at: int) -> None:
        """Take up a row of metrics; it reaches the disk with the next checkpoint."""
        if self.rank == 0:
            self._open_spool.append(make_row(step, at, metrics))

    def report_progress(self, progress: Progress) -> None:
        """Replace ``progress.json``; where it cannot be written, training goes on without."""
        if self.rank != 0:
            return
        with contextlib.suppress(OSError):
            if not self._first_step_seen and progress.phase == "train":
                first = {"attempt": self.attempt, "time_ms": time.time_ns() // 1_000_000}
                durable.write_json_fleeting(self.paths.first_step, first)
                self._first_step_seen = True
            durable.write_json_fleeting(self.paths.progress, dataclasses.asdict(progress))

    def should_stop(self) -> bool:
        """Look for ``STOP`` at most every 0.2 s, and for a newer owner every 2 s."""
        if self.rank != 0 or self._stop:
            return self._stop
        now_s = time.monotonic()
        if now_s - self._stop_polled_s >= STOP_POLL_S:
            self._stop_polled_s = now_s
            self._stop = self.paths.stop.exists()
        if now_s - self._owner_polled_s >= OWNER_POLL_S:
            self._owner_polled_s = now_s
            self._store.ownership.check()
        return self._stop

    def request_stop(self) -> None:
        """Ask from within the process, as a signal handler does."""
        self._stop = True

    def save_checkpoint(self, state: dict[str, Any], *, step: int, is_best: bool) -> None:
        """Sync the metrics, commit the checkpoint, then release the metrics to tracking."""
        if self.rank != 0:
            return
        spool = self._open_spool
        with self._full_disk_told(self.paths.spool):
            spool.sync()
            self._store.save({**state, "step": step}, step=step, is_best=is_best)
            spool.commit(step)

    def finish(self, result: TrainResult) -> None:
        """Write ``result.json``, if this attempt still owns the job."""
        if self.rank == 0:
            with self._full_disk_told(self.paths.result), self._store.ownership.commit():
                durable.write_json(self.paths.result, dataclasses.asdict(result))
            if self._spool is not None:
                self._spool.close()

    @contextlib.contextmanager
    def _full_disk_told(self, path: Path) -> Iterator[None]:
        """Say of a full disk what to free and how to go on."""
        try:
            yield
        except OSError as error:
            if is_full(error):
                raise storage_full(self.paths, path, 0) from error
            raise

    @property
    def _open_spool(self) -> SpoolWriter:
        assert self._spool is not None, "load_checkpoint comes before metrics and checkpoints"
        return self._spool
