"""Recompute the references of the stiff problems, without adjode, and compare.

    python tests/references/make_stiff.py            compare, and fail if anything is off
    python tests/references/make_stiff.py --write    compute them anew in two ways, compare these, and write stiff.npz

`--problems NAME ...` chooses; brusselator_2d, which takes minutes, only runs if it is named.

The first way: Radau IIA collocation of order 13, Newton's method to rounding in every step, forward sensitivities, with derivatives
of f by the complex step; long doubles where double precision does not give ten digits. The second way: the method of order 9 with
other steps, and the complex step through the whole solve along random directions. The grid: see grid.py. `rober` has a reference of
its own in problems.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.cases import references
from benchmarks.stiff_cases import REACTIONS, stiff_case
from tests.references import collocation, grid

FILE = Path(__file__).parent / "stiff.npz"
LONG = {"van_der_pol_1e+03"}
LIMIT = 1e-10  # of the difference of a block, relative to its largest entry


def chemistry(name):
    """f of a table of reactions, for states (..., n) and parameters (..., m)."""
    reactions, n = REACTIONS[name], stiff_case(name).u0.size
    change = np.zeros((len(reactions), n))
    for k, reaction in enumerate(reactions):
        np.add.at(change[k], list(reaction.reactants), -1.0)
        np.add.at(change[k], list(reaction.products), 1.0)

    def f(u, theta):
        rates = [theta[..., one.parameter] + 0.0 * u[..., 0] for one in reactions]
        for k, one in enumerate(reactions):
            for i in one.reactants:
                rates[k] = rates[k] * u[..., i]
        return np.stack(rates, axis=-1) @ change

    return f


def orego(u, theta):
    s, q, w = (theta[..., k] for k in range(3))
    x, y, z = (u[..., k] for k in range(3))
    return np.stack(np.broadcast_arrays(s * (y + x * (1 - q * x - y)), (z - (1 + x) * y) / s, w * (x - z)), axis=-1)


def van_der_pol(u, theta):
    x, y = u[..., 0], u[..., 1]
    return np.stack(np.broadcast_arrays(y, theta[..., 0] * (1 - x * x) * y - theta[..., 1] * x), axis=-1)


def brusselator_1d(u, theta):
    a, b, d = (theta[..., k : k + 1] for k in range(3))
    x, y = u[..., ::2], u[..., 1::2]
    square = (x.shape[-1] + 1) ** 2

    def diffusion(z, end):
        ends = np.full((*z.shape[:-1], 1), end)
        padded = np.concatenate([ends, z, ends], axis=-1)
        return d * square * (padded[..., 2:] - 2 * z + padded[..., :-2])

    both = np.broadcast_arrays(a + x * x * y - (b + 1) * x + diffusion(x, 1.0), b * x - x * x * y + diffusion(y, 3.0))
    return np.stack(both, axis=-1).reshape(*both[0].shape[:-1], -1)


SYSTEMS = {name: chemistry(name) for name in REACTIONS} | {
    "orego": orego,
    "van_der_pol_1e+00": van_der_pol,
    "van_der_pol_1e+03": van_der_pol,
    "van_der_pol_1e+06": van_der_pol,
    "brusselator_1d": brusselator_1d,
}


def dtype_of(name):
    return np.longdouble if name in LONG else np.float64


def compute(name, tol):
    case = stiff_case(name)
    if name == "brusselator_2d":
        return grid.gradient(case, tol)[0]
    return collocation.gradient(case, SYSTEMS[name], dtype_of(name), tol=tol)[0]


def second_way(name, blocks):
    """How far the gradient is from slopes along random directions, relative to them; parameters move relative to their size."""
    case, rng = stiff_case(name), np.random.default_rng(1)
    worst = 0.0
    for _ in range(1 if name == "brusselator_2d" else 3):
        direction = np.concatenate([rng.normal(size=case.u0.size), case.theta * rng.normal(size=case.theta.size)])
        if name == "brusselator_2d":
            found = grid.slope(case, direction, 1e-6)
        else:
            found = collocation.slope(case, SYSTEMS[name], direction, dtype_of(name), stages=5, tol=1e-8)
        parts = np.concatenate([blocks["u0"], blocks["theta"]]) * direction
        worst = max(worst, float(abs(parts.sum() - found) / np.abs(parts).sum()))
    return worst


def differences(blocks, stored):
    return {
        block: float(np.max(np.abs(values - stored[block])) / np.max(np.abs(stored[block]))) for block, values in blocks.items()
    }


def report(name, errors):
    print(f"{name:18s} " + "  ".join(f"{block} {error:.1e}" for block, error in errors.items()), flush=True)
    return max(errors.values()) < LIMIT


def stored_references():
    if not FILE.exists():
        return {}
    found: dict = {}
    with np.load(FILE) as stored:
        for key in stored.files:
            name, block = key.split("/")
            found.setdefault(name, {})[block] = stored[key]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="compute in two ways and write stiff.npz")
    parser.add_argument("--problems", nargs="+", default=list(SYSTEMS), choices=[*SYSTEMS, "brusselator_2d"], metavar="NAME")
    given = parser.parse_args()
    stored, agreed = stored_references(), True
    for name in given.problems:
        blocks = compute(name, (3e-7 if name == "brusselator_2d" else 1e-8) if given.write else 1e-6)
        blocks = {block: values.astype(float) for block, values in blocks.items()}
        if given.write:
            agreed &= report(name, {"another way": second_way(name, blocks)})
            stored[name] = blocks
        truth = (
            {block: np.array(values) for block, values in references()["rober"]["reference"].items()}
            if name == "rober"
            else stored[name]
        )
        agreed &= report(name, differences(blocks, truth))
    if given.write and agreed:
        np.savez(
            FILE,
            **{f"{name}/{block}": values for name, blocks in stored.items() for block, values in blocks.items() if name != "rober"},
        )
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
