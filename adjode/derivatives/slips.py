"""What can be wrong with a hand-written product: calls that show it, and names for the usual slips."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adjode.compile.kinds import KINDS
from adjode.derivatives.numerical import Reference
from adjode.model.callbacks import Callback
from adjode.model.trial import overrun, padded

Suffixes = tuple[list[str], list[str]]  # names of the entries of u and of theta, without the name of the array

_SAME = 1e-7  # how close, relative to the largest entry, values are that a slip explains
_SWAPS = 64  # wrong entries up to which a swap is looked for: the search compares each with the whole block


@dataclass(frozen=True)
class VjpProblem:
    """One wrong entry.

    Attributes
    ----------
    product : {"vjp", "vjp_u", "jac", "jac_sparsity", "f"}
        The callback that is wrong, or the pattern.
    block : str
        The array: "u_bar" or "theta_bar"; "J" for a column of the Jacobian; "u", "theta" or "lam" if the callback changes this
        input; "outside theta_bar" if it writes just outside it.
    entry : int
        Index in the flat array.
    name : str
        The same with the user's name: `theta_bar['birth']`.
    t : float
    given, expected : float
        For the unit vector lam that `derivative` refers to, or for a random lam.
    slip : str
        What is probably wrong; "" if the numbers do not tell.
    derivative : str
        The derivative of f that `expected` is: `df['prey']/dtheta['birth']`; "" for a random lam.
    """

    product: str
    block: str
    entry: int
    name: str
    t: float
    given: float
    expected: float
    slip: str = ""
    derivative: str = ""

    def describe(self, *, with_slip: bool = True) -> str:
        """One line."""
        off = abs(self.given - self.expected)
        relative = f" ({off / abs(self.expected):.2g} of it)" if self.expected and np.isfinite(off) else ""
        expected = f"{self.derivative} = {self.expected:.10g}" if self.derivative else f"{self.expected:.10g}"
        text = f"{self.name} at t = {self.t:g}: given {self.given:.10g}, expected {expected}, off by {off:.3g}{relative}"
        return f"{text}: {self.slip}" if with_slip and self.slip else text


# --- calls ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Calls:
    """A callback called twice with each of L lam, with different garbage in its outputs before.

    Attributes
    ----------
    results, garbage : (2, L, size) arrays
        The outputs, one block after another, after the calls and before.
    changed : dict
        (array, entry) -> (value after the call, value before), for inputs, and for entries just outside of an output.
    """

    product: str
    t: float
    results: np.ndarray
    garbage: np.ndarray
    changed: dict[tuple[str, int], tuple[float, float]]

    @property
    def stale(self) -> np.ndarray:
        """Entries (size,) that depend on what the outputs held before."""
        gap, span = np.abs(self.results[0] - self.results[1]), np.abs(self.garbage[0] - self.garbage[1])
        return (gap > _SAME * span).any(axis=0)  # NaN, which comes out NaN both times, is not stale

    def leftover_slip(self, j: int) -> str:
        """How stale entry j depends on what the output held."""
        results, garbage = self.results[:, :, j], self.garbage[:, :, j]
        unwritten = (results == garbage).all(axis=0)
        if unwritten.all():
            return "never written"
        added = results - garbage
        if (np.abs(added[0] - added[1]) <= 1e-6 * np.abs(garbage).max(axis=0)).all():
            return "accumulates: it is added to what the array held, but must overwrite it"
        if unwritten.any():
            return "not written for every lam"
        return "depends on what the array held, but must overwrite it"

    def leftovers(self, block: str, suffixes: Suffixes) -> list[VjpProblem]:
        """The stale entries as problems, where there is no reference to compare with."""
        problems = []
        for j in map(int, np.flatnonzero(self.stale)):
            first, second = float(self.results[0, 0, j]), float(self.results[1, 0, j])
            name = block + suffixes[0][j]
            problems.append(VjpProblem(self.product, block, j, name, self.t, first, second, self.leftover_slip(j)))
        return problems

    def problems(self, suffixes: Suffixes) -> list[VjpProblem]:
        """Changed inputs, and writes outside an output."""
        problems = []
        for (array, entry), (after, before) in self.changed.items():
            names = suffixes[array.startswith("theta")]
            if entry < len(names):
                slip = f"{self.product} changes its input {array}"
                problems.append(VjpProblem(self.product, array, entry, array + names[entry], self.t, after, before, slip))
            else:
                slip = f"{self.product} writes outside {array}, which has {len(names)} entries"
                problems.append(VjpProblem(self.product, f"outside {array}", entry, array, self.t, after, before, slip))
        return problems


def call_with_lams(rule: Callback, t: float, u: np.ndarray, theta: np.ndarray, lams: np.ndarray, scales: np.ndarray) -> Calls:
    """Call `vjp` or `vjp_u` with each row of `lams`; the garbage is of the size `scales` (L, size)."""
    return _call(rule, t, [{"u": u, "theta": theta, "lam": lam} for lam in lams], scales)


def call_jac(jac: Callback, t: float, u: np.ndarray, theta: np.ndarray, lams: np.ndarray) -> Calls:
    """Call `jac`, and multiply each row of `lams` by its matrix, so that it can be compared as a product is."""
    n = u.size
    calls = _call(jac, t, [{"u": u, "theta": theta}], np.ones((1, n * n)))
    results, garbage = (lams @ matrices.reshape(2, n, n) for matrices in (calls.results, calls.garbage))
    return Calls(jac.name, t, results, garbage, calls.changed)


def call_without_lam(f: Callback, t: float, u: np.ndarray, theta: np.ndarray) -> Calls:
    """Call `f` as `call_with_lams` calls a product."""
    return _call(f, t, [{"u": u, "theta": theta}], np.ones((1, u.size)))


def _call(callback: Callback, t: float, inputs: list[dict[str, np.ndarray]], scales: np.ndarray) -> Calls:
    kind = KINDS[callback.name]
    first = scales.shape[1] if len(kind.outputs) == 1 else inputs[0]["u"].size  # entries of the first output
    rng = np.random.default_rng(7)
    garbage = scales * rng.uniform(1.0, 2.0, (2, *scales.shape)) * np.array([1.0, -1.0])[:, None, None]
    results = np.empty_like(garbage)
    changed: dict[tuple[str, int], tuple[float, float]] = {}
    for attempt in range(2):
        for row, given in enumerate(inputs):
            arrays = {name: padded(given[name]) for name in kind.inputs}
            before = garbage[attempt, row]
            arrays |= {name: padded(part) for name, part in zip(kind.outputs, (before[:first], before[first:]), strict=False)}
            _call_noting(callback, t, list(arrays.values()))
            results[attempt, row] = np.concatenate([arrays[name] for name in kind.outputs])
            for name, array in arrays.items():
                if overrun(array):
                    changed.setdefault((name, array.size), (np.nan, np.nan))
                if name in given:
                    for k in np.flatnonzero(array != given[name]):
                        changed.setdefault((name, int(k)), (float(array[k]), float(given[name][k])))
    return Calls(callback.name, t, results, garbage, changed)


def _call_noting(callback: Callback, t: float, arrays: list[np.ndarray]) -> None:
    try:
        callback(t, *arrays)
    except Exception as error:
        error.add_note(f"raised by {callback.name} when check_vjp called it at t = {t!r}")
        raise


# --- comparison -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Lams:
    """What a product is applied to: unit vectors first, then random a, b and a + b, then more random ones."""

    rows: np.ndarray  # (L, n)
    units: int

    def axis(self, row: int) -> int:
        """Which entry of this unit vector is one."""
        return int(self.rows[row].argmax())


class Block:
    """One output of a product beside its reference, at one point: arrays (L, size)."""

    def __init__(self, name: str, part: slice, calls: Calls, right: Reference, lams: Lams, suffixes: Suffixes):
        self.name, self.calls, self.lams = name, calls, lams
        self.start = part.start
        self.given, self.expected, self.margins = calls.results[0][:, part], right.values[:, part], right.margins[:, part]
        self.doubtful = ~right.can_judge(self.given, part)
        self.transposed = right.transposed if name in ("u_bar", "J") else None
        self._lam_names, self._names = suffixes[0], suffixes[name == "theta_bar"]
        self.wrong = ~(np.abs(self.given - self.expected) <= self.margins)  # so is NaN
        self.stale = calls.stale[part]
        self.wrong |= self.stale

    def rows_to_judge(self, j: int) -> np.ndarray:
        """The lam for which entry j is wrong: unit vectors, which say more, unless only random ones show it."""
        wrong = np.flatnonzero(self.wrong[:, j])
        unit = wrong[wrong < self.lams.units]
        return unit if unit.size else wrong

    @functools.cached_property
    def is_transposed(self) -> bool:
        return self.transposed is not None and _same_columns(self.given, self.transposed)

    @functools.cached_property
    def is_negated(self) -> bool:
        return _same_columns(self.given, -self.expected)

    @functools.cached_property
    def factors(self) -> dict[int, float]:
        """For each wrong entry that is a multiple of the right value, by what factor."""
        factors = {}
        for j in map(int, np.flatnonzero(self.wrong.any(axis=0))):
            rows = self.rows_to_judge(j)
            given, expected = self.given[rows, j], self.expected[rows, j]
            factor = given @ expected / (expected @ expected) if expected.any() else 0.0
            if factor and _same(given, factor * expected):
                factors[j] = float(factor)
        return factors

    def entry_name(self, j: int) -> str:
        if self.calls.product == "jac":
            return f"J[:, {self._names[j][1:]}"
        return self.name + self._names[j]

    def lam_name(self, row: int) -> str:
        return "lam" + self._lam_names[self.lams.axis(row)]

    def derivative(self, row: int, j: int) -> str:
        """The derivative of f that a product with a unit vector is."""
        if row >= self.lams.units:
            return ""
        return f"df{self._lam_names[self.lams.axis(row)]}/d{'theta' if self.name == 'theta_bar' else 'u'}{self._names[j]}"

    def terms(self, j: int) -> str:
        """Which terms of entry j are wrong, if not all are."""
        rows = self.rows_to_judge(j)
        terms = np.flatnonzero(self.expected[: self.lams.units, j])
        if rows[0] >= self.lams.units or rows.size > 3 or np.isin(terms, rows).all():
            return ""
        return f" in the term of {' and '.join(self.lam_name(row) for row in rows)}"


def find_problems(block: Block) -> list[VjpProblem]:
    """The wrong entries of a block, each for the lam that shows it most."""
    problems = []
    for j in map(int, np.flatnonzero(block.wrong.any(axis=0))):
        rows = block.rows_to_judge(j)
        row = int(rows[np.argmax(np.abs(block.given[rows, j] - block.expected[rows, j]))])  # argmax takes a NaN for largest
        slip = next(filter(None, (name_slip(block, j, rows) for name_slip in _SLIPS)), "")
        given, expected = float(block.given[row, j]), float(block.expected[row, j])
        name, derivative = block.entry_name(j), block.derivative(row, j)
        problems.append(VjpProblem(block.calls.product, block.name, j, name, block.calls.t, given, expected, slip, derivative))
    return problems


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.max(np.abs(a - b)) <= _SAME * max(np.max(np.abs(a)), np.max(np.abs(b))))


def _same_columns(a: np.ndarray, b: np.ndarray) -> bool:
    size = np.maximum(np.max(np.abs(a), axis=0), np.max(np.abs(b), axis=0))
    return bool((np.max(np.abs(a - b), axis=0) <= _SAME * size).all())


# --- names for slips: each takes (block, entry, the lam that show it), and returns "" if it does not explain the numbers ---


def _left_over(block: Block, j: int, rows: np.ndarray) -> str:
    return block.calls.leftover_slip(block.start + j) if block.stale[j] else ""


def _not_finite(block: Block, j: int, rows: np.ndarray) -> str:
    return "" if np.isfinite(block.given[:, j]).all() else "not finite"


def _not_linear(block: Block, j: int, rows: np.ndarray) -> str:
    a, b, both = block.given[block.lams.units : block.lams.units + 3, j]
    return "not linear in lam" if abs(a + b - both) > _SAME * (abs(a) + abs(b) + abs(both)) else ""


def _transposed(block: Block, j: int, rows: np.ndarray) -> str:
    if not block.is_transposed:
        return ""
    return f"{'wrong sign, or ' * block.is_negated}transposed: it equals (df/du) lam, but (df/du)^T lam is wanted"


def _negated(block: Block, j: int, rows: np.ndarray) -> str:
    return "wrong sign" + block.terms(j) if _same(block.given[rows, j], -block.expected[rows, j]) else ""


def _swapped(block: Block, j: int, rows: np.ndarray) -> str:
    """Whether another entry's value lies here."""
    if np.count_nonzero(block.wrong.any(axis=0)) > _SWAPS:
        return ""
    gives_zero = not block.given[:, j].any()
    for k in range(block.given.shape[1]):
        if k == j or not _same(block.given[:, j], block.expected[:, k]):
            continue
        if _same(block.given[:, k], block.expected[:, j]):
            return f"swapped with {block.entry_name(k)}"
        if not gives_zero:
            return f"holds what belongs in {block.entry_name(k)}"
    return ""


