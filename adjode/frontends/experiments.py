"""`Experiment` and `Experiments`: losses of several solves as one function of parameters that they share."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Unpack

import numpy as np

from adjode.api.gradient import readers_of
from adjode.api.keywords import FitKeywords
from adjode.api.solution import Solution
from adjode.backends.executor import Part, packed, run_part
from adjode.backends.threads import count_workers
from adjode.checks import choose, time_span
from adjode.compile.cancellation import Cancellation
from adjode.derivation.origins import remember, texts_of
from adjode.frontends.evaluation import Evaluation
from adjode.frontends.mapping import Block
from adjode.frontends.start import Given, Rested, SteadyState, curved
from adjode.model.dynamics import Dynamics
from adjode.model.fields import Fields
from adjode.model.losses import LeastSquares, Likelihood, Loss, loss_for
from adjode.status import SolveError

_OF_REST = ("method", "rtol", "atol", "max_steps", "max_step", "max_seconds", "linear_solver")  # options of finding a steady state


class Experiment:
    """A loss along one solve, whose parameters may be shared with other experiments; see `Fit`.

    Parameters
    ----------
    dynamics : Dynamics
    loss : any loss that `value_and_gradient` takes
    t_span : (t0, T)
    u0, theta : dict, vector or function
        Numbers, names of parameters of the fit, and functions: `u0={"gut": "dose", "blood": 0.0}`. A function reads the parameters
        as `p`, and one in u0 may also read `theta`, the parameters of this experiment. The names of its arguments say which, as in
        `def start(p): return p.total / 2`. A function for a whole block returns the vector, or overwrites one further argument. Its
        derivatives come from its source.
    start : {"u0", "steady_state"} or SteadyState
        "steady_state": the system comes to rest from u0 first; a `SteadyState` says what was different during that time.
    name : str, optional
        Used in messages and results.
    **options
        Options of `value_and_gradient` for this experiment alone: `doses`, `events`, `rtol`, ...

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        loss: Loss,
        t_span: tuple[float, float],
        *,
        u0: Any,
        theta: Any = (),
        start: str | SteadyState = "u0",
        name: str | None = None,
        **options: Unpack[FitKeywords],
    ):
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be an adjode.Dynamics(f, vjp), but a {type(dynamics).__name__} was given.")
        loss_for(dynamics.fields, loss)  # which says what is none
        if isinstance(loss, (LeastSquares, Likelihood)) and loss.missing.all():
            raise ValueError(
                f"{'an experiment' if name is None else repr(name)} has no data, or they are all missing: leave it out."
            )
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string, but {name!r} was given.")
        self.start = start if isinstance(start, SteadyState) else None
        if self.start is None and choose("start", start, ("u0", "steady_state")) == "steady_state":
            self.start = SteadyState()
        self.dynamics, self.loss, self.t_span = dynamics, loss, time_span(t_span)
        self.u0, self.theta, self.name, self.options = u0, theta, name, dict(options)

    def __getstate__(self) -> dict[str, Any]:
        """With the text of its functions, which travel without their files."""
        rest = [] if self.start is None else [self.start.theta, self.start.then]
        return {**self.__dict__, "sources": texts_of(*_functions([self.u0, self.theta, *rest]))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        remember(state.pop("sources"))
        self.__dict__.update(state)

    def __repr__(self) -> str:
        t0, T = self.t_span
        return f"Experiment({self.name!r}: {self.dynamics.name} by {type(self.loss).__name__}, t = {t0:g} .. {T:g})"


def _functions(given: Any) -> list[Callable]:
    if isinstance(given, Mapping):
        return [one for value in given.values() for one in _functions(value)]
    if isinstance(given, (list, tuple)):
        return [one for value in given for one in _functions(value)]
    return [given] if callable(given) else []


class Experiments(Sequence[Experiment]):
    """Experiments whose losses are added up. They share the parameters of a fit by name.

    Parameters
    ----------
    experiments : sequence of Experiment
        Those without a name are called "experiment 1", "experiment 2", ..., by position.

    Raises
    ------
    ValueError, TypeError
        If there are none, or two have the same name.
    """

    def __init__(self, experiments: Sequence[Experiment]):
        self._experiments = list(experiments)
        for one in self._experiments:
            if not isinstance(one, Experiment):
                raise TypeError(f"experiments must be adjode.Experiment objects, but a {type(one).__name__} is among them.")
        if not self._experiments:
            raise ValueError("there are no experiments.")
        self.names = [one.name or f"experiment {k}" for k, one in enumerate(self._experiments, 1)]
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"experiments must have different names, but more than one is called {min(twice)!r}.")

    def __getitem__(self, which: Any) -> Any:
        """By number or by name."""
        return self._experiments[self.index_of(which) if isinstance(which, str) else which]

    def __len__(self) -> int:
        return len(self._experiments)

    def __iter__(self) -> Iterator[Experiment]:
        return iter(self._experiments)

    def index_of(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"the experiments are called {', '.join(map(repr, self.names))}, but {name!r} was asked for.")
        return self.names.index(name)

    def __repr__(self) -> str:
        return f"Experiments of {len(self)}: {', '.join(self.names[:8])}{', ...' if len(self) > 8 else ''}"


