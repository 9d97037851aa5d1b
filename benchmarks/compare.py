"""Time and gradient error of adjode, of the C floor, and of other libraries, on the reference problems, in one run.

    python -m benchmarks.compare [--problems NAME ...] [--contenders TEXT ...] [--tolerances TOL ...] [--errors ERROR ...] [--quick]
        [--output FOLDER]

in the folder of the repository. `--contenders` keeps those whose name contains one of the texts ("adjode: fused", "heyoka").
The stiff problems, rober, hires, pollu and brusselator_2d, are measured if they are named, and so are Jacobians of residuals:
those of all states at the observation times of another problem, by all of u0 and theta, as J_pollu. Libraries that are not
installed are listed and left out; `python -m pip install -e ".[compare,plot]" numbalsoda` installs all.

For each problem and tolerance all contenders are built, then measured in turns: round after round, each evaluates for a few
milliseconds, so that a slow minute of the machine falls on all of them. The smallest and the median of these times are kept.
Then each library's first gradient is measured in fresh processes: with an empty cache folder, and once more with the same folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import peers
from benchmarks.cases import CASES, JACOBIANS, STIFF_JACOBIANS, Gradient, gradient_error
from benchmarks.peers.process import Pool, Worker, WorkerError
from benchmarks.report import TARGETS, write
from benchmarks.stiff_cases import STIFF_CASES

NAMES = (*CASES, *STIFF_CASES, *JACOBIANS, *STIFF_JACOBIANS)
TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10)
FINE = (1e-12, 1e-13, 1e-14)  # for methods of high order
STARTUP_TOLERANCE = 1e-8


class Effort(NamedTuple):
    tolerances: tuple[float, ...]
    rounds: int
    turn: float  # seconds that a contender evaluates in one round
    most: float  # seconds after which a contender takes no further turn in a problem and tolerance
    startups: int  # fresh processes with a full cache
    patience: float = 300.0
    fine: tuple[float, ...] = ()  # tolerances for methods of high order alone


FULL = Effort(TOLERANCES, rounds=30, turn=0.008, most=2.0, startups=3, fine=FINE)
QUICK = Effort((1e-6, 1e-8), rounds=7, turn=0.004, most=0.5, startups=1)


@dataclass
class Measurement:
    """One contender on one problem at one tolerance."""

    contender: str
    peer: str
    case: str
    tol: float
    floor: str | None
    error: float | None = None
    seconds: list[float] = field(default_factory=list)
    failure: str | None = None

    def summary(self) -> dict[str, Any]:
        times = self.seconds
        found = {"min": min(times), "median": statistics.median(times), "rounds": len(times)} if times else {}
        return {key: value for key, value in asdict(self).items() if key != "seconds"} | found


def measure_case(case: str, tol: float, pool: Pool, chosen: list[peers.Contender], effort: Effort) -> list[dict[str, Any]]:
    """Build all contenders, then measure them in turns."""
    measured = (one for one in chosen if case in one.cases and (one.fine or tol not in effort.fine))
    cells = [Measurement(one.name, one.peer, case, tol, one.floor) for one in measured]
    for cell in cells:
        try:
            answer = pool.ask(cell.peer, "make", contender=cell.contender, case=case, tol=tol)
            cell.error = gradient_error(case, Gradient(**answer["gradient"]))
        except WorkerError as problem:
            cell.failure = str(problem)
    spent = dict.fromkeys((cell.contender for cell in cells), 0.0)
    for _ in range(effort.rounds):
        for cell in cells:
            if cell.failure is None and spent[cell.contender] < effort.most:
                start = time.perf_counter()
                _take_turn(cell, pool, effort.turn)
                spent[cell.contender] += time.perf_counter() - start
    for peer in {cell.peer for cell in cells}:
        pool.ask(peer, "drop")
    return [cell.summary() for cell in cells]


def _take_turn(cell: Measurement, pool: Pool, seconds: float) -> None:
    try:
        answer = pool.ask(cell.peer, "measure", contender=cell.contender, case=cell.case, tol=cell.tol, seconds=seconds)
        cell.seconds.append(answer["seconds"])
    except WorkerError as problem:
        cell.failure = str(problem)


def measure_speed(problems, chosen: list[peers.Contender], effort: Effort) -> list[dict[str, Any]]:
    """All problems at all tolerances."""
    results = []
    with tempfile.TemporaryDirectory(prefix="adjode-compare-") as cache, Pool(cache, effort.patience) as pool:
        for case in problems:
            for tol in (*effort.tolerances, *effort.fine):
                say(f"{case}, tolerance {tol:.0e}")
                results += measure_case(case, tol, pool, chosen, effort)
    return results


def measure_startup(problems, chosen: list[peers.Contender], effort: Effort) -> list[dict[str, Any]]:
    """From the start of a process to its first gradient, and the most memory that it took."""
    results = []
    for case in problems:
        for one in chosen:
            if one.startup and case in one.cases:
                say(f"first gradient: {one.name}, {case}")
                results.append({"contender": one.name, "peer": one.peer, "case": case, **_startups(one, case, effort)})
    return results


def _startups(one: peers.Contender, case: str, effort: Effort) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="adjode-startup-") as cache:
        try:
            cold = _first_gradient(one, case, cache, effort)
            warm = [_first_gradient(one, case, cache, effort) for _ in range(effort.startups)]
        except WorkerError as problem:
            return {"failure": str(problem)}
    return {
        "empty_seconds": cold[0],
        "empty_bytes": cold[1],
        "full_seconds": min(seconds for seconds, _ in warm),
        "full_bytes": warm[0][1],
    }


def _first_gradient(one: peers.Contender, case: str, cache: str, effort: Effort) -> tuple[float, int | None]:
    with Worker(one.peer, cache, effort.patience) as worker:
        worker.ask("make", contender=one.name, case=case, tol=STARTUP_TOLERANCE)
        seconds = time.perf_counter() - worker.started
        return seconds, worker.ask("memory")["bytes"]


def choose(wanted: list[str] | None) -> tuple[list[peers.Contender], dict[str, str], dict[str, dict[str, str]]]:
    """The contenders that can run, why others cannot, and the versions of the libraries."""
    chosen, absent, versions = [], {}, {}
    for peer in peers.PEERS:
        these = [one for one in peers.module(peer).contenders() if not wanted or any(text in one.name for text in wanted)]
        if not these:
            continue
        why = peers.why_not(peer)
        if why:
            absent[peer] = why
            continue
        chosen += these
        versions[peer] = peers.versions(peer)
    return chosen, absent, versions


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=NAMES, default=list(CASES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--contenders", nargs="+", metavar="TEXT", help="those whose name contains one of these texts")
    parser.add_argument("--tolerances", nargs="+", type=float, metavar="TOL", help="others than those of the tables")
    parser.add_argument("--errors", nargs="+", type=float, default=TARGETS, metavar="ERROR", help="at which times are compared")
    parser.add_argument("--quick", action="store_true", help="fewer tolerances and rounds")
    parser.add_argument("--no-startup", action="store_true", help="leave out the first gradients of fresh processes")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write compare.json, tables and figure there")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    effort = QUICK if given.quick else FULL
    if given.tolerances:
        effort = effort._replace(tolerances=tuple(given.tolerances), fine=())
    chosen, absent, versions = choose(given.contenders)
    if not chosen:
        raise SystemExit("No contender is left: none has such a name, or its library is not installed.")
    for peer, why in absent.items():
        say(f"{peer}: {why}")
    results = {
        "machine": {"processor": processor(), "python": platform.python_version(), "date": time.strftime("%Y-%m-%d")},
        "versions": versions,
        "absent": absent,
        "startup_tolerance": STARTUP_TOLERANCE,
        "errors": given.errors,
        "speed": measure_speed(given.problems, chosen, effort),
        "startup": [] if given.no_startup else measure_startup(given.problems, chosen, effort),
    }
    write(json.loads(json.dumps(results)), given.output)


if __name__ == "__main__":
    main()
