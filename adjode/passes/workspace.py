"""`Workspace`: the passes of one `value_and_gradient` with all their buffers, made once and run many times."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import njit

from adjode.adjoints import interpolating
from adjode.compile import slots
from adjode.compile.entries import code_address, own_address
from adjode.compile.frame import opened
from adjode.compile.slots import RECORD_DENSE
from adjode.compile.views import call_code
from adjode.compile.watch import raise_interruption
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.losses import PreparedLoss
from adjode.passes.discrete import Discrete, jumps_at_start
from adjode.passes.forward import observing, record_to_transpose
from adjode.passes.options import SolveOptions, SweepOptions
from adjode.passes.program import FORWARD, Program, program_entry
from adjode.passes.result import PullbackStats
from adjode.passes.sweep import Sweep
from adjode.status import NON_FINITE, REFINE, SUCCESS, TIMED_OUT, solve_error


class Workspace:
    """
    Parameters
    ----------
    dynamics : Dynamics
    options : SolveOptions
    structure : Structure or None
        Of the Jacobian, for an implicit method.
    loss : PreparedLoss
    t_span : (t0, T), t0 != T
    n, m : int
    sweep : SweepOptions or None
        Of the interpolating adjoint; None for the discrete one.
    wants_theta : bool
    on_inaccurate : str
        Of the discrete adjoint, see `adjode.api.pullback.pullback`.

    Attributes
    ----------
    u0, theta : (n,), (m,) arrays
        The inputs, for the caller to write to.
    forward, loss, backward : Forward, PreparedLoss, Discrete or Sweep
    is_tried : bool
        Whether slips of the callbacks have been looked for along a run.
    theta_bar_at : array
        Where the backward pass leaves it.
    program : Program
        Of these three; None for a loss in plain Python, which runs between two programs.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        loss: PreparedLoss,
        t_span: tuple[float, float],
        n: int,
        m: int,
        sweep: SweepOptions | None,
        wants_theta: bool,
        on_inaccurate: str = "refine",
    ):
        self.loss, self.is_tried = loss, False
        record = record_to_transpose if sweep is None else lambda jumps: RECORD_DENSE
        self.forward, self.u0, self.theta = observing(dynamics, options, structure, loss, t_span, (n, m), record)
        dynamics, span, theta, jumps = self.forward.problem
        self.backward: Discrete | Sweep
        if sweep is None:
            seeds = np.zeros(n), loss.times, loss.u_bars
            self.backward = Discrete(
                dynamics,
                options,
                structure,
                span,
                theta,
                *seeds,
                wants_theta=wants_theta,
                recorded=True,
                on_inaccurate=on_inaccurate,
                jumps=jumps,
            )
            self.forward.limit_by(self.backward.frame)
            self.backward.frame[slots.TIMES] = self.forward.frame[slots.TIMES]  # which an ensemble writes to
        else:
            backwards = t_span[1] >= t_span[0]
            observed = loss.times, loss.u_bars, t_span[0]
            backward = interpolating.prepare_observed(*observed, sweep.atol, sweep.stops, backwards)
            self.backward = Sweep(dynamics, span, theta, backward, sweep, wants_theta=wants_theta, jumps=jumps)
        self.theta_bar_at = self.backward.theta_bar[:m]
        self.program = Program(self.forward, loss if loss.compiled else None, self.backward if loss.compiled else None)
        self._behind = None
        if not loss.compiled:
            self.backward.share_watch(self.forward.watch)
            self.backward.follow(self.forward.trajectory, self.forward.count)
            self.forward.measure_for(self.backward.frame)
            self._behind = Program(backward=self.backward, goes_on=True, segments=self.program.segments)

    def run(self) -> bool:
        """Value and gradient at `u0` and `theta`, for `value`, `u0_bar` and `theta_bar` to read; whether all is well.

        Raises
        ------
        SolveError
            If it takes longer than `max_seconds`; other failures are for the step-by-step way to explain.
        """
        status, behind = self.program.run(), False
        if self._behind is not None:
            while status == SUCCESS and not behind:
                status, behind = self._run_in_python(self._behind), True
                if status == REFINE:
                    status, behind = self.program.run(again=True), False
        if status == TIMED_OUT:
            forward = not behind and self.program.ran == FORWARD
            t, step_size = (self.forward if forward else self.backward).place
            phase = "forward" if forward else "adjoint"
            raise solve_error(status, phase=phase, t=t, step_size=step_size, max_seconds=self.program.max_seconds)
        return status == SUCCESS

    def _run_in_python(self, behind: Program) -> int:
        """The loss, and what follows."""
        self.loss.follow(self.forward.frame, self.backward.frame)
        if not math.isfinite(self.loss.run()):
            return NON_FINITE
        self.backward.follow(self.forward.trajectory, self.forward.count)
        status = behind.run()
        if status == SUCCESS:
            self._add_seen_at_start()
        return status

    def _add_seen_at_start(self) -> None:
        forward = self.forward
        if not jumps_at_start(forward.trajectory.kinds):
            self.backward.lam[:] += self.loss.u_bars[forward.frame[slots.TIMES] == forward.t_start].sum(axis=0)

    @property
    def value(self) -> float:
        return self.loss.value.item()

    def u0_bar(self) -> np.ndarray:
        return self.backward.lam.copy()

    def theta_bar(self) -> np.ndarray:
        return self.theta_bar_at.copy()

    def stats(self) -> PullbackStats:
        stats = PullbackStats()
        self.backward.add_work(stats)
        stats.n_recomputed = 0 if self.program.segments is None else self.program.segments.n_recomputed
        return stats


def jitted_evaluation(workspace: Workspace, wants: tuple[bool, bool]) -> Callable[..., tuple[int, float]]:
    """`Workspace.run` for compiled code; see `ValueAndGradient.jitted`."""
    frames = workspace.forward.frame, workspace.backward.frame, workspace.loss.frame
    forward_at, backward_at, loss_at = (own_address(frame.argument) for frame in frames)
    code, table = own_address(code_address(program_entry())), own_address(workspace.program.table)
    wants_u0, wants_theta = wants
    n, m = workspace.u0.size, workspace.theta.size

    @njit(nogil=True)
    def evaluate(u0, theta, u0_bar, theta_bar):
        if u0.size != n or theta.size != m or u0_bar.size != n or theta_bar.size != m:
            raise ValueError("u0, theta, u0_bar and theta_bar must have the sizes that this function was made for")
        forward, backward, loss = opened(forward_at()), opened(backward_at()), opened(loss_at())
        slots.START(forward)[:] = u0
        slots.THETA(forward)[:m] = theta
        status = call_code(code(), table())
        raise_interruption(slots.WATCH(forward), status)
        if status != SUCCESS:
            u0_bar[:] = np.nan
            theta_bar[:] = np.nan
            return status, np.nan
        if wants_u0:
            u0_bar[:] = slots.U0_BAR(backward)
        if wants_theta:
            theta_bar[:] = slots.TOTAL(backward)[:m]
        return status, slots.VALUE(loss)[0]

    evaluate.workspace = workspace  # whose memory it works on
    return evaluate
