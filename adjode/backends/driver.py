"""The compiled loop over the trajectories of an ensemble: for each, the entries that a single call runs, on one set of buffers.

Inputs are copied into the buffers, the entries run, values and cotangents are copied out. So a trajectory has the bits of a single
`value_and_gradient`, and memory is per thread. The loop takes all it needs as arguments: one compiled entry serves every problem.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numba import types

from adjode.api.jumps_of_f import SHORT
from adjode.compile import slots
from adjode.compile.entries import entry
from adjode.compile.flags import exact_kernel, i8, integers, kernel, matrix, vector
from adjode.compile.frame import opened
from adjode.compile.slot import Slot
from adjode.compile.views import row
from adjode.compile.watch import CANCELLED, NEXT_LOOK, RAISED, look_up, new_watch, raise_pending, set_deadline, start_watch
from adjode.model.losses import PreparedLoss
from adjode.passes.forward import Forward
from adjode.passes.program import FORWARD, Program, run_program
from adjode.passes.sweep import Sweep
from adjode.passes.workspace import Workspace
from adjode.status import INTERRUPTED, SUCCESS

# Indices into the arguments of the entry.
U0, THETA, DATA, DATA_WEIGHTS, AT_MOST, SPAN = range(6)  # `given`: a row for each trajectory, or one for all
# `buffers`: those of `given` but for SPAN, then what is made of them, where the passes begin and end, and times as users know them
U0_BAR, TOTAL, VALUE, OBSERVED, TIME_SPAN, FORWARD_CONTROL, BACKWARD_CONTROL = range(5, 12)
TIMES, FORWARD_STOPS, BACKWARD_STOPS, TIMES_GIVEN, FORWARD_STOPS_GIVEN, BACKWARD_STOPS_GIVEN, TRUST = range(12, 19)
STATES, ERRORS = 2, 3  # `out`: cotangents of U0 and THETA, the states observed, and errors of cotangents; no rows where not wanted
ENDS_AT_T, FORWARD_ONLY, SHARED_U0, SHARED_THETA = range(4)  # `flags`
F, STEPS, REJECTED, SHORT_STEP = range(4)  # columns of `work`, see `Outcome`


@kernel
def _copy_in(to, source, i):
    """Row i of `source`, or its only row."""
    at = i if source.shape[0] > 1 else 0
    for k in range(to.size):
        to[k] = source[at, k]


@kernel
def _copy_out(to, i, source):
    for k in range(to.shape[1]):
        to[i, k] = source[k]


@exact_kernel
def _count_from(t0, given, elapsed):
    for k in range(given.size):
        elapsed[k] = given[k] - t0


@kernel
def _set_span(t0, T, flags, buffers):
    span, times, length = buffers[TIME_SPAN], buffers[TIMES], T - t0
    span[slots.ORIGIN], span[slots.EARLIEST], span[slots.LATEST] = t0, min(t0, T), max(t0, T)
    _count_from(t0, buffers[TIMES_GIVEN], times)
    _count_from(t0, buffers[FORWARD_STOPS_GIVEN], buffers[FORWARD_STOPS])
    _count_from(t0, buffers[BACKWARD_STOPS_GIVEN], buffers[BACKWARD_STOPS])
    control, stops = buffers[FORWARD_CONTROL], buffers[FORWARD_STOPS]
    control[slots.SPAN], stops[stops.size - 1] = abs(length), length
    if flags[ENDS_AT_T] == 1:
        times[times.size - 1] = length
    start = times[times.size - 1] if times.size > 0 else 0.0
    control, stops = buffers[BACKWARD_CONTROL], buffers[BACKWARD_STOPS]
    stops[0], stops[stops.size - 1] = start, 0.0
    control[slots.T_START], control[slots.SPAN] = start, abs(start)
    control[slots.DIRECTION] = 1.0 if start <= 0.0 else -1.0


@exact_kernel
def _add(total, lost, x):
    """total += x, and what rounding takes away into `lost` (Neumaier 1974, ZAMM 54, 39-51)."""
    for k in range(x.size):
        old, new = total[k], total[k] + x[k]
        if abs(old) >= abs(x[k]):
            lost[k] += (old - new) + x[k]
        else:
            lost[k] += (x[k] - new) + old
        total[k] = new


@exact_kernel
def _give_back(totals, block, lost):
    for k in range(totals.shape[1]):
        totals[block, k] += lost[k]
        lost[k] = 0.0


@kernel
def _keep_errors(errors, i, trust):
    if errors.shape[0] > 0:
        errors[i, 0], errors[i, 1] = trust[slots.U0_ERROR], trust[slots.THETA_ERROR]


@kernel
def _keep_bar(totals, i, block, shared, lost, bar):
    """Write a cotangent down, or add it to the sum of its block."""
    if totals.shape[0] == 0:
        return
    if shared == 1:
        _add(row(totals, block), lost, bar)
    else:
        _copy_out(totals, i, bar)


@exact_kernel
def _note_short_step(work, i, table):
    """Where f may jump, whether a step of the forward pass is shorter than the one before, and far shorter than the mean of all.

    Those that lead over a jump of f are (api/jumps_of_f.py).
    """
    if work.shape[1] <= SHORT_STEP:
        return
    frame = opened(table[FORWARD + 1])
    mesh, steps = slots.MESH_T(frame), slots.COUNT(frame)[slots.STEPS]
    short = 2.0 * SHORT * abs(mesh[steps] - mesh[0]) / max(steps, 1)
    for k in range(1, steps):
        h = abs(mesh[k + 1] - mesh[k])
        if h < short and h < abs(mesh[k] - mesh[k - 1]):
            work[i, SHORT_STEP] = 1


def _run_members(members, program, between, given, flags, buffers, count, value, status, work, out, lost):
    """Solve the trajectories of the blocks `members` = (first, stop) of a given size, out of N; INTERRUPTED if that was stopped.

    `between` is the watch of this loop, since one trajectory may be too short to look up.
    """
    first, stop, size, N = members[0], members[1], members[2], members[3]
    forward_only, spans, table = flags[FORWARD_ONLY], given[SPAN], opened(program)
    start_watch(between)
    for block in range(first, stop):
        for i in range(block * size, min((block + 1) * size, N)):
            if i >= between[NEXT_LOOK]:
                if look_up(between, i) != SUCCESS:
                    return INTERRUPTED
            _copy_in(buffers[U0], given[U0], i)
            _copy_in(buffers[THETA], given[THETA], i)
            _copy_in(buffers[DATA], given[DATA], i)
            _copy_in(buffers[DATA_WEIGHTS], given[DATA_WEIGHTS], i)
            _copy_in(buffers[AT_MOST], given[AT_MOST], i)
            t0 = spans[i if spans.shape[0] > 1 else 0, 0]
            _set_span(t0, spans[i if spans.shape[0] > 1 else 0, 1], flags, buffers)
            status[i] = run_program(table)
            if status[i] == INTERRUPTED:
                return INTERRUPTED
            steps = count[slots.EARLIER] + count[slots.STEPS] - count[slots.CROSSINGS]
            work[i, F], work[i, STEPS], work[i, REJECTED] = count[slots.DERIVATIVES], steps, count[slots.REJECTED]
            if status[i] != SUCCESS:  # rows that were not written to hold NaN
                continue
            if forward_only == 1:
                _copy_out(out[STATES], i, buffers[OBSERVED])
                continue
            value[i] = buffers[VALUE][0]
            _note_short_step(work, i, table)
            _keep_errors(out[ERRORS], i, buffers[TRUST])
            _keep_bar(out[U0], i, block, flags[SHARED_U0], row(lost, U0), buffers[U0_BAR])
            _keep_bar(out[THETA], i, block, flags[SHARED_THETA], row(lost, THETA), buffers[TOTAL])
        if flags[SHARED_U0] == 1:
            _give_back(out[U0], block, row(lost, U0))
        if flags[SHARED_THETA] == 1:
            _give_back(out[THETA], block, row(lost, THETA))
    return SUCCESS


@functools.cache
def _driver() -> Callable:
    table, inputs = types.Array(types.int64, 2, "C"), types.UniTuple(matrix, SPAN + 1)
    buffers, out = types.UniTuple(vector, TRUST + 1), types.UniTuple(matrix, ERRORS + 1)
    numbers = (integers, i8, integers, inputs, integers, buffers, integers)
    return entry(_run_members, (*numbers, vector, integers, table, out, matrix), "ensemble")


ENTRIES = (_driver,)  # depends on no callback


class Seat:
    """The buffers of one thread, and the program that runs on them.

    Made for a gradient from a `Workspace`, for a solve from a forward pass.

    Attributes
    ----------
    judges : bool
        Whether its backward pass estimates the error of the gradient.
    """

    judges = False

    def __init__(self, forward: Forward, program: Program, forward_only: bool):
        frame, n = forward.frame, forward.frame[slots.START].size
        m = forward.frame[slots.THETA].size - len(forward.jumps.inflows)
        self._program, self._count = program, forward.count
        self._lost, self._between = np.zeros((2, max(n, m))), new_watch()
        self._data: Mapping[Slot, str] = {}
        self._flags = np.zeros(4, dtype=np.int64)
        self._flags[[ENDS_AT_T, FORWARD_ONLY]] = forward_only
        self._buffers = buffers = [np.zeros(0)] * (TRUST + 1)
        buffers[BACKWARD_CONTROL], buffers[BACKWARD_STOPS] = np.zeros(len(slots.CONTROL.entries)), np.zeros(1)
        buffers[TIME_SPAN] = frame[slots.TIME_SPAN]
        buffers[TIMES_GIVEN], buffers[FORWARD_STOPS_GIVEN] = forward.times, forward.stops
        buffers[U0], buffers[THETA], buffers[AT_MOST] = frame[slots.START], frame[slots.THETA][:m], frame[slots.ATOL_AT_MOST]
        buffers[TIMES], buffers[OBSERVED] = frame[slots.TIMES], forward.observed.reshape(-1)
        buffers[FORWARD_CONTROL], buffers[FORWARD_STOPS] = frame[slots.CONTROL], forward.planned

    @classmethod
    def of_solve(cls, forward: Forward) -> Seat:
        return cls(forward, Program(forward), True)

    @classmethod
    def of_gradient(cls, workspace: Workspace, shared: frozenset[str]) -> Seat:
        loss, backward = workspace.loss, workspace.backward
        seat = cls(workspace.forward, workspace.program, False)
        seat._flags[:] = loss.ends_at_T, False, "u0" in shared, "theta" in shared
        seat._own_data(loss)
        buffers = seat._buffers
        buffers[U0_BAR], buffers[TOTAL], buffers[VALUE] = backward.lam, workspace.theta_bar_at, loss.value
        seat.judges = backward.estimate is not None
        if seat.judges:
            buffers[TRUST] = backward.frame[slots.TRUST]
        if isinstance(backward, Sweep):
            buffers[BACKWARD_STOPS_GIVEN] = backward.stops
            buffers[BACKWARD_CONTROL], buffers[BACKWARD_STOPS] = backward.frame[slots.CONTROL], backward.planned
        return seat

    def _own_data(self, loss: PreparedLoss) -> None:
        """Data for this thread to write to."""
        self._data = loss.data
        for index, slot in ((DATA, slots.DATA), (DATA_WEIGHTS, slots.DATA_WEIGHTS)):
            if slot in loss.data:
                loss.frame[slot] = loss.frame[slot].copy()
                self._buffers[index] = loss.frame[slot].reshape(-1)

    def data_of(self, loss: Any) -> tuple[np.ndarray, np.ndarray]:
        """The data of `loss`, of the kind that this seat was made for: a row for each member, or one for all."""
        data = {slot: getattr(loss, name) for slot, name in self._data.items()}
        rows = {slot: len(array) if self._data[slot] in loss.by_member else 1 for slot, array in data.items()}
        first, second = (
            np.ascontiguousarray(data[slot]).reshape(rows[slot], -1) if slot in data else np.zeros((1, 0))
            for slot in (slots.DATA, slots.DATA_WEIGHTS)
        )
        return first, second

    def start(self) -> None:
        """The time of a call begins."""
        set_deadline(self._program.watch, self._program.max_seconds)

    def cancel(self) -> None:
        """Have `run`, in whatever thread, stop soon."""
        self._program.watch[CANCELLED] = self._between[CANCELLED] = 1

    def run(self, first: int, stop: int, size: int, given: tuple, outputs: tuple) -> None:
        """Solve blocks first..stop-1; `outputs` are value, status, work and the tuple `out`."""
        value, status, work, out = outputs
        members = np.array([first, stop, size, len(value)], dtype=np.int64)
        own = self._program.table, self._between, given, self._flags, tuple(self._buffers), self._count
        if _driver()(members, *own, value, status, work, out, self._lost) == INTERRUPTED:
            raise_pending(self._between if self._between[RAISED:].any() else self._program.watch)
