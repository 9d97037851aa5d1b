"""`EventTimes`: when an event happens, compared with when it was seen to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from adjode.model.fields import Pair
from adjode.model.losses.loss import loss_for
from adjode.model.losses.members import MemberData
from adjode.model.losses.prepared import PreparedLoss
from adjode.model.losses.prepared_event_times import PreparedEventTimes
from adjode.status import SolveError, Status


class EventTimes(MemberData):
    """`1/2 sum over k of ((tau_k - times[k]) / sigma[k])^2`, where tau_k is the time of the k-th occurrence of an event.

    Parameters
    ----------
    times : (k,) array
        The times of the first k occurrences, in the order of integration; NaN for one that was not observed. There may be more
        occurrences. Or (N, k), a row for each member of an ensemble.
    event : int or str
        Which of the `events=` it is: its index or name.
    sigma : float or (k,) array
        Standard deviations.
    beside : loss, optional
        Another loss of the same solution, to be added.

    Notes
    -----
    The number of occurrences of an event is not a smooth function of the parameters. Fewer occurrences than times raise a
    `SolveError`, which an optimiser may treat as a bad trial point.
    """

    def __init__(self, times: Any, event: int | str = 0, *, sigma: Any = 1.0, beside: Any = None):
        self.times, self.event, self.beside = np.array(times, dtype=float, ndmin=1), event, beside
        if self.times.ndim > 2 or np.isinf(self.times).any():
            raise ValueError(
                f"times of events must be a vector of numbers or NaN, or a row for each member of an ensemble, but {times!r} was "
                f"given."
            )
        if self.times.ndim == 2:
            self.members, self.by_member = len(self.times), ("times",)
        if getattr(beside, "members", None) is not None:
            raise ValueError("the loss beside EventTimes has data for each member of an ensemble: give it data that all share.")
        self.sigma = np.broadcast_to(np.asarray(sigma, dtype=float), self.times.shape[-1:]).copy()
        if not (self.sigma > 0.0).all():
            raise ValueError(f"sigma of times of events must be positive, but {sigma!r} was given.")

    @property
    def t_obs(self) -> Any:
        """Where the other loss observes."""
        return getattr(self.beside, "t_obs", np.zeros(0))

    def of_fields(self, fields: Pair) -> Self:
        other = super().of_fields(fields)
        if other is not self and self.beside is not None:
            other.beside = loss_for(fields, self.beside)
        return other

    def index_in(self, events: Sequence[Any]) -> int:
        """Which of these events it is."""
        found = [k for k, one in enumerate(events) if self.event in (k, one.name)]
        if len(found) != 1:
            known = ", ".join(one.name for one in events) or "none"
            raise ValueError(f"EventTimes compares with times of event {self.event!r}, but events= has {known}.")
        return found[0]

    def prepare(self, n: int, T: float) -> PreparedLoss:
        self._require_one()
        return PreparedEventTimes(self, n, T, None if self.beside is None else self.beside.prepare(n, T))

    def value_and_cotangents(self, solution: Any) -> tuple[float, dict[str, Any]]:
        self._require_one()
        i = self.index_in(solution.options.events)
        occurred, seen = solution.t_events[i], np.flatnonzero(~np.isnan(self.times))
        least = int(seen[-1]) + 1 if seen.size else 0
        if occurred.size < least:
            name, end = solution.options.events[i].name, float(solution.t[-1])
            message = f"{name} happened {occurred.size} times up to t = {end:g}, but was observed {least} times."
            raise SolveError(message, phase="loss", status=Status.NON_FINITE, t=end)
        residuals = np.zeros(occurred.size)
        many = min(self.times.size, occurred.size)
        residuals[:many] = np.nan_to_num((occurred[:many] - self.times[:many]) / self.sigma[:many])
        bars = [np.zeros(times.size) for times in solution.t_events]
        bars[i][:many] = residuals[:many] / self.sigma[:many]
        value, seeds = (0.0, {}) if self.beside is None else self.beside.value_and_cotangents(solution)
        return value + 0.5 * float(residuals @ residuals), {**seeds, "event_times": bars}
