"""DropCov: the rate, the mask, the gate and what learns from them."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.workloads.pooling.references_random import channel_importance
from workloads.pooling import dropcov
from workloads.pooling.covariance import CovariancePooling
from workloads.pooling.dropcov import (
    DropCovPooling,
    adaptive_rate,
    channel_mask,
    row_sum_noise,
    row_sums,
)
from workloads.pooling.functional import centre, covariance

# The fact sheet's worked example: four channels at four positions.
X = torch.tensor([[1, 0, 2, 1], [0, 1, 1, 2], [2, 2, 0, 0], [1, 3, 0, 0]], dtype=torch.float64)
W = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _same_numbers_in_every_run():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def features(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """As after a ReLU, with channels that go together."""
    return (torch.randn(*shape) + torch.randn(shape[0], 1, *shape[2:])).relu().to(dtype)


def published_rate(x: np.ndarray, kernel: np.ndarray, *, gated: bool = True) -> float:
    """The rate of a batch (B, C, N), from full covariances, image by image."""
    cosines = []
    for image in x:
        w = channel_importance(image.mean(axis=1), kernel)
        rows = np.cov(image * (1 + gated * w)[:, None], bias=True).sum(axis=1)
        cosines.append(w @ rows / np.linalg.norm(w) / np.linalg.norm(rows))
    return float(np.clip(1 - 10 / np.log2(x.shape[1]) * np.mean(cosines), 0, 1))


def test_worked_example() -> None:
    rows = row_sums(centre(X[None]), torch.ones(1, 4, dtype=torch.float64))
    assert rows[0].tolist() == pytest.approx([-0.75, -0.25, 1.0, 1.5])
    cosine = float((W * rows).sum() / W.norm() / rows.norm())
    assert cosine == pytest.approx(0.718795, abs=5e-7)
    assert adaptive_rate(W, rows, torch.zeros(1)).item() == 0.0
    half = adaptive_rate(W, torch.tensor([[0.4, -0.2, 0.0, 0.01]]), torch.zeros(1))
    cosine = (0.04 - 0.04 + 0.004) / math.sqrt(0.3) / math.sqrt(0.16 + 0.04 + 0.0001)
    assert half.item() == pytest.approx(1 - 5 * cosine)


@pytest.mark.parametrize(
    ("channels", "threshold"), [(64, 0.6), (128, 0.7), (256, 0.8), (512, 0.9), (1024, 1.0)]
)
def test_cosine_where_nothing_is_dropped(channels: int, threshold: float) -> None:
    """Importance on one channel makes the cosine what the first row sum is of the length."""
    w = torch.zeros(1, channels, dtype=torch.float64)
    w[0, 0] = 1.0

    def rate(cosine: float) -> float:
        rows = torch.zeros_like(w)
        rows[0, 0], rows[0, 1] = cosine, math.sqrt(max(0.0, 1 - cosine**2))
        return adaptive_rate(w, rows, torch.zeros(1)).item()

    assert rate(threshold) == pytest.approx(0.0, abs=1e-12)
    assert rate(min(1.0, threshold + 1e-3)) == pytest.approx(0.0, abs=1e-12)
    assert rate(threshold - 0.1) == pytest.approx(0.1 / threshold)
    assert rate(0.0) == rate(-0.5) == 1.0


def test_row_sums_without_the_covariance() -> None:
    x, v = features(3, 6, 10), torch.rand(3, 6, dtype=torch.float64)
    expected = (covariance(x, centred=False) @ v[:, :, None])[:, :, 0]
    torch.testing.assert_close(row_sums(x, v), expected)


@pytest.mark.parametrize("gate", ["train", "off"])
@pytest.mark.parametrize("channels", [16, 64, 256])
def test_rate_is_the_published_one(channels: int, gate: str) -> None:
    pooling = DropCovPooling(in_channels=channels, gate=gate).double()
    x = torch.randn(4, channels, 5, 5, dtype=torch.float64).relu()
    x[:, ::3] *= torch.rand(4, 1, 5, 5, dtype=torch.float64) * 3
    with torch.no_grad():
        pooling.importance.conv.weight.copy_(torch.tensor([[[-1.0, -0.5, 0.2]]]))
    pooling(x)
    kernel = np.array([-1.0, -0.5, 0.2])
    expected = published_rate(x.flatten(2).numpy(), kernel, gated=gate == "train")
    assert pooling.observables()["rho"].item() == pytest.approx(expected, abs=1e-9)
    assert expected > 0 or channels == 16


def test_evaluation_is_the_plain_covariance() -> None:
    x = features(3, 8, 4, 4)
    pooling = DropCovPooling(in_channels=8, adaptive=False, rate=0.9).eval()
    torch.testing.assert_close(pooling(x), CovariancePooling(in_channels=8)(x), rtol=0, atol=0)
    always = DropCovPooling(in_channels=8, gate="always").eval()
    assert not torch.allclose(always(x), pooling(x))


def test_training_is_the_covariance_of_gated_and_masked_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gate, mask, then centring, as published; here the factor comes after centring."""
    mask = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]], dtype=torch.float64) / 0.6
    monkeypatch.setattr(dropcov, "channel_mask", lambda *_: mask)
    pooling = DropCovPooling(in_channels=4).double()
    x = features(2, 4, 9)
    kernel = pooling.importance.conv.weight.detach().numpy().ravel()
    for image, factors, z in zip(x, mask, pooling(x[..., None]).detach(), strict=True):
        w = channel_importance(image.mean(dim=1).numpy(), kernel)
        dropped = image.numpy() * (1 + w)[:, None] * factors.numpy()[:, None]
        expected = np.cov(dropped, bias=True)[np.triu_indices(4)]
        np.testing.assert_allclose(z.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_mask_is_per_image_and_channel(rate: float) -> None:
    mask = channel_mask(torch.tensor(rate, dtype=torch.float64), 400, 50)
    assert mask.dtype == torch.float64
    kept = 1 / (1 - rate) if rate < 1 else 0.0
    assert set(mask.unique().tolist()) <= {0.0, kept}
    assert abs((mask == 0).double().mean().item() - rate) < 0.02
    if rate == 0.25:
        assert len(mask.unique(dim=0)) == 400
        assert len(mask.unique(dim=1).T) == 50


def test_expected_covariance_of_dropped_features() -> None:
    """Off the diagonal as it was, on it inflated by 1 / (1 - rho): a shift to evaluation."""
    rate, size = 0.4, 5
    x = features(1, size, 12)
    pooling = DropCovPooling(in_channels=size, adaptive=False, rate=rate, gate="off", vector="full")
    mean = pooling(x.expand(40_000, -1, -1)[..., None]).mean(dim=0).unflatten(0, (size, size))
    cov = covariance(x)[0]
    diagonal = torch.eye(size, dtype=torch.bool)
    torch.testing.assert_close(mean[~diagonal], cov[~diagonal], rtol=0.05, atol=0.01)
    ratio = (mean / cov)[diagonal]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1 / (1 - rate)), rtol=0.03, atol=0)


