"""Numerical derivatives of f, each with a margin that a right value keeps: the reference that hand-written rules are held against.

Central differences at many steps, extrapolated, say how far they can be trusted. The complex step `Im f(x + ih) / h` is exact to
rounding, but only for analytic code: `abs`, `.real` or a comparison may compile for complex numbers and give a wrong derivative.
So it is used only where the differences do not refute it.

Sources: Ridders, Adv. Eng. Software 4 (1982) 75; Squire and Trapp, SIAM Rev. 40 (1998) 110.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adjode.model.callbacks import Callback, unwarned
from adjode.model.trial import padded

ACCURACY = 1e-10  # what is asked of a rule, relative to the derivative, where the reference is exact
UNKNOWN = 1e300  # the margin where no derivative could be computed; finite, so that products with a zero of lam vanish

_COMPLEX_STEPS = 1e-100, 1e-60, 1e-30
_SAFETY = 10.0  # margins, in units of error estimates
_EPS = float(np.finfo(float).eps)
_ROUNDING = 4.0 * _EPS
VAGUE = 1e-3  # relative margin of differences from which they do not confirm the complex step
_TINY = 1e-290  # below this, numbers lose their digits
_LEVELS = 9, 20  # least and most steps
_NEGLIGIBLE = 1e-6  # parts of `sizes` that hardly show in a gradient


@dataclass(frozen=True, eq=False)
class Reference:
    """Products of many lam with the Jacobian at one point, and how well they are known.

    Attributes
    ----------
    values : (L, n + m) array
        (df/du)^T lam, then (df/dtheta)^T lam.
    margins : (L, n + m) array
        What is further off is wrong.
    narrow : (L, n + m) array
        What is nearer is right, and what lies between cannot be judged: there the complex step has a value that differences are too
        coarse to confirm.
    sizes : (L, n + m) array
        What an entry counts for: its terms of f divided by its input.
    transposed : (L, n) array
        (df/du) lam.
    by_complex_step, unknown : int
        How many entries of the Jacobian.
    """

    values: np.ndarray
    margins: np.ndarray
    narrow: np.ndarray
    sizes: np.ndarray
    transposed: np.ndarray
    by_complex_step: int
    unknown: int

    @property
    def accuracy(self) -> np.ndarray:
        """How far products (L, n + m) could be off unnoticed: in parts of themselves or, if they may be zero, of `sizes`."""
        return self.narrow / np.where(self.is_small, self.sizes, np.abs(self.values))

    @property
    def is_small(self) -> np.ndarray:
        """Which products (L, n + m) cannot be told from zero."""
        return np.abs(self.values) <= self.narrow

    def can_judge(self, given: np.ndarray, part: slice) -> np.ndarray:
        """Whether products (L, size) that a rule gives are judged, right or wrong.

        What cannot be told from zero is judged if the rule, too, gives no more than rounding leaves of zero.
        """
        size, near = self.sizes[:, part], np.abs(given - self.values[:, part]) <= self.narrow[:, part]
        is_zero = np.abs(given) <= _ROUNDING * size
        known = np.where(self.is_small[:, part], is_zero & (self.accuracy[:, part] <= _NEGLIGIBLE), self.accuracy[:, part] <= VAGUE)
        return near & known


def reference(f: Callback, t: float, u: np.ndarray, theta: np.ndarray, lams: np.ndarray, *, complex_step: bool) -> Reference:
    """Products with each row of `lams` (L, n), one column of the Jacobian after another: memory O(L (n + m))."""
    n, m = u.size, theta.size
    values, margins, narrow = (np.empty((len(lams), n + m)) for _ in range(3))
    transposed = np.zeros((len(lams), n))
    by_complex_step = unknown = 0
    weights = np.abs(lams)
    with unwarned(np.exceptions.ComplexWarning):  # an imaginary part was lost
        jacobian = _Jacobian(f, t, u, theta, complex_step)
        for j in range(n + m):
            column = jacobian.column(j)
            if column.refuted.any():  # f is not analytic: then the complex step is wrong elsewhere, too, where it shows less
                return reference(f, t, u, theta, lams, complex_step=False)
            lost = ~np.isfinite(column.values + column.margins)
            column.values[lost], column.margins[lost], column.narrow[lost] = 0.0, UNKNOWN, UNKNOWN
            values[:, j], margins[:, j], narrow[:, j] = lams @ column.values, weights @ column.margins, weights @ column.narrow
            if j < n:
                transposed += np.outer(lams[:, j], column.values)
            by_complex_step += int(np.count_nonzero(column.by_complex_step))
            unknown += int(np.count_nonzero(lost))
    sizes = _sizes(values, weights @ jacobian.magnitude, np.concatenate([np.abs(u), np.abs(theta)]))
    narrow += np.where(values == 0.0, _ROUNDING * sizes, 0.0)  # what a rule may leave of zero
    margins = np.maximum(margins, narrow)
    return Reference(values, margins, narrow, sizes, transposed, by_complex_step, unknown)


def _sizes(values: np.ndarray, f: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The largest of f and of its logarithmic derivatives, for each lam, divided by each input; by 1 where that is zero."""
    terms = np.maximum(f, np.max(np.abs(values) * x, axis=1, initial=0.0))
    return np.maximum(terms, _TINY / ACCURACY)[:, None] / np.where(x > 0.0, x, 1.0)


