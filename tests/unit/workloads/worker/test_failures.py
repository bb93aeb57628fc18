import errno
import itertools
import subprocess
import sys

import pytest
import torch

from workloads.config.errors import ConfigError
from workloads.data.errors import DataError
from workloads.worker.failures import (
    CheckpointError,
    DivergedError,
    FencedError,
    StorageFullError,
    classify,
    read_failure,
    write_failure,
)


def caused(outer, cause):
    outer.__cause__ = cause
    return outer


@pytest.mark.parametrize(
    ("exc", "want"),
    [
        (ValueError("shape"), "user"),
        (TypeError("typo"), "user"),
        (FileNotFoundError("x"), "user"),
        (DataError("reading /data/timed out/broken pipe.png", "mend it"), "user"),
        (ConfigError("train", []), "user"),
        (DivergedError("nan"), "user"),
        (CheckpointError("other classes"), "user"),
        (torch.OutOfMemoryError("CUDA out of memory"), "user"),
        (ModuleNotFoundError("torchh"), "user"),
        (OSError(errno.EIO, "io"), "infrastructure"),
        (OSError(errno.ESTALE, "stale"), "infrastructure"),
        (ConnectionResetError("x"), "infrastructure"),
        (TimeoutError("x"), "infrastructure"),
        (RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"), "infrastructure"),
        (RuntimeError("NCCL error: unhandled system error"), "infrastructure"),
        (torch.distributed.DistBackendError("NCCL watchdog"), "infrastructure"),
        (torch.distributed.DistNetworkError("x"), "infrastructure"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "infrastructure"),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error"), "infrastructure"),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), "user"),
        (caused(DataError("x"), OSError(errno.EIO, "io")), "infrastructure"),
        (OSError(errno.ENOSPC, "full"), "storage"),
        (OSError(errno.EDQUOT, "quota"), "storage"),
        (caused(RuntimeError("writer"), OSError(errno.ENOSPC, "full")), "storage"),
        (StorageFullError("x"), "storage"),
        (FencedError("x"), "fenced"),
        (caused(RuntimeError("x"), FencedError("x")), "fenced"),
    ],
)
def test_classify(exc, want):
    assert classify(exc) == want


def test_a_cause_that_was_hidden_does_not_count():
    error = ValueError("y")
    error.__context__ = ConnectionError("x")
    assert classify(error) == "infrastructure"
    error.__suppress_context__ = True
    assert classify(error) == "user"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_cause_wins_over_its_consequences(order, paths):
    failures = [ConnectionError("peer"), ValueError("cause"), RuntimeError("Connection reset")]
    for rank in order:
        write_failure(paths, 4, rank, failures[rank])
    record = read_failure(paths, 4)
    assert (record["class"], record["rank"], record["message"]) == ("user", 1, "cause")
    assert "ValueError: cause" in record["traceback"]


def test_no_failure_reads_as_none(paths):
    assert read_failure(paths, 1) is None


@pytest.mark.parametrize(
    "module", ["worker.failures", "worker.spool", "worker.paths", "worker.records", "durable"]
)
def test_what_the_driver_reads_with_imports_no_torch(module):
    code = f"import sys, workloads.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
