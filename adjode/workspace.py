"""`Workspace`: the passes of one `value_and_gradient` with all their buffers, made once and run many times.

A call copies u0 and theta in, runs three compiled entries (forward, loss, backward) and copies the gradient out. The forward pass
writes down the states that the loss asks for, and keeps of each step what the adjoint needs and no more.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from adjode import frame as slots
from adjode.adjoints import interpolating
from adjode.adjoints.backward_pass import BackwardPass
from adjode.adjoints.discrete_pass import DiscretePass, count_discrete
from adjode.adjoints.result import PullbackStats
from adjode.adjoints.sweep import SweepOptions, count_jacobians, count_sweep, sweep_entry, sweep_loop
from adjode.frame import RECORD_DENSE, RECORD_STAGES, Frame, matrix_at, opened, vector_at
from adjode.jit import DISABLED, call_code, code_address, row
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.losses import PreparedLoss
from adjode.solve import forward_pass
from adjode.status import STORE_FULL, SUCCESS
from adjode.tableaus import Tableau


class Workspace:
    """
    Parameters
    ----------
    dynamics : Dynamics
    tableau : Tableau
    structure : Structure or None
        Of the Jacobian, for an implicit method.
    loss : PreparedLoss
    t_span : (t0, T), t0 != T
    n, m : int
    controls : dict
        Tolerances and limits of the forward pass, as `Loop` takes them.
    sweep : SweepOptions or None
        Of the interpolating adjoint; None for the discrete one.
    atol_scale : float
        See `Loop`.
    wants_theta : bool
    """

    def __init__(
        self,
        dynamics: Dynamics,
        tableau: Tableau,
        structure: Structure | None,
        loss: PreparedLoss,
        t_span: tuple[float, float],
        n: int,
        m: int,
        controls: dict[str, Any],
        sweep: SweepOptions | None,
        atol_scale: float,
        wants_theta: bool,
    ):
        t0, T = t_span
        if T < t0:
            loss.reverse()
        self.loss, self.u0, self.theta = loss, np.zeros(n), np.zeros(m)
        record = RECORD_STAGES if sweep is None else RECORD_DENSE
        self.forward, self.forward_entry = forward_pass(
            dynamics, tableau, structure, self.u0, self.theta, t_span, controls, record=record, times=loss.times
        )
        loss.observe(self.forward.observed)
        if sweep is None:
            self.backward: _Discrete | _Interpolating = _Discrete(dynamics, tableau, structure, self.theta, loss, wants_theta)
        else:
            self.backward = _Interpolating(dynamics, self.theta, loss, t_span, sweep, atol_scale, wants_theta, controls)
        self.backward.frame[slots.FORWARD_COUNT] = self.forward.count
        self._connect()
        self.backward_entry = self.backward.entry
        self.leaves_t0 = sweep is None  # the discrete adjoint leaves out what was observed at t0: it enters u0's cotangent alone
        self.at_t0 = loss.u_bars[0] if self.leaves_t0 and loss.times.size and loss.times[0] == t0 else None
        self.total = self.backward.total[:m]
        self._addresses = self.forward.frame.argument, self.backward.frame.argument

    def _connect(self) -> None:
        """Let the backward pass read what the forward pass has stored."""
        store, frame = self.forward.store, self.backward.frame
        frame[slots.FORWARD_T], frame[slots.FORWARD_U] = store.t, store.u
        frame[slots.FORWARD_C], frame[slots.FORWARD_STAGES] = store.c, store.stages
        if store.stiff is not None:
            frame[slots.FORWARD_STIFF] = store.stiff

    def grow(self) -> None:
        self.forward.grow()
        self._connect()

    def run(self) -> tuple[float, bool]:
        """Value and gradient at `u0` and `theta`, the gradient into `lam` and `total`: (value, whether all is well)."""
        forward, backward = self._addresses
        while (status := self.forward_entry(forward)) == STORE_FULL:
            self.grow()
        if status != SUCCESS:
            return 0.0, False
        value = self.loss.run()
        if not abs(value) < math.inf or self.backward_entry(backward) != SUCCESS:
            return 0.0, False
        return value, True

    def u0_bar(self) -> np.ndarray:
        return self.backward.lam.copy() if self.at_t0 is None else self.backward.lam + self.at_t0

    def theta_bar(self) -> np.ndarray:
        return self.total.copy()

    def stats(self) -> PullbackStats:
        stats = PullbackStats()
        self.backward.count(stats)
        return stats

    @functools.cached_property
    def grower(self) -> Any:
        return c_function(self.grow)


def c_function(action: Callable[[], None]) -> Any:
    """What compiled code can call by its address, with any number, to have `action` done in Python: 0, or 1 if memory is short."""

    def act(_):
        try:
            action()
        except MemoryError:
            return 1
        return 0

    return act if DISABLED else ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(act)


class _Discrete:
    """The discrete adjoint along the recorded stages."""

    def __init__(
        self,
        dynamics: Dynamics,
        tableau: Tableau,
        structure: Structure | None,
        theta: np.ndarray,
        loss: PreparedLoss,
        wants_theta: bool,
    ):
        start = np.zeros(loss.u_bars.shape[1])
        arrays = start, loss.times, loss.u_bars
        self._pass = DiscretePass(dynamics, tableau, structure, theta, *arrays, wants_theta=wants_theta, recorded=True)
        self.frame: Frame = self._pass.frame
        self.lam, self.total = self._pass.lam, self._pass.total

    @property
    def entry(self) -> Callable:
        return self._pass.entry

    def count(self, stats: PullbackStats) -> None:
        stats.n_steps = self._pass.place.item(1)
        count_discrete(stats, self._pass, False)


class _Interpolating:
    """The interpolating adjoint along the recorded dense output, from the last observation back."""

    def __init__(
        self,
        dynamics: Dynamics,
        theta: np.ndarray,
        loss: PreparedLoss,
        t_span: tuple[float, float],
        options: SweepOptions,
        atol_scale: float,
        wants_theta: bool,
        controls: dict[str, Any],
    ):
        times, n = loss.times, loss.u_bars.shape[1]
        start, t_start = (loss.u_bars[-1], float(times[-1])) if times.size else (np.zeros(n), t_span[0])
        empty = np.zeros(0), np.zeros((0, n)), np.zeros((0, 1, n)), np.zeros(1, dtype=np.int64)
        arrays = {**interpolating.arrays_along(*empty), slots.JUMPS: loss.u_bars[:-1], slots.U: np.zeros(n)}
        stops = np.append(times[-2::-1] if times.size else [], t_span[0])  # one observed at t0 is a stop of no length
        self._backward = backward = BackwardPass(
            "interpolating", interpolating.make_backward, arrays, start, stops, np.full(n, options.atol), lam_from=0
        )
        self._wants_theta = wants_theta and theta.size > 0
        self._loop, self._short = sweep_loop(
            backward,
            t_start,
            dynamics,
            theta,
            options,
            wants_theta=self._wants_theta,
            wants_lam=True,
            atol_scale=atol_scale,
            max_step=controls["max_step"],
            step=controls["step"],
        )
        self._dynamics, self._options = dynamics, options
        self.frame: Frame = self._loop.frame
        self.lam, self.total = self._loop.y, self._loop.total

    @property
    def entry(self) -> Callable:
        return sweep_entry(self._dynamics, self._backward, self._loop, self._options)

    def count(self, stats: PullbackStats) -> None:
        wants = {"wants_theta": self._wants_theta, "wants_lam": True, "short": self._short}
        count_sweep(stats, self._loop, "interpolating", False, **wants)
        count_jacobians(stats, self._loop, self._dynamics, self._options)


def _jitted_run(workspace: Workspace, forward_frame: int, backward_frame: int, loss_frame: int) -> Callable[[], int]:
    """The three entries one after the other."""
    entries = workspace.forward_entry, workspace.loss.entry, workspace.backward_entry
    forward_code, loss_code, backward_code = (code_address(each) for each in entries)
    grow_code = code_address(workspace.grower)

    @njit(nogil=True)
    def run():
        status = call_code(forward_code, forward_frame)
        while status == STORE_FULL and call_code(grow_code, 0) == 0:
            status = call_code(forward_code, forward_frame)
        if status == SUCCESS:
            status = call_code(loss_code, loss_frame)
        if status == SUCCESS:
            status = call_code(backward_code, backward_frame)
        return status

    return run


def jitted_evaluation(workspace: Workspace, wants: tuple[bool, bool]) -> Callable[..., tuple[int, float]]:
    """`Workspace.run` for compiled code; see `ValueAndGradient.jitted`."""
    frames = workspace.forward.frame, workspace.backward.frame, workspace.loss.frame
    forward_frame, backward_frame, loss_frame = (frame.argument for frame in frames)
    run = _jitted_run(workspace, forward_frame, backward_frame, loss_frame)
    lam_slot = slots.Y if isinstance(workspace.backward, _Interpolating) else slots.LAM
    wants_u0, wants_theta = wants
    at_t0, n, m = workspace.at_t0 is not None, workspace.u0.size, workspace.theta.size

    @njit(nogil=True)
    def evaluate(u0, theta, u0_bar, theta_bar):
        if u0.size != n or theta.size != m or u0_bar.size != n or theta_bar.size != m:
            raise ValueError("u0, theta, u0_bar and theta_bar must have the sizes that this function was made for")
        forward, backward, of_loss = opened(forward_frame), opened(backward_frame), opened(loss_frame)
        vector_at(forward, slots.START)[:] = u0
        vector_at(forward, slots.THETA)[:] = theta
        status = run()
        if status != SUCCESS:
            u0_bar[:] = np.nan
            theta_bar[:] = np.nan
            return status, np.nan
        if wants_u0:
            u0_bar[:] = vector_at(backward, lam_slot)
            if at_t0:
                u0_bar += row(matrix_at(of_loss, slots.JUMPS), 0)
        if wants_theta:
            theta_bar[:] = vector_at(backward, slots.TOTAL)[:m]
        return status, vector_at(of_loss, slots.VALUE)[0]

    evaluate.workspace = workspace  # whose memory it works on
    return evaluate
