"""Where rules are compared: at the point given, along a trajectory, and around the point, where what is special about it is gone.

A wrong index does not show where two entries are equal, nor a missing term where a state is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.checks import float_vector, require_finite, require_unmasked
from adjode.model.trial import PLACES, Trial, walk

_TIMES = 8  # of a trajectory that is given
_RANDOM = 3  # points around that given
_WALK = 8  # every which of the states of a walk
_MANY = 300  # states and parameters beyond which there are fewer
_LARGEST = 1e150  # of f


@dataclass(frozen=True, eq=False)
class Place:
    t: float
    u: np.ndarray
    theta: np.ndarray


def around(f: Trial, start: Place) -> tuple[list[Place], int]:
    """Places at random around `start`, in the scale of each entry, and along a short way from it; how many f is not defined at."""
    t, rng, span = start.t, np.random.default_rng(11), _shortest_time(f, start)
    places = []
    for _ in range(_RANDOM):
        u, theta = (_size_of(a) * np.exp(rng.uniform(-0.5, 0.5, a.size)) for a in (start.u, start.theta))
        places.append(Place(t + span * rng.uniform(), u, theta))
    way = walk(f, t, t + span, start.u, start.theta)
    places += [Place(t, u, start.theta) for k, (t, u) in enumerate(way, start=1) if k % _WALK == 0]
    planned = _RANDOM + PLACES // _WALK
    if start.u.size + start.theta.size > _MANY:
        places, planned = [places[0], *places[_RANDOM:][-1:]], 2
    defined = [place for place in places if _is_defined(f, place)]
    return defined, planned - len(defined)


def _size_of(values: np.ndarray) -> np.ndarray:
    """The values, and in place of zeros the geometric mean of the others, or 1."""
    nonzero = np.abs(values[values != 0.0])
    typical = float(np.exp(np.mean(np.log(nonzero)))) if nonzero.size else 1.0
    return np.where(values == 0.0, typical, values)


def _shortest_time(f: Trial, start: Place) -> float:
    """In which a state would change by about its own size; 1 at rest."""
    slope = f.slope(start.t, start.u, start.theta)
    fastest = 0.0 if slope is None else float(np.max(np.abs(slope / _size_of(start.u))))
    return 1.0 / fastest if fastest > 0.0 and np.isfinite(1.0 / fastest) else 1.0


def _is_defined(f: Trial, place: Place) -> bool:
    where = place.t, place.u, place.theta
    if not all(np.isfinite(part).all() for part in where):
        return False
    slip = f.slip(*where)
    if slip is not None and slip.trespasses:
        return False
    slope = f.slope(*where)
    return slope is not None and bool((np.abs(slope) < _LARGEST).all())


def sample(trajectory: Any, start: Place) -> list[Place]:
    n, theta = start.u.size, start.theta
    if hasattr(trajectory, "theta"):  # a Solution
        times, states, theta = trajectory.t, trajectory.u, trajectory.theta
        if theta.size != start.theta.size:
            raise ValueError(f"trajectory must have {start.theta.size} parameters, as theta does, but it has {theta.size}.")
    else:
        times, states = _read_pair(trajectory)
    if n == 1 and states.ndim == 1:
        states = states[:, None]
    if states.shape != (times.size, n):
        raise ValueError(f"the states of trajectory must have shape ({times.size}, {n}), but their shape is {states.shape}.")
    chosen = np.unique(np.linspace(0, times.size - 1, _TIMES).round().astype(int))
    points = [Place(float(times[k]), np.array(states[k], dtype=float), theta) for k in chosen]
    return [p for p in points if p.t != start.t or (p.u != start.u).any() or (theta != start.theta).any()]


def _read_pair(trajectory: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        times, states = trajectory
    except (TypeError, ValueError):
        kind = type(trajectory).__name__
        raise TypeError(f"trajectory must be an adjode.Solution or a pair (times, states), but a {kind} was given.") from None
    require_unmasked("the states of trajectory", states)
    times, states = float_vector("the times of trajectory", times), np.asarray(states)
    if times.size == 0:
        raise ValueError("trajectory must hold at least one time, but it is empty.")
    if states.dtype.kind not in "fiub":
        raise TypeError(f"the states of trajectory must be real numbers, but their dtype is {states.dtype}.")
    require_finite("the states of trajectory", states)
    return times, states
