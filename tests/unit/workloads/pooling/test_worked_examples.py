"""Values worked out by hand for two channels at three positions, and what it costs.

X = [[1, 2, 3], [2, 0, 4]]: means 2 and 2, Sigma = [[2/3, 2/3], [2/3, 8/3]].
"""

from typing import Any

import pytest
import torch

from workloads.pooling.epn import ElementwisePower
from workloads.pooling.layer_norm import RowLayerNorm
from workloads.pooling.registry import POOLINGS
from workloads.pooling.svpn import SingularValuePower

X = torch.tensor([[[1.0, 2.0, 3.0], [2.0, 0.0, 4.0]]], dtype=torch.float64)

VECTORS: list[tuple[str, dict[str, Any], list[float]]] = [
    ("gap", {}, [2, 2]),
    ("cov", {}, [2 / 3, 2 / 3, 8 / 3]),
    ("cov", {"vector": "full"}, [2 / 3, 2 / 3, 2 / 3, 8 / 3]),
    ("cov", {"centred": False}, [14 / 3, 14 / 3, 20 / 3]),
    ("mpn_eig", {}, [0.766748, 0.280649, 1.608696]),
    ("mpn_eig", {"alpha": 1.0}, [2 / 3, 2 / 3, 8 / 3]),
    ("mpn_eig", {"alpha": 2.0}, [8 / 9, 20 / 9, 68 / 9]),
    ("log_euclidean", {"ridge": 1e-12}, [-0.613287, 0.504752, 0.900969]),
    ("isqrt", {"num_iters": 1}, [0.474693, 0.365148, 1.570138]),
    ("isqrt", {"num_iters": 3}, [0.702384, 0.300137, 1.602795]),
    ("isqrt", {"num_iters": 5}, [0.766528, 0.280716, 1.608676]),
    ("epn", {"l2": "none"}, [0.816497, 0.816497, 1.632993]),
    ("epn", {}, [0.408248, 0.408248, 0.816497]),
    ("epn", {"l2": "columns"}, [0.707107, 0.447214, 0.894427]),
    ("scale_norm", {}, [0.471405, 0.471405, 1.885618]),
    ("bcnn", {}, [0.475191, 0.475191, 0.475191, 0.567962]),
]

EXACT = [[-0.409525, -0.137760, 0.547285], [-0.068880, -0.390381, 0.459261]]
GRADIENTS = [
    ("mpn_eig", {}, EXACT),
    (
        "isqrt",
        {"num_iters": 3},
        [[-0.481572, -0.099375, 0.580946], [-0.049687, -0.360856, 0.410543]],
    ),
    (
        "isqrt",
        {"num_iters": 5},
        [[-0.410781, -0.136907, 0.547688], [-0.068454, -0.390136, 0.458589]],
    ),
]


@pytest.mark.parametrize(("name", "kwargs", "expected"), VECTORS)
def test_vector(name: str, kwargs: dict[str, Any], expected: list[float]) -> None:
    pooling = POOLINGS[name](in_channels=2, **kwargs)
    assert pooling(X[..., None])[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert pooling(X.transpose(1, 2))[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "kwargs", "expected"), GRADIENTS)
def test_gradient_of_the_sum(
    name: str, kwargs: dict[str, Any], expected: list[list[float]]
) -> None:
    x = X.clone().requires_grad_()
    POOLINGS[name](in_channels=2, **kwargs)(x[..., None]).sum().backward()
    assert x.grad is not None
    for row, want in zip(x.grad[0].tolist(), expected, strict=True):
        assert row == pytest.approx(want, abs=2e-6)


def test_the_logarithm_follows_the_features_size() -> None:
    """Features times e give two more on the diagonal, and nothing else."""
    log = POOLINGS["log_euclidean"](in_channels=2)
    more = log(torch.e * X[..., None]) - log(X[..., None])
    assert more[0].tolist() == pytest.approx([2, 0, 2], abs=1e-9)


