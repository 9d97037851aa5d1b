"""Radau IIA steps: simplified Newton on the stages, separated into one real and one complex system, and their transpose.

With A^-1 T = T Lambda the collocation system (A^-1/h x I - I x J) Z = F(Z) falls apart into a real one with mu/h - J and a complex
one with conj(alpha + i beta)/h - J (Hairer, Wanner, Solving ODEs II, section IV.8). With a mass matrix these are mu/h M - J and
so on, and K, the slopes of the collocation polynomial, is A^-1 Z / h all the same, whether or not M K = F determines it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import row
from adjode.linalg.mass import multiply
from adjode.status import CALLBACK_RAISED, NEWTON_FAILED, SUCCESS
from adjode.steppers.frozen import CURRENT, Frozen
from adjode.steppers.implicit import CONTINUE, ImplicitStepper, judge, predict, scaled_change
from adjode.steppers.tangents import Push, make_implicit_tangent, make_tangent_block
from adjode.steppers.transposed import make_transposed_block

# Corrections this small, in tolerances, that shrink no more with a Jacobian of this place are rounding. That of algebraic
# components stays the same however short the step.
_ROUNDING = 0.03


@kernel
def _start(frame, h):
    """Z by the predictor, and W = T^-1 Z."""
    c, TI, Z, W = slots.C(frame), slots.TRANSFORM(frame), slots.Z(frame), slots.W(frame)
    for i in range(3):
        predict(frame, h, c[i + 1], row(Z, i))
    for k in range(W.shape[1]):
        for i in range(3):
            W[i, k] = TI[i, 0] * Z[0, k] + TI[i, 1] * Z[1, k] + TI[i, 2] * Z[2, k]


@kernel
def _finish(frame, h, V):
    """V = y + Z and K = A^-1 Z / h."""
    y, Z, K, inverse = slots.Y(frame), slots.Z(frame), slots.K(frame), slots.INVERSE(frame)
    for k in range(y.size):
        for i in range(3):
            V[i + 1, k] = y[k] + Z[i, k]
            K[i + 1, k] = (inverse[i, 0] * Z[0, k] + inverse[i, 1] * Z[1, k] + inverse[i, 2] * Z[2, k]) / h


def _make_slopes(derivative: Callable) -> Callable:
    @kernel
    def slopes(frame, t, h, t_new, V):
        """F at the stages y + Z, into RIGHT."""
        y, c, Z, F = slots.Y(frame), slots.C(frame), slots.Z(frame), slots.RIGHT(frame)
        q, count = slots.Q(frame), slots.COUNT(frame)
        for i in range(3):
            stage, t_i = row(V, i + 1), t_new if i == 2 else t + c[i + 1] * h
            for k in range(y.size):
                stage[k] = y[k] + Z[i, k]
            count[slots.DERIVATIVES] += 1
            if derivative(frame, t_i, stage, row(F, i), row(q, q.shape[0] - 1)) != 0:
                slots.CLOCK(frame)[slots.T_TRIED] = t_i
                return CALLBACK_RAISED
        return SUCCESS

    return slopes


def _make_correct(frozen: Frozen) -> Callable:
    solve, solve_pair, massed = frozen.solve, frozen.solve_pair, frozen.massed

    @kernel
    def correct(frame, h):
        """One Newton correction of W and Z from the slopes in RIGHT; leaves that of W in RIGHT."""
        values, T, W, Z = slots.EIGENVALUES(frame), slots.TRANSFORM(frame), slots.W(frame), slots.Z(frame)
        F, pair, X = slots.RIGHT(frame), slots.PAIR(frame), W
        if massed:
            X = slots.MASSED(frame)
            for i in range(3):
                multiply(frame, row(W, i), row(X, i))
        mu, alpha, beta, real = values[0] / h, values[1] / h, values[2] / h, row(F, 0)
        for k in range(real.size):
            f0, f1, f2 = F[0, k], F[1, k], F[2, k]
            real[k] = T[0, 0] * f0 + T[0, 1] * f1 + T[0, 2] * f2 - mu * X[0, k]
            pair[2 * k] = T[1, 0] * f0 + T[1, 1] * f1 + T[1, 2] * f2 - alpha * X[1, k] - beta * X[2, k]
            pair[2 * k + 1] = T[2, 0] * f0 + T[2, 1] * f1 + T[2, 2] * f2 + beta * X[1, k] - alpha * X[2, k]
        solve(frame, real)
        solve_pair(frame, pair)
        for k in range(real.size):
            F[1, k], F[2, k] = pair[2 * k], pair[2 * k + 1]
            for i in range(3):
                W[i, k] += F[i, k]
        for k in range(real.size):
            for i in range(3):
                Z[i, k] = T[3 + i, 0] * W[0, k] + T[3 + i, 1] * W[1, k] + T[3 + i, 2] * W[2, k]

    return correct


def make_stages(derivative: Callable, frozen: Frozen) -> Callable:
    slopes, correct, massed = _make_slopes(derivative), _make_correct(frozen), frozen.massed

    @kernel
    def solve_stages(frame, t, h, t_new, V):
        F, count, norm, status, iteration = slots.RIGHT(frame), slots.COUNT(frame), 0.0, CONTINUE, 0
        _start(frame, h)
        while status == CONTINUE:
            if slopes(frame, t, h, t_new, V) != SUCCESS:
                return CALLBACK_RAISED
            correct(frame, h)
            before, norm = norm, math.sqrt(scaled_change(frame, F) / (3.0 * F.shape[1])) if F.shape[1] > 0 else 0.0
            status = judge(frame, iteration, norm, before)
            if massed:
                if status == NEWTON_FAILED and norm <= _ROUNDING and count[slots.FRESHNESS] == CURRENT:
                    status = SUCCESS
            iteration += 1
        count[slots.ITERATIONS] += iteration
        if status == SUCCESS:
            _finish(frame, h, V)
        return status

    return solve_stages


def make_preconditioner(frozen: Frozen) -> Callable:
    """The inverse of the transposed stage equations with the frozen Jacobian at every stage."""
    solve, solve_pair = frozen.solve_transposed, frozen.solve_pair_transposed

    @kernel
    def precondition(frame, x):
        """x = (I - h A^T x J^T)^-1 x, by T^T (A^-T / h) x, the two transposed systems, and T^-T."""
        inverse, transform, pair = slots.INVERSE(frame), slots.TRANSFORM(frame), slots.PAIR(frame)
        h, real = slots.CLOCK(frame)[slots.H_FACTORED], row(x, 0)
        for k in range(x.shape[1]):
            x0, x1, x2 = x[0, k] / h, x[1, k] / h, x[2, k] / h
            s0 = inverse[0, 0] * x0 + inverse[1, 0] * x1 + inverse[2, 0] * x2
            s1 = inverse[0, 1] * x0 + inverse[1, 1] * x1 + inverse[2, 1] * x2
            s2 = inverse[0, 2] * x0 + inverse[1, 2] * x1 + inverse[2, 2] * x2
            real[k] = transform[3, 0] * s0 + transform[4, 0] * s1 + transform[5, 0] * s2
            pair[2 * k] = transform[3, 1] * s0 + transform[4, 1] * s1 + transform[5, 1] * s2
            pair[2 * k + 1] = -(transform[3, 2] * s0 + transform[4, 2] * s1 + transform[5, 2] * s2)
        solve(frame, real)
        solve_pair(frame, pair)  # transposed, but not conjugated: the conjugate of the unknowns solves it
        for k in range(x.shape[1]):
            w0, w1, w2 = x[0, k], pair[2 * k], -pair[2 * k + 1]
            for i in range(3):
                x[i, k] = transform[0, i] * w0 + transform[1, i] * w1 + transform[2, i] * w2

    return precondition


def make_transposed_radau(pull: Callable, product: Callable, frozen: Frozen) -> Callable:
    """`(frame, t, h, t_new, V) -> status`: pull LAM and the seeds in K_BAR back over a step; adds to Y_BAR and K_BAR[0]."""
    block = make_transposed_block(pull, product, frozen, make_preconditioner(frozen))

    @kernel
    def transposed_step(frame, t, h, t_new, V):
        return block(frame, t, h, t_new, V, 1)

    return transposed_step


def make_tangent_radau(push: Push, frozen: Frozen) -> Callable:
    """`(frame, t, h, t_new, V) -> status`: NEXT_DOTS and STAGE_DOTS of a step."""
    solve, solve_pair = frozen.solve, frozen.solve_pair

    @kernel
    def precondition(frame, x):
        """x = (I - h A x J)^-1 x, by T^-1 (A^-1 / h) x, the two systems, and T."""
        inverse, transform, pair = slots.INVERSE(frame), slots.TRANSFORM(frame), slots.PAIR(frame)
        h, real = slots.CLOCK(frame)[slots.H_FACTORED], row(x, 0)
        for k in range(x.shape[1]):
            x0, x1, x2 = x[0, k] / h, x[1, k] / h, x[2, k] / h
            s0 = inverse[0, 0] * x0 + inverse[0, 1] * x1 + inverse[0, 2] * x2
            s1 = inverse[1, 0] * x0 + inverse[1, 1] * x1 + inverse[1, 2] * x2
            s2 = inverse[2, 0] * x0 + inverse[2, 1] * x1 + inverse[2, 2] * x2
            real[k] = transform[0, 0] * s0 + transform[0, 1] * s1 + transform[0, 2] * s2
            pair[2 * k] = transform[1, 0] * s0 + transform[1, 1] * s1 + transform[1, 2] * s2
            pair[2 * k + 1] = transform[2, 0] * s0 + transform[2, 1] * s1 + transform[2, 2] * s2
        solve(frame, real)
        solve_pair(frame, pair)
        for k in range(x.shape[1]):
            w0, w1, w2 = x[0, k], pair[2 * k], pair[2 * k + 1]
            for i in range(3):
                x[i, k] = transform[3 + i, 0] * w0 + transform[3 + i, 1] * w1 + transform[3 + i, 2] * w2

    block = make_tangent_block(push, frozen, precondition)

    @kernel
    def stages(frame, t, h, t_new, V):
        return block(frame, t, h, t_new, V, 1)

    return make_implicit_tangent(stages)


class RadauStepper(ImplicitStepper):
    def __init__(self, derivative: Callable, frozen: Frozen):
        super().__init__(derivative, frozen, make_stages(derivative, frozen))
