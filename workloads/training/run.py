"""The parts of one training run, put together the same way on every rank."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from workloads.config.batches import batch_size_per_worker, count_parts
from workloads.config.errors import ConfigError, Problem
from workloads.config.train import TrainConfig
from workloads.data.bundle import DataBundle, ImageDataset
from workloads.data.loaders import Loader, steps_per_epoch
from workloads.data.peers import Peers
from workloads.data.sources import build_data
from workloads.evaluation.agreement import build_together
from workloads.models.gcp_net import build_model
from workloads.pooling.base import GlobalPooling
from workloads.training.cost import PeakMemory
from workloads.training.ema import WeightAverage
from workloads.training.freeze import Freezer
from workloads.training.loss import Criterion, build_criterion
from workloads.training.observables import find_pooling
from workloads.training.optim import build_optimizer
from workloads.training.precision import LossScale, half_precision
from workloads.training.state import Meters, TrainState
from workloads.worker.context import WorkerContext
from workloads.worker.lines import say
from workloads.worker.seeding import seed_everything


@dataclass
class Run:
    """Everything the steps of a training share.

    Attributes:
        model: The network as saved and judged.
        network: The network as trained: `model`, compiled and averaging gradients over ranks as
            the config and the workers ask for (`workloads.training.network`).
        pooling: Its global pooling, None where it has none.
        is_wrapped: Whether `network` has been made so.
        freezer: Which parts of it are held still.
        train_loader: Makes the training batches; its processes stay over the epochs.
        val_loader: The same for validation.
        average: The moving average of its weights, None without.
        batch_size: Images per step of this worker.
        num_parts: Equal parts that they are computed in.
        lr: Learning rate of the newest step.
    """

    config: TrainConfig
    context: WorkerContext
    data: DataBundle
    train_loader: Loader
    val_loader: Loader
    model: nn.Module
    network: nn.Module
    pooling: GlobalPooling | None
    optimizer: torch.optim.Optimizer
    criterion: Criterion
    loss_scale: LossScale
    freezer: Freezer
    average: WeightAverage | None
    state: TrainState
    meters: Meters
    batch_size: int
    num_parts: int
    steps_per_epoch: int
    peak_memory: PeakMemory
    lr: float = 0.0
    is_wrapped: bool = False

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.steps_per_epoch * self.config.epochs

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Weights that are not held still."""
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def half_precision(self) -> AbstractContextManager[object]:
        """Return the context of forward passes."""
        return half_precision(self.config.compute, self.context.device)

    def say(self, text: str) -> None:
        """Write a line to the job's log, once for all ranks."""
        if self.context.rank == 0:
            say(text)


def build_run(config: TrainConfig, context: WorkerContext) -> Run:
    """Build data, network and optimizer, equal on all ranks; nothing is resumed yet."""
    peak_memory = PeakMemory(context.device)
    in_pairs = config.mix is not None
    batch_size = batch_size_per_worker(
        config.global_batch_size, context.world_size, "train", in_pairs=in_pairs
    )
    most = config.compute.max_images_per_worker
    num_parts = count_parts(batch_size, most, "train", in_pairs=in_pairs)
    data = build_equal_data(config, context)
    seed_everything(config.seed)
    model: nn.Module = build_model(
        config.model, in_channels=data.in_channels, num_classes=data.num_classes
    )
    layout = torch.channels_last if config.compute.channels_last else torch.preserve_format
    model = model.to(context.device, memory_format=layout)
    seed_everything(config.seed, context.rank)
    return Run(
        config=config,
        context=context,
        data=data,
        train_loader=_loader(config, context, data.train),
        val_loader=_loader(config, context, data.val),
        model=model,
        network=model,
        pooling=find_pooling(model),
        optimizer=build_optimizer(config.optim, model),
        criterion=build_criterion(config),
        loss_scale=LossScale(config.compute, context.device),
        freezer=Freezer(model, config.freeze),
        average=None if config.ema is None else WeightAverage(model, config.ema),
        state=TrainState(),
        meters=Meters(),
        batch_size=batch_size,
        num_parts=num_parts,
        steps_per_epoch=_steps_per_epoch(config, len(data.train)),
        peak_memory=peak_memory,
    )


def _loader(config: TrainConfig, context: WorkerContext, images: ImageDataset) -> Loader:
    workers = getattr(config.data, "loader_workers", 0)
    on_gpu = context.device.type == "cuda"
    return Loader(images, loader_workers=workers, pin_memory=on_gpu)


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

    Raises:
        DataError: The data are missing or broken, here or on another rank, or they differ.
    """

    def build(peers: Peers) -> DataBundle:
        return build_data(
            config.data,
            images=config.images,
            augment=config.augment,
            progressive=config.progressive,
            val_views=config.validation.crops,
            seed=config.seed,
            peers=peers,
        )

    rank, world_size = context.rank, context.world_size
    return build_together(build, _facts, rank=rank, world_size=world_size)


def _facts(data: DataBundle) -> dict[str, Any]:
    return {
        "training images": len(data.train),
        "validation images": len(data.val),
        "skipped images": len(data.skipped),
        "classes": data.classes,
        "digest": data.digest,
    }