def test_no_gradient_goes_through_the_rate() -> None:
    """With the same mask, an adaptive rate and a fixed one of its value have equal gradients."""
    fixed = DropCovPooling(in_channels=64, adaptive=False, rate=0.1).double()
    adaptive = DropCovPooling(in_channels=64, max_rate=0.1).double()
    adaptive.load_state_dict(fixed.state_dict())
    weight = fixed.importance.conv.weight.data.copy_(torch.tensor([[[-5.0, -9.0, 1.0]]]))
    adaptive.importance.conv.weight.data.copy_(weight)
    gradients = []
    for pooling in (fixed, adaptive):
        torch.manual_seed(0)
        x = features(2, 64, 5, 5).requires_grad_()
        pooling(x).square().sum().backward()
        gradients.append((x.grad, pooling.importance.conv.weight.grad))
        assert pooling.rho.item() == pytest.approx(0.1)
        assert not pooling.rho.requires_grad
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    assert gradients[0][1].abs().min() > 0


def test_the_convolution_learns_through_the_gate_alone() -> None:
    off = DropCovPooling(in_channels=16, gate="off")
    assert [p.requires_grad for p in off.parameters()] == [False]
    assert list(off.state_dict()) == ["importance.conv.weight"]
    off(features(2, 16, 3, 3, dtype=torch.float32).requires_grad_()).sum().backward()
    assert off.importance.conv.weight.grad is None
    assert off.importance.conv.weight.shape == (1, 1, 3)
    without = DropCovPooling(in_channels=16, gate="off", adaptive=False)
    assert not without.state_dict()


@pytest.mark.parametrize("adaptive", [True, False])
def test_a_rate_of_one_gives_zeros(adaptive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropcov, "adaptive_rate", lambda *_: torch.ones(()))
    pooling = DropCovPooling(in_channels=8, adaptive=adaptive, rate=1.0)
    x = features(3, 8, 4, 4, dtype=torch.float32).requires_grad_()
    z = pooling(x)
    z.sum().backward()
    assert z.abs().max() == 0
    assert x.grad.abs().max() == 0
    assert pooling.importance.conv.weight.grad.abs().max() == 0
    assert pooling.observables()["rho"].item() == 1.0
    capped = DropCovPooling(in_channels=8, adaptive=adaptive, rate=1.0, max_rate=0.75)
    assert capped(x).abs().max() > 0
    assert capped.observables()["rho"].item() == 0.75


