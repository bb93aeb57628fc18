"""A training small enough to be run dozens of times, and a net whose numbers need its RNG."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from workloads.config.train import TrainConfig
from workloads.data.sources import build_data
from workloads.models.gcp_net import build_model
from workloads.pooling.isqrt import IsqrtPooling

TIMED = {"perf/images_per_s", "time/epoch_s", "time/train_s", "perf/peak_memory_mb"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny() -> Callable[..., TrainConfig]:
    def make(**changes: Any) -> TrainConfig:
        values = {
            "epochs": 2,
            "global_batch_size": 128,  # 11 steps per epoch
            "log_every_steps": 1,
            "label_smoothing": 0.1,
            "model": {
                "backbone": {"name": "small_resnet", "width": 4, "blocks": [1]},
                "head": {"reduced_channels": 4},
            },
            "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        }
        return TrainConfig.model_validate({**values, **changes})

    return make


class WithDropout(nn.Module):
    """A net whose training draws from torch's, NumPy's and Python's generators."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.inner(images)
        if self.training:
            logits = logits * (1.0 + 0.1 * np.random.random()) + 0.1 * random.random() * logits**2
        return nn.functional.dropout(logits, 0.2, self.training)


@pytest.fixture
def with_dropout(monkeypatch):
    monkeypatch.setattr(
        "workloads.training.run.build_model",
        lambda config, **widths: WithDropout(build_model(config, **widths)),
    )


@pytest.fixture
def plain_net(monkeypatch):
    """A net without batch statistics: the number of ranks cannot change its mathematics."""

    def build(config: Any, *, in_channels: int, num_classes: int) -> nn.Module:
        wide = nn.Linear(64 * in_channels, 32)
        return nn.Sequential(nn.Flatten(), wide, nn.ReLU(), nn.Linear(32, num_classes))

    monkeypatch.setattr("workloads.training.run.build_model", build)


@pytest.fixture
def plain_gcp_net(monkeypatch):
    """The same with convolutions and a second-order pooling."""

    def build(config: Any, *, in_channels: int, num_classes: int) -> nn.Module:
        first = nn.Conv2d(in_channels, 8, 3, padding=1)
        second = nn.Conv2d(8, 6, 3, padding=1)
        return nn.Sequential(
            first,
            nn.ReLU(),
            second,
            nn.ReLU(),
            IsqrtPooling(in_channels=6),
            nn.Linear(21, num_classes),
        )

    monkeypatch.setattr("workloads.training.run.build_model", build)


@pytest.fixture
def hex_of() -> Callable[[list], dict]:
    """Every metric but times, by (key, step), as hex."""

    def read(metrics: list) -> dict:
        found: dict[tuple[str, int], str] = {}
        for step, _, values in metrics:
            for key in values.keys() - TIMED:
                assert (key, step) not in found, "recorded twice"
                found[key, step] = float(values[key]).hex()
        return found

    return read


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of 12 images to train and 2 to validate on, 12x10 pixels of noise."""
    random_pixels = np.random.default_rng(0)
    root = tmp_path / "images"
    for split, count in (("train", 12), ("val", 2)):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random_pixels.integers(0, 256, (10, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return root


class Spoilt:
    """A training set with one image that is not a number."""

    def __init__(self, inner: Any, image: int) -> None:
        self._inner, self._image = inner, image

    def __len__(self) -> int:
        return len(self._inner)

    def get_batch(self, indices: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = self._inner.get_batch(indices, epoch)
        here = (indices == self._image).nonzero()
        return images.float().index_fill(0, here.flatten(), torch.nan) if len(
            here
        ) else images, labels


@pytest.fixture
def spoil(monkeypatch) -> Callable[[int], None]:
    """Make one image of the training set not a number."""

    def apply(image: int) -> None:
        def build(config: Any, **options: Any) -> Any:
            data = build_data(config, **options)
            return replace(data, train=Spoilt(data.train, image))

        monkeypatch.setattr("workloads.training.run.build_data", build)

    return apply


@pytest.fixture
def on_two_ranks(on_ranks: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    return on_ranks
