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

from adjode import slots
from adjode.frame import Frame
from adjode.jit import DISABLED, call_code, code_address, entry, exact_kernel, integers, kernel, matrix, row, vector
from adjode.loops.loop import Loop
from adjode.slot import Slot
from adjode.status import STORE_FULL, SUCCESS
from adjode.workspace import Workspace, c_function

# Indices into the arguments of the entry.
FORWARD, LOSS, BACKWARD, GROW = range(4)  # `code`, addresses, and `frames`
U0, THETA, DATA, DATA_WEIGHTS, SPAN = range(5)  # `given`: a row for each trajectory, or one for all
# `buffers`: those of `given` but for SPAN, then what is made of them, and where the passes begin and end
LAM, TOTAL, AT_T0, VALUE, TIMES, OBSERVED, FORWARD_CONTROL, FORWARD_STOPS, BACKWARD_CONTROL, BACKWARD_STOPS = range(4, 14)
STATES = 2  # `out`: cotangents of U0 and THETA, and the states observed; no rows where not wanted
ENDS_AT_T, FORWARD_ONLY, SHARED_U0, SHARED_THETA = range(4)  # `flags`


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


@kernel
def _set_span(t0, T, flags, buffers):
    times, control, stops = buffers[TIMES], buffers[FORWARD_CONTROL], buffers[FORWARD_STOPS]
    control[slots.T_START], control[slots.SPAN], stops[0] = t0, abs(T - t0), T
    if flags[ENDS_AT_T] == 1:
        times[times.size - 1] = T
    start = times[times.size - 1] if times.size > 0 else t0
    control, stops = buffers[BACKWARD_CONTROL], buffers[BACKWARD_STOPS]
    control[slots.T_START], control[slots.SPAN], stops[stops.size - 1] = start, abs(t0 - start), t0
    control[slots.DIRECTION] = 1.0 if t0 >= start else -1.0


@kernel
def _run_passes(code, frames, forward_only):
    """The entries one after the other; the status."""
    status = call_code(code[FORWARD], frames[FORWARD])
    while status == STORE_FULL and call_code(code[GROW], 0) == 0:
        status = call_code(code[FORWARD], frames[FORWARD])
    if status != SUCCESS or forward_only == 1:
        return status
    status = call_code(code[LOSS], frames[LOSS])
    if status != SUCCESS:
        return status
    return call_code(code[BACKWARD], frames[BACKWARD])


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
def _keep_bar(totals, i, block, shared, lost, bar):
    """Write a cotangent down, or add it to the sum of its block."""
    if totals.shape[0] == 0:
        return
    if shared == 1:
        _add(row(totals, block), lost, bar)
    else:
        _copy_out(totals, i, bar)


def _run_members(members, code, frames, given, flags, buffers, count, value, status, work, out, lost):
    """Solve the trajectories of the blocks `members` = (first, stop) of a given size, out of N."""
    first, stop, size, N = members[0], members[1], members[2], members[3]
    forward_only, spans, lam, times = flags[FORWARD_ONLY], given[SPAN], buffers[LAM], buffers[TIMES]
    for block in range(first, stop):
        for i in range(block * size, min((block + 1) * size, N)):
            _copy_in(buffers[U0], given[U0], i)
            _copy_in(buffers[THETA], given[THETA], i)
            _copy_in(buffers[DATA], given[DATA], i)
            _copy_in(buffers[DATA_WEIGHTS], given[DATA_WEIGHTS], i)
            t0 = spans[i if spans.shape[0] > 1 else 0, 0]
            _set_span(t0, spans[i if spans.shape[0] > 1 else 0, 1], flags, buffers)
            count[slots.ENTERED] = 0  # a trajectory that memory was too short for may have left it set
            status[i] = _run_passes(code, frames, forward_only)
            work[i, 0], work[i, 1], work[i, 2] = count[slots.DERIVATIVES], count[slots.STEPS], count[slots.REJECTED]
            if status[i] != SUCCESS:  # rows that were not written to hold NaN
                continue
            if forward_only == 1:
                _copy_out(out[STATES], i, buffers[OBSERVED])
                continue
            value[i] = buffers[VALUE][0]
            if buffers[AT_T0].size > 0:
                if times[0] == t0:
                    for k in range(lam.size):
                        lam[k] += buffers[AT_T0][k]
            _keep_bar(out[U0], i, block, flags[SHARED_U0], row(lost, U0), lam)
            _keep_bar(out[THETA], i, block, flags[SHARED_THETA], row(lost, THETA), buffers[TOTAL])
        if flags[SHARED_U0] == 1:
            _give_back(out[U0], block, row(lost, U0))
        if flags[SHARED_THETA] == 1:
            _give_back(out[THETA], block, row(lost, THETA))


