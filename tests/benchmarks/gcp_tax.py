"""What covariance pooling adds to a training step: iSQRT against GAP, the rest being equal.

    python -m tests.benchmarks.gcp_tax [--backbone resnet18] [--pooling isqrt] [--pairs 9]

Both networks have the same backbone, reduction and classifier: GAP's vector is repeated until it
is as wide as the triangle, so that the classifier, its gradient and its update cost the same.
Steps (forward, loss, backward, fused SGD) alternate in one process on one thread; the figure is
the median over pairs of the ratio of images/s.
"""

import argparse
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.config.model import ModelConfig
from workloads.config.optim import SgdConfig
from workloads.config.validate import validate
from workloads.models.gcp_net import build_model
from workloads.pooling.base import GlobalPooling
from workloads.training.optim import build_optimizer

NUM_CLASSES = 100


class WideAverage(GlobalPooling):
    """The mean, repeated to a given width."""

    def __init__(self, *, in_channels: int, out_features: int) -> None:
        super().__init__(in_channels=in_channels, out_features=out_features)
        self.repeats = -(-out_features // in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)).repeat(1, self.repeats)[:, : self.out_features]


class Trainer:
    """A network and its optimizer; every call is one step on the same batch."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.model, self.images, self.labels = model.train(), images, labels
        self.optimizer = build_optimizer(SgdConfig(lr=0.01), model)

    def step(self) -> float:
        """Train once; return the process's CPU seconds."""
        started = time.process_time()
        loss = F.cross_entropy(self.model(self.images), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return time.process_time() - started


def main() -> None:
    """Run the benchmark and write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18", choices=["resnet18", "mobilenet_v2"])
    parser.add_argument("--pooling", default="isqrt")
    parser.add_argument("--width", type=int, default=256, help="reduced channels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    # 7x7 positions: ResNet-18 with its last stride removed at 112 px, MobileNetV2 at 224 px.
    resnet = args.backbone == "resnet18"
    side, backbone = 112 if resnet else 224, {"name": args.backbone}
    document = {
        "backbone": {**backbone, "last_stride": 1} if resnet else backbone,
        "head": {"reduced_channels": args.width, "pooling": args.pooling},
    }
    config = validate(ModelConfig, document, "benchmark")
    torch.manual_seed(0)
    images = torch.randn(args.batch, 3, side, side)
    labels = torch.randint(NUM_CLASSES, (args.batch,))
    gcp, gap = [build_model(config, in_channels=3, num_classes=NUM_CLASSES) for _ in "ab"]
    width = gcp.head.pooling.out_features
    gap.head.pooling = WideAverage(in_channels=args.width, out_features=width)
    ours, peer = Trainer(gcp, images, labels), Trainer(gap, images, labels)
    ours.step(), peer.step()
    pairs = [(ours.step(), peer.step()) for _ in range(args.pairs)]
    ratios = [gap_s / gcp_s for gcp_s, gap_s in pairs]
    gcp_ms, gap_ms = (1000 * statistics.median(t) / args.batch for t in zip(*pairs, strict=True))
    sys.stdout.write(
        f"{args.backbone} {args.pooling}, {config.num_positions(side)} positions, width "
        f"{args.width} ({width:,}): {gcp_ms:.1f} ms/image, GAP {gap_ms:.1f} ms/image; throughput "
        f"of GCP / GAP median {statistics.median(ratios):.3f}, range {min(ratios):.3f}-"
        f"{max(ratios):.3f}, {len(ratios)} pairs\n"
    )


if __name__ == "__main__":
    main()
