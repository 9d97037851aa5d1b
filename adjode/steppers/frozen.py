"""The frozen matrix of implicit methods: the Jacobian, how long it is kept, and the factors of mu/h - J, or mu/h M - J.

One Jacobian and its factors serve several steps, their retries and error estimates; transposed, they serve the adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.slot import Slot
from adjode.linalg.linear import Linear
from adjode.status import NEWTON_FAILED, SUCCESS
from adjode.tableaus import Tableau

# Values of COUNT[FRESHNESS]: there is no Jacobian that should be used; it comes from an earlier step; from this one.
STALE, OLDER, CURRENT = range(3)
_SAME_STEP = 1e-6  # by rounding, or to meet a stop: Newton's rate changes by no more than this


class Frozen:
    """Kernels around the frozen matrix of a right-hand side.

    Parameters
    ----------
    jacobian : kernel
        `jacobian(frame, t, y) -> status` fills JACOBIAN.
    linear : Linear
        The kernels for its storage.
    turned : bool
        Whether the right-hand side has the Jacobian -J^T in place of J, as lam's has.
    place : float
        Where in the step to evaluate it, where it can be had: lam's is nearest to those of all stages in the middle.
    same_step : float
        Relative difference of step sizes that share a factorisation.

    Attributes
    ----------
    refresh : (frame, t, y, h) -> status
        Make Jacobian and factors for a step of h from (t, y), as far as those at hand will not do.
    solve, solve_pair : (frame, b)
        b = (mu/h - J)^-1 b, and the same with the complex eigenvalue for interleaved complex b (2n,). With a mass matrix,
        (mu/h M - J)^-1 b.
    solve_transposed, solve_pair_transposed : (frame, b)
        The same with the transposed matrices; the eigenvalue is not conjugated. A solve that fails leaves NaN.
    massed : bool
        Whether there is a mass matrix.
    """

    def __init__(self, jacobian: Callable, linear: Linear, turned: bool = False, place: float = 0.0, same_step: float = _SAME_STEP):
        shift, shift_complex = linear.shift, linear.shift_complex
        factor_real, factor_complex = linear.factor, linear.factor_complex

        # lam's matrix mu/h + J^T is minus the transpose of -mu/h - J
        sign = -1.0 if turned else 1.0

        @kernel
        def factor(frame, h):
            J, M, values = slots.JACOBIAN(frame), slots.LU(frame), slots.EIGENVALUES(frame)
            count, scale = slots.COUNT(frame), sign / h
            shift(frame, J, M, scale * values[0], -1.0)
            count[slots.FACTORISATIONS] += 1
            if factor_real(frame, M, slots.PIVOTS(frame)) != 0:
                return NEWTON_FAILED
            if values.size == 1:
                return SUCCESS
            C = slots.LU_COMPLEX(frame)
            shift_complex(frame, J, C, scale * values[1], -scale * values[2], -1.0)
            count[slots.FACTORISATIONS] += 1
            return SUCCESS if factor_complex(frame, C, slots.PIVOTS_COMPLEX(frame)) == 0 else NEWTON_FAILED

        @kernel
        def refresh(frame, t, y, h):
            count, clock = slots.COUNT(frame), slots.CLOCK(frame)
            if count[slots.FRESHNESS] == STALE:
                status = jacobian(frame, t + place * h, y)
                if status != SUCCESS:
                    return status
                count[slots.FRESHNESS], clock[slots.H_FACTORED] = CURRENT, 0.0
            if abs(h - clock[slots.H_FACTORED]) <= same_step * abs(h):
                return SUCCESS
            clock[slots.H_FACTORED] = 0.0
            status = factor(frame, h)
            if status == SUCCESS:
                clock[slots.H_FACTORED] = h
            return status

        real, pair = (slots.LU, slots.PIVOTS), (slots.LU_COMPLEX, slots.PIVOTS_COMPLEX)
        ways = (linear.solve_transposed, linear.solve) if turned else (linear.solve, linear.solve_transposed)
        self.solve, self.solve_transposed = (_solver(way, *real, sign) for way in ways)
        ways = linear.solve_complex, linear.solve_transposed_complex
        self.solve_pair, self.solve_pair_transposed = (_solver(way, *pair, sign) for way in (ways[::-1] if turned else ways))
        self.refresh, self.jacobian, self.linear, self.massed = refresh, jacobian, linear, linear.massed


def _solver(way: Callable, matrix: Slot, pivots: Slot, sign: float) -> Callable:
    @kernel
    def solve(frame, b):
        failed = way(frame, matrix(frame), pivots(frame), b) != 0
        if failed or sign < 0.0:
            for k in range(b.size):
                b[k] = math.nan if failed else -b[k]

    return solve


def put_frozen(frame: Any, tableau: Tableau, n: int) -> None:
    """Fill the slots that implicit methods have beside those of every method and those of the linear solver."""
    degree, together = tableau.P.shape[1], tableau.together
    frame[slots.EIGENVALUES], frame[slots.TRANSFORM], frame[slots.INVERSE] = tableau.decoupled
    frame[slots.PAIR] = np.zeros(2 * n if together else 0)
    frame[slots.PREVIOUS] = np.zeros((degree, n))
    for slot in (slots.Z, slots.W, slots.RIGHT):
        frame[slot] = np.zeros((tableau.stages if together else 1, n))
