"""Square roots of covariance matrices by products alone.

Shape letters: B batch, D channels, M positions.

With t the trace of Sigma, A = Sigma / t, Y_0 = A and Z_0 = I, the K coupled Newton-Schulz updates

    T_k = (3 I - Z_{k-1} Y_{k-1}) / 2,   Y_k = Y_{k-1} T_k,   Z_k = T_k Z_{k-1}

give sqrt(t) Y_K, which tends to the square root of Sigma as K grows. Dividing by t brings every
eigenvalue into [0, 1], where the iteration converges; sqrt(t) puts the scale back. At the K = 5
of the papers small eigenvalues are far from converged: K is a soft spectral filter.

References:
    Li et al., Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix
    Square Root Normalization, CVPR 2018.
"""

import torch
from torch import Tensor


def newton_schulz_sqrt(cov_BDD: Tensor, num_iters: int, noise_B11: Tensor | None = None) -> Tensor:
    """Apply K = `num_iters` Newton-Schulz updates to symmetric matrices: (B, D, D) to (B, D, D).

    Costs 1 product for K = 1 and 3 K - 3 for more: the last update of Z is never used, so Z_K is
    not computed. The result has the type of the input, which should be float32 or wider; callers
    switch autocast off.

    A matrix whose trace is zero, or not above `noise_B11` (a constant map, or one position), gives
    zero with zero gradient.
    """
    trace_B11 = cov_BDD.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
    safe_B11, dead_B11 = _guard_zero(trace_B11, noise_B11)
    y_BDD = cov_BDD / safe_B11
    if num_iters == 1:
        y_BDD = _minus(1.5 * y_BDD, y_BDD, y_BDD)
    else:
        z_BDD = _three_halves_minus_half(y_BDD)
        y_BDD = y_BDD @ z_BDD
        for _ in range(num_iters - 2):
            t_BDD = _three_halves_minus_half(z_BDD @ y_BDD)
            y_BDD, z_BDD = y_BDD @ t_BDD, t_BDD @ z_BDD
        y_BDD = _minus(1.5 * y_BDD, y_BDD, z_BDD @ y_BDD)
    return (y_BDD * safe_B11.sqrt()).masked_fill(dead_B11, 0.0)


def newton_schulz_sqrt_gram(
    centred_BDM: Tensor, num_iters: int, noise_B11: Tensor | None = None
) -> Tensor:
    """Do the same from centred features, through their M x M Gram matrix: to (B, D, D).

    Y_K = A p(A) for a polynomial p, and with A = X X^T and G = X^T X it holds that
    A p(A) = X p(G) X^T. So this is the same function of the features as

        newton_schulz_sqrt(centred @ centred^T / M, K)

    with the same gradient, at products of M x M instead of D x D, which pays where M is at most
    half of D. The D - M directions without variance are left out; G has null directions of its
    own (the vector of ones, at least), so the conditioning is that of the other side.
    """
    num_positions = centred_BDM.shape[2]
    scale_B11, dead_B11 = _guard_zero(
        centred_BDM.square().sum(dim=(1, 2))[:, None, None],
        None if noise_B11 is None else noise_B11 * num_positions,
    )
    norm_B11 = scale_B11.sqrt()
    x_BDM = centred_BDM / norm_B11
    p_BMM = x_BDM.transpose(1, 2) @ x_BDM
    z_BMM = t_BMM = _three_halves_minus_half(p_BMM)
    for _ in range(num_iters - 1):
        p_BMM = p_BMM @ t_BMM @ t_BMM
        t_BMM = _three_halves_minus_half(p_BMM)
        z_BMM = z_BMM @ t_BMM
    root_BDD = (x_BDM @ z_BMM) @ x_BDM.transpose(1, 2)
    scale = norm_B11 / num_positions**0.5
    return (root_BDD * scale).masked_fill(dead_B11, 0.0)


def _guard_zero(trace_B11: Tensor, noise_B11: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the traces with zeros and mere noise replaced by one, and where that was done.

    The least threshold, eps^4 of the type (2e-28 in float32), only keeps 1 / t from overflowing.
    A NaN is not below a threshold and goes through.
    """
    dead_B11 = trace_B11 <= torch.finfo(trace_B11.dtype).eps ** 4
    if noise_B11 is not None:
        dead_B11 = dead_B11 | (trace_B11 <= noise_B11)
    return trace_B11.masked_fill(dead_B11, 1.0), dead_B11


def _three_halves_minus_half(p_BDD: Tensor) -> Tensor:
    """Return (3 I - P) / 2."""
    eye_DD = torch.eye(p_BDD.shape[-1], dtype=p_BDD.dtype, device=p_BDD.device)
    return torch.add(1.5 * eye_DD, p_BDD, alpha=-0.5)


def _minus(y_BDD: Tensor, a_BDD: Tensor, b_BDD: Tensor) -> Tensor:
    """Return Y - A B / 2 in one fused product."""
    return torch.baddbmm(y_BDD, a_BDD, b_BDD, alpha=-0.5)
