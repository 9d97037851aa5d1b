"""What it takes to compile what is derived: reaction networks as straight-line code, and derived rules beside rules by hand.

    python -m benchmarks.compiling [--reactions R ...] [--problems NAME ...] [--rounds K] [--output FOLDER]

prints, and with `--output` writes to compiling.md and compiling_problems.md there, CPU seconds of this process. A network of R
reactions, by mass action and, of half of those with one reactant, by Michaelis and Menten, with 0.4 R species, is generated as one
function of 1.4 R lines; what is timed is to derive its vjp, to find the zeros of its Jacobian, and to compile. Of the reference
problems the vjp is compiled as it is derived and as it is written by hand, in turns, the least of K times each. Nothing is taken
from a cache.
"""

from __future__ import annotations

import argparse
import linecache
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

import adjode
from adjode.model.callbacks import Callback
from benchmarks.derived import PROBLEMS, geometric_mean
from benchmarks.report import table

SIZES = (100, 200, 500, 1000)


def network(reactions: int, seed: int = 1) -> tuple[Callable, int, int]:
    """f of a random network of one or two reactants and products, and its numbers of species and parameters."""
    rng, species, parameters = np.random.default_rng(seed), int(reactions / 2.5), reactions
    gains: list[list[str]] = [[] for _ in range(species)]
    lines = ["def f(t, u, theta, du):"]
    for r in range(reactions):
        before, after = (rng.choice(species, rng.integers(1, 3), replace=False) for _ in range(2))
        law = f"theta[{r}] * " + " * ".join(f"u[{i}]" for i in before)
        if before.size == 1 and r % 2:
            law, parameters = f"{law} / (theta[{parameters}] + u[{before[0]}])", parameters + 1
        lines.append(f"    r{r} = {law}")
        for sign, places in (("-", before), ("+", after)):
            for i in places:
                gains[i].append(f"{sign} r{r}")
    lines += [f"    du[{i}] = {' '.join(terms).lstrip('+ ') or '0.0'}" for i, terms in enumerate(gains)]
    text, file = "\n".join(lines) + "\n", f"<network of {reactions} reactions, {seed}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    space: dict = {}
    exec(compile(text, file, "exec"), space)
    return space["f"], species, parameters


def timed(call: Callable) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def measure_network(reactions: int) -> tuple[str, ...]:
    f, n, m = network(reactions)
    found: list = []
    deriving = timed(lambda: found.append(adjode.derive(f)))
    derived = found[0]
    zeros = timed(lambda: found.append(derived.sparsity(n, m)))
    compiling = timed(lambda: [compiled(name, function) for name, function in (("f", f), ("vjp", derived.vjp))])
    total = deriving + zeros + compiling
    return str(reactions), str(n), str(found[1][0].size), *(f"{one:.1f}" for one in (deriving, zeros, compiling, total))


def compiled(name: str, function: Callable) -> None:
    """Compile a callback as solves do, whatever has been compiled before."""
    callback = Callback(name, function)
    callback.key = None
    assert callback.handle


def measure_problem(name: str, rounds: int) -> tuple[str, ...]:
    given = PROBLEMS[name][0]().dynamics
    derived = adjode.derive(given.f.given)
    ways = given.vjp.given, derived.vjp
    least = np.min([[timed(lambda way=way: compiled("vjp", way)) for way in ways] for _ in range(rounds)], axis=0)
    return name, *(f"{one:.2f}" for one in least), f"{least[1] / least[0]:.2f}"


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reactions", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--problems", nargs="*", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    compiled("f", network(10)[0])
    networks = [measure_network(one) for one in chosen.reactions]
    rows = [measure_problem(one, chosen.rounds) for one in chosen.problems]
    heads = ("reactions", "species", "entries of the Jacobian", "derive, s", "zeros, s", "compile, s", "in all, s")
    if networks:
        report("compiling", table(heads, networks), chosen.output)
    if rows:
        text = table(("problem", "vjp by hand, s", "derived, s", "derived / by hand"), rows)
        report("compiling_problems", text + geometric_mean(rows, 3), chosen.output)


def report(name: str, text: str, folder: Path | None) -> None:
    print(text)
    if folder is not None:
        (folder / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
