"""Problems in PEtab's format by adjode and by AMICI, side by side: from the files to the first gradient, and each one after that.

    python -m benchmarks.petab_amici --collection FOLDER/Benchmark-Models --amici PYTHON --output docs/measured

where FOLDER is a checkout of https://github.com/Benchmarking-Initiative/Benchmark-Models-PEtab, and PYTHON the interpreter of an
environment with the packages amici, petab and scipy, writes petab_amici.md. Every measurement is a process of its own, one after
the other, on one thread; the shared kernels of adjode are on disk after the first problem, if they were not before. The time of
AMICI's gradients is that of its compiled simulations alone, without what its Python makes of parameters and results; that of adjode
is all of `evaluate`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.report import table

PROBLEMS = (
    "Boehm_JProteomeRes2014",
    "Borghans_BiophysChem1997",
    "Bruno_JExpBot2016",
    "Elowitz_Nature2000",
    "Fujita_SciSignal2010",
    "Okuonghae_ChaosSolitonsFractals2020",
    "Perelson_Science1996",
    "Rahman_MBS2016",
    "Raia_CancerResearch2011",
    "Sneyd_PNAS2002",
    "Weber_BMC2015",
    "Zheng_PNAS2012",
)
COLUMNS = (
    "problem",
    "adjode: first gradient (s)",
    "AMICI: first gradient (s)",
    "adjode (ms)",
    "AMICI, adjoint (ms)",
    "AMICI, forward (ms)",
    "values differ",
    "gradients differ",
)
TOLERANCES = {"rtol": 1e-8, "atol": 1e-12}
ASIDE = 0.02  # of the way from the nominal values to the middle of the bounds, where both are evaluated
REPEATS, MOST = 5, 10.0  # evaluations, of which the least time counts, and seconds for them


def least_time(evaluate) -> float:
    """Seconds that a call takes at best."""
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < MOST:
        start = time.perf_counter()
        evaluate()
        times.append(time.perf_counter() - start)
    return min(times)


def place(nominal: float, low: float, high: float) -> float:
    """Where a parameter is, on its scale: nominal values are often a minimum, where gradients are what is left of large terms."""
    start = min(max(nominal, low), high)
    return start + ASIDE * (0.5 * (low + high) - start)


def by_adjode(path: Path) -> dict:
    start = time.perf_counter()

    from adjode.petab import load

    problem = load(path, workers=1, **TOLERANCES)
    x = np.array([place(*one) for one in zip(problem.x0, *np.transpose(problem.bounds), strict=True)])
    value, gradient = problem.evaluate(x)
    first = time.perf_counter() - start
    found = {"first": first, "adjoint": least_time(lambda: problem.evaluate(x)), "value": problem.log_likelihood(x)}
    if any(one.prior for one in problem.parameters.values()):  # which AMICI leaves out
        return found
    return {**found, "gradient": dict(zip(problem.names, (-gradient).tolist(), strict=True))}


def by_amici(path: Path) -> dict:
    start = time.perf_counter()

    import petab.v1 as petab
    from amici.importers.petab.v1 import import_petab_problem
    from amici.sim.sundials import SensitivityMethod, SensitivityOrder, run_simulations
    from amici.sim.sundials.petab.v1 import simulate_petab

    problem = petab.Problem.from_yaml(path)
    with tempfile.TemporaryDirectory() as folder:
        model = import_petab_problem(problem, folder, model_name=f"model_of_{path.stem}", verbose=False)
        solver = model.create_solver()
        solver.set_relative_tolerance(TOLERANCES["rtol"])
        solver.set_absolute_tolerance(TOLERANCES["atol"])
        solver.set_sensitivity_order(SensitivityOrder.first)
        values = dict(zip(problem.x_ids, problem.x_nominal_scaled, strict=True))
        bounds = dict(zip(problem.x_ids, zip(problem.lb_scaled, problem.ub_scaled, strict=True), strict=True))
        values |= {name: place(values[name], *bounds[name]) for name in problem.x_free_ids}

        solver.set_sensitivity_method(SensitivityMethod.adjoint)
        result = simulate_petab(
            petab_problem=problem,
            amici_model=model,
            solver=solver,
            problem_parameters=values,
            scaled_parameters=True,
            scaled_gradients=True,
        )
        first, times = time.perf_counter() - start, {}
        for method in (SensitivityMethod.adjoint, SensitivityMethod.forward):
            solver.set_sensitivity_method(method)
            times[method.name] = least_time(lambda: run_simulations(model, solver, edata_list=result["edatas"]))
    slopes = {name: float(result["sllh"][name]) for name in problem.x_free_ids}
    return {"first": first, "value": float(result["llh"]), "gradient": slopes, **times}


def measured(python: str, which: str, path: Path, limit: float) -> dict | str:
    """What another process has found, or why it has not."""
    command = [python, "-W", "ignore", "-m", "benchmarks.petab_amici", "--one", which, str(path)]
    beside = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])  # where AMICI finds its compiler of interfaces
    environment = {**os.environ, "PATH": beside, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment)
    except subprocess.TimeoutExpired:
        return f"not done in {limit:g} s"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, ours: dict | str, theirs: dict | str) -> tuple[str, ...]:
    if isinstance(ours, str) or isinstance(theirs, str):
        why = ours if isinstance(ours, str) else theirs
        return name, *[""] * (len(COLUMNS) - 2), f"{'adjode' if why is ours else 'AMICI'}: {why}"
    off = abs(ours["value"] / theirs["value"] - 1.0)
    gradients = ""
    if "gradient" in ours:
        pairs = [(slope, theirs["gradient"][one]) for one, slope in ours["gradient"].items()]
        gradients = f"{max(abs(a - b) for a, b in pairs) / max(abs(a) for a, _ in pairs):.0e}"
    times = (f"{1e3 * one:.3g}" for one in (ours["adjoint"], theirs["adjoint"], theirs["forward"]))
    return name, f"{ours['first']:.1f}", f"{theirs['first']:.1f}", *times, f"{off:.0e}", gradients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", type=Path, help="folder with a folder for each problem")
    parser.add_argument("--amici", metavar="PYTHON", help="the interpreter of an environment with amici")
    parser.add_argument("--only", nargs="+", default=PROBLEMS, metavar="NAME")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each problem")
    parser.add_argument("--output", type=Path, help="folder for petab_amici.md")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        which, path = given.one
        print(json.dumps((by_adjode if which == "adjode" else by_amici)(Path(path))))
        return
    if given.collection is None or given.amici is None:
        parser.error("--collection and --amici are needed")
    rows = []
    for name in given.only:
        path = given.collection / name / f"{name}.yaml"
        rows.append(
            row(
                name,
                measured(sys.executable, "adjode", path, given.limit),
                measured(given.amici, "amici", path, given.limit),
            )
        )
        print(" | ".join(rows[-1]), flush=True)
        if given.output:
            (given.output / "petab_amici.md").write_text(table(COLUMNS, rows))


if __name__ == "__main__":
    main()
