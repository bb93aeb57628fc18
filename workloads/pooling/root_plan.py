"""How a root is computed: on which side, by which polynomial. A model of costs, no timing.

Timing at run time would let two ranks, or a run and its resumption, choose differently and differ
in the last bits. The constants were measured with `python -m tests.benchmarks.isqrt --grid`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from workloads.pooling.matrix_polynomials import MatrixPolynomial, choose_polynomial

MAX_PRODUCT_ITERS = {torch.float32: 12, torch.float64: 20}
"""Updates up to which products are used. Rounding leaves eigenvalues a little below zero, which
each update multiplies by 2.25. Measured on covariances of half rank in float32: the gradient is off
by 4e-4 at 12, by 5e-2 at 16, and nothing is finite at 28. float64 has room to spare at 20."""

_PASS_MACS = {"cpu": 8.0}
_DEFAULT_PASS_MACS = 100.0
"""Multiply-adds in the time of reading and writing one entry. 8 is measured; 100 is the ratio of a
data-centre GPU's float32 rate to its memory's, not measured."""

_PASSES_PER_PRODUCT = 4.0
"""Passes over the matrix for sums, transposes and scales around each product of a polynomial."""

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


def plan_root(x_BDM: Tensor, num_iters: int, prenorm: str, *, centred: bool) -> RootPlan:
    """Return the cheapest way from features (B, D, M) to their root by products."""
    channels, positions = x_BDM.shape[1:]
    polynomial = choose_polynomial(num_iters, x_BDM.dtype)
    by_gram = is_gram_cheaper(channels, positions, polynomial, x_BDM.device.type)
    reflected = by_gram and centred and positions > 1 and positions % _VECTOR_WIDTH == 1
    return RootPlan(num_iters, prenorm, centred, by_gram, reflected, polynomial)


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


def is_spectral(num_iters: int, dtype: torch.dtype) -> bool:
    """Tell whether K is too large for products, so that eigenvalues take their place."""
    return num_iters > MAX_PRODUCT_ITERS[dtype]