def takes_complex(f: Callback, t: float, u: np.ndarray, theta: np.ndarray) -> bool:
    """Whether f can be called with complex arrays: Numba compiles it for them here, unless it cannot."""
    arrays = [np.array(a, dtype=np.complex128) for a in (u, theta, np.zeros_like(u))]
    with unwarned(np.exceptions.ComplexWarning):
        try:
            f(t, *arrays)
        except Exception:  # Numba's, or the user's: either way the differences have to do
            return False
    return True


class _Jacobian:
    """Columns of [df/du, df/dtheta] at one point."""

    def __init__(self, f: Callback, t: float, u: np.ndarray, theta: np.ndarray, complex_step: bool):
        self._f, self._t = f, t
        self._real = [padded(a) for a in (u, theta, np.zeros_like(u))]
        self._typical = [np.max(np.abs(a), initial=0.0) or 1.0 for a in (u, theta)]
        nudged = self._nudged()
        here, *moved = (self._shifted(arrays, 0, arrays[0][0]) for arrays in nudged)
        self._here = here
        self._rounding = np.fmax(_EPS * np.abs(here), np.fmax.reduce(np.abs(np.array(moved) - here)))
        self._complex = [[padded(a, np.complex128) for a in arrays] for arrays in nudged] if complex_step else []

    @property
    def magnitude(self) -> np.ndarray:
        return np.nan_to_num(np.abs(self._here))

    def column(self, j: int) -> _Column:
        near = self._differences(j)
        margin = _SAFETY * near.error + near.kink + ACCURACY * np.abs(near.value) + _TINY
        if not self._complex:
            nowhere = np.zeros(near.value.size, dtype=bool)
            return _Column(near.value, margin, margin.copy(), nowhere, nowhere)
        exact, scatter = self._complex_steps(j)
        off = np.abs(exact - near.local)  # NaN where there are no differences: then nothing speaks against the complex step
        refuted = off > _SAFETY * near.local_error + near.kink + ACCURACY * np.abs(exact) + scatter
        used = np.isfinite(exact) & ~refuted
        gap = np.abs(exact - near.value)
        # Wide steps may deceive themselves, and tiny terms of f may not be analytic; nor is what drowns in rounding confirmed.
        doubt = np.where(gap > margin, gap, 0.0) + np.where((gap > margin) | (margin > VAGUE * np.abs(exact)), margin, 0.0)
        narrow = ACCURACY * np.abs(exact) + scatter + near.kink + _TINY
        narrow, wide = (np.where(used, own, margin) for own in (narrow, narrow + near.rounding + doubt))
        return _Column(np.where(used, exact, near.value), wide, narrow, used, refuted)

    def _nudged(self) -> list[list[np.ndarray]]:
        """The arrays (u, theta, du), and twice more with every entry of u and theta moved by some units of rounding."""
        u, theta, du = self._real
        rng = np.random.default_rng(3)
        nudged = [self._real]
        for _ in range(2):
            moved = (a * (1.0 + _EPS * rng.integers(2, 5, a.size) * rng.choice((-1, 1), a.size)) for a in (u, theta))
            nudged.append([*map(padded, moved), du])
        return nudged

    def _complex_steps(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """The derivative by the complex step, and how far rounding and the size of the step move it."""
        taken = []
        for arrays, step in zip(self._complex, _COMPLEX_STEPS, strict=True):
            vector, k = self._input(arrays, j)
            taken.append(self._shifted(arrays, j, vector[k] + 1j * step).imag / step)
        return taken[0], _SAFETY * np.fmax(np.abs(taken[1] - taken[0]), np.abs(taken[2] - taken[0]))

    def _differences(self, j: int) -> _Differences:
        vector, k = self._input(self._real, j)
        x, here = vector[k], self._here
        steps = _steps(x, self._typical[vector is self._real[1]])
        h = steps[:, None]
        above = np.array([self._shifted(self._real, j, x + step) for step in steps])
        below = np.array([self._shifted(self._real, j, x - step) for step in steps])
        quotients = (above - below) / ((x + h) - (x - h))
        sizes = np.fmax(np.abs(above), np.abs(below))
        values, errors, noise = _extrapolate(quotients, np.fmax(_EPS * sizes, self._rounding), steps)
        half = len(values) // 2
        local, local_error = _walk(values[half:], errors[half:])
        value, error = _walk(values, errors)

        gap = np.abs((above - here) - (here - below)) / h  # between the one-sided derivatives; for smooth f it falls with the step
        is_kink = (gap[-5] > 0.1 * gap[-7]) & (gap[-5] * h[-5] > 16.0 * noise + 100.0 * self._rounding)
        kink = np.where(is_kink, 0.6 * np.max(gap[-7:], axis=0), 0.0)
        return _Differences(value, error, local, local_error, kink, self._rounding / steps[0])

    def _shifted(self, arrays: list[np.ndarray], j: int, value: complex) -> np.ndarray:
        """f with input j replaced; NaN where f raises, as outside of its domain."""
        vector, k = self._input(arrays, j)
        du, kept = arrays[2], vector[k]
        nothing = complex(np.nan, np.nan) if np.iscomplexobj(du) else np.nan
        vector[k] = value
        du.fill(nothing)
        try:
            self._f(self._t, *arrays)
        except Exception:  # whatever the user's code raises
            du.fill(nothing)
        vector[k] = kept
        return du.copy()

    @staticmethod
    def _input(arrays: list[np.ndarray], j: int) -> tuple[np.ndarray, int]:
        u, theta = arrays[:2]
        return (u, j) if j < u.size else (theta, j - u.size)


@dataclass(frozen=True, eq=False)
class _Column:
    """The derivatives of f by one input, with the margins of `Reference`; where the complex step gave them, or a wrong one."""

    values: np.ndarray
    margins: np.ndarray
    narrow: np.ndarray
    by_complex_step: np.ndarray
    refuted: np.ndarray


@dataclass(frozen=True, eq=False)
class _Differences:
    value: np.ndarray
    error: np.ndarray
    local: np.ndarray  # the derivative by narrow steps alone: less exact, harder to deceive
    local_error: np.ndarray
    kink: np.ndarray  # half the gap between the derivatives from above and below, where f has a kink: any value between passes
    rounding: np.ndarray  # of f, divided by the widest step


def _steps(x: float, typical: float) -> np.ndarray:
    """Steps from an eighth of the size of x down, each an eighth of the one before; wider where x is small among its neighbours."""
    size = abs(x)
    coarse = max(size, min(typical, 1.0))
    fine = 1e-8 * size or 1e-12 * coarse  # nothing says how finely f varies around zero
    largest = 2.0 ** math.floor(math.log2(coarse / 8))
    levels = 1 + math.ceil(math.log(largest / max(fine, 1e-300), 8))
    return largest * 0.125 ** np.arange(min(max(levels, _LEVELS[0]), _LEVELS[1]))


def _extrapolate(quotients: np.ndarray, rounding: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference quotients (levels, n), extrapolated to step zero in each window of three levels; errors; the noise of f."""
    once = quotients[1:] + np.diff(quotients, axis=0) / (8.0**2 - 1.0)
    values = once[1:] + np.diff(once, axis=0) / (8.0**4 - 1.0)
    changes = np.abs(values - once[:-1])
    finest = steps[2:, None]
    noise = changes * finest  # of f, where the step is so narrow that nothing else changes
    errors = changes + 4.0 * np.fmax(np.fmax.reduce(noise[-3:]), rounding[:-2]) / finest
    return values, np.where(np.isfinite(errors), errors, np.inf), np.fmax(noise[-1], 4.0 * rounding[-3])


def _walk(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of the windows, from the finest, noisy but local, to the widest.

    It moves on only to a smaller error that is consistent with what it has: a wide step that jumps over a narrow feature of f
    agrees with itself, but not with the finer ones.
    """
    value, error = values[-1].copy(), errors[-1].copy()
    for next_value, next_error in zip(values[-2::-1], errors[-2::-1], strict=True):
        better = (next_error < error) & ~(np.abs(next_value - value) > 4.0 * error + next_error)
        value[better], error[better] = next_value[better], next_error[better]
    return value, error
