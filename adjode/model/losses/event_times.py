"""`EventTimes`: when an event happens, compared with when it was seen to."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.status import SolveError, Status


class EventTimes:
    """`1/2 sum over k of ((tau_k - times[k]) / sigma[k])^2`, where tau_k is the time of occurrence k of an event.

    Parameters
    ----------
    times : (k,) array
        Of the first k occurrences, in the order of integration; NaN where one was not seen. There may be more.
    event : int or str
        Which of `events=` it is: its index, or its name.
    sigma : float or (k,) array
        Standard deviations.
    beside : loss, optional
        Another loss of the same solution, which is added.

    Notes
    -----
    How often an event happens is no smooth function of the parameters: fewer occurrences than times are a `SolveError`, which an
    optimiser may take for a bad trial point.
    """

    def __init__(self, times: Any, event: int | str = 0, *, sigma: Any = 1.0, beside: Any = None):
        self.times, self.event, self.beside = np.array(times, dtype=float, ndmin=1), event, beside
        if self.times.ndim != 1 or np.isinf(self.times).any():
            raise ValueError(f"times of events must be a vector of numbers or NaN, but {times!r} was given.")
        self.sigma = np.broadcast_to(np.asarray(sigma, dtype=float), self.times.shape)
        if not (self.sigma > 0.0).all():
            raise ValueError(f"sigma of times of events must be positive, but {sigma!r} was given.")
        seen = np.flatnonzero(~np.isnan(self.times))
        self._least = int(seen[-1]) + 1 if seen.size else 0

    @property
    def t_obs(self) -> Any:
        """Where the other loss observes."""
        return getattr(self.beside, "t_obs", ())

    def value_and_cotangents(self, solution: Any) -> tuple[float, dict[str, Any]]:
        i = self._index(solution)
        occurred, many = solution.t_events[i], self.times.size
        if occurred.size < self._least:
            name, end = solution.options.events[i].name, float(solution.t[-1])
            message = f"{name} has happened {occurred.size} times up to t = {end:g}, but it was seen {self._least} times."
            raise SolveError(message, phase="loss", status=Status.NON_FINITE, t=end)
        residuals = np.zeros(occurred.size)
        many = min(many, occurred.size)
        residuals[:many] = np.nan_to_num((occurred[:many] - self.times[:many]) / self.sigma[:many])
        bars = [np.zeros(times.size) for times in solution.t_events]
        bars[i][:many] = residuals[:many] / self.sigma[:many]
        value, seeds = (0.0, {}) if self.beside is None else self.beside.value_and_cotangents(solution)
        return value + 0.5 * float(residuals @ residuals), {**seeds, "event_times": bars}

    def _index(self, solution: Any) -> int:
        events = solution.options.events
        found = [k for k, one in enumerate(events) if self.event in (k, one.name)]
        if len(found) != 1:
            known = ", ".join(one.name for one in events) or "none"
            raise ValueError(f"EventTimes compares with times of event {self.event!r}, but events= has {known}.")
        return found[0]
