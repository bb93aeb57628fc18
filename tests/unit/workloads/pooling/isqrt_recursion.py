"""The published recursion of iSQRT-COV, in NumPy and in torch, and features to try it on."""

import numpy as np
import torch

from workloads.pooling.functional import covariance


def relu_features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).relu()


def recursion(x: np.ndarray, num_iters: int, *, prenorm: str = "trace", centred: bool = True):
    """The published coupled updates of one image's features, one line each."""
    cov = np.cov(x, bias=True) if centred else x @ x.T / x.shape[1]
    scale = np.trace(cov) if prenorm == "trace" else np.linalg.norm(cov)
    y, z, eye = cov / scale, np.eye(len(cov)), np.eye(len(cov))
    for _ in range(num_iters):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return np.sqrt(scale) * y


def autograd_recursion(x: torch.Tensor, num_iters: int, prenorm: str = "trace") -> torch.Tensor:
    """The same in torch for gradients: (B, D, M) to the upper triangle."""
    cov = covariance(x)
    if prenorm == "trace":
        scale = cov.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    else:
        scale = torch.linalg.matrix_norm(cov)[:, None, None]
    y = cov / scale
    z = eye = torch.eye(cov.shape[1], dtype=cov.dtype)
    for _ in range(num_iters):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    row, column = torch.triu_indices(*cov.shape[1:])
    return (y * scale.sqrt())[:, row, column]


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    got, want = got.detach().cpu().double(), want.detach()
    return float((got - want).norm() / want.norm())
