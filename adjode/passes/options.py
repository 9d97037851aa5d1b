"""The options of a solve and of a pullback: their defaults and checks, and what a pass is told."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from adjode.checks import choose, float_vector, memory_size, positive, relative_tolerance, tolerance_vector
from adjode.linalg.structure import Structure
from adjode.model.doses import read_doses
from adjode.model.dynamics import Dynamics
from adjode.model.events import read_events
from adjode.passes.base import Limits, Tolerances
from adjode.passes.default_atol import LEAST_SIZE, DefaultAtol, beside_loss
from adjode.tableaus import METHODS, Tableau, tableau

ADJOINTS = ("discrete", "interpolating", "backsolve")
# Where both passes have an option of this name, `value_and_gradient` calls that of the pullback "adjoint_...".
SHARED_NAMES = ("rtol", "atol", "method", "max_steps")
_TYPICAL = 0.5  # of the tolerance, for the error estimate of a step


@dataclass(frozen=True, eq=False)
class SolveOptions:
    """The options of `solve`, which describes them.

    Raises
    ------
    ValueError, TypeError
        For bad values.
    """

    method: str = "Tsit5"
    rtol: float = 1e-6
    atol: Any = None
    first_step: float | None = None
    max_step: float = math.inf
    max_steps: int = 100_000
    step: float | None = None
    max_seconds: float | None = None
    linear_solver: str = "auto"
    stops: Any = ()
    memory: Any = None
    doses: Any = None
    events: Any = None

    def __post_init__(self) -> None:
        chosen = self.tableau
        if self.step is None and not chosen.adaptive:
            adaptive = ", ".join(name for name in METHODS if tableau(name).adaptive)
            raise ValueError(f"{self.method} has no error estimate: give step=, or choose one of {adaptive}.")
        if self.step is not None and chosen.partner is not None:
            raise ValueError(f"method={self.method!r} switches by error control: leave step= out, or name a single method.")
        if not isinstance(self.max_steps, (int, np.integer)) or self.max_steps < 1:
            raise ValueError(f"max_steps must be a positive integer, but {self.max_steps!r} was given.")
        if self.step is not None and self.first_step is not None:
            raise ValueError("first_step has no meaning with fixed steps: give step or first_step, not both.")
        _set(self, "rtol", relative_tolerance("rtol", self.rtol))
        _set(self, "atol", DefaultAtol() if self.atol is None else self.atol)
        for name in ("first_step", "max_step", "step", "max_seconds"):
            if getattr(self, name) is not None:
                _set(self, name, positive(name, getattr(self, name)))
        _set(self, "max_steps", int(self.max_steps))
        _set(self, "memory", None if self.memory is None else memory_size("memory", self.memory))
        stops = float_vector("stops", self.stops)
        _set(self, "stops", np.unique(stops) if stops.size else stops)  # of nothing that would take a while
        _set(self, "doses", read_doses(self.doses))
        _set(self, "events", read_events(self.events))

    @classmethod
    def of(cls, dynamics: Dynamics, t_span: Any, *given: Any, **named: Any) -> SolveOptions:
        """The options of a solve of these dynamics over a span, or several, whose breaks are stops."""
        options = cls(*given, **named)
        guards = [one.switches for one in options.events if one.switches.in_time]
        of_guards = [part for one in guards for part in (one.times, one.stops(t_span))]
        own = np.concatenate([dynamics.breaks, dynamics.switches.stops(t_span), *of_guards])
        if options.stops.size or own.size:  # of nothing this would take a while
            if np.setdiff1d(options.stops, own).size:
                dynamics.switches.trust_stops()
            _set(options, "stops", np.union1d(options.stops, own))
        return options

    @property
    def given(self) -> dict[str, Any]:
        """The same as keywords."""
        return {name: getattr(self, name) for name in SOLVE_NAMES}

    @functools.cached_property
    def tableau(self) -> Tableau:
        return tableau(self.method)

    @property
    def limits(self) -> Limits:
        return Limits(self.max_step, self.max_steps, self.step, self.first_step, self.max_seconds, self.memory)

    @property
    def adaptive(self) -> bool:
        return self.step is None

    def absolute_tolerances(self, n: int) -> np.ndarray:
        """`atol` for each of n components; where it follows the initial state, what it is at most."""
        if isinstance(self.atol, DefaultAtol):
            return self.atol.at_most(self.rtol, n)
        atol = tolerance_vector("atol", self.atol, n)
        if self.adaptive and self.rtol == 0.0 and (atol == 0.0).any():
            raise ValueError("rtol and atol must not both be zero: no step could be accepted.")
        return atol

    def tolerances(self, n: int) -> Tolerances:
        """Of a forward pass over n states."""
        return Tolerances(self.rtol, self.absolute_tolerances(n))

    def step_allowed(self, u: np.ndarray) -> np.ndarray:
        """What tolerances allow at states u (N, n); where absolute ones follow the initial state, those of solves from there."""
        atol = self.atol.at(self.rtol, u) if isinstance(self.atol, DefaultAtol) else self.absolute_tolerances(u.shape[1])
        return atol + (self.rtol or 1e-8) * np.abs(u)

    @property
    def follows_start(self) -> bool:
        """Whether absolute tolerances follow the initial state."""
        return isinstance(self.atol, DefaultAtol) and self.rtol > 0.0

    def at(self, u0: np.ndarray) -> SolveOptions:
        """The same with the absolute tolerances of a solve from u0 (n,)."""
        if not isinstance(self.atol, DefaultAtol):
            return self
        there = object.__new__(SolveOptions)  # as copy.copy does, in a fifth of the time
        vars(there).update(vars(self), atol=self.atol.at(self.rtol, u0))
        return there

    def tightened_atol(self, part: float) -> Any:
        """`atol` times this."""
        return (
            replace(self.atol, most=part * self.atol.most) if isinstance(self.atol, DefaultAtol) else part * np.asarray(self.atol)
        )

    def unit_error(self, n: int) -> float:
        """The relative error that is one unit, `rtol` unless that is 0; 0 for fixed steps, which are not judged."""
        unit = self.rtol or float(np.max(self.absolute_tolerances(n), initial=1e-15))
        return unit if self.adaptive else 0.0

    def state_error(self, n: int) -> float:
        """What the error of a step comes to as a part of the state, if its estimate was half of what was allowed."""
        if not self.adaptive:
            return 0.0
        allowed = Tolerances(self.unit_error(n), np.zeros(n)).of_steps(self.tableau).rtol
        power, factor = self.tableau.step_error
        return float(factor * (_TYPICAL * allowed) ** power)

    def least_sizes(self, n: int) -> np.ndarray:
        """The least size of each state, in whose units its cotangent is measured."""
        return np.maximum(self.absolute_tolerances(n) / self.rtol if self.rtol else np.ones(n), LEAST_SIZE)


@dataclass(frozen=True, eq=False)
class PullbackOptions:
    """The options of `Solution.pullback` that say how it is computed; `adjode.api.pullback.pullback` describes them."""

    adjoint: str = "interpolating"
    quadrature: str = "gauss"
    rtol: float | None = None
    atol: float | None = None
    quadrature_rtol: float | None = None
    quadrature_atol: float | None = None
    error_norm: str = "all"
    method: str | None = None
    max_steps: int | None = None
    max_seconds: float | None = None
    reanchor: bool = False
    on_drift: str = "raise"
    on_inaccurate: str = "refine"
    dense_adjoint: bool = False
    certify: bool = False

    def __post_init__(self) -> None:
        choose("adjoint", self.adjoint, ADJOINTS)
        choose("quadrature", self.quadrature, ("gauss", "augmented"))
        choose("error_norm", self.error_norm, ("all", "lam"))
        choose("on_drift", self.on_drift, ("raise", "warn"))
        choose("on_inaccurate", self.on_inaccurate, ("refine", "raise", "warn"))
        if self.reanchor and self.adjoint != "backsolve":
            raise ValueError("reanchor=True belongs to adjoint='backsolve'.")
        if self.on_inaccurate != "refine" and not (self.discrete or self.certify):
            raise ValueError(f"on_inaccurate={self.on_inaccurate!r} belongs to adjoint='discrete', or to certify=True.")
        for name in _TOLERANCES:
            value = getattr(self, name)
            if value is not None:
                check = relative_tolerance if "rtol" in name else _absolute_tolerance
                _set(self, name, check(name, value))
        if self.discrete:
            self.refuse_if_discrete((*_TOLERANCES, "method", "max_steps", *(("dense_adjoint",) if self.dense_adjoint else ())))

    @property
    def discrete(self) -> bool:
        return self.adjoint == "discrete"

    def refuse_if_discrete(self, names: tuple[str, ...]) -> None:
        """Raise a ValueError if one of these options is given for the discrete adjoint, which has none of them."""
        for name in names:
            if self.discrete and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} belongs to the continuous adjoints, but the discrete one transposes the steps that were taken: "
                    f"leave it out, or choose adjoint='interpolating'."
                )

    def seconds(self, forward: SolveOptions) -> float | None:
        return forward.max_seconds if self.max_seconds is None else positive("max_seconds", self.max_seconds)

    def backward_method(self, forward: SolveOptions) -> Tableau:
        """The method of a continuous adjoint."""
        name = self.method or forward.method
        chosen = tableau(name)
        if forward.adaptive and not chosen.adaptive:
            raise ValueError(f"{name} has no error estimate, so it cannot pull back a solution with error control.")
        if not forward.adaptive and chosen.partner is not None:
            raise ValueError(f"method={name!r} switches by error control, so it cannot pull back fixed steps.")
        if self.adjoint == "backsolve":
            if forward.stops.size:
                raise ValueError(
                    "adjoint='backsolve' does not support stops or breaks of the dynamics: choose adjoint='discrete' or "
                    "'interpolating'."
                )
            if forward.doses or forward.events:
                raise ValueError(
                    "adjoint='backsolve' does not support doses or events: choose adjoint='discrete' or 'interpolating'."
                )
            if forward.memory is not None:
                raise ValueError("adjoint='backsolve' needs the states at all steps: leave memory out, or choose another adjoint.")
            for one in (forward.tableau, chosen):
                _refuse_backsolve(one)
        return chosen

    def for_sweep(self, forward: SolveOptions, atol_u: np.ndarray, structure: Structure | None) -> SweepOptions:
        """What the pass of a continuous adjoint is told: by default rtol of the solve, and absolute tolerances in its scale."""
        if not forward.adaptive and any(getattr(self, name) is not None for name in _TOLERANCES):
            raise ValueError("the solution has fixed steps, and so has its pullback: leave the tolerances out.")
        rtol = forward.rtol if self.rtol is None else self.rtol
        max_steps = forward.max_steps if self.max_steps is None else int(positive("max_steps", self.max_steps))
        q_rtol, q_atol = (rtol if self.quadrature_rtol is None else self.quadrature_rtol), self.quadrature_atol
        q_atol = self.atol if q_atol is None else q_atol
        return SweepOptions(
            asked=self,
            method=self.backward_method(forward),
            structure=structure,
            rtol=rtol,
            atol=self.atol,
            quadrature_rtol=q_rtol,
            quadrature_atol=q_atol,
            u_floor=np.maximum(atol_u / (forward.rtol or 1.0), LEAST_SIZE),
            limits=Limits(forward.max_step, max_steps, forward.step, max_seconds=self.seconds(forward)),
            stops=forward.stops,
            state_error=forward.state_error(atol_u.size),
        )


@dataclass(frozen=True, eq=False)
class SweepOptions:
    """What the pass of a continuous adjoint is told; absolute tolerances that are None follow the size of lam."""

    asked: PullbackOptions
    method: Tableau
    structure: Structure | None
    rtol: float
    atol: float | None
    quadrature_rtol: float
    quadrature_atol: float | None
    u_floor: np.ndarray
    limits: Limits
    stops: np.ndarray
    state_error: float

    @property
    def judged(self) -> bool:
        """Whether the error of the gradient is estimated."""
        return self.limits.step is None and self.rtol > 0.0 and self.asked.adjoint == "interpolating"

    def tolerances(self, atol: np.ndarray) -> Tolerances:
        """With the absolute ones of the state that is integrated, those of lam where they are given."""
        scale, q_scale = (self.rtol or 1.0 if given is None else 0.0 for given in (self.atol, self.quadrature_atol))
        return Tolerances(self.rtol, atol, self.quadrature_rtol, self.quadrature_atol or 0.0, scale, q_scale)


_TOLERANCES = ("rtol", "atol", "quadrature_rtol", "quadrature_atol")
SOLVE_NAMES = tuple(field.name for field in fields(SolveOptions))
PULLBACK_NAMES = tuple(field.name for field in fields(PullbackOptions))


def rows_at_most(options: Mapping[str, Any], loss: Any, n: int) -> np.ndarray:
    """ATOL_AT_MOST of the members of an ensemble: (N, n) if each has data of its own, else (1, n); no columns if atol is given."""
    given = {name: options[name] for name in ("rtol", "atol") if name in options}
    one = SolveOptions(**beside_loss(given, loss))
    rows = np.atleast_2d(one.absolute_tolerances(n)) if one.follows_start else np.zeros((1, 0))
    return np.broadcast_to(rows, (getattr(loss, "members", None) or 1, rows.shape[1])).copy()


def _set(options: Any, name: str, value: Any) -> None:
    object.__setattr__(options, name, value)


def _absolute_tolerance(name: str, value: Any) -> float:
    return positive(name, value, allow_zero=True)


def _refuse_backsolve(method: Tableau) -> None:
    if method.implicit:
        raise ValueError(
            f"adjoint='backsolve' with {method.name} would integrate the state of a stiff problem back in time, where everything "
            "that the flow has contracted grows again: choose adjoint='discrete' or 'interpolating'."
        )