def test_a_converged_svpn_is_the_matrix_power() -> None:
    """With every value raised apart and many iterations it is U diag(s^alpha) V^T."""
    torch.manual_seed(0)
    power = SingularValuePower(3, alpha=0.5, num_values=3, num_iters=200).double()
    matrix = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    want = (u * s.sqrt()[..., None, :]) @ vh
    torch.testing.assert_close(power(matrix), want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("factor", [1e-24, 1e-12, 1e24])
def test_svpn_of_small_and_large_matrices(factor: float) -> None:
    """Singular vectors do not depend on the size, so the power of the values is all that does."""
    torch.manual_seed(0)
    power = SingularValuePower(3, alpha=0.5, num_values=3, num_iters=100)
    matrix = torch.randn(2, 3, 3)
    want = factor**0.5 * power(matrix)
    torch.testing.assert_close(power(factor * matrix), want, rtol=1e-3, atol=1e-3 * factor**0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_svpn_of_a_lower_rank_than_values(dtype: torch.dtype) -> None:
    """One value, three asked for: the other two are rounding, and are not made features of."""
    torch.manual_seed(0)
    a = torch.tensor([[1.0, 2.0, 2.0, 4.0]], dtype=dtype)
    matrix = (a.mT @ a)[None].requires_grad_()
    z = SingularValuePower(4, num_values=3)(matrix)
    torch.testing.assert_close(z, matrix / 5.0, rtol=1e-5, atol=1e-5)
    (z * torch.randn_like(z)).sum().backward()
    assert matrix.grad is not None
    assert matrix.grad.abs().max() < 10


def test_columns_of_zeros_stay_zero() -> None:
    matrix = torch.tensor([[4.0, 0.0], [-9.0, 0.0]], dtype=torch.float64).requires_grad_()
    z = ElementwisePower(eps=1e-12, l2="columns")(matrix)
    z.square().sum().backward()
    assert z[:, 0].tolist() == pytest.approx([2 / 13**0.5, -3 / 13**0.5])
    assert z[:, 1].tolist() == [0, 0]
    assert matrix.grad is not None
    assert matrix.grad.isfinite().all()
    whole = ElementwisePower(eps=1e-12, l2="vector")(matrix[None, None])
    assert whole.norm().item() == pytest.approx(1)


def test_row_layer_norm_learns_one_weight_per_column() -> None:
    norm = RowLayerNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.bias.fill_(5.0)
    z = norm(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64))
    assert z.dtype == torch.float64
    assert z[0].tolist() == pytest.approx([5 - 1.5**0.5, 5, 5 + 3 * 1.5**0.5], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "kwargs", "normalisation"),
    [
        ("cov", {}, None),
        ("mpn_eig", {}, 8**3),
        ("log_euclidean", {}, 8**3),
        ("epn", {}, 36),
        ("epn", {"l2": "columns"}, 64),
        ("epn", {"l2": "none"}, 0),
        ("svpn", {}, 5 * 64),
        ("svpn", {"num_values": 2, "num_iters": 3}, 2 * 9 * 64),
        ("layer_norm", {}, 2 * 64),
        ("scale_norm", {}, 64),
    ],
)
def test_costs(name: str, kwargs: dict[str, Any], normalisation: int | None) -> None:
    macs = POOLINGS[name](in_channels=8, **kwargs).macs(num_positions=49)
    assert macs.pop("covariance") == 8 * 8 * 49
    assert macs.pop("normalisation", None) == normalisation
    assert macs == {}


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("mpn_eig", {"alpha": 0.0}, "alpha must be above 0, got 0.0"),
        ("mpn_eig", {"eps": -1.0}, "eps must be at least 0, got -1.0"),
        ("log_euclidean", {"ridge": 0.0}, "ridge must be above 0.*got 0.0"),
        ("epn", {"eps": 0.0}, "eps must be above 0.*got 0.0"),
        ("epn", {"l2": "rows"}, "l2 must be one of vector, columns, none, got 'rows'"),
        ("svpn", {"num_values": 9}, "num_values must be from 1 to the size 8, got 9"),
        ("svpn", {"num_iters": 0}, "num_iters must be at least 1, got 0"),
        ("cov", {"vector": "lower"}, "vector order must be one of .*, got 'lower'"),
    ],
)
def test_impossible_arguments_are_refused(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        POOLINGS[name](in_channels=8, **kwargs)


def test_grid_averages_cells_apart() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooling = POOLINGS["gap"](in_channels=1, grid=2)
    assert pooling.out_features == 4
    assert pooling(x)[0].tolist() == [2.5, 4.5, 10.5, 12.5]
    with pytest.raises(ValueError, match="grid 2 divides maps"):
        pooling(torch.zeros(1, 4, 1))
