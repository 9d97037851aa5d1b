"""The tangents of steps: what becomes of k directions at once, along the states of stages that are there already.

With v_i, the tangent of the state of stage i, and w, that of theta, the tangent of K_i = f(t_i, Y_i) is J_i v_i + (df/dtheta) w,
and v_i = y_dot + h sum_j A_ij K_dot_j: the dual of the transposed step, with the mesh held fixed. The stages of explicit steps
follow from each other. Those of implicit ones are solved for as the transposed ones are (transposed.py): to rounding by GMRES, with
the frozen matrix for a preconditioner, which serves all directions of a step; with a mass matrix, for M K_dot_i. Where there are so
many directions that it pays, the exact matrix of the stages is factored instead, once for all of them (direct_tangents.py).

How a block of directions lies is said in lacing.py. `push` is made of three kernels:

    prepare(frame, t, u, i) -> status               make ready for products at a state, the i-th one of a block of stages
    one(frame, t, u, i, v, w, out) -> status        out = (df/du) v + (df/dtheta) w
    all(frame, t, u, V, out) -> status              the same for all directions, with THETA_DOTS, of a state that is not prepared
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.tiers import unrolled
from adjode.compile.views import row
from adjode.linalg.gmres import make_gmres, put_gmres
from adjode.linalg.mass import multiply
from adjode.status import CALLBACK_RAISED, NEWTON_FAILED, NON_FINITE, STAGES_UNSOLVED, SUCCESS
from adjode.steppers.direct_tangents import make_solve_directly
from adjode.steppers.explicit import combine_fours, combine_loops
from adjode.steppers.frozen import CURRENT, OLDER, STALE, Frozen
from adjode.steppers.lacing import place_of
from adjode.steppers.stepper import stage_time
from adjode.steppers.transposed import serves
from adjode.tableaus import Tableau


class Push(NamedTuple):
    """The kernels of products; see the top of this file."""

    prepare: Callable
    one: Callable
    all: Callable


def put_tangents(frame: Any, tableau: Tableau, n: int) -> None:
    """Fill the slots that tangents of implicit stages have beside those of every implicit step."""
    put_gmres(frame, tableau.stages if tableau.together else 1, n)
    frame[slots.U_SIZE] = np.ones(n)
    frame[slots.NO_DOT] = np.zeros(frame[slots.THETA].size)


def make_explicit_tangent(push: Push, stages: tuple[int, int] | None = None) -> tuple[Callable, Callable]:
    """Two loops `(frame, t, h, t_new, V, first, last) -> status`, over the stages of the step and the further ones behind it.

    They find STAGE_DOTS, and NEXT_DOTS with the last stage of the step. `stages` is as in `make_transposed_stages`; with these,
    directions are laced, a multiple of four side by side.
    """
    push_all, combine = push.all, combine_loops if stages is None else combine_fours

    @kernel
    def stage(frame, t, h, t_new, V, i):
        stage_dots, s = slots.STAGE_DOTS(frame), slots.SETTING(frame)[slots.LAST_STAGE]
        v = slots.NEXT_DOTS(frame) if i == s else slots.STATE_DOTS(frame)
        combine(v, slots.DOTS(frame), h, slots.A(frame), i, stage_dots, i)
        t_i, u = t_new if i == s else t + slots.C(frame)[i] * h, row(V, i)
        return CALLBACK_RAISED if push_all(frame, t_i, u, v, row(stage_dots, i)) != 0 else SUCCESS

    if stages is None:
        loop = unrolled(stage, None)
        return loop, loop
    s, top = stages
    return unrolled(stage, range(1, s + 1)), unrolled(stage, range(s + 1, top + 1))


@kernel
def measure_states(frame, V):
    """The units in which the stages' equations are solved: a tangent is measured by the size of its state."""
    sizes, s = slots.U_SIZE(frame), slots.SETTING(frame)[slots.LAST_STAGE]
    for k in range(sizes.size):
        sizes[k] = 1.0 / (max(abs(V[0, k]), abs(V[s, k])) + slots.U_FLOOR(frame)[k])


@kernel
def _as_it_is(frame, x, out):
    for k in range(x.size):
        out[k] = x[k]


def _make_apply(push: Push, frozen: Frozen, precondition: Callable) -> Callable:
    push_one, times_mass = push.one, multiply if frozen.massed else _as_it_is

    @kernel
    def apply(frame, t, h, t_new, V, first, x, out):
        """out = P^-1 (M x_i - h J_i sum_j A_ij x_j)."""
        A, v, product = slots.A(frame), slots.STATE_DOT(frame), slots.PRODUCT(frame)
        for i in range(x.shape[0]):
            times_mass(frame, row(x, i), row(out, i))
            for k in range(v.size):
                total = 0.0
                for j in range(x.shape[0]):
                    total += A[first + i, first + j] * x[j, k]
                v[k] = h * total
            t_i, u = stage_time(frame, t, h, t_new, first + i), row(V, first + i)
            if push_one(frame, t_i, u, i, v, slots.NO_DOT(frame), product) != 0:
                return CALLBACK_RAISED
            for k in range(v.size):
                out[i, k] -= product[k]
        precondition(frame, out)
        return SUCCESS

    return apply


