"""The polynomial behind K Newton-Schulz updates, evaluated on batches of symmetric matrices.

Shape letters: B batch, N side of the matrices.

The K coupled updates that start at Y_0 = A and Z_0 = I give Y_K = A p_K(A) and Z_K = p_K(A) for a
polynomial p_K of degree (3^K - 1) / 2, so all iterates commute, are symmetric, and p_K may be
evaluated in any way that has the same values on [0, 1], where the eigenvalues of A lie:

`NewtonSchulz` is the recursion itself, without the second of the coupled matrices, exact for any
K. `SquareChain` uses squares alone: L_k is a sum of what there is so far, and B_k = L_k^2. Of all
products a square has the cheapest derivative (d(L L) = S + S^T with S = L dL, one product), so six
squares forward and six backward stand for the 12 and 20 products of K = 5.

A derivative here is the directional one. Since a polynomial's derivative at a symmetric matrix is
its own adjoint, the same call is the backward pass for a symmetric incoming gradient.
"""

from typing import Protocol

import torch
from torch import Tensor

from workloads.pooling.square_chain_tables import SQUARE_CHAINS


class MatrixPolynomial(Protocol):
    """A polynomial p with p(P) and its directional derivative."""

    products_forward: int
    products_backward: int

    def value(self, p_BNN: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return p(P), and what the derivative needs; plain differentiable operations."""
        ...

    def derivative(self, saved: tuple[Tensor, ...], direction_BNN: Tensor) -> Tensor:
        """Return the derivative of p at P in a symmetric direction: (B, N, N)."""
        ...


class NewtonSchulz:
    """p_K by its own recursion: T = P q, P' = T q, Z' = Z q with q = (3 I - P) / 2.

    Exact in any type. Each update multiplies a spurious negative eigenvalue (rounding) by 2.25, so
    K is bounded by the type's precision: see `workloads.pooling.isqrt`.

    Args:
        num_iters: K, at least 1.
    """

    def __init__(self, num_iters: int) -> None:
        self.num_iters = num_iters
        self.products_forward = 3 * num_iters - 3
        self.products_backward = max(5 * num_iters - 5, 0)

    def value(self, p_BNN: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        z_BNN = _combine((1.5, -0.5), (p_BNN,))
        saved: list[Tensor] = []
        for _ in range(self.num_iters - 1):
            t_BNN = torch.baddbmm(p_BNN, p_BNN, p_BNN, beta=1.5, alpha=-0.5)
            saved += [p_BNN, t_BNN]
            p_BNN = torch.baddbmm(t_BNN, t_BNN, p_BNN, beta=1.5, alpha=-0.5)
            saved += [p_BNN, z_BNN]
            z_BNN = torch.baddbmm(z_BNN, z_BNN, p_BNN, beta=1.5, alpha=-0.5)
        return z_BNN, tuple(saved)

    def derivative(self, saved: tuple[Tensor, ...], direction_BNN: Tensor) -> Tensor:
        dp_BNN, dz_BNN = direction_BNN, -0.5 * direction_BNN
        for k in range(0, len(saved), 4):
            p_BNN, t_BNN, next_BNN, z_BNN = saved[k : k + 4]
            half_BNN = p_BNN @ dp_BNN
            square_BNN = half_BNN + half_BNN.transpose(1, 2)
            dt_BNN = torch.add(1.5 * dp_BNN, square_BNN, alpha=-0.5)
            dnext_BNN = torch.baddbmm(dt_BNN, dt_BNN, p_BNN, beta=1.5, alpha=-0.5)
            dp_BNN = torch.baddbmm(dnext_BNN, t_BNN, dp_BNN, alpha=-0.5)
            dz_BNN = torch.baddbmm(dz_BNN, dz_BNN, next_BNN, beta=1.5, alpha=-0.5)
            dz_BNN = torch.baddbmm(dz_BNN, z_BNN, dp_BNN, alpha=-0.5)
        return dz_BNN


class SquareChain:
    """A polynomial by squares alone, fitted to p_K on [0, 1] to float32's precision.

    B_0 = P; L_k = c_k I + sum over i < k of a_ki B_i; B_k = L_k^2; the result is such a sum of all.

    Args:
        rows: (c_k, a_k0, a_k1, ...) for each square, then the same for the result.
    """

    def __init__(self, rows: tuple[tuple[float, ...], ...]) -> None:
        self.rows = rows
        self.products_forward = self.products_backward = len(rows) - 1

    def value(self, p_BNN: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        squares, lines = [p_BNN], []
        for row in self.rows[:-1]:
            line_BNN = _combine(row, squares)
            lines.append(line_BNN)
            squares.append(line_BNN @ line_BNN)
        return _combine(self.rows[-1], squares), tuple(lines)

    def derivative(self, saved: tuple[Tensor, ...], direction_BNN: Tensor) -> Tensor:
        squares = [direction_BNN]
        for row, line_BNN in zip(self.rows[:-1], saved, strict=True):
            half_BNN = line_BNN @ _combine((0.0, *row[1:]), squares)
            squares.append(half_BNN + half_BNN.transpose(1, 2))
        return _combine((0.0, *self.rows[-1][1:]), squares)


def choose_polynomial(num_iters: int, dtype: torch.dtype) -> MatrixPolynomial:
    """Return the cheapest evaluation of p_K that is exact to the type's rounding."""
    if dtype == torch.float32 and num_iters in SQUARE_CHAINS:
        return SquareChain(SQUARE_CHAINS[num_iters])
    return NewtonSchulz(num_iters)


def _combine(row: tuple[float, ...], terms: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Return row[0] I + row[1] terms[0] + row[2] terms[1] + ..., in a tensor of its own."""
    total_BNN = terms[0] * row[1]
    for factor, term_BNN in zip(row[2:], terms[1:], strict=True):
        if factor:
            total_BNN.add_(term_BNN, alpha=factor)
    if row[0] and torch.compiler.is_compiling():  # ONNX has no writing through a view
        eye_NN = torch.eye(total_BNN.shape[1], dtype=total_BNN.dtype, device=total_BNN.device)
        total_BNN = total_BNN.add(eye_NN, alpha=row[0])
    elif row[0]:
        total_BNN.diagonal(dim1=1, dim2=2).add_(row[0])
    return total_BNN