def _missing(block: Block, j: int, rows: np.ndarray) -> str:
    given, expected = block.given[rows, j], block.expected[rows, j]
    if np.max(np.abs(given)) > _SAME * np.max(np.abs(expected)):
        return ""
    return "missing: it is zero" + block.terms(j)


def _lam_confused(block: Block, j: int, rows: np.ndarray) -> str:
    """Whether a term moved from one entry of lam to another."""
    if rows.size != 2 or rows[1] >= block.lams.units:
        return ""
    off = block.given[rows, j] - block.expected[rows, j]
    confused = _same(off[:1], -off[1:])
    return f"{block.lam_name(rows[0])} and {block.lam_name(rows[1])} are confused" if confused else ""


def _factor(block: Block, j: int, rows: np.ndarray) -> str:
    """Whether a constant factor is wrong; one number alone tells only if the factor is simple or other entries share it."""
    factor = block.factors.get(j)
    if factor is None:
        return ""
    simple = any(abs(x - round(x)) < _SAME and 1 < abs(round(x)) <= 12 for x in (factor, 1 / factor))
    shared = sum(abs(other - factor) <= _SAME * abs(factor) for other in block.factors.values()) > 1
    several = np.count_nonzero(block.expected[rows, j]) > 1
    return f"a factor {factor:.9g}" + block.terms(j) if simple or shared or several else ""


_SLIPS: tuple[Callable[[Block, int, np.ndarray], str], ...] = (
    _left_over,
    _not_finite,
    _not_linear,
    _transposed,
    _negated,
    _swapped,
    _missing,
    _lam_confused,
    _factor,
)