def _make_right_hand_sides(push: Push) -> Callable:
    push_one = push.one

    @kernel
    def right_hand_sides(frame, t, h, t_new, V, first, d):
        """RIGHT, for direction d: what K_dot of the stages is without what they have from each other."""
        A, right, base, stage_dots = slots.A(frame), slots.RIGHT(frame), slots.STATE_DOT(frame), slots.STAGE_DOTS(frame)
        n, w, dots, width = base.size, row(slots.THETA_DOTS(frame), d), slots.DOTS(frame), slots.WIDTH(frame)[0]
        at = place_of(d, n, width)
        for i in range(right.shape[0]):
            for k in range(n):
                total = 0.0
                for j in range(first):
                    if A[first + i, j] != 0.0:
                        total += A[first + i, j] * stage_dots[j, at + k * width]
                base[k] = dots[at + k * width] + h * total
            t_i, u = stage_time(frame, t, h, t_new, first + i), row(V, first + i)
            if push_one(frame, t_i, u, i, base, w, row(right, i)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    return right_hand_sides


def _make_solve(frozen: Frozen, precondition: Callable, gmres: Callable) -> Callable:
    refresh = frozen.refresh

    @kernel
    def solve_with_factors(frame, t, h, t_new, V, first):
        right, x = slots.RIGHT(frame), slots.W(frame)
        for i in range(x.shape[0]):
            for k in range(x.shape[1]):
                x[i, k] = right[i, k]
        precondition(frame, x)
        status, iterations = gmres(frame, t, h, t_new, V, first, x)
        slots.COUNT(frame)[slots.ITERATIONS] += iterations
        return status, iterations

    @kernel
    def solve(frame, t, h, t_new, V, first):
        """W = the solution for RIGHT, with a Jacobian of these stages where that at hand will not do; the status."""
        count, middle = slots.COUNT(frame), first + slots.W(frame).shape[0] // 2
        while True:
            status, iterations = refresh(frame, stage_time(frame, t, h, t_new, middle), row(V, middle), h), 0
            if status in (CALLBACK_RAISED, NON_FINITE):
                return status
            if status == SUCCESS:
                status, iterations = solve_with_factors(frame, t, h, t_new, V, first)
            if status == CALLBACK_RAISED or count[slots.FRESHNESS] == CURRENT:
                return STAGES_UNSOLVED if status == NEWTON_FAILED else status
            if status == SUCCESS and serves(frame, iterations):
                return status
            count[slots.FRESHNESS] = STALE

    return solve


@kernel
def _keep(frame, first, d, x):
    """Slopes x (b, n) of the stages from `first` on are those of direction d."""
    stage_dots, width = slots.STAGE_DOTS(frame), slots.WIDTH(frame)[0]
    at = place_of(d, x.shape[1], width)
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            stage_dots[first + i, at + k * width] = x[i, k]


def _make_iterate(push: Push, frozen: Frozen, precondition: Callable) -> Callable:
    """`iterate(frame, t, h, t_new, V, first) -> status`: the same for one direction after the other, by iterations."""
    right_hand_sides = _make_right_hand_sides(push)
    solve = _make_solve(frozen, precondition, make_gmres(_make_apply(push, frozen, precondition)))

    @kernel
    def iterate(frame, t, h, t_new, V, first):
        for d in range(slots.THETA_DOTS(frame).shape[0]):
            status = right_hand_sides(frame, t, h, t_new, V, first, d)
            if status == SUCCESS:
                status = solve(frame, t, h, t_new, V, first)
            if status != SUCCESS:
                return status
            _keep(frame, first, d, slots.W(frame))
        return SUCCESS

    return iterate


def make_tangent_block(push: Push, frozen: Frozen, precondition: Callable) -> Callable:
    """The tangents of the stages first..first+b-1, which are solved for together: `(frame, t, h, t_new, V, first) -> status`.

    `precondition(frame, x)` multiplies a block of slopes (b, n) by the inverse of the frozen system.
    """
    prepare, iterate = push.prepare, _make_iterate(push, frozen, precondition)
    solve_directly = make_solve_directly(push.all, frozen.massed)

    @kernel
    def block(frame, t, h, t_new, V, first):
        count, status = slots.COUNT(frame), SUCCESS
        for i in range(slots.W(frame).shape[0]):
            status |= prepare(frame, stage_time(frame, t, h, t_new, first + i), row(V, first + i), i)
        if status != SUCCESS:
            return CALLBACK_RAISED
        if slots.STAGE_MATRIX(frame).shape[0] > 0:
            return solve_directly(frame, t, h, t_new, V, first)
        status = iterate(frame, t, h, t_new, V, first)
        if count[slots.FRESHNESS] == CURRENT:
            count[slots.FRESHNESS] = OLDER
        return status

    return block


@kernel
def _end(frame, h):
    """NEXT_DOTS, the tangent of the state after the step, from those of its slopes."""
    s = slots.SETTING(frame)[slots.LAST_STAGE]
    combine_loops(slots.NEXT_DOTS(frame), slots.DOTS(frame), h, slots.A(frame), s, slots.STAGE_DOTS(frame), s + 1)


def make_implicit_tangent(stages: Callable) -> Callable:
    """`step(frame, t, h, t_new, V) -> status` from `stages`, which takes the same and finds STAGE_DOTS."""

    @kernel
    def step(frame, t, h, t_new, V):
        measure_states(frame, V)
        status = stages(frame, t, h, t_new, V)
        _end(frame, h)
        return status

    return step
