"""The transpose of implicit stages.

With the cotangents kappa_i of K_i = f(t_i, Y_i), Y_i = y + h sum_j A_ij K_j, those of the stages' states are
w_i = J_i^T kappa_i + e_i (e_s = lam, since Y_s is the state after the step, else 0), and kappa_i = seed_i + h sum_j A_ji w_j; with
a mass matrix, M K_i = f(t_i, Y_i), it is M^T kappa_i. This linear system has the exact Jacobians J_i of the stages in it, of which
only products are formed, by the user's vjp. It is solved to rounding by GMRES (Saad, Schultz 1986, SIAM J. Sci. Stat. Comput. 7,
856-869), with the frozen matrix, transposed, as preconditioner: where the J_i differ from the frozen Jacobian in few ways, few
iterations are enough. Where the solution turns within the step it is restarted, as long as that gets on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import plane, row
from adjode.linalg.mass import multiply_transposed
from adjode.status import CALLBACK_RAISED, NEWTON_FAILED, NON_FINITE, STAGES_UNSOLVED, SUCCESS
from adjode.steppers.frozen import CURRENT, OLDER, STALE, Frozen
from adjode.tableaus import Tableau

_BASIS = 24  # vectors of a Krylov space at most
_PROGRESS = 0.1  # what a full space must make of the residual, or it is not tried again
_TOLERANCE = 1e-15
_SLACK = 1e4  # how far above that rounding in the products of a large stiff system may keep the residual
_ROUNDING = 5e-15  # of a stage's cotangents, by their norm: some times _TOLERANCE
_QUICK = 6  # iterations up to which a frozen Jacobian goes on to serve the step before
SAME_STEP = 0.2  # relative difference of step sizes that share a preconditioner


def put_transposed(frame: Any, tableau: Tableau, n: int) -> None:
    """Fill the slots of the Krylov space."""
    block = tableau.stages if tableau.family == "radau" else 1
    size = min(_BASIS, block * n)
    frame[slots.KRYLOV] = np.zeros((size + 3, block, n))  # the right-hand side and the sum of the restarts behind the basis
    frame[slots.HESSENBERG] = np.zeros((size + 4, size + 1))  # R by columns, then the rotations and the right-hand side


@kernel
def _dot(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            total += x[i, k] * y[i, k]
    return total


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
def _orthogonalise(basis, j, H):
    """Make vector j + 1 orthogonal to those before it, with its parts along them in column j of H; what length was left."""
    new = plane(basis, j + 1)
    for m in range(j + 1):
        old = plane(basis, m)
        part = _dot(old, new)
        H[m, j] = part
        for i in range(new.shape[0]):
            for k in range(new.shape[1]):
                new[i, k] -= part * old[i, k]
    length = math.sqrt(_dot(new, new))
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
def _mend(product, x, right, scale):
    """Put right the entries of J^T x that rounding has spoilt, by the equation x = right + (J^T x) / scale of a stage alone.

    Where J has entries of z times the scale, 1 / (h gamma), the product is off by z times the rounding of scale * x. An explicit
    first stage multiplies by J once more: together z^2, which took all digits from the cotangent of a state that decays within 1e-8
    of the first step. The equation is off by the rounding of scale * x for all entries alike; smaller differences stay.
    """
    size = 0.0
    for k in range(x.size):
        size += x[k] * x[k]
    rounding = _ROUNDING * math.sqrt(size) * abs(scale)
    for k in range(product.size):
        other = (x[k] - right[k]) * scale
        if abs(other - product[k]) > rounding:
            product[k] = other


@kernel
def _add(out, x):
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] += x[i, k]


def make_gmres(apply: Callable) -> Callable:
    """`apply(frame, t, h, t_new, V, first, x, out) -> status` multiplies by the preconditioned matrix."""

    @kernel
    def reduce(frame, t, h, t_new, V, first, x, size, target):
        """x = what to add for the residual in x, of norm `size`: (status, norm of what will be left, iterations)."""
        basis, H = slots.KRYLOV(frame), slots.HESSENBERG(frame)
        most = H.shape[1] - 1
        right, residual, j = row(H, most + 3), size, 0
        right[0] = size
        _scale(plane(basis, 0), x, 1.0 / size)
        before = math.inf
        while j < most and residual > target and not (j > 3 and residual <= _SLACK * target and residual > 0.5 * before):
            if apply(frame, t, h, t_new, V, first, plane(basis, j), plane(basis, j + 1)) != SUCCESS:
                return CALLBACK_RAISED, residual, j
            before, residual = residual, _rotate(H, j, _orthogonalise(basis, j, H))
            j += 1
        if math.isnan(residual):
            return NON_FINITE, residual, j
        _minimiser(basis, H, right, j, x)
        return SUCCESS, residual, j

    @kernel
    def gmres(frame, t, h, t_new, V, first, x):
        """Solve for the right-hand side in x, already preconditioned, in place: (status, iterations)."""
        basis, most = slots.KRYLOV(frame), slots.HESSENBERG(frame).shape[1] - 1
        given, total, size = plane(basis, most + 1), plane(basis, most + 2), math.sqrt(_dot(x, x))
        if size == 0.0:
            return SUCCESS, 0
        target = _TOLERANCE * size
        _scale(given, x, 1.0)
        _scale(total, x, 0.0)
        status, left, taken = reduce(frame, t, h, t_new, V, first, x, size, target)
        iterations = taken
        while status == SUCCESS and target < left <= _PROGRESS * size:
            _add(total, x)
            if apply(frame, t, h, t_new, V, first, total, x) != SUCCESS:
                return CALLBACK_RAISED, iterations
            for i in range(x.shape[0]):
                for k in range(x.shape[1]):
                    x[i, k] = given[i, k] - x[i, k]
            size = math.sqrt(_dot(x, x))
            status, left, taken = reduce(frame, t, h, t_new, V, first, x, size, target)
            iterations += taken + 1  # the product for the residual is one more
        _add(x, total)
        enough = _SLACK * target if taken < most else target  # held by rounding, or by the size of the space
        return (STAGES_UNSOLVED if status == SUCCESS and left > enough else status), iterations

    return gmres


def make_transposed_block(pull: Callable, product: Callable, frozen: Frozen, precondition: Callable) -> Callable:
    """The transpose of the stages first..last, which are solved for together.

    `pull(frame, t, u, w, u_bar) -> status` gives u_bar = (df/du)^T w and keeps (df/dtheta)^T w; `product` gives u_bar alone;
    `precondition(frame, x)` multiplies a block of cotangents by the inverse of the frozen system.
    """
    refresh, massed = frozen.refresh, frozen.massed

    @kernel
    def stage_time(frame, t, h, t_new, i):
        last = i == slots.SETTING(frame)[slots.LAST_STAGE]
        return t_new if last else t + slots.C(frame)[i] * h

    @kernel
    def apply(frame, t, h, t_new, V, first, x, out):
        A, stage_bar = slots.A(frame), slots.STAGE_BAR(frame)
        for i in range(x.shape[0]):
            if massed:
                multiply_transposed(frame, row(x, i), row(out, i))
            else:
                for k in range(x.shape[1]):
                    out[i, k] = x[i, k]
        for j in range(x.shape[0]):
            if product(frame, stage_time(frame, t, h, t_new, first + j), row(V, first + j), row(x, j), stage_bar) != 0:
                return CALLBACK_RAISED
            for i in range(x.shape[0]):
                weight = h * A[first + j, first + i]
                for k in range(x.shape[1]):
                    out[i, k] -= weight * stage_bar[k]
        precondition(frame, out)
        return SUCCESS

    gmres = make_gmres(apply)

    @kernel
    def solve(frame, t, h, t_new, V, first):
        """RIGHT holds the right-hand sides; their solution into W; the status."""
        count, right, x = slots.COUNT(frame), slots.RIGHT(frame), slots.W(frame)
        middle = first + x.shape[0] // 2
        while True:
            status = refresh(frame, stage_time(frame, t, h, t_new, middle), row(V, middle), h)
            if status in (CALLBACK_RAISED, NON_FINITE):
                return status
            iterations = 0
            if status == SUCCESS:
                for i in range(x.shape[0]):
                    for k in range(x.shape[1]):
                        x[i, k] = right[i, k]
                precondition(frame, x)
                status, iterations = gmres(frame, t, h, t_new, V, first, x)
            count[slots.ITERATIONS] += iterations
            fresh = count[slots.FRESHNESS] == CURRENT
            count[slots.FRESHNESS] = OLDER if status == SUCCESS and (fresh or iterations <= _QUICK) else STALE
            if status in (SUCCESS, CALLBACK_RAISED) or fresh:
                return STAGES_UNSOLVED if status == NEWTON_FAILED else status

    @kernel
    def transposed_block(frame, t, h, t_new, V, first):
        """Pull the cotangents of K in this block, and LAM if its last stage is the state after the step, back to y and K before."""
        A, K_bar, right = slots.A(frame), slots.K_BAR(frame), slots.RIGHT(frame)
        stage_bar, y_bar, lam = slots.STAGE_BAR(frame), slots.Y_BAR(frame), slots.LAM(frame)
        x, s = slots.W(frame), slots.SETTING(frame)[slots.LAST_STAGE]
        inverse = slots.INVERSE(frame)
        ends = first + x.shape[0] - 1 == s
        for i in range(x.shape[0]):
            for k in range(lam.size):
                right[i, k] = K_bar[first + i, k] + (h * A[s, first + i] * lam[k] if ends else 0.0)
        status = solve(frame, t, h, t_new, V, first)
        if status != SUCCESS:
            return status
        for i in range(x.shape[0]):
            stage = first + i
            if pull(frame, stage_time(frame, t, h, t_new, stage), row(V, stage), row(x, i), stage_bar) != 0:
                return CALLBACK_RAISED
            if A[stage, 0] != 0.0:
                _mend(stage_bar, row(x, i), row(right, i), inverse[i, i] / h)
            for k in range(lam.size):
                w = stage_bar[k] + (lam[k] if stage == s else 0.0)
                y_bar[k] += w
                for j in range(first):
                    K_bar[j, k] += h * A[stage, j] * w
        return SUCCESS

    return transposed_block
