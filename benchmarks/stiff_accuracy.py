"""Errors of the gradients of the stiff reference problems, in units of the tolerance asked for.

    python -m benchmarks.stiff_accuracy --output docs/measured

writes stiff_accuracy.md: for each problem, method and adjoint the largest error of the gradient, each block relative to its largest
entry, divided by `rtol`, at several of them, with atol = 1e-5 rtol. Takes a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adjode import SolveError
from adjode.steppers.family import family_of
from adjode.tableaus import METHODS, tableau
from benchmarks.report import table
from benchmarks.stiff_problems import STIFF_PROBLEMS

TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10, 1e-12)
ACCURATE = ("rober", "hires", "orego", "pollu", "van_der_pol_1e+00", "van_der_pol_1e+06", "linear")
PROBLEMS = (*ACCURATE, "van_der_pol_1e+03")
IMPLICIT = [name for name in METHODS if tableau(name).implicit]
COMBINATIONS = [
    (m, a) for m in IMPLICIT for a in ("discrete", "interpolating") if a != "discrete" or family_of(tableau(m)).transposable
]


def error_in_tolerances(name: str, method: str, adjoint: str, rtol: float) -> float:
    """The error of the gradient of a problem, divided by `rtol`.

    Raises
    ------
    SolveError
        If a pass fails.
    """
    problem = STIFF_PROBLEMS[name]()
    evaluate = problem.value_and_gradient(method=method, adjoint=adjoint, rtol=rtol, atol=1e-5 * rtol, max_steps=1_000_000)
    return problem.gradient_error(evaluate()[1]) / rtol


def cell(name: str, method: str, adjoint: str, rtol: float) -> str:
    if tableau(method).order < 5 and rtol < 1e-9:
        return ""  # a million steps and more
    try:
        return f"{error_in_tolerances(name, method, adjoint, rtol):.2g}"
    except SolveError as error:
        return f"`{error.status.name}`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="folder for stiff_accuracy.md")
    parser.add_argument("--problems", nargs="+", default=PROBLEMS, choices=PROBLEMS, metavar="NAME")
    given = parser.parse_args()
    columns = ("problem", "method", "adjoint", *(f"rtol = {rtol:.0e}" for rtol in TOLERANCES))
    rows = [
        (name, method, adjoint, *(cell(name, method, adjoint, rtol) for rtol in TOLERANCES))
        for name in given.problems
        for method, adjoint in COMBINATIONS
    ]
    text = table(columns, rows)
    print(text)
    if given.output is not None:
        (given.output / "stiff_accuracy.md").write_text(text)


if __name__ == "__main__":
    main()
