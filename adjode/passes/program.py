"""`Program`: a forward pass, a loss and a backward pass, or some of these, and what one hands to the next.

This is the one place that says in which order passes run, when a full trajectory grows or other steps are put into it, and what
becomes of observations at t0.
Python calls `run_program` through an entry of its own, users' compiled code by its address, and the loop over an ensemble directly;
a thread of a GPU runs the same order over passes of its own, and grows on the host.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from adjode.compile import slots
from adjode.compile.entries import code_address, entry
from adjode.compile.flags import DISABLED, i8, kernel
from adjode.compile.frame import address_of, opened
from adjode.compile.views import call_code
from adjode.compile.watch import (
    DEADLINE,
    NEVER,
    ask_python,
    c_callback,
    forget_kept,
    keep_raised,
    nanoseconds,
    raise_kept,
    raise_pending,
)
from adjode.model.layout import Layout
from adjode.model.losses import Reading
from adjode.passes.base import Pass
from adjode.passes.costs import Costs
from adjode.passes.default_atol import follow_start
from adjode.passes.discrete import Discrete
from adjode.passes.forward import Forward
from adjode.passes.segments import Segments
from adjode.passes.sweep import Sweep
from adjode.passes.trajectory import Trajectory
from adjode.status import INTERRUPTED, REFINE, STORE_FULL, SUCCESS

if TYPE_CHECKING:
    from adjode.passes.second_order import SecondOrder
    from adjode.passes.tangents import TangentPass

# The table of a program: for each pass the address of its code and its frame, zeros for one that is left out; what helps a pass
# with its store of steps; START if the store has other steps than a run begins with, else 0; the pass that ran last; and how many
# nanoseconds a run may take, 0 for any, -1 for what the run before it has left; 1 for a run that goes on from the one before it, in
# its time, and keeps to the limits of steps that have been set; and, as for the passes, tangents that run behind all of these, and
# what reads them.
FORWARD, FORWARD_FRAME, LOSS, LOSS_FRAME, BACKWARD, BACKWARD_FRAME, HELP, AWAY, RAN, LIMIT, AGAIN = range(11)
TANGENTS, TANGENTS_FRAME, READING, READING_FRAME, ENTRIES_OF_TABLE = range(AGAIN + 1, AGAIN + 6)
START = -1  # what to help with: this, or the pass whose store is full, or read to its beginning


@kernel
def add_at_t0(times, jumps, t0, u0_bar):
    """What is observed at t0 enters the cotangent of u0, and no pass's lam; `times` are in the order of integration."""
    k = 0
    while k < times.size and times[k] == t0:
        for i in range(u0_bar.size):
            u0_bar[i] += jumps[k, i]
        k += 1


@kernel
def add_seen_at_start(forward, jumps, u0_bar):
    """The same along a trajectory, unless the state jumps there: it is observed behind that."""
    kinds = slots.MESH_KIND(forward)
    if kinds.size == 0 or kinds[0] < slots.JUMP:
        add_at_t0(slots.TIMES(forward), jumps, slots.CONTROL(forward)[slots.T_START], u0_bar)


@kernel
def _add_direct(loss, backward):
    """What the loss owes to theta itself enters the cotangent of theta, if that is wanted."""
    theta_bar, total = slots.DIRECT(loss), slots.TOTAL(backward)
    if slots.WANTS(backward)[slots.WANTS_THETA] == 1:
        for i in range(theta_bar.size):
            total[i] += theta_bar[i]


@kernel
def _help(table, which):
    """Have Python help, which returns a status and 1: ctypes makes 0 of an exception that it has to print."""
    status = call_code(table[HELP], which) - 1
    return INTERRUPTED if status < 0 else status


@kernel
def _run_pass(table, which):
    """One pass, if there is one, again and again while its store needs Python's help."""
    if table[which] == 0:
        return SUCCESS
    frame = opened(table[which + 1])
    slots.COUNT(frame)[slots.ENTERED] = 0  # a run before this one may have ended anywhere
    table[RAN] = which
    status = call_code(table[which], table[which + 1])
    while status == STORE_FULL:
        if ask_python(slots.WATCH(frame)) != 0:  # here rather than in what Python is about to do
            return INTERRUPTED
        status = _help(table, which)
        if status != SUCCESS:
            return status
        status = call_code(table[which], table[which + 1])
    return status


@kernel
def _run_forward(table):
    status = SUCCESS
    if table[AWAY] != 0:
        status = _help(table, START)
    return _run_pass(table, FORWARD) if status == SUCCESS else status


