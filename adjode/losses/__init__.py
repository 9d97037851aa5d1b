"""Losses: scalar functions of a trajectory that know their own cotangents.

A loss is any object with `value_and_cotangents(solution) -> (value, seeds)`, where `seeds` are keyword arguments of
`Solution.pullback`: `u_T_bar` or `observations`. The losses of this package can also be prepared for many calls, which is how
`value_and_gradient` runs them without a `Solution` in between; other objects take the long way.
"""

from adjode.losses.final_state import FinalState
from adjode.losses.least_squares import LeastSquares, least_squares_entry, make_least_squares
from adjode.losses.linear import PreparedLinear, linear_entry, make_linear
from adjode.losses.loss import Loss
from adjode.losses.prepared import PreparedLoss
from adjode.losses.series import Series, make_series

ENTRIES = (linear_entry, least_squares_entry)  # those that depend on no callback

__all__ = [
    "ENTRIES",
    "FinalState",
    "LeastSquares",
    "Loss",
    "PreparedLinear",
    "PreparedLoss",
    "Series",
    "make_least_squares",
    "make_linear",
    "make_series",
]
