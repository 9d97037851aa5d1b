"""`ResidualWorkspace`: the passes of one `residuals_and_jacobian` with all their buffers, made once and run many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.inflows import with_inflows
from adjode.model.losses import PreparedLoss, Probing
from adjode.passes.discrete import Discrete
from adjode.passes.forward import Forward, observing, record_to_transpose
from adjode.passes.options import SolveOptions
from adjode.passes.program import BACKWARD, Program
from adjode.passes.rows import Rows, probe, solve_until_served
from adjode.passes.tangents import TangentPass
from adjode.status import INACCURATE, NON_FINITE, REFINE, SUCCESS, TIMED_OUT, solve_error


class ResidualWorkspace:
    """The passes of one call with all their buffers, made once and run many times.

    Parameters
    ----------
    dynamics, options, structure, t_span
        As for `Forward`.
    loss : PreparedLoss
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
    u0, theta, r, J : arrays
        Of the last run.
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
        self.how = self._asked = how
        self._options, self._structure, self._is_judged = options, structure, options.unit_error(n) > 0.0
        self.forward, self.u0, self.theta = observing(dynamics, options, structure, loss, t_span, (n, m), record_to_transpose)
        self._with_tangents = with_inflows(dynamics, self.forward.jumps.inflows, m, tangents=True)
        dynamics, _, theta, jumps = self.forward.problem
        self.rows: Rows | None = None
        self.tangents: TangentPass | None = None
        self._probing: Probing | None = None
        self._write: Callable[[], tuple[int, np.ndarray, np.ndarray]] | None = None
        if how != "tangents" or self._is_judged:
            asked: Any = {"wants_theta": columns[n:].any(), "on_inaccurate": on_inaccurate, "jumps": jumps}
            self.rows = Rows(dynamics, options, structure, self.forward, theta, loss.times, m, **asked)
            there = ~loss.loss.missing
            self._probe = np.where(there, probe(*there.shape), 0.0)
            self._probing = loss.probing(self._probe, self.rows.bars)
        if how == "tangents":
            self._prepare_tangents()
        self._by_kernel = self._is_judged and self._probing is not None
        judged: Any = (self._probing, self.rows.backward) if self._by_kernel and self.rows is not None else ()
        self._solving = Program(self.forward, *judged)

    def _prepare_tangents(self) -> None:
        self.is_tried = False
        n, forward = self.u0.size, self.forward
        _, span, theta, jumps = forward.problem
        self.directions = np.eye(self.columns.size)[self.columns]
        dots = self.directions[:, :n], np.pad(self.directions[:, n:], ((0, 0), (0, len(jumps.inflows))))
        problem = self._with_tangents, self._options, self._structure, span, theta
        self.tangents = TangentPass(*problem, *dots, forward.frame[slots.TIMES], recorded=True, jumps=jumps)
        self.tangents.share_watch(forward.watch)
        forward.measure_for(self.tangents.frame)
        self._follow()
        self._pushing = Program(backward=self.tangents, goes_on=True)
        observed, width = self.tangents.frame[slots.OBSERVED_DOTS], self.tangents.frame[slots.WIDTH].item()
        self._write = self.loss.reading(observed, width, len(self.directions))

    def _follow(self) -> None:
        assert self.tangents is not None
        self.tangents.follow(self.forward.trajectory, self.forward.count)

    def run(self, u0: np.ndarray, theta: np.ndarray) -> bool:
        """Whether all went well.

        Raises
        ------
        SolveError
            If it takes too long, or no steps serve the Jacobian; other failures are for the step-by-step way to explain.
        """
        self.u0[:], self.theta[:] = u0, theta
        self._runs: Forward | Discrete | TangentPass = self.forward
        if not (np.isfinite(self.u0).all() and np.isfinite(self.theta).all()):
            return False
        status = self._solve()
        if status == SUCCESS:
            status = self._differentiate() if self._has_seen_all else NON_FINITE
        if status == TIMED_OUT:
            (t, step_size), limit = self._runs.place, self._options.max_seconds
            raise solve_error(status, phase=_PHASES[type(self._runs)], t=t, step_size=step_size, max_seconds=limit)
        if status == INACCURATE:
            assert self.rows is not None
            raise self.rows.backward.error(status, None)
        return status == SUCCESS

    def _solve(self) -> int:
        """Solve forwards, in steps that serve the Jacobian; the status."""
        if not self._by_kernel:
            return solve_until_served(self._solving, self._judge)
        status = self._solving.run()
        if self._solving.ran == BACKWARD and self.rows is not None:
            self._runs = self.rows.backward
        return status

    @property
    def _has_seen_all(self) -> bool:
        """Whether no event has ended the solution before the last observation."""
        return self.forward.count[slots.SEEN] == self.loss.times.size

    def _judge(self) -> int:
        """Whether the steps serve the Jacobian, by the pullback of all residuals together."""
        if not (self._is_judged and self._has_seen_all):
            return SUCCESS
        assert self.rows is not None
        self._runs = self.rows.backward
        pull = self.loss.pulled_residuals(self.forward.frame[slots.OBSERVED], self.theta)
        status = self.rows.pull(pull(self._probe[~self.loss.loss.missing])[0])
        if status == REFINE:
            self._runs = self.forward
        return status

    def _differentiate(self) -> int:
        """The residuals and their Jacobian; the status."""
        if self._asked == "auto":
            self.how = self._cheaper
            if self.how == "tangents" and self.tangents is None:
                self._prepare_tangents()
        observed, none = self.forward.frame[slots.OBSERVED], np.zeros((0, self.theta.size))
        if self.how == "tangents" and self.tangents is not None:
            self._runs = self.tangents
            self._follow()
            status = self._pushing.run()
            if status == SUCCESS and self._write is not None:
                status, self.r, self.J = self._write()
            elif status == SUCCESS:
                self.r, self.J = self.read(observed, self.tangents.observed, self.theta, self.directions[:, self.u0.size :])
            return status
        assert self.rows is not None
        self.r, _ = self.read(observed, np.zeros((len(observed), 0, self.u0.size)), self.theta, none)
        status, J = self.rows.jacobian(self.loss.pulled_residuals(observed, self.theta), self.r.size)
        self.J = np.ascontiguousarray(J[:, self.columns])
        return status

    @property
    def _cheaper(self) -> str:
        """Whether tangents of all columns or adjoints of all rows cost less, in units of a row that is pulled back from T.

        Explicit tangents cost in proportion to their number, and little beside a row that has many parameters to serve, as long as
        the directions by all of them stay in the processor's cache; implicit ones, as soon as there are a few, one factorisation of
        the exact equations for all of them. A rough model: `python -m benchmarks.tangents` compares the two on either side of it.
        """
        k, n, m, frame = np.count_nonzero(self.columns), self.u0.size, self.theta.size, self.forward.frame
        sign, steps = frame[slots.CONTROL][slots.DIRECTION], self.forward.steps
        behind = np.searchsorted(sign * self.forward.trajectory.t[:steps], sign * frame[slots.TIMES]) / max(steps, 1)
        rows = float((behind[self.loss.rows][:, None] * ~self.loss.loss.missing).sum())
        each = 0.03 if m >= 4 * n and k * m <= 2**17 else 0.15
        tangents = min(0.9 * k, 3.5 + 0.03 * k) if self._options.tableau.implicit else 0.5 + each * k
        return "adjoints" if rows < tangents else "tangents"

    def read(
        self, states: np.ndarray, dots: np.ndarray, theta: np.ndarray, theta_dots: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The residuals and their tangents from states (c, n), tangents (c, p, n) at the times of the loss, and those of theta.

        Raises
        ------
        SolveError
            If a residual is not finite.
        """
        r, J = self.loss.residuals(states, dots, theta, theta_dots)
        if not (np.isfinite(r).all() and np.isfinite(J).all()):
            self.loss.observe(np.ascontiguousarray(states), theta)
            try:
                self.loss.run()
                self.loss.explain()
            finally:
                self.loss.observe(self.forward.observed, self.theta)  # which the next run reads
        return r, J


_PHASES = {Forward: "forward", Discrete: "adjoint", TangentPass: "tangent"}
