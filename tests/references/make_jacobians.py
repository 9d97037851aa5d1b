"""Recompute the reference Jacobians of residuals, without adjode, and compare.

    python tests/references/make_jacobians.py            compare, and fail if anything is off
    python tests/references/make_jacobians.py --write    compute them anew with smaller steps, and write jacobians.npz

All by Radau IIA collocation of order 13 with forward sensitivities (collocation.py). The second way: pulled back through the loss
of the problem, each gives the gradient that make.py and make_stiff.py have computed by other methods.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.cases import (
    HIDDEN,
    JACOBIANS,
    STIFF_JACOBIANS,
    Gradient,
    case,
    derivatives_from_tangents,
    gradient_error,
)
from tests.references import collocation
from tests.references.make_stiff import SYSTEMS

FILE = Path(__file__).parent / "jacobians.npz"
LIMIT = 1e-10  # of the difference of a block, relative to its largest entry


def lotka_volterra(u, theta):
    x, y = u[..., 0], u[..., 1]
    a, b, c, d = (theta[..., k] for k in range(4))
    return np.stack(np.broadcast_arrays(a * x - b * x * y, d * x * y - c * y), axis=-1)


def spiral(u, theta):
    cubes, k = u**3, 2 * HIDDEN
    inner = theta[..., 0:k:2] * cubes[..., :1] + theta[..., 1:k:2] * cubes[..., 1:] + theta[..., k : 3 * HIDDEN]
    active = np.tanh(inner)
    rows = [(theta[..., start : start + HIDDEN] * active).sum(axis=-1) for start in (3 * HIDDEN, 4 * HIDDEN)]
    return np.stack([row + theta[..., 5 * HIDDEN + i] for i, row in enumerate(rows)], axis=-1)


F = {"lotka_volterra": lotka_volterra, "spiral": spiral, **SYSTEMS}


def compute(name: str, tol: float) -> tuple[Gradient, Gradient]:
    """The Jacobian, and the gradient of the problem that follows from it."""
    problem = case(name)
    states, tangents, _ = collocation.solve(F[problem.system], problem.u0, problem.theta, problem.t_span, problem.times, tol=tol)
    whole = case(name.removeprefix("J_"))
    return tuple(derivatives_from_tangents(one, states, tangents) for one in (problem, whole))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="compute with smaller steps and write jacobians.npz")
    given = parser.parse_args()
    found, agreed = {}, True
    for name in (*JACOBIANS, *STIFF_JACOBIANS):
        J, gradient = compute(name, 1e-8 if given.write else 1e-6)
        errors = {"gradient": gradient_error(name.removeprefix("J_"), gradient)}
        if not given.write:
            errors["stored"] = gradient_error(name, J)
        print(f"{name:12s} " + "  ".join(f"{way} {error:.1e}" for way, error in errors.items()), flush=True)
        agreed &= max(errors.values()) < LIMIT
        found |= {f"{name}/{block}": getattr(J, block) for block in ("u0", "theta")}
    if given.write and agreed:
        np.savez_compressed(FILE, **found)
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
