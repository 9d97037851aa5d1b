"""GMRES inside kernels, restarted as long as that gets on.

Y. Saad, M. Schultz, SIAM J. Sci. Stat. Comput. 7 (1986) 856. Vectors are matrices (rows, n) here, and the matrix is a kernel:
`apply(frame, t, h, t_new, V, first, x, out) -> status`, where all but x and out is handed on to it. They are cotangents of states,
each in a unit of its own, and the least of them may matter: the scalar product is that of entries in units of what the right-hand
side, preconditioned, has there, or where that is nearly nothing, of a part of the largest entry, with or without its unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.frame import Frame
from adjode.compile.views import plane, row
from adjode.status import CALLBACK_RAISED, NON_FINITE, STAGES_UNSOLVED, SUCCESS

_BASIS = 24  # vectors of a Krylov space at most
_PROGRESS = 0.1  # what a full space must make of the residual, or it is not tried again
_TO_ROUNDING = 1e-15
_NOTHING = 1e-140  # below that the preconditioned right-hand side will do for a solution, and the squares of weights overflow
_LEAST = 1e-4  # of the largest entry: with smaller ones rounding would be asked for its digits
_SLACK = 1e4  # how far above that rounding in the products of a large stiff system may keep the residual


def put_gmres(frame: Frame, rows: int, n: int) -> None:
    """Fill the slots that it works on, for vectors (rows, n)."""
    size = min(_BASIS, rows * n)
    frame[slots.KRYLOV] = np.zeros((size + 3, rows, n))  # the right-hand side and the sum of the restarts behind the basis
    frame[slots.SOLVE_WEIGHTS] = np.ones(n)
    frame[slots.HESSENBERG] = np.zeros((size + 4, size + 1))  # R by columns, then the rotations and the right-hand side


@kernel
def _dot(x, y, weights):
    total = 0.0
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            total += (x[i, k] * weights[k]) * (y[i, k] * weights[k])
    return total


@exact_kernel
def _weigh(x, sizes, weights):
    """Make the largest entry of x 1, so that no square underflows, and weigh the entries: what the largest one was, or 0."""
    largest, in_units = 0.0, 0.0
    for k in range(x.shape[1]):
        own = 0.0
        for i in range(x.shape[0]):
            own = max(own, abs(x[i, k]))
        weights[k], largest, in_units = own, max(largest, own), max(in_units, own * sizes[k])
    if not largest > _NOTHING:
        return 0.0
    for k in range(x.shape[1]):
        weights[k] = 1.0 / max(weights[k] / largest, _LEAST * min(1.0, in_units / largest / sizes[k]), _NOTHING)
    _scale(x, x, 1.0 / largest)
    return largest


@exact_kernel
def _rotate(H, j, size):
    """The next column of the least-squares problem, rotated to triangular form; the norm of the residual.

    `size` is the length of what is left of the new vector.
    """
    m = H.shape[1] - 1
    cosine, sine, right = row(H, m + 1), row(H, m + 2), row(H, m + 3)
    for i in range(j):
        above, below = H[i, j], H[i + 1, j]
        H[i, j] = cosine[i] * above + sine[i] * below
        H[i + 1, j] = cosine[i] * below - sine[i] * above
    radius = math.sqrt(H[j, j] * H[j, j] + size * size)
    if not radius > 0.0:
        return math.nan
    cosine[j], sine[j] = H[j, j] / radius, size / radius
    H[j, j] = radius
    right[j + 1] = -sine[j] * right[j]
    right[j] *= cosine[j]
    return abs(right[j + 1])


@kernel
def _scale(out, x, factor):
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] = factor * x[i, k]


@kernel
def _orthogonalise(basis, j, H, weights):
    """Make vector j + 1 orthogonal to those before it, with its parts along them in column j of H; what length was left."""
    new = plane(basis, j + 1)
    for m in range(j + 1):
        old = plane(basis, m)
        part = _dot(old, new, weights)
        H[m, j] = part
        for i in range(new.shape[0]):
            for k in range(new.shape[1]):
                new[i, k] -= part * old[i, k]
    length = math.sqrt(_dot(new, new, weights))
    _scale(new, new, 1.0 / length if length > 0.0 else 0.0)
    return length


@kernel
def _minimiser(basis, H, right, j, x):
    """x = the combination of the first j vectors that solves the triangular system H y = right."""
    for m in range(j - 1, -1, -1):
        for i in range(m + 1, j):
            right[m] -= H[m, i] * right[i]
        right[m] /= H[m, m]
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            total = 0.0
            for m in range(j):
                total += right[m] * basis[m, i, k]
            x[i, k] = total


@kernel
def _add(out, x):
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] += x[i, k]


@kernel
def _subtract_from(x, right):
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            x[i, k] = right[i, k] - x[i, k]


@kernel
def _goes_on(j, most, residual, before, target):
    """Whether the space is to grow; where rounding holds the residual, it falls no more."""
    return j < most and residual > target and not (j > 3 and residual <= _SLACK * target and residual > 0.5 * before)


def _make_reduce(apply: Callable) -> Callable:
    @kernel
    def reduce(frame, t, h, t_new, V, first, x, size, target):
        """x = what to add for the residual in x, of norm `size`: (status, norm of what will be left, iterations)."""
        basis, H, weights = slots.KRYLOV(frame), slots.HESSENBERG(frame), slots.SOLVE_WEIGHTS(frame)
        most = H.shape[1] - 1
        right, residual, j = row(H, most + 3), size, 0
        right[0] = size
        _scale(plane(basis, 0), x, 1.0 / size)
        before = math.inf
        while _goes_on(j, most, residual, before, target):
            if apply(frame, t, h, t_new, V, first, plane(basis, j), plane(basis, j + 1)) != SUCCESS:
                return CALLBACK_RAISED, residual, j
            beyond = _orthogonalise(basis, j, H, weights)
            if j == 0:
                slots.CLOCK(frame)[slots.APART] = math.sqrt((H[0, 0] - 1.0) ** 2 + beyond**2)
            before, residual = residual, _rotate(H, j, beyond)
            j += 1
        if math.isnan(residual):
            return NON_FINITE, residual, j
        _minimiser(basis, H, right, j, x)
        return SUCCESS, residual, j

    return reduce


def make_gmres(apply: Callable) -> Callable:
    reduce = _make_reduce(apply)

    @kernel
    def gmres(frame, t, h, t_new, V, first, x):
        """Solve for the right-hand side in x, already preconditioned, in place: (status, iterations)."""
        basis, most, weights = slots.KRYLOV(frame), slots.HESSENBERG(frame).shape[1] - 1, slots.SOLVE_WEIGHTS(frame)
        given, total, largest = plane(basis, most + 1), plane(basis, most + 2), _weigh(x, slots.U_SIZE(frame), weights)
        if largest == 0.0:
            return SUCCESS, 0
        size = math.sqrt(_dot(x, x, weights))
        target = _TO_ROUNDING * size
        _scale(given, x, 1.0)
        _scale(total, x, 0.0)
        status, left, taken = reduce(frame, t, h, t_new, V, first, x, size, target)
        iterations = taken
        while status == SUCCESS and target < left <= _PROGRESS * size:
            _add(total, x)
            if apply(frame, t, h, t_new, V, first, total, x) != SUCCESS:
                return CALLBACK_RAISED, iterations
            _subtract_from(x, given)
            iterations += 1  # the product for the residual
            size = left = math.sqrt(_dot(x, x, weights))
            if size <= target:  # and x is as good a correction as any
                break
            status, left, taken = reduce(frame, t, h, t_new, V, first, x, size, target)
            iterations += taken
        _add(x, total)
        _scale(x, x, largest)
        short = taken >= most and most < x.size  # held by the size of the space, or else by rounding
        enough = target if short else _SLACK * target
        return (STAGES_UNSOLVED if status == SUCCESS and left > enough else status), iterations

    return gmres
