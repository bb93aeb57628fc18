"""iSQRT on CUDA: every way against float64, half precision, no waiting for the device.

How accurate TF32 products are is also told on a CPU, by rounding what is multiplied as TF32 does.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from tests.unit.workloads.pooling.isqrt_recursion import (
    autograd_recursion,
    relative,
    relu_features,
)
from workloads.pooling.fast_root import FastRoot
from workloads.pooling.gemm import fast_products, onednn_is_accurate
from workloads.pooling.isqrt import IsqrtPooling
from workloads.pooling.matrix_polynomials import MatrixPolynomial, NewtonSchulz, SquareChain
from workloads.pooling.root_plan import MAX_TF32_ITERS, RootPlan, plan_root
from workloads.pooling.square_chain_tables import SQUARE_CHAINS
from workloads.pooling.vectorise import mirrored, upper_rows

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

# Channels, positions, updates, pre-normalisation, and the evaluation that they lead to.
WAYS = [
    (256, 49, 5, "trace", "FusedChain"),  # reflected: 48 on the Gram side
    (256, 49, 3, "frobenius", "FusedChain"),
    (128, 30, 5, "trace", "FusedChain"),
    (40, 12, 3, "trace", "FusedChain"),
    (64, 196, 5, "trace", "FusedChain"),  # covariance side
    (20, 100, 5, "frobenius", "FusedChain"),
    (256, 196, 5, "trace", "SquareChain"),
    (128, 196, 3, "trace", "SquareChain"),
    (128, 49, 2, "trace", "NewtonSchulz"),
    (64, 196, 8, "frobenius", "NewtonSchulz"),
    (128, 49, 20, "trace", "NewtonSchulz"),  # on eigenvalues
]
TORCH_PRODUCTS = (
    torch.ops.aten.bmm.default,
    torch.ops.aten.bmm.out,
    torch.ops.aten.baddbmm.default,
)


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> Any:
    x = x.detach().clone().requires_grad_()
    z = function(x)
    (grad,) = torch.autograd.grad((z * weight.to(z)).sum(), x)
    return z.detach(), grad


def assert_close(got: Any, want: Any, output: float, gradient: float) -> None:
    assert got[0].device == got[1].device
    assert relative(got[0], want[0]) < output
    assert relative(got[1].reshape(want[1].shape), want[1]) < gradient


# TF32, on a CPU.


class Tf32Products(TorchDispatchMode):
    """Round the operands of batched float32 products to the 11 bits of TF32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in TORCH_PRODUCTS:
            args = (*args[:-2], *(round_to_tf32(operand) for operand in args[-2:]))
        return func(*args, **(kwargs or {}))


