"""The parts of one training run, put together the same way on every rank."""

import hashlib
import socket
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from workloads.config.batches import batch_size_per_worker
from workloads.config.errors import ConfigError, Problem
from workloads.config.train import TrainConfig
from workloads.data.errors import DataError
from workloads.data.loaders import steps_per_epoch
from workloads.data.peers import Peers
from workloads.data.sources import DataBundle, build_data
from workloads.models.gcp_net import build_model
from workloads.training.optim import build_optimizer
from workloads.training.state import Meters, TrainState
from workloads.worker import distributed
from workloads.worker.context import WorkerContext
from workloads.worker.lines import say
from workloads.worker.seeding import seed_everything


@dataclass
class Run:
    """Everything the steps of a training share.

    Attributes:
        model: The network as saved and judged.
        network: The network as trained: `model`, wrapped to average gradients over ranks.
        batch_size: Images per step of this worker.
        lr: Learning rate of the newest step.
    """

    config: TrainConfig
    context: WorkerContext
    data: Any
    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    state: TrainState
    meters: Meters
    batch_size: int
    steps_per_epoch: int
    lr: float = 0.0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.steps_per_epoch * self.config.epochs

    @property
    def loader_workers(self) -> int:
        """Processes per rank that decode images."""
        return getattr(self.config.data, "loader_workers", 0)

    def say(self, text: str) -> None:
        """Write a line to the job's log, once for all ranks."""
        if self.context.rank == 0:
            say(text)


def build_run(config: TrainConfig, context: WorkerContext) -> Run:
    """Build data, network and optimizer, equal on all ranks; nothing is resumed yet."""
    batch_size = batch_size_per_worker(config.global_batch_size, context.world_size, "train")
    data = build_equal_data(config, context)
    seed_everything(config.seed)
    model = build_model(config.model, in_channels=data.in_channels, num_classes=data.num_classes)
    model = model.to(context.device)
    seed_everything(config.seed, context.rank)
    return Run(
        config=config,
        context=context,
        data=data,
        model=model,
        network=model,
        optimizer=build_optimizer(config.optim, model.parameters()),
        state=TrainState(),
        meters=Meters(context.device),
        batch_size=batch_size,
        steps_per_epoch=_steps_per_epoch(config, len(data.train)),
    )


def _steps_per_epoch(config: TrainConfig, num_images: int) -> int:
    """Return the steps of an epoch: those asked for, else all full batches.

    Raises:
        ConfigError: The images do not suffice for the steps asked for.
    """
    full = steps_per_epoch(num_images, config.global_batch_size)
    if config.steps_per_epoch is not None and config.steps_per_epoch > full:
        message = f"{config.steps_per_epoch} asked for, {num_images} images make {full}"
        raise ConfigError("train", [Problem("steps_per_epoch", message)])
    return config.steps_per_epoch or full


def build_equal_data(config: TrainConfig, context: WorkerContext) -> DataBundle:
    """Build the data on every rank and refuse to train on data that differ between ranks.

    Ranks whose numbers of images differ would wait for each other in vain, and other images under
    the same numbers would count twice or never.

    Raises:
        DataError: The data are missing or broken, here or on another rank, or they differ.
    """
    data, error = None, None
    with distributed.patient_gather() as gather:
        peers = Peers(context.rank, context.world_size, gather)
        try:
            data = build_data(config.data, seed=config.seed, peers=peers)
        except Exception as reason:  # told after the others have heard that there is one
            error = reason
        views = gather(_describe_data(data, error))
    if error is not None:
        raise error
    assert data is not None
    for rank, view in enumerate(views):
        where = f"rank {rank} on {view['host']}"
        if "error" in view:
            raise _failure_elsewhere(where, view["error"])
        for name, value in views[0]["data"].items():
            if view["data"][name] != value:
                raise DataError(
                    f"{where} has other data than rank 0 on {views[0]['host']}: {name} "
                    f"{_shorten(view['data'][name])}, not {_shorten(value)}",
                    "every node must see the same files",
                )
    return data


def _describe_data(data: DataBundle | None, error: Exception | None) -> dict[str, Any]:
    host = socket.gethostname()
    if data is None:
        # Kinds that a retry is decided by stay themselves; others need not survive a pickle.
        carried = isinstance(error, DataError | OSError)
        return {"host": host, "error": error if carried else repr(error)}
    return {
        "host": host,
        "data": {
            "training images": len(data.train),
            "validation images": len(data.val),
            "skipped images": len(data.skipped),
            "classes": data.classes,
            "digest": data.digest,
        },
    }


def _failure_elsewhere(where: str, error: Exception | str) -> Exception:
    if isinstance(error, OSError):
        return OSError(error.errno, f"{where}: {error}")
    if isinstance(error, DataError):
        return DataError(f"{where}: {error.message}", error.hint)
    return DataError(f"{where}: {error}")


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def wrap_for_ranks(model: nn.Module, context: WorkerContext) -> nn.Module:
    """Average gradients over ranks where there are several.

    Buffers are not sent along with each step: in training every rank normalises by its own batch,
    and rank 0's running statistics are handed round before they are used.
    """
    if context.world_size == 1:
        return model
    on_gpu = context.device.type == "cuda"
    network = DistributedDataParallel(
        model, device_ids=[context.device] if on_gpu else None, gradient_as_bucket_view=True
    )
    # Set afterwards: the keyword was renamed within the range of torch that we allow.
    network.broadcast_buffers = False
    return network


def settle_buckets(run: Run) -> None:
    """Let the averaging of gradients find the layout that it has after the first step.

    It sorts its buckets anew after its first backward pass, and with three or more ranks another
    layout sums in another order. So before a resume one pass is thrown away: whatever it changes
    (buffers, random numbers) must be restored afterwards.
    """
    if run.network is run.model:
        return
    side, device = run.data.image_size, run.context.device
    images = torch.zeros(2, run.data.in_channels, side, side, device=device)
    run.network.train()
    run.network(images).sum().backward()
    run.optimizer.zero_grad(set_to_none=True)


def digest_weights(model: nn.Module) -> str:
    """Return the SHA-256 of all names, types, shapes and bytes of a model's state."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
