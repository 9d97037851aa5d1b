"""Second derivatives of minus the logarithms of densities, see densities.py: by what the model says, y, and by scale and shape.

Each function takes arrays of one shape, y, the data d, scales s and shapes q, and returns the six that are different: by
(yy, ys, yq, ss, sq, qq).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adjode.model.losses import densities

Six = tuple[np.ndarray, ...]
_SHORT = 0.1  # up to which the series below is better than the closed form
_TERMS = 24


def _gaussian(y: np.ndarray, d: np.ndarray, s: np.ndarray, q: np.ndarray) -> Six:
    r, none = (y - d) / s, np.zeros_like(y)
    return 1.0 / s**2, -2.0 * r / s**2, none, (3.0 * r**2 - 1.0) / s**2, none, none


def _laplace(y: np.ndarray, d: np.ndarray, s: np.ndarray, q: np.ndarray) -> Six:
    r, none = (y - d) / s, np.zeros_like(y)
    return none, -np.sign(r) / s**2, none, (2.0 * np.abs(r) - 1.0) / s**2, none, none


def _of_logarithm(of: Callable[..., Six], slope: Callable[..., np.ndarray]) -> Callable[..., Six]:
    """The same around log(y); `slope` is the first derivative by it."""

    def curvatures(y: np.ndarray, d: np.ndarray, s: np.ndarray, q: np.ndarray) -> Six:
        xx, xs, xq, *others = of(np.log(y), d, s, q)
        return (xx - slope(np.log(y), d, s)) / y**2, xs / y, xq / y, *others

    return curvatures


def _poisson(y: np.ndarray, d: np.ndarray, s: np.ndarray, q: np.ndarray) -> Six:
    none = np.zeros_like(y)
    return _over_squares(d, y), none, none, none, none, none


def _over_squares(d: np.ndarray, y: np.ndarray) -> np.ndarray:
    """d / y^2; 0 where d is, whatever y is."""
    return np.divide(d, y**2, out=np.zeros_like(y), where=d != 0.0)


def _negative_binomial(y: np.ndarray, d: np.ndarray, s: np.ndarray, q: np.ndarray) -> Six:
    """Of `(d + 1/s) log(1 + s y) - sum_j<d log(1 + s j) - d log y`, which does not cancel where s is small."""
    grown, none = 1.0 + s * y, np.zeros_like(y)
    sums = [np.sum((j / (1.0 + one * j)) ** 2) for one, j in zip(s.ravel(), map(np.arange, d.ravel()), strict=True)]
    ss = y**3 * _bend_of_logarithm(s * y) - d * (y / grown) ** 2 + np.reshape(sums, s.shape)
    return _over_squares(d, y) - (1.0 + d * s) * s / grown**2, (d - y) / grown**2, none, ss, none, none


def _bend_of_logarithm(x: np.ndarray) -> np.ndarray:
    """The second derivative of log(1 + x) / x."""
    n, short = np.arange(2, _TERMS), np.minimum(x, _SHORT)
    series = ((-1.0) ** n * n * (n - 1) / (n + 1) * short[..., None] ** (n - 2)).sum(axis=-1)
    long = np.maximum(x, _SHORT)
    closed = (2.0 * np.log1p(long) / long - 2.0 / (1.0 + long) - long / (1.0 + long) ** 2) / long**2
    return np.where(x < _SHORT, series, closed)


def _student_t(y: np.ndarray, d: np.ndarray, s: np.ndarray, q: np.ndarray) -> Six:
    from scipy.special import polygamma

    r, more = (y - d) / s, q + 1.0
    square = r**2
    far = q + square
    part = more * square / (q * far)
    bend = 0.5 * (polygamma(1, 0.5 * q + 0.5) - polygamma(1, 0.5 * q))
    qq = 0.5 * (-1.0 / q**2 - bend - square / (q * far) - part * (1.0 / more - 1.0 / q - 1.0 / far))
    return (
        more * (q - square) / (s * far) ** 2,
        -2.0 * more * q * r / (s * far) ** 2,
        r * (square - 1.0) / (s * far**2),
        (more * square / far - 1.0 + 2.0 * more * q * square / far**2) / s**2,
        -square * (square - 1.0) / (s * far**2),
        qq,
    )


_OF = {
    densities.GAUSSIAN: _gaussian,
    densities.LAPLACE: _laplace,
    densities.LOG_NORMAL: _of_logarithm(_gaussian, lambda x, d, s: (x - d) / s**2),
    densities.LOG_LAPLACE: _of_logarithm(_laplace, lambda x, d, s: np.sign(x - d) / s),
    densities.POISSON: _poisson,
    densities.NEGATIVE_BINOMIAL: _negative_binomial,
    densities.STUDENT_T: _student_t,
}


def curvatures(density: int, y: np.ndarray, d: np.ndarray, s: np.ndarray, q: np.ndarray) -> Six:
    """Those of one density, for vectors of one length."""
    with np.errstate(all="ignore"):
        return _OF[density](y, d, s, q)
