"""Cross-covariance of heads: what is dropped together, at which rate, and what learns from it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.workloads.pooling.references_random import channel_importance
from workloads.pooling import cross_covariance
from workloads.pooling.cross_covariance import NORMALISERS, CrossCovariancePooling


@pytest.fixture(autouse=True)
def _same_numbers_in_every_run():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        yield


def build(**options: Any) -> CrossCovariancePooling:
    sizes = {"in_channels": 8, "num_heads": 2, "head_width": 3}
    return CrossCovariancePooling(**{**sizes, **options}).double()


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64) + 1.0


def test_widths_and_weights_of_the_papers() -> None:
    """One linear without bias for q and k of all heads, and no third projection (D8)."""
    small = CrossCovariancePooling(in_channels=384)
    assert small.out_features == 6 * 24**2 == 3456
    assert {k: tuple(v.shape) for k, v in small.state_dict().items()} == {
        "projections.weight": (288, 384)
    }
    base = CrossCovariancePooling(in_channels=768, num_heads=12)
    assert base.out_features == 6912
    assert small.macs(196) == {
        "projections": 384 * 288 * 196,
        "covariance": 6 * 24 * 24 * 196,
    }


def test_each_projected_channel_is_centred() -> None:
    """Shifting every token by the same vector changes nothing (D7)."""
    x, shift = tokens(3, 10, 8), tokens(1, 1, 8)
    pooling = build()
    torch.testing.assert_close(pooling(x + shift), pooling(x))
    raw = build(centred=False)
    assert not torch.allclose(raw(x + shift), raw(x))


@pytest.mark.parametrize("options", [{"rate": 0.5}, {"adaptive": True}])
def test_a_channel_is_dropped_from_q_and_k(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gate and mask on q and k of every token, then centring, by hand; here on the matrix."""
    mask = torch.tensor([[2.0, 0, 2, 0, 2, 2], [0, 2, 0, 2, 2, 2]], dtype=torch.float64)
    monkeypatch.setattr(cross_covariance, "channel_mask", lambda *_: mask)
    pooling = build(**options)
    x = tokens(2, 10, 8)
    z = pooling(x).detach().unflatten(1, (2, 3, 3)).numpy()
    rows = pooling.projections.weight.detach().numpy()
    for image, factor, matrices in zip(x.numpy(), mask.numpy(), z, strict=True):
        q, k = rows[:6] @ image.T, rows[6:] @ image.T
        if pooling.adaptive:
            kernel = pooling.importance.conv.weight.detach().numpy().ravel()
            factor = factor * (1 + channel_importance((q + k).mean(axis=1) / 2, kernel))
        q, k = q * factor[:, None], k * factor[:, None]
        for head, matrix in enumerate(matrices):
            part = slice(3 * head, 3 * head + 3)
            expected = np.cov(q[part], k[part], bias=True)[:3, 3:]
            np.testing.assert_allclose(matrix, expected, rtol=1e-10, atol=1e-13)


def test_each_image_and_head_has_a_mask_of_its_own() -> None:
    pooling = build(rate=0.5, num_heads=3, head_width=2)
    dropped = pooling(tokens(1, 9, 8).expand(500, -1, -1)).unflatten(1, (3, 2, 2)) == 0
    assert torch.equal(dropped, dropped.transpose(2, 3))
    channels = dropped.diagonal(dim1=2, dim2=3).flatten(1)
    assert len(channels.unique(dim=0)) == 2**6
    assert (channels.double().mean(dim=0) - 0.5).abs().max() < 0.1
    expected = channels.unflatten(1, (3, 2))
    assert torch.equal(dropped, expected[..., :, None] | expected[..., None, :])


def test_the_rate_is_dropcovs_over_the_channels_of_all_heads() -> None:
    pooling = build(in_channels=16, num_heads=4, head_width=16, adaptive=True)
    pooling.importance.conv.weight.data.copy_(torch.tensor([[[-2.0, 3.0, 1.0]]]))
    x = tokens(3, 12, 16) @ torch.randn(16, 16, dtype=torch.float64)
    pooling(x)
    rows, cosines = pooling.projections.weight.detach().numpy(), []
    for image in x.numpy():
        q, k = rows[:64] @ image.T, rows[64:] @ image.T
        w = channel_importance((q + k).mean(axis=1) / 2, np.array([-2.0, 3.0, 1.0]))
        gate = (1 + w)[:, None]
        c = (np.cov(q * gate, bias=True) + np.cov(k * gate, bias=True)).sum(axis=1) / 2
        cosines.append(w @ c / np.linalg.norm(w) / np.linalg.norm(c))
    expected = min(1.0, 1 - 10 / math.log2(64) * np.mean(cosines))
    assert 0 < expected < 1
    assert pooling.observables()["rho"].item() == pytest.approx(expected, rel=1e-9)


