"""lam and its tangents across a jump of the state.

The mesh is held fixed, and a jump whose time moves is a map from the state at a fixed time t to that at the same time: along the
slopes ahead of it to its time t + delta, through the reset, and back along the slopes behind it. Of each part the first and second
derivatives at delta = 0 are known, so those of the map are too, and a Hessian made of them is symmetric to rounding. Its first
derivatives are the rule of adjoints/jumping.py and adjoints/jump_tangents.py, with the same names.

With F = du/dt and F' = F_t + F_u F, to the second order in delta

    ahead   u1 = u + delta F- + delta^2 / 2 F-'
    jump    u2 = R(t + delta, u1, theta)
    behind  u3 = u2 - delta F+(t, u2) + delta^2 / 2 (F+_u F+ - F+_t)

where delta is known, or makes the guard e(t + delta, u1, theta) zero. A running cost is one more state, which nothing reads.
Going back, mu is the multiplier of the guard: what makes the cotangent of delta, and the tangents of that, zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from adjode.adjoints.jumping import APART
from adjode.compile import slots
from adjode.compile.frame import Frame
from adjode.loops.jumps import AMOUNT, DURATION, FRACTION, INFLOW, INTO, LAG, TIME
from adjode.model.callbacks import Callback
from adjode.model.curved import CurvedAt
from adjode.model.derived import time_derivative
from adjode.model.dynamics import Dynamics
from adjode.passes.jumps import Jumps
from adjode.passes.span import Span

_QUANTITIES = [AMOUNT, FRACTION, DURATION]  # what the amount of a dose, or its rate, is made of


class JumpCurvatures:
    """What takes lam and its tangents back over jumps of a trajectory that a pass of second order stops at.

    Parameters
    ----------
    dynamics : Dynamics
        With the inflows of doses.
    jumps : Jumps
    span : Span
    m : int
        How many entries of theta are the user's.
    cost : pair of Callbacks, optional

    Raises
    ------
    TypeError
        If a derivative that is needed cannot be derived.
    """

    def __init__(self, dynamics: Dynamics, jumps: Jumps, span: Span, m: int, cost: tuple[Callback, Callback] | None = None):
        self.dynamics, self.span, self.m, self.cost = dynamics, span, m, cost
        self.events = [] if jumps.guards is None else jumps.guards.curved
        self.f_dt = self.g_dt = None
        if jumps.move:
            self.f_dt = _known(dynamics.f_dt)
            self.g_dt = None if cost is None else _known(time_derivative(cost[0], "g_dt"))

    def pull(self, frame: Frame, step: int) -> None:
        """LAMS and TOTALS of a pass of second order from behind the jumps of a step to ahead of them, and so its inflows."""
        lams, totals, theta, theta_dots = (frame[slot] for slot in (slots.LAMS, slots.TOTALS, slots.THETA, slots.THETA_DOTS))
        what, last = frame[slots.JUMP_WHAT].reshape(-1, 3), int(frame[slots.FORWARD_KIND][step]) - slots.JUMP
        numbers, crossed = range(int(what[last, 2]), last + 1), []
        doses = {k: _Dose(frame, k) for k in numbers if what[k, 0] == slots.DOSE}
        for k, dose in reversed(doses.items()):
            if dose.lasts:
                theta[dose.place], theta_dots[:, dose.place] = frame[slots.JUMP_INFLOW][k], dose.dots_before(theta_dots)
        dots = _Dots(frame[slots.STAGE_STATE_DOTS][step, 0].reshape(len(theta_dots), -1), theta_dots)
        theta = theta.copy()
        for group in _together(numbers, what):
            jump = _Jump(self, frame, group, doses.get(group[0]))
            dots = jump.push(dots, theta)
            crossed.append(jump)
        bars = _Bars(np.zeros((len(lams), lams.shape[1] + 1)), totals, np.zeros(len(lams)))
        bars.u[:, :-1], bars.u[0, -1] = lams, 0.0 if self.cost is None else 1.0
        for jump in reversed(crossed):
            jump.pull(bars)
        lams[:] = bars.u[:, :-1]


def _together(numbers: range, what: np.ndarray) -> list[list[int]]:
    """Jumps by their times: each with those that it has taken along."""
    groups: list[list[int]] = []
    for k in numbers:
        if what[k, 0] == slots.NESTED:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def _known(rate: Callback | str | None) -> Callback | None:
    if isinstance(rate, str):
        raise TypeError(
            f"second derivatives across jumps at times that change need the derivative by time of f, and of a running cost, which "
            f"cannot be derived ({rate.rstrip('.')})."
        )
    return rate


class _Dots(NamedTuple):
    """Tangents of the state (p, n) and of theta (p, m)."""

    u: np.ndarray
    theta: np.ndarray


@dataclass(eq=False)
class _Bars:
    """Cotangents, with their p tangents behind: (1 + p, n + 1) of the state and the running cost, (1 + p, m) of theta, and (1 + p,)
    of the time of a jump.
    """

    u: np.ndarray
    theta: np.ndarray
    t: np.ndarray


class _Slopes:
    """du/dt beside a jump, with g behind it, and the derivatives of both."""

    def __init__(self, of: JumpCurvatures, t: float, u: np.ndarray, theta: np.ndarray):
        dynamics, n, m = of.dynamics, u.size, theta.size
        self.value, self.by_t = np.zeros(n + 1), np.zeros(n + 1)
        self.by_u, self.by_theta = np.zeros((n + 1, n)), np.zeros((n + 1, m))
        dynamics.f(t, u, theta, self.value[:n])
        for k, unit in enumerate(np.eye(n)):
            dynamics.vjp(t, u, theta, unit, self.by_u[k], self.by_theta[k])
        if of.f_dt is not None:
            of.f_dt(t, u, theta, self.by_t[:n])
        if dynamics.mass is not None:
            for part in (self.value, self.by_t, self.by_u, self.by_theta):
                part[:n] = dynamics.mass.inverse @ part[:n]
        if of.cost is not None:
            (g, g_vjp), place = of.cost, (t, u, theta[: of.m])
            g(*place, self.value[n:])
            g_vjp(*place, self.by_u[n], self.by_theta[n, : of.m])
            if of.g_dt is not None:
                of.g_dt(*place, self.by_t[n:])
        self.along = self.by_u @ self.value[:n]

    def push(self, dots: _Dots, t_dots: np.ndarray, sign: float) -> _Dots:
        """Along the slopes ahead of a jump, to its time (sign 1), or along those behind it, from there (-1)."""
        return dots._replace(u=dots.u + sign * np.outer(t_dots, self.value[:-1]))

    def pull(self, bars: _Bars, dots: _Dots, t_dots: np.ndarray, sign: float) -> None:
        """The same back, where `dots` were before."""
        lam = bars.u[0]
        bars.t += sign * (bars.u @ self.value)
        bars.t[1:] += sign * (dots.u @ self.by_u.T + dots.theta @ self.by_theta.T) @ lam
        bars.t[1:] += t_dots * (lam @ (self.along + sign * self.by_t))
        bars.u[1:, :-1] += sign * np.outer(t_dots, lam @ self.by_u)
        bars.theta[1:] += sign * np.outer(t_dots, lam @ self.by_theta)


class _Dose:
    """What jump k gives, to the state or to an inflow, in the order of integration; or, of a switch of f, nothing.

    Attributes
    ----------
    gives, lasts : bool
        Whether anything; whether to an inflow.
    place : int
        The entry of the state, or of theta.
    moves : bool
        Whether its time depends on theta.
    """

    def __init__(self, frame: Frame, k: int):
        action, theta, mesh_t = int(frame[slots.JUMP_WHAT][3 * k + 1]), frame[slots.THETA], frame[slots.FORWARD_T]
        dose, kind = frame[slots.ACTIONS][2 * action : 2 * action + 2]
        numbers, entries = frame[slots.DOSES][dose], frame[slots.DOSE_ENTRIES][7 * dose : 7 * dose + 7]
        self.gives, self.lasts = kind != slots.SWITCH, kind in (slots.BEGINS, slots.ENDS)
        forwards = mesh_t[frame[slots.FORWARD_COUNT][slots.STEPS]] >= mesh_t[0]
        self.place = int(entries[INFLOW if self.lasts else INTO])
        rows, given = np.zeros((numbers.size, theta.size)), entries[: numbers.size]
        known = given >= 0
        rows[known, given[known]] = numbers[known]
        values = numbers.copy()
        values[known] *= theta[given[known]]
        self._t_by_theta = rows[TIME] + rows[LAG] + (rows[DURATION] if kind >= slots.ENDS else 0.0)
        self.moves = bool(self._t_by_theta.any())
        if not self.gives:
            return
        (a, b, c), self._rows = values[_QUANTITIES], rows[_QUANTITIES]
        if not self.lasts:
            c, self._rows[2] = 1.0, 0.0
        sign = 1.0 if forwards == (kind != slots.ENDS) else -1.0
        self.amount, slopes = sign * a * b / c, np.array([b / c, a / c, -a * b / c**2])
        self._by_theta = sign * slopes @ self._rows
        mixed = np.array([[0.0, 1.0 / c, -b / c**2], [1.0 / c, 0.0, -a / c**2], [-b / c**2, -a / c**2, 2.0 * a * b / c**3]])
        self._curvature = sign * mixed

    def dots_before(self, theta_dots: np.ndarray) -> np.ndarray:
        return theta_dots[:, self.place] - theta_dots @ self._by_theta

    def t_dots(self, theta_dots: np.ndarray) -> np.ndarray:
        return theta_dots @ self._t_by_theta

    def push(self, dots: _Dots, theta: np.ndarray) -> _Dots:
        """The tangents behind; theta becomes what it is there."""
        gained, (u, w) = dots.theta @ self._by_theta, (part.copy() for part in dots)
        (w if self.lasts else u)[:, self.place] += gained
        if self.lasts:
            theta[self.place] += self.amount
        return _Dots(u, w)

    def pull(self, bars: _Bars, dots: _Dots) -> None:
        gained = (bars.theta if self.lasts else bars.u)[:, self.place].copy()
        bars.theta += np.outer(gained, self._by_theta)
        bars.theta[1:] += gained[0] * (dots.theta @ self._rows.T @ self._curvature @ self._rows)

    def pull_time(self, bars: _Bars) -> None:
        bars.theta += np.outer(bars.t, self._t_by_theta)


def _beside(frame: Frame, k: int, ahead: bool, theta: np.ndarray) -> np.ndarray:
    """theta with which f, where it switches then, is as it is ahead of jump k or behind it; see `f_beside` of adjoints/jumping."""
    what, numbers, entries = frame[slots.JUMP_WHAT].reshape(-1, 3), frame[slots.DOSES], frame[slots.DOSE_ENTRIES].reshape(-1, 7)
    forward, mesh_t, span = frame[slots.FORWARD_COUNT], frame[slots.FORWARD_T], frame[slots.TIME_SPAN]
    later, theta = (1.0 if mesh_t[forward[slots.STEPS]] >= mesh_t[0] else -1.0), theta.copy()
    if what[k, 0] != slots.DOSE:
        return theta
    largest = max(abs(span[slots.EARLIEST]), abs(span[slots.LATEST]))
    for j in range(what[k, 2], forward[slots.OCCURRED]):
        dose, kind = frame[slots.ACTIONS].reshape(-1, 2)[what[j, 1]] if what[j, 0] == slots.DOSE else (-1, -1)
        if what[j, 2] != what[k, 2] or kind != slots.SWITCH:
            continue
        which = TIME if entries[dose, TIME] >= 0 else LAG
        factor, entry = numbers[dose, which], entries[dose, which]
        direction = later if j > k or (ahead and j == k) else -later
        theta[entry] += direction * APART * (largest + abs(factor * theta[entry])) / factor
    return theta


class _Jump:
    """A dose or an event, and the events that it has taken along at its time."""

    def __init__(self, of: JumpCurvatures, frame: Frame, numbers: list[int], dose: _Dose | None):
        first, last = numbers[0], numbers[-1]
        what, forward = frame[slots.JUMP_WHAT].reshape(-1, 3), frame[slots.FORWARD_COUNT]
        self._of, self._u = of, frame[slots.JUMP_U]
        self._frame, self._t = frame, float(of.span.time(frame[slots.JUMP_T][first]))
        self._dose, self._gives, self._moves = dose, dose if dose is not None and dose.gives else None, dose is None or dose.moves
        self._ends = forward[slots.ENDED] > 0 and last == forward[slots.OCCURRED] - 1
        self._first, self._last, self._which = first, last, what[:, 1]
        self._resetting = [k for k in numbers if what[k, 0] != slots.DOSE]

    def push(self, dots: _Dots, theta: np.ndarray) -> _Dots:
        """The tangents behind, of those ahead; theta becomes what it is there."""
        of, m = self._of, self._of.m
        self._dots = [dots]
        self._t_dots, self._ahead, self._behind = np.zeros(len(dots.u)), None, None
        if self._moves:
            self._ahead = self._slopes(self._first, True, theta)
            self._t_dots = self._meet(dots, theta)
            dots = self._keep(self._ahead.push(dots, self._t_dots, 1.0))
        if self._gives is not None:
            dots = self._keep(self._gives.push(dots, theta))
        self._resets = []
        for k in self._resetting:
            reset = of.events[self._which[k]][1]
            if reset is not None:
                at = reset.at(self._t, self._u[2 * k], theta[:m])
                self._resets.append(at)
                dots = self._keep(dots._replace(u=at.push(dots.u, dots.theta[:, :m], self._t_dots)))
        if self._moves and not self._ends:
            self._behind = self._slopes(self._last, False, theta)
            dots = self._keep(self._behind.push(dots, self._t_dots, -1.0))
        return dots

    def _slopes(self, k: int, ahead: bool, theta: np.ndarray) -> _Slopes:
        """Those ahead of jump k or behind it; what is there on one side alone, as at the end of a span, jumps not."""
        u = self._u[2 * k + (not ahead)]
        slopes = _Slopes(self._of, self._t, u, _beside(self._frame, k, ahead, theta))
        return slopes if np.isfinite(slopes.value).all() else _Slopes(self._of, self._t, u, theta)

    def _keep(self, dots: _Dots) -> _Dots:
        """Of each part in its turn, what it leads to."""
        self._dots.append(dots)
        return dots

    def _meet(self, dots: _Dots, theta: np.ndarray) -> np.ndarray:
        """How the time changes."""
        assert self._ahead is not None
        if self._dose is not None:
            return self._dose.t_dots(dots.theta)
        guard = self._of.events[self._which[self._first]][0]
        self._guard = guard.at(self._t, self._u[2 * self._first], theta[: self._of.m])
        self._gamma = self._guard.by_t[0] + self._guard.by_u[0] @ self._ahead.value[:-1]
        changed = dots.u @ self._guard.by_u[0] + dots.theta[:, : self._of.m] @ self._guard.by_theta[0]
        return -changed / self._gamma

    def pull(self, bars: _Bars) -> None:
        """The same back, after `push`."""
        bars.t, before = np.zeros(len(bars.u)), self._dots[:-1]
        if self._behind is not None:
            self._behind.pull(bars, before.pop(), self._t_dots, -1.0)
        for reset in reversed(self._resets):
            self._pull_function(reset, bars.u[:, :-1].copy(), before.pop(), bars, keeps=False)
        if self._gives is not None:
            self._gives.pull(bars, before.pop())
        if self._ahead is None:
            return
        if self._dose is not None:
            self._ahead.pull(bars, before.pop(), self._t_dots, 1.0)
            self._dose.pull_time(bars)
        else:
            self._pull_event(bars, before.pop())

    def _pull_function(self, of: CurvedAt, given: np.ndarray, dots: _Dots, bars: _Bars, keeps: bool) -> None:
        """Of a reset, in place of the cotangents of the state, or of a guard, beside them."""
        m = self._of.m
        of_u, of_theta, of_t = of.pull(given, dots.u, dots.theta[:, :m], self._t_dots)
        bars.u[:, :-1] = of_u + (bars.u[:, :-1] if keeps else 0.0)
        bars.theta[:, :m] += of_theta
        bars.t += of_t

    def _pull_event(self, bars: _Bars, dots: _Dots) -> None:
        """The guard, whose multiplier makes the cotangent of the time zero, and its tangents too."""
        assert self._ahead is not None
        guard, m = self._guard, self._of.m
        given = np.zeros((len(bars.u), 1))
        given[0] = -(bars.t[0] + bars.u[0] @ self._ahead.value) / self._gamma
        self._pull_function(guard, given, self._dots[1], bars, keeps=True)
        self._ahead.pull(bars, dots, self._t_dots, 1.0)
        changes = bars.t[1:] / self._gamma
        bars.u[1:, :-1] -= np.outer(changes, guard.by_u[0])
        bars.theta[1:, :m] -= np.outer(changes, guard.by_theta[0])
