"""iSQRT against the published recursion in float64: values, gradients, every path, the edges."""

import itertools

import numpy as np
import pytest
import torch

from workloads.pooling import cpu_gemm
from workloads.pooling.fast_root import FastRoot, images_at_once
from workloads.pooling.functional import centre, covariance
from workloads.pooling.isqrt import IsqrtPooling
from workloads.pooling.matrix_polynomials import NewtonSchulz, choose_polynomial
from workloads.pooling.reflection import reflect, reflect_gradient
from workloads.pooling.root_plan import MAX_PRODUCT_ITERS, RootPlan, plan_root
from workloads.pooling.spectral_root import SpectralRoot
from workloads.pooling.square_chain_tables import SQUARE_CHAINS
from workloads.pooling.vectorise import mirrored, upper_rows

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


def relu_features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).relu()


def recursion(x: np.ndarray, num_iters: int, *, prenorm: str = "trace", centred: bool = True):
    """The published coupled updates of one image's features, one line each."""
    cov = np.cov(x, bias=True) if centred else x @ x.T / x.shape[1]
    scale = np.trace(cov) if prenorm == "trace" else np.linalg.norm(cov)
    y, z, eye = cov / scale, np.eye(len(cov)), np.eye(len(cov))
    for _ in range(num_iters):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return np.sqrt(scale) * y


def autograd_recursion(x: torch.Tensor, num_iters: int, prenorm: str = "trace") -> torch.Tensor:
    """The same in torch for gradients: (B, D, M) to the upper triangle."""
    cov = covariance(x)
    if prenorm == "trace":
        scale = cov.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    else:
        scale = torch.linalg.matrix_norm(cov)[:, None, None]
    y = cov / scale
    z = eye = torch.eye(cov.shape[1], dtype=cov.dtype)
    for _ in range(num_iters):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    row, column = torch.triu_indices(*cov.shape[1:])
    return (y * scale.sqrt())[:, row, column]


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    got, want = got.detach().double(), want.detach()
    return float((got - want).norm() / want.norm())


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
    with cpu_gemm.fast_products(torch.empty(1)):
        inside = matmul.fp32_precision
        with cpu_gemm.fast_products(torch.empty(1)):
            pass
        assert matmul.fp32_precision == inside
    assert inside == ("bf16" if cpu_gemm.onednn_is_accurate() else before)
    assert matmul.fp32_precision == before
    with pytest.raises(ZeroDivisionError), cpu_gemm.fast_products(torch.empty(1)):
        raise ZeroDivisionError
    assert matmul.fp32_precision == before
    with cpu_gemm.fast_products(torch.empty(1, dtype=torch.float64)):
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
