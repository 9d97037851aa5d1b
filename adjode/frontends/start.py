"""Where an experiment starts: at u0 as it is given, or where a system that started there has come to rest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from adjode.api.equilibrium import Equilibrium, steady_state
from adjode.frontends.mapping import Block
from adjode.model.dynamics import Dynamics
from adjode.model.fields import Fields

Bars = dict[str, np.ndarray]  # cotangents of "p" and "theta"


class SteadyState:
    """The state in which a system rests before an experiment; see `adjode.steady_state`.

    Parameters
    ----------
    theta : dict or vector, optional
        What is different beforehand: entries of theta, as for `Experiment`, or all of them. By default nothing.
    then : dict, optional
        States that are set to something else when the experiment begins, by name, in the form of u0 of `Experiment`.

    Notes
    -----
    The system comes to rest from u0 of the experiment, which determines the conserved quantities.
    """

    def __init__(self, *, theta: Any = None, then: Mapping[str, Any] | None = None):
        self.theta, self.then = theta, {} if then is None else dict(then)


class _Recent:
    """The states of rest that were found last: experiments that come from the same one find it once, also on several threads."""

    _KEPT = 16

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple, Future] = OrderedDict()

    def get(self, key: tuple, find: Callable[[], Equilibrium]) -> Equilibrium:
        with self._lock:
            future = self._found.get(key)
            is_first = future is None
            if future is None:
                future = self._found[key] = Future()
                while len(self._found) > self._KEPT:
                    self._found.popitem(last=False)
        if is_first:
            try:
                future.set_result(find())
            except BaseException as error:
                with self._lock:
                    self._found.pop(key, None)
                future.set_exception(error)
        return future.result()


_recent: WeakKeyDictionary[Dynamics, _Recent] = WeakKeyDictionary()


def _shared(dynamics: Dynamics) -> _Recent:
    return _recent.setdefault(dynamics, _Recent())


class Given:
    """u0 as it is given."""

    def __init__(self, u0: Block):
        self._u0 = u0

    def __call__(self, values: Bars) -> tuple[np.ndarray, Callable[[np.ndarray], Bars]]:
        """The state (n,) at these p and theta, and its pullback to them."""
        return self._u0(values), lambda bar: self._u0.pull_back(values, bar)

    def curve(self, values: Bars, bar: np.ndarray, dots: Bars) -> Bars:
        """How what the pullback of the same cotangent gives changes along tangents of p and theta."""
        return self._u0.curve(values, bar, dots)

    def require_second_order(self) -> None:
        self._u0.require_second_order()

    def varying(self, is_free: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Which states depend on those entries of p and theta that vary."""
        return self._u0.varying(is_free, theta)

    def uses(self, q: int) -> set[int]:
        """Which of q parameters it may depend on."""
        return self._u0.uses("p", q)

    @property
    def is_linear(self) -> bool:
        return not self._u0.has_functions


def curved(
    start: Given | Rested, of_theta: Block, p: np.ndarray, z_bar: np.ndarray, p_dot: np.ndarray, z_dot: np.ndarray
) -> np.ndarray:
    """How what a cotangent of z, u0 and theta (n + m,), owes to p (q,) changes along tangents of p, where z is not linear in it."""
    assert isinstance(start, Given)  # what has been required
    theta = of_theta({"p": p})
    values, n = {"p": p, "theta": theta}, z_bar.size - theta.size
    theta_bar = z_bar[n:] + start(values)[1](z_bar[:n])["theta"]
    of_start = start.curve(values, z_bar[:n], {"p": p_dot, "theta": z_dot[n:]})
    inner = of_theta.curve({"p": p}, theta_bar, {"p": p_dot})["p"] + of_theta.pull_back({"p": p}, of_start["theta"])["p"]
    return of_start["p"] + inner


class Rested:
    """The state in which the system rests that starts at u0.

    Parameters
    ----------
    dynamics : Dynamics
    rest : SteadyState
    u0 : Block
    theta : object
        As the experiment was given it.
    parameters : Fields
    start : (q,) array
        Of p.
    t0, options
        As for `steady_state`.
    """

    is_linear = False

    def __init__(
        self,
        dynamics: Dynamics,
        rest: SteadyState,
        u0: Block,
        theta: Any,
        parameters: Fields,
        start: np.ndarray,
        t0: float,
        options: dict[str, Any],
    ):
        self._dynamics, self._u0, self._t0, self._options = dynamics, u0, t0, options
        if isinstance(rest.theta, Mapping):
            if not isinstance(theta, Mapping):
                raise ValueError("theta of a SteadyState names entries, but that of the experiment is not a dict.")
            if unknown := [name for name in rest.theta if name not in theta]:
                raise ValueError(f"theta of a SteadyState has {unknown[0]!r}, but its entries are {', '.join(map(str, theta))}.")
            theta = {**theta, **rest.theta}
        elif rest.theta is not None:
            theta = rest.theta
        self._before = Block("theta", theta, dynamics.parameters, parameters)
        self._before({"p": start})
        assert u0.layout is not None and self._before.layout is not None
        self._then = Block("u0", rest.then, None, parameters, self._before.layout.fields)
        states = [] if u0.layout.fields is None else list(map("".join, u0.layout.fields.entries))
        if unknown := [name for name in rest.then if name not in states]:
            known = ", ".join(states) or "not named: declare them, Dynamics(states=...)"
            raise ValueError(f"then sets the state {unknown[0]!r}, but the states are {known}.")
        self._at = [states.index(name) for name in rest.then]

    def __call__(self, values: Bars) -> tuple[np.ndarray, Callable[[np.ndarray], Bars]]:
        """The state (n,) at these p and theta, and its pullback to them."""
        assert self._u0.layout is not None and self._before.layout is not None
        p = {"p": values["p"]}
        inner = {**p, "theta": self._before(p)}
        u0, theta = self._u0.layout.unflatten(self._u0(inner)), self._before.layout.unflatten(inner["theta"])
        key = (inner["theta"].tobytes(), np.asarray(self._u0.layout.flatten("u0", u0)).tobytes(), self._t0, repr(self._options))
        found = _shared(self._dynamics).get(key, lambda: steady_state(self._dynamics, u0, theta, self._t0, **self._options))
        u = self._u0.layout.flatten("u", found.u)
        u[self._at] = self._then(values)

        def pull_back(bar: np.ndarray) -> Bars:
            total, rested = self._then.pull_back(values, bar[self._at]), bar.copy()
            rested[self._at] = 0.0
            of_u0, of_theta = found.pull_back(rested)
            of_inner = self._u0.pull_back(inner, of_u0)
            total["p"] += of_inner["p"] + self._before.pull_back(p, of_theta + of_inner["theta"])["p"]
            return total

        return u, pull_back

    def require_second_order(self) -> None:
        """Raise a TypeError: it has none."""
        raise TypeError("there are no second derivatives of a steady state: use a method that does not need them.")

    def varying(self, is_free: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Which states depend on those entries of p and theta that vary."""
        before = self._before.varying(is_free)
        u0 = self._u0.varying(is_free, before)
        found = np.full(u0.size, before.any() or u0.any())
        found[self._at] = self._then.varying(is_free, theta)
        return found

    def uses(self, q: int) -> set[int]:
        """Which of q parameters it may depend on."""
        return self._before.uses("p", q) | self._u0.uses("p", q) | self._then.uses("p", q)
