"""The tables of a PEtab problem, version 1: parameters, conditions, observables and measurements, checked."""

from __future__ import annotations

import ast
import csv
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjode.petab.extra import require
from adjode.petab.formulas import from_text, safe

_SCALES = ("lin", "log", "log10")
_NOISE = ("normal", "laplace")
_PRIORS = (
    "uniform",
    "normal",
    "laplace",
    "logNormal",
    "logLaplace",
    "parameterScaleUniform",
    "parameterScaleNormal",
    "parameterScaleLaplace",
)


@dataclass(frozen=True)
class ParameterRow:
    """A parameter of the file: nominal value and bounds in natural units, whatever the scale."""

    name: str
    scale: str
    bounds: tuple[float, float]
    nominal: float
    estimated: bool
    prior: tuple[str, tuple[float, ...]] | None


@dataclass(frozen=True)
class ObservableRow:
    """What is observed: formulas of the quantity and its noise, the scale that noise is added on, and its distribution."""

    name: str
    formula: ast.expr
    noise: ast.expr
    scale: str
    distribution: str


@dataclass(frozen=True)
class MeasurementRow:
    """One number. `observable_parameters` and `noise_parameters` are numbers or names."""

    observable: str
    preequilibration: str | None
    condition: str
    value: float
    time: float
    observable_parameters: tuple[float | str, ...]
    noise_parameters: tuple[float | str, ...]


@dataclass(frozen=True)
class Tables:
    """What the files of a problem say."""

    path: Path
    sbml: Path
    parameters: dict[str, ParameterRow]
    conditions: dict[str, dict[str, float | str]]
    observables: dict[str, ObservableRow]
    measurements: list[MeasurementRow]

    def value(self, cell: float | str, where: str) -> float | str:
        """A number, or the name of an estimated parameter."""
        if not isinstance(cell, str):
            return cell
        if cell not in self.parameters:
            raise ValueError(f"{where}: {cell} is not in the table of parameters.")
        row = self.parameters[cell]
        return row.name if row.estimated else row.nominal


