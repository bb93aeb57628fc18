"""How a root is computed: on which side, by which polynomial. A model of costs, no timing.

Timing at run time would let two ranks, or a run and its resumption, choose differently and differ
in the last bits. The constants were measured with `python -m tests.benchmarks.isqrt --grid`.
"""

import warnings
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from workloads.pooling.matrix_polynomials import (
    MatrixPolynomial,
    NewtonSchulz,
    SquareChain,
    choose_polynomial,
)

MAX_PRODUCT_ITERS = {torch.float32: 12, torch.float64: 20}
"""Updates up to which products are used. Rounding leaves eigenvalues a little below zero, which
each update multiplies by 2.25. Measured on covariances of half rank in float32: the gradient is off
by 4e-4 at 12, by 5e-2 at 16, and nothing is finite at 28. float64 has room to spare at 20."""

MAX_TF32_ITERS = 6
"""Updates up to which TF32 products serve features of 8 or 11 bits. With products rounded as TF32
rounds them, on covariances of half rank, the gradient is off by 9e-4 at 6, by 4e-3 at 8 and by 4e-2
at 10; casting it to bfloat16 costs 1.7e-3."""

_PASS_MACS = {"cpu": 8.0}
_DEFAULT_PASS_MACS = 100.0
"""Multiply-adds in the time of reading and writing one entry. 8 is measured; 100 is the ratio of a
data-centre GPU's float32 rate to its memory's, not measured."""

_PASSES_PER_PRODUCT = 4.0
"""Passes over the matrix for sums, transposes and scales around each product of a polynomial."""

_MAX_FUSED_SIDE = 64
"""Side of the matrices up to which one kernel evaluates a whole chain, see `triton_chain`."""

_VECTOR_WIDTH = 16
"""float32 numbers in a vector register: sides that are a multiple of it multiply fastest."""


class RootPlan(NamedTuple):
    """How a root is computed; equal plans give equal numbers."""

    num_iters: int
    prenorm: str
    centred: bool
    by_gram: bool
    """Iterate on the M x M Gram matrix of the features instead of the D x D covariance."""
    reflected: bool
    """Leave out the direction that centring empties: M - 1 columns instead of M."""
    polynomial: MatrixPolynomial
    tf32: bool = False
    """Products may use TF32."""


def plan_root(
    x_BDM: Tensor, num_iters: int, prenorm: str, *, centred: bool, narrow: bool = False
) -> RootPlan:
    """Return the cheapest way from features (B, D, M) to their root by products.

    Args:
        x_BDM: Features in float32 or wider.
        num_iters: K.
        prenorm: `trace` or `frobenius`.
        centred: Whether to pool the covariance or the second moment.
        narrow: The features were bfloat16 or float16 before they were widened.
    """
    channels, positions = x_BDM.shape[1:]
    polynomial = choose_polynomial(num_iters, x_BDM.dtype)
    by_gram = is_gram_cheaper(channels, positions, polynomial, x_BDM.device.type)
    reflected = by_gram and centred and positions > 1 and positions % _VECTOR_WIDTH == 1
    tf32 = False
    if x_BDM.is_cuda and not torch.compiler.is_compiling():
        tf32 = narrow and num_iters <= MAX_TF32_ITERS
        side = positions - reflected if by_gram else channels
        polynomial = _on_cuda(polynomial, num_iters, side, x_BDM.device, tf32=tf32)
    return RootPlan(num_iters, prenorm, centred, by_gram, reflected, polynomial, tf32)


def is_gram_cheaper(
    channels: int, positions: int, polynomial: MatrixPolynomial, device_type: str
) -> bool:
    """Tell whether a step costs less on the Gram side than on the covariance side."""
    d, m = channels, positions
    products = polynomial.products_forward + polynomial.products_backward
    pass_macs = _PASS_MACS.get(device_type, _DEFAULT_PASS_MACS)
    passes = pass_macs * _PASSES_PER_PRODUCT
    gram = 5 * d * m**2 + 2 * d**2 * m + products * m**3 + passes * products * m**2
    covariance = 2 * d**2 * m + (products + 3) * d**3 + passes * (products + 3) * d**2
    return gram < covariance


def _on_cuda(
    polynomial: MatrixPolynomial, num_iters: int, side: int, device: torch.device, *, tf32: bool
) -> MatrixPolynomial:
    """Return the evaluation that suits the device.

    The coefficients of a chain cancel, which costs two bits: with TF32 products it is off by 1.4e-3
    where the recursion is off by 4e-4.
    """
    if isinstance(polynomial, SquareChain):
        fused = fused_chain(polynomial.rows, side, device) if side <= _MAX_FUSED_SIDE else None
        if fused is not None:
            return fused
        if tf32:
            return NewtonSchulz(num_iters)
    return polynomial


@cache
def fused_chain(
    rows: tuple[tuple[float, ...], ...], side: int, device: torch.device
) -> SquareChain | None:
    """Return the chain in one kernel, None (after a warning) where that does not work.

    Tested once in a process for each side and device, which compiles it and waits for the result.
    """
    try:
        from workloads.pooling.triton_chain import checked_chain  # not on every platform

        return checked_chain(rows, side, device)
    except Exception as error:  # a compiler and a driver may fail in any way
        warnings.warn(
            f"iSQRT runs without its fused kernel on {device}, by more and slower operations: "
            f"{type(error).__name__}: {error}. The results are the same to rounding.",
            stacklevel=2,
        )
        return None


def is_spectral(num_iters: int, dtype: torch.dtype) -> bool:
    """Tell whether K is too large for products, so that eigenvalues take their place."""
    return num_iters > MAX_PRODUCT_ITERS[dtype]
