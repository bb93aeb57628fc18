"""What runs on each rank: set the process up for torch, then train or evaluate.

This module imports nothing heavy: the driver imports it to name the function, and the driver
needs no torch.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workloads.worker.distributed import WorkerPlace
    from workloads.worker.folder_context import FolderContext


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker is told, as plain data."""

    config: dict[str, Any]
    root: str
    attempt: int
    threads: int
    use_gpu: bool
    kind: str = "train"
    """Kind of the job: what is run."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as Ray Train passes them."""
        return asdict(self)


class WorkerError(RuntimeError):
    """A rank failed; the text is its record as JSON, for the original may not be picklable."""


def run_worker(settings_dict: dict[str, Any]) -> None:
    """Run one rank of a Ray Train worker group.

    Raises:
        WorkerError: The loop failed.
    """
    import ray.train

    context = ray.train.get_context()
    run_rank(
        WorkerSettings(**settings_dict),
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
    )


def run_rank(settings: WorkerSettings, *, rank: int, world_size: int, local_rank: int) -> None:
    """Run one rank in this process, whoever started it; its output goes to the job's folder.

    Args:
        settings: What is run.
        rank: This worker's number.
        world_size: How many workers there are.
        local_rank: This worker's number on its machine.

    Raises:
        WorkerError: The loop failed.
    """
    log = Path(settings.root) / "logs" / f"attempt-{settings.attempt}" / f"rank-{rank}.log"
    with output_to(log):
        from workloads.worker.failures import describe_failure, write_failure
        from workloads.worker.paths import JobPaths

        try:
            device = _enter(settings, rank=rank, world_size=world_size, local_rank=local_rank)
            from workloads.worker import distributed

            place = distributed.init_process_group_from_env(device.type)
            run = _evaluate if settings.kind == "eval" else _train
            run(settings, place, device)
            distributed.leave_process_group()
        except BaseException as exc:
            # Two ways, for either may be closed: a full disk takes no file, and Ray passes on
            # only the failures that it saw first.
            with contextlib.suppress(OSError):
                write_failure(JobPaths(Path(settings.root)), settings.attempt, rank, exc)
            raise WorkerError(json.dumps(describe_failure(rank, exc))) from None


def _train(settings: WorkerSettings, place: "WorkerPlace", device: Any) -> None:
    from workloads.config.train import TrainConfig
    from workloads.training.loop import train

    config = TrainConfig.model_validate(settings.config)
    context = _context(
        settings,
        place,
        device,
        keep_checkpoints=config.checkpoint.keep,
        keep_best=config.checkpoint.keep_best,
        asynchronous=config.checkpoint.asynchronous,
    )
    with contextlib.closing(context):  # a training that fails still ends its last checkpoint
        train(config, context)


def _evaluate(settings: WorkerSettings, place: "WorkerPlace", device: Any) -> None:
    from workloads import durable
    from workloads.config.evaluate import EvalConfig
    from workloads.evaluation.run import run_evaluation

    config = EvalConfig.model_validate(settings.config)
    context = _context(settings, place, device)
    result = run_evaluation(config, context, context.paths.evaluation)
    if place.rank == 0:
        found: dict[str, Any] = {"stopped": result is None}
        if result is not None:
            found |= {**result.to_dict(), "metrics": result.metrics()}
        durable.write_json(context.paths.result, found)


def _context(
    settings: WorkerSettings, place: "WorkerPlace", device: Any, **kept: Any
) -> "FolderContext":
    """Return the rank's way to the job's folder; `kept` says what becomes of checkpoints."""
    from workloads.worker.folder_context import FolderContext

    return FolderContext(
        Path(settings.root),
        attempt=settings.attempt,
        rank=place.rank,
        world_size=place.world_size,
        local_rank=place.local_rank,
        device=device,
        **kept,
    )


def _enter(settings: WorkerSettings, *, rank: int, world_size: int, local_rank: int) -> Any:
    """Set up threads and rendezvous before anything computes; return the rank's torch device."""
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))
    # The variables that torchrun would set; the backend has set the address of rank 0.
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(local_rank),
    }
    import torch

    from workloads.worker.seeding import set_threads

    # A fixed number of threads fixes the order of sums: the same on every attempt.
    set_threads(settings.threads)
    # Ray Train shows each worker the GPUs of all workers of its node, hence the local rank.
    return torch.device("cuda", local_rank) if settings.use_gpu else torch.device("cpu")


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send all output of this process to a file, that of C libraries included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # the disk of the log may be full
                stream.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (target, *saved):
            os.close(descriptor)
