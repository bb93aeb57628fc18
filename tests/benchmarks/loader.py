"""Images per second and core, against torchvision's ImageFolder with Pillow and a DataLoader.

    python -m tests.benchmarks.loader [--images 768] [--rounds 5] [--workers 1]

Both make training batches: a random resized crop to 224 pixels, mirrored half of the time. The
peer reads photographs of 500x375 pixels (about 50 KB) and hands over normalised float32 images,
as ImageNet's usual scripts do; with `--peer uint8` it hands over bytes as well. Ours reads the
same photographs as they are, from JPEG shards of 256 pixels and from decoded shards, as
`gcpctl data pack` writes them, and hands over bytes. Loader processes stay over the epochs on both
sides and are started before anything is measured. Epochs alternate; a figure is the median over
rounds of the ratio of images per CPU second of all processes, loader processes included.

First the same boxes are cut with Pillow, and every path has to agree with it to 40 dB.
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from workloads.config.data import ImageFolderConfig, PackedConfig
from workloads.config.images import AugmentConfig, ImagesConfig, RandomResizedCropConfig
from workloads.data.bundle import DataBundle
from workloads.data.datasets import image_random
from workloads.data.loaders import Loader, train_batches
from workloads.data.pack import pack_images
from workloads.data.pack_manifest import PackOptions, Variant
from workloads.data.sources import build_data, open_source
from workloads.data.transforms import random_box

Epochs = Callable[[int], Iterable[Any]]
"""From the number of an epoch to its batches."""

IMAGES = ImagesConfig(size=224, resize=256)
CROP = RandomResizedCropConfig(name="random_resized_crop")
AUGMENT = AugmentConfig(crop=CROP, flip=0.5)
BATCH = 64
PHOTOGRAPHS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


def write_photographs(root: Path, count: int) -> float:
    """Write pieces of real photographs, 500x375 pixels each; return their mean size in KB."""
    photographs = []
    for package, name in PHOTOGRAPHS:
        spec = importlib.util.find_spec(package)
        folder = (spec.submodule_search_locations or [""])[0] if spec else ""
        if (Path(folder) / name).is_file():
            photographs.append(Image.open(Path(folder) / name).convert("RGB"))
    if not photographs:
        raise SystemExit("this needs the photographs that scikit-learn or matplotlib carry")
    random = np.random.default_rng(0)
    size = 0
    for split, number in (("train", count), ("val", 4)):
        for index in range(number):
            photograph = photographs[index % len(photographs)]
            height = int(random.integers(300, min(photograph.height, photograph.width * 3 // 4)))
            width = height * 4 // 3
            left = int(random.integers(0, photograph.width - width + 1))
            top = int(random.integers(0, photograph.height - height + 1))
            piece = photograph.crop((left, top, left + width, top + height))
            path = root / split / str(index % 2) / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            piece.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
            size += path.stat().st_size
    return size / (count + 4) / 1000


def check_equal(name: str, config: Any, bundle: DataBundle) -> float:
    """Return the lowest PSNR of our images against the same boxes cut by Pillow, in dB."""
    store = open_source(config).train
    indices = torch.arange(0, len(store), max(len(store) // 32, 1))
    batch, _ = bundle.train.get_batch(indices, 3)
    lowest = float("inf")
    for image, index in zip(batch, indices.tolist(), strict=True):
        whole = store.load(index)
        random = image_random(0, 3, index)
        top, left, height, width = random_box(*whole.shape[:2], CROP, random)
        piece = Image.fromarray(whole.numpy()).crop((left, top, left + width, top + height))
        piece = piece.resize((224, 224), Image.Resampling.BILINEAR)
        piece = ImageOps.mirror(piece) if random.random() < 0.5 else piece
        difference = image.permute(1, 2, 0).double().numpy() - np.asarray(piece)
        lowest = min(lowest, 10 * np.log10(255**2 / max(float((difference**2).mean()), 1e-9)))
    if lowest < 40.0:
        raise SystemExit(f"{name} gives other images than Pillow: {lowest:.1f} dB")
    return lowest


def peer_epochs(root: Path, workers: int, *, as_bytes: bool) -> Epochs:
    """Return the peer's batches of one epoch after another."""
    from torchvision import datasets, transforms

    steps = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    if as_bytes:
        steps += [transforms.PILToTensor()]
    else:
        steps += [transforms.ToTensor(), transforms.Normalize(IMAGES.mean, IMAGES.std)]
    folder = datasets.ImageFolder(str(root / "train"), transforms.Compose(steps))
    options = {"batch_size": BATCH, "shuffle": True, "drop_last": True, "num_workers": workers}
    loader = DataLoader(folder, persistent_workers=workers > 0, **options)
    return lambda epoch: loader


