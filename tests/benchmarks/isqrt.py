"""iSQRT pooling, a step forward and back, against the plain autograd loop of the textbook.

    python -m tests.benchmarks.isqrt [--pairs 7] [--batch 16] [--grid] [--settings 256x49x5 ...]

First the gate: output and gradient of both against the unrolled recursion in float64. Then both
in turn in one process on one thread, medians of the process's CPU time and of wall time, and the
bytes that autograd keeps for the backward pass, counted by its own hooks on both sides. `--grid`
times the Gram and the covariance side by themselves and sets them beside the model's choice.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from workloads.pooling.fast_root import FastRoot
from workloads.pooling.isqrt import IsqrtPooling
from workloads.pooling.root_plan import RootPlan, plan_root

SETTINGS = ("256x49x5", "256x196x5", "128x49x5", "64x196x5", "256x49x3", "256x196x3")
GRID = [(d, m) for d in (64, 128, 256) for m in (16, 36, 49, 64, 100, 144, 196, 256)]
OUTPUT_ERROR, GRADIENT_ERROR = 1e-5, 1e-4

Layer = Callable[[Tensor], Tensor]


def textbook(channels: int, num_iters: int) -> Layer:
    """Return the coupled iteration on C x C matrices as it is written down, for autograd."""
    row, column = torch.triu_indices(channels, channels)

    def layer(x: Tensor) -> Tensor:
        centred = x - x.mean(dim=2, keepdim=True)
        cov = centred @ centred.transpose(1, 2) / x.shape[2]
        trace = cov.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
        eye = torch.eye(channels, dtype=x.dtype).expand_as(cov)
        y, z = cov / trace, eye
        for k in range(num_iters):
            t = 0.5 * (3.0 * eye - z @ y)
            y, z = y @ t, (t @ z if k + 1 < num_iters else z)
        return (y * trace.sqrt()).flatten(1).index_select(1, row * channels + column)

    return layer


def ours(channels: int, num_iters: int) -> Layer:
    """Return our layer on (B, C, M)."""
    pooling = IsqrtPooling(in_channels=channels, num_iters=num_iters)
    return lambda x: pooling(x[..., None])


def by_plan(pooling: IsqrtPooling, plan: RootPlan, x: Tensor) -> Tensor:
    """Pool x by a plan that need not be the model's choice."""
    return FastRoot.apply(x, pooling.vectoriser.index_T, pooling.mirror, plan)


def step(layer: Layer, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return output and gradient of one step."""
    x = x.detach().requires_grad_()
    z = layer(x)
    z.backward(weight)
    assert x.grad is not None
    return z.detach(), x.grad


def features(batch: int, channels: int, positions: int) -> tuple[Tensor, Tensor]:
    """Return features after a ReLU, and a gradient for the vector."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, positions, generator=generator).relu()
    return x, torch.randn(batch, channels * (channels + 1) // 2, generator=generator)


def check(name: str, layer: Layer, exact: Layer, x: Tensor, weight: Tensor) -> str:
    """Return the relative errors against float64, or stop where they are too large."""
    got = step(layer, x, weight)
    want = step(exact, x.double(), weight.double())
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(got, want, strict=True)]
    if not (errors[0] < OUTPUT_ERROR and errors[1] < GRADIENT_ERROR):
        raise SystemExit(f"{name}: not the same function: errors {errors[0]:.1e} {errors[1]:.1e}")
    return f"{errors[0]:.0e}/{errors[1]:.0e}"


def bytes_kept(layer: Layer, x: Tensor) -> float:
    """Return the bytes per image that a step keeps for its backward pass, constants left out."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():  # the triangle's index is the same for every step
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        z = layer(x.detach().requires_grad_())
    del z
    return sum(kept.values()) / len(x)


def alternate(runs: list[Callable[[], object]], pairs: int) -> list[tuple[float, float]]:
    """Return the median CPU and wall milliseconds of each, run in turn `pairs` times."""
    for run in runs:
        run()
    cpu: list[list[float]] = [[] for _ in runs]
    wall: list[list[float]] = [[] for _ in runs]
    for _ in range(pairs):
        for k, run in enumerate(runs):
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            run()
            cpu[k].append((time.process_time() - cpu_start) * 1000)
            wall[k].append((time.perf_counter() - wall_start) * 1000)
    return [(statistics.median(c), statistics.median(w)) for c, w in zip(cpu, wall, strict=True)]


def compare(channels: int, positions: int, num_iters: int, batch: int, pairs: int) -> None:
    """Write the line of one setting."""
    x, weight = features(batch, channels, positions)
    loop, layer = textbook(channels, num_iters), ours(channels, num_iters)
    error = check("ours", layer, loop, x[:2], weight[:2])
    check("textbook", loop, loop, x[:2], weight[:2])
    (loop_cpu, loop_wall), (cpu, wall) = alternate(
        [lambda: step(loop, x, weight), lambda: step(layer, x, weight)], pairs
    )
    loop_kept, kept = bytes_kept(loop, x), bytes_kept(layer, x)
    sys.stdout.write(
        f"C={channels:<3} M={positions:<3} K={num_iters}  textbook {loop_cpu / batch:6.2f} ms/image"
        f"  ours {cpu / batch:5.2f}  ratio {loop_cpu / cpu:5.1f} (wall {loop_wall / wall:5.1f})"
        f"  kept {loop_kept / 1e6:.2f} -> {kept / 1e6:.2f} MB ({loop_kept / kept:.1f}x)"
        f"  errors {error}\n"
    )
    sys.stdout.flush()


def grid(num_iters: int, batch: int, pairs: int) -> None:
    """Write the measured cost of both sides beside the model's choice."""
    wrong = 0.0
    for channels, positions in GRID:
        x, weight = features(batch, channels, positions)
        pooling = IsqrtPooling(in_channels=channels, num_iters=num_iters)
        plan = plan_root(x, num_iters, "trace", centred=True)
        reflected = positions % 16 == 1
        sides = {
            "gram": plan._replace(by_gram=True, reflected=reflected),
            "covariance": plan._replace(by_gram=False, reflected=False),
        }
        runs = [
            partial(step, partial(by_plan, pooling, side), x, weight) for side in sides.values()
        ]
        times = alternate(runs, pairs)
        ms = {name: cpu / batch for name, (cpu, _) in zip(sides, times, strict=True)}
        choice = "gram" if plan.by_gram else "covariance"
        loss = ms[choice] / min(ms.values()) - 1
        wrong = max(wrong, loss)
        sys.stdout.write(
            f"C={channels:<3} M={positions:<3}  gram {ms['gram']:6.3f}  covariance "
            f"{ms['covariance']:6.3f} ms/image  choice {choice:<10}  lost {100 * loss:3.0f} %\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"worst loss by a choice: {100 * wrong:.0f} %\n")


def main() -> None:
    """Run the benchmark and write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, metavar="CxMxK")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.grid:
        grid(5, options.batch, options.pairs)
        return
    for setting in options.settings:
        channels, positions, num_iters = map(int, setting.split("x"))
        compare(channels, positions, num_iters, options.batch, options.pairs)


if __name__ == "__main__":
    main()
