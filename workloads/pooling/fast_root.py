"""The square root of the covariance from features to vector, with a backward pass of its own.

Shape letters: B batch, D channels, M positions, V width of the vector.

With X the features over the square root of their norm t, A = X X^T and G = X^T X, the pooled
matrix is R = sqrt(t / M) X p(G) X^T. For the symmetrised incoming gradient E the backward pass is

    K = X^T E X,   L = p'(G)[K],   c = -(<K, p(G)> + 2 <L, G>)
    gradient = (2 / sqrt(M)) (E X p(G) + X (L + c/2 I))                  (trace)

where the last term is what the normalisation by t and the compensation by sqrt(t) leave; G takes
the place of I for the Frobenius norm. On the covariance side, with F = A p(A),

    L = A p'(A)[E] + E p(A),   c = <E, F> / 2 - <L, A>
    gradient = (2 / sqrt(M)) (L + c I) X                                 (trace)

Nothing of D x D is kept on the Gram side, and none of the iterates' gradients anywhere.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workloads.pooling.functional import rounding_noise
from workloads.pooling.gemm import fast_products
from workloads.pooling.matrix_polynomials import NewtonSchulz
from workloads.pooling.matrix_roots import Normalised, features_root, normalise
from workloads.pooling.reflection import reflect, reflect_gradient
from workloads.pooling.root_plan import RootPlan
from workloads.pooling.vectorise import symmetric_gradient

Backward = Callable[[Any, Tensor], tuple[Tensor | None, ...]]

_HALVES_FROM = 128
"""Channels from which skipping the lower left quarter of X p(G) X^T pays for a second product."""
_ENTRIES_AT_ONCE = 2**18
"""Entries of one N x N matrix over the images that a CPU core takes at a time. About eight such
matrices are in play; more fall out of its caches, fewer pay too often for starting operations."""


def plain_root(x_BDM: Tensor, plan: RootPlan) -> Tensor:
    """Return the root by operations that autograd, compilers and exporters can follow."""
    y_BDM, mean_BD1 = _prepare(x_BDM, plan)
    return features_root(
        y_BDM,
        x_BDM.shape[2],
        plan.polynomial,
        by_gram=plan.by_gram,
        prenorm=plan.prenorm,
        noise_B11=_noise(mean_BD1, x_BDM.shape[2]),
    )


def pack(matrix_BDD: Tensor, index: Tensor | None) -> Tensor:
    """Return the entries of matrices that make the vector: (B, D, D) to (B, V)."""
    flat = matrix_BDD.flatten(1)
    return flat if index is None else flat.index_select(1, index)


def without_autocast(backward: Backward) -> Backward:
    """Keep a backward pass wide where `.backward()` is called inside an autocast block."""

    @functools.wraps(backward)
    def wide(ctx: Any, grad_BV: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(device_type=grad_BV.device.type, enabled=False):
            return backward(ctx, grad_BV)

    return wide


class FastRoot(torch.autograd.Function):
    """Features (B, D, M) to the vector (B, V) of their root.

    Second derivatives go through `plain_root` with the exact recursion.
    """

    @staticmethod
    def forward(
        ctx: Any, x_BDM: Tensor, index: Tensor | None, mirror: Tensor | None, plan: RootPlan
    ) -> Tensor:
        width = x_BDM.shape[1] ** 2 if index is None else len(index)
        z_BV = x_BDM.new_empty(x_BDM.shape[0], width)
        chunk = images_at_once(x_BDM, plan)
        kept: list[Tensor] = []
        with fast_products(x_BDM, tf32=plan.tf32):
            for x_bDM, z_bV in zip(x_BDM.split(chunk), z_BV.split(chunk), strict=True):
                kept += _root(x_bDM, index, plan, z_bV)
        ctx.save_for_backward(x_BDM, index, mirror, *kept)
        ctx.plan, ctx.chunk = plan, chunk
        return z_BV

    @staticmethod
    @without_autocast
    def backward(ctx: Any, grad_BV: Tensor) -> tuple[Tensor | None, ...]:
        x_BDM, index, mirror, *kept = ctx.saved_tensors
        plan: RootPlan = ctx.plan
        if torch.is_grad_enabled():  # create_graph: the gradient must be differentiable itself
            exact = plan._replace(reflected=False, polynomial=NewtonSchulz(plan.num_iters))
            z_BV = pack(plain_root(x_BDM, exact), index)
            (grad_BDM,) = torch.autograd.grad(z_BV, x_BDM, grad_BV, create_graph=True)
            return grad_BDM, None, None, None
        grads_bDM = []
        with fast_products(x_BDM, tf32=plan.tf32):
            chunks = list(zip(x_BDM.split(ctx.chunk), grad_BV.split(ctx.chunk), strict=True))
            per_chunk = len(kept) // max(len(chunks), 1)
            for k, (x_bDM, grad_bV) in enumerate(chunks):
                e2_bDD = symmetric_gradient(grad_bV, mirror, x_BDM.shape[1])
                part = kept[k * per_chunk : (k + 1) * per_chunk]
                grads_bDM.append(_gradient(e2_bDD, x_bDM, plan, Normalised(*part[:3]), part[3:]))
        grad_BDM = grads_bDM[0] if len(grads_bDM) == 1 else torch.cat(grads_bDM)
        return grad_BDM, None, None, None


def images_at_once(x_BDM: Tensor, plan: RootPlan) -> int:
    """Return how many images a CPU takes at a time, so that what it works on stays in its cache.

    A GPU takes all.
    """
    batch, channels, positions = x_BDM.shape
    if x_BDM.device.type != "cpu":
        return max(batch, 1)
    side = positions if plan.by_gram else channels
    return max(_ENTRIES_AT_ONCE // side**2, 1) * torch.get_num_threads()


def _root(
    x_BDM: Tensor, index: Tensor | None, plan: RootPlan, out_BV: Tensor
) -> tuple[Tensor, ...]:
    """Write the vectors of the roots, and return what the backward pass needs."""
    y_BDM, mean_BD1 = _prepare(x_BDM, plan)
    y_BMD = y_BDM.transpose(1, 2)
    product_BNN = y_BMD @ y_BDM if plan.by_gram else y_BDM @ y_BMD
    scaled = normalise(product_BNN, plan.prenorm, _noise(mean_BD1, x_BDM.shape[2]))
    z_BNN, saved = plan.polynomial.value(scaled.matrix_BNN)
    scale = x_BDM.shape[2] ** -0.5
    if plan.by_gram:
        left_BDM = y_BDM @ (z_BNN * (scaled.rsqrt_B11 * scale))
        root_BDD = _upper_product(left_BDM, y_BMD, whole=index is None)
        kept = (z_BNN, *saved)
    else:
        f_BDD = scaled.matrix_BNN @ z_BNN
        root_BDD = f_BDD * (scale / scaled.rsqrt_B11.masked_fill(scaled.rsqrt_B11 == 0, 1.0))
        kept = (f_BDD, z_BNN, *saved)
    if index is None:
        out_BV.copy_(root_BDD.flatten(1))
    else:
        torch.index_select(root_BDD.flatten(1), 1, index, out=out_BV)
    return (*scaled, *kept)


def _gradient(
    e2_BDD: Tensor, x_BDM: Tensor, plan: RootPlan, scaled: Normalised, kept: list[Tensor]
) -> Tensor:
    """Return the gradient of the features from 2 E."""
    y_BDM, _ = _prepare(x_BDM, plan)
    side = _gram_gradient if plan.by_gram else _cov_gradient
    scale_B11 = scaled.rsqrt_B11 * x_BDM.shape[2] ** -0.5
    grad_BDM = side(e2_BDD, y_BDM, plan, scaled, kept, scale_B11)
    return reflect_gradient(grad_BDM) if plan.reflected else grad_BDM


def _prepare(x_BDM: Tensor, plan: RootPlan) -> tuple[Tensor, Tensor | None]:
    """Return Y with Y Y^T = M Sigma, and the means that were taken off, if any."""
    if not plan.centred:
        return x_BDM, None
    mean_BD1 = x_BDM.mean(dim=2, keepdim=True)
    return (reflect(x_BDM, mean_BD1) if plan.reflected else x_BDM - mean_BD1), mean_BD1


def _noise(mean_BD1: Tensor | None, num_positions: int) -> Tensor | None:
    """Return the trace of Y Y^T that is mere rounding of these means."""
    return None if mean_BD1 is None else rounding_noise(mean_BD1) * num_positions


def _upper_product(a_BDM: Tensor, b_BMD: Tensor, *, whole: bool) -> Tensor:
    """Return A B, of which only the upper triangle is right unless `whole`."""
    size = a_BDM.shape[1]
    if whole or size < _HALVES_FROM or a_BDM.is_cuda:
        return a_BDM @ b_BMD
    half = size // 2
    root_BDD = a_BDM.new_empty(a_BDM.shape[0], size, size)
    torch.bmm(a_BDM[:, :half], b_BMD, out=root_BDD[:, :half])
    torch.bmm(a_BDM[:, half:], b_BMD[:, :, half:], out=root_BDD[:, half:, half:])
    return root_BDD


def _gram_gradient(
    e2_BDD: Tensor,
    y_BDM: Tensor,
    plan: RootPlan,
    scaled: Normalised,
    kept: list[Tensor],
    scale_B11: Tensor,
) -> Tensor:
    """Return the gradient of Y from 2 E, on the Gram side."""
    z_BMM, *saved = kept
    ey_BDM = e2_BDD @ y_BDM
    k_BMM = (y_BDM.transpose(1, 2) @ ey_BDM).mul_(0.5 * scaled.inverse_B11)
    l_BMM = plan.polynomial.derivative(tuple(saved), k_BMM)
    half_c_B11 = -0.5 * (_inner(k_BMM, z_BMM) + 2 * _inner(l_BMM, scaled.matrix_BNN))
    _add_norm(l_BMM, half_c_B11, scaled, plan)
    return torch.baddbmm(ey_BDM @ z_BMM.mul(scale_B11), y_BDM, l_BMM.mul_(2 * scale_B11))


def _cov_gradient(
    e2_BDD: Tensor,
    y_BDM: Tensor,
    plan: RootPlan,
    scaled: Normalised,
    kept: list[Tensor],
    scale_B11: Tensor,
) -> Tensor:
    """Return the gradient of Y from 2 E, on the covariance side."""
    f_BDD, z_BDD, *saved = kept
    inner_BDD = plan.polynomial.derivative(tuple(saved), e2_BDD)
    l_BDD = torch.baddbmm(e2_BDD @ z_BDD, scaled.matrix_BNN, inner_BDD)
    c_B11 = 0.5 * _inner(e2_BDD, f_BDD) - _inner(l_BDD, scaled.matrix_BNN)
    _add_norm(l_BDD, c_B11, scaled, plan)
    return l_BDD.mul_(scale_B11) @ y_BDM


def _add_norm(l_BNN: Tensor, c_B11: Tensor, scaled: Normalised, plan: RootPlan) -> None:
    """Add c times the gradient of the norm, which is I for the trace and A for Frobenius."""
    if plan.prenorm == "trace":
        l_BNN.diagonal(dim1=1, dim2=2).add_(c_B11[:, :, 0])
    else:
        l_BNN.add_(c_B11 * scaled.matrix_BNN)


def _inner(a_BNN: Tensor, b_BNN: Tensor) -> Tensor:
    """Return the sum of the products of all entries: (B, 1, 1)."""
    return (a_BNN * b_BNN).sum(dim=(1, 2), keepdim=True)
