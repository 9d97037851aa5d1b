"""The start of a solve with a mass matrix: whether M du/dt = f and its algebraic equations can be solved from there, and du/dt.

With c large, M - J/c stands for M in all differential equations and for -J/c in the algebraic ones. So its inverse gives du/dt from
the part of f in the range of M, and from the rest, divided by c, the correction of u that the algebraic equations ask for while M u
stays as it is. Its largest entries tend to a limit as c grows if the algebraic equations determine what they should (index 1);
otherwise they grow with c.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import flat, row
from adjode.linalg.linear import Linear
from adjode.linalg.mass import split
from adjode.status import HIGH_INDEX, INCONSISTENT, SUCCESS
from adjode.steppers.frozen import CURRENT, Frozen

_LARGE = 1e8  # c, in units of the entries of J
_FURTHER = 1e3  # how much larger it is made to see whether a limit is reached
_GROWTH = 30.0  # ... and by how much an entry may grow with it: by 1 for index 1, by _FURTHER for index 2


@exact_kernel
def _largest(x):
    largest = 0.0
    for k in range(x.size):
        if not abs(x[k]) <= largest:  # NaN, too
            largest = abs(x[k])
    return largest


@kernel
def _scale_of_mass(frame):
    """The smallest of the largest entries of the rows of M that are not zero."""
    starts, values, least = slots.MASS_STARTS(frame), slots.MASS(frame), math.inf
    for i in range(starts.size - 1):
        largest = 0.0
        for p in range(starts[i], starts[i + 1]):
            largest = max(largest, abs(values[p]))
        if 0.0 < largest:
            least = min(least, largest)
    return least if least < math.inf else 1.0


@exact_kernel
def _largest_in_tolerances(frame, x):
    """The largest |x| / (atol + rtol |y|); NaN if there is one."""
    y, atol, rtol, largest = (
        slots.Y(frame),
        slots.ATOL(frame),
        slots.CONTROL(frame)[slots.RTOL],
        0.0,
    )
    for k in range(x.size):
        scale = atol[k] + rtol * abs(y[k])
        if x[k] != 0.0:
            scaled = abs(x[k]) / scale if scale > 0.0 else math.inf
            if not scaled <= largest:
                largest = scaled
    return largest


def make_start(frozen: Frozen) -> tuple[Callable, Callable]:
    """With a mass matrix: `begin(frame, t) -> status` and `to_slope(frame, f)`.

    `begin` finds f at the start in K[0]; after it `to_slope` puts du/dt in the place of f.
    `begin` overwrites ERROR, K[1], K[2], and the factors of a step. With INCONSISTENT, ERROR is the correction of the state that
    the algebraic equations ask for.
    """
    factor_with, solve_with = _make_solver(frozen.linear)
    correction_of = _make_correction(solve_with)
    check = _make_check(frozen.jacobian, _make_grows(factor_with, correction_of), correction_of)

    @kernel
    def begin(frame, t):
        if slots.NULL_STARTS(frame).size == 1:
            return SUCCESS if factor_with(frame, 0.0) == 0 else HIGH_INDEX
        return check(frame, t)

    @kernel
    def to_slope(frame, f):
        split(frame, f, row(slots.MASSED(frame), 0))
        return solve_with(frame, f)

    return begin, to_slope


def _make_solver(linear: Linear) -> tuple[Callable, Callable]:
    shift, factor, solve = linear.shift, linear.factor, linear.solve

    @kernel
    def factor_with(frame, weight):
        """Factor M - weight J: 0, or another number."""
        A = slots.LU(frame)
        slots.COUNT(frame)[slots.FACTORISATIONS] += 1
        shift(frame, slots.JACOBIAN(frame), A, 1.0, -weight)
        return factor(frame, A, slots.PIVOTS(frame))

    @kernel
    def solve_with(frame, b):
        return solve(frame, slots.LU(frame), slots.PIVOTS(frame), b)

    return factor_with, solve_with


def _make_correction(solve_with: Callable) -> Callable:
    @kernel
    def correction_of(frame, weight, f, out):
        """out = what the algebraic equations ask for where f is what they leave; its largest entry in tolerances."""
        split(frame, f, out)
        if solve_with(frame, out) != 0:
            return math.nan
        for k in range(out.size):
            out[k] *= weight
        return _largest_in_tolerances(frame, out)

    return correction_of


def _make_grows(factor_with: Callable, correction_of: Callable) -> Callable:
    @kernel
    def grows(frame, weight):
        """Whether corrections grow with c = 1/weight, by which M - weight J is factored in the end."""
        K, error = slots.K(frame), slots.ERROR(frame)
        f, probe = row(K, 1), row(K, 2)
        for k in range(f.size):
            f[k] = math.cos(k + 1.0)  # any numbers
            probe[k] = f[k]
        further = math.nan
        if factor_with(frame, weight / _FURTHER) == 0:
            further = correction_of(frame, weight / _FURTHER, f, error)
        near = correction_of(frame, weight, probe, error) if factor_with(frame, weight) == 0 else math.nan
        return not further <= _GROWTH * near

    return grows


def _make_check(jacobian: Callable, grows: Callable, correction_of: Callable) -> Callable:
    @kernel
    def check(frame, t):
        """Whether the algebraic equations determine what they should, and hold."""
        K, f = slots.K(frame), row(slots.K(frame), 1)
        status = jacobian(frame, t, slots.Y(frame))
        if status != SUCCESS:
            return status
        slots.COUNT(frame)[slots.FRESHNESS] = CURRENT
        slots.CLOCK(frame)[slots.H_FACTORED] = 0.0
        largest = _largest(flat(slots.JACOBIAN(frame)))
        if largest == 0.0:
            return HIGH_INDEX
        weight = _scale_of_mass(frame) / (_LARGE * largest)
        if grows(frame, weight):
            return HIGH_INDEX
        for k in range(f.size):
            f[k] = K[0, k]
        return SUCCESS if correction_of(frame, weight, f, slots.ERROR(frame)) <= 1.0 else INCONSISTENT

    return check
