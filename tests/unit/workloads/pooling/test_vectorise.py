"""Orders of the vector, and the way back from a vector to a symmetric matrix."""

import numpy as np
import pytest
import torch

from workloads.pooling.vectorise import ORDERS, Vectoriser, mirrored, symmetric_gradient

MATRIX = torch.arange(9.0).reshape(1, 3, 3)


@pytest.mark.parametrize(
    ("order", "entries"),
    [
        ("upper_rows", [0, 1, 2, 4, 5, 8]),
        ("upper_columns", [0, 1, 4, 2, 5, 8]),
        ("full", [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_orders(order: str, entries: list[int]) -> None:
    vectoriser = Vectoriser(3, order)
    assert vectoriser(MATRIX).tolist() == [entries]
    assert vectoriser.out_features == len(entries)
    assert ORDERS[order](3).tolist() == entries
    assert not vectoriser.state_dict()


@pytest.mark.parametrize("order", ["upper_rows", "upper_columns"])
def test_mirrored_fills_the_matrix_again(order: str) -> None:
    index = ORDERS[order](5)
    a = np.arange(25.0).reshape(5, 5)
    symmetric = a + a.T
    vector = symmetric.flatten()[index.numpy()]
    np.testing.assert_array_equal(vector[mirrored(index, 5).numpy()].reshape(5, 5), symmetric)


@pytest.mark.parametrize("order", list(ORDERS))
def test_symmetric_gradient_is_twice_the_symmetric_part_of_autograds(order: str) -> None:
    vectoriser = Vectoriser(5, order)
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, vectoriser.out_features, generator=generator, dtype=torch.float64)
    (plain,) = torch.autograd.grad(vectoriser(matrix), matrix, grad)
    mirror = None if order == "full" else mirrored(vectoriser.index_T, 5)
    torch.testing.assert_close(symmetric_gradient(grad, mirror, 5), plain + plain.mT)


def test_an_unknown_order_is_refused() -> None:
    message = "vector order must be one of upper_rows, upper_columns, full, got 'rows'"
    with pytest.raises(ValueError, match=message):
        Vectoriser(3, "rows")
