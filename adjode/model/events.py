"""Events: guards, resets, and their derivatives, each set of them joined to one callback of its kind."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from adjode.compile.adapters import make_function
from adjode.compile.views import segment
from adjode.loops.guards import END, TRIED, settles
from adjode.model.callbacks import Callback, callback
from adjode.model.field_access import with_entries
from adjode.model.fields import Pair
from adjode.model.switches import Switches, switches_of_guard

if TYPE_CHECKING:
    from adjode.model.curved import Curved


class Event:
    """Something that happens where a function of the state passes through zero.

    Parameters
    ----------
    guard : callable
        `guard(t, u, theta)` returns a number; `guard(t, u)` is enough if it needs no parameters.
    reset : callable, optional
        `reset(t, u, theta, u_new)` overwrites the entries of `u_new` (n,) that change at the event; on entry it holds u. Or
        `reset(t, u, theta)` returns the state after the event.
    direction : float
        Positive: only where the guard rises along the integration; negative: only where it falls; 0: both. As in SciPy.
    terminal : bool or int
        Whether the solution ends there, or the number of the occurrence at which it ends, counted from 1. As in SciPy.
    priority : float
        Of several events at one time, the one with the highest priority happens first.
    name : str, optional
        Shown in messages; by default the name of the guard.

    Notes
    -----
    The guard is checked along every step, not only at its ends. An event does not happen where its guard is zero at the start, nor
    again before the guard has left zero. A reset may take other guards across zero: then their events happen too, in the direction
    they ask for.
    """

    def __init__(
        self,
        guard: Callable,
        reset: Callable | None = None,
        *,
        direction: float = 0.0,
        terminal: bool | int = False,
        priority: float = 0.0,
        name: str | None = None,
    ):
        if not callable(guard) or not (reset is None or callable(reset)):
            raise TypeError(
                f"an event takes functions, guard(t, u, theta) and reset(t, u, theta, u_new), but {guard!r} and {reset!r} "
                f"were given."
            )
        _require_arity("guard", guard, ("guard(t, u, theta)", "guard(t, u)"), (3, 2))
        _require_arity("reset", reset, ("reset(t, u, theta, u_new)", "reset(t, u, theta)"), (4, 3))
        if not isinstance(terminal, (bool, np.bool_, int, np.integer)) or not 0 <= terminal < 2**31:
            raise ValueError(f"terminal must be False, True or the number of an occurrence, but {terminal!r} was given.")
        for option, value in (("direction", direction), ("priority", priority)):
            if not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
                raise ValueError(f"{option} must be a finite number, but {value!r} was given.")
        self.guard, self.reset = guard, reset
        self.direction, self.terminal, self.priority = float(direction), int(terminal), float(priority)
        self.name = str(name or getattr(guard, "__name__", "event"))
        self.in_mesh = reset is not None

    @functools.cached_property
    def switches(self) -> Switches:
        """When the guard jumps, or is zero, by time alone: steps end there, however long they are at rest."""
        return switches_of_guard(self.guard)

    def __repr__(self) -> str:
        return f"Event({self.name})"


def _require_arity(what: str, function: Callable | None, forms: tuple[str, str], counts: tuple[int, int]) -> None:
    function = getattr(function, "py_func", function)
    if inspect.isfunction(function) and (count := len(inspect.signature(function).parameters)) not in counts:
        raise TypeError(f"the {what} {function.__name__} takes {count} arguments, but it must be {' or '.join(forms)}.")


def read_events(events: Any) -> tuple[Event, ...]:
    """What a user gives as `events`: one or several, of which functions are as SciPy has them, with `terminal` and `direction`."""
    if events is None:
        return ()
    if isinstance(events, Event):
        return (events,)
    given = [events] if callable(events) else events
    try:
        return tuple(map(_read_event, given))
    except TypeError as error:
        if "not iterable" in str(error):
            raise TypeError(
                f"events must be an adjode.Event, a function event(t, u), or a list of them, but {events!r} was given."
            ) from None
        raise


@functools.lru_cache(maxsize=256)
def _as_event(function: Callable, direction: Any, terminal: Any) -> Event:
    return Event(function, direction=direction, terminal=terminal)


def _read_event(given: Any) -> Event:
    if isinstance(given, Event):
        return given
    if not callable(given):
        raise TypeError(f"events must be an adjode.Event, a function event(t, u), or a list of them, but {given!r} is among them.")
    return _as_event(given, getattr(given, "direction", 0.0), getattr(given, "terminal", False))


def with_steps_at(event: int, events: Sequence[Event]) -> tuple[Event, ...]:
    """The events, of which one has its times in the mesh: so the gradient has these as exactly as the rest."""
    return tuple(_kept_in_mesh(one) if k == event else one for k, one in enumerate(events))


@functools.lru_cache(maxsize=256)
def _kept_in_mesh(event: Event) -> Event:
    """The same event, at which steps end and begin also where it resets nothing."""
    if event.in_mesh:
        return event
    other = copy.copy(event)
    other.in_mesh = True
    return other


# --- their derivatives ---------------------------------------------------------------------------------------------------------


def _python(function: Callable) -> Callable:
    return getattr(function, "py_func", function)


def _taking_theta(function: Callable) -> Callable:
    """A guard of (t, u) as one of (t, u, theta)."""
    if not inspect.isfunction(_python(function)):
        raise TypeError(f"the guard of an event must be a Python or jitted function, but {function!r} was given.")
    if len(inspect.signature(_python(function)).parameters) != 2:
        return function
    inner = function if function is not _python(function) else njit(error_model="numpy", nogil=True)(function)

    def guard(t, u, theta):
        return inner(t, u)

    guard.stands_for = _python(function)  # type: ignore[attr-defined]
    return guard


def _whole(reset: Callable) -> Callable:
    """A reset that overwrites some entries, as one that overwrites all."""
    if len(inspect.signature(_python(reset)).parameters) != 4:
        return reset
    inner = reset if reset is not _python(reset) else njit(error_model="numpy", nogil=True)(reset)

    def whole(t, u, theta, du):
        for i in range(u.size):
            du[i] = u[i]
        return inner(t, u, theta, du)  # which should be nothing

    whole.stands_for = _python(reset)  # type: ignore[attr-defined]
    return whole


_DISPATCH = "    if which[0] == {i}.0:\n        {call}\n"


class Guards:
    """The events of a solve, joined: their callbacks, and the numbers that rule them.

    Attributes
    ----------
    events : tuple of Event
    rules : (5 e,) array of int
        See `slots.GUARD_RULES`.
    guards, resets : Callback
    glance : Callback
        Raises if a guard may have a zero in a step, see `loops.guards.is_clear`.
    guards_vjp, guards_dt, resets_vjp, resets_jvp, resets_dt : Callback
        Made when they are first asked for.
    tried : set of (n, m)
        With which sizes of u and theta each guard and each reset has been called, see `first_calls`.
    """

    def __init__(self, events: tuple[Event, ...], fields: Pair, debug: bool = False):
        self.events, self.fields, self.debug = events, fields, debug
        self.tried: set[tuple[int, int]] = set()
        self._guards = [
            self._callback("guard", _taking_theta(with_entries("guard", event.guard, (None, *fields)))) for event in events
        ]
        states = (None, fields[0], fields[1], fields[0])
        self._resets = [
            None if event.reset is None else self._callback("reset", _whole(with_entries("reset", event.reset, states)))
            for event in events
        ]
        firsts = [next(j for j in range(i + 1) if events[j].guard is events[i].guard) for i in range(len(events))]
        ranks = {priority: rank for rank, priority in enumerate(sorted({event.priority for event in events}))}
        self.rules = np.array(
            [
                [
                    np.sign(event.direction),
                    event.terminal,
                    ranks[event.priority],
                    firsts[i],
                    2 * event.in_mesh - (event.reset is not None),
                ]
                for i, event in enumerate(events)
            ],
            dtype=np.int64,
        ).reshape(-1)
        calls = [f"    guard{i}(t, u, theta, values[{i}:{i + 1}])\n" for i in range(len(events))]
        self.guards = self._joined("guards", "t, u, theta, values", calls, guard=self._guards)
        self.glance = self._joined(
            "glance",
            "t, u, theta, middle, t_middle, signs, places",
            self._seen(),
            guard=self._guards,
            settles=[settles],
            part=[segment],
        )
        calls = [
            _DISPATCH.format(i=i, call=f"reset{i}(t, u, theta, u_new)") for i, one in enumerate(self._resets) if one is not None
        ]
        self.resets = self._joined("resets", "t, u, theta, which, u_new", calls, reset=self._resets)

    def _seen(self) -> list[str]:
        """The lines of the glance."""
        many = len(self.events)
        places = ((END, "t, u"), (TRIED, "t_middle[0], middle"))
        calls = [f"    guard{i}({at}, theta, part0(places, {many * k + i}, 1))\n" for k, at in places for i in range(many)]
        return [*calls, f"    if not settles0(signs, places, {many}):\n        raise ValueError('a guard is near zero')\n"]

    def _callback(self, kind: str, function: Callable) -> Callback:
        made = callback(kind, function, self.debug)
        made.check()
        return made

    @functools.cached_property
    def callbacks(self) -> list[Callback]:
        """Each guard, then each reset."""
        return self._guards + [one for one in self._resets if one is not None]

    def parts(self, derivatives: bool) -> list[Callback]:
        """What the joined callbacks call, those of derivatives too if there are to be any."""
        rules = [*self._g_vjps, *self._g_dts, *self._reset_vjps, *self._reset_dts] if derivatives else []
        return self.callbacks + [one for one in rules if one is not None]

    @functools.cached_property
    def derived(self) -> list[tuple[str, Callback, Callback]]:
        """What each guard and each reset is called, it, and its derivatives, which have been derived from it."""
        kinds = ("guard", self._guards, self._g_vjps), ("reset", self._resets, self._reset_vjps)
        return [
            (f"the {kind} of {event.name}", one, rule)
            for kind, callbacks, rules in kinds
            for event, one, rule in zip(self.events, callbacks, rules, strict=True)
            if one is not None and rule is not None
        ]

    @functools.cached_property
    def _g_vjps(self) -> list[Callback]:
        return [self._derived(one, "g_vjp", "vjp") for one in self._guards]

    @functools.cached_property
    def _reset_vjps(self) -> list[Callback | None]:
        return [one and self._derived(one, "vjp", "vjp") for one in self._resets]

    @functools.cached_property
    def _g_dts(self) -> list[Callback]:
        return [self._derived(one, "guard", "df_dt") for one in self._guards]

    @functools.cached_property
    def _reset_dts(self) -> list[Callback | None]:
        return [one and self._derived(one, "reset", "df_dt") for one in self._resets]

    def _joined(self, kind: str, arguments: str, calls: list[str], **known: Sequence[Any]) -> Callback:
        names = {
            f"{name}{i}": getattr(one, "in_place", one)
            for name, many in known.items()
            for i, one in enumerate(many)
            if one is not None
        }
        return callback(kind, make_function(kind, arguments, "".join(calls) or "    pass\n", names))

    @functools.cached_property
    def guards_vjp(self) -> Callback:
        rules = self._g_vjps
        calls = [_DISPATCH.format(i=i, call=f"rule{i}(t, u, theta, u_bar, theta_bar)") for i in range(len(rules))]
        return self._joined("guards_vjp", "t, u, theta, which, u_bar, theta_bar", calls, rule=rules)

    @functools.cached_property
    def guards_dt(self) -> Callback:
        rules = self._g_dts
        calls = [_DISPATCH.format(i=i, call=f"rule{i}(t, u, theta, values)") for i in range(len(rules))]
        return self._joined("guards_dt", "t, u, theta, which, values", calls, rule=rules)

    @functools.cached_property
    def resets_vjp(self) -> Callback:
        rules = self._reset_vjps
        calls = [_DISPATCH.format(i=i, call=f"rule{i}(t, u, theta, lam, u_bar, theta_bar)") for i, one in enumerate(rules) if one]
        return self._joined("resets_vjp", "t, u, theta, which, lam, u_bar, theta_bar", calls, rule=rules)

    @functools.cached_property
    def resets_jvp(self) -> Callback:
        rules = [one and self._derived(one, "jvp", "jvp") for one in self._resets]
        calls = [_DISPATCH.format(i=i, call=f"rule{i}(t, u, theta, v, w, du_dot)") for i, one in enumerate(rules) if one]
        return self._joined("resets_jvp", "t, u, theta, which, v, w, du_dot", calls, rule=rules)

    @functools.cached_property
    def resets_dt(self) -> Callback:
        rules = self._reset_dts
        calls = [_DISPATCH.format(i=i, call=f"rule{i}(t, u, theta, u_new)") for i, one in enumerate(rules) if one]
        return self._joined("resets_dt", "t, u, theta, which, u_new", calls, rule=rules)

    @functools.cached_property
    def curved(self) -> list[tuple[Curved, Curved | None]]:
        """Each guard and each reset, with second derivatives."""
        from adjode.model.curved import Curved

        return [
            (Curved(guard), None if reset is None else Curved(reset))
            for guard, reset in zip(self._guards, self._resets, strict=True)
        ]

    def _derived(self, one: Callback, kind: str, product: str) -> Callback:
        from adjode.model.derived import derived

        return self._callback(kind, getattr(derived(one.function), product))

    def __reduce__(self):
        return guards_of, (self.events, self.fields, self.debug)


@functools.lru_cache(maxsize=64)
def guards_of(events: tuple[Event, ...], fields: Pair, debug: bool = False) -> Guards:
    """The same for the same events, so that they are compiled once."""
    return Guards(events, fields, debug)
