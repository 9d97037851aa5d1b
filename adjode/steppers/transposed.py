"""The transpose of implicit stages.

With the cotangents kappa_i of K_i = f(t_i, Y_i), Y_i = y + h sum_j A_ij K_j, those of the stages' states are
w_i = J_i^T kappa_i + e_i (e_s = lam, since Y_s is the state after the step, else 0), and kappa_i = seed_i + h sum_j A_ji w_j; with
a mass matrix, M K_i = f(t_i, Y_i), it is M^T kappa_i. This linear system has the exact Jacobians J_i of the stages in it, of which
only products are formed, by the user's vjp. It is solved to rounding by GMRES (Saad, Schultz 1986, SIAM J. Sci. Stat. Comput. 7,
856-869), with the frozen matrix, transposed, as preconditioner: where the J_i differ from the frozen Jacobian in few ways, few
iterations are enough. Where the solution turns within the step it is restarted, as long as that gets on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import row
from adjode.linalg.gmres import make_gmres, put_gmres
from adjode.linalg.mass import multiply_transposed
from adjode.status import CALLBACK_RAISED, NEWTON_FAILED, NON_FINITE, STAGES_UNSOLVED, SUCCESS
from adjode.steppers.frozen import CURRENT, OLDER, STALE, Frozen
from adjode.steppers.stepper import stage_time
from adjode.steppers.transposed_error import SLOPE
from adjode.tableaus import Tableau

_ROUNDING = 5e-15  # of a stage's cotangents, in the norm of GMRES: some times its tolerance
_QUICK = 6  # iterations up to which a frozen Jacobian goes on to serve the step before
_NEAR = 0.5  # how far the preconditioned matrix may then be from 1: small systems take few iterations even with a Jacobian that is
_FAR = 0.9  # wrong by many decades, whose rounding spoils their solution; from there on it is replaced at once
SAME_STEP = 0.2  # relative difference of step sizes that share a preconditioner


def put_transposed(frame: Any, tableau: Tableau, n: int) -> None:
    """Fill the slots of the Krylov space."""
    put_gmres(frame, tableau.stages if tableau.together else 1, n)


@kernel
def _mend(product, x, right, scale, weights):
    """Put right the entries of J^T x that rounding has spoilt, by the equation x = right + (J^T x) / scale of a stage alone.

    Where J has entries of z times the scale, 1 / (h gamma), the product is off by z times the rounding of scale * x. An explicit
    first stage multiplies by J once more: together z^2, which took all digits from the cotangent of a state that decays within 1e-8
    of the first step. The equation is off by the rounding of scale * x as GMRES has it; smaller differences stay.
    """
    largest = 0.0
    for k in range(x.size):
        largest = max(largest, abs(x[k]))
    for k in range(product.size):
        other = (x[k] - right[k]) * scale
        if abs(other - product[k]) * weights[k] > _ROUNDING * largest * abs(scale):
            product[k] = other


@kernel
def _as_it_is(frame, x, out):
    for k in range(x.size):
        out[k] = x[k]


def _make_apply(product: Callable, frozen: Frozen, precondition: Callable) -> Callable:
    multiply = multiply_transposed if frozen.massed else _as_it_is

    @kernel
    def apply(frame, t, h, t_new, V, first, x, out):
        A, stage_bar = slots.A(frame), slots.STAGE_BAR(frame)
        for i in range(x.shape[0]):
            multiply(frame, row(x, i), row(out, i))
        for j in range(x.shape[0]):
            if product(frame, stage_time(frame, t, h, t_new, first + j), row(V, first + j), row(x, j), stage_bar) != 0:
                return CALLBACK_RAISED
            for i in range(x.shape[0]):
                weight = h * A[first + j, first + i]
                for k in range(x.shape[1]):
                    out[i, k] -= weight * stage_bar[k]
        precondition(frame, out)
        return SUCCESS

    return apply


@kernel
def serves(frame, iterations):
    """Whether a frozen Jacobian with which a system took so many iterations will do for others."""
    return iterations == 0 or (iterations <= _QUICK and slots.CLOCK(frame)[slots.APART] <= _NEAR)


def _make_solve(refresh: Callable, precondition: Callable, gmres: Callable) -> Callable:
    @kernel
    def solve_with_factors(frame, t, h, t_new, V, first):
        right, x = slots.RIGHT(frame), slots.W(frame)
        for i in range(x.shape[0]):
            for k in range(x.shape[1]):
                x[i, k] = right[i, k]
        precondition(frame, x)
        return gmres(frame, t, h, t_new, V, first, x)

    @kernel
    def solve(frame, t, h, t_new, V, first):
        """RIGHT holds the right-hand sides; their solution into W; the status."""
        count, middle = slots.COUNT(frame), first + slots.W(frame).shape[0] // 2
        while True:
            status, iterations = refresh(frame, stage_time(frame, t, h, t_new, middle), row(V, middle), h), 0
            if status in (CALLBACK_RAISED, NON_FINITE):
                return status
            if status == SUCCESS:
                status, iterations = solve_with_factors(frame, t, h, t_new, V, first)
            count[slots.ITERATIONS] += iterations
            fresh, apart = count[slots.FRESHNESS] == CURRENT, slots.CLOCK(frame)[slots.APART] if iterations > 0 else 0.0
            goes_on = fresh or serves(frame, iterations)
            count[slots.FRESHNESS] = OLDER if status == SUCCESS and goes_on else STALE
            if (status == SUCCESS and apart <= _FAR) or status == CALLBACK_RAISED or fresh:
                return STAGES_UNSOLVED if status == NEWTON_FAILED else status

    return solve


@kernel
def _put_right_hand_sides(frame, h, first):
    """The cotangents of K in a block, and what LAM adds to them if its last stage is the state after the step."""
    A, K_bar, right, lam = slots.A(frame), slots.K_BAR(frame), slots.RIGHT(frame), slots.LAM(frame)
    s = slots.SETTING(frame)[slots.LAST_STAGE]
    ends = first + right.shape[0] - 1 == s
    for i in range(right.shape[0]):
        for k in range(lam.size):
            right[i, k] = K_bar[first + i, k] + (h * A[s, first + i] * lam[k] if ends else 0.0)


@kernel
def _add_to_error(frame, stage, x):
    """A stage's part in the sum that the error of the step is found by; the cotangent of the slope is that of this step alone."""
    weight, K_bar, error = slots.STEP_WEIGHTS(frame)[0, stage], slots.K_BAR(frame), row(slots.STEP_ERROR(frame), SLOPE)
    ends = stage == slots.SETTING(frame)[slots.LAST_STAGE]
    for k in range(x.size):
        error[k] += weight * (x[k] - K_bar[stage, k] if ends else x[k])


