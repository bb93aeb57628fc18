"""How long a save holds up the training: beside it against `torch.save` and fsync, interleaved.

    python -m tests.benchmarks.checkpoint_stall [--pairs 9] [--folder DIR] [--device cuda]

The state is that of ResNet-50 with iSQRT of width 256 and SGD's momentum: about 58 million weights,
456 MB. The training between saves is a small network's real steps, timed one by one.

A synchronous save is what people write: `torch.save` into a file, fsync, rename; without the digest
and the look back that ours has in both ways. The stall beside the training is the time that
`save_checkpoint` takes, plus what the steps took longer until the write is through than they take
while nothing is written. Both are given: the first is where the training stands still, the second
depends on how many cores are left for the write.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workloads.config.model import ModelConfig
from workloads.models.gcp_net import build_model
from workloads.worker.checkpoint_reader import open_checkpoint
from workloads.worker.folder_context import FolderContext
from workloads.worker.lines import say

MODEL = {
    "backbone": {"name": "resnet50"},
    "head": {"reduced_channels": 256, "pooling": {"name": "isqrt"}},
}


def make_state(device: torch.device) -> dict[str, Any]:
    """Return weights and momentum as a training snapshot holds them."""
    model = build_model(ModelConfig.model_validate(MODEL), in_channels=3, num_classes=1000)
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.randn_like(parameter)
    return {"step": 0, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


def make_step(device: torch.device) -> Callable[[], None]:
    """Return one optimizer step of about 30 ms on a CPU core."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 14 * 14, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    images = torch.randn(32, 3, 32, 32, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        network(images).square().mean().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def save_synchronously(state: dict[str, Any], folder: Path) -> float:
    """Save as a training script does; return the seconds."""
    started = time.perf_counter()
    with (folder / "state.tmp").open("wb") as handle:
        torch.save(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(folder / "state.tmp", folder / "state.pt")
    return time.perf_counter() - started


def time_steps(step: Callable[[], None], count: int) -> list[float]:
    """Return the seconds of each of `count` steps."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=30, help="undisturbed steps timed per pair")
    parser.add_argument("--folder", type=Path, default=None, help="where to save; on a real disk")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    root = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        measure(device, root, pairs=options.pairs, steps=options.steps)
    finally:
        shutil.rmtree(root)


def measure(device: torch.device, root: Path, *, pairs: int, steps: int) -> None:
    """Print one line per pair and the medians."""
    state, step = make_state(device), make_step(device)
    tensors = [*state["model"].values()]
    tensors += [buffer["momentum_buffer"] for buffer in state["optimizer"]["state"].values()]
    say(f"{sum(t.nbytes for t in tensors) / 1e6:.0f} MB on {device}, saved in {root}")
    context = FolderContext(root / "job", asynchronous=True)
    context.load_checkpoint()
    time_steps(step, steps)
    stalls, losses, slowdowns, writes, synchronous = [], [], [], [], []
    for pair in range(pairs + 1):
        sync_s = save_synchronously(state, root)
        alone_s = statistics.median(time_steps(step, steps))
        started = time.perf_counter()
        context.save_checkpoint({**state, "step": pair}, step=pair, is_best=False)
        stall_s = time.perf_counter() - started
        beside = []
        while context.is_writing:
            beside += time_steps(step, 1)
        write_s = time.perf_counter() - started
        loss_s = sum(beside) - alone_s * len(beside)
        slowdown = statistics.median(beside) / alone_s
        say(
            f"{'first' if pair == 0 else f'{pair:5d}'}  synchronous {sync_s:6.3f} s  "
            f"stall {stall_s:.3f} s = {stall_s / sync_s:.3f}  steps meanwhile x{slowdown:.2f}, "
            f"{loss_s:+.3f} s in {len(beside)}  write {write_s:.2f} s"
        )
        if pair:
            synchronous.append(sync_s)
            stalls.append(stall_s / sync_s)
            losses.append((stall_s + loss_s) / sync_s)
            slowdowns.append(slowdown)
            writes.append(write_s)
    context.close()
    saved = open_checkpoint(root / "job")["model"]
    assert all(torch.equal(saved[name], tensor.cpu()) for name, tensor in state["model"].items())
    say(
        f"median of {pairs} pairs: synchronous {statistics.median(synchronous):.3f} s; "
        f"stall / synchronous {statistics.median(stalls):.3f} "
        f"(from {min(stalls):.3f} to {max(stalls):.3f}); with the slower steps until the write is "
        f"through {statistics.median(losses):.3f}; steps meanwhile "
        f"x{statistics.median(slowdowns):.2f}; write {statistics.median(writes):.2f} s"
    )


if __name__ == "__main__":
    main()
