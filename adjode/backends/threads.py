"""The backend of CPU threads: each thread has one set of buffers, and takes blocks of trajectories from a common counter.

Plain threads serve: the compiled loop holds no GIL, and the order of trajectories does not matter to their results. Numba's
`prange` would compile for seconds, and its portable threading layer may not be entered from two threads at a time.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adjode.api.first_calls import forward_parts
from adjode.api.gradient import ValueAndGradient
from adjode.api.solve import try_before
from adjode.backends.driver import SHORT_STEP, Seat
from adjode.backends.outcome import Outcome, States, block_size, count_rows
from adjode.compile.signals import uninterrupted
from adjode.compile.slots import RECORD_STAGES
from adjode.model.dynamics import Dynamics
from adjode.model.inflows import with_inflows
from adjode.model.losses.members import MemberData
from adjode.passes.forward import Forward, jumps_of, structure_for
from adjode.passes.options import SolveOptions, rows_at_most

_LARGEST_RUN = 16  # blocks that a thread takes at a time: little enough for a balance at the end, and for progress in between


def count_workers(workers: int | None) -> int:
    """How many threads to use: by default one for each CPU that this process may run on."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(workers, (int, np.integer)) or workers < 1:
        raise ValueError(f"workers must be a positive integer, but {workers!r} was given.")
    return int(workers)


