"""Functions of a covariance by the positions' side equal those by the channels' side.

Shape letters: B batch, D channels, M positions.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from workloads.pooling import log_euclidean, mpn_eig
from workloads.pooling.base import GlobalPooling
from workloads.pooling.gram import gram_is_cheaper
from workloads.pooling.registry import POOLINGS

OPTIONS = [
    ("mpn_eig", {}),
    ("mpn_eig", {"alpha": 0.2}),
    ("mpn_eig", {"alpha": 1.0}),
    ("mpn_eig", {"alpha": 1.5, "centred": False}),
    ("mpn_eig", {"eps": 1e-4}),
    ("log_euclidean", {}),
    ("log_euclidean", {"ridge": 0.1, "centred": False}),
]


def with_decay(decades: float) -> Tensor:
    """Features of 12 channels at 7 positions whose singular values fall by so many decades."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 12, 7, generator=generator, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    return ((u * 10 ** -torch.linspace(0, decades, 7, dtype=torch.float64)) @ vh)[..., None]


def run(pooling: GlobalPooling, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The vector, a gradient, and a product with the Hessian."""
    x = x.clone().requires_grad_()
    z = pooling(x)
    loss = (z * torch.linspace(-1, 1, z.shape[1], dtype=z.dtype)).sum()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad((first * x.detach().cos()).sum(), x)
    return z.detach(), first.detach(), second


@pytest.mark.parametrize("decades", [0.0, 2.0])
@pytest.mark.parametrize(("name", "kwargs"), OPTIONS)
def test_both_sides_are_one_function(
    name: str, kwargs: dict[str, Any], decades: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for by_gram in (True, False):
        for module in (mpn_eig, log_euclidean):
            monkeypatch.setattr(module, "gram_is_cheaper", lambda *_a, b=by_gram, **_k: b)
        results.append(run(POOLINGS[name](in_channels=12, **kwargs), with_decay(decades)))
    for got, want, allowed in zip(*results, (1e-11, 1e-9, 1e-7), strict=True):
        assert (got - want).norm() <= allowed * want.norm()


@pytest.mark.parametrize(
    ("positions", "solves", "cheaper"),
    [(14, 1, True), (15, 1, False), (8, 2, True), (9, 2, False), (200, 1, False)],
)
def test_the_side_is_chosen_by_size(positions: int, solves: int, cheaper: bool) -> None:
    assert gram_is_cheaper(torch.empty(1, 16, positions), solves=solves) is cheaper
