"""Train one config in this process or under torchrun, without Ray.

``python -m workloads.training --config FILE.json --root DIR [--attempt 1]``
"""

import argparse
import contextlib
import json
import signal
import sys
from pathlib import Path

import torch

from workloads.config.errors import ConfigError, Problem
from workloads.config.train import TrainConfig
from workloads.config.validate import validate
from workloads.training.loop import train
from workloads.worker import distributed
from workloads.worker.failures import classify, write_failure
from workloads.worker.folder_context import FolderContext
from workloads.worker.paths import JobPaths
from workloads.worker.seeding import set_threads


def main(arguments: list[str] | None = None) -> int:
    """Run one attempt; return 0 when it finished or stopped, 1 when it failed, 2 for bad input."""
    options = _parse(arguments)
    try:
        config = _read(options.config)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.threads is not None:
        set_threads(options.threads)
    place = distributed.init_process_group_from_env(options.device)
    try:
        context = FolderContext(
            options.root,
            rank=place.rank,
            world_size=place.world_size,
            local_rank=place.local_rank,
            attempt=options.attempt,
            device=_device(options.device, place.local_rank),
            keep_checkpoints=config.checkpoint.keep,
            keep_best=config.checkpoint.keep_best,
            asynchronous=config.checkpoint.asynchronous,
        )
        signal.signal(signal.SIGTERM, lambda *_: context.request_stop())
        with contextlib.closing(context):  # a training that fails still ends its last checkpoint
            train(config, context)
    except Exception as error:
        write_failure(JobPaths(options.root), options.attempt, place.rank, error)
        sys.stderr.write(f"{classify(error)}: {type(error).__name__}: {error}\n")
        return 1
    distributed.leave_process_group()
    return 0


def _read(path: Path) -> TrainConfig:
    """Read a config; what is wrong with it is said as `gcpctl` says it."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), [Problem("", f"cannot be read: {error}")]) from None
    if not isinstance(document, dict):
        raise ConfigError(str(path), [Problem("", "holds no mapping of settings")])
    return validate(TrainConfig, document, str(path))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workloads.training", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a TrainConfig as JSON")
    parser.add_argument("--root", type=Path, required=True, help="the job's folder")
    parser.add_argument("--attempt", type=int, default=1, help="counted up at each new try")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="threads per worker; torch decides otherwise")
    return parser.parse_args(arguments)


def _device(device_type: str, local_rank: int) -> torch.device:
    return torch.device("cuda", local_rank) if device_type == "cuda" else torch.device("cpu")


if __name__ == "__main__":
    sys.exit(main())
