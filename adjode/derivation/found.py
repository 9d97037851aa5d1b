"""What is found of when a function switches, and of where it compares the state."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, field, replace

from adjode.derivation.timing import STATE, TIME, Linear, Other, Value, combined, depends, entries_of
from adjode.derivation.zeros import Times, cuts_of, zeros_of
from adjode.tables import Table

Place = tuple[str, int, int]  # a file, and line and column in it


@dataclass(frozen=True)
class Switch:
    """f switches at the time `at`, in which there is no t: once, or again and again where there is a period.

    At a kink it does not jump, but its slope does; of a table is what its breaks make.
    """

    at: Linear
    period: float
    line: str
    kink: bool = False
    of_table: bool = False


@dataclass
class Found:
    """The switches of a source, the lines that switch at times that cannot be told from it, the tables that it calls, and where it
    compares what depends on the state.
    """

    switches: dict[tuple[Linear, float], Switch] = field(default_factory=dict)
    unread: dict[str, None] = field(default_factory=dict)
    tables: dict[Table, None] = field(default_factory=dict)
    of_state: set[Place] = field(default_factory=set)

    def add(self, times: Times | None, line: str, kink: bool = False, of_table: bool = False) -> None:
        if times is None and (of_table or not kink):
            self.unread[line] = None
        for at, period in times or ():
            known = self.switches.get((at, period), Switch(at, period, line, kink, of_table))
            if math.isfinite(at.number):
                one = replace(known, kink=known.kink and kink, of_table=known.of_table or of_table)
                self.switches[at, period] = one


@dataclass
class Line:
    """Notes of what happens in a line."""

    found: Found
    line: str
    place: Place | None = None

    def compared(self, one: Value, two: Value, kink: bool = False) -> None:
        """A comparison, which changes where both are the same."""
        on = depends((one, two))
        if STATE in on and self.place is not None:
            self.found.of_state.add(self.place)
        if STATE in on or TIME not in on:
            return
        for part in entries_of(combined(ast.Sub(), one, two)):
            self.found.add(zeros_of(part), self.line, kink)

    def cut(self, value: Value, period: Value) -> None:
        """A division of which the whole part, or the rest, is taken."""
        if STATE in depends(value) and self.place is not None:
            self.found.of_state.add(self.place)
        for part in entries_of(value):
            self.found.add(cuts_of(part, period), self.line)

    def looked_up(self, table: Table, value: Value) -> None:
        """A call of a table."""
        self.found.tables[table] = None
        if TIME in (on := depends(value)):
            for part in table.breaks:
                distance = Other(on) if STATE in on else combined(ast.Sub(), value, Linear(number=float(part)))
                times = cuts_of(distance, Linear(number=table.period)) if table.period else zeros_of(distance)
                self.found.add(None if STATE in on else times, self.line, table.kind != "previous", of_table=True)
