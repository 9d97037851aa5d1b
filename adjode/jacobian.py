"""The Jacobian df/du in the storage of the linear solver: from `jac`, or exactly from products with the vjp.

Row i is the vjp of unit vector i. Where the pattern is known, rows that have no column in common share one product with the sum of
their unit vectors: a grid or a banded system costs a handful of products, however large it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.checks import choose
from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.finite import all_finite
from adjode.compile.flags import kernel
from adjode.compile.frame import Frame
from adjode.compile.views import flat, row
from adjode.linalg.structure import KINDS, Structure, as_pattern, choose_structure, row_groups
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS

_FROM_VJP, _FROM_VJP_U, _FROM_JAC = range(3)
_PROBES = 3
_FEW = 16  # states whose Jacobian is dense in any case, if nothing is said about its zeros


def _make_pull(calls: Calls) -> Callable:
    call_vjp, call_vjp_u = calls.vjp, calls.vjp_u

    @kernel
    def pull(frame, t, u, lam, u_bar):
        if slots.SOURCE(frame)[0] == _FROM_VJP_U:
            return call_vjp_u(frame, t, u, lam, u_bar)
        return call_vjp(frame, t, u, lam, u_bar, slots.PULLED_THETA(frame))

    return pull


def _make_everywhere(calls: Calls) -> Callable:
    pull, call_jac = _make_pull(calls), calls.jac

    @kernel
    def everywhere(frame, t, u, J):
        """All of a dense J: each product writes its row."""
        if slots.SOURCE(frame)[0] == _FROM_JAC:
            return call_jac(frame, t, u, flat(J))
        unit, status = slots.UNIT(frame), 0
        for i in range(unit.size):
            unit[i] = 1.0
            status |= pull(frame, t, u, unit, row(J, i))
            unit[i] = 0.0
        return status

    return everywhere


def _make_by_groups(calls: Calls) -> Callable:
    pull, call_jac = _make_pull(calls), calls.jac

    @kernel
    def rows_of_group(frame, t, u, group, u_bar):
        """The sum of the rows of a group."""
        starts, order, unit = slots.ROW_STARTS(frame), slots.ROW_ORDER(frame), slots.UNIT(frame)
        for k in range(starts[group], starts[group + 1]):
            unit[order[k]] = 1.0
        status = pull(frame, t, u, unit, u_bar)
        for k in range(starts[group], starts[group + 1]):
            unit[order[k]] = 0.0
        return status

    @kernel
    def by_groups(frame, t, u, entries):
        starts, sources = slots.ENTRY_STARTS(frame), slots.ENTRY_SOURCES(frame)
        places, status = slots.ENTRY_PLACES(frame), 0
        for group in range(starts.size - 1):
            if slots.SOURCE(frame)[0] == _FROM_JAC:
                computed = slots.WHOLE(frame)
                status |= call_jac(frame, t, u, computed)
            else:
                computed = slots.PULLED(frame)
                status |= rows_of_group(frame, t, u, group, computed)
            for k in range(starts[group], starts[group + 1]):
                entries[places[k]] = computed[sources[k]]
        return status

    return by_groups


@functools.cache
def make_jacobian(calls: Calls) -> Callable:
    """`jacobian(frame, t, u) -> status`: df/du into the slot JACOBIAN of a frame that `put_jacobian` has filled.

    The status is CALLBACK_RAISED, or NON_FINITE if an entry is not finite, or SUCCESS.
    """
    everywhere, by_groups = _make_everywhere(calls), _make_by_groups(calls)

    @kernel
    def jacobian(frame, t, u):
        J = slots.JACOBIAN(frame)
        slots.COUNT(frame)[slots.JACOBIANS] += 1
        if slots.ENTRY_STARTS(frame).size == 0:
            status = everywhere(frame, t, u, J)
        else:
            status = by_groups(frame, t, u, flat(J))
        if status != 0:
            return CALLBACK_RAISED
        return SUCCESS if all_finite(flat(J)) else NON_FINITE

    return jacobian


def structure_of(dynamics: Dynamics, linear_solver: str, t: float, u: np.ndarray, theta: np.ndarray) -> Structure:
    """The structure of a problem, found once for a dynamics, a number of states and a solver: "auto", "dense", "banded", "sparse".

    Raises
    ------
    ValueError
        If the solver is unknown, or needs a pattern, or the pattern has another size than u.
    """
    choose("linear_solver", linear_solver, ("auto", *KINDS))
    return dynamics.once((u.size, linear_solver), lambda: _find_structure(dynamics, linear_solver, t, u, theta))


def _find_structure(dynamics: Dynamics, linear_solver: str, t: float, u: np.ndarray, theta: np.ndarray) -> Structure:
    pattern, needed = dynamics.sparsity, linear_solver in ("banded", "sparse")
    if pattern is None and dynamics.derived and (needed or u.size > _FEW):
        pattern = _derived_pattern(dynamics, u.size, theta.size)
    if pattern is None and needed:
        raise ValueError(f"linear_solver={linear_solver!r} needs the zeros of the Jacobian: give Dynamics a jac_sparsity.")
    if isinstance(pattern, str):
        pattern = probe(dynamics, t, u, theta)
    if pattern is not None and pattern.shape[0] != u.size:
        raise ValueError(
            f"jac_sparsity must have shape ({u.size}, {u.size}), as u0 has {u.size} entries, but its shape is {pattern.shape}."
        )
    if pattern is not None and dynamics.mass is not None:
        pattern = as_pattern(pattern + (dynamics.mass.matrix != 0))
    return choose_structure(u.size, pattern, linear_solver)


def _derived_pattern(dynamics: Dynamics, n: int, m: int) -> Any:
    """The pattern that the source of f has; None if it cannot be told, or if there are no zeros."""
    from scipy import sparse

    from adjode.model.derived import derived

    try:
        rows, columns = derived(dynamics.f.function).sparsity(n, m)
    except TypeError:
        return None
    if rows.size == n * n:
        return None
    return as_pattern(sparse.coo_array((np.ones(rows.size, dtype=bool), (rows, columns)), shape=(n, n)).tocsc())


def put_jacobian(frame: Frame, dynamics: Dynamics, structure: Structure, m: int) -> None:
    """Fill the slots that `jacobian` and the linear solver read; those of the vjp itself and of the mass matrix too."""
    n, jac, vjp_u = structure.n, dynamics.jac, dynamics.vjp_u
    structure.put(frame)
    if dynamics.mass is not None:
        dynamics.mass.put(frame, structure)
    source = _FROM_JAC if jac is not None else _FROM_VJP_U if vjp_u is not None else _FROM_VJP
    frame[slots.SOURCE] = np.array([source], dtype=np.int64)
    if not dynamics.calls.fused:
        frame[slots.VJP] = dynamics.vjp.handle
        for slot, callback in ((slots.VJP_U, vjp_u), (slots.JAC, jac)):
            if callback is not None:
                frame[slot] = callback.handle
    if frame.partner is not None:  # which measures the Jacobian
        rows, columns = structure.entries
        frame[slots.ENTRIES] = np.concatenate([rows, columns, structure.places(rows, columns)])
    patterned = structure.pattern is not None
    frame[slots.UNIT], frame[slots.PULLED], frame[slots.PULLED_THETA] = np.zeros(n), np.zeros(n), np.zeros(m)
    frame[slots.WHOLE] = np.zeros(n * n if patterned and source == _FROM_JAC else 0)
    groups = _groups(structure, source == _FROM_JAC) if patterned else [np.zeros(0, dtype=np.int64)] * 5
    for slot, array in zip(_GROUP_SLOTS, groups, strict=True):
        frame[slot] = array


_GROUP_SLOTS = (slots.ROW_STARTS, slots.ROW_ORDER, slots.ENTRY_STARTS, slots.ENTRY_SOURCES, slots.ENTRY_PLACES)


@functools.cache
def _groups(structure: Structure, from_jac: bool) -> tuple[np.ndarray, ...]:
    """What the slots `_GROUP_SLOTS` hold. A jac writes all rows, so they are one group."""
    rows, columns = structure.entries
    group = np.zeros(structure.n, dtype=np.int64) if from_jac else row_groups(structure.pattern)
    bounds = np.arange(group.max(initial=-1) + 2)
    row_order, entry_order = np.argsort(group, kind="stable"), np.argsort(group[rows], kind="stable")
    row_starts, entry_starts = np.searchsorted(group[row_order], bounds), np.searchsorted(group[rows][entry_order], bounds)
    sources = rows * structure.n + columns if from_jac else columns
    return row_starts, row_order, entry_starts, sources[entry_order], structure.places(rows, columns)[entry_order]


def products_for(dynamics: Dynamics, structure: Structure) -> int:
    """How many vjps one Jacobian takes."""
    if dynamics.jac is not None:
        return 0
    return structure.n if structure.pattern is None else _groups(structure, False)[0].size - 1


def source_of(dynamics: Dynamics) -> Callback:
    """The callback that the Jacobian comes from."""
    return dynamics.jac or dynamics.vjp_u or dynamics.vjp


def probe(dynamics: Dynamics, t: float, u: np.ndarray, theta: np.ndarray) -> Any:
    """The pattern of df/du, from products with the vjp (or from `jac`) at u and theta and at random places around them.

    A product with NaN times a unit vector is NaN wherever that component of lam enters at all, even where the factor is zero; so an
    entry that happens to be zero is found all the same. What can be missed is an entry that comes into being at other states only:
    by a branch that depends on u, theta or t. A missing entry makes Newton's iteration slower, or fail, but no
    gradient wrong, except with Rodas5P, of whose steps the Jacobian is a part.
    """
    from scipy import sparse

    rng, n = np.random.default_rng(5), u.size
    typical = np.mean(np.abs(u)) if n else 0.0
    rows, columns = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    source = source_of(dynamics)
    for k in range(_PROBES):
        spread = 0.1 * k
        place = u + spread * np.where(u == 0.0, typical or 1.0, u) * rng.uniform(0.0, 1.0, n)
        inputs = {"u": place, "theta": theta * (1.0 + spread * rng.uniform(0.0, 1.0, theta.size))}
        with np.errstate(all="ignore"):
            for i, entries in _probed_rows(source, t, inputs, np.nan if k == 0 else 1.0):
                there = np.flatnonzero(entries)  # NaN counts as there
                rows.append(np.full(there.size, i))
                columns.append(there)
    where = np.concatenate(rows), np.concatenate(columns)
    return as_pattern(sparse.coo_array((np.ones(where[0].size, dtype=bool), where), shape=(n, n)).tocsc())


def _probed_rows(source: Callback, t: float, inputs: dict[str, np.ndarray], value: float) -> Any:
    """Rows of the Jacobian, times `value` where they are products."""
    n = inputs["u"].size
    arguments = source.arguments({**inputs, "lam": np.zeros(n)})
    if source.name == "jac":
        source(t, *arguments)
        yield from enumerate(arguments[-1].reshape(n, n))
        return
    for i in range(n):
        arguments[2][i] = value
        source(t, *arguments)
        arguments[2][i] = 0.0
        yield i, arguments[3]
