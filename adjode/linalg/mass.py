"""The mass matrix M of M du/dt = f: read and analysed once, and its kernels.

A singular M makes some of the equations algebraic: those combinations in which M du/dt does not appear. With an orthonormal basis N
of the vectors that M^T sends to zero they are N^T f(t, u, theta) = 0. Rows of zeros are the usual case, but a singular M need not
have any (a capacitance matrix of floating nodes, say).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.frame import Frame
from adjode.compile.views import flat
from adjode.linalg.structure import Structure

_ROUNDING = 1e-14  # pivots below this, relative to the largest and for each row, are zeros
_SMALL_BLOCK, _LARGEST_BLOCK = 100, 2000  # rows of a block that is taken for dense at once; that may be at all


@kernel
def multiply(frame, x, out):
    """out = M x"""
    starts, columns, values = (
        slots.MASS_STARTS(frame),
        slots.MASS_COLUMNS(frame),
        slots.MASS(frame),
    )
    for i in range(out.size):
        total = 0.0
        for p in range(starts[i], starts[i + 1]):
            total += values[p] * x[columns[p]]
        out[i] = total


@kernel
def multiply_transposed(frame, x, out):
    """out = M^T x"""
    starts, columns, values = (
        slots.MASS_STARTS(frame),
        slots.MASS_COLUMNS(frame),
        slots.MASS(frame),
    )
    for i in range(out.size):
        out[i] = 0.0
    for i in range(out.size):
        for p in range(starts[i], starts[i + 1]):
            out[columns[p]] += values[p] * x[i]


@kernel
def split(frame, x, algebraic):
    """x = x - N N^T x, the part in the range of M, and algebraic = N N^T x, the rest."""
    starts, columns, values = (
        slots.NULL_STARTS(frame),
        slots.NULL_COLUMNS(frame),
        slots.NULL(frame),
    )
    for i in range(x.size):
        algebraic[i] = 0.0
    for k in range(starts.size - 1):
        total = 0.0
        for p in range(starts[k], starts[k + 1]):
            total += values[p] * x[columns[p]]
        for p in range(starts[k], starts[k + 1]):
            algebraic[columns[p]] += values[p] * total
    for i in range(x.size):
        x[i] -= algebraic[i]


@kernel
def shift(frame, J, A, c, s):
    """A = c M + s J"""
    places, values, entries, shifted = slots.MASS_PLACES(frame), slots.MASS(frame), flat(J), flat(A)
    for k in range(entries.size):
        shifted[k] = s * entries[k]
    for p in range(places.size):
        shifted[places[p]] += c * values[p]


@kernel
def shift_complex(frame, J, A, re, im, s):
    """A = (re + i im) M + s J"""
    places, values, entries, shifted = slots.MASS_PLACES(frame), slots.MASS(frame), flat(J), flat(A)
    for k in range(entries.size):
        shifted[2 * k] = s * entries[k]
        shifted[2 * k + 1] = 0.0
    for p in range(places.size):
        shifted[2 * places[p]] += re * values[p]
        shifted[2 * places[p] + 1] += im * values[p]


@dataclass(frozen=True, eq=False)
class Mass:
    """A mass matrix.

    Attributes
    ----------
    matrix : sparse (n, n) matrix by rows
    null : sparse (k, n) matrix by rows
        An orthonormal basis of the vectors that M^T sends to zero; k = 0 if M is not singular.
    """

    matrix: Any
    null: Any

    @property
    def n(self) -> int:
        return self.matrix.shape[0]

    @property
    def singular(self) -> bool:
        return self.null.shape[0] > 0

    def require_size(self, n: int) -> None:
        if self.n != n:
            raise ValueError(f"mass must have shape ({n}, {n}), as u0 has {n} entries, but its shape is ({self.n}, {self.n}).")

    @functools.cached_property
    def _factors(self) -> Any:
        from scipy.sparse.linalg import splu

        return splu(self.matrix.tocsc())

    @functools.cached_property
    def inverse(self) -> np.ndarray:
        """M^-1, of an M that is not singular.

        Raises
        ------
        ValueError
            If it is too large.
        """
        if self.n > _LARGEST_BLOCK:
            raise ValueError(
                f"jumps at times that depend on parameters or on the state need the inverse of mass, which is not formed for more "
                f"than {_LARGEST_BLOCK} states, and there are {self.n}: solve for du/dt in f, and leave mass out."
            )
        return np.ascontiguousarray(self._factors.solve(np.eye(self.n)))

    def solve_transposed(self, b: np.ndarray) -> np.ndarray:
        """M^-T b for the rows b (k, n), of an M that is not singular."""
        return self._factors.solve(np.ascontiguousarray(b.T), "T").T if b.size else b

    def algebraic_part(self, f: np.ndarray) -> np.ndarray:
        """The part of f (n,) outside of the range of M."""
        return self.null.T @ (self.null @ f)

    def put(self, frame: Frame, structure: Structure) -> None:
        """Fill the slots of the kernels above, for a Jacobian whose pattern contains that of M."""
        matrix, null = self.matrix, self.null
        rows = np.repeat(np.arange(self.n), np.diff(matrix.indptr))
        columns = matrix.indices.astype(np.int64)
        frame[slots.MASS], frame[slots.NULL] = matrix.data, null.data
        frame[slots.MASS_STARTS], frame[slots.MASS_COLUMNS] = matrix.indptr.astype(np.int64), columns
        frame[slots.MASS_PLACES] = np.ascontiguousarray(structure.places(rows, columns))
        frame[slots.NULL_STARTS], frame[slots.NULL_COLUMNS] = null.indptr.astype(np.int64), null.indices.astype(np.int64)
        frame[slots.MASSED] = np.zeros((3, self.n))  # a row for each stage


def read_mass(given: Any) -> Mass | None:
    """The `mass` of a Dynamics: (n, n) array or sparse matrix, or its diagonal (n,); None if there is none.

    Raises
    ------
    TypeError, ValueError
        If it is not made of finite real numbers, or not square, or too large for its null vectors to be found.
    """
    if given is None:
        return None
    from scipy import sparse

    array = given if sparse.issparse(given) else np.asarray(given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"mass must hold real numbers, a matrix (n, n) or its diagonal (n,), but its dtype is {array.dtype}.")
    if array.ndim == 1:
        array = sparse.diags_array(np.asarray(array, dtype=float))
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"mass must be a square matrix (n, n) or its diagonal (n,), but its shape is {array.shape}.")
    matrix = sparse.csr_array(array, dtype=float, copy=True)
    matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        bad = int(np.argmin(np.isfinite(matrix.data)))
        row = int(np.searchsorted(matrix.indptr, bad, side="right")) - 1
        raise ValueError(f"mass must be finite, but entry {(row, int(matrix.indices[bad]))} is {matrix.data[bad]}.")
    matrix.eliminate_zeros()
    return Mass(matrix, _null_rows(matrix))


def _null_rows(matrix: Any) -> Any:
    """An orthonormal basis of the vectors that the transpose sends to zero, block by block of rows that share columns."""
    from scipy import sparse
    from scipy.sparse import csgraph

    n, pattern = matrix.shape[0], abs(matrix)
    _, labels = csgraph.connected_components(sparse.block_array([[None, pattern], [pattern.T, None]]), directed=False)
    blocks = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    empty = np.flatnonzero(np.diff(matrix.indptr) == 0)
    found = [sparse.csr_array((np.ones(empty.size), (np.arange(empty.size), empty)), shape=(empty.size, n))]
    for block in blocks:
        if block.size <= 2:  # a row of zeros, a column of zeros, or one entry
            continue
        rows, columns = block[block < n], block[block >= n] - n
        vectors = _null_vectors(matrix[rows][:, columns])
        places = np.repeat(np.arange(len(vectors)), rows.size), np.tile(rows, len(vectors))
        found.append(sparse.csr_array((vectors.ravel(), places), shape=(len(vectors), n)))
    return sparse.csr_array(sparse.vstack(found))


def _null_vectors(block: Any) -> np.ndarray:
    """Those of one block, by rows."""
    rows, columns = block.shape
    if rows == columns > _SMALL_BLOCK and _is_regular(block):
        return np.zeros((0, rows))
    if rows > _LARGEST_BLOCK:
        raise ValueError(
            f"mass has a singular block that couples {rows} equations, and more than {_LARGEST_BLOCK} are not analysed: combine "
            f"the equations so that the algebraic ones are rows of zeros in mass."
        )
    from scipy.linalg import qr

    Q, R, _ = qr(block.toarray(), pivoting=True)
    pivots = np.abs(np.diagonal(R))
    rank = int(np.count_nonzero(pivots > max(rows, columns) * _ROUNDING * pivots[0]))
    return np.ascontiguousarray(Q[:, rank:].T)


def _is_regular(block: Any) -> bool:
    """Whether the pivots of a sparse LU say so, which costs far less."""
    from scipy.sparse.linalg import splu

    try:
        pivots = np.abs(splu(block.tocsc()).U.diagonal())
    except RuntimeError:  # exactly singular
        return False
    return bool(pivots.min() > len(pivots) * _ROUNDING * pivots.max())
