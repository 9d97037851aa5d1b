"""The losses that users know as `adjode.losses`, and what their preparation for many calls takes."""

from adjode.model.losses.event_times import EventTimes
from adjode.model.losses.final_state import FinalState
from adjode.model.losses.least_squares import LeastSquares, PreparedLeastSquares, least_squares_entry, make_least_squares
from adjode.model.losses.linear import PreparedLinear, linear_entry, make_linear
from adjode.model.losses.loss import Loss, loss_for
from adjode.model.losses.observed import PreparedObserved
from adjode.model.losses.prepared import PreparedLoss
from adjode.model.losses.rule import callbacks_of
from adjode.model.losses.series import Series, make_series

ENTRIES = (linear_entry, least_squares_entry)  # those that depend on no callback

__all__ = [
    "ENTRIES",
    "EventTimes",
    "FinalState",
    "LeastSquares",
    "Loss",
    "PreparedLeastSquares",
    "PreparedLinear",
    "PreparedLoss",
    "PreparedObserved",
    "Series",
    "callbacks_of",
    "loss_for",
    "make_least_squares",
    "make_linear",
    "make_series",
]
