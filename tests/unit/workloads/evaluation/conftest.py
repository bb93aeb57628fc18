"""A network that knows its digits, its checkpoint, and forked ranks."""

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
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


@pytest.fixture
def on_ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """Run an action on forked ranks over gloo; return what each returned or raised, as text."""

    def run(action: Callable[[int], Any], world_size: int) -> list[Any]:
        number = len(list(tmp_path.glob("store-*")))
        store = tmp_path / f"store-{number}"
        store.touch()
        children = []
        for rank in range(world_size):
            out = tmp_path / f"out-{number}-{rank}"
            pid = os.fork()
            if pid == 0:
                try:
                    dist.init_process_group(
                        "gloo",
                        init_method=f"file://{store}.init",
                        rank=rank,
                        world_size=world_size,
                        timeout=timedelta(seconds=60),
                    )
                    torch.save(action(rank), out)
                except BaseException as error:
                    traceback.print_exc()
                    torch.save(f"{type(error).__name__}: {error}", out)
                finally:
                    os._exit(0)
            children.append((pid, out))
        for pid, _ in children:
            os.waitpid(pid, 0)
        return [torch.load(out) for _, out in children]

    return run
