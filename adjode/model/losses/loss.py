"""What a loss is, and what it sees."""

from __future__ import annotations

import copy
from typing import Any, Protocol, Self

import numpy as np

from adjode.model.fields import Pair, component, entry_name


class States(Protocol):
    """What the losses of this package read of a `Solution`."""

    @property
    def theta(self) -> np.ndarray:
        """The parameters, flat."""
        ...

    @property
    def t(self) -> np.ndarray:
        """The times of all steps and of the end, (k,)."""
        ...

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


class OfFields:
    """A loss that may know what the states and parameters are called.

    Attributes
    ----------
    fields : pair of Fields or None
    """

    fields: Pair = (None, None)
    is_sum_of_squares: bool = False  # half of that, of the `residuals` that it has where it is prepared

    def of_fields(self, fields: Pair) -> Self:
        """The same loss, of states and parameters with these names."""
        if fields == self.fields:
            return self
        other = copy.copy(self)
        other.fields = fields
        return other


def loss_for(fields: Pair, loss: Any) -> Any:
    """A loss, which is told the names of states and parameters if it wants to know them; a TypeError for what is none."""
    if isinstance(loss, type):
        raise TypeError(f"loss must be an object, such as {loss.__name__}(...), but the class itself was given.")
    if not hasattr(loss, "value_and_cotangents"):
        raise TypeError(
            f"loss must be one of adjode.losses or have a method value_and_cotangents(solution), but a {type(loss).__name__} was "
            "given: for a function of the final state use FinalState(value=...), for one of the states at given times "
            "Series(times, value=...)."
        )
    return loss.of_fields(fields) if isinstance(loss, OfFields) else loss


def loss_at(solution: Any, loss: Any) -> Any:
    """The same for those of a solution, where it has any."""
    return loss_for(getattr(getattr(solution, "dynamics", None), "fields", (None, None)), loss)


def blamed(loss: Any, k: int) -> dict[str, Any]:
    """What a `SolveError` says of state k, and what messages call it."""
    states = loss.fields[0] if isinstance(loss, OfFields) else None
    return {"component": component(states, k), "name": entry_name("u", states, k)}
