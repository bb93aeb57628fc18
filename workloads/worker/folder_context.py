"""A worker whose world is a folder: alone, under torchrun and under Ray Train alike."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from workloads import durable
from workloads.worker import distributed
from workloads.worker.background_writer import BackgroundWriter
from workloads.worker.checkpoints import CheckpointStore, is_full, storage_full
from workloads.worker.lines import say
from workloads.worker.paths import JobPaths
from workloads.worker.records import Progress, TrainResult
from workloads.worker.spool import SpoolWriter, make_row
from workloads.worker.staging import StagingArea

SHARED_CACHE = ".cache"
"""Beside the jobs' folders: what can be made again at any time."""
STOP_POLL_S = 0.2
OWNER_POLL_S = 2.0
LONG_WAIT_S = 1.0
"""A wait for the checkpoint before that is worth a line in the log."""


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
        keep_checkpoints: Newest checkpoints kept.
        keep_best: Checkpoints with the best validation results kept besides.
        asynchronous: Write checkpoints beside the training, which waits for a copy in memory only,
            and for the write before where that is not through. The next save, `should_stop` or
            `finish` raises what went wrong.

    Attributes:
        loaded_from: The folder of the checkpoint that was loaded.
        shared_cache: See `WorkerContext`.
        stall_s: Seconds that the training has waited in `save_checkpoint`.

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
        keep_best: int = 1,
        asynchronous: bool = False,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.local_rank = local_rank
        self.attempt = attempt
        self.device = device or torch.device("cpu")
        self.paths = JobPaths(root)
        self.loaded_from: Path | None = None
        self.shared_cache: Path | None = root.parent / SHARED_CACHE
        self.stall_s = 0.0
        self._store = CheckpointStore(self.paths, attempt, keep_checkpoints, keep_best)
        self._staging = StagingArea()
        self._background = BackgroundWriter() if asynchronous else None
        self._long_wait_told = False
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
                self.loaded_from = self._store.loaded_from
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
        if self._background is not None:
            self._background.poll()
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

    def save_checkpoint(
        self, state: dict[str, Any], *, step: int, is_best: bool, score: float | None = None
    ) -> None:
        """Sync the metrics, commit the checkpoint, then release the metrics to tracking."""
        if self.rank != 0:
            return
        start_s = time.perf_counter()
        if self._background is not None:
            self._tell_long_wait(self._background.wait())
        rows = self._open_spool.take(step)
        write = partial(self._write, rows, step=step, is_best=is_best, score=score)
        if self._background is None:
            write({**state, "step": step})
        else:
            staged, wait = self._staging.copy({**state, "step": step})
            self._background.start(partial(write, staged, wait))
        self.stall_s += time.perf_counter() - start_s

    def finish(self, result: TrainResult) -> None:
        """Wait for the last checkpoint, then write ``result.json`` if this attempt owns the job."""
        if self.rank == 0:
            if self._background is not None:
                self._background.wait()
                say(f"the training waited {self.stall_s:.2f} s for its checkpoints")
            with self._full_disk_told(self.paths.result), self._store.ownership.commit():
                durable.write_json(self.paths.result, dataclasses.asdict(result))
            self.close()

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is being written beside the training."""
        return self._background is not None and self._background.is_writing

    def close(self) -> None:
        """Wait for the write under way and let go of the files.

        For the end of a training that failed: what goes wrong here is said in the log, because
        another error is on its way.
        """
        try:
            if self._background is not None:
                self._background.wait()
        except Exception as error:
            say(f"warning: the last checkpoint was not saved: {type(error).__name__}: {error}")
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _write(
        self,
        rows: bytes,
        state: dict[str, Any],
        wait: Callable[[], None] = lambda: None,
        *,
        step: int,
        is_best: bool,
        score: float | None,
    ) -> None:
        wait()  # for the copy of what is on a GPU
        spool = self._open_spool
        with self._full_disk_told(self.paths.spool):
            spool.sync(rows)
            self._store.save(state, step=step, is_best=is_best, score=score)
            spool.commit(step)

    def _tell_long_wait(self, seconds: float) -> None:
        if seconds > LONG_WAIT_S and not self._long_wait_told:
            self._long_wait_told = True
            say(
                f"warning: the training waited {seconds:.1f} s until the checkpoint before was "
                "written; save less often (checkpoint.every_steps) or to faster storage"
            )

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