@pytest.mark.parametrize("value", [0.0, 0.1, 333.3])
def test_a_batch_without_variation_drops_nothing(value: float) -> None:
    """The row sums of rounding have any sign: taken seriously they would drop most channels."""
    pooling = DropCovPooling(in_channels=64)
    z = pooling((value * torch.rand(2, 64, 1, 1)).expand(2, 64, 7, 8))
    assert pooling.observables()["rho"].item() == 0.0
    assert z.abs().max() < 1e-7 * max(value, 1.0)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_rate_does_not_depend_on_the_features_size(scale: float) -> None:
    """In float32, where the squares of the row sums of such features are infinite or zero."""
    pooling = DropCovPooling(in_channels=256)
    torch.nn.init.zeros_(pooling.importance.conv.weight)
    x = torch.randn(3, 256, 3, 3).relu()
    pooling(x)
    expected = pooling.rho.item()
    pooling(scale * x)
    assert 0 < expected < 1
    assert pooling.rho.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_an_image_that_says_nothing_is_left_out(bad: float, centred: bool) -> None:
    pooling = DropCovPooling(in_channels=64, centred=centred).double()
    pooling.importance.conv.weight.data.copy_(torch.tensor([[[-9.0, -9.0, 1.0]]]))
    x = torch.randn(3, 64, 3, 3, dtype=torch.float64).relu()
    pooling(x[1:])
    expected = pooling.rho.item()
    x[0] = bad
    z = pooling(x)
    assert pooling.rho.item() == pytest.approx(expected, rel=1e-12)
    assert 0 < expected < 1
    assert z[1:].isfinite().all()
    assert z[0].isfinite().all() == (bad == 0.0)


@pytest.mark.parametrize("channels", [4, 1024])
def test_noise_is_what_row_sums_of_a_constant_map_have(channels: int) -> None:
    """At worst all channels are off by the same spacing of their mean."""
    mean, ones = torch.full((1, channels, 1), 3.0), torch.ones(1, channels)
    off = torch.finfo(torch.float32).eps * mean.expand(1, channels, 25)
    noise = row_sum_noise(mean)[0]
    assert row_sums(off, ones).norm() <= noise
    real = centre(3.0 + 1e-3 * torch.randn(1, channels, 25))
    assert row_sums(real, ones).norm() > 100 * noise


def test_mask_follows_the_global_generator() -> None:
    pooling = DropCovPooling(in_channels=16, adaptive=False)
    x = features(4, 16, 3, 3, dtype=torch.float32)
    state = torch.get_rng_state()
    first, second = pooling(x), pooling(x)
    torch.set_rng_state(state)
    torch.testing.assert_close(pooling(x), first, rtol=0, atol=0)
    torch.testing.assert_close(pooling(x), second, rtol=0, atol=0)
    assert not torch.equal(first, second)


def test_observables_under_compile_and_copies() -> None:
    pooling = DropCovPooling(in_channels=64)
    pooling.importance.conv.weight.data.copy_(torch.tensor([[[-5.0, -9.0, 1.0]]]))
    assert pooling.observables() == {}
    assert copy.deepcopy(pooling).eval()(torch.rand(2, 64, 3, 3)).shape == (2, 2080)
    assert "rho" not in pooling.state_dict()
    torch._dynamo.reset()
    compiled = torch.compile(pooling, fullgraph=True, backend="aot_eager")
    seen = []
    for _ in range(2):
        x = torch.randn(2, 64, 3, 3).relu()
        compiled(x).sum().backward()
        rho = pooling.observables()["rho"]
        expected = published_rate(x.flatten(2).numpy(), np.array([-5.0, -9.0, 1.0]))
        assert rho.shape == ()
        assert rho.item() == pytest.approx(expected, abs=1e-5)
        assert copy.deepcopy(pooling).observables()["rho"].item() == rho.item()
        seen.append(rho.item())
    assert seen[0] != seen[1]


def test_one_number_per_batch() -> None:
    """The mean of the images' cosines: two images give what lies between each one's alone."""
    pooling = DropCovPooling(in_channels=64).double()
    pooling.importance.conv.weight.data.copy_(torch.tensor([[[-5.0, -9.0, 1.0]]]))
    x = torch.randn(2, 64, 4, 4, dtype=torch.float64).relu()
    rates = []
    for batch in (x[:1], x[1:], x):
        pooling(batch)
        rates.append(pooling.rho.item())
    assert 0 < min(rates) < max(rates) < 1
    assert rates[2] == pytest.approx((rates[0] + rates[1]) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "test"}, "gate must be one of train, always, off, got 'test'"),
        ({"rate": 1.5}, "rate must be between 0 and 1, got 1.5"),
        ({"max_rate": -0.1}, "max_rate must be between 0 and 1, got -0.1"),
        ({"in_channels": 1}, "an adaptive rate needs at least 2 channels, got 1"),
    ],
)
def test_impossible_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DropCovPooling(**{"in_channels": 4, **options})
