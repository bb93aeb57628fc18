"""Float32 products by the fastest library or unit that stays as accurate as asked for.

On a CPU torch multiplies float32 matrices by MKL, which knows not every CPU: on some AMD cores
oneDNN is 2.3 times as fast at the same error. oneDNN is asked for by allowing it bfloat16 operands,
which it makes use of only where the CPU has bfloat16 tile units; there the self-test below refuses
it.

On CUDA the tensor cores take float32 operands as TF32, rounded to 11 bits. That is allowed for
features that have no more themselves, and forbidden for others whatever the process allows: the
updates amplify a rounding error, see `root_plan`.
"""

import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

_WORST_RATIO = 4.0
"""Error of oneDNN over MKL's that still counts as float32; bfloat16's is 1e4 times as large."""


class _Precision:
    """How a library multiplies float32: a setting of the process, held by one or more threads.

    The first one in changes it and the last one out puts back what was there. In between the most
    accurate of what is asked for holds, also for the products of other threads.
    """

    def __init__(self, matmul: Any) -> None:
        self._matmul = matmul
        self._lock = threading.Lock()
        self._held: list[str] = []
        self._before = ""

    @contextlib.contextmanager
    def held(self, precision: str) -> Iterator[None]:
        with self._lock:
            if not self._held:
                self._before = self._matmul.fp32_precision
            self._held.append(precision)
            self._set()
        try:
            yield
        finally:
            with self._lock:
                self._held.remove(precision)
                self._set()

    def _set(self) -> None:
        wanted = self._held[0] if self._held else self._before
        self._matmul.fp32_precision = "ieee" if "ieee" in self._held else wanted


_onednn = _Precision(torch.backends.mkldnn.matmul)
_cuda = _Precision(torch.backends.cuda.matmul)


@contextlib.contextmanager
def fast_products(x: Tensor, *, tf32: bool = False) -> Iterator[None]:
    """Multiply float32 tensors like `x` inside the block as fast as is accurate.

    Args:
        x: Its device and type say what is set; of other types nothing is.
        tf32: On CUDA, whether TF32 is accurate enough.
    """
    if x.dtype == torch.float32 and x.is_cuda:
        with _cuda.held("tf32" if tf32 else "ieee"):
            yield
    elif x.dtype == torch.float32 and x.device.type == "cpu" and onednn_is_accurate():
        with _onednn.held("bf16"):
            yield
    else:
        yield


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
        with _onednn.held("bf16"):
            error = (a @ b - exact).abs().max()
        if not bool(error <= _WORST_RATIO * default_error):
            return False
    return True