def _make_pull_stage(pull: Callable) -> Callable:
    @kernel
    def pull_stage(frame, t, h, t_new, V, first, i):
        """Pull the cotangent of f at a stage, in row i of W, back to y and the K before the block."""
        A, K_bar, inverse, x = slots.A(frame), slots.K_BAR(frame), slots.INVERSE(frame), row(slots.W(frame), i)
        stage_bar, y_bar, lam = slots.STAGE_BAR(frame), slots.Y_BAR(frame), slots.LAM(frame)
        stage, s = first + i, slots.SETTING(frame)[slots.LAST_STAGE]
        _add_to_error(frame, stage, x)
        if pull(frame, stage_time(frame, t, h, t_new, stage), row(V, stage), x, stage_bar, stage) != 0:
            return CALLBACK_RAISED
        if A[stage, 0] != 0.0:
            _mend(stage_bar, x, row(slots.RIGHT(frame), i), inverse[i, i] / h, slots.SOLVE_WEIGHTS(frame))
        for k in range(lam.size):
            w = stage_bar[k] + (lam[k] if stage == s else 0.0)
            y_bar[k] += w
            K_bar[stage, k] = x[k]
            for j in range(first):
                K_bar[j, k] += h * A[stage, j] * w
        return SUCCESS

    return pull_stage


def make_transposed_block(pull: Callable, product: Callable, frozen: Frozen, precondition: Callable) -> Callable:
    """The transpose of the stages first..last, which are solved for together.

    `pull(frame, t, u, w, u_bar, stage) -> status` gives u_bar = (df/du)^T w and keeps (df/dtheta)^T w; `product` gives u_bar alone;
    `precondition(frame, x)` multiplies a block of cotangents by the inverse of the frozen system.
    """
    gmres = make_gmres(_make_apply(product, frozen, precondition))
    solve, pull_stage = _make_solve(frozen.refresh, precondition, gmres), _make_pull_stage(pull)

    @kernel
    def transposed_block(frame, t, h, t_new, V, first):
        """Pull the cotangents of K in this block, and LAM if its last stage is the state after the step, back to y and K before."""
        _put_right_hand_sides(frame, h, first)
        status = solve(frame, t, h, t_new, V, first)
        for i in range(slots.W(frame).shape[0]):
            if status == SUCCESS:
                status = pull_stage(frame, t, h, t_new, V, first, i)
        return status

    return transposed_block
