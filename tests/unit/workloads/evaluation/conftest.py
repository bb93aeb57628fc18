"""A network that knows its digits, its checkpoint, and forked ranks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from workloads.config.data import DigitsConfig
from workloads.config.model import ModelConfig
from workloads.config.train import TrainConfig
from workloads.data.sources import build_eval_data
from workloads.models.gcp_net import GCPNet, build_model
from workloads.worker.folder_context import FolderContext

TINY = {
    "backbone": {"name": "small_resnet", "width": 8, "blocks": [1, 1]},
    "head": {"reduced_channels": 8},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits_config() -> TrainConfig:
    return TrainConfig.model_validate({"model": TINY, "epochs": 1})


@pytest.fixture(scope="session")
def digits_net(digits_config) -> GCPNet:
    """Right on about nine of ten digits that it has not seen."""
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(digits_config.model, in_channels=1, num_classes=10)
        data = build_eval_data(DigitsConfig(), images=digits_config.images, split="train")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(60):
            batch = torch.arange(step * 96, (step + 1) * 96) % len(data.labels)
            images, labels = data.dataset.get_batch(batch, 0)
            optimizer.zero_grad()
            functional.cross_entropy(model(data.scale(images)), labels).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def digits_state(digits_net, digits_config) -> dict[str, Any]:
    """What a training saves, with a moving average that is another network."""
    return {
        "step": 60,
        "model": digits_net.state_dict(),
        "identity": {
            "optimizer": "sgd",
            "input channels": 1,
            "classes": [str(digit) for digit in range(10)],
            "vector order": "upper_rows",
        },
        "config": digits_config.model_dump(mode="json"),
    }


@pytest.fixture
def save_job(tmp_path) -> Callable[..., Path]:
    """Save states as the checkpoints of a job; the first is the best. Return the job's folder."""

    def save(*states: dict[str, Any], name: str = "job") -> Path:
        context = FolderContext(tmp_path / name)
        context.load_checkpoint()
        for number, state in enumerate(states):
            context.save_checkpoint(state, step=state["step"], is_best=number == 0)
        return tmp_path / name

    return save


@pytest.fixture
def tiny_model() -> ModelConfig:
    return ModelConfig.model_validate(TINY)
