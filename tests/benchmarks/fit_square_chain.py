"""Fit a square chain to the polynomial of K Newton-Schulz updates.

    python -m tests.benchmarks.fit_square_chain 5 [--from-scratch] [--rounds 60] [--starts 60]

A chain (`workloads.pooling.matrix_polynomials.SquareChain`) has few coefficients and p_K a high
degree, so that the fit is one by least squares and not an identity. Fitted are, on [0, 1] and each
relative to itself, p_K and a tenth of the slope of x p_K(x); rounds of Levenberg-Marquardt on a
Chebyshev grid of sqrt(x), each weighing what was the larger error before it, lead to about the
least largest error. The Jacobian is exact, by a complex step. Nothing is drawn but the starts, from
a fixed seed; other versions of LAPACK may lead to other coefficients of the same quality.

Without options the fit starts at the committed coefficients, whose errors in exact arithmetic it
brings down, for K = 5 from 1.2e-6 (root) and 1.5e-5 (slope) to 2.2e-7 and 2.2e-6. They are kept:
in float32 rounding is the larger part, about 1e-6 and 1e-5 in norm on covariances with either set.
With `--from-scratch` it starts at the best of many short fits from normal coefficients of size one
half, without large coefficients, which would cancel in float32; for K = 5 that leads to other
coefficients with 2.7e-7 and 3.7e-6. A quarter of a minute of one core, or three quarters from
scratch.

Printed are the two largest errors that `tests/unit/workloads/pooling/test_isqrt.py` asserts, on the
grid of that test, before and after, and the coefficients as `square_chain_tables` has them.
"""

import argparse
import sys

import numpy as np
from scipy.optimize import OptimizeResult, least_squares

from workloads.pooling.square_chain_tables import SQUARE_CHAINS

Rows = list[list[float]]

SLOPE_WEIGHT = 0.1
"""A slope may err ten times as much: gradients are checked to 1e-4, outputs to 1e-5."""

LARGEST_COEFFICIENT = 2.0
DIGITS = 10


def newton_schulz(x: np.ndarray, num_iters: int) -> tuple[np.ndarray, np.ndarray]:
    """Return p_K and the slope of x p_K at numbers x, by the coupled updates."""
    y, z, dy, dz = x, np.ones_like(x), np.ones_like(x), np.zeros_like(x)
    for _ in range(num_iters):
        t, dt = (3 - z * y) / 2, -(dz * y + z * dy) / 2
        y, z, dy, dz = y * t, t * z, dy * t + y * dt, dt * z + t * dz
    return z, dy


def chain(flat: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same two of a chain by its coefficients (..., n), row after row."""
    squares, slopes, start = [x], [np.ones_like(x)], 0
    while True:
        row = flat[..., start : start + len(squares) + 1, None]
        line = row[..., 0, :] + sum(row[..., i + 1, :] * b for i, b in enumerate(squares))
        slope = sum(row[..., i + 1, :] * d for i, d in enumerate(slopes))
        start += len(squares) + 1
        if start == flat.shape[-1]:
            return line, line + x * slope
        squares.append(line * line)
        slopes.append(2 * line * slope)


class Target:
    """p_K on a grid of [0, 1], and the errors of a chain there."""

    def __init__(self, num_iters: int, x: np.ndarray) -> None:
        self.x = x
        self.value, self.slope = newton_schulz(x, num_iters)

    def errors(self, flat: np.ndarray) -> np.ndarray:
        """Return relative errors of the value, then weighted ones of the slope: (..., 2 G)."""
        value, slope = chain(flat, self.x)
        errors = (value / self.value - 1, SLOPE_WEIGHT * (slope / self.slope - 1))
        return np.concatenate(errors, axis=-1)

    def fit(
        self, flat: np.ndarray, weights: np.ndarray | float = 1.0, evaluations: int = 60
    ) -> np.ndarray:
        """Return better coefficients; those that are zero stay zero."""
        free = np.flatnonzero(flat)
        step = 1e-30j * np.eye(len(flat))[free]

        def whole(values: np.ndarray) -> np.ndarray:
            filled = np.zeros_like(flat)
            filled[free] = values
            return filled

        result: OptimizeResult = least_squares(
            lambda values: weights * self.errors(whole(values)),
            flat[free],
            jac=lambda values: (weights * self.errors(whole(values) + step).imag).T / 1e-30,
            method="lm",
            max_nfev=evaluations,
        )
        return whole(result.x)


def sup_errors(num_iters: int, flat: np.ndarray) -> tuple[float, float]:
    """Return the two largest errors on the grid of the test: of p_K and of the slope."""
    target = Target(num_iters, np.linspace(0, 1, 4001) ** 2)
    value, slope = np.split(np.abs(target.errors(flat)), 2)
    return float(value.max()), float(slope.max() / SLOPE_WEIGHT)


def largest(num_iters: int, flat: np.ndarray) -> float:
    """Return the one number that a fit tries to make small."""
    value, slope = sup_errors(num_iters, flat)
    return max(value, SLOPE_WEIGHT * slope)


def grid(points: int) -> np.ndarray:
    """Return squares of Chebyshev points of [0, 1]: p_K is steepest near zero."""
    return ((1 - np.cos(np.linspace(0, np.pi, points))) / 2) ** 2


def refine(num_iters: int, flat: np.ndarray, rounds: int) -> np.ndarray:
    """Return the best coefficients that reweighting towards the largest error comes by."""
    target = Target(num_iters, grid(500))
    best, weights = flat, np.ones(1000)
    for _ in range(rounds):
        flat = target.fit(flat, weights)
        best = min(best, flat, key=lambda c: largest(num_iters, c))
        errors = np.abs(target.errors(flat))
        weights *= (errors / errors.max() + 0.05) ** 0.4
        weights /= weights.mean()
    return best


def start_from_scratch(num_iters: int, squares: int, starts: int) -> np.ndarray:
    """Return the best of short fits from normal numbers, among those without large ones."""
    target, generator = Target(num_iters, grid(200)), np.random.default_rng(0)
    size = sum(k + 2 for k in range(squares + 1))
    found = []
    for _ in range(starts):
        with np.errstate(all="ignore"):
            try:
                flat = target.fit(generator.normal(0, 0.5, size), evaluations=300)
            except ValueError:  # the chain has overflown
                continue
        if np.abs(flat).max() < LARGEST_COEFFICIENT:
            found.append(flat)
    if not found:
        sys.exit(f"None of {starts} starts led to coefficients below {LARGEST_COEFFICIENT}.")
    return min(found, key=lambda flat: largest(num_iters, flat))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("num_iters", type=int, choices=sorted(SQUARE_CHAINS))
    parser.add_argument("--from-scratch", action="store_true")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--starts", type=int, default=60)
    options = parser.parse_args()

    num_iters, rows = options.num_iters, SQUARE_CHAINS[options.num_iters]
    flat = np.concatenate([np.array(row) for row in rows])
    if options.from_scratch:
        flat = start_from_scratch(num_iters, len(rows) - 1, options.starts)
    fitted = np.array([float(f"{c:.{DIGITS}g}") for c in refine(num_iters, flat, options.rounds)])
    for name, coefficients in (("start", flat), ("fitted", fitted)):
        value, slope = sup_errors(num_iters, coefficients)
        sys.stdout.write(f"{name:6}  root {value:.3g}  slope {slope:.3g}\n")
    for row in np.split(fitted, np.cumsum([len(row) for row in rows])[:-1]):
        sys.stdout.write(f"({', '.join(f'{c:.{DIGITS}g}' for c in row)}),\n")


if __name__ == "__main__":
    main()
