"""Float32 products by oneDNN where it stays as accurate as the default library.

torch multiplies float32 matrices on a CPU by MKL, which knows not every CPU: on some AMD cores
oneDNN is 2.3 times as fast at the same error. oneDNN is asked for by allowing it bfloat16 operands,
which it makes use of only where the CPU has bfloat16 tile units; there the self-test below refuses
it.
"""

import contextlib
import threading
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

_WORST_RATIO = 4.0
"""Error of oneDNN over MKL's that still counts as float32; bfloat16's is 1e4 times as large."""

_lock = threading.Lock()
_inside = 0
_before = "none"


@contextlib.contextmanager
def fast_products(x: Tensor) -> Iterator[None]:
    """Let float32 products of CPU tensors like `x` inside the block use oneDNN if it is accurate.

    The setting is the process's own, so the first thread in switches it on and the last one out
    restores what was there. Products of other threads in the meantime may go through oneDNN too,
    which the self-test has found as accurate.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or not onednn_is_accurate():
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


@cache
def onednn_is_accurate() -> bool:
    """Multiply a few matrices by both libraries and compare with float64, once in a process."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    for rows, inner, columns in ((48, 48, 48), (256, 49, 49), (196, 196, 196), (256, 256, 49)):
        a = torch.randn(2, rows, inner, generator=generator)
        b = torch.randn(2, columns, inner, generator=generator).transpose(1, 2)
        exact = a.double() @ b.double()
        default_error = (a @ b - exact).abs().max()
        _enter()
        try:
            error = (a @ b - exact).abs().max()
        finally:
            _leave()
        if not bool(error <= _WORST_RATIO * default_error):
            return False
    return True


def _enter() -> None:
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = torch.backends.mkldnn.matmul.fp32_precision
            torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        _inside += 1


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            torch.backends.mkldnn.matmul.fp32_precision = _before
