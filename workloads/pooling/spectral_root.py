"""K Newton-Schulz updates applied to eigenvalues, for K at which products diverge.

Shape letters: B batch, D channels, M positions, N side of the matrix (D or M), V the vector's.

The same polynomial p as in `workloads.pooling.matrix_polynomials`, in float64: one eigenvalue
decomposition, the updates on numbers, and in the backward pass its divided differences
p[a, b] = (p(a) - p(b)) / (a - b). They have a product rule, fg[a, b] = f[a, b] g(a) + f(b) g[a, b],
and so come out of the same updates without a division: equal eigenvalues are no special case.
"""

from typing import Any

import torch
from torch import Tensor

from workloads.pooling.fast_root import without_autocast
from workloads.pooling.functional import centre, rounding_noise
from workloads.pooling.matrix_roots import Normalised, normalise
from workloads.pooling.root_plan import MAX_PRODUCT_ITERS, RootPlan
from workloads.pooling.vectorise import symmetric_gradient


class SpectralRoot(torch.autograd.Function):
    """Features (B, D, M) to the vector (B, V) of their root. Differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, x_BDM: Tensor, index: Tensor | None, mirror: Tensor | None, plan: RootPlan
    ) -> Tensor:
        y_BDM = _prepare(x_BDM, plan)
        y_BMD = y_BDM.transpose(1, 2)
        noise_B11 = rounding_noise(x_BDM).double() * x_BDM.shape[2] if plan.centred else None
        product_BNN = y_BMD @ y_BDM if plan.by_gram else y_BDM @ y_BMD
        scaled = normalise(product_BNN, plan.prenorm, noise_B11)
        bad_B11 = ~scaled.matrix_BNN.isfinite().all(dim=2).all(dim=1)[:, None, None]
        values_BN, vectors_BNN = torch.linalg.eigh(scaled.matrix_BNN.masked_fill(bad_B11, 0.0))
        threshold = values_BN.shape[1] * torch.finfo(values_BN.dtype).eps
        values_BN = values_BN.masked_fill(values_BN <= threshold, 0.0)
        p_BN, _ = updates(values_BN, plan.num_iters)
        scale = x_BDM.shape[2] ** -0.5
        if plan.by_gram:
            left_BDN = _directions(y_BDM, values_BN, vectors_BNN, plan)
            root_BDD = (left_BDN * (scaled.rsqrt_B11 * p_BN[:, None])) @ left_BDN.transpose(1, 2)
        else:
            sqrt_B11 = 1.0 / scaled.rsqrt_B11.masked_fill(scaled.rsqrt_B11 == 0, 1.0)
            weighted_BDD = vectors_BNN * (sqrt_B11 * (values_BN * p_BN)[:, None])
            root_BDD = weighted_BDD @ vectors_BNN.transpose(1, 2)
        root_BDD = (root_BDD * scale).masked_fill(bad_B11, torch.nan)
        ctx.save_for_backward(x_BDM, mirror, *scaled, values_BN, vectors_BNN)
        ctx.plan = plan
        flat = root_BDD.flatten(1).to(x_BDM.dtype)
        return flat if index is None else flat.index_select(1, index)

    @staticmethod
    @without_autocast
    def backward(ctx: Any, grad_BV: Tensor) -> tuple[Tensor | None, ...]:
        x_BDM, mirror, *kept, values_BN, vectors_BNN = ctx.saved_tensors
        plan: RootPlan = ctx.plan
        if torch.is_grad_enabled():
            raise RuntimeError(
                f"isqrt has no second derivatives at num_iters={plan.num_iters}, where it is "
                "computed from eigenvalues; use num_iters of at most "
                f"{MAX_PRODUCT_ITERS[x_BDM.dtype]}, or no create_graph"
            )
        y_BDM = _prepare(x_BDM, plan)
        scaled = Normalised(*kept)
        e2_BDD = symmetric_gradient(grad_BV.double(), mirror, x_BDM.shape[1])
        p_BN, p_BNN = updates(values_BN, plan.num_iters)
        norm_BN = torch.ones_like(values_BN) if plan.prenorm == "trace" else values_BN
        scale_B11 = scaled.rsqrt_B11 * x_BDM.shape[2] ** -0.5
        left_BDN = _directions(y_BDM, values_BN, vectors_BNN, plan)
        if plan.by_gram:
            left_BDN = left_BDN * scaled.rsqrt_B11
            e2_BDN = e2_BDD @ left_BDN
            k_BNN = left_BDN.transpose(1, 2) @ e2_BDN / 2
            l_BNN = p_BNN * k_BNN
            c_B1 = -((_diagonal(k_BNN) * p_BN) + 2 * _diagonal(l_BNN) * values_BN).sum(1, True)
            inner_BNN = 2 * l_BNN + torch.diag_embed(c_B1 * norm_BN)
            grad_BDN = e2_BDN * p_BN[:, None] + left_BDN @ inner_BNN
            grad_BDM = grad_BDN @ vectors_BNN.transpose(1, 2) * (x_BDM.shape[2] ** -0.5)
        else:
            # [lambda p](a, b) = p(a) + b p[a, b]
            f_BNN = p_BN[:, :, None] + values_BN[:, None] * p_BNN
            e2_BNN = vectors_BNN.transpose(1, 2) @ e2_BDD @ vectors_BNN
            l_BNN = f_BNN * e2_BNN
            c_BN = _diagonal(e2_BNN) * p_BN * values_BN / 2 - _diagonal(l_BNN) * values_BN
            inner_BNN = l_BNN + torch.diag_embed(c_BN.sum(1, True) * norm_BN)
            grad_BDM = vectors_BNN @ (inner_BNN * scale_B11) @ left_BDN
        if plan.centred:
            grad_BDM = centre(grad_BDM)
        return grad_BDM.to(x_BDM.dtype), None, None, None


def updates(values_BN: Tensor, num_iters: int) -> tuple[Tensor, Tensor]:
    """Return p of the values (B, N), and its divided differences (B, N, N)."""
    a_BN, p_BN = values_BN, torch.ones_like(values_BN)
    a_BNN = torch.ones_like(values_BN[:, :, None] * values_BN[:, None])
    p_BNN = torch.zeros_like(a_BNN)
    for _ in range(num_iters):
        q_BN, q_BNN = 1.5 - 0.5 * a_BN, -0.5 * a_BNN
        p_BNN = p_BNN * q_BN[:, :, None] + p_BN[:, None] * q_BNN
        p_BN = p_BN * q_BN
        for _ in range(2):
            a_BNN = a_BNN * q_BN[:, :, None] + a_BN[:, None] * q_BNN
            a_BN = a_BN * q_BN
    return p_BN, p_BNN


def _prepare(x_BDM: Tensor, plan: RootPlan) -> Tensor:
    return centre(x_BDM.double()) if plan.centred else x_BDM.double()


def _directions(y_BDM: Tensor, values_BN: Tensor, vectors_BNN: Tensor, plan: RootPlan) -> Tensor:
    """Return the features along the eigenvectors, exactly zero where the eigenvalue is.

    The polynomial is as large as 1.5^K at zero, and would turn rounding there into numbers.
    """
    empty_BN = values_BN == 0
    if plan.by_gram:
        return (y_BDM @ vectors_BNN).masked_fill(empty_BN[:, None], 0.0)
    return (vectors_BNN.transpose(1, 2) @ y_BDM).masked_fill(empty_BN[:, :, None], 0.0)


def _diagonal(matrix_BNN: Tensor) -> Tensor:
    return matrix_BNN.diagonal(dim1=1, dim2=2)
