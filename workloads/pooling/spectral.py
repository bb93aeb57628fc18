"""Powers and logarithms of symmetric matrices, with a backward that divides by no eigen-gap.

Shape letters: B batch, D side of a matrix; I, J, K its eigenvalues.

With S = U diag(l) U^T and f(S) = U diag(f(l)) U^T, the gradient of a loss whose gradient by f(S) is
G, symmetrised, is

    U (Q o (U^T G U)) U^T,   Q_ij = f[l_i, l_j] = (f(l_i) - f(l_j)) / (l_i - l_j),  Q_ii = f'(l_i)

Backpropagation through the eigenvectors gives the same in exact arithmetic, but by way of
1 / (l_i - l_j), which is infinite for equal eigenvalues; those of a covariance of fewer positions
than channels always are, being zero. The divided differences are therefore written with the ratio
r = l_j / l_i <= 1 alone,

    l_i^(p - 1) (1 - r^p) / (1 - r)  for the power p,   -log(r) / (l_i (1 - r))  for the logarithm,

which is smooth at r = 1. The second derivative uses second divided differences in the same way.

References:
    Daleckii and Krein, 1951, for both derivatives of a function of a symmetric matrix.
    Li et al., Is Second-order Information Helpful for Large-scale Visual Recognition?, ICCV 2017.
"""

from typing import Any

import torch
from torch import Tensor

_CLOSE = 1e-4
"""Relative distance below which three eigenvalues count as close: the difference quotient loses
eps / 1e-4 there, the series by which it is replaced 1e-4 cubed, 1e-12 each in float64."""


def matrix_power(matrix_BDD: Tensor, exponent: float, *, floor: float = 0.0) -> Tensor:
    """Raise symmetric positive semidefinite matrices to a real power: (B, D, D) to (B, D, D).

    Eigenvalues below `floor`, which rounding has put there, are lifted to it. With a floor of zero,
    eigenvalues not larger than D times the machine spacing at the largest one are null: they give
    zero whatever the exponent, so that a negative one gives a power of the pseudo-inverse.

    The gradient between two null directions (and between a null direction and any other, for a
    negative exponent) is infinite for most exponents, and taken as zero. That is exact for every
    function of features X whose null directions are those of X X^T: X is zero along them.

    A matrix with NaN or infinity gives NaN, and so do its gradients; the others are not touched.
    Third derivatives are refused.
    """
    return _Spectral.apply(matrix_BDD, exponent, floor)


def matrix_log(matrix_BDD: Tensor, *, floor: float) -> Tensor:
    """Return the logarithm of symmetric positive definite matrices: (B, D, D) to (B, D, D).

    Eigenvalues below `floor`, a positive number, are lifted to it. NaN, infinity and derivatives
    as in `matrix_power`.
    """
    if floor <= 0:
        raise ValueError(f"floor must be above 0, a logarithm needs positive values; got {floor}")
    return _Spectral.apply(matrix_BDD, None, floor)


class _Spectral(torch.autograd.Function):
    """f(S); `exponent` None stands for the logarithm."""

    @staticmethod
    def forward(ctx: Any, matrix_BDD: Tensor, exponent: float | None, floor: float) -> Tensor:
        bad_B11 = ~matrix_BDD.isfinite().all(dim=2).all(dim=1)[:, None, None]
        # One matrix that is not finite would make the solver refuse the whole batch.
        l_BD, u_BDD = torch.linalg.eigh(matrix_BDD.masked_fill(bad_B11, 0.0))
        l_BD = _lift(l_BD, floor)
        ctx.exponent = exponent
        ctx.save_for_backward(matrix_BDD, l_BD, u_BDD, bad_B11)
        value_BDD = (u_BDD * _value(l_BD, exponent)[:, None, :]) @ u_BDD.mT
        return value_BDD.masked_fill(bad_B11, torch.nan)

    @staticmethod
    def backward(ctx: Any, grad_BDD: Tensor) -> tuple[Tensor, None, None]:
        return _SpectralGradient.apply(grad_BDD, *ctx.saved_tensors, ctx.exponent), None, None


