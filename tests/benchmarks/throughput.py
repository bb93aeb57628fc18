"""Training throughput: our loop against a bare torch loop, in turn in the same processes.

    python -m tests.benchmarks.throughput [--workers 1 2] [--rounds 12] [--steps 22] [--width 32]

torchrun starts the workers (gloo, one thread each); each then trains the recipe digits_resnet_isqrt
for `--steps` steps at a time, by turns with `workloads.training.loop.train` and a folder, as
`python -m workloads.training` does, and with a plain loop: the same network, wrapped by
DistributedDataParallel where there are several workers, the same fused SGD, rates and batches, made
from the same bytes, and loss and top-1 are counted. Besides, ours watches every gradient, logs,
reports and hears a wish to stop. `--width` takes a wider network, whose steps take longer.
Times are rank 0's, from step to step, of wall and CPU: as means, and as the time that the quickest
fifth of the steps stay below, which says more on a machine that does other things besides.

First the gate: after the same steps both have the same weights.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from workloads.config.rates import learning_rate
from workloads.config.train import TrainConfig
from workloads.data.bundle import DataBundle
from workloads.data.loaders import train_batches
from workloads.models.gcp_net import build_model
from workloads.training import loop
from workloads.training.run import build_equal_data
from workloads.worker import distributed
from workloads.worker.context import MemoryContext
from workloads.worker.folder_context import FolderContext
from workloads.worker.seeding import seed_everything, set_threads

WEIGHT_ERROR = 1e-5

Reading = tuple[float, float]
Steps = list[Reading]


def recipe(steps: int, log_every: int, width: int) -> TrainConfig:
    """Return digits_resnet_isqrt with some width, one epoch of some steps."""
    return TrainConfig.model_validate(
        {
            "epochs": 1,
            "model": {"backbone": {"name": "small_resnet", "width": width}},
            "steps_per_epoch": steps,
            "global_batch_size": 64,
            "log_every_steps": log_every,
            "optim": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-4},
            "schedule": {"name": "cosine"},
        }
    )


class Folder(FolderContext):
    """Keeps the last weights, besides writing files."""

    weights: dict[str, Tensor]

    def save_checkpoint(self, state: dict[str, Any], **options: Any) -> None:
        self.weights = {name: tensor.clone() for name, tensor in state["model"].items()}
        super().save_checkpoint(state, **options)


def time_ours(config: TrainConfig, folder: Path, place: Any) -> tuple[Steps, dict[str, Tensor]]:
    """Return the times of the steps, this worker's, and the last weights."""
    context = Folder(folder, rank=place.rank, world_size=place.world_size, asynchronous=True)
    step = loop.take_step
    marks: list[Reading] = []

    def marked(*arguments: Any) -> Any:
        marks.append(now())
        return step(*arguments)

    loop.take_step = marked
    try:
        loop.train(config, context)
    finally:
        loop.take_step = step
        context.close()
    return between(marks), context.weights


def now() -> Reading:
    """Return the clocks: wall time, and the CPU time of this process with all its threads."""
    return time.perf_counter(), time.process_time()


def between(marks: list[Reading]) -> Steps:
    """Return the seconds of each step on both clocks, from its beginning to that of the next."""
    pairs = itertools.pairwise(marks)
    return [(end[0] - start[0], end[1] - start[1]) for start, end in pairs]


def time_bare(config: TrainConfig, data: DataBundle, place: Any) -> tuple[Steps, dict[str, Tensor]]:
    """Return the same of a loop that does no more than train."""
    seed_everything(config.seed)
    model = build_model(config.model, in_channels=data.in_channels, num_classes=data.num_classes)
    network: nn.Module = model
    if place.world_size > 1:
        network = DistributedDataParallel(model, gradient_as_bucket_view=True)
        network.broadcast_buffers = False
    network.train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True
    )
    criterion = nn.CrossEntropyLoss()
    assert config.steps_per_epoch is not None
    batches = train_batches(
        data.train,
        seed=config.seed,
        epoch=0,
        batch_size_per_worker=config.global_batch_size // place.world_size,
        rank=place.rank,
        world_size=place.world_size,
    )
    marks = []
    loss_sum, correct = 0.0, 0
    for step, (images, labels) in zip(range(config.steps_per_epoch), batches, strict=False):
        marks.append(now())
        optimizer.param_groups[0]["lr"] = learning_rate(config, config.steps_per_epoch, step)
        logits = network(data.scale(images))
        loss = criterion(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(dim=1) == labels).sum())
    return between(marks), model.state_dict()


def run_worker(options: argparse.Namespace) -> None:
    """Take turns, as one of the workers; rank 0 prints the times as JSON."""
    set_threads(1)
    place = distributed.init_process_group_from_env("cpu")
    found: dict[str, tuple[Steps, Steps]] = {}
    error = 0.0
    context = MemoryContext(rank=place.rank, world_size=place.world_size)
    data = build_equal_data(recipe(options.steps, 1, options.width), context)
    for log_every in (1, 10_000):
        config = recipe(options.steps, log_every, options.width)
        all_ours: Steps = []
        all_bare: Steps = []
        for number in range(options.rounds + 1):
            folder = options.folder / f"{place.world_size}-{log_every}-{number}"
            if number % 2:
                ours, own = time_ours(config, folder, place)
                bare, plain = time_bare(config, data, place)
            else:
                bare, plain = time_bare(config, data, place)
                ours, own = time_ours(config, folder, place)
            if number:  # the first round warms up
                all_ours += ours
                all_bare += bare
            gaps = [(own[name] - plain[name]).abs().max().item() for name in own]
            error = max(error, *gaps)
        found["metrics every step" if log_every == 1 else "metrics at the end"] = (
            all_ours,
            all_bare,
        )
    if place.rank == 0:
        sys.stdout.write(json.dumps({"error": error, "steps": found}) + "\n")
    distributed.leave_process_group()


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")


def compare(workers: int, options: argparse.Namespace, folder: Path) -> bool:
    """Start the workers, print the ratios; return whether the gate holds."""
    arguments = ["--rounds", str(options.rounds), "--steps", str(options.steps)]
    arguments += ["--width", str(options.width)]
    module = "tests.benchmarks.throughput"
    launch = ["-m", module, "--folder", str(folder), *arguments]
    if workers > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        launch = [*torchrun, *launch]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, *launch], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    line = next(line for line in answer.stdout.splitlines() if line.startswith("{"))
    result = json.loads(line)
    equal = result["error"] <= WEIGHT_ERROR
    say(f"{workers} worker(s): weights differ by at most {result['error']:.1e}")
    for name, both in result["steps"].items():
        for place, clock in enumerate(("wall", "CPU")):
            ours, bare = ([1e3 * step[place] for step in steps] for steps in both)
            quick = [statistics.quantiles(times, n=5)[0] for times in (ours, bare)]
            say(
                f"  {name}, {len(ours)} steps, {clock}: mean {statistics.fmean(ours):.2f} against "
                f"{statistics.fmean(bare):.2f} ms bare, quickest fifth {quick[0]:.2f} against "
                f"{quick[1]:.2f} ms; throughput {sum(bare) / sum(ours):.3f} and "
                f"{quick[1] / quick[0]:.3f} of bare"
            )
    if not equal:
        say("  THE GATE FAILED: these are not the same trainings")
    return equal


def main() -> int:
    """Compare for each number of workers; return 1 if a gate failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=22)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        run_worker(options)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        good = [compare(n, options, Path(folder)) for n in options.workers]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
