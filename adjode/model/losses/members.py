"""`MemberData`: losses whose data may differ between the members of an ensemble."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from adjode.model.losses.loss import OfFields


class MemberData(OfFields):
    """Data of a loss that may differ between the members of an ensemble: the arrays `by_member` have an axis of length N in front.

    Attributes
    ----------
    members : int or None
        N; None if all members share the data.
    """

    members: int | None = None
    by_member: tuple[str, ...] = ()

    def member(self, i: int) -> Any:
        """The loss of member i."""
        return self._part(i, None, ())

    def part(self, first: int, stop: int) -> Any:
        """The loss of the members first..stop-1."""
        return self._part(slice(first, stop), stop - first, self.by_member)

    def _part(self, which: Any, members: int | None, by_member: tuple[str, ...]) -> Any:
        if self.members is None:
            return self
        part = copy.copy(self)
        part.members, part.by_member = members, by_member
        for name in self.by_member:
            setattr(part, name, np.ascontiguousarray(getattr(self, name)[which]))
        return part

    def _require_one(self) -> None:
        if self.members is not None:
            raise ValueError(
                f"this {type(self).__name__} has data for each of {self.members} members of an ensemble: give it to "
                "ensemble_value_and_gradient, or use the loss of one of them, member(i)."
            )