class _SpectralGradient(torch.autograd.Function):
    """U (Q o (U^T G U)) U^T as a function of G and S."""

    @staticmethod
    def forward(
        ctx: Any,
        grad_BDD: Tensor,
        matrix_BDD: Tensor,
        l_BD: Tensor,
        u_BDD: Tensor,
        bad_B11: Tensor,
        exponent: float | None,
    ) -> Tensor:
        ctx.exponent = exponent
        ctx.save_for_backward(grad_BDD, l_BD, u_BDD, bad_B11)
        q_BDD = _slope(l_BD[:, :, None], l_BD[:, None, :], exponent)
        inner_BDD = q_BDD * _rotate(grad_BDD, u_BDD)
        return _rotate_back(inner_BDD, u_BDD).masked_fill(bad_B11, torch.nan)

    @staticmethod
    def backward(ctx: Any, grad_BDD: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by G, where the map is its own adjoint, and by S.

        By S it is the second derivative, in the eigenvectors' frame
        R_ij = sum_k f[l_i, l_k, l_j] (G_ik H_kj + H_ik G_kj), one k at a time.
        """
        if torch.is_grad_enabled():
            # torch's own mark for this, once_differentiable, lets some wrong ones through.
            raise RuntimeError(
                "powers and logarithms of matrices have no third derivative here, and the second "
                "one was asked for with create_graph=True; leave it out of the last backward pass"
            )
        first_BDD, l_BD, u_BDD, bad_B11 = ctx.saved_tensors
        i_BD1, j_B1D = l_BD[:, :, None], l_BD[:, None, :]
        g_BDD, h_BDD = _rotate(first_BDD, u_BDD), _rotate(grad_BDD, u_BDD)
        by_grad_BDD = _rotate_back(_slope(i_BD1, j_B1D, ctx.exponent) * h_BDD, u_BDD)
        r_BDD = torch.zeros_like(h_BDD)
        for k in range(l_BD.shape[1]):
            curve_BDD = _curvature(i_BD1, j_B1D, l_BD[:, k, None, None], ctx.exponent)
            g_BD1, h_B1D = g_BDD[:, :, k, None], h_BDD[:, k, None, :]
            product_BDD = g_BD1 * h_B1D
            r_BDD += curve_BDD * (product_BDD + product_BDD.mT)
        by_matrix_BDD = _rotate_back(r_BDD, u_BDD)
        return (
            by_grad_BDD.masked_fill(bad_B11, torch.nan),
            by_matrix_BDD.masked_fill(bad_B11, torch.nan),
            None,
            None,
            None,
            None,
        )


def _rotate(matrix_BDD: Tensor, u_BDD: Tensor) -> Tensor:
    """Return U^T M U of the symmetric part of M."""
    return u_BDD.mT @ ((matrix_BDD + matrix_BDD.mT) / 2) @ u_BDD


def _rotate_back(matrix_BDD: Tensor, u_BDD: Tensor) -> Tensor:
    return u_BDD @ matrix_BDD @ u_BDD.mT


def _lift(l_BD: Tensor, floor: float) -> Tensor:
    """Return eigenvalues of at least the floor, or, with a floor of zero, null ones as zero."""
    if floor > 0:
        return l_BD.clamp_min(floor)
    spacing = l_BD.shape[1] * torch.finfo(l_BD.dtype).eps
    return l_BD.masked_fill(l_BD <= spacing * l_BD[:, -1:], 0.0)


def _value(l_BD: Tensor, exponent: float | None) -> Tensor:
    if exponent is None:
        return l_BD.log()
    return (l_BD**exponent).masked_fill(l_BD == 0, 0.0)


def _slope(a: Tensor, b: Tensor, exponent: float | None) -> Tensor:
    """Return f[a, b], elementwise, in any order of a and b; zero where it is infinite."""
    high, low = torch.maximum(a, b), torch.minimum(a, b)
    ratio = low / high
    # log(r) from the difference where r is near one, which is exact there.
    log_ratio = torch.where(ratio > 0.5, torch.log1p((low - high) / high), ratio.log())
    same = log_ratio == 0
    log_ratio = log_ratio.masked_fill(same, -1.0)
    if exponent is None:
        return torch.where(same, 1.0, log_ratio / log_ratio.expm1()) / high
    shape = torch.where(same, exponent, (exponent * log_ratio).expm1() / log_ratio.expm1())
    null = (high == 0) if exponent > 0 else (low == 0)
    return (shape * high ** (exponent - 1)).masked_fill(null, 0.0)


def _curvature(a: Tensor, b: Tensor, c: Tensor, exponent: float | None) -> Tensor:
    """Return f[a, b, c], elementwise, in any order; zero where it is infinite."""
    high = torch.maximum(torch.maximum(a, b), c)
    low = torch.minimum(torch.minimum(a, b), c)
    middle = torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
    close = high - low <= _CLOSE * high
    gap = (high - low).masked_fill(close, 1.0)
    quotient = (_slope(high, middle, exponent) - _slope(middle, low, exponent)) / gap
    # Around the mean: f''(m) / 2 + f''''(m) / 24 times the products of two deviations.
    mean = (high + middle + low) / 3
    x, y, z = high - mean, middle - mean, low - mean
    pairs = x * x + y * y + z * z + x * y + y * z + z * x
    series = _derivative(mean, 2, exponent) / 2 + _derivative(mean, 4, exponent) / 24 * pairs
    return torch.where(close, series, quotient).masked_fill(high == 0, 0.0)


def _derivative(x: Tensor, order: int, exponent: float | None) -> Tensor:
    """Return the derivative of f of an order from 1 on."""
    factor = 1.0 if exponent is None else exponent
    power = 0.0 if exponent is None else exponent
    for k in range(1, order):
        factor *= power - k
    return factor * x ** (power - order)
