"""The problems of a collection in PEtab's format: sizes, times, log-likelihoods beside published ones, adjoints beside tangents.

    python -m benchmarks.petab --collection FOLDER/Benchmark-Models --output docs/measured

where FOLDER is a checkout of https://github.com/Benchmarking-Initiative/Benchmark-Models-PEtab, writes petab.md: a row for each
problem. Each runs in a process of its own; kernels that all share are on disk after the first. With `--fit 8` some small ones are
fitted from so many starts instead, the first at the nominal values, by least squares where the noise is known and by L-BFGS-B
else, and petab_fits.md says whether starts elsewhere reach the log-likelihood of these, or a better one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.report import table

# Log-likelihoods at the nominal parameters, by AMICI: tests/benchmark_models/benchmark_models.yaml in https://github.com/AMICI-dev/AMICI
PUBLISHED = {
    "Bachmann_MSB2011": 418.40573341425295,
    "Beer_MolBioSystems2014": 58622.9145631413,
    "Boehm_JProteomeRes2014": -138.22199693517703,
    "Borghans_BiophysChem1997": 83.3237191357272,
    "Brannmark_JBC2010": -141.889113770537,
    "Bruno_JExpBot2016": 46.688176988431806,
    "Chen_MSB2009": -115700.1192629893,  # of data that the collection has corrected since: see docs/petab.md
    "Crauste_CellSystems2017": -190.96521897435176,
    "Elowitz_Nature2000": 63.20279991419332,
    "Fiedler_BMCSystBiol2016": 58.58390161681,
    "Fujita_SciSignal2010": 53.08377736998929,
    "Isensee_JCB2018": -3949.375966548649,
    "Lucarelli_CellSystems2018": -1681.6059879426584,
    "Schwen_PONE2014": -943.9992988598723,
    "Smith_BMCSystBiol2013": -888198.436541014,
    "Sneyd_PNAS2002": 319.79177818768756,
    "Weber_BMC2015": -296.2017922646865,
    "Zheng_PNAS2012": 278.33353271001477,
}
COLUMNS = (
    "problem",
    "states",
    "parameters",
    "experiments",
    "load (s)",
    "first gradient (s)",
    "gradient (ms)",
    "log-likelihood",
    "off the published",
    "adjoint off tangents",
    "gradient off differences",
)


FITTED = ("Boehm_JProteomeRes2014", "Bruno_JExpBot2016", "Oliveira_NatCommun2021", "Rahman_MBS2016")
OF_FITS = ("problem", "parameters", "data", "method", "starts", "reach the best", "time (s)", "log-likelihood, nominal", "best")


def yaml_of(folder: Path) -> Path:
    """The problem in a folder: the file that is called as the folder, or the only one."""
    named = folder / f"{folder.name}.yaml"
    return named if named.exists() else next(iter(sorted(folder.glob("*.yaml"))), named)


def measured(path: Path, options: dict[str, float], repeats: int = 5) -> dict[str, float]:
    """The numbers of a row."""
    from adjode import SolveError
    from adjode.petab import load

    start = time.perf_counter()

    problem = load(path, **options)
    loaded = time.perf_counter()
    value, gradient = problem.evaluate(problem.x0)
    first = time.perf_counter()
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        problem.evaluate(problem.x0)
        times.append(time.perf_counter() - before)
        if sum(times) > 20.0:
            break
    try:
        tangents = off_tangents(problem)
    except (TypeError, ValueError, SolveError):  # where there are none
        tangents = float("nan")
    return {
        "states": len(problem.dynamics.states.names),
        "parameters": len(problem.names),
        "experiments": len(problem.experiments),
        "load": loaded - start,
        "first": first - loaded,
        "gradient": min(times),
        "log_likelihood": problem.log_likelihood(),
        "tangents": tangents,
        "differences": off_differences(problem),
        "finite": bool(np.isfinite(value) and np.isfinite(gradient).all()),
    }


def off_differences(problem, step: float = 1e-4) -> float:
    """How much a derivative along a random direction differs from differences of the loss by tight solves, relative to its terms.

    At a point beside the nominal values, where most gradients vanish; not a number where solves fail.
    """
    from adjode import SolveError

    tight, sizes = problem.with_options(rtol=1e-10, atol=1e-14), np.where(problem._log, 1.0, np.abs(problem.x0))
    direction = sizes * np.random.default_rng(2).choice([-1.0, 1.0], sizes.size)
    x = problem.x0 + 0.02 * direction
    try:
        gradient = problem.evaluate(x)[1]
        losses = [tight.evaluate(x + k * step * direction)[0] for k in (-2, -1, 1, 2)]
    except SolveError:
        return float("nan")
    expected = np.array([1.0, -8.0, 8.0, -1.0]) @ losses / (12.0 * step)
    return float(abs(gradient @ direction - expected) / (np.abs(gradient) @ sizes))


def off_tangents(problem) -> float:
    """How much a derivative of the loss along one direction by discrete adjoints differs from that by tangents, of the size of its
    terms: rounding, if both are right, along the steps of the solve; along shorter ones, the tolerance, where those overflow.
    """
    from adjode import SolveError

    rng = np.random.default_rng(1)
    z = problem._natural(problem.x0)
    direction = rng.standard_normal(z.size) * np.abs(z)  # logarithms change alike
    off = size = 0.0
    for name in problem.experiments.names:
        bound = problem._problem.bound(name)
        both, pull_back = bound.at(z)
        solution = bound.evaluation.solve(both)
        dots = bound._derivatives(pull_back, both.size, z.size) @ direction
        bars = bound.evaluation.loss.value_and_cotangents(solution)[1]["observations"]
        try:
            terms, by_adjoint = both_ways(solution, dots, bars, "warn")
        except SolveError:
            terms, by_adjoint = both_ways(solution, dots, bars, "refine")
        off += abs(by_adjoint - float(terms.sum()))
        size += float(np.abs(terms).sum())
    return off / size


def both_ways(
    solution, dots: np.ndarray, observations: tuple[np.ndarray, np.ndarray], on_inaccurate: str
) -> tuple[np.ndarray, float]:
    """What each observed state contributes to the derivative along `dots` by tangents, and that derivative by adjoints."""
    n, (times, bars), met = solution.u.shape[1], observations, np.unique(observations[0])
    terms = bars * solution.pushforward(dots[:n], dots[n:], met, on_inaccurate=on_inaccurate).u[np.searchsorted(met, times)]
    back = solution.pullback(observations=observations, adjoint="discrete", on_inaccurate=on_inaccurate)
    flat = np.concatenate([np.ravel(list(part.values()) if isinstance(part, dict) else part) for part in (back.u0, back.theta)])
    return terms, float(flat @ dots)


def fitted(path: Path, options: dict[str, float], starts: int) -> tuple[str, ...]:
    """A row of the table of fits."""
    from adjode.petab import load

    problem = load(path, **options)
    nominal, _ = problem.log_likelihood(), problem.has_residuals  # compiles
    before = time.perf_counter()
    result = problem.fit(starts=starts, seed=1)
    passed, best = time.perf_counter() - before, problem.log_likelihood(result.x)
    reached = sum(found.loss - result.loss < 0.1 for found in result.starts)
    sizes = (str(one) for one in (len(problem.names), len(problem.tables.measurements)))
    return path.stem, *sizes, result.method, str(starts), str(reached), f"{passed:.1f}", f"{nominal:.6g}", f"{best:.6g}"


def row(name: str, found: dict[str, float]) -> tuple[str, ...]:
    published = PUBLISHED.get(name)
    off = "" if published is None else f"{abs(found['log_likelihood'] / published - 1.0):.1e}"
    tangents, differences = ("" if np.isnan(found[key]) else f"{found[key]:.1e}" for key in ("tangents", "differences"))
    counts = (str(found[key]) for key in ("states", "parameters", "experiments"))
    times = f"{found['load']:.1f}", f"{found['first']:.1f}", f"{1e3 * found['gradient']:.3g}"
    return name, *counts, *times, f"{found['log_likelihood']:.8g}", off, tangents, differences


def in_process(path: Path, options: dict[str, float], limit: float) -> dict[str, float] | str:
    """What another process has measured, or why it has not."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.petab", "--one", str(path), "--options", json.dumps(options)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"not done in {limit:g} s"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", type=Path, help="folder with a folder for each problem")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="problems whose names begin so")
    parser.add_argument("--rtol", type=float, default=1e-8)
    parser.add_argument("--atol", type=float, default=1e-12)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each problem")
    parser.add_argument("--no-times", action="store_true", help="leave the columns of times out, as on a machine that is busy")
    parser.add_argument("--output", type=Path, help="folder for petab.md")
    parser.add_argument("--fit", type=int, metavar="STARTS", help="fit some, from so many starts")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, default={}, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one, given.options)))
        return
    if given.collection is None:
        parser.error("--collection is needed")
    options = {"rtol": given.rtol, "atol": given.atol}
    if given.fit:
        names = [name for name in FITTED if name.startswith(tuple(given.only) or "")]
        fits = (fitted(yaml_of(given.collection / name), options, given.fit) for name in names)
        report(OF_FITS, fits, given.output, "petab_fits.md")
        return
    kept = [k for k, title in enumerate(COLUMNS) if not (given.no_times and title.endswith("s)"))]
    rows = (tuple(row[k] for k in kept) for row in rows_of(given, options))
    report(tuple(COLUMNS[k] for k in kept), rows, given.output, "petab.md")


def rows_of(given: argparse.Namespace, options: dict[str, float]) -> Iterator[tuple[str, ...]]:
    for folder in sorted(path for path in given.collection.iterdir() if path.is_dir()):
        if given.only and not folder.name.startswith(tuple(given.only)):
            continue
        found = in_process(yaml_of(folder), options, given.limit)
        yield (folder.name, *[""] * (len(COLUMNS) - 2), found) if isinstance(found, str) else row(folder.name, found)


def report(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], output: Path | None, file: str) -> None:
    """Print rows as they come, and write the table."""
    done = []
    for cells in rows:
        print(" | ".join(cells), flush=True)
        done.append(cells)
    if output:
        (output / file).write_text(table(columns, done))


if __name__ == "__main__":
    main()
