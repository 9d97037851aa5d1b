"""Numerical derivatives of f, each with a margin that a right value keeps: the reference that hand-written rules are held against.

Central differences at many steps, extrapolated, say how far they can be trusted. The complex step `Im f(x + ih) / h` is exact to
rounding, but only for analytic code: `abs`, `.real` or a comparison may compile for complex numbers and give a wrong derivative.
So it is used entry by entry, where the differences confirm it.

Sources: Ridders, Adv. Eng. Software 4 (1982) 75; Squire and Trapp, SIAM Rev. 40 (1998) 110.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from adjode.callbacks import Callback

ACCURACY = 1e-10  # what is asked of a rule, relative to the derivative, where the reference is exact
UNKNOWN = 1e300  # the margin where no derivative could be computed; finite, so that products with a zero of lam vanish

_COMPLEX_STEP = 1e-30
_SAFETY = 10.0  # margin of a difference, in units of its error estimate
_ORDERS = 3  # extrapolations: a value comes from this many steps and one
_LEVELS = 9, 24  # least and most steps: each is a quarter of the one before
_PAD = 8


@dataclass(frozen=True, eq=False)
class Reference:
    """Products of many lam with the Jacobian at one point, and the margins that a right rule keeps."""

    values: np.ndarray  # (L, n + m): (df/du)^T lam, then (df/dtheta)^T lam
    margins: np.ndarray  # (L, n + m)
    transposed: np.ndarray  # (L, n): (df/du) lam
    by_complex_step: int  # how many entries of the Jacobian
    unknown: int

    @property
    def accuracy(self) -> float:
        """The largest margin, relative to the largest product, among u_bar or theta_bar."""
        n, worst = self.transposed.shape[1], 0.0
        for block in (slice(0, n), slice(n, None)):
            known = self.margins[:, block] < UNKNOWN * 1e-9
            size = np.max(np.abs(self.values[:, block]), initial=0.0)
            margin = np.max(self.margins[:, block], where=known, initial=0.0)
            worst = max(worst, margin / size if size > 0.0 else 0.0)
        return worst


def reference(f: Callback, t: float, u: np.ndarray, theta: np.ndarray, lams: np.ndarray, *, complex_step: bool) -> Reference:
    """Products with each row of `lams` (L, n), one column of the Jacobian after another: memory O(L (n + m))."""
    n, m = u.size, theta.size
    values, margins = np.empty((len(lams), n + m)), np.empty((len(lams), n + m))
    transposed = np.zeros((len(lams), n))
    by_complex_step = unknown = 0
    sizes = np.abs(lams)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", np.exceptions.ComplexWarning)  # an imaginary part was lost
        jacobian = _Jacobian(f, t, u, theta, complex_step)
        for j in range(n + m):
            column, margin, confirmed = jacobian.column(j)
            lost = ~np.isfinite(column + margin)
            column[lost], margin[lost] = 0.0, UNKNOWN
            values[:, j], margins[:, j] = lams @ column, sizes @ margin
            if j < n:
                transposed += np.outer(lams[:, j], column)
            by_complex_step += np.count_nonzero(confirmed)
            unknown += np.count_nonzero(lost)
    return Reference(values, margins, transposed, by_complex_step, unknown)


def takes_complex(f: Callback, t: float, u: np.ndarray, theta: np.ndarray) -> bool:
    """Whether f can be called with complex arrays: Numba compiles it for them here, unless it cannot."""
    arrays = [padded(a, np.complex128) for a in (u, theta, np.zeros_like(u))]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            f(t, *arrays)
        except Exception:  # Numba's, or the user's: either way the differences have to do
            return False
    return True


def padded(values: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """A copy that lies between NaNs, so that a read past its ends shows, and so does a write (see `overrun`)."""
    buffer = np.full(values.size + 2 * _PAD, np.nan, dtype=dtype)
    buffer[_PAD:-_PAD] = values
    return buffer[_PAD:-_PAD]


def overrun(array: np.ndarray) -> bool:
    """Whether something was written just outside of an array made by `padded`."""
    buffer = array.base
    return buffer is not None and not np.isnan(np.concatenate((buffer[:_PAD], buffer[-_PAD:]))).all()


class _Jacobian:
    """Columns of [df/du, df/dtheta] at one point."""

    def __init__(self, f: Callback, t: float, u: np.ndarray, theta: np.ndarray, complex_step: bool):
        self._f, self._t = f, t
        self._real = [padded(a) for a in (u, theta, np.zeros_like(u))]
        self._complex = [padded(a, np.complex128) for a in self._real] if complex_step else None
        self._typical = [np.max(np.abs(a), initial=0.0) or 1.0 for a in (u, theta)]
        self._here = self._shifted(self._real, 0, u[0])

    def column(self, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The derivatives by input j, their margins, and which come from the complex step."""
        near = self._differences(j)
        margin = _SAFETY * near.error
        value = near.value
        confirmed = np.zeros(value.size, dtype=bool)
        if self._complex is None:
            return value, margin + near.kink + ACCURACY * np.abs(value), confirmed
        x = self._input(self._real, j)
        exact = self._shifted(self._complex, j, complex(x[0][x[1]], _COMPLEX_STEP)).imag / _COMPLEX_STEP
        gap = np.abs(exact - value)  # NaN where there are no differences: then nothing speaks against the complex step
        confirmed = np.isfinite(exact) & ~(gap > margin + ACCURACY * np.abs(exact))
        size = np.fmax(near.size, np.max(np.abs(exact), where=confirmed, initial=0.0))
        tight = ACCURACY * np.abs(exact) + np.fmin(margin, ACCURACY * size)
        value = np.where(confirmed, exact, value)
        return value, np.where(confirmed, tight, margin + ACCURACY * np.abs(value)) + near.kink, confirmed

    def _differences(self, j: int) -> _Differences:
        vector, k = self._input(self._real, j)
        x, here = vector[k], self._here
        steps = _steps(x, self._typical[vector is self._real[1]])
        quotients, one_sided, sizes = (np.empty((steps.size, here.size)) for _ in range(3))
        for level, h in enumerate(steps):
            above, below = self._shifted(self._real, j, x + h), self._shifted(self._real, j, x - h)
            quotients[level] = (above - below) / ((x + h) - (x - h))
            one_sided[level] = np.abs((above - here) - (here - below)) / h
            sizes[level] = np.maximum(np.abs(here), np.maximum(np.abs(above), np.abs(below)))
        value, error, noise = _extrapolate(quotients, sizes, steps)
        kink = np.min(one_sided[-3:], axis=0)
        is_kink = (kink > 0.5 * one_sided[-4]) & (kink * steps[-3] > 40 * noise)  # of smooth f it would fall as the step does
        size = np.fmax.reduce(sizes) / steps[0]
        return _Differences(value, error, np.where(is_kink, 0.51 * kink, 0.0), size)

    def _shifted(self, arrays: list[np.ndarray], j: int, value: complex) -> np.ndarray:
        """f with input j replaced; NaN where f raises, as outside of its domain."""
        vector, k = self._input(arrays, j)
        du, kept = arrays[2], vector[k]
        vector[k] = value
        du.fill(complex(np.nan, np.nan) if np.iscomplexobj(du) else np.nan)
        try:
            self._f(self._t, *arrays)
        except Exception:  # whatever the user's code raises
            du.fill(complex(np.nan, np.nan) if np.iscomplexobj(du) else np.nan)
        vector[k] = kept
        return du.copy()

    @staticmethod
    def _input(arrays: list[np.ndarray], j: int) -> tuple[np.ndarray, int]:
        u, theta = arrays[:2]
        return (u, j) if j < u.size else (theta, j - u.size)


