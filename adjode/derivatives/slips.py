"""What can be wrong with a hand-written product: calls that show it, and names for the usual slips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adjode.callbacks import KINDS, Callback
from adjode.derivatives.numerical import Reference, overrun, padded

Suffixes = tuple[list[str], list[str]]  # names of the entries of u and of theta, without the name of the array

_SAME = 1e-7  # how close, relative to the largest entry, values are that a slip explains
_SWAPS = 64  # wrong entries up to which a swap is looked for: the search compares each with the whole block


@dataclass(frozen=True)
class VjpProblem:
    """One wrong entry.

    Attributes
    ----------
    product : {"vjp", "vjp_u", "f"}
        The callback that is wrong.
    block : str
        The array: "u_bar" or "theta_bar"; "u", "theta" or "lam" if the callback changes this input.
    entry : int
        Index in the flat array.
    name : str
        The same with the name given by the user: `theta_bar['birth']`.
    t : float
    given, expected : float
        For the unit vector lam that `derivative` stands for, or else for a random lam.
    slip : str
        What is likely wrong; "" if the numbers do not tell.
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
        if (results == garbage).all(axis=0).any():
            return "never written" if (results == garbage).all() else "not written for every lam"
        added = results - garbage
        if (np.abs(added[0] - added[1]) <= 1e-6 * np.abs(garbage).max(axis=0)).all():
            return "accumulates: it is added to what the array held, but must overwrite it"
        return "depends on what the array held, but must overwrite it"

    def leftovers(self, block: str, suffixes: Suffixes) -> list[VjpProblem]:
        """The stale entries as problems, where there is no reference to compare with."""
        problems = []
        for j in np.flatnonzero(self.stale):
            first, second = float(self.results[0, 0, j]), float(self.results[1, 0, j])
            name = block + suffixes[0][j]
            problems.append(VjpProblem(self.product, block, int(j), name, self.t, first, second, self.leftover_slip(j)))
        return problems

    def problems(self, suffixes: Suffixes) -> list[VjpProblem]:
        """Changed inputs, and writes outside of an output."""
        problems = []
        for (array, entry), (after, before) in self.changed.items():
            names = suffixes[array.startswith("theta")]
            if entry < len(names):
                slip = f"{self.product} changes its input {array}"
                problems.append(VjpProblem(self.product, array, entry, array + names[entry], self.t, after, before, slip))
            else:
                slip = f"{self.product} writes outside of {array}, which has {len(names)} entries"
                problems.append(VjpProblem(self.product, array, entry, f"the end of {array}", self.t, after, before, slip))
        return problems


def call_with_lams(rule: Callback, t: float, u: np.ndarray, theta: np.ndarray, lams: np.ndarray, scales: np.ndarray) -> Calls:
    """Call `vjp` or `vjp_u` with each row of `lams`; the garbage is of the size `scales` (L, size)."""
    return _call(rule, t, [{"u": u, "theta": theta, "lam": lam} for lam in lams], scales)


def call_without_lam(f: Callback, t: float, u: np.ndarray, theta: np.ndarray) -> Calls:
    """Call `f` as `call_with_lams` calls a product."""
    return _call(f, t, [{"u": u, "theta": theta}], np.ones((1, u.size)))


def _call(callback: Callback, t: float, inputs: list[dict[str, np.ndarray]], scales: np.ndarray) -> Calls:
    kind = KINDS[callback.name]
    n = inputs[0]["u"].size
    rng = np.random.default_rng(7)
    garbage = scales * rng.uniform(1.0, 2.0, (2, *scales.shape)) * np.array([1.0, -1.0])[:, None, None]
    results = np.empty_like(garbage)
    changed: dict[tuple[str, int], tuple[float, float]] = {}
    for attempt in range(2):
        for row, given in enumerate(inputs):
            arrays = {name: padded(given[name]) for name in kind.inputs}
            before = garbage[attempt, row]
            arrays |= {name: padded(part) for name, part in zip(kind.outputs, (before[:n], before[n:]), strict=False)}
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
        with np.errstate(all="ignore"):
            callback(t, *arrays)
    except Exception as error:
        error.add_note(f"raised by {callback.name} when check_vjp called it at t = {t!r}")
        raise


# --- comparison -----------------------------------------------------------------------------------------------------


class Block:
    """One output of a product beside its reference, at one point."""

    def __init__(self, name: str, part: slice, calls: Calls, right: Reference, units: int, suffixes: Suffixes):
        self.name, self.calls, self.units = name, calls, units
        self.first = part.start
        self.given = calls.results[0][:, part]
        self.expected = right.values[:, : calls.results.shape[2]][:, part]
        self.margins = right.margins[:, : calls.results.shape[2]][:, part]
        self.transposed = right.transposed if name == "u_bar" else None
        self.suffixes = suffixes
        self.stale = calls.stale[part]
        with np.errstate(all="ignore"):
            self.wrong = ~(np.abs(self.given - self.expected) <= self.margins)  # NaN is wrong
        self.wrong |= self.stale

    def rows_to_judge(self, j: int) -> np.ndarray:
        """The lam for which entry j is wrong: unit vectors, as these say more, unless only random ones show it."""
        wrong = np.flatnonzero(self.wrong[:, j])
        among_units = wrong[wrong < self.units]
        return among_units if among_units.size else wrong

    def entry_name(self, j: int) -> str:
        return self.name + self._suffix(j)

    def derivative(self, row: int, j: int, lams_row: int) -> str:
        """The derivative that the product with a unit vector is."""
        return f"df{self.suffixes[0][lams_row]}/d{self.name.removesuffix('_bar')}{self._suffix(j)}" if row < self.units else ""

    def _suffix(self, j: int) -> str:
        return self.suffixes[self.name == "theta_bar"][j]


def find_problems(block: Block) -> list[VjpProblem]:
    ...