@functools.cache
def _driver() -> Callable:
    table, inputs = types.Array(types.int64, 2, "C"), types.UniTuple(matrix, SPAN + 1)
    buffers, out = types.UniTuple(vector, BACKWARD_STOPS + 1), types.UniTuple(matrix, STATES + 1)
    numbers = (integers, integers, integers, inputs, integers, buffers, integers)
    return entry(_run_members, (*numbers, vector, integers, table, out, matrix), "ensemble")


ENTRIES = (_driver,)  # depends on no callback


class Seat:
    """The buffers of one thread, and the entries that run on them; it keeps alive what these point to.

    Made for a gradient from a `Workspace`, for a solve from a `Loop` with its entry.
    """

    def __init__(self, owner: Workspace | Loop, n: int, m: int, grow: Callable[[], None]):
        self._owner = owner
        self._grow = c_function(grow)
        self._buffers: list[np.ndarray] = [np.zeros(0)] * (BACKWARD_STOPS + 1)
        self._buffers[BACKWARD_CONTROL], self._buffers[BACKWARD_STOPS] = np.zeros(slots.ATOL_SCALE + 1), np.zeros(1)
        self._data: Mapping[Slot, str] = {}
        self._lost = np.zeros((2, max(n, m)))
        self._flags = np.zeros(4, dtype=np.int64)

    @classmethod
    def of_solve(cls, loop: Loop, solve: Callable) -> Seat:
        frame = loop.frame
        seat = cls(loop, frame[slots.START].size, frame[slots.THETA].size, loop.grow)
        seat._flags[[ENDS_AT_T, FORWARD_ONLY]] = True
        seat._connect_forward(loop)
        seat._connect_entries([solve], [frame])
        return seat

    @classmethod
    def of_gradient(cls, workspace: Workspace, shared: frozenset[str]) -> Seat:
        loss, backward = workspace.loss, workspace.backward
        seat = cls(workspace, workspace.u0.size, workspace.theta.size, workspace.grow)
        seat._flags[:] = loss.ends_at_T, False, "u0" in shared, "theta" in shared
        seat._connect_forward(workspace.forward)
        seat._data = loss.data
        buffers = seat._buffers
        for index, slot in ((DATA, slots.DATA), (DATA_WEIGHTS, slots.DATA_WEIGHTS)):
            if slot in loss.data:
                loss.frame[slot] = loss.frame[slot].copy()  # each seat writes its own
                buffers[index] = loss.frame[slot].reshape(-1)
        buffers[LAM], buffers[TOTAL], buffers[VALUE] = backward.lam, workspace.total, loss.value
        if workspace.leaves_t0 and loss.times.size:
            buffers[AT_T0] = loss.u_bars[0]
        if not workspace.leaves_t0:
            buffers[BACKWARD_CONTROL], buffers[BACKWARD_STOPS] = backward.frame[slots.CONTROL], backward.frame[slots.STOPS]
        entries = workspace.forward_entry, loss.entry, workspace.backward_entry
        seat._connect_entries(list(entries), [workspace.forward.frame, loss.frame, backward.frame])
        return seat

    def _connect_forward(self, loop: Loop) -> None:
        frame = loop.frame
        self._count = loop.count
        self._buffers[U0], self._buffers[THETA] = frame[slots.START], frame[slots.THETA]
        self._buffers[TIMES], self._buffers[OBSERVED] = frame[slots.TIMES], loop.observed.reshape(-1)
        self._buffers[FORWARD_CONTROL], self._buffers[FORWARD_STOPS] = frame[slots.CONTROL], frame[slots.STOPS]

    def _connect_entries(self, entries: list[Callable], frames: list[Frame]) -> None:
        none = [0] * (BACKWARD + 1 - len(entries))
        code: Any = [*map(code_address, entries), *none, code_address(self._grow)]
        arguments: Any = [*(frame.argument for frame in frames), *none]
        self._code = code if DISABLED else np.array(code, dtype=np.int64)
        self._frames = arguments if DISABLED else np.array(arguments, dtype=np.int64)

    def data_of(self, loss: Any) -> tuple[np.ndarray, np.ndarray]:
        """The data of `loss`, of the kind that this seat was made for: a row for each member, or one for all."""
        data = {slot: getattr(loss, name) for slot, name in self._data.items()}
        rows = {slot: len(array) if self._data[slot] in loss.by_member else 1 for slot, array in data.items()}
        first, second = (
            np.ascontiguousarray(data[slot]).reshape(rows[slot], -1) if slot in data else np.zeros((1, 0))
            for slot in (slots.DATA, slots.DATA_WEIGHTS)
        )
        return first, second

    def run(self, first: int, stop: int, size: int, given: tuple, outputs: tuple) -> None:
        """Solve blocks first..stop-1; `outputs` are value, status, work and the tuple `out`."""
        value, status, work, out = outputs
        members = np.array([first, stop, size, len(value)], dtype=np.int64)
        own = self._code, self._frames, given, self._flags, tuple(self._buffers), self._count
        _driver()(members, *own, value, status, work, out, self._lost)
