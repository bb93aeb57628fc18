"""What every pooling should give: one image, plain NumPy, float64, straight from the formulas.

Shape letters: C channels, N positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

Matrix = np.ndarray
Reference = Callable[[Matrix, Any], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One pooling in the table of tests (`test_poolings.py`).

    Attributes:
        reference: Features of one image (C, N) in float64 and the pooling in evaluation mode, whose
            options and weights it may read, to the vector in float64. By another way than the
            layer's.
        variants: Keyword arguments besides `in_channels`; the first is run wherever one is enough.
            `in_channels` is 6, 8 or 16 in the tests.
        deterministic: Whether training mode gives what evaluation mode gives, in the variants
            without `dropout`. Where not, training mode is checked for finite values and gradients
            only; its own tests say more.
        smooth: Whether the value is differentiable where entries of the matrix are zero; not so
            for a signed square root, which jumps by 2 sqrt(eps) there.
        dead_is_zero: Whether one position, and a map without variation, give a vector of zeros by
            default; else the values need only be finite.
        float32_error: Allowed distance between float32 and float64, relative, of the vector.
        tolerance: Allowed distance from the reference in float64, relative, of the vector.
    """

    reference: Reference
    variants: tuple[dict[str, Any], ...] = ({},)
    deterministic: bool = True
    smooth: bool = True
    dead_is_zero: bool = True
    float32_error: float = 1e-5
    tolerance: float = 1e-9


def covariance(x: Matrix, pooling: Any) -> Matrix:
    """The second moment, centred unless the pooling says otherwise."""
    return np.cov(x, bias=True) if getattr(pooling, "centred", True) else x @ x.T / x.shape[1]


def vectorise(matrix: Matrix, pooling: Any) -> np.ndarray:
    """The entries in the pooling's order, one by one."""
    size = len(matrix)
    places = {
        "upper_rows": [(i, j) for i in range(size) for j in range(i, size)],
        "upper_columns": [(i, j) for j in range(size) for i in range(j + 1)],
        "full": [(i, j) for i in range(size) for j in range(size)],
    }[pooling.vector_order]
    return np.array([matrix[i, j] for i, j in places])


def parameter(module: nn.Module, name: str) -> np.ndarray:
    """A weight of the pooling as a float64 array."""
    return module.get_parameter(name).detach().double().numpy()


def gap(x: Matrix, pooling: Any) -> np.ndarray:
    return x.mean(axis=1)


def isqrt(x: Matrix, pooling: Any) -> np.ndarray:
    """The published coupled updates, one matrix, one line each."""
    cov = covariance(x, pooling)
    size = np.trace(cov) if pooling.prenorm == "trace" else np.linalg.norm(cov)
    y, z, eye = cov / size, np.eye(len(cov)), np.eye(len(cov))
    for _ in range(pooling.num_iters):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return vectorise(np.sqrt(size) * y, pooling)


def spectral(cov: Matrix, function: Callable[[float], float]) -> Matrix:
    """f of a symmetric matrix from its singular vectors: LAPACK's other solver."""
    u, values, _ = np.linalg.svd(cov, hermitian=False)
    return sum(function(v) * np.outer(c, c) for v, c in zip(values, u.T, strict=True))


def mpn_eig(x: Matrix, pooling: Any) -> np.ndarray:
    cov = covariance(x, pooling)
    null = 0.0 if pooling.eps else 1e-13 * np.linalg.norm(cov, 2)
    power = spectral(cov, lambda v: (v + pooling.eps) ** pooling.alpha if v > null else 0.0)
    return vectorise(power, pooling)


def log_euclidean(x: Matrix, pooling: Any) -> np.ndarray:
    cov = covariance(x, pooling)
    ridge = pooling.ridge * np.trace(cov) / len(cov) + 1e-12
    return vectorise(spectral(cov, lambda v: np.log(v + ridge)), pooling)


def epn(x: Matrix, pooling: Any) -> np.ndarray:
    cov = covariance(x, pooling)
    root = np.sign(cov) * np.sqrt(np.abs(cov) + pooling.eps)
    if pooling.l2 == "columns":
        root = np.array([column / np.linalg.norm(column) for column in root.T]).T
    vector = vectorise(root, pooling)
    return vector / np.linalg.norm(vector) if pooling.l2 == "vector" else vector


def svpn(x: Matrix, pooling: Any) -> np.ndarray:
    rest = covariance(x, pooling)
    options = pooling.normaliser
    raised = np.zeros_like(rest)
    for v in parameter(pooling, "normaliser.start"):
        for _ in range(options.num_iters):
            u = rest @ v / np.linalg.norm(rest @ v)
            v = u @ rest / np.linalg.norm(u @ rest)
        value = u @ rest @ v
        raised += value**options.alpha * np.outer(u, v)
        rest = rest - value * np.outer(u, v)
    return vectorise(raised + rest / (value ** (1 - options.alpha) + 1e-5), pooling)


def layer_norm(x: Matrix, pooling: Any) -> np.ndarray:
    weight, bias = (parameter(pooling, f"normaliser.{name}") for name in ("weight", "bias"))
    rows = [
        (row - row.mean()) / np.sqrt(row.var() + 1e-5) * weight + bias
        for row in covariance(x, pooling)
    ]
    return vectorise(np.array(rows), pooling)


def scale_norm(x: Matrix, pooling: Any) -> np.ndarray:
    cov = covariance(x, pooling)
    learnt = pooling.normaliser.learnable
    scale = parameter(pooling, "normaliser.scale") if learnt else 1 / np.sqrt(len(cov))
    return vectorise(cov * scale, pooling)


CASES: dict[str, Case] = {
    "gap": Case(gap, dead_is_zero=False),
    "cov": Case(
        lambda x, pooling: vectorise(covariance(x, pooling), pooling),
        ({}, {"centred": False, "vector": "upper_columns"}, {"vector": "full"}),
    ),
    "isqrt": Case(
        isqrt,
        (
            {},
            {"num_iters": 1},
            {"num_iters": 10},
            {"num_iters": 25},
            {"num_iters": 3, "vector": "upper_columns"},
            {"prenorm": "frobenius", "centred": False, "vector": "full"},
        ),
    ),
    "mpn_eig": Case(
        mpn_eig,
        (
            {},
            {"alpha": 0.3, "vector": "full"},
            {"alpha": 1.5, "centred": False},
            {"alpha": 0.5, "eps": 1e-3, "vector": "upper_columns"},
            {"alpha": 1.0},
        ),
    ),
    "log_euclidean": Case(
        log_euclidean,
        ({}, {"ridge": 0.1, "centred": False}, {"vector": "full"}),
        dead_is_zero=False,
    ),
    "epn": Case(
        epn,
        (
            {},
            {"l2": "columns", "vector": "full"},
            {"l2": "none", "centred": False},
            {"eps": 1e-4, "vector": "upper_columns"},
        ),
        smooth=False,
    ),
    "svpn": Case(
        svpn,
        (
            {},
            {"num_values": 2, "num_iters": 3, "vector": "full"},
            {"alpha": 0.25, "centred": False},
            {"dropout": 0.5},
        ),
    ),
    "layer_norm": Case(layer_norm, ({}, {"vector": "full"}, {"centred": False})),
    "scale_norm": Case(scale_norm, ({}, {"learnable": True, "vector": "full"})),
}
