"""CVODES in C: writes what the problem is as a C header, builds a source with it, calls it by ctypes. cvodes.c has the gradients of
the stiff problems by its adjoint, cvodes_jacobian.c the Jacobians of residuals by its forward sensitivities.

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

from benchmarks.cases import Gradient, ResidualCase, derivatives_from_tangents
from benchmarks.stiff_cases import REACTIONS, Reaction, StiffCase, disc

HERE = Path(__file__).parent
GRADIENT, JACOBIAN = HERE / "cvodes.c", HERE / "cvodes_jacobian.c"
_LIBRARIES = (
    "cvodes",
    "nvecserial",
    "sunmatrixdense",
    "sunlinsoldense",
    "sunmatrixsparse",
    "sunlinsolklu",
    "sunnonlinsolfixedpoint",
)


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


def header(case: StiffCase | ResidualCase) -> str:
    lines = [
        f"#define N {case.u0.size}",
        f"#define M {case.theta.size}",
        f"#define K {case.times.size}",
        f"#define T0 {case.t_span[0]!r}",
        _array("double", "TIMES", case.times.tolist()),
        _array("double", "SCALES", case.scales().tolist()),
    ]
    if isinstance(case, StiffCase):
        lines.append(_array("double", "WEIGHTS", case.weights.tolist()))
        return "\n".join(lines + (_chemistry(REACTIONS[case.name]) if case.name in REACTIONS else _grid(case)))
    is_stiff = case.system in REACTIONS
    sizes = np.concatenate([np.ones(case.u0.size), np.abs(case.theta) if is_stiff else np.ones(case.theta.size)])
    lines.append(_array("double", "SIZES", sizes.tolist()))
    if is_stiff:
        reactions = REACTIONS[case.system]
        return "\n".join([*lines, "#define STIFF", *_chemistry(reactions), *_tangents(reactions)])
    return "\n".join([*lines, f"#define {case.system.upper()}", f'#include "{HERE / "cvodes_ordinary.h"}"'])


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


def _tangents(reactions: tuple[Reaction, ...]) -> list[str]:
    """Straight code for df/du s and df/dtheta, the derivatives of rates by states and by parameters calculated once."""
    species, lines = range(1 + max(i for one in reactions for i in one.reactants + one.products)), []
    changes = [_changes(one) for one in reactions]
    rates: list[str] = []
    for k, one in enumerate(reactions):
        reactants = sorted(set(one.reactants))
        lines += [f"double g{k}_{i} = {one.reactants.count(i)} * {_product(one, i)};" for i in reactants]
        lines.append(f"double p{k} = {' * '.join([f'u[{i}]' for i in one.reactants]) or '1.0'};")
        rates.append(f"double r{k} = {_sum([f'g{k}_{i} * s[j][{i}]' for i in reactants])};")
    slopes = [
        f"ds[j][{i}] = {_sum([f'{changes[k][i]} * r{k}' for k in range(len(reactions)) if i in changes[k]])};" for i in species
    ]
    by_theta = [
        f"ds[N + {one.parameter}][{i}] += {change} * p{k};" for k, one in enumerate(reactions) for i, change in changes[k].items()
    ]
    return [
        "static void problem_tangents(const double *u, const double *th, const double *const *s, double *const *ds) {",
        *lines,
        "for (int j = 0; j < N + M; j++) {",
        *rates,
        *slopes,
        "}",
        *by_theta,
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
        f'#include "{HERE / "cvodes_grid.h"}"',
    ]


# --- the library ----------------------------------------------------------------------------------------------------------


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="adjode-cvodes-")


@functools.cache
def library(case: StiffCase | ResidualCase) -> ctypes.CDLL:
    source = GRADIENT if isinstance(case, StiffCase) else JACOBIAN
    headers = _folder_of_headers()
    place = Path(_folder().name) / case.name
    place.mkdir(exist_ok=True)
    (place / "problem.h").write_text(header(case))
    target = place / "cvodes.so"
    includes = [f"-I{place}", f"-I{headers}", f"-I{headers / 'suitesparse'}"]
    flags = ["-O3", "-march=native", "-fPIC", "-shared", str(source), "-o", str(target)]
    command = ["gcc", *includes, *flags, *(f"-lsundials_{name}" for name in _LIBRARIES), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CvodesError(f"gcc could not build {source.name}:\n{done.stderr}")
    return ctypes.CDLL(str(target))


def evaluator(case: StiffCase, tol: float):
    """(u0, theta) -> Gradient."""
    gradient = library(case).cvodes_gradient
    n, m = case.u0.size, case.theta.size

    def value_and_gradient(u0, theta):
        value, u0_bar, theta_bar = np.zeros(1), np.zeros(n), np.zeros(m)
        _call(gradient, u0, theta, tol, value, u0_bar, theta_bar)
        return Gradient(float(value[0]), u0_bar, theta_bar)

    return value_and_gradient


def jacobian_evaluator(staggered: bool, case: ResidualCase, tol: float):
    """(u0, theta) -> Gradient of Jacobians."""
    run = library(case).cvodes_tangents
    shape = case.times.size, case.u0.size

    def value_and_jacobian(u0, theta):
        states, tangents = np.empty(shape), np.empty((*shape, case.u0.size + case.theta.size))
        _call(run, u0, theta, tol, ctypes.c_int(staggered), states, tangents)
        return derivatives_from_tangents(case, states, tangents)

    return value_and_jacobian


def _call(function, u0, theta, tol, *outputs) -> None:
    """Call a function of (u0, theta, tol, ...), of which arrays are overwritten."""
    given = [np.ascontiguousarray(u0, dtype=float), np.ascontiguousarray(theta, dtype=float), ctypes.c_double(tol), *outputs]
    vector = ctypes.POINTER(ctypes.c_double)
    line = function(*(one.ctypes.data_as(vector) if isinstance(one, np.ndarray) else one for one in given))
    if line:
        raise CvodesError(f"CVODES reports a failure (in its C source, line {line})")
