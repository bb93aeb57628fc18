"""The ways in which iSQRT is computed: chains, sides, parts, eigenvalues, and what is kept."""

import numpy as np
import pytest
import torch

from tests.unit.workloads.pooling.isqrt_recursion import (
    autograd_recursion,
    relative,
    relu_features,
)
from workloads.pooling.fast_root import FastRoot, images_at_once
from workloads.pooling.functional import centre
from workloads.pooling.isqrt import IsqrtPooling
from workloads.pooling.matrix_polynomials import NewtonSchulz, choose_polynomial
from workloads.pooling.reflection import reflect, reflect_gradient
from workloads.pooling.root_plan import MAX_PRODUCT_ITERS, RootPlan, plan_root
from workloads.pooling.spectral_root import SpectralRoot
from workloads.pooling.square_chain_tables import SQUARE_CHAINS
from workloads.pooling.vectorise import mirrored, upper_rows

SHAPES = [(8, 5), (8, 17), (6, 9), (4, 30)]
"""Channels and positions: Gram side, reflected Gram side or not, covariance side."""


@pytest.mark.parametrize("num_iters", sorted(SQUARE_CHAINS))
def test_square_chains_follow_the_recursion(num_iters: int) -> None:
    """Every root to 2e-6 of itself and every slope to 3e-5 of itself, on all of [0, 1]."""
    x = torch.linspace(0, 1, 4001, dtype=torch.float64).square()[:, None, None]
    chain = choose_polynomial(num_iters, torch.float32)
    assert not isinstance(chain, NewtonSchulz)
    results = []
    for polynomial in (chain, NewtonSchulz(num_iters)):
        value, saved = polynomial.value(x)
        slope = value + x * polynomial.derivative(saved, torch.ones_like(x))
        results.append((value, slope))
    (value, slope), (exact_value, exact_slope) = results
    assert ((value - exact_value) / exact_value).abs().max() < 2e-6
    assert ((slope - exact_slope) / exact_slope).abs().max() < 3e-5
    assert isinstance(choose_polynomial(num_iters, torch.float64), NewtonSchulz)


@pytest.mark.parametrize("num_iters", [3, 5, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_polynomials_derivative_is_autograds(num_iters: int, dtype: torch.dtype) -> None:
    polynomial = choose_polynomial(num_iters, dtype)
    a, b = relu_features(2, 6, 6), relu_features(2, 6, 6, seed=1)
    p = (a @ a.transpose(1, 2) / 60).requires_grad_()
    direction = b + b.transpose(1, 2)
    value, saved = polynomial.value(p)
    (want,) = torch.autograd.grad((value * direction).sum(), p)
    got = polynomial.derivative(tuple(s.detach() for s in saved), direction)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "positions"), [(256, 49), (256, 196), (64, 196), (128, 49), (32, 9)]
)
@pytest.mark.parametrize("num_iters", [3, 5])
def test_float32_against_the_unrolled_recursion(
    num_iters: int, channels: int, positions: int
) -> None:
    x = relu_features(1, channels, positions).requires_grad_()
    want = autograd_recursion(x, num_iters)
    weight = relu_features(*want.shape, seed=1)
    (want_grad,) = torch.autograd.grad((want * weight).sum(), x)
    narrow = x.detach().float().requires_grad_()
    got = IsqrtPooling(in_channels=channels, num_iters=num_iters)(narrow[..., None])
    (grad,) = torch.autograd.grad((got * weight.float()).sum(), narrow)
    assert relative(got, want) < 1e-5
    assert relative(grad, want_grad) < 1e-4


@pytest.mark.parametrize("prenorm", ["trace", "frobenius"])
def test_all_paths_agree_in_float32(prenorm: str) -> None:
    """Gram or covariance side, reflected or not, chain or recursion, any number at a time."""
    channels, positions = 24, 17
    index = upper_rows(channels)
    mirror = mirrored(index, channels)
    x64 = relu_features(5, channels, positions).requires_grad_()
    want = autograd_recursion(x64, 5, prenorm)
    (want_grad,) = torch.autograd.grad(want.square().sum(), x64)
    for by_gram, reflected in ((True, True), (True, False), (False, False)):
        for polynomial in (NewtonSchulz(5), choose_polynomial(5, torch.float32)):
            plan = RootPlan(5, prenorm, True, by_gram, reflected, polynomial)
            x = x64.detach().float().requires_grad_()
            got = FastRoot.apply(x, index, mirror, plan)
            (grad,) = torch.autograd.grad(got.square().sum(), x)
            assert relative(got, want) < 1e-5
            assert relative(grad, want_grad) < 1e-4