class Float32Chain(SquareChain):
    """Stands for the fused kernel, whose own products are never TF32."""

    def value(self, p_BNN: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        with _disable_current_modes():
            return super().value(p_BNN)

    def derivative(self, saved: tuple[Tensor, ...], direction_BNN: Tensor) -> Tensor:
        with _disable_current_modes():
            return super().derivative(saved, direction_BNN)


def round_to_tf32(x: Tensor) -> Tensor:
    assert x.dtype == torch.float32
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def test_rounding_to_tf32() -> None:
    step = 2.0**-10
    x = torch.tensor([1.0, 1 + step, 1 + step / 2, 1 + 1.5 * step, -1 - 0.6 * step, 0.0])
    want = [1.0, 1 + step, 1.0, 1 + 2 * step, -1 - step, 0.0]
    assert round_to_tf32(x).tolist() == want


@pytest.mark.parametrize(
    ("channels", "positions", "by_gram"), [(128, 49, True), (64, 196, False), (64, 40, False)]
)
@pytest.mark.parametrize(
    ("num_iters", "polynomial"),
    [
        (3, Float32Chain(SQUARE_CHAINS[3])),
        (5, Float32Chain(SQUARE_CHAINS[5])),
        (5, NewtonSchulz(5)),
        (MAX_TF32_ITERS, NewtonSchulz(MAX_TF32_ITERS)),
    ],
)
def test_tf32_is_finer_than_half_precision(
    num_iters: int, polynomial: MatrixPolynomial, channels: int, positions: int, by_gram: bool
) -> None:
    """bfloat16 rounds the vector and the gradient by 1.7e-3 of themselves."""
    x = relu_features(2, channels, positions)
    x[:, 1::2] = x[:, ::2]
    index = upper_rows(channels)
    mirror = mirrored(index, channels)
    weight = relu_features(2, len(index), seed=1)
    plan = RootPlan(num_iters, "trace", True, by_gram, False, polynomial, tf32=True)
    x = x.bfloat16().double()
    want = value_and_gradient(lambda x: autograd_recursion(x, num_iters), x, weight)
    onednn_is_accurate()  # its self-test multiplies too
    with Tf32Products():
        got = value_and_gradient(
            lambda x: FastRoot.apply(x, index, mirror, plan), x.float(), weight
        )
    assert relative(got[0], want[0]) > 1e-4  # the rounding is at work
    assert_close(got, want, output=1e-3, gradient=1e-3)


# On a GPU.


@pytest.fixture
def cuda_precision() -> Iterator[Any]:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    yield matmul
    matmul.fp32_precision = before


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("channels", "positions", "num_iters", "prenorm", "evaluation"), WAYS)
@pytest.mark.parametrize("setting", ["ieee", "tf32"])
def test_every_way_keeps_the_gate(
    cuda_precision: Any,
    setting: str,
    channels: int,
    positions: int,
    num_iters: int,
    prenorm: str,
    evaluation: str,
) -> None:
    """Float32 features have float32 products, also where the process allows TF32."""
    cuda_precision.fp32_precision = setting
    layer = IsqrtPooling(in_channels=channels, num_iters=num_iters, prenorm=prenorm).cuda()
    x = relu_features(4, channels, positions)
    weight = relu_features(4, layer.out_features, seed=1)
    want = value_and_gradient(lambda x: autograd_recursion(x, num_iters, prenorm), x, weight)
    on_device = x.float().cuda()
    plan = plan_root(on_device, num_iters, prenorm, centred=True)
    assert type(plan.polynomial).__name__ == evaluation
    got = value_and_gradient(layer, on_device[..., None], weight)
    assert_close(got, want, output=1e-5, gradient=1e-4)
    assert cuda_precision.fp32_precision == setting


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("side", range(1, 65))
def test_the_fused_kernel_at_every_side(side: int) -> None:
    from workloads.pooling.triton_chain import checked_chain

    for rows in SQUARE_CHAINS.values():
        checked_chain(rows, side, torch.device("cuda", torch.cuda.current_device()))


@pytest.mark.gpu
@needs_gpu
def test_the_same_numbers_each_time() -> None:
    """A line that is read before it is written would show here, if rarely."""
    layer = IsqrtPooling(in_channels=256).cuda()
    x = relu_features(512, 256, 7, 7).float().cuda()
    weight = relu_features(512, layer.out_features, seed=1)
    first = value_and_gradient(layer, x, weight)
    for _ in range(20):
        again = value_and_gradient(layer, x, weight)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("channels", "positions", "num_iters", "prenorm", "evaluation"), WAYS)
def test_half_precision_features(
    cuda_precision: Any,
    dtype: torch.dtype,
    channels: int,
    positions: int,
    num_iters: int,
    prenorm: str,
    evaluation: str,
) -> None:
    setting = cuda_precision.fp32_precision
    layer = IsqrtPooling(in_channels=channels, num_iters=num_iters, prenorm=prenorm).cuda()
    x = relu_features(4, channels, positions).to(dtype)
    weight = relu_features(4, layer.out_features, seed=1).to(dtype)
    want = value_and_gradient(
        lambda x: autograd_recursion(x, num_iters, prenorm), x.double(), weight.double()
    )
    with torch.autocast("cuda", dtype=dtype):
        got = value_and_gradient(layer, x.cuda()[..., None], weight)
    assert got[0].dtype == got[1].dtype == dtype
    assert_close(got, want, output=4e-3, gradient=4e-3)
    assert cuda_precision.fp32_precision == setting