@kernel
def _begin_time(table):
    first = table[FORWARD_FRAME] if table[FORWARD] != 0 else table[BACKWARD_FRAME]
    watch = slots.WATCH(opened(first))
    if table[LIMIT] >= 0 and table[AGAIN] == 0:
        watch[DEADLINE] = nanoseconds() + table[LIMIT] if table[LIMIT] > 0 else NEVER


@kernel
def _run_loss(table):
    if table[LOSS] == 0:
        return SUCCESS
    table[RAN] = LOSS
    return call_code(table[LOSS], table[LOSS_FRAME])


@kernel
def _run_tangents(table):
    status = _run_pass(table, TANGENTS)
    if status == SUCCESS and table[READING] != 0:
        status = call_code(table[READING], table[READING_FRAME])
    return status


@kernel
def _run_backward(table):
    status = _run_pass(table, BACKWARD)
    if status == SUCCESS and table[LOSS] != 0 and table[BACKWARD] != 0:
        forward, loss, backward = opened(table[FORWARD_FRAME]), opened(table[LOSS_FRAME]), opened(table[BACKWARD_FRAME])
        add_seen_at_start(forward, slots.JUMPS(loss), slots.U0_BAR(backward))
        _add_direct(loss, backward)
    return _run_tangents(table) if status == SUCCESS else status


@kernel
def _begin_limits(table):
    """At first nothing limits the steps but tolerances; whether there is a forward pass, to be run again within limits."""
    if table[FORWARD] != 0 and table[AGAIN] == 0:
        forward = opened(table[FORWARD_FRAME])
        limited = slots.LIMITED(forward)
        limited[0] = limited[1] = 0
        follow_start(forward, slots.FLOOR_BEHIND(forward))
    return table[FORWARD] != 0


@kernel
def _no_limits(passes):
    return False


def make_run(forward: Callable, loss: Callable, backward: Callable, begin: Callable = _no_limits) -> Callable:
    """`run(passes) -> status`: one pass after the other, as far as all is well, and again while the last asks for shorter steps."""

    @kernel
    def run(passes):
        repeats, goes_on, status = begin(passes), True, SUCCESS
        while goes_on:
            status = forward(passes)
            if status == SUCCESS:
                status = loss(passes)
            if status == SUCCESS:
                status = backward(passes)
            goes_on = repeats and status == REFINE
        return status

    return run


run_program = make_run(_run_forward, _run_loss, _run_backward, _begin_limits)


def _run_timed(address):
    table = opened(address)
    _begin_time(table)
    return run_program(table)


@functools.cache
def program_entry() -> Callable[[Any], int]:
    return entry(_run_timed, (i8,), "program")


ENTRIES = (program_entry,)  # depends on no callback


