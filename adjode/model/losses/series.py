"""`Series`: a sum over observation times of a function of state and parameters that a user writes."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from adjode.checks import float_vector
from adjode.compile import slots
from adjode.compile.flags import DISABLED, kernel, linked
from adjode.compile.views import row
from adjode.model.callbacks import unwarned
from adjode.model.constants import fingerprint_of, with_current_constants
from adjode.model.field_access import sources_of, with_entries
from adjode.model.fields import Pair
from adjode.model.losses.loss import States, loss_at
from adjode.model.losses.observed import PreparedObserved
from adjode.model.losses.prepared import PreparedLoss, clear_jumps, finish, loss_entry
from adjode.model.losses.rule import WithRule
from adjode.model.messages import count_arguments
from adjode.model.rebuilt import plain
from adjode.status import describe_error

_SECONDS = 0.02  # for trial calls


class Series(WithRule):
    """A sum over observation times of any function of the state there.

    Parameters
    ----------
    t_obs : (k,) array
        Observation times, in any order.
    value_and_cotangent : callable, optional
        `value_and_cotangent(k, t, u, u_bar) -> float`, jitted or plain Python: returns what observation k adds to the loss and
        overwrites `u_bar` (n,) with its derivative by `u`. A jitted one runs in compiled code; a plain one costs a Python call for
        each observation. With dynamics that have `states=`, it may use fields: `u.prey`, `u_bar.prey`.
    value : callable or pair of callables, optional
        Instead of it, `value(k, t, u, theta) -> float`, which is compiled. Its derivatives by u and theta are derived from its
        source, as those of f are, and compared with differences. Or give them, as `(value, value_vjp)`, where
        `value_vjp(k, t, u, theta, u_bar, theta_bar)` overwrites both. `k` and `t` count as data.
    """

    option = kind = "value"

    def __init__(
        self,
        t_obs: Any,
        value_and_cotangent: Callable[[int, float, np.ndarray, np.ndarray], float] | None = None,
        *,
        value: Callable | tuple[Callable, Callable] | None = None,
    ):
        self.t_obs = float_vector("t_obs", t_obs)
        if (value is None) == (value_and_cotangent is None):
            raise TypeError("Series takes either value_and_cotangent(k, t, u, u_bar) or value=..., a function (k, t, u, theta).")
        self._of_fields: dict[Pair, Series] = {}
        self.tried: set[int] = set()  # numbers of states for which it has been tried
        self.given: Any = value_and_cotangent
        self.value_and_cotangent: Any = None
        if value is None:
            self._check()
            self.value_and_cotangent = with_current_constants(value_and_cotangent)  # type: ignore[arg-type]
        else:
            self._take(value)

    def _check(self) -> None:
        value_and_cotangent: Any = self.given
        count = count_arguments("value_and_cotangent", value_and_cotangent, "value_and_cotangent(k, t, u, u_bar) -> float")
        if count != 4:
            raise TypeError(
                f"value_and_cotangent takes {count} arguments, but it must be value_and_cotangent(k, t, u, u_bar) -> float; "
                f"one that returns the value alone is given as value=..."
            )

    def of_fields(self, fields: Pair) -> Series:
        if fields == (None, None) or fields == self.fields:
            return self
        if fields not in self._of_fields:
            self._of_fields[fields] = other = super().of_fields(fields)
            other._take_fields()
        return self._of_fields[fields]

    def _take_fields(self) -> None:
        if self.given is not None:
            states = self.fields[0]
            self.value_and_cotangent = with_entries(
                "value_and_cotangent", with_current_constants(self.given), (None, None, states, states)
            )
        self._of_fields, self.tried = {}, set()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__() | {"value_and_cotangent": self.given, "_of_fields": {}}
        if self.given is not None:
            state["sources"] = sources_of(self.given, self.value_and_cotangent)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._take_fields()

    def prepare(self, n: int, T: float) -> PreparedLoss:
        return self._prepared(n)

    def value_and_cotangents(self, solution: States) -> tuple[float, dict[str, Any]]:
        return loss_at(solution, self)._prepared(solution.u.shape[1], as_given=True).evaluate(solution)

    def _prepared(self, n: int, *, as_given: bool = False) -> PreparedLoss:
        if self.of is not None:
            return PreparedObserved(self, n, self.t_obs, as_given=as_given)
        jitted = isinstance(self.value_and_cotangent, Dispatcher) and not DISABLED
        return (_PreparedJittedSeries if jitted else _PreparedSeries)(self, n, self.t_obs, as_given=as_given)


def _number(value: Any) -> float:
    if np.ndim(value):
        raise TypeError(f"value_and_cotangent must return a number, but it returns an array of shape {np.shape(value)}: sum it up.")
    if value is None:
        raise TypeError(
            "value_and_cotangent must return a number, but it returns None: return what observation k adds to the loss."
        )
    return float(value)


class _PreparedSeries(PreparedLoss):
    compiled = False

    def run(self) -> float:
        u_bar, total = self.frame[slots.U_BAR], 0.0
        self.u_bars[:] = 0.0
        for k, (row_k, t) in enumerate(zip(self.rows, self.loss.t_obs, strict=True)):
            u_bar[:] = np.nan  # an entry the callback forgets must not pass as zero
            total += _number(self.loss.value_and_cotangent(k, t, self.observed[row_k].copy(), u_bar))
            self.u_bars[row_k] += u_bar
        self.value[0] = total if np.isfinite(self.u_bars).all() else math.nan
        return self.value.item()


class _PreparedJittedSeries(_PreparedSeries):
    compiled = True

    def evaluate(self, solution: States) -> tuple[float, dict[str, Any]]:
        self.try_calls(solution.u[-1], solution.theta)
        return super().evaluate(solution)

    def try_calls(self, u: np.ndarray, theta: np.ndarray) -> None:
        if u.size not in self.loss.tried:
            self._try_calls(u)
            self.loss.tried.add(u.size)

    def _try_calls(self, u: np.ndarray) -> None:
        """Call it in plain Python, the last observation first, as the most likely one beyond the end of what it reads."""
        call, end = plain(self.loss.value_and_cotangent), time.thread_time() + _SECONDS
        for k in reversed(range(self.loss.t_obs.size)):
            try:
                with np.errstate(all="ignore"), unwarned():
                    value = call(k, float(self.loss.t_obs[k]), u.copy(), np.zeros_like(u))
            except IndexError as error:
                raise ValueError(
                    f"the callback of Series indexes an array out of bounds at observation {k} of {self.loss.t_obs.size}, where u "
                    f"has {u.size} entries ({describe_error(error)}): check the lengths of what it reads."
                ) from error
            except Exception:  # what only compiled code can do, or an error that the run will report
                return
            _number(value)
            if time.thread_time() > end:
                return

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return _series_entry(self.loss.value_and_cotangent, fingerprint_of(self.loss.value_and_cotangent))

    def run(self) -> float:
        return PreparedLoss.run(self)

    def explain(self) -> None:
        _PreparedSeries.run(self)  # which raises what the callback raises
        super().explain()


def make_series(value_and_cotangent: Callable) -> Callable:
    @kernel
    def series(frame):
        times, observed, rows = slots.TIMES(frame), slots.OBSERVED(frame), slots.ROWS(frame)
        jumps, u_bar, total = slots.JUMPS(frame), slots.U_BAR(frame), 0.0
        clear_jumps(frame)
        for k in range(rows.size):
            for i in range(u_bar.size):
                u_bar[i] = math.nan  # an entry the callback forgets must not pass as zero
            total += value_and_cotangent(k, times[k], row(observed, rows[k]), u_bar)
            for i in range(u_bar.size):
                jumps[rows[k], i] += u_bar[i]
        return finish(frame, total)

    return series


@functools.lru_cache(maxsize=64)
def _series_entry(value_and_cotangent: Callable, key: str | None) -> Callable[[Any], int]:
    @linked
    def guarded(k, t, u, u_bar):
        try:
            return float(value_and_cotangent(k, t, u, u_bar))
        except Exception:
            return math.nan

    return loss_entry(make_series(guarded), "series", key)
