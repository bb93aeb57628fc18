"""A square chain in one GPU kernel, for matrices of at most 64 x 64.

Shape letters: B batch, N side, P the side rounded up to 16, S number of squares.

One program holds one image. Its squares stay in registers; a line L_k goes through memory (16 KB
at most, which the first cache holds), because a product by rows and columns needs every entry in
many threads: Triton has no slices of registers, and a product of whole 64 x 64 registers spills.
The lines are what the derivative needs, so it reads them instead of computing them again: twice the
matrices in registers would spill too. Everything is float32 with float32 products, without TF32.

This file needs Triton: import it where there is a CUDA device, as `root_plan` does.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from workloads.pooling.matrix_polynomials import SquareChain

NUM_WARPS = {16: 2, 32: 4, 64: 8}
"""Warps by padded side; a thread holds 4, 8 or 16 entries of each matrix."""

_STEP = 16
"""Columns and rows that a product takes at a time. With more, its operands spill."""
_MAX_ERROR = 1e-5
"""Relative error of the self-test; float32 is at 1e-6, TF32 at 1e-3."""


@triton.jit
def _combine(ROW: tl.constexpr, terms):
    """Return ROW[1] terms[0] + ROW[2] terms[1] + ..., without the identity's part."""
    total = terms[0] * ROW[1]
    for i in tl.static_range(1, len(terms)):
        if ROW[i + 1] != 0.0:
            total += terms[i] * ROW[i + 1]
    return total


@triton.jit
def _product(a_ptr, b_ptr, pitch, SIDE: tl.constexpr, STEP: tl.constexpr):
    """Return A B of two P x P matrices in memory, in SIDE x SIDE registers."""
    row = tl.arange(0, SIDE)
    step = tl.arange(0, STEP)
    total = tl.zeros((SIDE, SIDE), tl.float32)
    for start in range(0, pitch, STEP):
        inner = start + step
        a_at = row[:, None] * pitch + inner[None, :]
        b_at = inner[:, None] * pitch + row[None, :]
        a = tl.load(a_ptr + a_at, mask=row[:, None] < pitch, other=0.0)
        b = tl.load(b_ptr + b_at, mask=row[None, :] < pitch, other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    return total


@triton.jit
def value_kernel(
    p_ptr, out_ptr, lines_ptr, n, pitch, ROWS: tl.constexpr, SIDE: tl.constexpr, STEP: tl.constexpr
):
    """P (B, N, N) to p(P) (B, N, N) and the lines (B, S, P, P)."""
    image = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, SIDE)[:, None]
    col = tl.arange(0, SIDE)[None, :]
    inside = (row < n) & (col < n)
    padded = (row < pitch) & (col < pitch)
    eye = tl.where((row == col) & inside, 1.0, 0.0)
    at = image * n * n + row * n + col
    num_squares: tl.constexpr = len(ROWS) - 1
    squares = (tl.load(p_ptr + at, mask=inside, other=0.0),)
    for k in tl.static_range(num_squares):
        line_ptr = lines_ptr + (image * num_squares + k) * pitch * pitch
        line = _combine(ROWS[k], squares) + eye * ROWS[k][0]
        tl.store(line_ptr + row * pitch + col, line, mask=padded)
        tl.debug_barrier()  # all threads read what each has written
        squares += (_product(line_ptr, line_ptr, pitch, SIDE, STEP),)
    value = _combine(ROWS[num_squares], squares) + eye * ROWS[num_squares][0]
    tl.store(out_ptr + at, value, mask=inside)


