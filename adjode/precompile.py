"""Compile kernels before they are needed: `python -m adjode.precompile`.

The portable tier is compiled whole, but for matrices that are not dense; the fused tier for the methods in `METHODS` and
`FAMILIES`, as far as it depends on no callbacks. So once on a machine is enough, when a container image or an environment is built.
The kernels are kept in the folder that ADJODE_PRECOMPILED names, beside the package by default, and found from there by every
process of every user, whatever NUMBA_CACHE_DIR says. Kernels that other sources, another Numba or another CPU made are never used.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core import config
from tqdm import tqdm

from adjode import losses
from adjode.adjoints import backsolve, discrete, interpolating
from adjode.calls import FUSED, PORTABLE
from adjode.ensembles import driver
from adjode.frame import Frame
from adjode.jit import DISABLED, precompiled_folder
from adjode.loops import trajectory
from adjode.solve import make_forward
from adjode.steppers.families import Solver
from adjode.tableaus import tableau

METHODS = ("Tsit5", "DOP853")
FAMILIES = ("radau", "esdirk")
PASSES = ("solve", "discrete-recorded", "interpolating")


def precompile(*, progress: bool = False) -> Path:
    """Compile what is not there yet; the folder.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    folder = precompiled_folder()
    folder.mkdir(parents=True, exist_ok=True)
    passes: dict[str, Callable] = {
        "solve": make_forward,
        "discrete-recorded": functools.partial(discrete.make_discrete, recorded=True),
        "discrete": functools.partial(discrete.make_discrete, recorded=False),
        "interpolating": interpolating.make_backward,
        "backsolve": backsolve.make_backward,
    }
    work: list[Callable[[], Any]] = [functools.partial(PORTABLE.entry, name, Frame(), make) for name, make in passes.items()]
    stages = {None, *((one.stages, len(one.A) - 1) for one in map(tableau, METHODS))}
    work += [functools.partial(FUSED.outline, name, passes[name], some) for name in PASSES for some in stages]
    for family, name in itertools.product(FAMILIES, PASSES):
        solver = Solver(family, "dense")
        named = solver.entry_name(name), functools.partial(passes[name], solver=solver)
        work += [functools.partial(PORTABLE.entry, named[0], Frame(), named[1]), functools.partial(FUSED.outline, *named, None)]
    work += [*trajectory.ENTRIES, *losses.ENTRIES, *driver.ENTRIES]
    kept, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        for compile_one in tqdm(work, desc="compiling kernels", disable=not progress):
            compile_one()
    finally:
        config.CACHE_DIR = kept
    return folder


if __name__ == "__main__":
    if DISABLED:
        sys.exit("NUMBA_DISABLE_JIT is set: there is nothing to compile.")
    print(f"kernels are in {precompile(progress=True)}")
