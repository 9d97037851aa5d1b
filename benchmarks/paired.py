"""Whether a change of the code makes anything slower: the adjode of another checkout beside this one, in one run.

    python -m benchmarks.paired --old PATH [--rows PATTERN ...] [--rounds K] [--clock wall]

measures each row on both in turns, round after round, so that a slow minute of the machine falls on both. For each row the table
has the medians, the median of the ratios of single rounds, and an interval that holds the true one at 95 per cent; a row that is
more than 3 per cent slower is marked, with a question mark where the interval holds 1. The rows are calls in two worker processes:
gradients of the reference problems, a call of one step, which is nine tenths Python, and ensembles on threads; and fresh
processes: imports, first gradients with an empty cache folder and with a full one.

`--rows 'gradient/fused/*' 'import/*'` selects rows by patterns of the shell. Times are CPU seconds, of all threads, which depend
little on other processes; where the machine is idle, `--clock wall` also shows how threads wait. Kernels that the workers need stay
on disk where adjode keeps them, so the first run of a checkout compiles for minutes. First gradients with an empty cache take part
in every tenth round only; an interval needs six of them, so give these rows `--rounds 60`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import resource
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bench_startup import IMPORT, TIERS, first_gradient, seconds
from benchmarks.cases import CASES
from benchmarks.checkout import ROOT
from benchmarks.compare import say
from benchmarks.ensembles import TOLERANCE
from benchmarks.peers.adjode_calls import THREADS
from benchmarks.peers.process import Worker, WorkerError
from benchmarks.report import table
from benchmarks.stiff_cases import CHEMICAL

SLOWER = 1.03
TURN = 0.01  # seconds that a call is repeated in one round
LIFE = 2  # rounds after which workers are started anew: where a process has its code and its arrays makes some per cent
PATIENCE = 1800.0  # seconds that compiling may take


class Call(NamedTuple):
    """A contender of benchmarks/peers/adjode_calls.py, in a worker; measured in every so many rounds."""

    contender: str
    case: str
    tol: float
    every: int = 1


class Start(NamedTuple):
    """Code in a fresh process, with an empty cache folder or with the one that the process before has filled."""

    code: str
    empty: bool = False
    every: int = 3


def rows() -> dict[str, Call | Start]:
    found: dict[str, Call | Start] = {}
    adjoints = {"discrete": "discrete", "interpolating": "gauss"}
    for tier, case, (adjoint, variant), tol in itertools.product(TIERS, (*CASES, *CHEMICAL), adjoints.items(), (1e-6, 1e-8)):
        method = "Radau" if case in CHEMICAL else "Tsit5"
        found[f"gradient/{tier}/{case}/{adjoint}/{tol:.0e}"] = Call(f"adjode: {tier}, {variant}, {method}", case, tol)
    for tier in TIERS:
        found[f"call/{tier}"] = Call(f"adjode: {tier}, one step", "lv_final", 1e-3)
    for tier, threads in itertools.product(TIERS, THREADS):
        found[f"ensemble/{tier}/threads: {threads}"] = Call(f"adjode: {tier}, ensemble, {threads}", "lv_final", TOLERANCE, every=2)
    found["import/numba"], found["import/adjode"] = Start("import numba"), Start(IMPORT)
    for tier, method in itertools.product(TIERS, ("Tsit5", "Radau")):
        found[f"first gradient/{tier}/{method}/empty cache"] = Start(first_gradient(tier, method), empty=True, every=10)
        found[f"first gradient/{tier}/{method}/full cache"] = Start(first_gradient(tier, method))
    return found


class Side:
    """The adjode of one checkout: a worker, started when it is first asked, and a cache folder for fresh processes."""

    def __init__(self, checkout: Path, clock: str):
        self.checkout, self.clock = checkout.resolve(), clock
        self.folder = tempfile.TemporaryDirectory(prefix="adjode-paired-")
        self.worker: Worker | None = None

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *ignored: Any) -> None:
        self.restart()
        self.folder.cleanup()

    def restart(self) -> None:
        if self.worker is not None:
            self.worker.__exit__()
        self.worker = None

    def ask(self, do: str, row: Call, **what: float) -> dict:
        if self.worker is None:
            self.worker = Worker("adjode_calls", None, PATIENCE, self.checkout)
        return self.worker.ask(do, contender=row.contender, case=row.case, tol=row.tol, **what)

    def prepare(self, row: Call | Start) -> None:
        """What is compiled, or kept on disk, before a row is measured."""
        if isinstance(row, Call):
            self.ask("make", row)
        elif not row.empty:
            seconds(row.code, self.folder.name, checkout=self.checkout)

    def measure(self, row: Call | Start) -> float:
        if isinstance(row, Call):
            answer = self.ask("measure", row, seconds=TURN)
            return answer["seconds" if self.clock == "wall" else "cpu"]
        if not row.empty:
            return self._start(row.code, self.folder.name)
        with tempfile.TemporaryDirectory(prefix="adjode-paired-") as folder:
            return self._start(row.code, folder)

    def _start(self, code: str, cache: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall = seconds(code, cache, checkout=self.checkout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall if self.clock == "wall" else after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@dataclass
class Measurement:
    """Seconds of one row, old and new, by rounds."""

    name: str
    old: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return sorted(new / old for old, new in zip(self.old, self.new, strict=True))

    @property
    def interval(self) -> tuple[float, float]:
        """Of the median of the ratios, whatever their distribution: by the ranks of the sign test, which needs six rounds."""
        ratios, below, out = self.ratios, 0.0, 0
        while (below := below + math.comb(len(ratios), out) / 2.0 ** len(ratios)) <= 0.025:
            out += 1
        return (ratios[out - 1], ratios[-out]) if out else (0.0, math.inf)

    @property
    def mark(self) -> str:
        """Whether the new code is slower."""
        if statistics.median(self.ratios) <= SLOWER:
            return ""
        return "slower" if self.interval[0] > 1.0 else "slower?"

    def cells(self) -> tuple[str, ...]:
        times = (duration(statistics.median(times)) for times in (self.old, self.new))
        low, high = self.interval
        return self.name, *times, f"{statistics.median(self.ratios):.3f}", f"{low:.3f} .. {high:.3f}", self.mark


def duration(time: float) -> str:
    unit, factor = next((one for one in (("s", 1.0), ("ms", 1e3)) if time * one[1] >= 1.0), ("µs", 1e6))
    return f"{time * factor:.3g} {unit}"


def compare(sides: tuple[Side, Side], chosen: dict[str, Call | Start], rounds: int) -> list[Measurement]:
    """Prepare all rows, measure them in turns; a row that fails on a side is said and left out."""
    able = {name: row for name, row in chosen.items() if prepare(sides, name, row)}
    found = [Measurement(name) for name in able]
    for number in range(rounds):
        if number and number % LIFE == 0:
            say(f"round {number}")
            restart(sides, able)
        for one, row in zip(found, able.values(), strict=True):
            turn, rest = divmod(number, row.every)
            if rest == 0:
                both = list(zip(sides, (one.old, one.new), strict=True))
                for side, times in both if turn % 2 else reversed(both):
                    times.append(side.measure(row))
    return found


def prepare(sides: tuple[Side, Side], name: str, row: Call | Start) -> bool:
    say(name)
    try:
        for side in sides:
            side.prepare(row)
    except (WorkerError, subprocess.CalledProcessError) as problem:
        say(f"{side.checkout}: {problem}")
        return False
    return True


def restart(sides: tuple[Side, Side], able: dict[str, Call | Start]) -> None:
    for side in sides:
        side.restart()
        for row in able.values():
            if isinstance(row, Call):
                side.prepare(row)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, metavar="PATH", help="the checkout to compare with")
    parser.add_argument("--rows", nargs="+", default=["*"], metavar="PATTERN", help="only these rows")
    parser.add_argument("--rounds", type=int, default=20, metavar="K")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    chosen = {name: row for name, row in rows().items() if any(fnmatchcase(name, pattern) for pattern in given.rows)}
    with Side(given.old, given.clock) as old, Side(ROOT, given.clock) as new:
        measured = compare((old, new), chosen, given.rounds)
    print(table(("row", "old", "new", "new / old", "95 % interval", ""), [one.cells() for one in measured]))
    slower = sum(one.mark == "slower" for one in measured)
    print(f"{slower} of {len(measured)} rows are more than {SLOWER - 1.0:.0%} slower, by {given.clock} time")


if __name__ == "__main__":
    main()
