"""Doses: amounts that enter states at known times, at once or over a while."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.model.fields import Fields, Pair, entry_of

_MOST = 1_000_000  # each is a step at least
_QUANTITIES = ("times", "lag", "amounts", "fraction", "duration")
_NEUTRAL = {"times": 0.0, "lag": 0.0, "amounts": 0.0, "fraction": 1.0, "duration": 0.0}


class Doses:
    """Amounts given to a state: at once, or at a constant rate over a duration.

    Parameters
    ----------
    times : float, str, or sequence of them
        When the doses are given. A string names an entry of theta: as in `Dynamics(parameters=...)`, or "theta[3]".
    amounts : float, str, or sequence of them
        How much, in the unit of the state; one for all times, or one for each.
    into : str or int
        The state: its name, or its index.
    lag : float or str, optional
        The delay before a dose enters.
    fraction : float or str, optional
        The part of the amount that enters (bioavailability).
    duration : float or str, optional
        How long an infusion takes, during which each amount enters at a constant rate. Without it, doses enter at once.
    every, until : float, optional
        Repeat the doses with this period, up to `until`, which is the end of the span by default.
    steady_state : bool
        With `every`: the doses have always been given, so the solution starts in the state that repeats itself. adjode solves for
        that state; u0 is only a first guess of it, and its cotangent is zero.

    Notes
    -----
    `lag`, `fraction` and `duration` may also be sequences, one for each time. All of them may be entries of theta: their cotangents
    are then part of `theta_bar`. A state that is observed at the time of a dose is the one after it.
    """

    def __init__(
        self,
        times: Any,
        amounts: Any,
        into: str | int,
        *,
        lag: Any = None,
        fraction: Any = None,
        duration: Any = None,
        every: float | None = None,
        until: float | None = None,
        steady_state: bool = False,
    ):
        if not isinstance(into, (str, int, np.integer)) or isinstance(into, bool):
            raise TypeError(f"into must be the name or the index of a state, but {into!r} was given.")
        given = {"times": times, "lag": lag, "amounts": amounts, "fraction": fraction, "duration": duration}
        listed = {name: _listed(name, value) for name, value in given.items() if value is not None or name in ("times", "amounts")}
        count = len(listed["times"])
        for name, values in listed.items():
            if len(values) not in (1, count):
                raise ValueError(f"{name} must be one number or one for each of the {count} times, but {len(values)} were given.")
        self.into, self.lasts, self.count = into, duration is not None, count
        self.quantities = {name: (values * count if len(values) == 1 else values) for name, values in listed.items()}
        numbers = [value for value in self.quantities.get("duration", []) if not isinstance(value, str)]
        if any(not value > 0.0 for value in numbers):
            raise ValueError(f"duration must be positive, but {min(numbers)} was given: leave it out for a dose at once.")
        self.every, self.until, self.steady_state = every, until, bool(steady_state)
        self._others_end = -np.inf
        self._check_repetition()

    def _check_repetition(self) -> None:
        every, until = self.every, self.until
        if every is None:
            if until is not None or self.steady_state:
                raise ValueError("until and steady_state belong to doses that are repeated: give every=, the period.")
            return
        for name, value in (("every", every), ("until", 0.0 if until is None else until)):
            if not isinstance(value, (int, float, np.number)) or isinstance(value, bool) or not np.isfinite(value):
                raise ValueError(f"{name} must be a finite number, but {value!r} was given.")
        if not every > 0.0:
            raise ValueError(f"every must be positive, but {every!r} was given.")
        if any(isinstance(time, str) for time in self.quantities["times"]):
            raise ValueError("doses that are repeated need numbers for times: use a lag for what is to be fitted.")
        first = min(self.quantities["times"])
        if until is not None and until < first:
            raise ValueError(f"until = {until} is before all doses: the first is at {first}.")

    @property
    def times_vary(self) -> bool:
        """Whether the time at which something enters, or no longer does, depends on theta."""
        return any(isinstance(one, str) for name in ("times", "lag", "duration") for one in self.quantities.get(name, []))

    @property
    def repeats_to_the_end(self) -> bool:
        return self.every is not None and self.until is None

    def known_times(self, end: float) -> list[float]:
        """Those that no parameter has a part in, up to an end where they are repeated."""
        quantities = self.within((-np.inf, end))
        lags = quantities.get("lag", [0.0] * len(quantities["times"]))
        both = zip(quantities["times"], lags, strict=True)
        return [time + lag for time, lag in both if not isinstance(time, str) and not isinstance(lag, str)]

    def up_to(self, time: float) -> Doses:
        """The same, repeated up to this time where that is later than the end of the span: for spans that end later."""
        other = copy.copy(self)
        other._others_end = time
        return other

    def moved(self, periods: Sequence[int], *, repeated: bool = True) -> Doses:
        """The same with each dose given so many periods later, from there on or once: those in steady state, from a start on."""
        assert self.every is not None
        other = copy.copy(self)
        times = [time + k * self.every for time, k in zip(self.quantities["times"], periods, strict=True)]
        other.quantities, other.steady_state = self.quantities | {"times": times}, False
        if not repeated:
            other.every = other.until = None
        return other

    def within(self, t_span: tuple[float, float]) -> dict[str, list[Any]]:
        """All quantities, a list with an entry for each dose in a span."""
        if self.every is None:
            return self.quantities
        times = self.quantities["times"]
        until = max(*t_span, self._others_end) if self.until is None else self.until
        repeats = [np.floor((until - time) / self.every * (1.0 + 1e-14)) for time in times]
        if sum(repeats) > _MOST:
            raise ValueError(f"every = {self.every:g} makes {sum(repeats):g} doses up to {until:g}, more than the {_MOST} allowed.")
        pairs = sorted((time + k * self.every, i) for i, time in enumerate(times) for k in range(int(repeats[i]) + 1))
        repeated = {name: [values[i] for _, i in pairs] for name, values in self.quantities.items()}
        return repeated | {"times": [time for time, _ in pairs]}

    def __repr__(self) -> str:
        return f"Doses({self.count} into {self.into!r})"


def _listed(name: str, value: Any) -> list[Any]:
    value = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    many = list(value) if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else [value]
    for one in many:
        if isinstance(one, str):
            continue
        if not isinstance(one, (int, float, np.number)) or isinstance(one, bool) or not np.isfinite(one):
            raise ValueError(f"{name} of doses must be finite numbers or names of parameters, but {one!r} is among them.")
    if not many:
        raise ValueError(f"{name} of doses must not be empty.")
    return [one if isinstance(one, str) else float(one) for one in many]


@dataclass(frozen=True, eq=False)
class DoseTable:
    """Doses as kernels read them.

    Attributes
    ----------
    numbers : (k, 5) array
    entries : (7 k,) array of int
    actions : (2 a,) array of int
        See `slots.DOSES` and those that follow it.
    inflows : tuple of int
        The states with inflows.
    """

    numbers: np.ndarray
    entries: np.ndarray
    actions: np.ndarray
    inflows: tuple[int, ...]

    @property
    def times_vary(self) -> bool:
        """Whether the time at which something enters, or no longer does, depends on theta."""
        return bool(np.any(self.entries.reshape(-1, 7)[:, [0, 1, 4]] >= 0))

    def inflow_of(self, action: int) -> int:
        """The entry of theta that is the inflow which an action changes; -1 if it changes the state."""
        return int(self.entries[7 * self.actions[2 * action] + 6])


def read_doses(doses: Any) -> tuple[Doses, ...]:
    """What a user gives as `doses`: one `Doses`, or several."""
    if doses is None:
        return ()
    given = (doses,) if isinstance(doses, Doses) else tuple(doses) if isinstance(doses, Sequence) else (doses,)
    for one in given:
        if not isinstance(one, Doses):
            raise TypeError(f"doses must be an adjode.Doses, or a list of them, but {one!r} was given.")
    return given


def dose_table(
    doses: tuple[Doses, ...], fields: Pair, n: int, m: int, t_span: tuple[float, float], switches: Sequence[tuple] = ()
) -> DoseTable:
    """The table for n states and m parameters, with rows for switches; a ValueError for what is not there, or not in the span."""
    states = [_state(one.into, fields[0], n) for one in doses]
    inflows = tuple(sorted({state for state, one in zip(states, doses, strict=True) if one.lasts}))
    numbers: list[list[float]] = []
    entries: list[int] = []
    actions: list[list[int]] = []
    for state, one in zip(states, doses, strict=True):
        inflow, quantities = m + inflows.index(state) if one.lasts else -1, one.within(t_span)
        for k in range(len(quantities["times"])):
            row = [
                _number(quantities[name][k] if name in quantities else _NEUTRAL[name], name, fields[1], m) for name in _QUANTITIES
            ]
            if row[0][1] < 0:
                _require_in_span(row[0][0], row[1], one.repeats_to_the_end, t_span)
            dose = len(numbers)
            numbers.append([number for number, _ in row])
            entries += [entry for _, entry in row] + [state, inflow]
            actions += [[dose, kind] for kind in ((slots.BEGINS, slots.ENDS) if one.lasts else (slots.BOLUS,))]
    for row, its_entries in switches:
        actions.append([len(numbers), slots.SWITCH])
        numbers.append(row)
        entries += its_entries
    order = sorted(
        range(len(actions)), key=lambda a: _nominal(numbers[actions[a][0]], actions[a][1]), reverse=t_span[1] < t_span[0]
    )
    return DoseTable(
        np.array(numbers, dtype=float).reshape(-1, 5),
        np.array(entries, dtype=np.int64),
        np.array([actions[a] for a in order], dtype=np.int64).reshape(-1),
        inflows,
    )


def _nominal(numbers: list[float], kind: int) -> float:
    return numbers[0] + numbers[1] + (numbers[4] if kind == slots.ENDS else 0.0)


def _number(value: Any, what: str, parameters: Fields | None, m: int) -> tuple[float, int]:
    """A number, or a factor and the entry of theta that it goes with."""
    if not isinstance(value, str):
        return value, -1
    return 1.0, entry_of(value, f"{what} of doses", parameters, m)


def _state(into: str | int, states: Fields | None, n: int) -> int:
    if isinstance(into, str):
        names = [] if states is None else list(map("".join, states.entries))
        if into not in names:
            known = ", ".join(names) if names else "none: give states= to Dynamics, or an index"
            raise ValueError(f"doses go into {into!r}, but the names of the states are {known}.")
        return names.index(into)
    if not -n <= into < n:
        raise ValueError(f"doses go into state {into}, but there are {n} states.")
    return int(into) % n


def _require_in_span(time: float, lag: tuple[float, int], to_the_end: bool, t_span: tuple[float, float]) -> None:
    """With a lag that is a parameter only the solve knows whether the dose is too early."""
    first, last = sorted(t_span)
    early, late = time + lag[0] < first and lag[1] < 0, time + (lag[0] if lag[1] < 0 else 0.0) > last
    if early or (late and not (to_the_end and t_span[1] > t_span[0])):
        entered = f"{time:g}" + (f" with a lag of {lag[0]:g}" if lag[0] != 0.0 and lag[1] < 0 else "")
        raise ValueError(f"a dose at {entered} is outside the span from {first:g} to {last:g}: leave it out, or change the span.")
