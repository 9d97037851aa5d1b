"""Milliseconds of a factorisation and a solve in each storage, beside SciPy's SuperLU, in turns.

    python -m benchmarks.linear_solvers

in the folder of the repository: the Brusselator's matrices on a line and on periodic grids.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from adjode.compile import slots
from adjode.compile.entries import entry
from adjode.compile.flags import i8
from adjode.compile.frame import Frame, opened
from adjode.linalg.linear import make_linear
from adjode.linalg.structure import Structure, as_pattern
from benchmarks.brusselator import brusselator_1d_sparsity, brusselator_2d_sparsity

ROUNDS = 15
SHIFT = 50.0, 40.0  # as large as the diagonal: no pivot is refused


@functools.cache
def passes(kind: str, is_complex: bool) -> tuple[Callable, Callable]:
    """Entries that form and factor c I - J, and that solve."""
    linear = make_linear(kind)
    lu, pivots = (slots.LU_COMPLEX, slots.PIVOTS_COMPLEX) if is_complex else (slots.LU, slots.PIVOTS)
    factors, solves = (linear.factor_complex, linear.solve_complex) if is_complex else (linear.factor, linear.solve)
    shift, shift_complex = linear.shift, linear.shift_complex

    def factor(address):
        frame = opened(address)
        A, J = lu(frame), slots.JACOBIAN(frame)
        if is_complex:
            shift_complex(frame, J, A, 50.0, 40.0, -1.0)
        else:
            shift(frame, J, A, 50.0, -1.0)
        return factors(frame, A, pivots(frame))

    def solve(address):
        frame = opened(address)
        return solves(frame, lu(frame), pivots(frame), slots.UNIT(frame))

    return tuple(entry(each, (i8,), f"{kind}-{is_complex}-{each.__name__}", None) for each in (factor, solve))


def contenders(J, is_complex: bool, kinds: tuple[str, ...]) -> dict[str, tuple[Callable, Callable]]:
    shift = complex(*SHIFT) if is_complex else SHIFT[0]
    matrix = sparse.csc_array(shift * sparse.eye_array(J.shape[0]) - J)
    b = np.ones(J.shape[0], dtype=matrix.dtype)
    lu = splu(matrix, permc_spec="MMD_AT_PLUS_A")
    found = {"SuperLU": (lambda: splu(matrix, permc_spec="MMD_AT_PLUS_A"), lambda: lu.solve(b))}
    for kind in kinds:
        frame, structure = Frame(), Structure(kind, J.shape[0], as_pattern(J))
        structure.put(frame)
        rows, columns = structure.entries
        frame[slots.JACOBIAN].reshape(-1)[structure.places(rows, columns)] = J[rows, columns]
        frame[slots.UNIT] = np.ones(J.shape[0] * (1 + is_complex))
        factor, solve = passes(kind, is_complex)
        found[kind] = tuple(lambda run=run, frame=frame: run(frame.argument) for run in (factor, solve))
    return found


def main() -> None:
    rng = np.random.default_rng(0)
    cases = {"line, n = 1000": (brusselator_1d_sparsity(500), ("banded", "sparse"))}
    cases |= {f"grid, n = {2 * N * N}": (brusselator_2d_sparsity(N), ("sparse",)) for N in (16, 32, 64)}
    print(f"{'matrix':18s} {'':8s} {'solver':8s} {'factor, ms':>11s} {'solve, ms':>10s} {'factor / SuperLU':>17s}")
    for name, (pattern, kinds) in cases.items():
        J = sparse.csc_array(pattern).astype(float)
        J.data = rng.uniform(-1.0, 1.0, J.nnz)
        J -= 6.0 * sparse.eye_array(J.shape[0])
        for is_complex in (False, True):
            runs = contenders(sparse.csc_array(J), is_complex, kinds)
            least = {solver: [np.inf, np.inf] for solver in runs}
            for _ in range(ROUNDS):
                for solver, both in runs.items():
                    for k, run in enumerate(both):
                        start = time.perf_counter()
                        run()
                        least[solver][k] = min(least[solver][k], 1e3 * (time.perf_counter() - start))
            for solver, (factor, solve) in least.items():
                ratio = factor / least["SuperLU"][0]
                kind = "complex" if is_complex else "real"
                print(f"{name:18s} {kind:8s} {solver:8s} {factor:11.3f} {solve:10.3f} {ratio:17.2f}")


if __name__ == "__main__":
    main()