def test_a_batch_in_parts_is_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    pooling = IsqrtPooling(in_channels=200)
    x = relu_features(9, 200, 190, 1, dtype=torch.float32)
    plan = plan_root(x.flatten(2), 5, "trace", centred=True)
    assert images_at_once(x.flatten(2), plan) < 9
    narrow = x.clone().requires_grad_()
    pooling(narrow).square().sum().backward()
    alone = x[-1:].clone().requires_grad_()
    pooling(alone).square().sum().backward()
    torch.testing.assert_close(pooling(x)[-1:], pooling(x[-1:]))
    torch.testing.assert_close(narrow.grad[-1:], alone.grad)
    assert pooling(x[:0]).shape == (0, pooling.out_features)


@pytest.mark.parametrize(
    ("channels", "positions", "by_gram", "reflected"),
    [
        (256, 49, True, True),
        (256, 196, True, False),
        (256, 784, False, False),
        (128, 49, True, True),
        (128, 196, False, False),
        (64, 196, False, False),
        (64, 49, True, True),
        (64, 64, False, False),
        (64, 1, True, False),
    ],
)
def test_the_cheaper_side_is_chosen(
    channels: int, positions: int, by_gram: bool, reflected: bool
) -> None:
    plan = plan_root(torch.empty(2, channels, positions), 5, "trace", centred=True)
    assert (plan.by_gram, plan.reflected) == (by_gram, reflected)


def test_reflection_is_centring_with_a_column_less() -> None:
    x = relu_features(2, 5, 9).requires_grad_()
    y, centred = reflect(x, x.mean(dim=2, keepdim=True)), centre(x)
    torch.testing.assert_close(y @ y.mT, centred @ centred.mT)
    grad = relu_features(2, 5, 8, seed=1)
    torch.testing.assert_close(reflect_gradient(grad), torch.autograd.grad(y, x, grad)[0])


def test_what_is_kept_for_backward_is_small() -> None:
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    pooling = IsqrtPooling(in_channels=256)
    x = relu_features(4, 256, 7, 7, dtype=torch.float32).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        z = pooling(x)
    constant = sum(b.untyped_storage().nbytes() for b in pooling.buffers())
    assert z.requires_grad
    assert (sum(kept.values()) - constant) / 4 < 160_000  # the loop keeps 4 million


# Large K.


@pytest.mark.parametrize("shape", [(40, 9), (16, 64), (64, 20)])
@pytest.mark.parametrize("dtype", list(MAX_PRODUCT_ITERS))
def test_the_last_k_by_products_is_right(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """With eigenvalues of zero, which rounding turns into what the updates blow up."""
    x = relu_features(2, *shape)
    x[:, 1::2] = x[:, ::2]
    results = []
    for num_iters in (MAX_PRODUCT_ITERS[dtype], MAX_PRODUCT_ITERS[dtype] + 1):
        narrow = x.to(dtype).requires_grad_()
        z = IsqrtPooling(in_channels=shape[0], num_iters=num_iters)(narrow[..., None])
        results.append((z, torch.autograd.grad(z.sum(), narrow)[0]))
    # The next K is computed otherwise, and its root differs by little.
    assert relative(results[0][0], results[1][0].double()) < 1e-2
    assert relative(results[0][1], results[1][1].double()) < 0.2


@pytest.mark.parametrize("by_gram", [True, False])
def test_products_and_eigenvalues_agree(by_gram: bool) -> None:
    index = upper_rows(24)
    mirror = mirrored(index, 24)
    x = relu_features(3, 24, 20)
    x[:, 1::2] = x[:, ::2]
    num_iters = MAX_PRODUCT_ITERS[torch.float32]
    plan = RootPlan(num_iters, "trace", True, by_gram, False, NewtonSchulz(num_iters))
    wide, narrow = x.clone().requires_grad_(), x.float().requires_grad_()
    want = SpectralRoot.apply(wide, index, mirror, plan)
    got = FastRoot.apply(narrow, index, mirror, plan)
    weight = relu_features(*want.shape, seed=1)
    (want_grad,) = torch.autograd.grad((want * weight).sum(), wide)
    (grad,) = torch.autograd.grad((got * weight.float()).sum(), narrow)
    assert relative(got, want) < 1e-4
    assert relative(grad, want_grad) < 2e-3


@pytest.mark.parametrize("num_iters", [20, 50, 100])
@pytest.mark.parametrize("shape", [(40, 9), (16, 64), (12, 12)])
def test_large_k_is_the_exact_root(shape: tuple[int, int], num_iters: int) -> None:
    x = relu_features(2, *shape, dtype=torch.float32)
    x[:, 1::2] = x[:, ::2]
    narrow = x[..., None].requires_grad_()
    z = IsqrtPooling(in_channels=shape[0], num_iters=num_iters)(narrow)
    for image, got in zip(x.double().numpy(), z.detach(), strict=True):
        values, vectors = np.linalg.eigh(np.cov(image, bias=True))
        root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        want = torch.from_numpy(root[np.triu_indices(shape[0])])
        assert relative(got, want) < 2e-4
    z.sum().backward()
    assert narrow.grad is not None
    assert narrow.grad.abs().max() < 100