@triton.jit
def derivative_kernel(
    lines_ptr,
    direction_ptr,
    out_ptr,
    change_ptr,
    n,
    pitch,
    ROWS: tl.constexpr,
    SIDE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Lines (B, S, P, P) and direction (B, N, N) to the derivative (B, N, N).

    `change_ptr` is room for (B, P, P): the change of the line at hand.
    """
    image = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, SIDE)[:, None]
    col = tl.arange(0, SIDE)[None, :]
    inside = (row < n) & (col < n)
    padded = (row < pitch) & (col < pitch)
    at = image * n * n + row * n + col
    num_squares: tl.constexpr = len(ROWS) - 1
    change_ptr += image * pitch * pitch
    changes = (tl.load(direction_ptr + at, mask=inside, other=0.0),)
    for k in tl.static_range(num_squares):
        line_ptr = lines_ptr + (image * num_squares + k) * pitch * pitch
        tl.store(change_ptr + row * pitch + col, _combine(ROWS[k], changes), mask=padded)
        tl.debug_barrier()  # all threads read what each has written
        half = _product(line_ptr, change_ptr, pitch, SIDE, STEP)
        changes += (half + tl.trans(half),)
        tl.debug_barrier()  # none writes the next change while another still reads
    tl.store(out_ptr + at, _combine(ROWS[num_squares], changes), mask=inside)


class FusedChain(SquareChain):
    """A square chain in one kernel forward and one backward, on float32 CUDA tensors.

    Not differentiable by autograd: for `FastRoot`, which calls the derivative itself.

    Args:
        rows: As for `SquareChain`.
    """

    def value(self, p_BNN: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert not (torch.is_grad_enabled() and p_BNN.requires_grad)
        batch, n, pitch, side = _sizes(p_BNN)
        p_BNN = p_BNN.contiguous()
        z_BNN = torch.empty_like(p_BNN)
        lines_BSPP = p_BNN.new_empty(batch, len(self.rows) - 1, pitch, pitch)
        with torch.cuda.device_of(p_BNN):
            value_kernel[(batch,)](
                p_BNN, z_BNN, lines_BSPP, n, pitch, self.rows, side, _STEP, **_launch(side)
            )
        return z_BNN, (lines_BSPP,)

    def derivative(self, saved: tuple[Tensor, ...], direction_BNN: Tensor) -> Tensor:
        (lines_BSPP,) = saved
        batch, n, pitch, side = _sizes(direction_BNN)
        direction_BNN = direction_BNN.contiguous()
        out_BNN = torch.empty_like(direction_BNN)
        change_BPP = direction_BNN.new_empty(batch, pitch, pitch)
        with torch.cuda.device_of(direction_BNN):
            derivative_kernel[(batch,)](
                lines_BSPP,
                direction_BNN,
                out_BNN,
                change_BPP,
                n,
                pitch,
                self.rows,
                side,
                _STEP,
                **_launch(side),
            )
        return out_BNN


def checked_chain(
    rows: tuple[tuple[float, ...], ...], side: int, device: torch.device
) -> FusedChain:
    """Return the fused chain after a test with matrices of this side on this device.

    Raises:
        ArithmeticError: It is further from float64 than float32 should be.
    """
    chain = FusedChain(rows)
    generator = torch.Generator().manual_seed(0)
    x_BNN, e_BNN = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64)
    p_BNN = x_BNN @ x_BNN.mT
    p_BNN /= p_BNN.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
    e_BNN = e_BNN + e_BNN.mT
    want_BNN, lines = SquareChain(rows).value(p_BNN)
    pairs = [(want_BNN, SquareChain(rows).derivative(lines, e_BNN))]
    got_BNN, saved = chain.value(p_BNN.to(device, torch.float32))
    pairs.append((got_BNN, chain.derivative(saved, e_BNN.to(device, torch.float32))))
    for want, got in zip(*pairs, strict=True):
        error = float((got.to(want) - want).norm() / want.norm())
        if not error <= _MAX_ERROR:
            raise ArithmeticError(f"the self-test is off by {error:.1e} of the result")
    return chain


def padded_side(side: int) -> int:
    """Return the side that the registers have: 16, 32 or 64."""
    return max(triton.next_power_of_2(side), 16)


def _sizes(matrix_BNN: Tensor) -> tuple[int, int, int, int]:
    batch, n = matrix_BNN.shape[:2]
    return batch, n, -(-n // _STEP) * _STEP, padded_side(n)


def _launch(side: int) -> dict[str, int]:
    # One stage: loads that run ahead of the barriers would read what is not written yet.
    return {"num_warps": NUM_WARPS[side], "num_stages": 1}
