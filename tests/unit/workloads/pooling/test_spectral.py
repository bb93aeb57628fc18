"""Powers and logarithms of matrices: divided differences, derivatives, and the edges.

Shape letters: B batch, D side.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from workloads.pooling import spectral
from workloads.pooling.spectral import matrix_log, matrix_power

EXPONENTS = [0.5, 0.3, 1.0, 1.5, 2.0, -0.5, None]


def with_eigenvalues(*values: float, seed: int = 0) -> Tensor:
    """A matrix of these eigenvalues in a random frame: (1, D, D)."""
    generator = np.random.default_rng(seed)
    frame, _ = np.linalg.qr(generator.standard_normal((len(values), len(values))))
    return torch.from_numpy((frame * np.array(values)) @ frame.T)[None]


def apply(matrix: Tensor, exponent: float | None) -> Tensor:
    symmetric = (matrix + matrix.mT) / 2
    return (
        matrix_log(symmetric, floor=1e-9) if exponent is None else matrix_power(symmetric, exponent)
    )


def function(value: float, exponent: float | None) -> float:
    return math.log(value) if exponent is None else value**exponent


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("ratio", [0.0, 1e-15, 1e-9, 1e-5, 5e-5, 2e-4, 1e-2, 0.4, 0.6, 0.99])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
def test_divided_differences(scale: float, ratio: float, exponent: float | None) -> None:
    """Against quadrature of the derivatives, which knows no gap."""
    high = scale
    low = scale * (1 - ratio)
    middle = scale * (1 - 0.3 * ratio)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t, w = (nodes + 1) / 2, weights / 2
    p = 0.0 if exponent is None else exponent
    factor = 1.0 if exponent is None else exponent

    def derivative(x: np.ndarray, order: int) -> np.ndarray:
        falling = 1.0 if order == 1 else p - 1
        return factor * falling * x ** (p - order)

    slope = np.sum(w * derivative(low + t * (high - low), 1))
    # f[a, b, c] = int_0^1 int_0^s f''(a + s (b - a) + r (c - b)) dr ds, r = s q.
    s, q = t[:, None], t[None, :]
    points = high + s * (middle - high) + s * q * (low - middle)
    curve = np.sum(w[:, None] * w[None, :] * s * derivative(points, 2))
    a, b, c = (torch.tensor(v, dtype=torch.float64) for v in (high, middle, low))
    assert float(spectral._slope(a, c, exponent)) == pytest.approx(slope, rel=1e-11)
    assert float(spectral._slope(c, a, exponent)) == pytest.approx(slope, rel=1e-11)
    expected = pytest.approx(curve, rel=1e-9, abs=1e-12 * abs(slope) / scale)
    assert float(spectral._curvature(b, c, a, exponent)) == expected
    assert float(spectral._curvature(a, b, c, exponent)) == expected


@pytest.mark.parametrize("exponent", [0.5, 0.3, 1.5])
def test_differences_from_zero(exponent: float) -> None:
    """f[4, 0] = f(4) / 4, and zero is also what stands for the infinite f[0, 0]."""
    four, zero = torch.tensor(4.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    slope = 4**exponent / 4
    assert float(spectral._slope(four, zero, exponent)) == pytest.approx(slope)
    assert float(spectral._slope(zero, zero, exponent)) == 0
    assert float(spectral._curvature(zero, four, zero, exponent)) == pytest.approx(slope / 4)
    assert float(spectral._curvature(zero, zero, zero, exponent)) == 0


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize(
    "values",
    [(0.5, 1.0, 2.0, 3.0), (2.0, 2.0, 2.0, 2.0), (1.0, 1.0, 3.0, 3.0), (1.0, 1 + 1e-7, 1.5, 4.0)],
)
def test_value_and_both_derivatives(values: tuple[float, ...], exponent: float | None) -> None:
    matrix = with_eigenvalues(*values).requires_grad_()
    expected = with_eigenvalues(*(function(v, exponent) for v in values))
    torch.testing.assert_close(apply(matrix, exponent), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda m: apply(m, exponent), (matrix,))
    assert torch.autograd.gradgradcheck(lambda m: apply(m, exponent), (matrix,))


def test_the_gradient_is_that_of_the_eigenvectors_where_they_are_apart() -> None:
    matrix = with_eigenvalues(0.1, 0.7, 1.0, 4.0).requires_grad_()
    upstream = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    values, vectors = torch.linalg.eigh(matrix)
    by_vectors = (vectors * values.sqrt()[:, None, :]) @ vectors.mT
    (want,) = torch.autograd.grad((by_vectors * upstream).sum(), matrix)
    (got,) = torch.autograd.grad((matrix_power(matrix, 0.5) * upstream).sum(), matrix)
    torch.testing.assert_close(got, (want + want.mT) / 2, rtol=1e-10, atol=1e-11)


def test_null_directions_give_zero_and_negative_powers_the_pseudo_inverse() -> None:
    matrix = with_eigenvalues(0.0, 0.0, 1.0, 4.0)
    torch.testing.assert_close(matrix_power(matrix, 0.5), with_eigenvalues(0.0, 0.0, 1.0, 2.0))
    torch.testing.assert_close(matrix_power(matrix, -1.0), torch.linalg.pinv(matrix))
    zero = torch.zeros(2, 3, 3, dtype=torch.float64, requires_grad=True)
    power = matrix_power(zero, 0.5)
    power.sum().backward()
    assert power.abs().max() == 0
    assert zero.grad is not None
    assert zero.grad.abs().max() == 0


def test_a_floor_lifts_what_rounding_put_below_it() -> None:
    matrix = with_eigenvalues(-1e-17, 0.0, 1.0)
    log = matrix_log(matrix, floor=1e-12)
    torch.testing.assert_close(log, with_eigenvalues(math.log(1e-12), math.log(1e-12), 0.0))
    with pytest.raises(ValueError, match="floor must be above 0"):
        matrix_log(matrix, floor=0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_matrix_is_bad_in_both_derivatives_and_alone(bad: float) -> None:
    matrix = torch.cat([with_eigenvalues(1.0, 2.0), with_eigenvalues(1.0, 3.0)])
    matrix[0, 0, 0] = bad
    matrix.requires_grad_()
    root = matrix_power(matrix, 0.5)
    (first,) = torch.autograd.grad((root**2).sum(), matrix, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), matrix)
    for tensor in (root, first, second):
        assert tensor[0].isnan().all()
        assert tensor[1].isfinite().all()


def test_third_derivatives_are_refused() -> None:
    matrix = with_eigenvalues(1.0, 2.0).requires_grad_()
    loss = (matrix_power(matrix, 0.5) ** 2).sum()
    (first,) = torch.autograd.grad(loss, matrix, create_graph=True)
    with pytest.raises(RuntimeError, match="no third derivative"):
        torch.autograd.grad((first**2).sum(), matrix, create_graph=True)
