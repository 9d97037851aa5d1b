"""What the sparse LU needs to know of a pattern: the order of elimination, the fill-in, the supernodes and what they contribute.

Found once, in Python. Sources: T. Davis, Direct Methods for Sparse Linear Systems, 4 (the fill-in); E. Ng, B. Peyton, SIAM J. Sci.
Comput. 14 (1993) 1034 (contributions from panel to panel).
"""

from __future__ import annotations

from typing import Any

import numpy as np

WIDEST = 32  # columns of a panel: wider supernodes are divided, so that BLAS does the most of their work too
# Entries of SYMBOLIC: sizes; where vectors for work are in the storage, and where it ends; then where its own parts start. The
# places of the entries of A in the panels. Supernodes: first columns, starts of their rows, rows, starts of their panels.
# Contributions: the first of each supernode; of each the supernode it comes from, and the first and last of that one's rows that
# are columns here. The new places of the unknowns. fmt: off
(
    N,
    SUPERNODES,
    WORK,
    SCRATCH,
    SIZE,
    TARGETS,
    FIRST,
    ROW_STARTS,
    ROWS,
    PANELS,
    FROM_STARTS,
    FROM,
    PLACES,
    HEADER,
) = range(14)
# fmt: on


def analyse(pattern: Any) -> np.ndarray:
    """What the kernels need to know of a pattern (n, n) by columns, as one vector of integers; see above."""
    n, place = pattern.shape[0], _order(pattern)
    columns = np.repeat(np.arange(n), np.diff(pattern.indptr))
    place = _postorder(_fill_in(n, place[pattern.indices], place[columns]))[place]
    rows, columns = place[pattern.indices], place[columns]
    first, row_lists = _supernodes(_fill_in(n, rows, columns))
    widths, lengths = np.diff(first), np.array([one.size for one in row_lists], dtype=int)
    panels = rows.size + np.concatenate([[0], np.cumsum((2 * lengths - widths) * widths)])
    contributions = _contributions(first, row_lists)
    largest = max((int(lengths[source] - a) * (b - a) for group in contributions for source, a, b in group), default=0)
    parts = [
        _targets(rows, columns, first, row_lists, panels),
        first,
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([np.zeros(0, dtype=int), *row_lists]),
        panels,
        np.concatenate([[0], np.cumsum([len(group) for group in contributions])]),
        np.array([one for group in contributions for one in group], dtype=int).ravel(),
        place,
    ]
    starts = HEADER + np.concatenate([[0], np.cumsum([len(one) for one in parts])])[:-1]
    sizes = [n, len(row_lists), panels[-1], panels[-1] + n, panels[-1] + n + WIDEST + 2 + max(n, largest)]
    return np.concatenate([sizes, starts, *parts]).astype(np.int64)


def _supernodes(below: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The first columns of the supernodes, and n; the rows of each."""
    first: list[int] = []
    for j, rows in enumerate(below):
        alike = j > 0 and below[j - 1].size == rows.size + 1 and below[j - 1][0] == j
        if not alike or j - first[-1] == WIDEST:
            first.append(j)
    ends = [*first[1:], len(below)] if first else []
    return np.array([*first, len(below)]), [
        np.concatenate([np.arange(a, b), below[b - 1]]) for a, b in zip(first, ends, strict=True)
    ]


def _contributions(first: np.ndarray, row_lists: list[np.ndarray]) -> list[list[tuple[int, int, int]]]:
    """For each supernode (source, a, b): rows a to b of the source are columns of it."""
    found: list[list[tuple[int, int, int]]] = [[] for _ in row_lists]
    for source, rows in enumerate(row_lists):
        width = first[source + 1] - first[source]
        targets, starts = np.unique(np.searchsorted(first, rows[width:], side="right") - 1, return_index=True)
        ends = [*starts[1:], rows.size - width][: starts.size]
        for target, a, b in zip(targets, starts, ends, strict=True):
            found[target].append((source, width + a, width + b))
    return found


def _targets(
    rows: np.ndarray, columns: np.ndarray, first: np.ndarray, row_lists: list[np.ndarray], panels: np.ndarray
) -> np.ndarray:
    """Where the entries of A go: to L by columns, to U^T by rows."""
    supernodes = np.searchsorted(first, np.minimum(rows, columns), side="right") - 1
    found = np.zeros(rows.size, dtype=np.int64)
    for s in np.unique(supernodes):
        mine, list_of, width = np.flatnonzero(supernodes == s), row_lists[s], first[s + 1] - first[s]
        upper = columns[mine] >= first[s + 1]
        long, across = np.where(upper, columns[mine], rows[mine]), np.where(upper, rows[mine], columns[mine]) - first[s]
        place = np.searchsorted(list_of, long)
        found[mine] = panels[s] + np.where(
            upper, list_of.size * width + across * (list_of.size - width) + place - width, across * list_of.size + place
        )
    return found


def multiplications(symbolic: np.ndarray) -> float:
    """Of one factorisation."""
    count = symbolic[SUPERNODES] + 1
    widths, rows = (np.diff(symbolic[start : start + count]) for start in (symbolic[FIRST], symbolic[ROW_STARTS]))
    total = 0.0
    for width, length in zip(widths.tolist(), rows.tolist(), strict=True):
        below = length - width
        total += width * below * below + width * width * below + width**3 / 3
    return total


def _order(pattern: Any) -> np.ndarray:
    """The new place of each unknown: SuperLU's minimum degree ordering of the symmetrised pattern."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    n = pattern.shape[0]
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    numbers = (pattern.astype(float) + 2.0 * n * sparse.eye_array(n)).tocsc()  # diagonally dominant
    options = {"SymmetricMode": True}
    return splu(numbers, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).perm_c.astype(np.int64)


def _fill_in(n: int, rows: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
    """The rows below the diagonal of each column of L, for the symmetrised pattern; each rising."""
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    order = np.argsort(low, kind="stable")
    starts, high = np.searchsorted(low[order], np.arange(n + 1)), high[order]
    below: list[np.ndarray] = []
    children: list[list[int]] = [[] for _ in range(n)]
    for j in range(n):
        own = high[starts[j] : starts[j + 1]]
        found = np.unique(np.concatenate([own, *(below[child] for child in children[j])]))
        below.append(found[found > j])
        if below[j].size:
            children[below[j][0]].append(j)
    return below


def _postorder(below: list[np.ndarray]) -> np.ndarray:
    """New places in the order of a walk through the tree of elimination: the fill-in stays, and columns alike become neighbours."""
    n = len(below)
    children: list[list[int]] = [[] for _ in range(n)]
    roots: list[int] = []
    for j in range(n):
        (children[below[j][0]] if below[j].size else roots).append(j)
    place, count, waiting = np.zeros(n, dtype=np.int64), n, roots
    while waiting:  # from the roots down, numbered from the last
        j = waiting.pop()
        count -= 1
        place[j] = count
        waiting += children[j]
    return place
