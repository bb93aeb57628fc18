"""The reflection that stands for centring, where rounding is largest."""

import pytest
import torch

from workloads.pooling.functional import centre
from workloads.pooling.isqrt import IsqrtPooling
from workloads.pooling.reflection import reflect


def far_from_zero(mean: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 64, 49, generator=generator) + mean


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4])
def test_means_far_above_the_deviation_cost_no_digits(mean: float) -> None:
    x = far_from_zero(mean)
    y = reflect(x, x.mean(dim=2, keepdim=True)).double()
    exact = centre(x.double())
    torch.testing.assert_close(y @ y.mT, exact @ exact.mT, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_roots_of_such_features(mean: float) -> None:
    x = far_from_zero(mean)[..., None].requires_grad_()
    wide = x.detach().double().requires_grad_()
    root = IsqrtPooling(in_channels=64)
    z, exact = root(x), root(wide)
    z.square().sum().backward()
    exact.square().sum().backward()
    assert (z - exact).norm() <= 1e-5 * exact.norm()
    assert x.grad is not None
    assert wide.grad is not None
    assert (x.grad - wide.grad).norm() <= 1e-4 * wide.grad.norm()