def test_an_adaptive_rate_leaves_something_at_the_start() -> None:
    """Row sums of covariances, not of cross-covariances: those of fresh heads have any sign."""
    for seed in range(5):
        torch.manual_seed(seed)
        pooling = CrossCovariancePooling(in_channels=96, adaptive=True)
        x = torch.randn(4, 50, 20) @ torch.randn(20, 96)
        assert pooling(x).abs().max() > 0
        assert pooling.observables()["rho"].item() < 0.9


def test_the_convolution_learns_and_the_rate_has_no_gradient() -> None:
    pooling = build(adaptive=True)
    pooling(tokens(2, 9, 8)).square().sum().backward()
    assert pooling.importance.conv.weight.grad.abs().max() > 0
    assert not pooling.observables()["rho"].requires_grad


def test_evaluation_neither_gates_nor_drops() -> None:
    x = tokens(2, 9, 8)
    plain = build().eval()
    for options in ({"rate": 0.9, "dropout": 0.5}, {"adaptive": True}):
        pooling = build(**options).eval()
        pooling.load_state_dict(plain.state_dict(), strict=False)
        torch.testing.assert_close(pooling(x), plain(x), rtol=0, atol=0)
        assert pooling.observables() == {}


def test_nothing_to_drop_draws_nothing_and_shows_nothing() -> None:
    pooling = build()
    x, before = tokens(2, 9, 8), torch.get_rng_state()
    torch.testing.assert_close(pooling(x), pooling.eval()(x), rtol=0, atol=0)
    assert torch.equal(before, torch.get_rng_state())
    assert pooling.observables() == {}


def test_dropout_of_entries() -> None:
    pooling = build(dropout=0.25)
    x = tokens(300, 9, 8)
    ratio = pooling(x) / pooling.eval()(x)
    kept = ratio != 0
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 4 / 3))
    assert abs(kept.double().mean().item() - 0.75) < 0.02


def test_a_rate_of_one_gives_zeros() -> None:
    pooling = build(rate=1.0)
    x = tokens(2, 9, 8).requires_grad_()
    z = pooling(x)
    z.sum().backward()
    assert z.abs().max() == 0
    assert x.grad.abs().max() == 0
    assert pooling.observables()["rho"].item() == 1.0


@pytest.mark.parametrize("normaliser", ["none", "epn", "svpn", "scale_norm"])
@pytest.mark.parametrize("training", [True, False])
def test_equal_tokens_are_no_features(normaliser: str, training: bool) -> None:
    """Rounding of the mean must not become a vector of length one, nor a say in the rate."""
    options = {"num_heads": 2, "head_width": 4, "normaliser": normaliser, "adaptive": True}
    pooling = CrossCovariancePooling(in_channels=8, **options).train(training)
    x = (0.1 * torch.rand(3, 1, 8)).expand(3, 57, 8).clone().requires_grad_()
    z = pooling(x)
    z.sum().backward()
    assert z.abs().max() == 0
    assert x.grad.abs().max() == 0
    assert all(v == 0 for v in pooling.observables().values())


def test_columns_of_length_one() -> None:
    """Second-order transformers bring each column of a matrix to length one, not the vector."""
    z = build(normaliser="epn")(tokens(2, 9, 8)).unflatten(1, (2, 3, 3))
    torch.testing.assert_close(z.norm(dim=2), torch.ones(2, 2, 3, dtype=torch.float64))
    assert list(NORMALISERS) == ["none", "epn", "svpn", "layer_norm", "scale_norm"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normaliser": "l2"}, "normaliser must be one of none, epn, svpn, layer_norm, scale_norm"),
        ({"num_heads": 0}, "num_heads and head_width must be at least 1, got 0 and 3"),
        ({"rate": 2.0}, "rate must be between 0 and 1, got 2.0"),
        ({"dropout": -1.0}, "dropout must be between 0 and 1, got -1.0"),
        (
            {"adaptive": True, "num_heads": 1, "head_width": 1},
            "an adaptive rate needs at least 2 channels in all heads, got 1",
        ),
    ],
)
def test_impossible_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
