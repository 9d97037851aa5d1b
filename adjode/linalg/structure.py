"""`Structure`: where the entries of a Jacobian lie, and what the kernels of its storage need in a frame."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.frame import Frame
from adjode.linalg import lapack
from adjode.linalg.superlu import SuperLU
from adjode.linalg.symbolic import SIZE, analyse, multiplications

KINDS = ("dense", "banded", "sparse")
_LAPACK = {"dense": ("getrf", "getrs"), "banded": ("gbtrf", "gbtrs")}


@dataclass(frozen=True, eq=False)
class Structure:
    """The storage of an (n, n) matrix.

    Attributes
    ----------
    kind : {"dense", "banded", "sparse"}
    n : int
    pattern : sparse (n, n) matrix by columns, or None
        Where entries may differ from zero, the diagonal among them; None for everywhere.
    """

    kind: str
    n: int
    pattern: Any = None

    @functools.cached_property
    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the entries that may differ from zero, by columns."""
        if self.pattern is None:
            columns, rows = np.divmod(np.arange(self.n * self.n), max(1, self.n))
            return rows, columns
        return self.pattern.indices.astype(np.int64), np.repeat(np.arange(self.n), np.diff(self.pattern.indptr))

    @functools.cached_property
    def widths(self) -> tuple[int, int]:
        """The numbers of subdiagonals and superdiagonals."""
        rows, columns = self.entries
        return int(np.max(rows - columns, initial=0)), int(np.max(columns - rows, initial=0))

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix that holds the entries."""
        if self.kind == "dense":
            return self.n, self.n
        if self.kind == "banded":
            return self.n, 2 * self.widths[0] + self.widths[1] + 1
        return 1, self.entries[0].size

    @functools.cached_property
    def symbolic(self) -> np.ndarray:
        """The order of elimination and the fill-in, of a sparse matrix."""
        return analyse(self.pattern) if self.kind == "sparse" else np.zeros(0, dtype=np.int64)

    def places(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Where entries lie in the flat storage."""
        if self.kind == "dense":
            return rows * self.n + columns
        if self.kind == "banded":
            return columns * self.shape[1] + sum(self.widths) + rows - columns
        return np.searchsorted(self.entries[1] * self.n + self.entries[0], columns * self.n + rows)

    def put(self, frame: Frame) -> None:
        """Fill the slots that the kernels of `make_linear` read; make room for a Jacobian, a real and a complex factorisation."""
        every, (height, width) = np.arange(self.n), self.shape
        frame[slots.WIDTHS] = np.array(self.widths if self.kind == "banded" else (0, 0), dtype=np.int64)
        frame[slots.DIAGONAL] = np.ascontiguousarray(self.places(every, every))
        frame[slots.JACOBIAN], frame[slots.SYMBOLIC] = np.zeros((height, width)), self.symbolic
        if self.kind == "sparse":
            reserve = SuperLU(self.pattern)
            frame.owners.append(reserve)
            frame[slots.ROUTINES] = np.concatenate([reserve.routines, lapack.products()])
            width = int(self.symbolic[SIZE])
        else:
            frame[slots.ROUTINES] = lapack.routines(*_LAPACK[self.kind])
        frame[slots.LU], frame[slots.LU_COMPLEX] = np.zeros((height, width)), np.zeros((height, 2 * width))
        size = 2 * self.n if self.kind == "sparse" else self.n
        frame[slots.PIVOTS], frame[slots.PIVOTS_COMPLEX] = np.zeros((2, size), dtype=np.int64)


def read_sparsity(given: Any) -> Any:
    """`jac_sparsity` as a sparse pattern by columns with the diagonal in it; None and "probe" as they are."""
    if given is None or (isinstance(given, str) and given == "probe"):
        return given
    from scipy import sparse

    if isinstance(given, str) or (not sparse.issparse(given) and np.asarray(given).dtype.kind not in "fiub"):
        kind = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
        raise TypeError(f'jac_sparsity must be an (n, n) array or sparse matrix, or "probe", but {kind} was given.')
    shape = np.shape(given)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"jac_sparsity must be a square matrix (n, n), but its shape is {shape}.")
    return as_pattern(sparse.csc_array(given) != 0)


def as_pattern(matrix: Any) -> Any:
    """The entries stored in a sparse matrix, and the diagonal, by columns."""
    from scipy import sparse

    pattern = sparse.csc_array((matrix + sparse.eye_array(matrix.shape[0], dtype=bool)).astype(bool))
    pattern.sort_indices()
    return pattern


def choose_structure(n: int, pattern: Any, linear_solver: str) -> Structure:
    """The structure for `linear_solver`, "auto" or one of `KINDS`."""
    if linear_solver != "auto":
        return Structure(linear_solver, n, pattern)
    if pattern is None:
        return Structure("dense", n)
    return min((Structure(kind, n, pattern) for kind in KINDS), key=_nanoseconds)


def _nanoseconds(structure: Structure) -> float:
    """Roughly what a factorisation takes, by its multiplications and its columns; measured for n from 20 to 10^4."""
    n, (lower, upper) = structure.n, structure.widths
    if structure.kind == "dense":
        return 0.05 * n**3
    if structure.kind == "banded":
        return n * (20.0 + 0.5 * lower * (lower + upper))
    return 60.0 * n + multiplications(structure.symbolic)


def row_groups(pattern: Any) -> np.ndarray:
    """A number for each row, such that rows of the same number have no column in common; few numbers.

    One product with the sum of their unit vectors then gives all of these rows. A greedy choice depends on the order of the rows,
    so some orders are tried. Source: A. Curtis, M. Powell, J. Reid, J. Inst. Maths. Applics. 13 (1974) 117, for columns.
    """
    from scipy.optimize._numdiff import group_columns

    orders = (np.arange(pattern.shape[0]), 0, 1)
    found = [np.asarray(group_columns(pattern.T.tocsc(), order)) for order in orders]
    return min(found, key=lambda groups: groups.max(initial=0)).astype(np.int64)
