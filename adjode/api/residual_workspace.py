"""`ResidualWorkspace`: the passes of one `residuals_and_jacobian` with all their buffers, made once and run many times."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.inflows import with_inflows
from adjode.model.losses import PreparedLoss
from adjode.passes.forward import observing, record_to_transpose
from adjode.passes.options import SolveOptions
from adjode.passes.program import BACKWARD, TANGENTS, Program
from adjode.passes.rows import Rows, probe
from adjode.passes.tangents import TangentPass
from adjode.status import INACCURATE, SUCCESS, TIMED_OUT, solve_error


class ResidualWorkspace:
    """The passes of one call with all their buffers, made once and run many times.

    Parameters
    ----------
    dynamics, options, structure, t_span
        As for `Forward`.
    loss : PreparedLoss
        At times in the order of integration.
    columns : (n + m,) array of bool
        Of the Jacobian.
    n : int
    how : str
        "auto", "tangents" or "adjoints".
    on_inaccurate : str

    Attributes
    ----------
    how : str
        "tangents" or "adjoints"; at first as it was asked for.
    u0, theta : (n,), (m,) arrays
        Of the last run.
    tangents : TangentPass or None
    rows : Rows or None
    is_tried : bool
        Whether slips of the callbacks have been looked for along a run.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        loss: PreparedLoss,
        t_span: tuple[float, float],
        columns: np.ndarray,
        n: int,
        how: str,
        on_inaccurate: str,
    ):
        self.loss, self.columns, self.is_tried, m = loss, columns, False, columns.size - n
        self._options, self._structure = options, structure
        self.forward, self.u0, self.theta = observing(dynamics, options, structure, loss, t_span, (n, m), record_to_transpose)
        self._with_tangents = with_inflows(dynamics, self.forward.jumps.inflows, m, tangents=True)
        dynamics, _, theta, jumps = self.forward.problem
        self.residuals, is_judged = loss.squares, options.unit_error(n) > 0.0
        self.rows: Rows | None = None
        self.tangents: TangentPass | None = None
        judged: Any = ()
        self.how, self._settled = how, self._cheaper_anyway if how == "auto" else how
        if how != "tangents" or is_judged:
            asked: Any = {"wants_theta": columns[n:].any(), "on_inaccurate": on_inaccurate, "jumps": jumps}
            self.rows = Rows(dynamics, options, structure, self.forward, theta, loss.times, m, **asked)
            self._probing = self.residuals.probing(probe(*loss.loss.missing.shape), self.rows.bars)
            judged = (self._probing, self.rows.backward) if is_judged else ()
        behind: Any = self._prepare_tangents() if self._settled == "tangents" else {}
        self._solving = Program(self.forward, *judged, **behind)

    def _prepare_tangents(self) -> dict[str, Any]:
        """What a program takes to run them."""
        self.is_tried = False
        n, forward = self.u0.size, self.forward
        _, span, theta, jumps = forward.problem
        directions = np.eye(self.columns.size)[self.columns]
        dots = directions[:, :n], np.pad(directions[:, n:], ((0, 0), (0, len(jumps.inflows))))
        problem = self._with_tangents, self._options, self._structure, span, theta
        self.tangents = TangentPass(*problem, *dots, forward.frame[slots.TIMES], recorded=True, jumps=jumps)
        observed, width = self.tangents.frame[slots.OBSERVED_DOTS], self.tangents.frame[slots.WIDTH].item()
        self._reading = self.residuals.reading(observed, width, theta_columns(self.columns, n))
        return {"tangents": self.tangents, "reading": self._reading}

    def run(self, u0: np.ndarray, theta: np.ndarray) -> bool:
        """Whether all went well.

        Raises
        ------
        SolveError
            If it takes too long, or no steps serve the Jacobian; other failures are for the step-by-step way to explain.
        """
        self.u0[:], self.theta[:] = u0, theta
        if not (np.isfinite(self.u0).all() and np.isfinite(self.theta).all()):
            return False
        status, ran = self._solving.run(), self._solving.ran
        if status == SUCCESS and self._settled == "tangents":
            self.how = "tangents"
        elif status == SUCCESS:
            self.how = self._settled or self._cheaper
            status, ran = self._differentiate()
        if status == TIMED_OUT:
            phase, (t, step_size) = self._place(ran)
            raise solve_error(status, phase=phase, t=t, step_size=step_size, max_seconds=self._options.max_seconds)
        if self.forward.count[slots.SEEN] < self.loss.times.size:  # an event has ended the solution before
            return False
        if status == INACCURATE:
            assert self.rows is not None
            raise self.rows.backward.error(status, None)
        return status == SUCCESS

    def _place(self, ran: int) -> tuple[str, tuple[float, float]]:
        """The phase that ran last, and how far it has come."""
        if ran == TANGENTS and self.tangents is not None:
            return "tangent", self.tangents.place
        if ran == BACKWARD and self.rows is not None:
            return "adjoint", self.rows.backward.place
        return "forward", self.forward.place

    def _differentiate(self) -> tuple[int, int]:
        """The Jacobian along the steps that the program has left; the status, and which pass ran last."""
        if self.how == "tangents":
            return self._pushing().run(), TANGENTS
        assert self.rows is not None
        status, self._J_by_rows = self.rows.jacobian(self.residuals, self._probing)
        return status, BACKWARD

    def _pushing(self) -> Program:
        """Of the tangents alone."""
        forward = self.forward
        if self.tangents is None:
            behind = self._prepare_tangents()
            behind["tangents"].share_watch(forward.watch)
            forward.measure_for(behind["tangents"].frame)
            self._pushes = Program(backward=behind["tangents"], reading=behind["reading"], goes_on=True)
        assert self.tangents is not None
        self.tangents.follow(forward.trajectory, forward.count)
        return self._pushes

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The residuals and their Jacobian of the last run."""
        J = self._reading.J.copy() if self.how == "tangents" else np.ascontiguousarray(self._J_by_rows[:, self.columns])
        return self.residuals.r.copy(), J

    @property
    def _cheaper(self) -> str:
        """Whether tangents of all columns or adjoints of all rows cost less, by a rough model.

        `python -m benchmarks.tangents` compares the two on either side of it. A row costs the more, the later what it pulls back
        has been observed.
        """
        frame, steps = self.forward.frame, self.forward.steps
        sign = frame[slots.CONTROL][slots.DIRECTION]
        behind = np.searchsorted(sign * self.forward.trajectory.t[:steps], sign * frame[slots.TIMES]) / max(steps, 1)
        rows = float((behind[self.loss.rows][:, None] * ~self.loss.loss.missing).sum())
        return "adjoints" if rows < self._cost_of_tangents else "tangents"

    @property
    def _cheaper_anyway(self) -> str | None:
        """The same where it does not depend on the steps; else None."""
        there, span = ~self.loss.loss.missing, self.forward.span
        last = self.forward.frame[slots.TIMES][self.loss.rows] == span.elapsed(span.ends[1])
        if np.count_nonzero(there) < self._cost_of_tangents:
            return "adjoints"
        return "tangents" if np.count_nonzero(there[last]) >= self._cost_of_tangents else None

    @property
    def _cost_of_tangents(self) -> float:
        """In units of a row that is pulled back from T.

        Explicit tangents cost in proportion to their number, and little beside a row that has many parameters to serve, as long as
        the directions by all of them stay in the processor's cache; implicit ones, as soon as there are a few, one factorisation of
        the exact equations for all of them.
        """
        k, n, m = np.count_nonzero(self.columns), self.u0.size, self.theta.size
        each = 0.03 if m >= 4 * n and k * m <= 2**17 else 0.15
        return min(0.9 * k, 3.5 + 0.03 * k) if self._options.tableau.implicit else 0.5 + each * k


def theta_columns(columns: np.ndarray, n: int) -> np.ndarray:
    """Which entry of theta changes in the direction of each of these columns (n + m,) of J, by its place; m for none."""
    places = np.flatnonzero(columns)
    return np.where(places >= n, places - n, columns.size - n)
