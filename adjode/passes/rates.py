"""How fast the state changes along a cotangent, in implicit steps: see adjoints/rates.py."""

from __future__ import annotations

import functools

import numpy as np

from adjode.adjoints.rates import make_rates
from adjode.compile import slots
from adjode.compile.calls import PORTABLE
from adjode.jacobian import products_for, put_jacobian
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.passes.base import Pass
from adjode.passes.result import PullbackStats
from adjode.passes.span import Span
from adjode.status import CALLBACK_RAISED, SUCCESS, solve_error


def implicit_rates(
    dynamics: Dynamics,
    structure: Structure,
    span: Span,
    theta: np.ndarray,
    elapsed: np.ndarray,
    steps: np.ndarray,
    places: np.ndarray,
    states: np.ndarray,
    derivatives: np.ndarray,
    u_bars: np.ndarray,
    stats: PullbackStats,
) -> np.ndarray:
    """u_bar . du/dt (k,) at `elapsed` (k,) since the start, at `places` (k,) in implicit steps of the sizes `steps` (k,).

    The dense output has `states` (k, n) and `derivatives` (k, 2 n) there, the first and the second; the work is added to `stats`.

    Raises
    ------
    SolveError
        If a callback raises, or what it returns is not finite.
    """
    made = _Rates(dynamics, structure, span, theta)
    frame = made.frame
    frame[slots.TIMES], frame[slots.STEP_SIZES], frame[slots.RATES] = elapsed, steps, np.zeros(elapsed.size)
    frame[slots.PLACES], frame[slots.OBSERVED], frame[slots.JUMPS] = places, states, np.array(u_bars, order="C")
    first, second = np.hsplit(derivatives, 2)
    frame[slots.ANCHORS], frame[slots.CURVES] = np.ascontiguousarray(first), np.ascontiguousarray(second)
    status, count = made.entry(frame.argument), frame[slots.COUNT]
    jacobians, products = int(count[slots.JACOBIANS]), products_for(dynamics, structure)
    stats.n_f += int(count[slots.DERIVATIVES])
    stats.n_jac += jacobians
    stats.n_lu += int(count[slots.FACTORISATIONS])
    if dynamics.vjp_u is not None:
        stats.n_vjp_u += jacobians * products
    else:
        stats.n_vjp += jacobians * products
    if status != SUCCESS:
        tried = float(frame[slots.CLOCK][slots.T_TRIED])
        t, inputs = float(span.time(tried)), {"u": states[elapsed == tried][0], "theta": theta}
        cause = dynamics.f.reproduce_error(t, *dynamics.f.arguments(inputs)) if status == CALLBACK_RAISED else None
        raise solve_error(status, phase="adjoint", t=t, callback="f (or its Jacobian)", cause=cause)
    return frame[slots.RATES]


class _Rates(Pass):
    def __init__(self, dynamics: Dynamics, structure: Structure, span: Span, theta: np.ndarray):
        super().__init__(dynamics)
        frame, n = self.frame, structure.n
        put_jacobian(frame, dynamics, structure, theta.size)
        for slot, callback in (
            (slots.F, dynamics.f),
            (slots.VJP, dynamics.vjp),
            (slots.VJP_U, dynamics.vjp_u),
            (slots.JAC, dynamics.jac),
        ):
            if callback is not None:
                frame[slot] = callback.handle
        frame[slots.TIME_SPAN], frame[slots.THETA], frame[slots.EIGENVALUES] = span.numbers, theta, np.ones(1)
        frame[slots.COUNT], frame[slots.CLOCK] = slots.COUNT.zeros(), slots.CLOCK.zeros()
        frame.allocate(dict.fromkeys((slots.Y, slots.U, slots.LAM, slots.G_U), (n,)))
        massed = dynamics.mass is not None
        self.entry_name = f"rates-{structure.kind}{'-mass' if massed else ''}"
        self.make = functools.partial(make_rates, kind=structure.kind, massed=massed)

    @property
    def entry(self):
        """Of the portable tier: it is not run often."""
        return PORTABLE.entry(self.entry_name, self.frame, self.make)
