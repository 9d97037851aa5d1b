"""Compile kernels before they are needed: `python -m adjode.precompile`.

The portable tier is compiled whole, but for matrices that are not dense; the fused tier for the methods in `METHODS` and for all
implicit families that can be transposed, as far as it depends on no callbacks. So once on a machine is enough, when a container
image or an environment is built.
The kernels are kept in the folder that ADJODE_PRECOMPILED names, beside the package by default, and found from there by every
process of every user, whatever NUMBA_CACHE_DIR says, if the user, root or the owner of the package has made them. Kernels that
other sources, another Numba or another CPU made are never used.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from numba.core import config
from tqdm import tqdm

from adjode.adjoints import backsolve, costs, discrete, interpolating, rates, second_order, tangents
from adjode.backends import driver
from adjode.compile.cache import claimed, precompiled_folder
from adjode.compile.calls import FUSED, PORTABLE
from adjode.compile.flags import DISABLED
from adjode.compile.frame import Frame
from adjode.compile.tiers import fused_works
from adjode.model import losses
from adjode.passes import program, trajectory
from adjode.passes.forward import make_forward
from adjode.steppers.family import EXPLICIT, FAMILIES, Solver
from adjode.tableaus import Tableau, tableau

METHODS = ("Tsit5", "DOP853")
_SWITCHING = "auto"  # whose explicit steps are straight code
PASSES = ("solve", "discrete-recorded", "interpolating")


def _stages(method: Tableau) -> tuple[int, int]:
    """As `Calls.entry` has them."""
    return method.stages, len(method.A) - 1


def _tasks() -> list[Callable[[], Any]]:
    passes: dict[str, Callable] = {
        "solve": make_forward,
        "discrete-recorded": functools.partial(discrete.make_discrete, recorded=True),
        "discrete": functools.partial(discrete.make_discrete, recorded=False),
        "interpolating": interpolating.make_backward,
        "backsolve": backsolve.make_backward,
    }
    outline, jumping = (FUSED.outline, FUSED.jumping.outline) if fused_works() else 2 * (lambda *named: b"",)
    tasks: list[Callable[[], Any]] = []
    implicit = [family for family in FAMILIES.values() if family.records_stages]
    for family, name in itertools.product(implicit, PASSES):  # these take longest, so they come first
        solver = Solver(family, "dense")
        named = solver.entry_name(name), functools.partial(passes[name], solver=solver)
        tasks.append(functools.partial(PORTABLE.entry, named[0], Frame(), named[1]))
        tasks.append(functools.partial(outline, *named, _stages(tableau(_SWITCHING)) if family.switches else None))
    others = [family for family in FAMILIES.values() if family.implicit and not family.records_stages]
    for family, name in itertools.product(others, ("solve", "interpolating")):
        solver = Solver(family, "dense")
        make = functools.partial(passes[name], solver=solver)
        tasks.append(functools.partial(PORTABLE.entry, solver.entry_name(name), Frame(), make))
    for family, name in itertools.product(implicit, ("solve", "discrete-recorded")):
        if family.takes_mass_matrix:
            solver = Solver(family, "dense", massed=True)
            make = functools.partial(passes[name], solver=solver)
            tasks.append(functools.partial(PORTABLE.entry, solver.entry_name(name), Frame(), make))
    solvers = [Solver(family, "dense", massed) for family in implicit for massed in {False, family.takes_mass_matrix}]
    for solver in (*solvers, EXPLICIT):
        make = functools.partial(tangents.make_tangents, recorded=True, solver=solver)
        tasks.append(functools.partial(PORTABLE.entry, solver.entry_name("tangents-recorded"), Frame(), make))
        make = functools.partial(second_order.make_second_order, solver=solver)
        tasks.append(functools.partial(PORTABLE.entry, solver.entry_name("second-order"), Frame(), make))
    tasks += [functools.partial(PORTABLE.entry, name, Frame(), make) for name, make in passes.items()]
    tasks.append(functools.partial(PORTABLE.entry, "costs", Frame(), costs.make_costs))
    tasks.append(functools.partial(PORTABLE.entry, "tangents", Frame(), functools.partial(tangents.make_tangents, recorded=False)))
    of_rates = functools.partial(rates.make_rates, kind="dense", massed=False)
    tasks.append(functools.partial(PORTABLE.entry, "rates-dense", Frame(), of_rates))
    for method, name in itertools.product(map(tableau, METHODS), PASSES):
        tasks.append(functools.partial(outline, name, passes[name], _stages(method)))
        tasks.append(functools.partial(jumping, name, passes[name], _stages(method)))
    return [*tasks, *program.ENTRIES, *trajectory.ENTRIES, *losses.ENTRIES, *driver.ENTRIES]


def _compile(folder: str, task: int) -> None:
    kept, config.CACHE_DIR = config.CACHE_DIR, folder
    try:
        _tasks()[task]()
    finally:
        config.CACHE_DIR = kept


def precompile(*, progress: bool = False, workers: int | None = None) -> Path:
    """Compile what is not there yet, in processes side by side: one for each CPU, or as many as `workers`; the folder.

    Raises
    ------
    OSError
        If the folder cannot be written to, or others may write to it.
    """
    folder = precompiled_folder()
    claimed(folder, mode=0o755)  # for all users to read
    tasks = range(len(_tasks()))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        done = pool.map(_compile, itertools.repeat(str(folder)), tasks)
        for _ in tqdm(done, total=len(tasks), desc="compiling kernels", disable=not progress):
            pass
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, help="processes that compile; by default one for each CPU")
    given = parser.parse_args()
    if DISABLED:
        sys.exit("NUMBA_DISABLE_JIT is set: there is nothing to compile.")
    print(f"kernels are in {precompile(workers=given.workers, progress=True)}")


if __name__ == "__main__":
    main()
