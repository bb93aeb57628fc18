"""What a training costs: the network's weights and multiply-adds, and the memory it took."""

import contextlib
from pathlib import Path

import torch
from torch import nn

from workloads.models.counting import count
from workloads.models.gcp_net import GCPNet
from workloads.worker.lines import say

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"
"""Written to `clear_refs`, sets the peak of the resident memory back to what it is now."""


def count_network(model: nn.Module, *, image_size: int, in_channels: int) -> dict[str, float]:
    """Return the weights and the multiply-adds of one image, by metric name.

    Empty where the network cannot be counted without computing; the log says so.
    """
    if not isinstance(model, GCPNet):
        return {}
    try:
        counts = count(model, image_size, in_channels)
    except (RuntimeError, NotImplementedError) as error:
        say(f"warning: the network's multiply-adds cannot be counted: {error}")
        return {}
    return {
        "model/parameters": float(sum(weight.numel() for weight in model.parameters())),
        "model/macs": float(counts.total_macs),
    }


class PeakMemory:
    """The most memory that this rank has held since the training began, in 10^6 bytes.

    On a GPU what torch allocated there; else the resident memory of the process, which several
    trainings may use one after the other.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with contextlib.suppress(OSError):
            _CLEAR_REFS.write_text(_RESET_PEAK)

    def metrics(self) -> dict[str, float]:
        """Return it by metric name; empty where the system does not tell."""
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            return {"perf/peak_memory_mb": round(peak / 1e6, 1)}
        try:
            lines = _STATUS.read_text().splitlines()
        except OSError:
            return {}
        found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return {"perf/peak_memory_mb": round(int(found[0]) * 1024 / 1e6, 1)} if found else {}
