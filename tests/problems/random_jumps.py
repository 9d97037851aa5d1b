"""Random systems with events, doses, tables, switches and stops, and a plain integrator of their own that tells what they do.

The coefficients of f, of guards, of resets and of doses are all entries of theta, so that a few compiled models serve all draws,
and a derivative in a random direction has a part of everything. The reference goes from one known time to the next by SciPy's
DOP853 at 1e-12, looks for zeros of guards in the dense output, and is differentiated by central differences of order 6.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from adjode import Doses, Dynamics, Event, Table

GUARDS = 3
NEAR = 8e-3  # of times, beside each other, that differences would swap
_TIMES, _VALUES = [0.0, 0.7, 1.1, 2.3, 2.9, 4.0], [0.3, 1.0, -0.4, 0.2, 0.8, 0.1]
_DAY = Table([0.0, 0.5, 1.3, 1.9], [0.3, 1.0, -0.4, 0.3], outside="periodic")
TABLES = {
    "linear": Table(_TIMES, _VALUES, outside="hold"),
    "previous": Table(_TIMES, _VALUES, "previous", outside="hold"),
    "cubic": Table(_TIMES, _VALUES, "cubic", outside="hold"),
    "akima": Table(_TIMES, _VALUES, "akima", outside="hold"),
    "periodic": _DAY,
    "values": Table(_TIMES, outside="hold"),
}
VARIANTS = (  # the number of states, the table, and whether there is a mass matrix, and a time in theta at which f jumps
    (2, "linear", False, False),
    (3, "previous", False, True),
    (2, "values", False, False),
    (3, "periodic", False, False),
    (2, "cubic", True, True),
    (3, "akima", True, False),
)
MASS = np.array([[2.0, 0.3, 0.1], [-0.4, 1.5, 0.0], [0.2, -0.1, 1.2]])
NUMBERS = ("amount", "fraction", "lag", "duration", "early", "late", "rate", "switch")


class Draw(Exception):
    """A draw to leave out: what happens there depends on rounding, or on the size of differences."""


def places(n: int) -> dict[str, int]:
    """Where in theta the coefficients begin."""
    sizes = {"a": n, "B": n * n, "q": n, "s": n, "values": len(_VALUES)}
    sizes |= {"guards": GUARDS * (n + 2), "resets": GUARDS * (n * n + n), "doses": len(NUMBERS)}
    starts = np.cumsum([0, *sizes.values()])
    return dict(zip((*sizes, "all"), map(int, starts), strict=True))


@functools.cache
def model(variant: int) -> tuple[Dynamics, list[Any], list[Any], Any]:
    """Dynamics, guards, resets and the running cost."""
    n, name, has_mass, switches = VARIANTS[variant]
    at, table, takes_values = places(n), TABLES[name], name == "values"
    a, B, q, s, values, switch = at["a"], at["B"], at["q"], at["s"], at["values"], at["doses"] + NUMBERS.index("switch")

    def f(t, u, theta, du):
        x = table(t, theta[values : values + len(_VALUES)]) if takes_values else table(t)
        for i in range(n):
            du[i] = theta[a + i] + theta[q + i] * np.sin(u[(i + 1) % n]) + theta[s + i] * x
            for j in range(n):
                du[i] += theta[B + n * i + j] * u[j]
        if switches:
            du[0] += 0.8 * u[1] if t > theta[switch] else 0.3

    def cost(t, u, theta):
        return theta[0] * u[0] + 0.5 * u[n - 1] ** 2 + 0.1 * t * u[0]

    guards = [guard_of(at["guards"] + k * (n + 2), n) for k in range(GUARDS)]
    resets = [reset_of(at["resets"] + k * (n * n + n), n) for k in range(GUARDS)]
    return Dynamics(f, mass=MASS[:n, :n] if has_mass else None, name=f"random {variant}"), guards, resets, cost


def guard_of(first: int, n: int) -> Any:
    def guard(t, u, theta):
        value = theta[first + n] + theta[first + n + 1] * t
        for i in range(n):
            value += theta[first + i] * u[i]
        return value

    return guard


def reset_of(first: int, n: int) -> Any:
    def reset(t, u, theta, u_new):
        for i in range(n):
            u_new[i] = theta[first + n * n + i] + u[i]
            for j in range(n):
                u_new[i] += theta[first + n * i + j] * u[j]

    return reset


@dataclass
class Problem:
    """One draw. `events` are tuples (guard, reset or None, direction, terminal, priority)."""

    variant: int
    u0: np.ndarray
    theta: np.ndarray
    span: tuple[float, float]
    events: list[tuple[int, int | None, int, int, int]]
    kinds: list[str]
    stops: list[float]
    times: np.ndarray
    weights: np.ndarray
    weight_T: np.ndarray
    weights_of_events: np.ndarray
    has_cost: bool
    side: str

    @property
    def n(self) -> int:
        return VARIANTS[self.variant][0]

    @property
    def massed(self) -> bool:
        return VARIANTS[self.variant][2]

    def entry(self, name: str) -> str:
        return f"theta[{places(self.n)['doses'] + NUMBERS.index(name)}]"

    def number(self, theta: np.ndarray, name: str) -> float:
        return theta[places(self.n)["doses"] + NUMBERS.index(name)]

    def doses(self) -> list[Doses]:
        made = {
            "timed": lambda: Doses(self.entry("early"), self.entry("amount"), 0, fraction=self.entry("fraction")),
            "lagged": lambda: Doses([0.8, 2.2], [self.entry("amount"), 0.4], self.n - 1, lag=[self.entry("lag"), 0.17]),
            "infused": lambda: Doses(self.entry("late"), self.entry("rate"), 1, duration=self.entry("duration")),
            "fixed": lambda: Doses([1.1, 2.7], [0.3, self.entry("amount")], 0, duration=[0.5, 0.9]),
            "again": lambda: Doses(0.35, self.entry("rate"), 1, every=0.9, until=3.0),
        }
        return [made[kind]() for kind in self.kinds]

    def actions(self, theta: np.ndarray) -> list[tuple[float, int, float, float]]:
        """(time, state, amount at once, change of the rate), by rising times."""
        number, last, found = functools.partial(self.number, theta), self.n - 1, []
        for kind in self.kinds:
            if kind == "timed":
                found.append((number("early"), 0, number("amount") * number("fraction"), 0.0))
            elif kind == "lagged":
                found += [(0.8 + number("lag"), last, number("amount"), 0.0), (2.2 + 0.17, last, 0.4, 0.0)]
            elif kind == "infused":
                rate = number("rate") / number("duration")
                found += [(number("late"), 1, 0.0, rate), (number("late") + number("duration"), 1, 0.0, -rate)]
            elif kind == "fixed":
                found += [(1.1, 0, 0.0, 0.6), (1.6, 0, 0.0, -0.6)]
                found += [(2.7, 0, 0.0, number("amount") / 0.9), (3.6, 0, 0.0, -number("amount") / 0.9)]
            else:
                found += [(0.35 + 0.9 * k, 1, number("rate"), 0.0) for k in range(3)]
        return sorted(found)

    @functools.cached_property
    def made_events(self) -> list[Event]:
        _, guards, resets, _ = model(self.variant)
        return [
            Event(
                guards[k], None if r is None else resets[r], direction=direction, terminal=terminal, priority=priority, name=f"{k}"
            )
            for k, r, direction, terminal, priority in self.events
        ]


def draw(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    variant = seed % len(VARIANTS)
    n = VARIANTS[variant][0]
    at, theta = places(n), np.zeros(places(n)["all"])
    theta[at["a"] : at["B"]] = rng.normal(0.0, 0.5, n)
    spin = rng.normal(0.0, 1.2, (n, n))
    theta[at["B"] : at["q"]] = (spin - spin.T + rng.normal(0.0, 0.2, (n, n))).ravel()
    theta[at["q"] : at["s"]] = rng.normal(0.0, 0.5, n)
    theta[at["s"] : at["values"]] = rng.normal(0.0, 0.7, n) * rng.integers(0, 2)
    theta[at["values"] : at["guards"]] = rng.normal(0.0, 0.7, len(_VALUES))
    for k in range(GUARDS):
        first = at["guards"] + k * (n + 2)
        theta[first : first + n] = rng.normal(0.0, 1.0, n)
        theta[first + n] = rng.normal(0.0, 0.6)
        theta[first + n + 1] = rng.normal(0.0, 0.5) * rng.integers(0, 2)
        if rng.random() < 0.15:  # a guard of time alone
            theta[first : first + n + 2] = [*np.zeros(n), -rng.uniform(0.5, 2.5), 1.0]
        first = at["resets"] + k * (n * n + n)
        theta[first : first + n * n + n] = rng.normal(0.0, 0.4, n * n + n)
    theta[at["doses"] :] = [rng.normal(), *rng.uniform([0.3, 0.1, 0.2, 0.3, 0.9], [1.0, 0.6, 0.8, 2.5, 2.4]), rng.normal(), 0.0]
    theta[-1] = rng.uniform(0.3, 1.9)
    T = float(rng.uniform(2.0, 3.9))
    span = (0.03, T) if rng.random() < 0.65 else (T, 0.05)
    which = rng.permutation(GUARDS)[: rng.integers(0, GUARDS + 1)]
    events = [
        (
            int(k),
            int(k) if rng.random() < 0.8 else None,
            int(rng.integers(-1, 2)),
            int(rng.random() < 0.25) * int(rng.integers(1, 4)),
            int(rng.integers(0, 3)),
        )
        for k in which
    ]
    if events and rng.random() < 0.35:  # once more, with another reset
        k, _, direction, _, priority = events[0]
        events.insert(int(rng.integers(0, 2)), (k, (k + 1) % GUARDS, direction, 0, priority + int(rng.integers(-1, 2))))
    until = {"timed": 0.0, "lagged": 2.4, "infused": 0.0, "fixed": 3.1, "again": 3.1}  # which those have to be in the span for
    kinds = [kind for kind, last in until.items() if rng.random() < 0.4 and T > last]
    times = np.sort(rng.uniform(0.05, T, 4))
    if "again" in kinds:
        times[1] = 0.35 + 0.9
    times = np.sort(times[times <= T])
    return Problem(
        variant=variant,
        u0=rng.normal(0.0, 1.0, n),
        theta=theta,
        span=span,
        events=events,
        kinds=kinds,
        stops=list(rng.uniform(0.0, T, 2)) if rng.random() < 0.3 else [],
        times=times,
        weights=rng.normal(size=(times.size, n)),
        weight_T=rng.normal(size=n),
        weights_of_events=rng.normal(size=3) * int(rng.random() < 0.4),
        has_cost=bool(rng.random() < 0.5),
        side="left" if rng.random() < 0.3 else "right",
    )


# --- the reference --------------------------------------------------------------------------------------------------------------
class Run:
    """One solution, in segments between jumps; `sequence` says what has happened in which order."""

    def __init__(self, problem: Problem, u0: np.ndarray, theta: np.ndarray, span: tuple[float, float]):
        self.problem, self.theta, self.n = problem, theta, problem.n
        dynamics, self.guards, self.resets, self.cost = model(problem.variant)
        self.f, self.table = dynamics.f.function, TABLES[VARIANTS[problem.variant][1]]
        self.inverse = np.linalg.inv(MASS[: self.n, : self.n]) if problem.massed else np.eye(self.n)
        (self.t, self.T), self.sign = span, np.sign(span[1] - span[0])
        self.inside = span
        self.u, self.rates, self.integral = u0.copy(), np.zeros(problem.n), 0.0
        self.sequence: list[Any] = []
        self.event_times: list[list[float]] = [[] for _ in problem.events]
        self.weights_of_times: list[list[float]] = [[] for _ in problem.events]
        self.weighted_times = 0.0
        self.segments: list[tuple[float, float, Any]] = []
        self.ended = False
        self.margin = np.inf
        self.signs = [np.sign(self.guard(j, self.t, self.u)) for j in range(len(problem.events))]
        self.run()

    def guard(self, j: int, t: float, u: np.ndarray) -> float:
        return self.guards[self.problem.events[j][0]](t, u, self.theta)

    def slope(self, t, y):
        du, t = np.zeros(self.n), np.clip(t, *self.inside)  # f may jump at the ends of a segment
        self.f(t, y[: self.n], self.theta, du)
        return np.append(self.inverse @ du + self.rates, self.cost(t, y[: self.n], self.theta))

    def run(self) -> None:
        actions = self.problem.actions(self.theta)
        if self.sign < 0.0:
            actions = actions[::-1]
            if actions and actions[0][0] > self.t:
                raise Draw("a dose before the start")
        kinks = set(self.table.times) | set(self.table.period + self.table.times)
        if VARIANTS[self.problem.variant][3]:
            kinks.add(self.problem.number(self.theta, "switch"))
        self.around_known(actions, kinks)
        known = sorted({a[0] for a in actions} | kinks | {self.T}, reverse=bool(self.sign < 0.0))
        known = [time for time in known if self.sign * (time - self.t) > 0.0 and self.sign * (time - self.T) <= 0.0]
        for time in known:
            while self.sign * (time - self.t) > 0.0 and not self.ended:
                self.advance(time)
            if self.ended:
                return
            if time != self.T or any(a[0] == time for a in actions):
                self.give([a for a in actions if a[0] == time])

    def around_known(self, actions: list, kinks: set[float]) -> None:
        times = np.sort([a[0] for a in actions] + [*self.problem.span, *kinks, *self.problem.times])
        if np.any(np.diff(times)[np.diff(times) > 0.0] < NEAR):
            raise Draw("known times that differences would swap")

    def give(self, actions: list) -> None:
        for _, state, amount, change in actions:
            self.u[state] += self.sign * amount
            self.rates[state] += self.sign * change
        if actions:
            self.sequence.append("dose")
            self.cascade([])

    def cascade(self, due: list[int]) -> None:
        """These events, by one guard, and those that jumps take across zero: they stay due, whatever the resets of others do."""
        done, nested = list(due), not due
        while True:
            if nested:
                due = due + (more := self.taken_along(done))
                done += more
            if not due:
                break
            j = max(due, key=lambda j: (self.priority(j), -j))
            if len({self.problem.events[i][0] for i in due if self.priority(i) == self.priority(j)}) > 1:
                raise Draw("several guards crossed with one priority")
            due = [i for i in due if i != j]
            self.happen(j, nested)
            nested = True
        for j in done:
            value = self.guard(j, self.t, self.u)
            self.signs[j] = np.sign(value) if abs(value) > 1e-9 else self.signs[j]

    def priority(self, j: int) -> int:
        return self.problem.events[j][4]

    def taken_along(self, done: list[int]) -> list[int]:
        found = []
        for j, (_, _, direction, _, _) in enumerate(self.problem.events):
            if j in done:
                continue
            value = self.guard(j, self.t, self.u)
            self.margin = min(self.margin, abs(value))
            if np.sign(value) != self.signs[j] and self.signs[j] != 0.0 and direction in (0, np.sign(value)):
                found.append(j)
            self.signs[j] = np.sign(value)
        return found

    def happen(self, j: int, nested: bool) -> None:
        """An event; one that is nested has no time of its own, so that nothing is weighted with it."""
        _, r, _, terminal, _ = self.problem.events[j]
        weight = 0.0 if nested else self.problem.weights_of_events[len(self.sequence) % 3]
        self.weights_of_times[j].append(weight)
        self.weighted_times += weight * self.t
        self.event_times[j].append(self.t)
        self.sequence.append(j)
        if len(self.sequence) > 25:
            raise Draw("many events")
        self.ended |= bool(terminal) and len(self.event_times[j]) == terminal
        if np.min(np.abs(self.problem.times - self.t), initial=1.0) < NEAR:
            raise Draw("an event close to an observation")
        if r is not None:
            new = self.u.copy()
            self.resets[r](self.t, self.u.copy(), self.theta, new)
            self.u = new

    def advance(self, end: float) -> None:
        start, y = self.t, np.append(self.u, self.integral)
        first, last = sorted((start, end))
        self.inside = first + 1e-13, last - 1e-13
        dense = solve_ivp(self.slope, (start, end), y, method="DOP853", rtol=1e-12, atol=1e-13, dense_output=True).sol
        times = np.linspace(start, end, 300)
        states = dense(times)[: self.n].T
        found = []
        for j in range(len(self.problem.events)):
            time = self.crossing(j, times, states, dense)
            if time is not None:
                found.append((self.sign * time, j))
        found.sort()
        stop = self.sign * found[0][0] if found else end
        if found and min(abs(stop - end), abs(stop - start)) < NEAR:
            raise Draw("an event close to another jump")
        due = [j for time, j in found if time == found[0][0]]
        if len(found) > len(due) and found[len(due)][0] - found[0][0] < NEAR:
            raise Draw("events close to each other")
        self.segments.append((start, stop, dense))
        y = dense(stop)
        self.t, self.u, self.integral = stop, y[: self.n].copy(), float(y[self.n])
        for j in range(len(self.problem.events)):
            self.signs[j] = -self.signs[j] if j in due else np.sign(self.guard(j, stop, self.u)) or self.signs[j]
        if due:
            self.cascade(due)

    def crossing(self, j: int, times: np.ndarray, states: np.ndarray, dense: Any) -> float | None:
        """When the guard first crosses zero in the direction that counts, in this segment."""
        direction, sign = self.problem.events[j][2], self.signs[j]
        values = np.array([self.guard(j, t, u) for t, u in zip(times, states, strict=True)])
        small = np.abs(values[1:-1]) < 2e-2 * (1.0 + np.abs(values).max())
        if (small & ((values[1:-1] - values[:-2]) * (values[2:] - values[1:-1]) <= 0.0))[1:].any():
            raise Draw("a guard that is nearly touched")
        for i in range(1, times.size):
            now = np.sign(values[i])
            if now in (0.0, sign):
                continue
            if sign == 0.0 or direction not in (0, now):
                sign = now
                continue
            if i == 1 and values[0] * values[1] > 0.0:
                raise Draw("a guard that has crossed at once")
            ends = times[i - 1], times[i]
            return float(brentq(lambda t: self.guard(j, t, dense(t)[: self.n]), *ends, xtol=1e-15, rtol=1e-15))
        return None

    def at(self, t: float, side: str) -> np.ndarray:
        for start, stop, dense in self.segments if side == "left" else self.segments[::-1]:
            if self.sign * (t - start) >= 0.0 and self.sign * (stop - t) >= 0.0:
                return dense(t)[: self.n]
        raise AssertionError(t)


def loss_of(run: Run, problem: Problem) -> float:
    value = problem.weight_T @ run.u
    for t, weights in zip(problem.times, problem.weights, strict=True):
        value += weights @ run.at(t, problem.side)
    if problem.has_cost:
        value += run.integral
    return float(value + run.weighted_times)


def reference(problem: Problem, direction: np.ndarray, h: float = 5e-4) -> tuple[float, float, Run]:
    """The loss, its derivative in a direction of (u0, theta, t0, T), and the run itself."""
    x = np.concatenate([problem.u0, problem.theta, problem.span])
    middle = Run(problem, problem.u0, problem.theta, problem.span)
    if middle.margin < 2e-2:
        raise Draw("a jump that nearly takes a guard to zero")
    values = []
    for k in (-3, -2, -1, 1, 2, 3):
        moved = x + k * h * direction
        run = Run(problem, moved[: problem.n], moved[problem.n : -2], tuple(moved[-2:]))
        if run.sequence != middle.sequence:
            raise Draw("differences change what happens")
        values.append(loss_of(run, problem))
    slope = (np.array([-1.0, 9.0, -45.0, 45.0, -9.0, 1.0]) @ values) / (60.0 * h)
    return loss_of(middle, problem), float(slope), middle
