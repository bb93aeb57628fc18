"""What DropCov costs in training, on top of the plain covariance that it pools to.

    python -m tests.benchmarks.dropcov [--runs 15] [--batch-size 16] [--device cpu]

Forward and backward, in milliseconds per image, median and range; on a CPU of one thread's own
time, so that a busy machine tells little. The peer is the
same formula written step by step: row sums from the full covariance, the rate as a Python number
(`.item()`), and a new Dropout2d module at each step. All three alternate. Times are refused if
the two do not give the same rate.
"""

import argparse
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.pooling.covariance import CovariancePooling
from workloads.pooling.dropcov import DropCovPooling
from workloads.pooling.functional import covariance
from workloads.pooling.vectorise import Vectoriser

SHAPES = [(64, 14), (128, 14), (256, 14), (256, 7)]
KERNEL = (-1.0, -0.5, 0.2)
RATE_ERROR = 1e-4


class Textbook(nn.Module):
    """DropCov step by step: (B, C, H, W) to (B, C (C + 1) / 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.vectoriser = Vectoriser(channels)
        self.rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3))
        w = self.conv(mean[:, None])[:, 0].softmax(dim=1)
        x = x * (1 + w[:, :, None, None])
        rows = covariance(x.flatten(2)).sum(dim=2)
        cosine = F.cosine_similarity(w, rows).mean().item()
        self.rate = min(1.0, max(0.0, 1 - 10 / math.log2(x.shape[1]) * cosine))
        x = nn.Dropout2d(self.rate)(x)
        return self.vectoriser(covariance(x.flatten(2)))


def features(batch_size: int, channels: int, side: int, device: torch.device) -> Tensor:
    """As after a ReLU; every third channel varies more, so that the rate is not zero."""
    x = torch.randn(batch_size, channels, side, side).relu()
    x[:, ::3] *= 3 * torch.rand(batch_size, 1, side, side)
    return x.to(device).requires_grad_()


def milliseconds(pooling: nn.Module, x: Tensor) -> float:
    """Return the time of one forward and backward pass, per image."""
    on_gpu = x.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize()
    started = clock()
    pooling(x).sum().backward()
    if on_gpu:
        torch.cuda.synchronize()
    return (clock() - started) * 1000 / len(x)


def compare(channels: int, side: int, batch_size: int, runs: int, device: torch.device) -> None:
    """Write the times of one size."""
    x = features(batch_size, channels, side, device)
    ours, textbook = DropCovPooling(in_channels=channels), Textbook(channels)
    for weight in (ours.importance.conv.weight, textbook.conv.weight):
        weight.data.copy_(torch.tensor(KERNEL).view(1, 1, 3))
    poolings = [CovariancePooling(in_channels=channels), ours, textbook]
    poolings = [pooling.to(device) for pooling in poolings]
    times: list[list[float]] = [[], [], []]
    for run in range(runs + 3):
        for seen, pooling in zip(times, poolings, strict=True):
            spent = milliseconds(pooling, x)
            if run >= 3:
                seen.append(spent)
    rate = ours.observables()["rho"].item()
    if abs(rate - textbook.rate) > RATE_ERROR:
        raise SystemExit(f"rates differ: ours {rate}, textbook {textbook.rate}; no times")
    plain, own, peer = (statistics.median(seen) for seen in times)
    sys.stdout.write(
        f"C {channels:<4} {side}x{side:<3} rho {rate:.3f}  covariance {plain:6.3f} ms/image"
        f"  dropcov {own:6.3f} (x{own / plain:.2f})  textbook {peer:6.3f} (x{peer / plain:.2f})"
        f"  overhead {own - plain:6.3f} against {peer - plain:6.3f} ms"
        f"  ratio textbook / dropcov {peer / own:.2f}"
        f"  range {min(times[1]):.3f}-{max(times[1]):.3f} against"
        f" {min(times[2]):.3f}-{max(times[2]):.3f}\n"
    )


def main() -> None:
    """Run the benchmark and write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for channels, side in SHAPES:
        compare(channels, side, options.batch_size, options.runs, torch.device(options.device))


if __name__ == "__main__":
    main()
