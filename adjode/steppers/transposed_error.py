"""The error of transposed implicit steps, step by step, and what becomes of it.

A step of an implicit method multiplies lam by R(z), z = h J^T, where exp(z) would be right. Its error is C z^(p+1) for small z and
little for large ones; with the factors of the frozen matrix it is C D(z)^(p+1) Q(z) lam, for Q = 1 / (1 - gamma z), D = z Q. That of
a cotangent of a state inside the step is C(x) D^(q+1) Q, with the order q of the dense output.

Stiff parts of lam, which observations put in, are not resolved, nor need they be: they are gone by the next step, and their
integral, which theta_bar has, is right all the same. So errors are no numbers to be added. They are carried on as the vectors they
are, by a step of the L-stable (1 + (1 - 2 gamma) z) / (1 - gamma z)^2, and what they do to theta_bar is summed with its signs: all
of it is one product J^T w, J_theta^T w in each step, so that what cancels in the gradient cancels here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import row
from adjode.linalg.mass import multiply_transposed
from adjode.status import CALLBACK_RAISED, SUCCESS
from adjode.steppers.frozen import Frozen
from adjode.steppers.stepper import stage_time

OWN, SLOPE, HANDED_ON, SEEDS, FIRST_STAGE = range(5)  # the rows of PROPAGATED


def put_propagated(frame: Any, n: int, m: int) -> None:
    frame[slots.PROPAGATED], frame[slots.CARRIED], frame[slots.CARRIED_THETA] = np.zeros((5, n)), np.zeros(n), np.zeros(m)


def _make_damp(frozen: Frozen) -> tuple[Callable, Callable]:
    solve, massed = frozen.solve_transposed, frozen.massed

    @kernel
    def resolve(frame, x, out):
        """out = (M^T - h gamma J^T)^-1 x"""
        factor = slots.EIGENVALUES(frame)[0] / slots.CLOCK(frame)[slots.H_FACTORED]
        for k in range(out.size):
            out[k] = factor * x[k]
        solve(frame, out)

    @kernel
    def damp(frame, x, out):
        """out = Q x"""
        if massed:
            slope = row(slots.PROPAGATED(frame), SLOPE)
            resolve(frame, x, slope)
            multiply_transposed(frame, slope, out)
        else:
            resolve(frame, x, out)

    return resolve, damp


def _make_own_error(damp: Callable) -> Callable:
    @kernel
    def own_error(frame, h):
        """Q^-1 D^-1 of the error of the step, damped: what D makes the error of."""
        rows, lam, clock = slots.PROPAGATED(frame), slots.LAM(frame), slots.CLOCK(frame)
        x, scratch, seeds, mu = row(rows, OWN), row(rows, HANDED_ON), row(rows, SEEDS), slots.EIGENVALUES(frame)[0]
        first_stage = row(rows, FIRST_STAGE)
        order, dense_order = int(slots.LAM_FACTORS(frame)[0]) - 1, slots.LAM_POWERS(frame)[1]
        factor, stretch = slots.LAM_FACTORS(frame)[1], h / clock[slots.H_FACTORED]
        for _ in range(order):
            factor *= stretch
        for k in range(x.size):
            x[k] = factor * (lam[k] + first_stage[k])
        for p in range(order, 0, -1):
            if p == dense_order:
                for k in range(x.size):
                    x[k] += seeds[k]
                    seeds[k] = 0.0
            damp(frame, x, scratch)
            for k in range(x.size):
                x[k] = mu * (scratch[k] - x[k])
        damp(frame, x, scratch)
        for k in range(x.size):
            x[k] = scratch[k]

    return own_error


def make_carry_error(pull_state: Callable, product: Callable, frozen: Frozen) -> Callable:
    """`pull_state(frame, t, u, w, u_bar, theta_bar) -> status` gives the products with the Jacobians, `product` only that of u."""
    resolve, damp = _make_damp(frozen)
    own_error = _make_own_error(damp)

    @kernel
    def carry_error(frame, t, h, t_new, V):
        """Carry CARRIED and CARRIED_THETA over the step that has been pulled back, with its own error, which is left in OWN."""
        rows, mu = slots.PROPAGATED(frame), slots.EIGENVALUES(frame)[0]
        x, slope, carried, scratch = row(rows, OWN), row(rows, SLOPE), slots.CARRIED(frame), row(rows, HANDED_ON)
        u_bar, theta_bar, of_theta = slots.STAGE_BAR(frame), slots.THETA_BAR(frame), slots.CARRIED_THETA(frame)
        own_error(frame, h)
        damp(frame, carried, scratch)
        for k in range(x.size):
            scratch[k] = x[k] + (carried[k] + (mu - 1.0) * scratch[k]) / mu
        damp(frame, x, u_bar)
        for k in range(x.size):
            x[k] = mu * (u_bar[k] - x[k])
        resolve(frame, scratch, slope)
        for k in range(x.size):
            slope[k] *= h
        middle = 1 + slots.SETTING(frame)[slots.LAST_STAGE] // 2
        if pull_state(frame, stage_time(frame, t, h, t_new, middle), row(V, middle), slope, u_bar, theta_bar) != 0:
            return CALLBACK_RAISED
        for k in range(x.size):
            carried[k] += u_bar[k]
        for i in range(of_theta.size):
            of_theta[i] += theta_bar[i]
        if slots.A(frame)[slots.SETTING(frame)[slots.LAST_STAGE], 0] != 0.0:  # the rest of lam, which the step before pulls back
            if product(frame, t, row(V, 0), row(slots.K_BAR(frame), 0), row(rows, FIRST_STAGE)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    return carry_error