@dataclass(frozen=True, eq=False)
class _Differences:
    value: np.ndarray
    error: np.ndarray
    kink: np.ndarray  # half the gap between the derivatives from above and below, where f has a kink: any value between passes
    size: np.ndarray  # of f over the largest step


def _steps(x: float, typical: float) -> np.ndarray:
    """Steps from an eighth of the size of x down to a millionth of it, wider where x is small among its neighbours."""
    size = abs(x)
    coarse = max(size, min(typical, 1.0))
    fine = 1e-6 * size or 1e-10 * coarse  # nothing says how finely f varies around zero
    largest = 2.0 ** math.floor(math.log2(coarse / 8))
    levels = 1 + math.ceil(math.log(largest / max(fine, 1e-300), 4))
    return largest * 0.25 ** np.arange(min(max(levels, _LEVELS[0]), _LEVELS[1]))


def _extrapolate(quotients: np.ndarray, sizes: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The derivative from difference quotients (levels, n), its error, and the noise of f.

    Each window of four neighbouring steps is extrapolated to zero. The choice walks from the finest window, noisy but local, to
    the coarsest, and moves on only to a smaller error that is consistent with what it has: a wide step that jumps over a narrow
    feature of f agrees with itself, but not with the finer ones.
    """
    orders = [quotients]
    for k in range(1, _ORDERS + 1):
        orders.append(orders[-1][1:] + (orders[-1][1:] - orders[-1][:-1]) / (16.0**k - 1.0))
    values = orders[-1]
    changes = np.abs(values - orders[-2][:-1])
    finest = steps[_ORDERS:, None]
    noise = np.fmax.reduce((changes * finest)[-3:])
    rounding = np.finfo(float).eps * sizes[:-_ORDERS]
    errors = changes + 4.0 * np.fmax(noise, rounding) / finest
    errors[~np.isfinite(errors)] = np.inf

    value, error = values[-1].copy(), errors[-1].copy()
    for k in reversed(range(len(values) - 1)):
        better = (errors[k] < error) & ~(np.abs(values[k] - value) > 4.0 * error + errors[k])
        value[better], error[better] = values[k][better], errors[k][better]
    return value, error, np.fmax(noise, rounding[-1])
