"""Copies of a training's state that the training cannot change: what a write beside it reads."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Place = tuple[Any, ...]
"""Where a tensor stands in a nested state: keys and indices from the root."""

_LARGE_BYTES = 1 << 20


class StagingArea:
    """Memory of the host that a state is copied into, again and again.

    Fresh memory costs a page fault for every 4 KiB, more than the copy itself: so buffers are made
    at the first state and kept. The next `copy` overwrites what the last one returned.
    """

    def __init__(self) -> None:
        self._buffers: dict[Place, Tensor] = {}

    def copy(self, state: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[], None]]:
        """Copy a state of tensors and plain data.

        From a GPU the copy runs in its stream, after the work so far and before any later.

        Args:
            state: Nested dicts, lists and tuples with tensors and plain values.

        Returns:
            The copy, with all tensors on the host, and what waits until it is complete.
        """
        used: dict[Place, Tensor] = {}
        devices: set[torch.device] = set()
        with torch.no_grad():
            staged = {k: self._staged(v, (k,), used, devices) for k, v in state.items()}
        self._buffers = used
        events = []
        for device in devices:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            events.append(event)

        def wait() -> None:
            for event in events:
                event.synchronize()

        return staged, wait

    def _staged(
        self, value: Any, place: Place, used: dict[Place, Tensor], devices: set[torch.device]
    ) -> Any:
        if isinstance(value, Tensor):
            if value.device.type == "cuda":
                devices.add(value.device)
            used[place] = self._buffer(value, place)
            _copy_tensor(used[place], value.detach())
            return used[place]
        if isinstance(value, dict):
            copied = copy.copy(value)  # of the same kind, with what torch notes on a state dict
            for key, item in value.items():
                copied[key] = self._staged(item, (*place, key), used, devices)
            return copied
        if isinstance(value, list | tuple):
            items = [self._staged(v, (*place, i), used, devices) for i, v in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _buffer(self, tensor: Tensor, place: Place) -> Tensor:
        """Return the buffer of a place in the state, a new one if the tensor there is another."""
        before = self._buffers.get(place)
        if before is not None and (before.dtype, before.shape) == (tensor.dtype, tensor.shape):
            return before
        on_gpu = tensor.device.type == "cuda"
        return torch.empty_like(tensor, device="cpu", pin_memory=on_gpu, requires_grad=False)


def _copy_tensor(target: Tensor, source: Tensor) -> None:
    on_host = source.device.type == "cpu" and source.is_contiguous() and target.is_contiguous()
    if on_host and source.nbytes >= _LARGE_BYTES:
        # The C library writes past the cache; torch's copy fetches what it overwrites.
        np.copyto(_bytes_of(target), _bytes_of(source))
    else:
        target.copy_(source, non_blocking=True)


def _bytes_of(tensor: Tensor) -> Any:
    return tensor.view(-1).view(torch.uint8).numpy()