def our_epochs(bundle: DataBundle, workers: int) -> Epochs:
    """Return our batches of one epoch after another."""
    loader = Loader(bundle.train, loader_workers=workers)
    options = {"seed": 0, "batch_size_per_worker": BATCH}
    return lambda epoch: train_batches(loader, epoch=epoch, **options)


def cpu_seconds() -> float:
    """Return what this process and its loader processes have used."""
    this = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (this, *this.children()))


def measure(epochs: Epochs, count: int = 1) -> tuple[float, float]:
    """Return images per CPU second and per second of so many epochs."""
    cpu, wall, seen = cpu_seconds(), time.perf_counter(), 0
    for epoch in range(count):
        for images, _ in epochs(epoch):
            seen += len(images)
    return seen / (cpu_seconds() - cpu), seen / (time.perf_counter() - wall)


def main() -> None:
    """Run the benchmark and write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="loader processes of each")
    parser.add_argument("--peer", default="float32", choices=["float32", "uint8"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tree, pack = Path(folder, "tree"), Path(folder, "pack")
        kilobytes = write_photographs(tree, args.images)
        variants = (Variant(form="jpeg", size=256), Variant(form="decoded", size=256))
        pack_images(str(tree), str(pack), PackOptions(variants=variants))
        configs = {
            "the same JPEG tree": ImageFolderConfig(name="image_folder", path=str(tree)),
            "JPEG shards, 256 px": PackedConfig(name="packed", path=str(pack), variant="jpeg-256"),
            "decoded shards, 256 px": PackedConfig(
                name="packed", path=str(pack), variant="decoded-256"
            ),
        }
        say(f"{args.images} photographs of {kilobytes:.0f} KB, {args.workers} loader process(es)")
        bundles = {}
        for name, config in configs.items():
            bundles[name] = build_data(config, images=IMAGES, augment=AUGMENT, seed=0)
            agreement = check_equal(name, config, bundles[name])
            say(f"{name}: agrees with Pillow on the same boxes to {agreement:.0f} dB or better")

        peer = peer_epochs(tree, args.workers, as_bytes=args.peer == "uint8")
        ours = {name: our_epochs(bundle, args.workers) for name, bundle in bundles.items()}
        for epochs in (peer, *ours.values()):
            measure(epochs)
        # CPU time is told in hundredths of a second: ours gets epochs enough to be seen.
        rounds = [
            {"peer": measure(peer), **{name: measure(epochs, 3) for name, epochs in ours.items()}}
            for _ in range(args.rounds)
        ]
    per_core = statistics.median(one["peer"][0] for one in rounds)
    say(f"ImageFolder, Pillow, DataLoader ({args.peer}): {per_core:.0f} images/s per core")
    for name in ours:
        core, wall = ([one[name][k] / one["peer"][k] for one in rounds] for k in (0, 1))
        per_core = statistics.median(one[name][0] for one in rounds)
        say(
            f"{name}: {per_core:.0f} images/s per core, {statistics.median(core):.2f}x the peer "
            f"(range {min(core):.2f}-{max(core):.2f}); by the clock "
            f"{statistics.median(wall):.2f}x"
        )


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
