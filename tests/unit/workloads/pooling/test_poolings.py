"""Every pooling against formulas in float64, at the edges, and against its config class."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from workloads.config.model import GapConfig, IsqrtConfig
from workloads.pooling import isqrt
from workloads.pooling.base import GlobalPooling
from workloads.pooling.functional import (
    centre,
    covariance,
    upper_triangle,
    upper_triangle_index,
)
from workloads.pooling.isqrt import IsqrtPooling
from workloads.pooling.matrix_roots import newton_schulz_sqrt, newton_schulz_sqrt_gram
from workloads.pooling.registry import POOLINGS

CONFIGS = {"gap": GapConfig, "isqrt": IsqrtConfig}

GRADIENT_ERROR = 1e-4

# The fact sheet's worked example: two channels at three positions.
X = torch.tensor([[[1.0, 2.0, 3.0], [2.0, 0.0, 4.0]]], dtype=torch.float64)
ROOTS = {
    1: (0.474693, 0.365148, 1.570138),
    3: (0.702384, 0.300137, 1.602795),
    5: (0.766528, 0.280716, 1.608676),
}
GRADIENTS = {
    3: ((-0.481572, -0.099375, 0.580946), (-0.049687, -0.360856, 0.410543)),
    5: ((-0.410781, -0.136907, 0.547688), (-0.068454, -0.390136, 0.458589)),
}


def relu_features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).relu()


def recursion(cov: np.ndarray, num_iters: int) -> np.ndarray:
    """The published coupled updates, one matrix, one line each."""
    trace = np.trace(cov)
    y, z, eye = cov / trace, np.eye(len(cov)), np.eye(len(cov))
    for _ in range(num_iters):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return np.sqrt(trace) * y


def numpy_covariance(x: np.ndarray) -> np.ndarray:
    return np.cov(x, bias=True)


@pytest.mark.parametrize("num_iters", [1, 3, 5])
def test_worked_example(num_iters: int) -> None:
    assert covariance(X)[0].flatten().tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 8 / 3])
    z = IsqrtPooling(in_channels=2, num_iters=num_iters)(X[..., None])
    assert z[0].tolist() == pytest.approx(ROOTS[num_iters], abs=1e-6)


@pytest.mark.parametrize("num_iters", [3, 5])
def test_worked_gradient(num_iters: int) -> None:
    x = X.clone().requires_grad_()
    IsqrtPooling(in_channels=2, num_iters=num_iters)(x[..., None]).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad[0].numpy(), GRADIENTS[num_iters], atol=1e-6)


@pytest.mark.parametrize("positions", [7, 9, 49])
@pytest.mark.parametrize("num_iters", [1, 2, 3, 5, 8])
def test_equals_the_recursion(num_iters: int, positions: int) -> None:
    x = relu_features(3, 16, positions)
    z = IsqrtPooling(in_channels=16, num_iters=num_iters)(x[..., None]).numpy()
    upper = np.triu_indices(16)
    for image, vector in zip(x.numpy(), z, strict=True):
        expected = recursion(numpy_covariance(image), num_iters)[upper]
        np.testing.assert_allclose(vector, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("num_iters", [1, 2, 5])
def test_gram_side_has_the_same_gradient(num_iters: int) -> None:
    x = relu_features(2, 8, 5).requires_grad_()
    weight = torch.randn(2, 8, 8, dtype=torch.float64)
    by_gram = newton_schulz_sqrt_gram(centre(x), num_iters)
    by_covariance = newton_schulz_sqrt(covariance(x), num_iters)
    torch.testing.assert_close(by_gram, by_covariance, rtol=1e-11, atol=1e-12)
    (a,) = torch.autograd.grad((by_gram * weight).sum(), x)
    (b,) = torch.autograd.grad((by_covariance * weight).sum(), x)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_tends_to_the_exact_root_as_k_grows() -> None:
    cov = covariance(relu_features(1, 64, 196))
    values, vectors = np.linalg.eigh(cov[0].numpy())
    exact = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    errors = [
        np.linalg.norm(newton_schulz_sqrt(cov, k)[0].numpy() - exact) / np.linalg.norm(exact)
        for k in (1, 3, 5, 10, 15)
    ]
    assert errors == sorted(errors, reverse=True)
    assert 0.05 < errors[2] < 0.4  # K = 5 is no accurate root, and is not meant to be
    assert errors[-1] < 1e-6


def test_rank_one_is_exact_and_the_result_symmetric() -> None:
    v = torch.arange(1.0, 6.0, dtype=torch.float64)
    cov = torch.outer(v, v)[None]
    torch.testing.assert_close(newton_schulz_sqrt(cov, 1), cov / v.norm())
    root = newton_schulz_sqrt(covariance(relu_features(2, 12, 30)), 5)
    torch.testing.assert_close(root, root.transpose(1, 2))


def test_upper_triangle_is_row_by_row_and_unscaled() -> None:
    matrix = torch.arange(9.0).reshape(1, 3, 3)
    assert upper_triangle(matrix, upper_triangle_index(3)).tolist() == [[0, 1, 2, 4, 5, 8]]


@pytest.mark.parametrize("shape", [(2, 4, 3, 3), (1, 8, 2, 2)])
@pytest.mark.parametrize("name", POOLINGS)
def test_gradcheck(name: str, shape: tuple[int, ...]) -> None:
    pooling = POOLINGS[name](in_channels=shape[1])
    x = relu_features(*shape).requires_grad_()
    assert torch.autograd.gradcheck(pooling, (x,), atol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_shape_and_batch_independence(name: str) -> None:
    pooling = POOLINGS[name](in_channels=8)
    x = relu_features(3, 8, 4, 5, dtype=torch.float32)
    z = pooling(x)
    assert z.shape == (3, pooling.out_features)
    assert z.dtype == x.dtype
    torch.testing.assert_close(pooling(x[1:2]), z[1:2])


@pytest.mark.parametrize(("channels", "size"), [(256, 7), (64, 14)])
def test_float32_stays_near_float64(channels: int, size: int) -> None:
    pooling = IsqrtPooling(in_channels=channels)
    x = relu_features(2, channels, size, size)
    wide, narrow = pooling(x), pooling(x.float())
    assert (narrow - wide).norm() / wide.norm() < 1e-5


@pytest.mark.parametrize("value", [2.0, 0.1, 1.7, -1e-3, 333.3])
@pytest.mark.parametrize(
    "shape",
    [(2, 4, 1, 1), (2, 4, 3, 3), (2, 4, 1, 2), (1, 64, 5, 7), (1, 64, 14, 14), (1, 4, 57, 57)],
)
def test_no_variation_gives_zero_with_zero_gradient(shape: tuple[int, ...], value: float) -> None:
    x = torch.full(shape, value, requires_grad=True)
    z = IsqrtPooling(in_channels=shape[1])(x)
    z.sum().backward()
    assert z.abs().max() == 0
    assert x.grad is not None
    assert x.grad.abs().max() == 0


def test_a_little_variation_is_no_noise() -> None:
    """Features of 1 that vary by a hundred-thousandth still have a covariance."""
    x = 1.0 + 1e-5 * relu_features(1, 4, 5, 5)
    z = IsqrtPooling(in_channels=4)(x.float())
    assert z.abs().max() > 1e-6
    torch.testing.assert_close(z.double(), IsqrtPooling(in_channels=4)(x), rtol=0.05, atol=1e-7)


@pytest.mark.parametrize(("channels", "size"), [(256, 7), (64, 14), (16, 3)])
@pytest.mark.parametrize("num_iters", [1, 5, 12])
def test_float32_gradient_stays_near_float64(num_iters: int, channels: int, size: int) -> None:
    pooling = IsqrtPooling(in_channels=channels, num_iters=num_iters)
    wide = relu_features(2, channels, size, size).requires_grad_()
    narrow = wide.detach().float().requires_grad_()
    weight = relu_features(2, pooling.out_features, seed=1)
    (want,) = torch.autograd.grad((pooling(wide) * weight).sum(), wide)
    (got,) = torch.autograd.grad((pooling(narrow) * weight.float()).sum(), narrow)
    assert (got - want).norm() / want.norm() < GRADIENT_ERROR


@pytest.mark.parametrize(("positions", "by_gram"), [(8, True), (9, False), (17, False)])
def test_the_gram_side_is_used_where_it_pays(
    positions: int, by_gram: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    monkeypatch.setattr(
        isqrt,
        "newton_schulz_sqrt_gram",
        lambda *a: (used.append(1), newton_schulz_sqrt_gram(*a))[1],
    )
    IsqrtPooling(in_channels=16)(relu_features(1, 16, positions, 1))
    assert bool(used) == by_gram


def test_a_dead_image_does_not_touch_its_neighbours() -> None:
    pooling = IsqrtPooling(in_channels=4)
    x = relu_features(2, 4, 3, 3)
    x[0] = 0.0
    x.requires_grad_()
    z = pooling(x)
    z.sum().backward()
    torch.testing.assert_close(z[1:], pooling(x[1:]))
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert x.grad[1].abs().sum() > 0


@pytest.mark.parametrize("positions", [3, 20])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_features_are_not_hidden(bad: float, positions: int) -> None:
    x = relu_features(2, 6, positions, 1)
    x[0, 0, 0, 0] = bad
    z = IsqrtPooling(in_channels=6)(x)
    assert not bool(z[0].isfinite().all())
    assert bool(z[1].isfinite().all())


@pytest.mark.parametrize("name", POOLINGS)
def test_autocast_and_half_inputs_are_computed_wide(name: str) -> None:
    pooling = POOLINGS[name](in_channels=16)
    x = relu_features(2, 16, 7, 7).to(torch.bfloat16)
    expected = pooling(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = pooling(x)
    assert z.dtype == torch.bfloat16
    assert (z - expected).norm() / expected.norm() < 4e-3  # the rounding of the result alone
    half = pooling(x.half())
    assert half.dtype == torch.float16
    assert (half - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("name", POOLINGS)
def test_state_dict_round_trip(name: str) -> None:
    pooling = nn.Sequential(POOLINGS[name](in_channels=4))
    again = nn.Sequential(POOLINGS[name](in_channels=4))
    again.load_state_dict(pooling.state_dict(), strict=True)
    x = relu_features(2, 4, 3, 3)
    torch.testing.assert_close(again(x), pooling(x), rtol=0, atol=0)
    assert "0.index_T" not in pooling.state_dict()


@pytest.mark.parametrize("name", POOLINGS)
def test_config_fields_are_the_keywords(name: str) -> None:
    parameters = inspect.signature(POOLINGS[name]).parameters
    assert next(iter(parameters)) == "in_channels"
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    keywords = {k: p.default for k, p in parameters.items() if k != "in_channels"}
    fields = {k: f.default for k, f in CONFIGS[name].model_fields.items() if k != "name"}
    assert keywords == fields
    assert issubclass(POOLINGS[name], GlobalPooling)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_iters must be at least 1, got 0"):
        IsqrtPooling(in_channels=4, num_iters=0)
    with pytest.raises(ValueError, match="in_channels must be at least 1, got 0"):
        IsqrtPooling(in_channels=0)
