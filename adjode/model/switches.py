"""The times at which f switches, as its source shows: stops of solves, and actions among doses where they depend on theta."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.derivation.found import Found, Switch
from adjode.derivation.switches import switches_in
from adjode.model.callbacks import Callback
from adjode.model.fields import Fields, entry_name

_MANY = 100_000  # times in a span
_PARTS = 3  # that the time of an action is the sum of
_NONE, _NO_STATE = -1, 0


class Switches:
    """What the source of f shows of when it switches.

    Attributes
    ----------
    times : (k,) array
        Those that are constant.
    periodic : tuple of Switch
        Those that are repeated, whatever theta is.
    moving : tuple of Switch
        Those that depend on theta; a kink that returns, or at the sum of too many of its entries, is none of them.
    in_time : bool
        Whether there are any that do not depend on theta.
    compare_states : bool
        Whether there are comparisons with the state, which may come out otherwise at any time.
    """

    def __init__(self, found: Found, parameters: Fields | None):
        switches, self._parameters, self._unread = list(found.switches.values()), parameters, dict(found.unread)
        self.compare_states = bool(found.of_state)
        self.times = np.array([one.at.number for one in switches if not one.at.entries and not one.period])
        self.periodic = tuple(one for one in switches if not one.at.entries and one.period)
        self.in_time = bool(self.times.size or self.periodic)
        moving = [one for one in switches if one.at.entries and not (one.kink and (one.period or not _is_short(one)))]
        self.moving = tuple(one for one in moving if _is_short(one))
        self._unread |= dict.fromkeys(one.line for one in moving if not _is_short(one))

    def stops(self, t_span: Any) -> np.ndarray:
        """The times in the span, or in a span that has all of these, at which those that are repeated happen."""
        if not self.periodic:
            return np.zeros(0)
        spans = np.asarray(t_span, dtype=float)
        if not spans.size or not np.isfinite(spans).all():
            return np.zeros(0)
        first, last = float(spans.min()), float(spans.max())
        if sum((last - first) / one.period for one in self.periodic) > _MANY:
            _warn_of_many(self.periodic[0].line)
            return np.zeros(0)
        return np.concatenate([_spread(one, first, last) for one in self.periodic])

    def actions(self, m: int, t_span: tuple[float, float], kinks: bool = True) -> list[tuple[list[float], list[int]]]:
        """The numbers and entries of those that move as rows of a table of doses, for m parameters; with kinks or without."""
        rows: list[tuple[list[float], list[int]]] = []
        for one in self.moving:
            if one.kink and not kinks:
                continue
            if not _is_there(one, m):
                continue
            parts = [(factor, entry % m) for entry, factor in one.at.entries]
            parts += [(one.at.number, _NONE), (0.0, _NONE), (0.0, _NONE)]
            (time, first), (lag, second), (last, third) = parts[:_PARTS]
            entries = [first, second, _NONE, _NONE, third, _NO_STATE, _NONE]
            rows += [([time, lag, one.period, repeat, last], entries) for repeat in _repeats(one, t_span)]
        return rows

    def within(self, t_span: Any) -> np.ndarray:
        """All constant times at which it happens, inside of the span."""
        times, inside = np.concatenate([self.times, self.stops(t_span)]), np.asarray(t_span, dtype=float)
        return np.unique(times[(times > inside.min()) & (times < inside.max())]) if times.size else times

    def refuse(self, why: str, what: str = "f", theta: np.ndarray | None = None, t_span: Any = None) -> None:
        """Raise a ValueError if f jumps at any times that depend on theta; within a span, where theta is known."""
        for one in self.moving:
            if one.kink or not (theta is None or _is_within(one, theta, *t_span)):
                continue
            names = " and ".join(entry_name("theta", self._parameters, entry) for entry, _ in one.at.entries)
            raise ValueError(
                f"{what} switches at a time that depends on {names} ({one.line}), but {why}"
                + ("; or declare with breaks=() that f does not jump there." if what == "f" else ".")
            )

    def trust_stops(self) -> None:
        """Whoever names stops for a solve knows of times that cannot be read."""
        self._unread.clear()

    def warn(self, stacklevel: int) -> None:
        """Tell, once, of lines that switch at times that cannot be told."""
        for line in self._unread:
            warnings.warn(
                f"f switches at a time that adjode cannot read from {line}, so steps may pass over it, and gradients lack the "
                "effect of theta on it: give breaks= if it does not depend on theta, or make it an Event; breaks=() declares that "
                "f does not jump there.",
                RuntimeWarning,
                stacklevel=stacklevel + 1,
            )
        self._unread.clear()


def switches_of(f: Callable, parameters: Fields | None, given: np.ndarray | None) -> Switches:
    """The switches of `f(t, u, theta, ...)`.

    Breaks that are `given` tell what cannot be read; that there are none tells all but those of tables.
    """
    places = {} if parameters is None else {name: (parameters.places[name], shape) for name, shape in parameters.shapes}
    found = switches_in(f, places)
    if given is not None:
        found.unread.clear()
        if not given.size:
            found.switches = {key: one for key, one in found.switches.items() if one.of_table}
    return Switches(found, parameters)


def switches_of_guard(guard: Callable) -> Switches:
    """The times at which a guard `guard(t, u, theta)` jumps, or is zero whatever the state is."""
    return Switches(switches_in(guard, {}, zeros=True), None)


@functools.lru_cache(maxsize=256)
def switches_of_cost(cost: Callback) -> Switches:
    """The switches of a running cost `g(t, u, theta)`."""
    return switches_of(cost.function, cost.fields[1], None)


def _is_there(switch: Switch, m: int) -> bool:
    """Whether theta (m,) has the entries that its time depends on: if not, f reads outside of it, and will be told so."""
    return all(-m <= entry < m for entry, _ in switch.at.entries)


def _is_within(switch: Switch, theta: np.ndarray, t0: float, T: float) -> bool:
    """Whether it happens between t0 and T."""
    if not _is_there(switch, theta.size):
        return False
    time = switch.at.number + sum(factor * theta[entry] for entry, factor in switch.at.entries)
    return bool(switch.period or min(t0, T) < time < max(t0, T))


def _is_short(switch: Switch) -> bool:
    """Whether its time is the sum of no more than the time of an action may be."""
    return len(switch.at.entries) + (switch.at.number != 0.0) <= _PARTS


def _spread(switch: Switch, first: float, last: float) -> np.ndarray:
    """The times of one that is repeated, from `first` to `last`."""
    at, period = switch.at.number, switch.period
    return at + period * np.arange(math.ceil((first - at) / period), math.floor((last - at) / period) + 1)


def _repeats(switch: Switch, t_span: tuple[float, float]) -> list[float]:
    """Which repeats may be in a span, counted from the first one behind its start."""
    if not switch.period:
        return [0.0]
    t0, T = t_span
    if abs(T - t0) / switch.period > _MANY:
        _warn_of_many(switch.line)
        return []
    return [math.copysign(float(k), T - t0) for k in range(math.ceil(abs(T - t0) / switch.period) + 2)]


def _warn_of_many(what: str) -> None:
    warnings.warn(
        f"f switches more than {_MANY} times in the span ({what}): no steps end at these times.",
        RuntimeWarning,
        stacklevel=2,
    )