class Bound:
    """One experiment as a function of the parameters of a fit, p.

    Parameters
    ----------
    experiment, name
    parameters : Fields
        Their names.
    start : (q,) array
        Their values at the start, where sizes are found out.
    is_free : (q,) array of bool
        By which of them derivatives are wanted.
    options : dict
        Those of `value_and_gradient`, where the experiment has none of its own.

    Attributes
    ----------
    used : set of int
        The parameters it may depend on.
    """

    def __init__(
        self,
        experiment: Experiment,
        name: str,
        parameters: Fields,
        start: np.ndarray,
        is_free: np.ndarray,
        options: dict[str, Any],
    ):
        self._given = experiment, name, parameters, start, is_free, options
        self.name, dynamics = name, experiment.dynamics
        with _named(name):
            self._theta = Block("theta", experiment.theta, dynamics.parameters, parameters)
            theta = self._theta({"p": start})
            assert self._theta.layout is not None
            u0 = Block("u0", experiment.u0, dynamics.states, parameters, self._theta.layout.fields)
            values = np.concatenate([u0({"p": start, "theta": theta}), theta])
            assert u0.layout is not None
            layouts = u0.layout, self._theta.layout
            options = {**options, **experiment.options}
            self._start: Given | Rested = Given(u0)
            if experiment.start is not None:
                own = {name: value for name, value in options.items() if name in _OF_REST}
                rest = dynamics, experiment.start, u0, experiment.theta, parameters, start, experiment.t_span[0], own
                self._start = Rested(*rest)
            jumps = options.get("doses") or options.get("events")
            readers = None if jumps else readers_of(dynamics, experiment.loss, options.get("running_cost"))
            dynamics.require_order(*layouts, readers=readers)
            self._varies = self._varying(is_free, layouts[1].size)
            self.evaluation = Evaluation(dynamics, experiment.loss, experiment.t_span, layouts, self._varies, options)
            self.evaluation.require_fitting(values)
        self._constant: np.ndarray | None = None  # the derivatives of z by p, where these are always the same

    def __reduce__(self):
        return Bound, self._given

    def _varying(self, is_free: np.ndarray, m: int) -> np.ndarray:
        """Which entries of u0 and theta depend on free parameters."""
        theta = self._theta.varying(is_free)
        return np.concatenate([self._start.varying(is_free, theta), theta])

    @property
    def used(self) -> set[int]:
        """Which parameters it may depend on."""
        q = self._given[3].size
        return self._theta.uses("p", q) | self._start.uses(q)

    def at(self, p: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """z: u0 and theta, one behind the other, (n + m,); and its pullback to p."""
        theta = self._theta({"p": p})
        u0, pull_back = self._start({"p": p, "theta": theta})

        def pull_back_both(z_bar: np.ndarray) -> np.ndarray:
            bars = pull_back(z_bar[: u0.size])
            return bars["p"] + self._theta.pull_back({"p": p}, z_bar[u0.size :] + bars["theta"])["p"]

        return np.concatenate([u0, theta]), pull_back_both

    def value_and_gradient(self, p: np.ndarray) -> tuple[float, np.ndarray]:
        with _named(self.name):
            z, pull_back = self.at(p)
            value, z_bar = self.evaluation.value_and_gradient(z)
            return value, pull_back(z_bar)

    def residuals_and_jacobian(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The residuals (N,), and their derivatives (N, q) by p."""
        with _named(self.name):
            z, pull_back = self.at(p)
            r, J = self.evaluation.residuals_and_jacobian(z)
            return r, J @ self._derivatives(pull_back, z.size, p.size)[self._varies]

    @property
    def _is_linear(self) -> bool:
        """Whether z is a linear function of p."""
        return self._start.is_linear and not self._theta.has_functions

    def require_second_order(self) -> None:
        """Raise a TypeError or ValueError if there are no second derivatives."""
        with _named(self.name):
            self._require_twice()
            self.evaluation.require_second_order()

    def _require_twice(self) -> None:
        """Raise a TypeError if z cannot be differentiated twice."""
        self._start.require_second_order()
        self._theta.require_second_order()

    def hessian_products(self, p: np.ndarray, p_dots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradient (q,) by p, and the products of the Hessian with directions of p (d, q), in rows."""
        with _named(self.name):
            self._require_twice()
            z, pull_back = self.at(p)
            of_p = self._derivatives(pull_back, z.size, p.size)
            gradient, products = self.evaluation.hessian_products(z, p_dots @ of_p.T)
            products = products @ of_p
            if not self._is_linear:
                products += [curved(self._start, self._theta, p, gradient, p_dot, of_p @ p_dot) for p_dot in p_dots]
            return gradient @ of_p, products

    def _derivatives(self, pull_back: Callable[[np.ndarray], np.ndarray], size: int, q: int) -> np.ndarray:
        """Of z by p, (n + m, q); zero in entries that do not vary with free parameters."""
        if self._constant is not None:
            return self._constant
        found = np.zeros((size, q))
        for k in np.flatnonzero(self._varies):
            unit = np.zeros(size)
            unit[k] = 1.0
            found[k] = pull_back(unit)
        if self._is_linear:
            self._constant = found
        return found

    def solve(self, p: np.ndarray) -> Solution:
        with _named(self.name):
            return self.evaluation.solve(self.at(p)[0])

    def push(self, p: np.ndarray, directions: np.ndarray, times: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times (c,), the states there (c, n), and their derivatives (c, n, k) along directions of p (q, k)."""
        with _named(self.name):
            z, pull_back = self.at(p)
            return self.evaluation.push(z, self._derivatives(pull_back, z.size, p.size) @ directions, times)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors raised inside tell the experiment's name."""
    try:
        yield
    except (SolveError, ValueError, TypeError) as error:
        if error.args:
            error.args = (f"in {name!r}: {error.args[0]}", *error.args[1:])
        raise


class Together:
    """All experiments of a fit, one beside the other on threads, or on the workers of an executor; sums are taken in their order.

    Parameters
    ----------
    bound : list of Bound
    workers : int, optional
        Number of threads: by default one for each processor.
    executor : optional
        Anything with `submit(function, *arguments)`, in place of threads.
    """

    def __init__(self, bound: list[Bound], workers: int | None, executor: Any):
        if executor is not None and workers is not None:
            raise ValueError("give either workers, a number of threads, or an executor.")
        self.bound, self._executor, self._given_workers = bound, executor, workers
        self._workers = min(count_workers(workers), len(bound))
        self._prepared: set[str] = set()  # the first calls of each kind compile, one after the other

    def value_and_gradient(self, p: np.ndarray) -> tuple[float, np.ndarray]:
        total, gradient = 0.0, np.zeros(p.size)
        for value, part in self._map("value_and_gradient", p):
            total += value
            gradient += part
        return total, gradient

    def hessian_products(self, p: np.ndarray, p_dots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient, products = np.zeros(p.size), np.zeros_like(p_dots)
        for part, rows in self._map("hessian_products", p, p_dots):
            gradient += part
            products += rows
        return gradient, products

    def residuals_and_jacobian(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = self._map("residuals_and_jacobian", p)
        return np.concatenate([r for r, _ in parts]), np.concatenate([J for _, J in parts])

    def _map(self, what: str, *given: np.ndarray) -> list[Any]:
        """What this method of each gives, in their order; the first failure in that order, if there are any."""
        if self._executor is None and (self._workers == 1 or what not in self._prepared):
            found = [getattr(one, what)(*given) for one in self.bound]
            self._prepared.add(what)
            return found
        with Cancellation() as cancellation:
            if self._executor is not None:
                parts = [Part(k, k + 1, given, {"which": k, "what": what}) for k in range(len(self.bound))]
                futures = [self._executor.submit(_run, self._problem, part) for part in parts]
            else:
                futures = [self._pool.submit(cancellation(getattr(one, what)), *given) for one in self.bound]
            try:
                return [future.result() for future in futures]
            finally:
                running = [future for future in futures if not (future.cancel() or future.done())]
                if running and self._executor is None:  # after a failure or Ctrl-C: the next call does not wait for what ends there
                    vars(self).pop("_pool", None)

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._workers, thread_name_prefix="adjode")

    @functools.cached_property
    def _problem(self) -> bytes:
        return packed(_At, (self.bound,), {})

    def __reduce__(self):
        return Together, (self.bound, self._given_workers, None)


_first = threading.RLock()  # CPython's parser, which first calls use, takes one thread at a time: python/cpython#106905


class _At:
    """What a worker keeps."""

    def __init__(self, bound: list[Bound]):
        self._bound, self._ready = bound, set[tuple[int, str]]()

    def __call__(self, *given: np.ndarray, which: int, what: str) -> Any:
        evaluate = getattr(self._bound[which], what)
        if (which, what) in self._ready:
            return evaluate(*given)
        with _first:
            result = evaluate(*given)
            self._ready.add((which, what))
            return result


def _run(problem: bytes, part: Part) -> Any:
    kind, found = run_part(problem, part, 1)
    if kind == "failed":
        raise found
    return found
