"""The pass of second order: the transposes of the steps of a trajectory and their tangents, the last one first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.adjoints.second_order import make_second_order
from adjode.compile import slots
from adjode.compile.calls import PORTABLE
from adjode.jacobian import products_for, put_jacobian
from adjode.linalg.structure import Structure
from adjode.loops.quadrature import NONE, rule
from adjode.model.dynamics import Dynamics
from adjode.passes.base import put_partner
from adjode.passes.jump_curvatures import JumpCurvatures
from adjode.passes.options import SolveOptions
from adjode.passes.replay import Replay, put_replay
from adjode.passes.span import Span
from adjode.passes.tangents import TangentPass
from adjode.passes.trajectory import Trajectory
from adjode.steppers.family import EXPLICIT, Solver, family_of
from adjode.steppers.frozen import put_frozen
from adjode.steppers.transposed import put_transposed
from adjode.steppers.transposed_error import ROWS
from adjode.tableaus import Tableau


class SecondOrder(Replay):
    """Pull cotangents and their tangents back along the steps of a trajectory, which `follow` names, and along their tangents.

    Parameters
    ----------
    dynamics : Dynamics
    options, structure, span
        Of the forward pass, which records the states of the stages.
    theta : (m,) array
        Which the pass reads whenever it runs.
    tangents : TangentPass
        Along the same trajectory, which has run before this, for k directions, and keeps the tangents of the stages.
    max_seconds : float, optional
    curvatures : JumpCurvatures, optional
        Where the state may jump.

    Attributes
    ----------
    u_bars : (c, 1 + k, n) array
        The cotangents of the states at the times of `observe`, and their tangents, for the caller to write to.
    lams, totals : (1 + k, n), (1 + k, m) arrays
        At the end, the cotangents of u0, but for what is observed there, and of theta; and their tangents.

    Raises
    ------
    TypeError
        If the dynamics have no second derivatives.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        span: Span,
        theta: np.ndarray,
        tangents: TangentPass,
        *,
        max_seconds: float | None = None,
        curvatures: JumpCurvatures | None = None,
    ):
        super().__init__(dynamics, max_seconds)
        self.span, self.tangents, self._curvatures, frame, tableau = span, tangents, curvatures, self.frame, options.tableau
        theta_dots, n = tangents.frame[slots.THETA_DOTS], tangents.n
        columns = 1 + len(theta_dots)
        solver = EXPLICIT if structure is None else Solver(family_of(tableau), structure.kind, dynamics.mass is not None)
        frame[slots.THETA], frame[slots.THETA_DOTS], frame[slots.TIME_SPAN] = theta, theta_dots, span.numbers
        self.observe(np.zeros(0), columns, n)
        if curvatures is not None:
            for slot in (slots.DOSES, slots.DOSE_ENTRIES, slots.ACTIONS):
                frame[slot] = tangents.frame[slot]
        frame[slots.U_FLOOR] = options.least_sizes(n)
        frame[slots.WANTS] = slots.WANTS.fill(wants_theta=1, wants_cost=0, uses_vjp_u=0, has_vjp_u=dynamics.vjp_u is not None)
        self._put_callbacks()
        self._allocate(tableau, n, theta.size, columns)
        if structure is not None:
            self._put_implicit(tableau, structure, n)
        self.rows_of_jacobian = 0 if structure is None else products_for(dynamics, structure)
        self.lams, self.totals, self._at = frame[slots.LAMS], frame[slots.TOTALS], frame[slots.PLACE]
        self.entry_name = solver.entry_name("second-order")
        self.make = functools.partial(make_second_order, solver=solver)

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        """Of the portable tier in any case, as that of tangents."""
        return PORTABLE.entry(self.entry_name, self.frame, self.make)

    def _put_callbacks(self) -> None:
        frame, dynamics = self.frame, self.dynamics
        frame[slots.F], frame[slots.VJP], frame[slots.VJP_DOT] = (
            callback.handle for callback in (dynamics.f, dynamics.vjp, dynamics.vjp_dot)
        )
        for slot, callback in ((slots.VJP_U, dynamics.vjp_u), (slots.JAC, dynamics.jac)):
            if callback is not None:
                frame[slot] = callback.handle

    def _allocate(self, tableau: Tableau, n: int, m: int, columns: int) -> None:
        frame, rows = self.frame, len(tableau.A)
        put_replay(frame, tableau, NONE, n)
        self.count = frame[slots.COUNT]
        frame.allocate(
            {
                **dict.fromkeys((slots.LAM, slots.Y, slots.Y_BAR, slots.STAGE_BAR, slots.NO_LAM, slots.U_SIZE), (n,)),
                **dict.fromkeys((slots.K, slots.K_BAR, slots.KAPPA), (rows, n)),
                **dict.fromkeys((slots.LAMS, slots.FIRST_BARS), (columns, n)),
                slots.TOTALS: (columns, m),
                slots.THETA_BAR: (m,),
                slots.STEP_ERROR: (ROWS, n),
                slots.Q: (rule(NONE, tableau).weights.shape[1] + 1, 0),
                slots.BASIS: (1, rows),
            }
        )

    def _put_implicit(self, tableau: Tableau, structure: Structure, n: int) -> None:
        frame = self.frame
        if tableau.partner is not None:
            put_partner(frame, tableau, NONE, n)
        else:
            put_frozen(frame, tableau, n)
        put_transposed(frame.partner or frame, tableau.partner or tableau, n)
        put_jacobian(frame, self.dynamics, structure, self.frame[slots.THETA].size)

    def observe(self, times: np.ndarray, columns: int, n: int) -> None:
        """Observations at `times` (c,) since the start, in the order of integration."""
        self.u_bars = np.zeros((times.size, columns, n))
        self.frame[slots.TIMES], self.frame[slots.JUMPS] = np.ascontiguousarray(times), self.u_bars.reshape(times.size, columns * n)

    def help_itself(self) -> bool:
        """Go over the jump that the pass has come to."""
        assert self._curvatures is not None
        self._curvatures.pull(self.frame, int(self._at[slots.STEP]))
        return True

    def follow(self, trajectory: Trajectory, count: np.ndarray) -> None:
        """Run along this trajectory, and the tangents that have been kept of it."""
        super().follow(trajectory, count)
        self.frame[slots.STAGE_STATE_DOTS] = self.tangents.frame[slots.STAGE_STATE_DOTS]

    @property
    def place(self) -> tuple[float, float]:
        """The time reached, and the step that was being pulled back."""
        step, mesh = self._at.item(slots.STEP), self.frame[slots.FORWARD_T]
        return float(self.span.time(mesh[step])), float(mesh[step] - mesh[step + 1])
