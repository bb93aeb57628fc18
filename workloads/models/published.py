"""What was published for the named networks: accuracies with their source, and known doubts.

`published_results.csv` holds the papers' and repositories' ImageNet tables as they are printed
(error rates turned into accuracies, in percent). Nothing here imports torch.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workloads.config.model import ModelConfig

_FILE = Path(__file__).with_name("published_results.csv")


@dataclass(frozen=True)
class PublishedResult:
    """One row of a published table, ImageNet validation, in percent.

    Attributes:
        model: The network as the source calls it.
        pooling: The pooling as the source calls it.
        lr_mode: Its learning-rate schedule; LRnorm, LRfast and LRadju are the CVPR 2020 paper's.
        top1: Accuracy.
        top5: Accuracy; None where the source has none.
        params_m: Parameters in millions, as printed; None where the source has none.
        gflops: Multiply-adds in thousands of millions, as printed.
        epochs: Length of the training; None where the source does not say.
        source: Where it stands.
    """

    model: str
    pooling: str
    lr_mode: str
    top1: float
    top5: float | None
    params_m: float | None
    gflops: float | None
    epochs: int | None
    source: str

    @property
    def comparable(self) -> bool:
        """Whether it is one centre crop over the final run, as almost all numbers are."""
        return not self.pooling.endswith(("-10crop", "-earlier-run"))


@dataclass(frozen=True)
class Note:
    """A known doubt about published numbers.

    Attributes:
        id: Its number in the list of discrepancies that docs and tests cite; may be empty.
        text: What is in doubt.
        backbones: The backbones it concerns.
        poolings: The poolings it concerns.
        widths: The reduced channels it concerns; empty concerns all.
        variant: The backbone's variant it concerns; None concerns all.
    """

    id: str
    text: str
    backbones: tuple[str, ...]
    poolings: tuple[str, ...]
    widths: tuple[int, ...] = ()
    variant: str | None = None

    def concerns(self, model: ModelConfig) -> bool:
        """Whether published numbers of such a network are in doubt."""
        variant = getattr(model.backbone, "variant", None)
        return (
            model.backbone.name in self.backbones
            and model.head.pooling.name in self.poolings
            and (not self.widths or model.head.reduced_channels in self.widths)
            and self.variant in (None, variant)
        )


PUBLISHED: dict[tuple[str, str], str] = {
    ("MobileNetV2", "GAP"): "mobilenet_v2_gap",
    ("MobileNetV2", "GCP-iSQRT-128"): "mobilenet_v2_isqrt_128",
    ("MobileNetV2", "GCP-iSQRT-256"): "mobilenet_v2_isqrt_256",
    ("ShuffleNetV2_x1.0", "GAP"): "shufflenet_v2_x1_0_gap",
    ("ShuffleNetV2_x1.0", "GCP-iSQRT-256"): "shufflenet_v2_x1_0_isqrt_256",
    ("ResNet-18", "GAP"): "resnet18_gap",
    ("ResNet-18", "GCP-iSQRT-256"): "resnet18_isqrt_256",
    ("ResNet-18", "Fast-MPN"): "resnet18_isqrt_128",
    ("ResNet-18", "Fast-MPN-earlier-run"): "resnet18_isqrt_128",
    ("ResNet-18", "DropCov"): "resnet18_dropcov_128",
    ("ResNet-18", "DropCov-64"): "resnet18_dropcov_64",
    ("ResNet-18", "DropCov-256"): "resnet18_dropcov_256",
    ("ResNet-34", "GAP"): "resnet34_gap",
    ("ResNet-34", "GCP-iSQRT-256"): "resnet34_isqrt_256",
    ("ResNet-34", "Fast-MPN"): "resnet34_isqrt_128",
    ("ResNet-34", "Fast-MPN-earlier-run"): "resnet34_isqrt_128",
    ("ResNet-34", "DropCov"): "resnet34_dropcov_128",
    ("ResNet-50", "GAP"): "resnet50_gap",
    ("ResNet-50", "GCP-iSQRT-128"): "resnet50_isqrt_128",
    ("ResNet-50", "GCP-iSQRT-256"): "resnet50_isqrt_256",
    ("ResNet-50", "iSQRT-256"): "resnet50_isqrt_256",
    ("ResNet-50", "Fast-MPN"): "resnet50_isqrt_128",
    ("ResNet-50", "DropCov"): "resnet50_dropcov_128",
    ("ResNet-50", "DropCov-256"): "resnet50_dropcov_256",
    ("ResNet-50", "MPN-COV-EIG-256"): "resnet50_mpn_eig_256",
    ("ResNet-50", "MPN-COV-EIG-256-10crop"): "resnet50_mpn_eig_256",
    ("ResNet-101", "GAP"): "resnet101_gap",
    ("ResNet-101", "GCP-iSQRT-256"): "resnet101_isqrt_256",
    ("ResNet-101", "iSQRT-256"): "resnet101_isqrt_256",
    ("ResNet-101", "DropCov"): "resnet101_dropcov_128",
    ("ResNet-101", "MPN-COV-EIG-256"): "resnet101_mpn_eig_256",
    ("ResNet-101", "MPN-COV-EIG-256-10crop"): "resnet101_mpn_eig_256",
    ("VGG-16", "MPN-COV-EIG-256"): "vgg16_bn_mpn_eig_256",
    ("VGG-16", "MPN-COV-EIG-256-10crop"): "vgg16_bn_mpn_eig_256",
    ("VGG-16(D)", "iSQRT-256"): "vgg16_isqrt_256",
    ("VGG-16-BN(D)", "iSQRT-256"): "vgg16_bn_isqrt_256",
    ("DeiT-T", "cls-token"): "deit_tiny",
    ("DeiT-S", "cls-token"): "deit_small",
    ("DeiT-B", "cls-token"): "deit_base",
    ("DeiT-S", "DropCov"): "sot_small_dropcov",
    ("SoT-Tiny", "MGCrP-svPN"): "sot_tiny_svpn",
    ("SoT-Small", "MGCrP-svPN"): "sot_small_svpn",
    ("SoT-Base", "MGCrP-svPN"): "sot_base_svpn",
    ("Swin-T", "GAP"): "swin_tiny_gap",
}
"""(model, pooling) as the tables call them -> the name of our network."""

_OTHER_STEM = "it has SoT's token stem as well as its head, and was not released"
_OTHER_ALEXNET = (
    "it is MatConvNet's AlexNet, grouped, 96 to 384 channels wide and with batch normalisation; "
    "ours is torchvision's"
)
_NO_VGG_M = "no PyTorch definition of VGG-M is published"
_NO_SWIN_B = "Swin-B is not one of our backbones; Swin-T is"

NOT_COVERED: dict[tuple[str, str], str] = {
    ("VGG-M", "MPN-COV-EIG-256"): _NO_VGG_M,
    ("VGG-M", "MPN-COV-EIG-256-10crop"): _NO_VGG_M,
    ("AlexNet", "MPN-COV-EIG-256"): _OTHER_ALEXNET,
    ("AlexNet", "MPN-COV-EIG-256-10crop"): _OTHER_ALEXNET,
    ("T2T-ViT-14", "cls-token"): "T2T's token module is not one of our backbones",
    ("T2T-ViT-14", "DropCov"): "the released code names T2T but has another token stem (D9)",
    ("DeiT-T", "MGCrP-svPN"): _OTHER_STEM,
    ("DeiT-S", "MGCrP-svPN"): _OTHER_STEM,
    ("DeiT-B", "MGCrP-svPN"): _OTHER_STEM,
    ("Swin-T", "MGCrP-svPN"): _OTHER_STEM,
    ("Swin-T", "DropCov"): _OTHER_STEM,
    ("Swin-B", "GAP"): _NO_SWIN_B,
    ("Swin-B", "MGCrP-svPN"): _NO_SWIN_B,
}
"""(model, pooling) of the tables that no network of ours is, and why."""

_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")

NOTES = (
    Note(
        "D1",
        "DropCov's tables print 29.6, 32.0 and 51.0 M parameters for ResNet-34, 50 and 101, those "
        "of width 128; the code released with them is fixed to width 256.",
        ("resnet34", "resnet50", "resnet101"),
        ("dropcov",),
    ),
    Note(
        "D2",
        "The GFLOPs printed beside width 128's parameters (3.11, 5.56, 6.19, 9.90 for ResNet-18, "
        "34, 50, 101) are those of width 256 with the stride in the 1x1 convolution; 5.56 should "
        "be 5.65.",
        _RESNETS,
        ("dropcov", "isqrt"),
        widths=(128,),
    ),
    Note(
        "D2",
        "3.86 and 7.57 GFLOPs, printed for ResNet-50 and 101 with GAP, are those of the stride in "
        "the 1x1 convolution; the code has it in the 3x3: 4.09 and 7.80.",
        ("resnet50", "resnet101"),
        ("gap",),
    ),
    Note(
        "D6",
        "The released code weights the channels by their importance in training only.",
        _RESNETS,
        ("dropcov",),
    ),
    Note(
        "D8",
        "What was released as DropCov for transformers drops tokens at a fixed rate of 0.2, not "
        "channels at an adaptive one. Ours drops channels.",
        ("sot_tiny", "sot_small", "sot_base"),
        ("cross_cov",),
        variant="dropcov",
    ),
    Note(
        "D10",
        "DropCov's paper calls the network of this stem, with DropCov, DeiT-S: what it gains over "
        "DeiT-S is not from pooling alone.",
        ("sot_small",),
        ("cross_cov",),
        variant="dropcov",
    ),
    Note(
        "D15",
        "MindSpore's table prints 32.3 M for ResNet-50 with iSQRT and 32.0 M with DropCov, which "
        "differ by 3 parameters.",
        ("resnet50",),
        ("isqrt",),
        widths=(128,),
    ),
    Note(
        "D18",
        "README and poster of the CVPR 2020 paper differ by up to 0.15 points.",
        ("mobilenet_v2", "resnet50"),
        ("gap",),
    ),
    Note(
        "D20",
        "400 epochs under LRnorm are the poster's; the released script runs 90.",
        ("mobilenet_v2",),
        ("gap", "isqrt"),
    ),
    Note(
        "",
        "MPN-COV's VGG-16 has batch normalisation after the hidden layers too, and no dropout.",
        ("vgg16_bn",),
        ("mpn_eig",),
    ),
    Note(
        "",
        "fast-MPN-COV prints 73.45 / 91.06 as iSQRT's; MPN-COV prints the same of its own.",
        ("vgg16",),
        ("isqrt",),
    ),
)
"""Discrepancies between papers, tables and code that concern a network of ours."""


@cache
def read_published() -> tuple[PublishedResult, ...]:
    """Return every published row, in the order of the file."""
    with _FILE.open(newline="", encoding="utf-8") as file:
        return tuple(
            PublishedResult(
                model=row["model"],
                pooling=row["pooling"],
                lr_mode=row["lr_mode"],
                top1=float(row["top1"]),
                top5=_number(row["top5"]),
                params_m=_number(row["params_m"]),
                gflops=_number(row["gflops"]),
                epochs=int(row["epochs"]) if row["epochs"] else None,
                source=row["source"],
            )
            for row in csv.DictReader(file)
        )


def results_of(zoo_name: str) -> list[PublishedResult]:
    """Return what was published for a named network."""
    return [row for row in read_published() if PUBLISHED.get((row.model, row.pooling)) == zoo_name]


def best_of(results: Sequence[PublishedResult]) -> PublishedResult | None:
    """Return the comparable result of the highest top-1, or None without any."""
    return max((r for r in results if r.comparable), key=lambda r: r.top1, default=None)


def notes_for(model: ModelConfig) -> list[Note]:
    """Return the known doubts about published numbers of such a network."""
    return [note for note in NOTES if note.concerns(model)]


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