@pytest.mark.gpu
@needs_gpu
def test_autocast_does_not_narrow_float32_features() -> None:
    layer = IsqrtPooling(in_channels=256).cuda()
    x = relu_features(4, 256, 196)
    weight = relu_features(4, layer.out_features, seed=1)
    want = value_and_gradient(lambda x: autograd_recursion(x, 5), x, weight)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        got = value_and_gradient(layer, x.float().cuda()[..., None], weight)
    assert_close(got, want, output=1e-5, gradient=1e-4)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("channels", "positions", "num_iters", "prenorm", "evaluation"),
    [way for way in WAYS if way[2] < 20],
)
def test_a_step_does_not_wait_for_the_device(
    dtype: torch.dtype,
    channels: int,
    positions: int,
    num_iters: int,
    prenorm: str,
    evaluation: str,
) -> None:
    """But for the first, which tests the kernel, and eigenvalues, which wait by themselves."""
    layer = IsqrtPooling(in_channels=channels, num_iters=num_iters, prenorm=prenorm).cuda()
    x = relu_features(4, channels, positions, 1).to("cuda", dtype).requires_grad_()
    layer(x).float().sum().backward()
    x.grad = None
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x).float().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


@pytest.mark.gpu
@needs_gpu
def test_edges_on_a_gpu() -> None:
    layer = IsqrtPooling(in_channels=64).cuda()
    x = relu_features(3, 64, 7, 7).float()
    x[0] = 1.7
    x[1, 3, 2, 2] = torch.nan
    x = x.cuda().to(memory_format=torch.channels_last).requires_grad_()
    z = layer(x)
    (grad,) = torch.autograd.grad(z[[0, 2]].sum(), x)
    assert z[0].abs().max() == 0
    assert grad[0].abs().max() == 0
    assert bool(z[1].isnan().any())
    assert bool(z[2].isfinite().all())
    assert bool(grad[2].isfinite().all())
    assert layer(x[:0]).shape == (0, layer.out_features)


@pytest.mark.gpu
@needs_gpu
def test_second_derivatives_on_a_gpu() -> None:
    x = relu_features(2, 24, 9, 1)
    products = []
    for features in (x, x.float().cuda()):
        layer = IsqrtPooling(in_channels=24).to(features.device)
        features.requires_grad_()
        z = layer(features)
        (first,) = torch.autograd.grad(z.square().sum() + z.sum(), features, create_graph=True)
        products.append(torch.autograd.grad(first.square().sum(), features)[0])
    assert relative(products[1], products[0]) < 1e-4


@pytest.mark.gpu
@needs_gpu
def test_compiles_without_a_break_on_a_gpu() -> None:
    layer = IsqrtPooling(in_channels=256).cuda()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = relu_features(2, 256, 49, 1)
    weight = relu_features(2, layer.out_features, seed=1)
    want = value_and_gradient(lambda x: autograd_recursion(x.flatten(2), 5), x, weight)
    assert_close(value_and_gradient(compiled, x.float().cuda(), weight), want, 1e-5, 1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second GPU")
def test_another_device_than_the_current_one() -> None:
    layer = IsqrtPooling(in_channels=256).to("cuda:1")
    x = relu_features(2, 256, 49, 1)
    weight = relu_features(2, layer.out_features, seed=1)
    want = value_and_gradient(lambda x: autograd_recursion(x.flatten(2), 5), x, weight)
    assert_close(value_and_gradient(layer, x.float().to("cuda:1"), weight), want, 1e-5, 1e-4)


# The setting, which needs no GPU to be looked at.


class _OnCuda:
    """As much of a CUDA tensor as is looked at."""

    dtype, device, is_cuda = torch.float32, torch.device("cuda:0"), True


def test_the_most_accurate_setting_holds_and_is_put_back(cuda_precision: Any) -> None:
    x: Any = _OnCuda()
    for before, first, second in itertools.product(("tf32", "ieee"), (True, False), (True, False)):
        cuda_precision.fp32_precision = before
        with fast_products(x, tf32=first):
            assert cuda_precision.fp32_precision == ("tf32" if first else "ieee")
            with fast_products(x, tf32=second):
                both = "tf32" if first and second else "ieee"
                assert cuda_precision.fp32_precision == both
            assert cuda_precision.fp32_precision == ("tf32" if first else "ieee")
        assert cuda_precision.fp32_precision == before
        with pytest.raises(ZeroDivisionError), fast_products(x, tf32=first):
            raise ZeroDivisionError
        assert cuda_precision.fp32_precision == before
