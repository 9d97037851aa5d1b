"""Losses made ready for many calls: their buffers, and what their kernels share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from adjode.compile import slots
from adjode.compile.entries import entry
from adjode.compile.finite import all_finite, is_finite
from adjode.compile.flags import i8, kernel
from adjode.compile.frame import Frame, opened
from adjode.compile.views import row
from adjode.model.fields import entry_name
from adjode.model.losses.loss import States, blamed
from adjode.status import NON_FINITE, SUCCESS, SolveError, Status

if TYPE_CHECKING:
    from adjode.model.losses.residuals import Residuals


class PreparedLoss:
    """A loss with its buffers: reads the states at `times` from `observed` and overwrites `u_bars` with its derivatives.

    Parameters
    ----------
    loss : object
    n : int
        Number of states.
    times : (k,) array
        When the loss looks at the state.
    as_given : bool
        Whether to leave the times in the order given, repeated ones and all, as no pass could meet them.

    Attributes
    ----------
    times : (k,) array
        The observation times, sorted, each once, unless they are left as given.
    observed, u_bars : (k, n) arrays
    theta_bar : (m,) array, or (0,) for a loss that does not see theta
        Its derivative by theta, besides that through the states.
    data : dict of slot -> str
        What it reads in the frame that may differ between members of an ensemble: attributes of the loss.
    ends_at_T : bool
        Whether the last of the times is T, whatever T is.
    compiled : bool
        Whether there is an `entry`; else `run` is plain Python.
    """

    data: ClassVar[dict[Any, str]] = {}
    ends_at_T: ClassVar[bool] = False

    def __init__(self, loss: Any, n: int, times: np.ndarray, *, as_given: bool = False):
        self.loss = loss
        self.times, rows = (times.copy(), np.arange(times.size)) if as_given else np.unique(times, return_inverse=True)
        self.rows = rows.astype(np.int64)
        self.u_bars = np.zeros((self.times.size, n))
        self.observed = np.zeros_like(self.u_bars)
        self.frame = Frame()
        self.frame[slots.ROWS], self.frame[slots.TIMES] = self.rows, np.ascontiguousarray(times)
        self.frame[slots.JUMPS] = self.u_bars
        self.frame[slots.U_BAR], self.frame[slots.VALUE] = np.zeros(n), np.zeros(1)
        self.theta_bar = self.frame[slots.DIRECT] = np.zeros(0)
        self.value = self.frame[slots.VALUE]

    @property
    def compiled(self) -> bool:
        return True

    def __reduce__(self):
        raise TypeError("a prepared loss holds the addresses of its buffers: copy the loss, and prepare the copy.")

    def observe(self, observed: np.ndarray, theta: np.ndarray) -> None:
        """Read states, and parameters if it sees them, from here."""
        self.observed = self.frame[slots.OBSERVED] = observed

    def try_calls(self, u: np.ndarray, theta: np.ndarray) -> None:
        """Raise a ValueError if a callback indexes out of bounds at a state like this one; tried once for each number of them."""

    def reverse(self) -> None:
        """For time that runs backwards."""
        self.times = self.times[::-1].copy()
        self.rows[:] = self.times.size - 1 - self.rows

    def follow(self, forward: Frame, backward: Frame) -> None:
        """Read what the forward pass on this frame has written down of jumps, and write their cotangents for the backward one."""

    @property
    def observing(self) -> PreparedLoss:
        """The part of it that looks at states."""
        return self

    def bind(self, events: Sequence[Any]) -> None:
        """Know the events of the solve."""

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        """The compiled loss: `entry(frame.argument) -> status`, with the value in `value[0]`."""
        raise NotImplementedError

    def require_compiled(self) -> None:
        """Raise a TypeError if `run` is plain Python."""
        if not self.compiled:
            raise TypeError("a loss in plain Python cannot be called from compiled code: decorate its callback with @numba.njit.")

    @property
    def squares(self) -> Residuals:
        """The residuals of a loss that is half the sum of their squares."""
        raise TypeError(f"{type(self.loss).__name__} is not a sum of squares, so there are no residuals: use its gradient.")

    def run(self) -> float:
        """The value, which is in `value[0]` too; NaN if it or a cotangent is not finite."""
        return self.value[0] if self.entry(self.frame.argument) == SUCCESS else math.nan

    def evaluate(self, solution: States) -> tuple[float, dict[str, Any]]:
        """The value, and the cotangents as keyword arguments of a pullback.

        Raises
        ------
        SolveError
            If one of them is not finite.
        """
        self.observe(np.ascontiguousarray(solution(self.times)), solution.theta)
        value = float(self.run())
        if not math.isfinite(value):
            self.explain()
        return value, self.seeds()

    def seeds(self) -> dict[str, Any]:
        """The cotangents that the last run has found, as keyword arguments of a pullback."""
        direct = {"theta_bar": self.theta_bar} if self.theta_bar.size else {}
        return {"observations": (self.times, self.u_bars), **direct}

    def explain(self) -> None:
        """Raise a SolveError that says what was not finite in the last run."""
        if np.isfinite(self.value[0]) and not np.isfinite(self.theta_bar).all():
            raise self._error_of_theta(int(np.argmin(np.isfinite(self.theta_bar))))
        value, bad = self.value[0], np.argwhere(~np.isfinite(self.u_bars))
        k, i = (int(i) for i in bad[0]) if bad.size else (0, None)
        what, found = f"its value is {value}", {} if i is None else blamed(self.loss, i)
        if bad.size:
            what = f"its cotangent of {found['name']} at t = {self.times[k]:g} is {self.u_bars[k, i]}"
        raise SolveError(
            f"the loss is not finite: {what}; it overflowed, or its callback wrote NaN or left the entry out.",
            phase="loss",
            status=Status.NON_FINITE,
            t=float(self.times[k]) if self.times.size else float("nan"),
            component=found.get("component"),
        )

    def _error_of_theta(self, k: int) -> SolveError:
        name = entry_name("theta", self.loss.fields[1], k)
        what = f"the loss is not finite: its derivative by {name} is {self.theta_bar[k]}."
        return SolveError(what, phase="loss", status=Status.NON_FINITE, t=float("nan"))


@kernel
def finish(frame, total):
    """Write the value down; the status."""
    slots.VALUE(frame)[0] = total
    jumps, finite = slots.JUMPS(frame), is_finite(total) and all_finite(slots.DIRECT(frame))
    for k in range(jumps.shape[0]):
        finite &= all_finite(row(jumps, k))
    return SUCCESS if finite else NON_FINITE


@kernel
def clear_jumps(frame):
    jumps = slots.JUMPS(frame)
    for k in range(jumps.shape[0]):
        for i in range(jumps.shape[1]):
            jumps[k, i] = 0.0


def loss_entry(run: Callable, name: str, key: str | None = "") -> Callable[[Any], int]:
    def run_at(address):
        return run(opened(address))

    return entry(run_at, (i8,), name, key)
