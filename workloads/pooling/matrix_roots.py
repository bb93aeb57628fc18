"""Square roots of covariance matrices by products alone, in plain differentiable operations.

Shape letters: B batch, D channels, M positions, N side of the matrix that is iterated (D or M).

With t the trace of Sigma (or its Frobenius norm), A = Sigma / t, Y_0 = A and Z_0 = I, the K
coupled Newton-Schulz updates

    T_k = (3 I - Z_{k-1} Y_{k-1}) / 2,   Y_k = Y_{k-1} T_k,   Z_k = T_k Z_{k-1}

give sqrt(t) Y_K, which tends to the square root of Sigma as K grows. Dividing by t brings every
eigenvalue into [0, 1], where the iteration converges; sqrt(t) puts the scale back. At the K = 5
of the papers small eigenvalues are far from converged: K is a soft spectral filter.

Y_K = A p(A) for a polynomial p, and with A = X X^T and G = X^T X it holds that A p(A) = X p(G) X^T:
the same function of the features, with the same gradient, from M x M matrices.

References:
    Li et al., Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix
    Square Root Normalization, CVPR 2018.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from workloads.pooling.matrix_polynomials import MatrixPolynomial

PRENORMS = ("trace", "frobenius")


class Normalised(NamedTuple):
    """A matrix whose eigenvalues are in [0, 1], and its scale."""

    matrix_BNN: Tensor
    inverse_B11: Tensor
    """One over the norm, zero where there is nothing but rounding noise."""
    rsqrt_B11: Tensor
    """The square root of the former."""


def normalise(product_BNN: Tensor, prenorm: str, noise_B11: Tensor | None = None) -> Normalised:
    """Divide symmetric matrices by their trace or Frobenius norm: (B, N, N).

    A matrix whose trace is zero, or not above `noise_B11` (a constant map, or one position), gives
    zero with zero gradient. The least threshold, eps^4 of the type (2e-28 in float32), only keeps
    1 / t from overflowing. A NaN is not below a threshold and goes through.
    """
    trace_B11 = product_BNN.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
    dead_B11 = trace_B11 <= torch.finfo(trace_B11.dtype).eps ** 4
    if noise_B11 is not None:
        dead_B11 = dead_B11 | (trace_B11 <= noise_B11)
    if prenorm == "trace":
        safe_B11 = trace_B11.masked_fill(dead_B11, 1.0)
    else:
        # Divided by the trace first, so that squares neither overflow nor vanish.
        by_B11 = trace_B11.detach().masked_fill(dead_B11, 1.0)
        squares_B11 = (product_BNN / by_B11).square().sum(dim=(1, 2), keepdim=True)
        safe_B11 = squares_B11.masked_fill(dead_B11, 1.0).sqrt() * by_B11
    rsqrt_B11 = safe_B11.rsqrt().masked_fill(dead_B11, 0.0)
    inverse_B11 = safe_B11.reciprocal().masked_fill(dead_B11, 0.0)
    return Normalised(product_BNN * inverse_B11, inverse_B11, rsqrt_B11)


def features_root(
    y_BDM: Tensor,
    num_positions: int,
    polynomial: MatrixPolynomial,
    *,
    by_gram: bool,
    prenorm: str = "trace",
    noise_B11: Tensor | None = None,
) -> Tensor:
    """Return the root of Y Y^T / `num_positions`, plainly differentiable: (B, D, M) to (B, D, D).

    Args:
        y_BDM: Centred features, or what has the same Y Y^T.
        num_positions: Divisor of the covariance.
        polynomial: Evaluation of p.
        by_gram: Iterate on the M x M Gram matrix instead of the D x D covariance.
        prenorm: `trace` or `frobenius`.
        noise_B11: Trace of Y Y^T up to which a map counts as constant.
    """
    y_BMD = y_BDM.transpose(1, 2)
    scale = num_positions**-0.5
    if by_gram:
        gram = normalise(y_BMD @ y_BDM, prenorm, noise_B11)
        z_BMM, _ = polynomial.value(gram.matrix_BNN)
        return (y_BDM @ (z_BMM * (gram.rsqrt_B11 * scale))) @ y_BMD
    cov = normalise(y_BDM @ y_BMD, prenorm, noise_B11)
    z_BDD, _ = polynomial.value(cov.matrix_BNN)
    sqrt_B11 = scale / cov.rsqrt_B11.masked_fill(cov.rsqrt_B11 == 0, 1.0)
    return (cov.matrix_BNN @ z_BDD) * sqrt_B11