def run_blocks(run: Callable[[Any, int, int], None], seats: list[Any], blocks: int, done: Callable[[int, int], Any] | None) -> None:
    """Call `run(seat, first, stop)` for runs of blocks until all are done, each seat in a thread of its own.

    Runs get shorter towards the end, so that threads with dear trajectories and threads with cheap ones end together. What `run`
    raises stops all threads and is raised here. `done(first, stop)` is called after each run.
    """
    position, lock = 0, threading.Lock()
    errors: list[BaseException] = []

    def stop() -> None:
        for seat in seats:
            seat.cancel()

    def take() -> tuple[int, int]:
        nonlocal position
        with lock:
            first = blocks if errors else position
            position = first + min(blocks - first, max(1, min((blocks - first) // (4 * len(seats)), _LARGEST_RUN)))
            return first, position

    def work(seat: Any) -> None:
        try:
            while (part := take())[0] < blocks:
                run(seat, *part)
                if done is not None:
                    with lock:
                        done(*part)
        except BaseException as error:
            errors.append(error)
            stop()

    _run_together([functools.partial(work, seat) for seat in seats], errors, stop)
    if errors:
        raise errors[0]


def _run_together(tasks: list[Callable[[], None]], errors: list[BaseException], stop: Callable[[], None]) -> None:
    """The first task here and each of the others in a thread of its own, until all have ended."""
    threads = [threading.Thread(target=task) for task in tasks[1:]]
    try:
        with uninterrupted():  # `start` waits for the thread under a lock, which an exception there would leave in disorder
            for thread in threads:
                thread.start()
        tasks[0]()
        for thread in threads:
            thread.join()
    except BaseException as error:  # what a handler of signals raises here
        errors.append(error)
        stop()
    for thread in threads:
        if thread.ident is not None:
            thread.join()


class _Threads:
    """Seats, made when they are needed and kept."""

    def __init__(self, workers: int | None):
        self.workers = count_workers(workers)
        self._idle: list[Seat] = []

    def _take_seats(self, blocks: int, make: Callable[[], Seat]) -> list[Seat]:
        seats = []
        for _ in range(min(self.workers, blocks)):
            try:
                seats.append(self._idle.pop())
            except IndexError:
                seats.append(make())
        return seats

    def _run(self, seats: list[Seat], given: Sequence[np.ndarray], outputs: tuple, size: int, done: Any) -> None:
        N = len(outputs[0])
        for seat in seats:
            seat.start()

        def run(seat: Seat, first: int, stop: int) -> None:
            seat.run(first, stop, size, tuple(given), outputs)

        run_blocks(
            run, seats, _blocks(N, size), None if done is None else lambda first, stop: done(min(stop * size, N) - first * size)
        )
        self._idle += seats


def _blocks(N: int, size: int) -> int:
    return -(-N // size)


class ThreadEnsemble(_Threads):
    """Values and gradients of a loss; see `outcome` for how backends are made and called.

    Parameters
    ----------
    dynamics : Dynamics
    loss : FinalState, LeastSquares, Series
    wrt : sequence of {"u0", "theta"}
    shared : set of {"u0", "theta"}
        What has one row for all trajectories, and sums of cotangents.
    options : dict
        Options of `value_and_gradient`.
    workers : int, optional
        Number of threads.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        loss: Any,
        wrt: Sequence[str],
        shared: frozenset[str],
        options: dict[str, Any],
        workers: int | None = None,
    ):
        super().__init__(workers)
        self._dynamics, self._loss, self._wrt, self._options = dynamics, loss, wrt, options
        self._summed, self._may_jump = shared & set(wrt), False

    def __call__(
        self,
        u0: np.ndarray,
        theta: np.ndarray,
        t_span: np.ndarray,
        *,
        loss: Any = None,
        size: int | None = None,
        done: Callable[[int], Any] | None = None,
    ) -> Outcome:
        """`loss` takes the place of the one given first, with other data; `size` is that of the blocks, where these trajectories
        are a part of a larger ensemble; `done(k)` is called whenever k more trajectories are done."""
        loss = loss or self._loss
        N, widths = count_rows((u0, theta, t_span), loss), {"u0": u0.shape[1], "theta": theta.shape[1]}
        size = size or block_size(N, sum(widths[name] for name in self._summed))
        bars = {}
        for name, width in widths.items():
            rows = 0 if name not in self._wrt else _blocks(N, size) if name in self._summed else N
            bars[name] = np.full((rows, width), 0.0 if name in self._summed else np.nan)
        value, status, work = np.full(N, np.nan), np.zeros(N, dtype=np.int64), np.zeros((N, 3), dtype=np.int64)
        errors = None
        if N:
            seats = self._take_seats(_blocks(N, size), lambda: self._make_seat(t_span[0], u0[0], theta[0]))
            errors = np.full((N, 2), np.nan) if seats[0].judges else None
            if self._may_jump:
                work = np.zeros((N, SHORT_STEP + 1), dtype=np.int64)
            out = bars["u0"], bars["theta"], np.zeros((0, 0)), np.zeros((0, 2)) if errors is None else errors
            given = u0, theta, *seats[0].data_of(loss), rows_at_most(self._options, loss, u0.shape[1]), t_span
            self._run(seats, given, (value, status, work, out), size, done)
        u0_bar, theta_bar = (bars[name] if name in self._wrt else None for name in widths)
        return Outcome(value, u0_bar, theta_bar, status, work, errors)

    def _make_seat(self, t_span: np.ndarray, u0: np.ndarray, theta: np.ndarray) -> Seat:
        one = self._loss.member(0) if isinstance(self._loss, MemberData) else self._loss
        span = float(t_span[0]), float(t_span[1])
        evaluate = ValueAndGradient(self._dynamics, one, span, self._wrt, self._options)
        self._may_jump = evaluate.may_jump
        return Seat.of_gradient(evaluate.workspace(u0, theta), self._summed)


class ThreadSolver(_Threads):
    """Forward passes alone: `solver(u0, theta, t_span) -> States`, at the times given, in the order of integration, and at T."""

    def __init__(self, dynamics: Dynamics, times: np.ndarray, options: dict[str, Any], workers: int | None = None):
        super().__init__(workers)
        self._dynamics, self._times, self._options = dynamics, times, options

    def __call__(
        self,
        u0: np.ndarray,
        theta: np.ndarray,
        t_span: np.ndarray,
        *,
        size: int | None = None,
        done: Callable[[int], Any] | None = None,
    ) -> States:
        N, n, k = count_rows((u0, theta, t_span)), u0.shape[1], self._times.size + 1
        states = np.full((N, k * n), np.nan)
        status, work = np.zeros(N, dtype=np.int64), np.zeros((N, 3), dtype=np.int64)
        if N:
            none, at_most, size = np.zeros((1, 0)), rows_at_most(self._options, None, n), size or block_size(N, 0)
            seats = self._take_seats(_blocks(N, size), lambda: self._make_seat(t_span[0], u0[0], theta[0]))
            out = np.zeros((0, n)), np.zeros((0, theta.shape[1])), states, np.zeros((0, 2))
            self._run(seats, (u0, theta, none, none, at_most, t_span), (np.zeros(N), status, work, out), size, done)
        return States(states.reshape(N, k, n), status, work)

    def _make_seat(self, t_span: np.ndarray, u0: np.ndarray, theta: np.ndarray) -> Seat:
        t0, T = float(t_span[0]), float(t_span[1])
        options = SolveOptions.of(self._dynamics, t_span, **self._options)
        try_before(self._dynamics, options, forward_parts(self._dynamics, options), (t0, T), u0, theta)
        structure = structure_for(options.tableau, self._dynamics, options.linear_solver, t0, u0, theta)
        # what value_and_gradient records: its pullback then passes through the same entry, and the same states
        keep: dict[str, Any] = {"record": RECORD_STAGES, "times": np.append(self._times, T)}
        jumps = jumps_of(self._dynamics, options, u0.size, theta.size, (t0, T))
        dynamics, start = (
            with_inflows(self._dynamics, jumps.inflows, theta.size),
            (np.zeros_like(u0), jumps.extended(np.zeros_like(theta))),
        )
        return Seat.of_solve(Forward(dynamics, options, structure, *start, (t0, T), **keep, jumps=jumps))
