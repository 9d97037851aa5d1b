"""CVODES in C for the stiff problems: writes what the problem is as a C header, builds cvodes.c with it, calls it by ctypes.

Needs gcc and the headers of SUNDIALS 6 with KLU: `apt-get install libsundials-dev` on Debian.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Gradient
from benchmarks.stiff_cases import REACTIONS, Reaction, StiffCase, disc

SOURCE = Path(__file__).with_name("cvodes.c")
_LIBRARIES = ("cvodes", "nvecserial", "sunmatrixdense", "sunlinsoldense", "sunmatrixsparse", "sunlinsolklu")


class CvodesError(RuntimeError):
    """It cannot be built, or a call of CVODES failed."""


def why_not() -> str | None:
    if shutil.which("gcc") is None:
        return "needs gcc"
    try:
        _folder_of_headers()
    except CvodesError as problem:
        return str(problem)
    return None


def _folder_of_headers() -> Path:
    for folder in ("/usr/include", "/usr/local/include"):
        if (Path(folder) / "cvodes" / "cvodes.h").exists():
            return Path(folder)
    raise CvodesError("the headers of SUNDIALS are not installed (apt-get install libsundials-dev)")


# --- the header -----------------------------------------------------------------------------------------------------------


def _array(kind: str, name: str, numbers: Sequence[Any]) -> str:
    return f"static const {kind} {name}[] = {{{', '.join(map(repr, numbers))}}};"


def header(case: StiffCase) -> str:
    lines = [
        f"#define N {case.u0.size}",
        f"#define M {case.theta.size}",
        f"#define K {case.times.size}",
        f"#define T0 {case.t_span[0]!r}",
        _array("double", "TIMES", case.times.tolist()),
        _array("double", "WEIGHTS", case.weights.tolist()),
        _array("double", "SCALES", case.scales().tolist()),
    ]
    return "\n".join(lines + (_chemistry(REACTIONS[case.name]) if case.name in REACTIONS else _grid(case)))


def _product(reaction: Reaction, without: int | None = None) -> str:
    """The rate, or the rate without one of its reactants."""
    reactants = list(reaction.reactants)
    if without is not None:
        reactants.remove(without)
    return " * ".join([f"th[{reaction.parameter}]", *(f"u[{i}]" for i in reactants)])


def _changes(reaction: Reaction) -> dict[int, int]:
    found: dict[int, int] = {}
    for species, change in [*((i, -1) for i in reaction.reactants), *((i, 1) for i in reaction.products)]:
        found[species] = found.get(species, 0) + change
    return {species: change for species, change in found.items() if change}


def _sum(terms: list[str]) -> str:
    return " + ".join(terms) or "0.0"


def _chemistry(reactions: tuple[Reaction, ...]) -> list[str]:
    """Straight code for f, its Jacobian and its vjp."""
    species, parameters = range(1 + max(i for one in reactions for i in one.reactants + one.products)), {}
    changes = [_changes(one) for one in reactions]
    rates = [f"double r{k} = {_product(one)};" for k, one in enumerate(reactions)]
    bars = [f"double b{k} = {_sum([f'{by} * l[{i}]' for i, by in changes[k].items()])};" for k in range(len(reactions))]
    f, back, jac = [], [], []
    for i in species:
        f.append(f"du[{i}] = {_sum([f'{changes[k][i]} * r{k}' for k in range(len(reactions)) if i in changes[k]])};")
        pulled = [f"{one.reactants.count(i)} * b{k} * {_product(one, i)}" for k, one in enumerate(reactions) if i in one.reactants]
        back.append(f"lb[{i}] = -({_sum(pulled)});")
        for j in species:
            terms = [
                f"{changes[k][j] * one.reactants.count(i)} * {_product(one, i)}"
                for k, one in enumerate(reactions)
                if i in one.reactants and j in changes[k]
            ]
            if terms:
                jac.append(f"J[{i}][{j}] = {_sum(terms)};")
    for k, one in enumerate(reactions):
        parameters.setdefault(one.parameter, []).append(" * ".join([f"b{k}", *(f"u[{i}]" for i in one.reactants)]))
    quadrature = [f"qb[{p}] = -({_sum(terms)});" for p, terms in parameters.items()]
    return [
        "static void problem_f(const double *u, const double *th, double *du) {",
        *rates,
        *f,
        "}",
        "static void problem_jac(const double *u, const double *th, double J[N][N]) {",
        *jac,
        "}",
        "static void problem_back(const double *u, const double *th, const double *l, double *lb, double *qb) {",
        *bars,
        "if (lb) {",
        *back,
        "}",
        "if (qb) {",
        *quadrature,
        "}",
        "}",
    ]


def _grid(case: StiffCase) -> list[str]:
    """The pattern of the Brusselator's Jacobian; its functions are in cvodes_grid.h."""
    points = round((case.u0.size / 2) ** 0.5)
    starts, rows, kinds = [0], [], []
    for i in range(points):
        for j in range(points):
            cell = i * points + j
            near = [((i - 1) % points) * points + j, ((i + 1) % points) * points + j]
            near += [i * points + (j - 1) % points, i * points + (j + 1) % points]
            for part in range(2):
                column = [(2 * other + part, 0) for other in near] + [(2 * cell + part, 1 + part), (2 * cell + 1 - part, 3 + part)]
                for row, kind in sorted(column):
                    rows.append(row)
                    kinds.append(kind)
                starts.append(len(rows))
    return [
        "#define SPARSE",
        f"#define POINTS {points}",
        f"#define ENTRIES {len(rows)}",
        _array("double", "INSIDE", disc(points).tolist()),
        _array("int", "COLUMNS", starts),
        _array("int", "ROWS", rows),
        _array("int", "KINDS", kinds),
        _array("int", "CELLS", np.repeat(np.arange(points**2), 12).tolist()),
        f'#include "{SOURCE.with_name("cvodes_grid.h")}"',
    ]


# --- the library ----------------------------------------------------------------------------------------------------------


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="adjode-cvodes-")


@functools.cache
def library(case: StiffCase) -> ctypes.CDLL:
    headers = _folder_of_headers()
    place = Path(_folder().name) / case.name
    place.mkdir(exist_ok=True)
    (place / "problem.h").write_text(header(case))
    target = place / "cvodes.so"
    includes = [f"-I{place}", f"-I{headers}", f"-I{headers / 'suitesparse'}"]
    flags = ["-O3", "-march=native", "-fPIC", "-shared", str(SOURCE), "-o", str(target)]
    command = ["gcc", *includes, *flags, *(f"-lsundials_{name}" for name in _LIBRARIES), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CvodesError(f"gcc could not build {SOURCE.name}:\n{done.stderr}")
    return ctypes.CDLL(str(target))


def evaluator(case: StiffCase, tol: float):
    """(u0, theta) -> Gradient."""
    gradient, vector = library(case).cvodes_gradient, ctypes.POINTER(ctypes.c_double)
    n, m = case.u0.size, case.theta.size

    def value_and_gradient(u0, theta):
        value, u0_bar, theta_bar = np.zeros(1), np.zeros(n), np.zeros(m)
        u0, theta = np.ascontiguousarray(u0, dtype=float), np.ascontiguousarray(theta, dtype=float)
        given = (u0.ctypes.data_as(vector), theta.ctypes.data_as(vector), ctypes.c_double(tol))
        line = gradient(*given, *(array.ctypes.data_as(vector) for array in (value, u0_bar, theta_bar)))
        if line:
            raise CvodesError(f"CVODES reports a failure (cvodes.c, line {line})")
        return Gradient(float(value[0]), u0_bar, theta_bar)

    return value_and_gradient
