"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from cluster.errors import ClusterError


def planned_cpus() -> int:
    """Return what `up` gives Ray: $GCPCTL_NUM_CPUS, else what affinity and cgroups allow."""
    asked = os.environ.get("GCPCTL_NUM_CPUS")
    if asked:
        if not asked.isdigit() or int(asked) < 1:
            raise ClusterError(
                f"GCPCTL_NUM_CPUS is {asked!r}; it must be a whole number from 1.",
                "Unset it to use all CPUs.",
                2,
            )
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _cgroup_cpus(Path("/sys/fs/cgroup"))
    return max(1, min(count, math.floor(quota)) if quota else count)


def _cgroup_cpus(root: Path) -> float | None:
    """Return the CPU quota of the container; None when there is none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except ValueError:  # "max"
        return None


def planned_gpus() -> int:
    """Return how many GPUs Ray would find: those of NVIDIA's driver, less what is hidden."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        return len(list(Path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        return 0