def read_tables(path: str | Path) -> Tables:
    """Read the files that a yaml file names.

    Raises
    ------
    ValueError
        If a file or a column is missing, or something in it is not supported; the message names the file and the element.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    content = _content(path)
    if not isinstance(content, dict) or "problems" not in content:
        raise ValueError(f"{path.name} is not a PEtab problem of version 1: it has no entry problems.")
    version = str(content.get("format_version", 1))
    if not version.startswith("1"):
        raise ValueError(f"{path.name} is in version {version} of PEtab, but version 1 was expected.")
    problems = content["problems"] or []
    if len(problems) != 1 or len(_files(problems[0], "sbml_files")) != 1:
        found = "several models, which is not supported: make a file for each" if problems else "an empty entry problems"
        raise ValueError(f"{path.name} has {found}.")
    problem, folder = problems[0], path.parent
    measurements = [_measurement(row) for row in _rows(folder, _files(problem, "measurement_files"), "observableId")]
    if not measurements:
        raise ValueError(f"{', '.join(_files(problem, 'measurement_files'))} has no measurements.")
    return Tables(
        path=path,
        sbml=folder / problem["sbml_files"][0],
        parameters=_by_id(_parameter, folder, _files(content, "parameter_file"), "parameterId"),
        conditions=_by_id(_condition, folder, _files(problem, "condition_files"), "conditionId"),
        observables=_by_id(_observable, folder, _files(problem, "observable_files"), "observableId"),
        measurements=measurements,
    )


def _content(path: Path) -> Any:
    yaml = require("yaml")
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f": line {mark.line + 1}"
        raise ValueError(f"{path.name} is not valid yaml{where}.") from None


def _files(content: dict[str, Any], key: str) -> list[str]:
    found = content.get(key)
    if not found:
        raise ValueError(f"the yaml file has no {key}.")
    return [found] if isinstance(found, str) else list(found)


def _rows(folder: Path, files: Iterable[str], key: str) -> list[dict[str, Any]]:
    """The rows of tables, without empty cells."""
    rows: list[dict[str, Any]] = []
    for file in files:
        if not (folder / file).is_file():
            raise ValueError(f"there is no file {folder / file}.")
        with open(folder / file, newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines, delimiter="\t")
            if key not in [column.strip() for column in table.fieldnames or ()]:
                raise ValueError(f"{file} has no column {key}.")
            rows += [_filled(row) for row in table]
    return [row for row in rows if key in row]


def _by_id(read: Callable[[dict[str, Any]], Any], folder: Path, files: list[str], key: str) -> dict[str, Any]:
    """What is read of each row, by its name, which has to be the only one of its kind."""
    found: dict[str, Any] = {}
    for row in _rows(folder, files, key):
        if row[key] in found:
            raise ValueError(f"{', '.join(files)} has more than one row with the {key} {row[key]}.")
        found[row[key]] = read(row)
    return found


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    cells = {column.strip(): cell.strip() for column, cell in row.items() if column and cell}
    return {column: cell for column, cell in cells.items() if cell not in ("", "NaN", "nan")}


def _get(row: dict[str, Any], column: str, of: str) -> str:
    if column not in row:
        raise ValueError(f"{of} has no {column}.")
    return row[column]


def _number(row: dict[str, Any], column: str, of: str, default: float | None = None) -> float:
    cell = row.get(column) if default is not None else _get(row, column, of)
    try:
        return float(cell) if cell is not None else float(default or 0.0)
    except ValueError:
        raise ValueError(f"{column} of {of} must be a number, but it is {cell}.") from None


def _choice(row: dict[str, Any], column: str, of: str, default: str, among: tuple[str, ...]) -> str:
    found = row.get(column, default)
    if found not in among:
        raise ValueError(f"{column} of {of} must be one of {', '.join(among)}, but it is {found}.")
    return found


def _parameter(row: dict[str, Any]) -> ParameterRow:
    name = row["parameterId"]
    of = f"parameter {name}"
    estimated = _number(row, "estimate", of)
    if estimated not in (0.0, 1.0):
        raise ValueError(f"estimate of {of} must be 0 or 1, but it is {row['estimate']}.")
    scale = _choice(row, "parameterScale", of, "lin", _SCALES)
    low, high = -math.inf if scale == "lin" else 0.0, math.inf
    bounds = _number(row, "lowerBound", of, low), _number(row, "upperBound", of, high)
    nominal = _number(row, "nominalValue", of)
    if not math.isfinite(nominal):
        raise ValueError(f"nominalValue of {of} must be finite, but it is {nominal}.")
    if not bounds[0] <= bounds[1]:
        raise ValueError(f"lowerBound of {of} must not be above its upperBound, but they are {bounds[0]:g} and {bounds[1]:g}.")
    if estimated and bounds[0] < low:
        raise ValueError(
            f"lowerBound of {of} must not be negative on the scale {scale}, but it is {bounds[0]:g}: it is not scaled."
        )
    prior = None
    if estimated and "objectivePriorType" in row:
        kind = _choice(row, "objectivePriorType", of, "", _PRIORS)
        numbers = _get(row, "objectivePriorParameters", of) if "niform" not in kind else row.get("objectivePriorParameters", "")
        prior = kind, _numbers(numbers, of)
    return ParameterRow(name, scale, bounds, nominal, estimated == 1.0, prior)


def _numbers(cell: str, of: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in cell.split(";") if part.strip())
    except ValueError:
        raise ValueError(f"objectivePriorParameters of {of} must be numbers with ; between them, but they are {cell}.") from None


def _cell(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _condition(row: dict[str, Any]) -> dict[str, float | str]:
    return {safe(key): _cell(cell) for key, cell in row.items() if key not in ("conditionId", "conditionName")}


def _observable(row: dict[str, Any]) -> ObservableRow:
    name = row["observableId"]
    of = f"observable {name}"
    texts = [_get(row, column, of) for column in ("observableFormula", "noiseFormula")]
    try:
        formula, noise = map(from_text, texts)
    except ValueError as error:
        raise ValueError(f"{of}: {error}.") from None
    scale = _choice(row, "observableTransformation", of, "lin", _SCALES)
    return ObservableRow(name, formula, noise, scale, _choice(row, "noiseDistribution", of, "normal", _NOISE))


def _measurement(row: dict[str, Any]) -> MeasurementRow:
    of = f"a measurement of {row['observableId']}"
    overrides = [
        tuple(_cell(part.strip()) for part in re.split(";", row.get(column, "")) if part.strip())
        for column in ("observableParameters", "noiseParameters")
    ]
    return MeasurementRow(
        observable=row["observableId"],
        preequilibration=row.get("preequilibrationConditionId"),
        condition=_get(row, "simulationConditionId", of),
        value=_number(row, "measurement", of),
        time=_number(row, "time", of),
        observable_parameters=overrides[0],
        noise_parameters=overrides[1],
    )
