"""Every pair of f and vjp of the benchmarks and the test problems: the derived vjp is the hand-written one, to rounding."""

import importlib
import re

import numpy as np
import pytest

from adjode import derive
from benchmarks import brusselator, problems
from tests.problems import jumps

MODULES = (
    "benchmarks.problems",
    "benchmarks.chemistry",
    "benchmarks.brusselator",
    "benchmarks.stiff_problems",
    "benchmarks.scaling",
    "benchmarks.bit_runs",
    "tests.problems.mass_systems",
    "tests.problems.stiff_systems",
    "tests.problems.systems",
    "tests.problems.random_problems",
)
SIZES = {  # numbers of states and parameters, where the text does not show them
    "brusselator_2d": (128, 4),
    "spiral": (2, 252),
    "pleiades": (28, 7),
    "network": (64, 4482),
    "wide": (5, 30),
    "hires": (8, 12),
    "pollu": (20, 25),
    "brusselator_1d": (10, 3),
    "amplifier": (8, 1),
    "dense": (4, 20),
    "rod": (6, 2),
    "ring": (6, 2),
    "mean": (1, 7),
    "_linear": (4, 16),
    "benchmarks.stiff_problems:linear": (3, 3),
    "robertson": (3, 3),
    "family": (3, 60),
    "_compiled": (3, 60),
    "chain": (4, 4),
    "solved": (4, 4),
    "reflected": (4, 4),
    "_decay": (3, 3),
}


def pairs():
    found = {}
    for name in MODULES:
        space = vars(importlib.import_module(name))
        for f_name in [key for key in space if key.endswith("_f")]:
            stem = f_name.removesuffix("_f")
            if f"{stem}_vjp" in space:
                found[f"{name.rpartition('.')[2]}:{stem}"] = (stem, space[f_name], space[f"{stem}_vjp"], f"{name}:{stem}")
    found["brusselator_2d"] = ("brusselator_2d", *brusselator.brusselator_2d_callbacks(8)[:2], "")
    for sign in (1.0, -1.0):
        found[f"jumping:{sign}"] = ("jumping", *jumps.callbacks(sign, True)[:2], "")
    return found


PAIRS = pairs()


@pytest.mark.parametrize("name", PAIRS)
def test_derived_vjp_is_the_hand_written_one(name):
    stem, f, vjp, path = PAIRS[name]
    derived = derive(f)
    n, m = SIZES.get(path) or SIZES.get(stem) or sizes_in(derived.vjp_source)
    rng = np.random.default_rng(0)
    u, theta, lam = rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, m), rng.normal(size=n)
    if stem == "network":
        theta = problems.network_input()[1]
    given, expected = (np.full(n + m, np.nan) for _ in range(2))
    derived.vjp(0.3, u, theta, lam, given[:n], given[n:])
    results = getattr(vjp, "py_func", vjp)(0.3, u, theta, lam, *((expected[:n], expected[n:]) if takes_six(vjp) else ()))
    if results is not None:
        expected[:] = np.concatenate(results)
    written = ~np.isnan(expected)  # not all parameters are there for all
    np.testing.assert_array_equal(given[~written], 0.0)
    np.testing.assert_allclose(given[written], expected[written], rtol=1e-12, atol=1e-13 * np.abs(expected[written]).max())
    alone = np.full(n, np.nan)
    derived.vjp_u(0.3, u, theta, lam, alone)
    np.testing.assert_allclose(alone, given[:n], rtol=1e-12, atol=1e-13 * np.abs(given[:n]).max())


def sizes_in(text):
    """Those of straight code: each entry stands there by its number."""
    return tuple(max(map(int, re.findall(rf"{name}_bar\[(\d+)\] =", text)), default=-1) + 1 for name in ("u", "theta"))


def takes_six(vjp):
    return getattr(vjp, "py_func", vjp).__code__.co_argcount == 6
