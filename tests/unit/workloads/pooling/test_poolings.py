"""One table: every pooling against NumPy in float64, at the edges, and through torch's machinery.

A new pooling is a class in `POOLINGS`, a config class, and a `Case`. What is special about one
pooling stands in a test file of its own.

Shape letters: B batch, C channels, N positions.
"""

import copy
import inspect
import itertools
import random
import re
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.workloads.pooling import references, references_random
from tests.unit.workloads.pooling.references import Case
from workloads.config.pooling import PoolingConfig
from workloads.pooling.base import GlobalPooling
from workloads.pooling.registry import POOLINGS

CASES: dict[str, Case] = {**references.CASES, **references_random.CASES}
CONFIGS = {
    get_args(config.model_fields["name"].annotation)[0]: config
    for config in get_args(get_args(PoolingConfig)[0])
}

VARIANTS = [
    pytest.param(name, kwargs, id="-".join([name, *(f"{k}={v}" for k, v in kwargs.items())]))
    for name, case in CASES.items()
    for kwargs in case.variants
]
FIRST = [pytest.param(name, case.variants[0], id=name) for name, case in CASES.items()]
MORE_POSITIONS = (2, 4)
AS_MANY_POSITIONS = (2, 3)
"""As many as channels: a centred covariance has one eigenvalue of zero."""
FEWER_POSITIONS = (1, 3)
SIZES = [MORE_POSITIONS, AS_MANY_POSITIONS, FEWER_POSITIONS]


@pytest.fixture(autouse=True)
def _weights_are_the_same_in_every_run() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        yield


def build(name: str, kwargs: dict[str, Any], channels: int = 6) -> GlobalPooling:
    return POOLINGS[name](in_channels=channels, **kwargs).eval()


def wide(name: str, kwargs: dict[str, Any], channels: int = 6) -> GlobalPooling:
    return build(name, kwargs, channels).double()


def features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Positive features without equal entries, as after an activation."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).abs().to(dtype)


def project(z: Tensor, columns: int = 3) -> Tensor:
    """Three random mixtures of a vector, so that a gradient check need not try every entry."""
    generator = torch.Generator().manual_seed(1)
    return z @ torch.randn(z.shape[1], columns, generator=generator, dtype=torch.float64).to(z)


