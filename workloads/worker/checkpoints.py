"""Checkpoints as folders of plain files: whole or absent, verified before use.

A save writes ``step-<10 digits>.<attempt>.tmp`` and renames it once all is on the device, so a
folder without ``.tmp`` is complete. Flipped bits load silently in torch; the manifest's digests
find them.
"""

import errno
import hashlib
import math
import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from workloads import durable
from workloads.worker.checkpoint_reader import (
    complete,
    load_state,
    manifests,
    step_of,
    verified,
)
from workloads.worker.failures import (
    CheckpointError,
    FencedError,
    StorageFullError,
    read_json,
)
from workloads.worker.lines import say
from workloads.worker.manifest import (
    MANIFEST_FILE,
    STATE_FILE,
    DamagedError,
    Manifest,
)
from workloads.worker.ownership import Ownership
from workloads.worker.paths import JobPaths

_UNFINISHED = re.compile(r"step-\d{10}\.(\d+)\.tmp")
_MIB = 1 << 20
_LOW_SPACE_CHECKPOINTS = 3
"""With room for fewer checkpoints than this the log warns, before a save fails."""


class CheckpointStore:
    """The checkpoints of one job, seen from one attempt.

    Args:
        paths: The job's files.
        attempt: This attempt's number, the fence.
        keep: Newest checkpoints kept.
        keep_best: Checkpoints with the best validation results kept besides.

    Attributes:
        loaded_from: The folder of the state that `load_latest` returned.
    """

    def __init__(self, paths: JobPaths, attempt: int, keep: int, keep_best: int = 1) -> None:
        self.paths = paths
        self.attempt = attempt
        self.keep = keep
        self.keep_best = keep_best
        self.loaded_from: Path | None = None
        self.ownership = Ownership(paths, attempt)
        self._proved_plain = False

    def claim(self) -> None:
        """Become the job's owner and clear what dead attempts left half-written.

        Raises:
            FencedError: A newer attempt owns the job.
        """
        self.ownership.claim()
        durable.make_folder(self.paths.checkpoints)
        self._quietly(self._remove_unfinished)
        self._quietly(self._remove_torn_files)

    def save(
        self, state: Mapping[str, Any], *, step: int, is_best: bool, score: float | None = None
    ) -> None:
        """Commit a state under its step; older checkpoints stay until it is verified.

        Args:
            state: Tensors, numbers, texts, lists and dicts only: it is read back as data.
            step: The global optimizer step.
            is_best: Whether it has the best validation result so far.
            score: Its validation result, the higher the better; what ranks the best ones kept.

        Raises:
            FencedError: A newer attempt owns the job; nothing was committed.
            StorageFullError: No room; nothing was committed and nothing lost.
            CheckpointError: The state holds something that could not be read back as data.
        """
        unfinished = self.paths.checkpoints / f"step-{step:010d}.{self.attempt}.tmp"
        self.ownership.check()  # spares the disk; the look that counts is at the commit
        try:
            manifest = self._write(unfinished, state, step, is_best, score)
            self._prove_plain(unfinished)
            with self.ownership.commit():
                self._commit(unfinished, self._folder(step))
        except BaseException as error:
            self._quietly(partial(durable.remove_tree, unfinished))
            explained = self._explain(error, state) if isinstance(error, OSError) else None
            if explained is not None:
                raise explained from error
            raise
        self._quietly(partial(self._tidy, manifest))

    def load_latest(self) -> dict[str, Any] | None:
        """Return the newest state that verifies; damaged ones are set aside, never loaded.

        Returns:
            None if nothing was ever saved.

        Raises:
            CheckpointError: The newest one was written by a newer gcpctl, or all are damaged.
            OSError: The storage failed; nothing is known of the checkpoint, and it stays.
        """
        for folder in complete(self.paths.checkpoints):
            try:
                manifest = verified(folder)
                state = load_state(folder)
            except DamagedError as damage:
                self._set_aside(folder, damage)
                continue
            self._quietly(partial(self._point_to_best, manifest))
            self.loaded_from = folder
            return state
        damaged = sorted(self.paths.checkpoints.glob("step-*.bad-*"))
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.paths.checkpoints} can be loaded; damaged: "
                f"{', '.join(folder.name for folder in damaged)}. Bring one back from a copy, or "
                "remove them to train from the start"
            )
        return None

    def steps(self) -> list[int]:
        """Return the steps that have a complete checkpoint, ascending; nothing is verified."""
        return sorted({step_of(folder) for folder in complete(self.paths.checkpoints)})

    def _write(
        self,
        folder: Path,
        state: Mapping[str, Any],
        step: int,
        is_best: bool,
        score: float | None,
    ) -> Manifest:
        durable.remove_tree(folder)
        durable.make_folder(folder)
        with (folder / STATE_FILE).open("wb") as handle:
            writer = _HashingWriter(handle)
            try:
                torch.save(dict(state), writer)
            except Exception as error:
                # torch hides the operating system's reason behind a RuntimeError of its own.
                raise writer.error or error from None
            durable.sync(handle)
        manifest = Manifest(
            step=step,
            attempt=self.attempt,
            is_best=is_best,
            state_bytes=writer.size,
            state_sha256=writer.digest.hexdigest(),
            score=float(score) if score is not None and math.isfinite(score) else None,
            classes=_classes_of(state),
        )
        with (folder / MANIFEST_FILE).open("wb") as handle:
            durable.write(handle, manifest.to_json())
            durable.sync(handle)
        durable.sync_folder(folder)
        return manifest

    def _prove_plain(self, folder: Path) -> None:
        """Read the first save back: better to fail now than at a resume in a week."""
        if not self._proved_plain:
            try:
                load_state(folder, mapped=True)
            except DamagedError as error:
                raise CheckpointError(f"the state cannot be saved: {error}") from error
            self._proved_plain = True

    def _commit(self, unfinished: Path, folder: Path) -> None:
        old = folder.with_name(f"{folder.name}.old")
        if folder.exists():
            # A folder cannot be replaced in one step; until the second rename `old` counts.
            durable.remove_tree(old)
            durable.move(folder, old)
        durable.move(unfinished, folder)
        durable.sync_folder(folder.parent)

    def _tidy(self, newest: Manifest) -> None:
        verified(self._folder(newest.step))
        with self.ownership.commit():  # what a newer attempt saved or loads is not ours to remove
            self._point_to_best(newest)
            spared = {*self.steps()[-self.keep :], *self._best_steps(), newest.step}
            for folder in complete(self.paths.checkpoints):
                replaced = folder.suffix == ".old" and self._folder(step_of(folder)).exists()
                if replaced or step_of(folder) not in spared:
                    durable.remove_tree(folder)
            self._remove_unfinished()
        free = shutil.disk_usage(self.paths.checkpoints).free
        if free < _LOW_SPACE_CHECKPOINTS * newest.state_bytes:
            say(f"warning: {free // _MIB} MiB left for checkpoints in {self.paths.checkpoints}")

    def _best_steps(self) -> list[int]:
        """Return the steps kept for their validation results: the best first, of equal ones the
        earlier; the one that the pointer names leads in any case."""
        pointed = (read_json(self.paths.best) or {}).get("step")
        ranked = sorted(
            (-manifest.score, manifest.step)
            for manifest in manifests(self.paths.checkpoints)
            if manifest.score is not None and manifest.step != pointed
        )
        steps = [] if pointed is None else [pointed]
        return [*steps, *(step for _, step in ranked)][: self.keep_best]

    def _point_to_best(self, newest: Manifest) -> None:
        """Make the pointer agree with the newest manifest that says it is the best."""
        best = newest.step if newest.is_best else None
        if best is None:
            said = (m.step for m in manifests(self.paths.checkpoints) if m.is_best)
            best = max(said, default=None)
        if best is not None and (read_json(self.paths.best) or {}).get("step") != best:
            durable.write_json(self.paths.best, {"step": best})

    def _remove_unfinished(self) -> None:
        for folder in self.paths.checkpoints.iterdir():
            match = _UNFINISHED.fullmatch(folder.name)
            if match and int(match[1]) <= self.attempt:
                durable.remove_tree(folder)

    def _remove_torn_files(self) -> None:
        for folder in (self.paths.root, self.paths.checkpoints):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    def _set_aside(self, folder: Path, damage: DamagedError) -> None:
        number = sum(1 for _ in self.paths.checkpoints.glob(f"{folder.name}.bad-*")) + 1
        aside = folder.with_name(f"{folder.name}.bad-{self.attempt}-{number}")
        durable.move(folder, aside)
        say(f"warning: checkpoint {folder.name} is damaged ({damage}); set aside as {aside.name}")

    def _folder(self, step: int) -> Path:
        return self.paths.checkpoints / f"step-{step:010d}"

    def _explain(self, error: OSError, state: Mapping[str, Any]) -> Exception | None:
        try:
            self.ownership.check()  # a newer attempt may have cleared our folder under our hands
        except FencedError as fenced:
            return fenced
        if is_full(error):
            return storage_full(self.paths, self.paths.checkpoints, _num_bytes(state))
        return None

    def _quietly(self, action: Callable[[], object]) -> None:
        """Tidy up; a failure of it is worth a line, not the training."""
        try:
            action()
        except (OSError, DamagedError, CheckpointError, FencedError) as error:
            say(f"warning: could not tidy {self.paths.checkpoints}: {error}")


def is_full(error: OSError) -> bool:
    """Whether an operation failed for want of room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def storage_full(paths: JobPaths, path: Path, needed_bytes: int) -> StorageFullError:
    """Return the error that tells a person what to free and how to go on."""
    there = next(folder for folder in (paths.root, *paths.root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    return StorageFullError(
        f"no room for {path}: needs about {max(1, needed_bytes // _MIB)} MiB, {free // _MIB} MiB "
        f"free; what was saved before is intact. Free space, then: gcpctl retry {paths.job_id}"
    )


class _HashingWriter:
    """A file for torch.save that hashes on the way and remembers why a write failed."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            durable.write(self._handle, data)
        except OSError as error:
            self.error = error
            raise
        view = memoryview(data)
        self.digest.update(view)
        self.size += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        """torch flushes when it is done; the bytes go out with the sync."""


def _num_bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(_num_bytes(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_num_bytes(item) for item in value)
    return 8


def _classes_of(state: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return what a training's state says of its network's outputs."""
    classes = state.get("identity", {}).get("classes")
    return None if classes is None else tuple(map(str, classes))
