"""The few collectives that training needs; each is trivial in a single process."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

GROUP_TIMEOUT_S = 300
"""A rank that does not answer for so long ends the attempt; torch's default is half an hour."""


PATIENCE_S = 3600
"""How far ranks may be apart that read images before they meet; see `patient_gather`."""


@dataclass(frozen=True)
class WorkerPlace:
    """Which worker this process is."""

    rank: int
    world_size: int
    local_rank: int


def init_process_group_from_env(device_type: str, timeout_s: int = GROUP_TIMEOUT_S) -> WorkerPlace:
    """Join the group that torchrun describes in the environment; alone when there is none."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    place = WorkerPlace(
        rank=int(os.environ.get("RANK", "0")),
        world_size=world_size,
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )
    if world_size > 1:
        if device_type == "cuda":
            torch.cuda.set_device(place.local_rank)
        backend = "nccl" if device_type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    return place


def leave_process_group() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def is_active() -> bool:
    """Whether this process belongs to a group of more than itself."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def barrier() -> None:
    """Wait until every rank is here."""
    if is_active():
        # A sum of nothing rather than dist.barrier, which guesses a device under NCCL.
        all_reduce_sum([0.0])


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """Sum each value over all ranks in float64; whole numbers stay exact to 2**53."""
    if not is_active():
        return [float(value) for value in values]
    tensor = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(tensor)
    return tensor.tolist()


def broadcast_values(values: Sequence[float]) -> list[float]:
    """Return rank 0's values on every rank; the others pass as many, of any content."""
    if not is_active():
        return [float(value) for value in values]
    tensor = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.broadcast(tensor, src=0)
    return tensor.tolist()


def broadcast_flag(flag: bool) -> bool:
    """Return rank 0's flag on every rank."""
    return broadcast_values([float(flag)])[0] != 0.0


def gather_objects(value: Any) -> list[Any]:
    """Return every rank's value in the order of ranks, on every rank."""
    if not is_active():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def patient_gather(timeout_s: int = PATIENCE_S) -> Iterator[Callable[[Any], list[Any]]]:
    """Yield a `gather_objects` whose ranks may arrive `timeout_s` apart; all enter at one time.

    A process that dies is noticed at once all the same, by its closed connections.
    """
    if not is_active():
        yield gather_objects
        return
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    def gather(value: Any) -> list[Any]:
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=group)
        return values

    try:
        yield gather
    finally:
        dist.destroy_process_group(group)


def all_reduce_tensor(values: Tensor) -> Tensor:
    """Return a tensor on the CPU, summed over all ranks; each passes one of the same shape."""
    if not is_active():
        return values
    total = values.to(_device(), copy=True)
    dist.all_reduce(total)
    return total.cpu()


def broadcast_object(value: Any) -> Any:
    """Return rank 0's value on every rank."""
    if not is_active():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def broadcast_buffers(module: nn.Module) -> None:
    """Give every rank rank 0's buffers (running means and variances)."""
    if is_active():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def _device() -> torch.device:
    nccl = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
