"""Bilinear pooling and its compact form: worked numbers, and what the sketches promise."""

import numpy as np
import pytest
import torch
from torch import Tensor

from workloads.pooling.bilinear import BilinearPooling
from workloads.pooling.compact_bilinear import SKETCHES, CompactBilinearPooling, TensorSketch


def test_worked_example() -> None:
    """The fact sheet's features: two channels at three positions."""
    x = torch.tensor([[[1.0, 2.0, 3.0], [2.0, 0.0, 4.0]]], dtype=torch.float64)[..., None]
    expected = [0.475191, 0.475191, 0.475191, 0.567962]
    # 14/3 for the products of channels with themselves and each other, 20/3 for the second.
    assert BilinearPooling(in_channels=2)(x)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_triangle_has_a_length_of_its_own() -> None:
    x = torch.rand(2, 4, 3, 3, dtype=torch.float64)
    full = BilinearPooling(in_channels=4)(x).unflatten(1, (4, 4))
    row, column = np.triu_indices(4)
    triangle = full[:, row, column]
    expected = triangle / triangle.norm(dim=1, keepdim=True)
    pooling = BilinearPooling(in_channels=4, vector="upper_rows")
    torch.testing.assert_close(pooling(x), expected)
    assert (pooling.out_features, BilinearPooling(in_channels=512).out_features) == (10, 262144)


def test_zeros_stay_zero_without_a_gradient() -> None:
    for pooling in (BilinearPooling(in_channels=3), CompactBilinearPooling(in_channels=3)):
        x = torch.zeros(2, 3, 4, 4, requires_grad=True)
        z = pooling(x)
        z.sum().backward()
        assert z.abs().max() == 0
        assert x.grad is not None
        assert x.grad.abs().max() == 0


@pytest.mark.parametrize(("sketch", "size"), [("tensor_sketch", 16), ("random_maclaurin", 16)])
def test_products_of_sketches_are_squared_products_in_expectation(sketch: str, size: int) -> None:
    """Over 4000 draws, within four standard errors."""
    x, y = torch.tensor([[1.0, -2.0, 0.5, 1.5]]), torch.tensor([[0.5, -1.0, 2.0, 1.0]])
    products = []
    for seed in range(4000):
        draw = SKETCHES[sketch](4, size, seed)
        products.append(float((draw(x[:, :, None]) * draw(y[:, :, None])).sum()))
    error = np.std(products) / np.sqrt(len(products))
    assert error < 0.4
    assert abs(np.mean(products) - float((x @ y.T) ** 2)) < 4 * error


def test_a_sketch_is_a_sum_over_positions() -> None:
    x = torch.randn(2, 5, 7, dtype=torch.float64)
    for name in SKETCHES:
        sketch = SKETCHES[name](5, 32, 1)
        parts = sum(sketch(x[:, :, n : n + 1]) for n in range(7))
        torch.testing.assert_close(sketch(x), parts)


def test_places_by_hand() -> None:
    """Two channels; the pair of places 2 and 3 of 4 wraps around to 1."""
    sketch = TensorSketch(2, 4, seed=0)
    sketch.hashes_2D.copy_(torch.tensor([[0, 2], [1, 3]]))
    sketch.signs_2D.copy_(torch.tensor([[1, -1], [1, 1]]))
    x = torch.tensor([[[2.0], [5.0]]])
    # (0 + 1): 2*2; (0 + 3): 2*5; (2 + 1): -5*2; (2 + 3 = 1): -5*5
    assert sketch(x).tolist() == [[0.0, 4.0 - 25.0, 0.0, 10.0 - 10.0]]


@pytest.mark.parametrize("size", [7, 8])
def test_the_sketch_by_entries_and_by_transforms(size: int) -> None:
    """The way is chosen by the number of positions; an exported program keeps to one."""
    sketch = TensorSketch(10, size, seed=3)
    for positions in (4, 30):
        x = torch.randn(2, 10, positions, dtype=torch.float64, requires_grad=True)
        z, expected = sketch(x), sketch._by_entries(x)
        assert torch.equal(z, sketch._by_transforms(x) if positions == 4 else expected)
        torch.testing.assert_close(z, expected)
        weight = torch.randn_like(z)
        (gradient,) = torch.autograd.grad(z, x, weight)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, x, weight)[0])
    x = torch.randn(2, 10, 4)
    program = torch.export.export(sketch, (x,), dynamic_shapes=({2: torch.export.Dim("n", min=2)},))
    assert "fft" not in program.graph_module.code
    x = torch.randn(2, 10, 30)
    torch.testing.assert_close(program.module()(x), sketch(x))


@pytest.mark.parametrize("sketch", SKETCHES)
def test_the_seed_is_the_layers_own(sketch: str) -> None:
    def buffers(seed: int) -> list[Tensor]:
        pooling = CompactBilinearPooling(in_channels=8, sketch=sketch, sketch_size=64, seed=seed)
        return list(pooling.buffers())

    before = torch.get_rng_state()
    first, again, other = buffers(1), buffers(1), buffers(2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("sketch", SKETCHES)
def test_the_sketch_is_saved_with_the_weights(sketch: str) -> None:
    def build(seed: int) -> CompactBilinearPooling:
        return CompactBilinearPooling(in_channels=8, sketch=sketch, sketch_size=64, seed=seed)

    x = torch.rand(2, 8, 3, 3)
    one, two = build(1), build(2)
    assert not torch.allclose(one(x), two(x))
    two.load_state_dict(one.state_dict(), strict=True)
    assert torch.equal(one(x), two(x))
    assert torch.equal(two.half()(x), one(x)), "hashes and signs have no half precision"


def test_signs_and_hashes_are_even() -> None:
    sketch = TensorSketch(4096, 16, seed=5)
    assert sketch.signs_2D.unique().tolist() == [-1, 1]
    assert abs(sketch.signs_2D.double().mean().item()) < 0.05
    counts = sketch.hashes_2D.flatten().bincount()
    assert len(counts) == 16
    assert counts.min() > 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sketch": "fft"}, "sketch must be one of tensor_sketch, random_maclaurin, got 'fft'"),
        ({"sketch_size": 0}, "sketch_size must be at least 1, got 0"),
        ({"eps": 0.0}, "eps must be above 0"),
    ],
)
def test_impossible_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompactBilinearPooling(in_channels=4, **options)
