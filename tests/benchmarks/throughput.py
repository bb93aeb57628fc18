"""Training throughput: our loop against a bare torch loop, step by step in the same processes.

    python -m tests.benchmarks.throughput [--workers 1 2] [--rounds 12] [--steps 22] [--width 32]

torchrun starts the workers (gloo, one thread each); each then trains the recipe digits_resnet_isqrt
for `--steps` steps at a time, twice: with `workloads.training.loop.train` and a folder, as
`python -m workloads.training` does, and with a plain loop: the same network, wrapped by
DistributedDataParallel where there are several workers, the same fused SGD, rates and batches, made
from the same bytes, and loss and top-1 are counted. Besides, ours watches every gradient, logs,
reports and hears a wish to stop. The two take turns step by step, so that whatever else the machine
does slows both alike. `--width` takes a wider network, whose steps take longer.
Times are rank 0's, of wall and CPU: as means, as medians, and as the time that the quickest fifth
of the steps stay below.

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
from collections.abc import Callable, Iterator
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
from workloads.training.pacing import Reporter
from workloads.training.run import build_equal_data
from workloads.worker import distributed
from workloads.worker.context import MemoryContext
from workloads.worker.folder_context import FolderContext
from workloads.worker.seeding import seed_everything, set_threads

WEIGHT_ERROR = 1e-5
LOGGED = (10, 1)
"""What is usual, and the most."""
FIGURES: dict[str, Callable[[list[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "quickest fifth": lambda times: statistics.quantiles(times, n=5)[0],
}

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


class BareTraining:
    """The same training by a loop that does no more than train, a step whenever it is asked for."""

    def __init__(self, config: TrainConfig, data: DataBundle, place: Any) -> None:
        seed_everything(config.seed)
        self.model = build_model(
            config.model, in_channels=data.in_channels, num_classes=data.num_classes
        )
        self.steps = self._train(config, data, place)

    def _train(self, config: TrainConfig, data: DataBundle, place: Any) -> Iterator[None]:
        """Yield after each step."""
        network: nn.Module = self.model
        if place.world_size > 1:
            network = DistributedDataParallel(network, gradient_as_bucket_view=True)
            network.broadcast_buffers = False
        network.train()
        optimizer = torch.optim.SGD(
            network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True
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
        loss_sum, correct = 0.0, 0
        for step, (images, labels) in enumerate(batches):
            optimizer.param_groups[0]["lr"] = learning_rate(config, config.steps_per_epoch, step)
            logits = network(data.scale(images))
            loss = criterion(logits, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            correct += int((logits.argmax(dim=1) == labels).sum())
            yield


def time_both(
    config: TrainConfig, data: DataBundle, folder: Path, place: Any
) -> tuple[Steps, Steps, float]:
    """Train both, in turn a step of either.

    Returns:
        The times of our steps from the second on and of the same bare ones, this worker's, and by
        how much the last weights differ at most.
    """
    bare = BareTraining(config, data, place)
    context = Folder(folder, rank=place.rank, world_size=place.world_size, asynchronous=True)
    marks: list[tuple[Reading, Reading]] = []
    after_step = Reporter.after_step

    def then_a_bare_step(self: Reporter) -> None:
        after_step(self)
        begin = now()
        next(bare.steps)
        marks.append((begin, now()))

    # At the end of our step: so neither finds its data source warm from the other's use.
    Reporter.after_step = then_a_bare_step  # type: ignore[method-assign]
    try:
        loop.train(config, context)
    finally:
        Reporter.after_step = after_step  # type: ignore[method-assign]
        context.close()
    own, plain = context.weights, bare.model.state_dict()
    error = max((own[name] - plain[name]).abs().max().item() for name in own)
    ours = [elapsed(one[1], other[0]) for one, other in itertools.pairwise(marks)]
    return ours, [elapsed(*pair) for pair in marks[1:]], error


def now() -> Reading:
    """Return the clocks: wall time, and the CPU time of this process with all its threads."""
    return time.perf_counter(), time.process_time()


def elapsed(begin: Reading, end: Reading) -> Reading:
    """Return the seconds between two readings, on both clocks."""
    return end[0] - begin[0], end[1] - begin[1]


def run_worker(options: argparse.Namespace) -> None:
    """Take turns, as one of the workers; rank 0 prints the times as JSON."""
    set_threads(1)
    place = distributed.init_process_group_from_env("cpu")
    found: dict[str, tuple[Steps, Steps]] = {}
    error = 0.0
    context = MemoryContext(rank=place.rank, world_size=place.world_size)
    data = build_equal_data(recipe(options.steps, 1, options.width), context)
    for log_every in LOGGED:
        config = recipe(options.steps, log_every, options.width)
        all_ours: Steps = []
        all_bare: Steps = []
        for number in range(options.rounds + 1):
            folder = options.folder / f"{place.world_size}-{log_every}-{number}"
            ours, bare, gap = time_both(config, data, folder, place)
            if number:  # the first round warms up
                all_ours += ours
                all_bare += bare
            error = max(error, gap)
        found[f"log_every_steps {log_every}"] = all_ours, all_bare
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
            say(f"  {name}, {len(ours)} steps, {clock}, ms ours / bare = throughput over bare:")
            for figure, of in FIGURES.items():
                mine, theirs = of(ours), of(bare)
                say(f"    {figure:15} {mine:7.2f} / {theirs:7.2f} = {theirs / mine:.3f}")
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