class Program:
    """
    Parameters
    ----------
    forward : Forward, optional
    loss : PreparedLoss, optional
        Compiled; it reads what the forward pass observes.
    backward : Discrete, Sweep, Costs, TangentPass or SecondOrder, optional
        Along the trajectory of the forward pass, if there is one. With a loss, what that writes are its jumps.
    goes_on : bool
        Whether it has the deadline of another program, whose watch its passes share.
    segments : Segments, optional
        Of a forward pass that is no part of it, along which `backward` runs.
    tangents : TangentPass, optional
        Along the steps of the forward pass when `backward`, if there is one, has nothing against them.
    reading : Reading, optional
        Of what the last pass has observed.
    """

    def __init__(
        self,
        forward: Forward | None = None,
        loss: Any = None,
        backward: Discrete | Sweep | Costs | TangentPass | SecondOrder | None = None,
        *,
        goes_on: bool = False,
        segments: Segments | None = None,
        tangents: TangentPass | None = None,
        reading: Reading | None = None,
    ):
        self.forward, self.loss, self.backward = forward, loss, backward
        self.segments = segments if forward is None else _segments_of(forward)
        first: Pass | None = forward or backward
        assert first is not None
        self.watch, self.max_seconds = first.watch, first.max_seconds
        numbers = np.zeros(ENTRIES_OF_TABLE, dtype=np.int64)
        self._table: Any = [0] * ENTRIES_OF_TABLE if DISABLED else numbers
        self._table[LIMIT] = -1 if goes_on else 0 if self.max_seconds is None else int(min(self.max_seconds, 1e9) * 1e9)
        self._followers = [] if forward is None else [one for one in (backward, tangents) if one is not None]
        for one in self._followers:
            assert forward is not None
            one.share_watch(forward.watch)
            one.follow(forward.trajectory, forward.count)
            forward.measure_for(one.frame)
        if forward is not None and backward is not None and loss is not None:
            loss.follow(forward.frame, backward.frame)
        if self.segments is not None and isinstance(backward, Sweep):
            backward.frame[slots.U_LARGEST] = self.segments.largest
        runs: Any = (FORWARD, forward), (LOSS, loss), (BACKWARD, backward), (TANGENTS, tangents), (READING, reading)
        for at, one in runs:
            if one is not None:
                self._table[at], self._table[at + 1] = code_address(one.entry), one.frame.argument
        self._offer_help()
        self._table[AWAY] = 0 if segments is None else START
        self.table: Any = self._table if DISABLED else address_of(numbers)
        self._entry = program_entry()

    def __reduce__(self):
        raise TypeError("a program holds addresses of this process, so it cannot be copied or pickled.")

    def run(self, again: bool = False) -> int:
        """From the first pass to the last; the status of the one that `ran` last. `again` keeps to the limits of steps and time.

        Raises
        ------
        MemoryError
            If there is no room for more steps.
        BaseException
            What a handler of signals raised meanwhile.
        """
        self._table[AGAIN] = again
        kept = forget_kept()
        status = self._entry(self.table)
        if status == STORE_FULL:
            raise MemoryError("there is no room for more steps: give a budget, such as memory='1GB', or loosen the tolerances.")
        if status == INTERRUPTED:
            self._offer_help()  # what an exception has left may have ended
            raise_pending(self.watch)
        if kept:
            raise_kept()
        return status

    def _offer_help(self) -> None:
        me = weakref.proxy(self)  # else all that a program has would wait for the collector of cycles
        self._help = c_callback(lambda which: me.help(which) + 1, _kept)  # kept alive
        self._table[HELP] = code_address(self._help)

    @property
    def ran(self) -> int:
        """FORWARD, LOSS, BACKWARD or TANGENTS."""
        return int(self._table[RAN])

    def help(self, which: int) -> int:
        """Do what the store of a pass needs, or a run at its START, or a jump that a pass has come to; the status."""
        if which == BACKWARD and self.backward is not None and self.backward.help_itself():
            return SUCCESS
        if self.segments is not None:
            return self._move(self.segments, which)
        self._grow()
        return SUCCESS

    def _grow(self) -> None:
        """More room for steps. Wherever this is interrupted, the forward pass has no room until it has been done again."""
        forward, backward = self.forward, self.backward
        assert forward is not None
        forward.trajectory.grow()
        forward.frame[slots.MESH_T] = np.empty(1)
        for one in self._followers:
            forward.trajectory.put_forward(one.frame)
        forward.trajectory.put_recorded(forward.frame)
        if backward is not None and self.loss is not None:
            self.loss.follow(forward.frame, backward.frame)

    def _move(self, segments: Segments, which: int) -> int:
        """Other steps into the store. Wherever this is interrupted, the next run begins anew."""
        status, count = SUCCESS, segments.at_hand
        if which == BACKWARD:
            status = segments.back_up()
        elif self.forward is None:
            status = segments.to_end()
        else:
            count = self.forward.count
            self._table[AWAY] = START
            if which == FORWARD:
                segments.go_on()
            else:
                segments.rewind()
                self._table[AWAY] = 0
        if self.backward is not None:
            follow = self.backward.follow_on if which == BACKWARD else self.backward.follow
            follow(segments.trajectory, count)
            if self.forward is not None and self.loss is not None and which == FORWARD:
                self.loss.follow(self.forward.frame, self.backward.frame)
        return status


def _segments_of(forward: Forward) -> Segments | None:
    return None if forward.memory is None else Segments(forward, forward.memory, forward.lasting)


def run_and_keep(forward: Forward, layout: Layout) -> tuple[Trajectory, Segments | None]:
    """Run a forward pass: its steps and, where not all of them have been kept, what solves them again; a SolveError if it fails."""
    program = Program(forward)
    status, segments = program.run(), program.segments
    if status != SUCCESS:
        raise forward.error(status, layout)
    occurred = int(forward.count[slots.OCCURRED])
    if segments is not None and forward.count[slots.EARLIER]:
        return segments.finish().trimmed_jumps(occurred), segments
    return forward.trajectory.trimmed(forward.steps).trimmed_jumps(occurred), None


def _kept(error: BaseException) -> int:
    """What `Program.help` returns, and 1, where it raises."""
    if isinstance(error, MemoryError):
        return STORE_FULL + 1
    keep_raised(error)
    return INTERRUPTED + 1
