"""Which measurements are one experiment, and what its inputs are."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from adjode.petab.formulas import evaluate, name, names, safe, substitute
from adjode.petab.sbml import Model
from adjode.petab.tables import MeasurementRow, ObservableRow, Tables
from adjode.petab.writing import INITIAL, Source

_PLACEHOLDER = re.compile(r"(observable|noise)Parameter(\d+)_(.+)")


@dataclass(frozen=True)
class Channel:
    """An observable with some overrides of its parameters: a number that is observed, and the size of its noise."""

    observable: ObservableRow
    variant: int

    def named(self, placeholder: str) -> str:
        """The input that a placeholder is."""
        return placeholder if self.variant == 0 else f"{placeholder}__{self.variant + 1}"

    def expression(self, formula: ast.expr) -> ast.expr:
        def meaning(identifier: str) -> ast.expr | None:
            return name(self.named(identifier)) if is_placeholder(identifier, self.observable.name) else None

        return substitute(formula, meaning)

    @property
    def placeholders(self) -> list[str]:
        found = {**names(self.observable.formula), **names(self.observable.noise)}
        return [identifier for identifier in found if is_placeholder(identifier, self.observable.name)]


def is_placeholder(identifier: str, observable: str) -> bool:
    match = _PLACEHOLDER.fullmatch(identifier)
    return match is not None and match[3] == observable


@dataclass(frozen=True)
class Scenario:
    """What was measured under one condition, perhaps after a steady state under another.

    Attributes
    ----------
    name : str
    theta : dict of input -> float or name of an estimated parameter
    before : dict or None
        The inputs of the steady state that it starts from.
    then : dict of state -> float or name
        What is set anew behind that steady state.
    at_rest : bool
        Whether it is the steady state itself that is observed, at an infinite time.
    times : (k,) array
    data : (k, c) array
        Not a number where nothing was measured.
    """

    name: str
    theta: dict[str, float | str]
    before: dict[str, float | str] | None
    then: dict[str, float | str]
    at_rest: bool
    times: np.ndarray
    data: np.ndarray

    @property
    def end(self) -> float:
        """Where the solve ends."""
        return 1.0 if self.at_rest else float(self.times.max()) or 1.0


class Design:
    """All scenarios of a problem: they share `inputs` and `channels`.

    Parameters
    ----------
    tables : Tables
    model : Model

    Raises
    ------
    ValueError
        If the tables do not fit together or to the model.
    """

    def __init__(self, tables: Tables, model: Model):
        self.tables, self.model = tables, model
        self._parameters = {safe(row): row for row in tables.parameters}  # by their names in formulas
        groups: dict[tuple[str | None, str, bool], list[MeasurementRow]] = {}
        for row in tables.measurements:
            self._check(row)
            groups.setdefault((row.preequilibration, row.condition, math.isinf(row.time)), []).append(row)
        self._variants: dict[str, int] = {}
        assigned = {key: self._assign(rows) for key, rows in groups.items()}
        self.channels = [
            Channel(observable, variant)
            for observable in tables.observables.values()
            for variant in range(self._variants.get(observable.name, 0))
        ]
        placeholders = (channel.named(placeholder) for channel in self.channels for placeholder in channel.placeholders)
        self._placeholders = dict.fromkeys(placeholders)
        self.inputs = self._inputs()
        self._places = {(channel.observable.name, channel.variant): k for k, channel in enumerate(self.channels)}
        self.scenarios = [self._scenario(key, rows, assigned[key]) for key, rows in groups.items()]

    def _check(self, row: MeasurementRow) -> None:
        if row.observable not in self.tables.observables:
            raise ValueError(f"a measurement is of {row.observable}, which is not in the table of observables.")
        for condition in (row.condition, row.preequilibration):
            if condition is not None and condition not in self.tables.conditions:
                raise ValueError(
                    f"a measurement of {row.observable} is under {condition}, which is not in the table of conditions."
                )
        if row.time < 0.0:
            raise ValueError(f"a measurement of {row.observable} under {row.condition} is at time {row.time:g}, before the start.")

    def _assign(self, rows: Iterable[MeasurementRow]) -> list[int]:
        """The variant of its observable that each measurement is of: one for each set of overrides."""
        seen: dict[str, list[tuple]] = {}
        found = []
        for row in rows:
            overrides = row.observable_parameters, row.noise_parameters
            variants = seen.setdefault(row.observable, [])
            if overrides not in variants:
                variants.append(overrides)
            found.append(variants.index(overrides))
            self._variants[row.observable] = max(self._variants.get(row.observable, 0), len(variants))
        return found

    # --- inputs ----------------------------------------------------------------------------------

    def _inputs(self) -> list[str]:
        """The entries of theta: what the formulas read of the tables, in the order of these."""
        columns = dict.fromkeys(column for condition in self.tables.conditions.values() for column in condition)
        read = self._read()
        for column in columns:
            known = column in self.model.states or column in self.model.constants
            if not known and column in self.model.rules:
                raise ValueError(f"the table of conditions has a column {column}, which follows from a rule.")
            if not known and column not in read:
                raise ValueError(f"the table of conditions has a column {column}, which is not in the model.")
        given = [*self._parameters, *(column for column in columns if column not in self.model.states)]
        starts = [INITIAL.format(column) for column in columns if column in self.model.states]
        return list(dict.fromkeys([*(one for one in given if one in read), *starts, *self._placeholders]))

    def _read(self) -> set[str]:
        """The names that some formula reads."""
        model = self.model
        meanings: list[Mapping[str, ast.expr]] = [model.rates, model.rate_rules, model.rules, model.initial, model.constants]
        found = {identifier for meaning in meanings for expression in meaning.values() for identifier in names(expression)}
        found.update(volume for volume in model.volumes.values())
        for event in model.events:
            for expression in (event.trigger, *event.assignments.values()):
                found.update(names(expression))
        for observable in self.tables.observables.values():
            found.update(names(observable.formula), names(observable.noise))
        return found

    def _condition(self, condition: str, source: Source, fallback: str | None = None) -> dict[str, float | str]:
        """The inputs under a condition but placeholders. What it leaves empty is as in the model; states as under `fallback`."""
        cells = self.tables.conditions[condition]
        if fallback:
            earlier = self.tables.conditions[fallback]
            cells = {key: cell for key, cell in cells.items() if key not in self.model.states}
            cells |= {key: cell for key, cell in earlier.items() if key in self.model.states}
        theta: dict[str, float | str] = {}
        for entry in self.inputs:
            if entry in self._placeholders:
                continue
            state = entry.removeprefix(INITIAL.format(""))
            key = state if state != entry and state in self.model.states else entry
            if key in cells:
                theta[entry] = self.tables.value(cells[key], f"condition {condition}, column {key}")
            elif entry in self._parameters:
                theta[entry] = self.tables.value(self._parameters[entry], entry)
            else:
                theta[entry] = self._default(condition, key, source)
        return theta

    def _default(self, condition: str, key: str, source: Source) -> float:
        """What the model itself says."""
        value = self.model.initial.get(key, self.model.constants.get(key))
        try:
            number = evaluate(source.at_start(value), {}) if value is not None else math.nan
        except KeyError as error:
            raise ValueError(
                f"condition {condition} leaves {key} empty, and in the model it depends on {error.args[0]}: give it a value."
            ) from None
        if math.isnan(number):
            raise ValueError(f"condition {condition} gives {key} no value, and the model has none.")
        return number

    # --- scenarios -------------------------------------------------------------------------------

    def _scenario(self, key: tuple[str | None, str, bool], rows: list[MeasurementRow], variants: list[int]) -> Scenario:
        before, condition, at_rest = key
        columns = {column for one in self.tables.conditions.values() for column in one}
        source = Source(self.model, [entry for entry in self.inputs if entry not in columns and INITIAL.format("") not in entry])
        theta = self._condition(condition, source, before)
        for entry in self.inputs:
            theta.setdefault(entry, 1.0)  # a placeholder that nothing measured here has
        for row, variant in zip(rows, variants, strict=True):
            self._override(theta, row, Channel(self.tables.observables[row.observable], variant))
        times, data = self._data(rows, variants)
        label = condition if before is None else f"{before} -> {condition}"
        earlier = None if before is None else {**dict.fromkeys(self.inputs, 1.0), **self._condition(before, source)}
        then = {} if before is None else self._anew(condition)
        return Scenario(f"{label} at rest" if at_rest else label, theta, earlier, then, at_rest, times, data)

    def _anew(self, condition: str) -> dict[str, float | str]:
        """The states that a condition sets; an empty cell leaves a state as it is."""
        cells, where = self.tables.conditions[condition], f"condition {condition}, column"
        return {key: self.tables.value(cell, f"{where} {key}") for key, cell in cells.items() if key in self.model.states}

    def _override(self, theta: dict[str, float | str], row: MeasurementRow, channel: Channel) -> None:
        where = f"a measurement of {row.observable} under {row.condition}"
        given = {"observable": row.observable_parameters, "noise": row.noise_parameters}
        for placeholder in channel.placeholders:
            match = _PLACEHOLDER.fullmatch(placeholder)
            assert match is not None
            cells, place = given[match[1]], int(match[2]) - 1
            if place >= len(cells):
                raise ValueError(f"{where} gives {placeholder} no value.")
            theta[channel.named(placeholder)] = self.tables.value(cells[place], where)
        for kind, cells in given.items():
            known = sum(one.startswith(f"{kind}Parameter") for one in channel.placeholders)
            if len(cells) > known:
                raise ValueError(f"{where} has {len(cells)} {kind}Parameters, but the formulas of {row.observable} read {known}.")

    def _data(self, rows: list[MeasurementRow], variants: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Times, in order, one of them again for each replicate; and a row of data for each."""
        cells: dict[tuple[float, int], list[float]] = {}
        for row, variant in zip(rows, variants, strict=True):
            cells.setdefault((row.time, self._places[row.observable, variant]), []).append(row.value)
        replicates: dict[float, int] = {}
        for (time, _), values in cells.items():
            replicates[time] = max(replicates.get(time, 0), len(values))
        times = np.array([time for time in sorted(replicates) for _ in range(replicates[time])])
        first = {time: int(np.searchsorted(times, time)) for time in replicates}
        data = np.full((times.size, len(self.channels)), np.nan)
        for (time, channel), values in cells.items():
            data[first[time] : first[time] + len(values), channel] = values
        return times, data
