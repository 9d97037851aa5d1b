"""What a loss is, and what it sees."""

from __future__ import annotations

import copy
from typing import Any, Protocol, Self

import numpy as np

from adjode.model.fields import Fields, component, entry_name


class States(Protocol):
    """What the losses of this package read of a `Solution`."""

    @property
    def u(self) -> np.ndarray:
        """The states at the ends of all steps, (k, n)."""
        ...

    def __call__(self, t: Any) -> np.ndarray:
        """The states at times inside the span, (k, n)."""
        ...


class Loss(Protocol):
    """A loss sees a `Solution`; what it returns is its value and keyword arguments of `Solution.pullback`."""

    def value_and_cotangents(self, solution: Any) -> tuple[float, dict[str, Any]]: ...


class OfStates:
    """A loss that may know what the states are called.

    Attributes
    ----------
    states : Fields or None
    """

    states: Fields | None = None

    def of_states(self, states: Fields | None) -> Self:
        """The same loss, of states with these names."""
        if states == self.states:
            return self
        other = copy.copy(self)
        other.states = states
        return other


def loss_for(states: Fields | None, loss: Any) -> Any:
    """A loss, which is told the names of the states if it wants to know them."""
    return loss.of_states(states) if isinstance(loss, OfStates) else loss


def blamed(loss: Any, k: int) -> dict[str, Any]:
    """What a `SolveError` says of state k, and what messages call it."""
    states = getattr(loss, "states", None)
    return {"component": component(states, k), "name": entry_name("u", states, k)}
