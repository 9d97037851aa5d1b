"""Random systems with events, doses, a table and stops, and a plain integrator of their own that tells what they do.

The coefficients of f, of guards, of resets and of doses are all entries of theta, so that one compiled model serves all draws, and
a derivative in a random direction has a part of everything. The reference goes from one known time to the next by SciPy's DOP853 at
1e-12, looks for zeros of guards in the dense output, and is differentiated by central differences of order 6.
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
TABLE = Table([0.0, 0.7, 1.1, 2.3, 2.9, 4.0], [0.3, 1.0, -0.4, 0.2, 0.8, 0.1], outside="hold")
NUMBERS = ("amount", "fraction", "lag", "duration", "early", "late", "rate")


class Draw(Exception):
    """A draw to leave out: what happens there depends on rounding, or on the size of differences."""


def places(n: int) -> dict[str, int]:
    """Where in theta the coefficients begin."""
    sizes = {"a": n, "B": n * n, "q": n, "s": n, "guards": GUARDS * (n + 2), "resets": GUARDS * (n * n + n), "doses": len(NUMBERS)}
    starts = np.cumsum([0, *sizes.values()])
    return dict(zip((*sizes, "all"), map(int, starts), strict=True))


@functools.cache
def model(n: int) -> tuple[Dynamics, list[Any], list[Any], Any]:
    """Dynamics, guards, resets and the running cost."""
    at = places(n)
    a, B, q, s = at["a"], at["B"], at["q"], at["s"]

    def f(t, u, theta, du):
        for i in range(n):
            du[i] = theta[a + i] + theta[q + i] * np.sin(u[(i + 1) % n]) + theta[s + i] * TABLE(t)
            for j in range(n):
                du[i] += theta[B + n * i + j] * u[j]

    def cost(t, u, theta):
        return theta[0] * u[0] + 0.5 * u[n - 1] ** 2 + 0.1 * t * u[0]

    guards = [guard_of(at["guards"] + k * (n + 2), n) for k in range(GUARDS)]
    resets = [reset_of(at["resets"] + k * (n * n + n), n) for k in range(GUARDS)]
    return Dynamics(f, name=f"random {n}"), guards, resets, cost


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
    """One draw. `events` are tuples (guard, whether it resets, direction, terminal, priority)."""

    n: int
    u0: np.ndarray
    theta: np.ndarray
    span: tuple[float, float]
    events: list[tuple[int, bool, int, int, int]]
    kinds: list[str]
    stops: list[float]
    times: np.ndarray
    weights: np.ndarray
    weight_T: np.ndarray
    has_cost: bool
    side: str

    def entry(self, name: str) -> str:
        return f"theta[{places(self.n)['doses'] + NUMBERS.index(name)}]"

    def number(self, theta: np.ndarray, name: str) -> float:
        return theta[places(self.n)["doses"] + NUMBERS.index(name)]

    def doses(self) -> list[Doses]:
        made = {
            "timed": lambda: Doses(self.entry("early"), self.entry("amount"), 0, fraction=self.entry("fraction")),
            "lagged": lambda: Doses([0.8, 2.2], [self.entry("amount"), 0.4], self.n - 1, lag=self.entry("lag")),
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
                found += [(0.8 + number("lag"), last, number("amount"), 0.0), (2.2 + number("lag"), last, 0.4, 0.0)]
            elif kind == "infused":
                rate = number("rate") / number("duration")
                found += [(number("late"), 1, 0.0, rate), (number("late") + number("duration"), 1, 0.0, -rate)]
            elif kind == "fixed":
                found += [(1.1, 0, 0.0, 0.6), (1.6, 0, 0.0, -0.6)]
                found += [(2.7, 0, 0.0, number("amount") / 0.9), (3.6, 0, 0.0, -number("amount") / 0.9)]
            else:
                found += [(0.35 + 0.9 * k, 1, number("rate"), 0.0) for k in range(3)]
        return sorted(found)

    def make_events(self) -> list[Event]:
        _, guards, resets, _ = model(self.n)
        return [
            Event(
                guards[k], resets[k] if has else None, direction=direction, terminal=terminal, priority=priority, name=f"event {k}"
            )
            for k, has, direction, terminal, priority in self.events
        ]


def draw(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 4))
    at, theta = places(n), np.zeros(places(n)["all"])
    theta[at["a"] : at["B"]] = rng.normal(0.0, 0.5, n)
    spin = rng.normal(0.0, 1.2, (n, n))
    theta[at["B"] : at["q"]] = (spin - spin.T + rng.normal(0.0, 0.2, (n, n))).ravel()
    theta[at["q"] : at["s"]] = rng.normal(0.0, 0.5, n)
    theta[at["s"] : at["guards"]] = rng.normal(0.0, 0.7, n) * rng.integers(0, 2)
    for k in range(GUARDS):
        first = at["guards"] + k * (n + 2)
        theta[first : first + n] = rng.normal(0.0, 1.0, n)
        theta[first + n] = rng.normal(0.0, 0.6)
        theta[first + n + 1] = rng.normal(0.0, 0.5) * rng.integers(0, 2)
        if rng.random() < 0.15:  # a guard of time alone
            theta[first : first + n + 2] = [*np.zeros(n), -rng.uniform(0.5, 2.5), 1.0]
        first = at["resets"] + k * (n * n + n)
        theta[first : first + n * n + n] = rng.normal(0.0, 0.4, n * n + n)
    theta[at["doses"] :] = [rng.normal(), *rng.uniform([0.3, 0.1, 0.2, 0.3, 0.9], [1.0, 0.6, 0.8, 2.5, 2.4]), rng.normal()]
    T = float(rng.uniform(2.0, 3.9))
    span = (0.0, T) if rng.random() < 0.65 else (T, 0.05)
    which = rng.permutation(GUARDS)[: rng.integers(0, GUARDS + 1)]
    events = [
        (
            int(k),
            bool(rng.random() < 0.8),
            int(rng.integers(-1, 2)),
            int(rng.random() < 0.15) * int(rng.integers(1, 4)),
            int(rng.integers(0, 3)),
        )
        for k in which
    ]
    until = {"timed": 0.0, "lagged": 2.2, "infused": 0.0, "fixed": 3.1, "again": 3.1}  # which those have to be in the span for
    kinds = [kind for kind, last in until.items() if rng.random() < 0.4 and T > last]
    times = np.sort(rng.uniform(0.05, T, 4))
    if "again" in kinds:
        times[1] = 0.35 + 0.9
    times = np.sort(times[times <= T])
    return Problem(
        n=n,
        u0=rng.normal(0.0, 1.0, n),
        theta=theta,
        span=span,
        events=events,
        kinds=kinds,
        stops=list(rng.uniform(0.0, T, 2)) if rng.random() < 0.3 else [],
        times=times,
        weights=rng.normal(size=(times.size, n)),
        weight_T=rng.normal(size=n),
        has_cost=bool(rng.random() < 0.5),
        side="left" if rng.random() < 0.3 else "right",
    )


# --- the reference --------------------------------------------------------------------------------------------------------------
class Run:
    """One solution, in segments between jumps; `sequence` says what has happened in which order."""

    def __init__(self, problem: Problem, u0: np.ndarray, theta: np.ndarray, T: float):
        self.problem, self.theta, self.n = problem, theta, problem.n
        dynamics, self.guards, self.resets, self.cost = model(problem.n)
        self.f = dynamics.f.function
        self.t, self.T, self.sign = problem.span[0], T, np.sign(T - problem.span[0])
        self.u, self.rates, self.integral = u0.copy(), np.zeros(problem.n), 0.0
        self.sequence: list[Any] = []
        self.event_times: list[list[float]] = [[] for _ in problem.events]
        self.segments: list[tuple[float, float, Any]] = []
        self.ended = False
        self.margin = np.inf
        self.signs = [np.sign(self.guard(j, self.t, self.u)) for j in range(len(problem.events))]
        self.run()

    def guard(self, j: int, t: float, u: np.ndarray) -> float:
        return self.guards[self.problem.events[j][0]](t, u, self.theta)

    def slope(self, t, y):
        du = np.zeros(self.n)
        self.f(t, y[: self.n], self.theta, du)
        return np.append(du + self.rates, self.cost(t, y[: self.n], self.theta))

    def run(self) -> None:
        actions = self.problem.actions(self.theta)
        if self.sign < 0.0:
            actions = actions[::-1]
            if actions and actions[0][0] > self.t:
                raise Draw("a dose before the start")
        self.around_known(actions)
        known = sorted({a[0] for a in actions} | set(TABLE.times[1:-1]) | {self.T}, reverse=bool(self.sign < 0.0))
        known = [time for time in known if self.sign * (time - self.t) > 0.0 and self.sign * (time - self.T) <= 0.0]
        for time in known:
            while self.sign * (time - self.t) > 0.0 and not self.ended:
                self.advance(time)
            if self.ended:
                return
            if time != self.T or any(a[0] == time for a in actions):
                self.give([a for a in actions if a[0] == time])

    def around_known(self, actions: list) -> None:
        times = np.sort([a[0] for a in actions] + [*self.problem.span, *TABLE.times, *self.problem.times])
        if np.any(np.diff(times)[np.diff(times) > 0.0] < NEAR):
            raise Draw("known times that differences would swap")

    def give(self, actions: list) -> None:
        for _, state, amount, change in actions:
            self.u[state] += self.sign * amount
            self.rates[state] += self.sign * change
        if actions:
            self.sequence.append("dose")
            self.cascade([])

    def cascade(self, done: list[int]) -> None:
        """Events that a jump has taken across zero: they stay due, whatever the resets of others do then."""
        due: list[int] = []
        while not self.ended:
            for j in range(len(self.problem.events)):
                value = self.guard(j, self.t, self.u)
                if j in done:
                    continue
                self.margin = min(self.margin, abs(value))
                if np.sign(value) != self.signs[j] and self.signs[j] != 0.0 and self.problem.events[j][2] in (0, np.sign(value)):
                    due.append(j)
                    done = [*done, j]
                self.signs[j] = np.sign(value)
            if not due:
                break
            j = max(due, key=lambda j: (self.problem.events[j][4], -j))
            if sum(self.problem.events[i][4] == self.problem.events[j][4] for i in due) > 1:
                raise Draw("several guards crossed with one priority")
            due.remove(j)
            self.happen(j)
            if self.ended and due:
                raise Draw("events at the same time as the last one")
        for j in done:
            value = self.guard(j, self.t, self.u)
            self.signs[j] = np.sign(value) if abs(value) > 1e-9 else self.signs[j]

    def happen(self, j: int) -> None:
        k, has, _, terminal, _ = self.problem.events[j]
        self.event_times[j].append(self.t)
        self.sequence.append(j)
        if len(self.sequence) > 25:
            raise Draw("many events")
        self.ended = bool(terminal) and len(self.event_times[j]) == terminal
        if np.min(np.abs(self.problem.times - self.t), initial=1.0) < NEAR:
            raise Draw("an event close to an observation")
        if has:
            new = self.u.copy()
            self.resets[k](self.t, self.u.copy(), self.theta, new)
            self.u = new

    def advance(self, end: float) -> None:
        start, y = self.t, np.append(self.u, self.integral)
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
        if len(found) > 1 and found[1][0] - found[0][0] < NEAR:
            raise Draw("events close to each other")
        self.segments.append((start, stop, dense))
        y = dense(stop)
        self.t, self.u, self.integral = stop, y[: self.n].copy(), float(y[self.n])
        which = found[0][1] if found else -1
        for j in range(len(self.problem.events)):
            self.signs[j] = -self.signs[j] if j == which else np.sign(self.guard(j, stop, self.u)) or self.signs[j]
        if found:
            self.happen(which)
            if not self.ended:
                self.cascade([which])

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
    return float(value)


def reference(problem: Problem, direction: np.ndarray, h: float = 5e-4) -> tuple[float, float, Run]:
    """The loss, its derivative in a direction of (u0, theta, T), and the run itself."""
    x = np.concatenate([problem.u0, problem.theta, [problem.span[1]]])
    middle = Run(problem, problem.u0, problem.theta, problem.span[1])
    if middle.margin < 2e-2:
        raise Draw("a jump that nearly takes a guard to zero")
    values = []
    for k in (-3, -2, -1, 1, 2, 3):
        moved = x + k * h * direction
        run = Run(problem, moved[: problem.n], moved[problem.n : -1], moved[-1])
        if run.sequence != middle.sequence:
            raise Draw("differences change what happens")
        values.append(loss_of(run, problem))
    slope = (np.array([-1.0, 9.0, -45.0, 45.0, -9.0, 1.0]) @ values) / (60.0 * h)
    return loss_of(middle, problem), float(slope), middle