@torch.no_grad()
def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def test_the_table_holds_every_pooling() -> None:
    assert list(CONFIGS) == list(POOLINGS)
    assert set(CASES) == set(POOLINGS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_value(name: str, kwargs: dict[str, Any], size: tuple[int, int]) -> None:
    pooling, case = wide(name, kwargs, 8), CASES[name]
    x = features(3, 8, *size)
    z = pooling(x)
    assert z.shape == (3, pooling.out_features)
    for image, vector in zip(x.flatten(2).numpy(), z.detach().numpy(), strict=True):
        expected = case.reference(image, pooling)
        assert np.linalg.norm(vector - expected) <= case.tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_training_mode(name: str, kwargs: dict[str, Any]) -> None:
    pooling = wide(name, kwargs)
    x = features(3, 6, *MORE_POSITIONS).requires_grad_()
    expected = pooling(x)
    z = pooling.train()(x)
    if CASES[name].deterministic and not kwargs.get("dropout"):
        torch.testing.assert_close(z, expected)
    project(z).sum().backward()
    assert z.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 0
    assert all(not v.requires_grad for v in pooling.observables().values())


@pytest.mark.parametrize(("name", "kwargs"), FIRST)
def test_maps_tokens_and_memory_layouts_agree(name: str, kwargs: dict[str, Any]) -> None:
    pooling = build(name, kwargs)
    maps = features(3, 6, *MORE_POSITIONS, dtype=torch.float32)
    z = pooling(maps)
    assert z.shape == (3, pooling.out_features)
    assert z.dtype == maps.dtype
    torch.testing.assert_close(pooling(maps.flatten(2).transpose(1, 2).contiguous()), z)
    torch.testing.assert_close(pooling(maps.to(memory_format=torch.channels_last)), z)
    torch.testing.assert_close(pooling(maps.transpose(2, 3)), z)


@pytest.mark.parametrize(("name", "kwargs"), FIRST)
def test_other_channels_are_refused(name: str, kwargs: dict[str, Any]) -> None:
    pooling = build(name, kwargs)
    for shape in [(2, 5, 3, 3), (2, 6, 5), (2, 6), (6, 3, 3, 3, 3)]:
        message = rf"pools maps \(B, 6, H, W\) or tokens \(B, N, 6\), got {re.escape(str(shape))}"
        with pytest.raises(ValueError, match=message):
            pooling(torch.zeros(shape))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_gradient(name: str, kwargs: dict[str, Any], size: tuple[int, int]) -> None:
    pooling = wide(name, kwargs)
    x = features(1, 6, *size).requires_grad_()
    # Entry by entry once for each pooling; along a random direction for its variants.
    fast = kwargs != CASES[name].variants[0]
    assert torch.autograd.gradcheck(lambda x: project(pooling(x)), (x,), atol=1e-6, fast_mode=fast)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_second_derivative(name: str, kwargs: dict[str, Any], size: tuple[int, int]) -> None:
    """Hessian-vector products of a trained network go through its pooling twice."""
    pooling = wide(name, kwargs)
    x = features(1, 6, *size).requires_grad_()

    def check() -> bool:
        return torch.autograd.gradgradcheck(
            lambda x: project(pooling(x)), (x,), atol=1e-5, fast_mode=True
        )

    if name == "isqrt" and kwargs.get("num_iters", 5) > 20:
        with pytest.raises(RuntimeError, match="no second derivatives"):
            check()
    else:
        assert check()


WEIGHTED = [v for v in VARIANTS if any(p.requires_grad for p in build(*v.values).parameters())]


@pytest.mark.parametrize(("name", "kwargs"), WEIGHTED)
def test_gradient_by_the_weights(name: str, kwargs: dict[str, Any]) -> None:
    pooling = wide(name, kwargs)
    weights = {k: v for k, v in pooling.named_parameters() if v.requires_grad}
    x = features(2, 6, *MORE_POSITIONS)

    def run(*values: Tensor) -> Tensor:
        named = dict(zip(weights, values, strict=True))
        # A weight that evaluation does not use has a gradient of zero, and a graph all the same.
        unused = 0.0 * torch.stack([v.sum() for v in values]).sum()
        return project(torch.func.functional_call(pooling, named, (x,))) + unused

    assert torch.autograd.gradcheck(run, tuple(weights.values()), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_equal_eigenvalues(name: str, kwargs: dict[str, Any]) -> None:
    """Six orthogonal channels of mean zero: their covariance is the identity times four."""
    pooling = wide(name, kwargs)
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(3):
        hadamard = torch.cat(
            [torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)]
        )
    x = 2.0 * hadamard[1:7].reshape(1, 6, 2, 4)
    x.requires_grad_()
    project(pooling(x)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    if CASES[name].smooth and kwargs.get("normaliser") != "epn":
        check = torch.autograd.gradcheck
        assert check(lambda x: project(pooling(x)), (x,), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_each_image_by_itself(name: str, kwargs: dict[str, Any]) -> None:
    pooling = wide(name, kwargs)
    x = features(4, 6, *MORE_POSITIONS)
    z = pooling(x)
    torch.testing.assert_close(pooling(x[2:3]), z[2:3], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_no_variation(name: str, kwargs: dict[str, Any]) -> None:
    """One position, all zero, or equal numbers, whose float32 mean may be another number."""
    pooling = build(name, kwargs)
    values = torch.tensor([0.0, 2.0, 1.7, -1e-3, 333.3])
    for size, training in itertools.product([(1, 1), (3, 3), (7, 8)], [False, True]):
        x = values[:, None, None, None].repeat(1, 6, *size).requires_grad_()
        z = pooling.train(training)(x)
        (gradient,) = torch.autograd.grad(project(z).sum(), x)
        assert z.isfinite().all()
        assert gradient.isfinite().all()
        if CASES[name].dead_is_zero and kwargs == CASES[name].variants[0]:
            assert (z.abs().amax(1) <= 1e-6 * values.abs()).all()
            assert (gradient.abs().amax((1, 2, 3)) <= 1e-2 * values.abs()).all()


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_a_dead_image_does_not_touch_its_neighbours(name: str, kwargs: dict[str, Any]) -> None:
    pooling = wide(name, kwargs)
    x = features(2, 6, *MORE_POSITIONS)
    x[0] = 0.0
    x.requires_grad_()
    z = pooling(x)
    project(z).sum().backward()
    torch.testing.assert_close(z[1:], pooling(x[1:]))
    assert z.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[1].abs().max() > 0


@pytest.mark.parametrize("size", [MORE_POSITIONS, FEWER_POSITIONS])
@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_non_finite_features_are_shown_and_stay_with_their_image(
    name: str, kwargs: dict[str, Any], size: tuple[int, int]
) -> None:
    pooling = wide(name, kwargs)
    x = features(3, 6, *size)
    x[0, 0, 0, 0], x[1, 1, 0, 1] = float("nan"), float("inf")
    x.requires_grad_()
    z = pooling(x)
    assert not z[0].isfinite().all()
    assert not z[1].isfinite().all()
    torch.testing.assert_close(z[2:], pooling(x[2:]))
    project(z).sum().backward()
    assert x.grad is not None
    assert x.grad[2].isfinite().all()


@pytest.mark.parametrize("size", [(7, 7), (2, 2)])
@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_float32_stays_near_float64(
    name: str, kwargs: dict[str, Any], size: tuple[int, int]
) -> None:
    narrow = build(name, kwargs, 16)
    x = features(2, 16, *size, dtype=torch.float32).requires_grad_()
    x_wide = x.detach().double().requires_grad_()
    z, z_wide = narrow(x), copy.deepcopy(narrow).double()(x_wide)
    allowed = CASES[name].float32_error
    assert distance(z, z_wide) < allowed
    (got,) = torch.autograd.grad(project(z).sum(), x)
    (want,) = torch.autograd.grad(project(z_wide).sum(), x_wide)
    assert distance(got, want) < 100 * allowed


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_half_precision_is_computed_wide(name: str, kwargs: dict[str, Any]) -> None:
    """The error is the rounding of the result, half a spacing, and next to nothing more."""
    pooling = build(name, kwargs, 16)
    for dtype, autocast in itertools.product([torch.bfloat16, torch.float16], [False, True]):
        x = features(2, 16, 7, 7, dtype=dtype).requires_grad_()
        expected = copy.deepcopy(pooling).double()(x.detach().double())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            z = pooling(x)
            (gradient,) = torch.autograd.grad(project(z).sum(), x)
        assert z.dtype == gradient.dtype == dtype
        assert distance(z, expected) < torch.finfo(dtype).eps / 2 + 2 * CASES[name].float32_error
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_state_dict_round_trip(name: str, kwargs: dict[str, Any]) -> None:
    pooling = build(name, kwargs)
    torch.manual_seed(99)
    again = build(name, kwargs)
    again.load_state_dict(pooling.state_dict(), strict=True)
    x = features(2, 6, *MORE_POSITIONS, dtype=torch.float32)
    torch.testing.assert_close(again(x), pooling(x), rtol=0, atol=0)
    assert not any("index" in key for key in pooling.state_dict())


@pytest.mark.parametrize(("name", "kwargs"), FIRST)
def test_deepcopy(name: str, kwargs: dict[str, Any]) -> None:
    pooling = build(name, kwargs).train()
    x = features(2, 6, *MORE_POSITIONS, dtype=torch.float32)
    pooling(x)
    again = copy.deepcopy(pooling)
    torch.testing.assert_close(again.eval()(x), pooling.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kwargs"), FIRST)
def test_compile_without_a_graph_break(name: str, kwargs: dict[str, Any]) -> None:
    torch._dynamo.reset()
    pooling = build(name, kwargs)
    compiled = torch.compile(pooling, fullgraph=True, backend="aot_eager")
    x = features(2, 6, *FEWER_POSITIONS, dtype=torch.float32).requires_grad_()
    z, expected = compiled(x), pooling(x)
    torch.testing.assert_close(z, expected)
    (got,) = torch.autograd.grad(project(z).sum(), x)
    (want,) = torch.autograd.grad(project(expected).sum(), x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "kwargs"), FIRST)
def test_export(name: str, kwargs: dict[str, Any]) -> None:
    """With a free batch size, as a server wants it."""
    pooling = build(name, kwargs)
    x = features(5, 6, *MORE_POSITIONS, dtype=torch.float32)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(pooling, (x[:2],), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(x), pooling(x))


@pytest.mark.parametrize("name", POOLINGS)
def test_config_fields_are_the_keywords(name: str) -> None:
    parameters = inspect.signature(POOLINGS[name]).parameters
    assert next(iter(parameters)) == "in_channels"
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    keywords = {k: p.default for k, p in parameters.items() if k != "in_channels"}
    fields = {k: f.default for k, f in CONFIGS[name].model_fields.items() if k != "name"}
    assert keywords == fields
    assert issubclass(POOLINGS[name], GlobalPooling)


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_the_variants_are_valid_configs(name: str, kwargs: dict[str, Any]) -> None:
    config = CONFIGS[name](name=name, **kwargs)
    assert config.model_dump(exclude=set(type(config).model_fields) - set(kwargs)) == kwargs


@pytest.mark.parametrize(("name", "kwargs"), FIRST)
def test_building_draws_from_the_generators_but_seeds_none(
    name: str, kwargs: dict[str, Any]
) -> None:
    others = (random.getstate(), np.random.get_state()[1].tolist())
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        build(name, kwargs)
        states.append(torch.get_rng_state())
    assert not torch.equal(*states)
    assert others == (random.getstate(), np.random.get_state()[1].tolist())


@pytest.mark.parametrize("name", POOLINGS)
def test_no_channels_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"at least \d.*got 0"):
        POOLINGS[name](in_channels=0)


@pytest.mark.parametrize(("name", "kwargs"), FIRST)
def test_costs_are_whole_numbers(name: str, kwargs: dict[str, Any]) -> None:
    macs = build(name, kwargs).macs(num_positions=49)
    assert all(isinstance(count, int) and count >= 0 for count in macs.values())
    assert bool(macs) == (name != "gap")
