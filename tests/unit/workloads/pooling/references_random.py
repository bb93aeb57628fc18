"""References of the poolings with random parts; see `references`.

Shape letters: C channels, N positions, S sketch, H heads, W width of a head.
"""

from typing import Any

import numpy as np

from tests.unit.workloads.pooling.references import Case, Matrix, covariance, parameter, vectorise


def signed_root(v: np.ndarray, eps: float) -> np.ndarray:
    return np.sign(v) * np.sqrt(np.abs(v) + eps)


def buffer(pooling: Any, name: str) -> np.ndarray:
    return pooling.get_buffer(name).numpy()


def softmax(v: np.ndarray) -> np.ndarray:
    e = np.exp(v - v.max())
    return e / e.sum()


def channel_importance(mean: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Softmax of a correlation with three weights, the ends padded with zeros."""
    padded = np.concatenate([[0.0], mean, [0.0]])
    return softmax(np.array([padded[i : i + 3] @ kernel for i in range(len(mean))]))


def dropcov(x: Matrix, pooling: Any) -> np.ndarray:
    if pooling.gate == "always":
        kernel = parameter(pooling, "importance.conv.weight").ravel()
        x = x * (1 + channel_importance(x.mean(axis=1), kernel))[:, None]
    return vectorise(covariance(x, pooling), pooling)


def bcnn(x: Matrix, pooling: Any) -> np.ndarray:
    moment = sum(np.outer(v, v) for v in x.T) / x.shape[1]
    vector = vectorise(signed_root(moment, pooling.normaliser.eps), pooling)
    return vector / np.linalg.norm(vector)


def count_sketch(v: np.ndarray, places: np.ndarray, signs: np.ndarray, size: int) -> np.ndarray:
    sketch = np.zeros(size)
    np.add.at(sketch, places, signs * v)
    return sketch


def tensor_sketch(x: Matrix, pooling: Any) -> np.ndarray:
    """As published: at each position a circular convolution by the convolution theorem."""
    size = pooling.out_features
    hashes, signs = buffer(pooling, "sketch.hashes_2D"), buffer(pooling, "sketch.signs_2D")
    total = np.zeros(size)
    for v in x.T:
        one, two = (np.fft.fft(count_sketch(v, hashes[i], signs[i], size)) for i in (0, 1))
        total += np.fft.ifft(one * two).real
    return total


def random_maclaurin(x: Matrix, pooling: Any) -> np.ndarray:
    one, two = buffer(pooling, "sketch.signs_2SD").astype(float)
    return sum((one @ v) * (two @ v) for v in x.T) / np.sqrt(pooling.out_features)


def cbp(x: Matrix, pooling: Any) -> np.ndarray:
    maclaurin = hasattr(pooling.sketch, "signs_2SD")
    sketch = random_maclaurin(x, pooling) if maclaurin else tensor_sketch(x, pooling)
    # What cancels exactly in one order of additions is rounding in another, and has a sign there.
    sketch[np.abs(sketch) < 1e-13 * np.abs(sketch).max()] = 0.0
    vector = signed_root(sketch, pooling.power.eps)
    return vector / np.linalg.norm(vector)


def cross_cov(x: Matrix, pooling: Any) -> np.ndarray:
    """Head by head, rows of the weight in the order (q, k), head, channel."""
    heads, width = pooling.num_heads, pooling.head_width
    rows = parameter(pooling, "projections.weight").reshape(2, heads, width, -1)
    matrices = []
    for q_weight, k_weight in zip(*rows, strict=True):
        q, k = q_weight @ x, k_weight @ x
        if pooling.centred:
            q = q - q.mean(axis=1, keepdims=True)
            k = k - k.mean(axis=1, keepdims=True)
        matrices.append(normalise(q @ k.T / x.shape[1], pooling.normaliser))
    return np.concatenate([matrix.ravel() for matrix in matrices])


def normalise(matrix: Matrix, normaliser: Any) -> Matrix:
    name = type(normaliser).__name__
    if name == "ElementwisePower":
        root = signed_root(matrix, normaliser.eps)
        return root / np.sqrt((root**2).sum(axis=0))
    if name == "SingularValuePower":
        start = parameter(normaliser, "start").ravel()
        u = matrix @ start / np.linalg.norm(matrix @ start)
        v = matrix.T @ u / np.linalg.norm(matrix.T @ u)
        value, outer = u @ matrix @ v, np.outer(u, v)
        return np.sqrt(value) * outer + (matrix - value * outer) / (np.sqrt(value) + 1e-5)
    if name == "RowLayerNorm":
        centred = matrix - matrix.mean(axis=1, keepdims=True)
        return centred / np.sqrt(matrix.var(axis=1, keepdims=True) + 1e-5)
    return matrix / np.sqrt(len(matrix)) if name == "ScaleNorm" else matrix


SMALL_HEADS = {"num_heads": 2, "head_width": 3}

CASES: dict[str, Case] = {
    "dropcov": Case(
        dropcov,
        (
            {},
            {"gate": "always", "vector": "upper_columns"},
            {"gate": "off", "centred": False},
            {"adaptive": False, "rate": 0.3, "vector": "full"},
            {"adaptive": False, "gate": "off"},
        ),
        deterministic=False,
    ),
    "bcnn": Case(
        bcnn, ({}, {"vector": "upper_rows", "eps": 1e-5}), dead_is_zero=False, smooth=False
    ),
    "cbp": Case(
        cbp,
        (
            {"sketch_size": 64},
            {"sketch_size": 7, "seed": 3, "eps": 1e-4},
            {"sketch": "random_maclaurin", "sketch_size": 16},
        ),
        dead_is_zero=False,
        smooth=False,
    ),
    "cross_cov": Case(
        cross_cov,
        (
            SMALL_HEADS,
            {**SMALL_HEADS, "normaliser": "epn"},
            {**SMALL_HEADS, "normaliser": "svpn", "rate": 0.2},
            {**SMALL_HEADS, "normaliser": "layer_norm", "adaptive": True},
            {**SMALL_HEADS, "normaliser": "scale_norm", "centred": False},
        ),
        deterministic=False,
    ),
}
