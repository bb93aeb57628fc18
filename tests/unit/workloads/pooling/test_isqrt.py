"""iSQRT against the published recursion in float64: values, gradients, the edges."""

import itertools

import numpy as np
import pytest
import torch

from tests.unit.workloads.pooling.isqrt_recursion import (
    recursion,
    relative,
    relu_features,
)
from workloads.pooling import gemm
from workloads.pooling.isqrt import IsqrtPooling

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
SHAPES = [(8, 5), (8, 17), (6, 9), (4, 30)]
"""Channels and positions: Gram side, reflected Gram side or not, covariance side."""


@pytest.mark.parametrize("num_iters", [1, 3, 5])
def test_worked_example(num_iters: int) -> None:
    z = IsqrtPooling(in_channels=2, num_iters=num_iters)(X[..., None])
    assert z[0].tolist() == pytest.approx(ROOTS[num_iters], abs=1e-6)


@pytest.mark.parametrize("num_iters", [3, 5])
def test_worked_gradient(num_iters: int) -> None:
    x = X.clone().requires_grad_()
    IsqrtPooling(in_channels=2, num_iters=num_iters)(x[..., None]).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad[0].numpy(), GRADIENTS[num_iters], atol=1e-6)


@pytest.mark.parametrize("vector", ["upper_rows", "upper_columns", "full"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("prenorm", ["trace", "frobenius"])
@pytest.mark.parametrize("num_iters", [1, 2, 5, 8, 32])
def test_equals_the_recursion(num_iters: int, prenorm: str, centred: bool, vector: str) -> None:
    for channels, positions in SHAPES:
        x = relu_features(3, channels, positions)
        pooling = IsqrtPooling(
            in_channels=channels,
            num_iters=num_iters,
            prenorm=prenorm,
            centred=centred,
            vector=vector,
        )
        row, column = np.triu_indices(channels)
        if vector == "upper_columns":
            column, row = np.tril_indices(channels)
        for image, got in zip(x.numpy(), pooling(x[..., None]).numpy(), strict=True):
            root = recursion(image, num_iters, prenorm=prenorm, centred=centred)
            want = root.flatten() if vector == "full" else root[row, column]
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("vector", ["upper_rows", "upper_columns", "full"])
@pytest.mark.parametrize("num_iters", [1, 3, 5, 32])
def test_gradcheck(num_iters: int, vector: str) -> None:
    for (channels, positions), prenorm, centred in itertools.product(
        [(5, 3), (3, 17), (18, 17), (3, 6)], ["trace", "frobenius"], [True, False]
    ):
        if (channels, positions) == (18, 17) and (num_iters != 5 or vector != "upper_rows"):
            continue
        pooling = IsqrtPooling(
            in_channels=channels,
            num_iters=num_iters,
            prenorm=prenorm,
            centred=centred,
            vector=vector,
        )
        x = relu_features(2, channels, positions, 1).requires_grad_()
        assert torch.autograd.gradcheck(pooling, (x,), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("prenorm", ["trace", "frobenius"])
@pytest.mark.parametrize("shape", [(1, 4, 3, 1), (1, 3, 5, 1)])
def test_second_derivatives(shape: tuple[int, ...], prenorm: str) -> None:
    pooling = IsqrtPooling(in_channels=shape[1], num_iters=3, prenorm=prenorm)
    x = relu_features(*shape).requires_grad_()
    assert torch.autograd.gradgradcheck(pooling, (x,), atol=1e-6)


def test_hessian_vector_product_in_float32() -> None:
    """Second derivatives are those of the exact recursion, also where the chain is used."""
    products = []
    for dtype in (torch.float32, torch.float64):
        x = relu_features(2, 24, 9).to(dtype).requires_grad_()
        direction = relu_features(2, 24, 9, seed=1).to(dtype)
        z = IsqrtPooling(in_channels=24)(x[..., None])
        (first,) = torch.autograd.grad(z.square().sum() + z.sum(), x, create_graph=True)
        products.append(torch.autograd.grad((first * direction).sum(), x)[0])
    assert relative(products[0], products[1]) < 1e-4


def test_no_second_derivatives_of_eigenvalues() -> None:
    x = relu_features(1, 4, 3, 1).requires_grad_()
    z = IsqrtPooling(in_channels=4, num_iters=64)(x)
    with pytest.raises(RuntimeError, match="no second derivatives at num_iters=64"):
        torch.autograd.grad(z.sum(), x, create_graph=True)


def test_tends_to_the_exact_root_as_k_grows() -> None:
    x = relu_features(1, 64, 196)
    values, vectors = np.linalg.eigh(np.cov(x[0].numpy(), bias=True))
    exact = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    errors = [
        relative(IsqrtPooling(in_channels=64, num_iters=k).matrix(x)[0], torch.from_numpy(exact))
        for k in (1, 3, 5, 10, 15)
    ]
    assert errors == sorted(errors, reverse=True)
    assert 0.05 < errors[2] < 0.4  # K = 5 is no accurate root, and is not meant to be
    assert errors[-1] < 1e-6


def test_rank_one_is_exact_and_the_result_symmetric() -> None:
    v = torch.arange(1.0, 6.0, dtype=torch.float64)
    x = torch.stack((v, -v), dim=1)[None]  # covariance v v^T
    for prenorm in ("trace", "frobenius"):
        root = IsqrtPooling(in_channels=5, num_iters=1, prenorm=prenorm).matrix(x)
        torch.testing.assert_close(root[0], torch.outer(v, v) / v.norm())
    root = IsqrtPooling(in_channels=12).matrix(relu_features(2, 12, 30))
    assert root.shape == (2, 12, 12)
    torch.testing.assert_close(root, root.transpose(1, 2))


# The edges.


@pytest.mark.parametrize("num_iters", [5, 30])
@pytest.mark.parametrize("prenorm", ["trace", "frobenius"])
@pytest.mark.parametrize("value", [2.0, 0.1, 1.7, -1e-3, 333.3])
def test_no_variation_gives_zero_with_zero_gradient(
    value: float, prenorm: str, num_iters: int
) -> None:
    for shape in [
        (2, 4, 1, 1),
        (2, 4, 3, 3),
        (2, 4, 1, 2),
        (1, 64, 5, 7),
        (1, 256, 7, 7),
        (1, 64, 14, 14),
        (1, 24, 17, 1),
        (1, 4, 57, 57),
    ]:
        x = torch.full(shape, value, requires_grad=True)
        z = IsqrtPooling(in_channels=shape[1], prenorm=prenorm, num_iters=num_iters)(x)
        z.sum().backward()
        assert z.abs().max() == 0
        assert x.grad is not None
        assert x.grad.abs().max() == 0


def test_zeros_without_centring_give_zero_with_zero_gradient() -> None:
    x = torch.zeros(2, 4, 3, 3, requires_grad=True)
    z = IsqrtPooling(in_channels=4, centred=False)(x)
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


@pytest.mark.parametrize("num_iters", [1, 7, 12])
@pytest.mark.parametrize(("channels", "size"), [(64, 7), (32, 14)])
def test_float32_gradient_at_other_k(num_iters: int, channels: int, size: int) -> None:
    pooling = IsqrtPooling(in_channels=channels, num_iters=num_iters)
    wide = relu_features(2, channels, size, size).requires_grad_()
    narrow = wide.detach().float().requires_grad_()
    weight = relu_features(2, pooling.out_features, seed=1)
    (want,) = torch.autograd.grad((pooling(wide) * weight).sum(), wide)
    (got,) = torch.autograd.grad((pooling(narrow) * weight.float()).sum(), narrow)
    assert relative(got, want) < 1e-4


@pytest.mark.parametrize("num_iters", [5, 40])
def test_a_dead_image_does_not_touch_its_neighbours(num_iters: int) -> None:
    for size in (1, 3):
        pooling = IsqrtPooling(in_channels=4, num_iters=num_iters)
        x = relu_features(2, 4, 3, size)
        x[0] = 0.0
        x.requires_grad_()
        z = pooling(x)
        z.sum().backward()
        torch.testing.assert_close(z[1:], pooling(x[1:]))
        assert x.grad is not None
        assert x.grad[0].abs().sum() == 0
        assert bool(x.grad.isfinite().all())
        assert x.grad[1].abs().sum() > 0


@pytest.mark.parametrize("num_iters", [5, 40])
@pytest.mark.parametrize("positions", [3, 17, 20])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_features_are_not_hidden(bad: float, positions: int, num_iters: int) -> None:
    x = relu_features(2, 6, positions, 1)
    x[0, 0, 0, 0] = bad
    x.requires_grad_()
    z = IsqrtPooling(in_channels=6, num_iters=num_iters)(x)
    assert not bool(z[0].isfinite().all())
    assert bool(z[1].isfinite().all())
    (grad,) = torch.autograd.grad(z[1].sum(), x)
    assert bool(grad[1].isfinite().all())


# Compilers, exporters, layouts, settings.


@pytest.mark.parametrize(("channels", "positions", "num_iters"), [(32, 9, 5), (8, 16, 2)])
def test_compiles_without_a_break(channels: int, positions: int, num_iters: int) -> None:
    pooling = IsqrtPooling(in_channels=channels, num_iters=num_iters)
    compiled = torch.compile(pooling, fullgraph=True, backend="aot_eager")
    results = []
    for layer in (pooling, compiled):
        x = relu_features(2, channels, positions, 1, dtype=torch.float32).requires_grad_()
        z = layer(x)
        z.square().sum().backward()
        results.append((z, x.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_iters", [5, 13])
def test_exports(num_iters: int) -> None:
    pooling = IsqrtPooling(in_channels=16, num_iters=num_iters).eval()
    x = relu_features(3, 16, 3, 3, dtype=torch.float32)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(pooling, (x,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(x), pooling(x), rtol=1e-4, atol=1e-5)
    assert program.module()(x[:2]).shape == (2, pooling.out_features)


def test_memory_layout_does_not_matter() -> None:
    pooling = IsqrtPooling(in_channels=24)
    x = relu_features(2, 24, 3, 3, dtype=torch.float32)
    results = []
    for features in (
        x.clone(),
        x.to(memory_format=torch.channels_last),
        x.flatten(2).transpose(1, 2).contiguous(),
    ):
        features.requires_grad_()
        z = pooling(features)
        z.square().sum().backward()
        assert features.grad is not None
        grad = features.grad.transpose(1, 2) if features.dim() == 3 else features.grad
        results.append((z.detach(), grad.reshape(2, 24, 9)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_iters", [5, 13])
def test_backward_inside_autocast_stays_wide(num_iters: int) -> None:
    pooling = IsqrtPooling(in_channels=24, num_iters=num_iters)
    x = relu_features(2, 24, 9, 1, dtype=torch.float32).requires_grad_()
    z = pooling(x)
    (want,) = torch.autograd.grad(z.sum(), x, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (grad,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(grad, want)


def test_the_matmul_setting_is_put_back() -> None:
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    with gemm.fast_products(torch.empty(1)):
        inside = matmul.fp32_precision
        with gemm.fast_products(torch.empty(1)):
            pass
        assert matmul.fp32_precision == inside
    assert inside == ("bf16" if gemm.onednn_is_accurate() else before)
    assert matmul.fp32_precision == before
    with pytest.raises(ZeroDivisionError), gemm.fast_products(torch.empty(1)):
        raise ZeroDivisionError
    assert matmul.fp32_precision == before
    with gemm.fast_products(torch.empty(1, dtype=torch.float64)):
        assert matmul.fp32_precision == before


@pytest.mark.parametrize(
    ("num_iters", "channels", "positions", "normalisation"),
    [(1, 64, 49, 64**3), (2, 64, 49, 3 * 64**3), (3, 8, 4, 6 * 512), (5, 256, 196, 12 * 256**3)],
)
def test_macs(num_iters: int, channels: int, positions: int, normalisation: int) -> None:
    pooling = IsqrtPooling(in_channels=channels, num_iters=num_iters)
    assert pooling.macs(positions) == {
        "covariance": channels**2 * positions,
        "normalisation": normalisation,
    }


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_iters must be at least 1, got 0"):
        IsqrtPooling(in_channels=4, num_iters=0)
    with pytest.raises(ValueError, match="in_channels must be at least 1, got 0"):
        IsqrtPooling(in_channels=0)
    with pytest.raises(ValueError, match="prenorm must be one of trace, frobenius, got 'max'"):
        IsqrtPooling(in_channels=4, prenorm="max")
