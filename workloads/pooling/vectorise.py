"""From a matrix to a vector.

Shape letters: B batch, D channels, T = D (D + 1) / 2, V width of the vector.

The order of the entries is part of every checkpoint, because the classifier's columns follow it:
a released ResNet-50 once scored 0.166 % top-1 after its layer was rewritten with another order.
Off-diagonal entries are not scaled by sqrt(2), as in all published code.
"""

import torch
from torch import Tensor, nn


class Vectoriser(nn.Module):
    """Map symmetric matrices (B, D, D) to vectors (B, out_features).

    Args:
        size: D.
        order: `upper_rows` is the upper triangle with the diagonal row by row (PyTorch's
            published code), `upper_columns` the same column by column (MatConvNet's), `full` all
            entries row by row.
    """

    index_T: Tensor

    def __init__(self, size: int, order: str = "upper_rows") -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"vector order must be one of {', '.join(ORDERS)}, got {order!r}")
        self.size = size
        self.order = order
        self.out_features = size * size if order == "full" else size * (size + 1) // 2
        if order != "full":
            self.register_buffer("index_T", ORDERS[order](size), persistent=False)

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        # The backward pass of index_select adds T numbers into zeros, which measures faster on a
        # CPU than a gather of all D * D would.
        flat = matrix_BDD.flatten(1)
        return flat if self.order == "full" else flat.index_select(1, self.index_T)

    def extra_repr(self) -> str:
        return self.order


def upper_rows(size: int) -> Tensor:
    """Return the places in a flattened matrix of its upper triangle, row by row: (T,)."""
    row, column = torch.triu_indices(size, size)
    return row * size + column


def upper_columns(size: int) -> Tensor:
    """Return the places in a flattened matrix of its upper triangle, column by column: (T,)."""
    column, row = torch.tril_indices(size, size)
    return row * size + column


def full(size: int) -> Tensor:
    """Return all places of a flattened matrix: (D * D,)."""
    return torch.arange(size * size)


def mirrored(index_T: Tensor, size: int) -> Tensor:
    """Return for each place of a D x D matrix its entry in a triangle's vector: (D * D,).

    `vector[:, mirrored(...)]` is the symmetric matrix whose triangle is the vector.
    """
    entry_DD = torch.empty(size, size, dtype=index_T.dtype)
    row, column = index_T // size, index_T % size
    entry_DD[row, column] = entry_DD[column, row] = torch.arange(len(index_T))
    return entry_DD.flatten()


def symmetric_gradient(grad_BV: Tensor, mirror: Tensor | None, size: int) -> Tensor:
    """Return twice the gradient of a symmetric matrix from that of its vector: (B, D, D).

    Args:
        grad_BV: Gradient of the vector.
        mirror: `mirrored` of the vector's index, None where the vector has all entries.
        size: D.
    """
    if mirror is None:
        e_BDD = grad_BV.reshape(-1, size, size)
        return e_BDD + e_BDD.transpose(1, 2)
    e_BDD = grad_BV.index_select(1, mirror).view(-1, size, size)
    e_BDD.diagonal(dim1=1, dim2=2).mul_(2.0)
    return e_BDD


ORDERS = {"upper_rows": upper_rows, "upper_columns": upper_columns, "full": full}
