"""`check_vjp`: hold hand-written vector-Jacobian products against numerical derivatives of f, and name what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.api.solution import Solution
from adjode.checks import float_vector, require_finite
from adjode.derivatives.numerical import Reference, reference, takes_complex
from adjode.derivatives.slips import Block, Lams, Suffixes, VjpProblem, call_jac, call_with_lams, call_without_lam, find_problems
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout

_SHOWN = 10  # entries printed
_LAMS = 64
_DENSE = 8  # random lam among these, where n is too large for every unit vector
_TIMES = 8


@dataclass(frozen=True, eq=False, repr=False)
class VjpReport:
    """What `check_vjp` found; `str(report)` tells it in words.

    Attributes
    ----------
    problems : list of VjpProblem
        The wrong entries, each as it was first found: product, block, entry, name, t, given, expected, slip, derivative.
    products : tuple of str
        The products that were compared.
    times : tuple of float
        Where.
    n, m : int
        The numbers of states and parameters.
    n_lam : int
        How many lam each product was applied to, at each time.
    reference : str
        How the derivatives of f were computed; "" if f itself is wrong.
    accuracy : float
        How far a product could be off unnoticed, relative to the largest entry of its block, at worst.
    unknown : int
        Entries of the Jacobian that could not be compared.
    """

    problems: list[VjpProblem]
    products: tuple[str, ...]
    times: tuple[float, ...]
    n: int
    m: int
    n_lam: int
    reference: str
    accuracy: float
    unknown: int

    @property
    def ok(self) -> bool:
        """Whether nothing wrong was found."""
        return not self.problems

    def raise_if_wrong(self) -> None:
        """Raise a ValueError with the text of the report, unless it is ok."""
        if not self.ok:
            raise ValueError(str(self))

    def __str__(self) -> str:
        if self.ok:
            verb = "is right" if len(self.products) == 1 else "are right"
            return f"{' and '.join(self.products)} {verb}: {self._what_was_compared()}"
        groups: dict[tuple[str, str], list[VjpProblem]] = {}
        for problem in self.problems:
            groups.setdefault((problem.product, problem.block), []).append(problem)
        lines = ["check_vjp found errors."]
        for (product, block), problems in groups.items():
            lines += self._describe(product, block, problems, max(3, _SHOWN // len(groups)))
        if self.reference:
            lines.append(f"Compared: {self._what_was_compared()}")
        else:
            lines.append("f itself is wrong: no products were compared.")
        return "\n".join(lines)

    __repr__ = __str__

    def _describe(self, product: str, block: str, problems: list[VjpProblem], shown: int) -> list[str]:
        if block.startswith("outside"):
            return [f"{problems[0].slip}, at t = {problems[0].t:g}."]
        size = self.m if block.startswith("theta") else self.n
        slips = {problem.slip for problem in problems}
        common = slips.pop() if len(slips) == 1 and len(problems) > 1 else ""
        verb = f"{'is' if len(problems) == 1 else 'are'} {'changed' if block in ('u', 'theta', 'lam') else 'wrong'}"
        parts = "columns" if product == "jac" else "entries"
        lines = [f"{product}: {len(problems)} of the {size} {parts} of {block} {verb}{': ' * bool(common)}{common}."]
        lines += [f"  {problem.describe(with_slip=not common)}" for problem in problems[:shown]]
        if len(problems) > shown:
            lines.append(f"  ... and {len(problems) - shown} more")
        return lines

    def _what_was_compared(self) -> str:
        low, high = min(self.times), max(self.times)
        where = f"at t = {low:g}" if len(self.times) == 1 else f"at {len(self.times)} points, t = {low:g} .. {high:g}"
        text = (
            f"{_count(self.n, 'state')} and {_count(self.m, 'parameter')}, with {self.n_lam} lam {where}, "
            f"against f's derivatives by {self.reference}, to {self.accuracy:.1g} of the largest entry."
        )
        if self.unknown:
            text += f" {self.unknown} derivatives were left out: f is not finite around the point."
        return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


@dataclass(frozen=True, eq=False)
class _Point:
    t: float
    u: np.ndarray
    theta: np.ndarray


def check_vjp(dynamics: Dynamics, u0: Any, theta: Any, t: float = 0.0, trajectory: Any = None) -> VjpReport:
    """Compare the hand-written `vjp` (and `vjp_u`, `jac`, `jac_sparsity`) of a dynamics with numerical derivatives of its f.

    Parameters
    ----------
    dynamics : Dynamics
    u0 : (n,) array, dict or structured scalar
        The state at which to compare.
    theta : (m,) array, dict or structured scalar
        The parameters; an empty sequence for none.
    t : float
        The time at which to compare.
    trajectory : Solution or (times, states), optional
        Compare at about 8 of its times, too: a Solution with its own theta, a pair of arrays (k,) and (k, n) with `theta`.

    Returns
    -------
    VjpReport
        `report.ok`, `report.raise_if_wrong()`, `print(report)`, `report.problems`.

    Raises
    ------
    ValueError, TypeError
        For bad input, or if f is not finite at a point.
    Exception
        Whatever a callback raises, with a note that says where.

    Notes
    -----
    The derivatives of f are taken by the complex step where f compiles for complex numbers and extrapolated differences
    confirm it, by the differences otherwise. What passes as right follows from their accuracy; where f has a kink, any value
    between the two one-sided derivatives passes. The products are taken with every unit vector (a sample of them if n > 64)
    and with random lam, twice each, with different contents in u_bar and theta_bar before. It costs O(n + m) evaluations of f
    at each time.

    Examples
    --------
    >>> adjode.check_vjp(dynamics, u0, theta).raise_if_wrong()  # doctest: +SKIP
    """
    if not isinstance(dynamics, Dynamics):
        raise TypeError(f"dynamics must be an adjode.Dynamics(f, vjp), but a {type(dynamics).__name__} was given.")
    layouts = Layout("u0", u0), Layout("theta", theta)
    start = _Point(float(float_vector("t", t, 1)[0]), layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta))
    if start.u.size == 0:
        raise ValueError("u0 must have at least one entry, but it is empty.")
    points = [start] if trajectory is None else [start, *_sample(trajectory, start)]

    with np.errstate(all="ignore"):  # f may overflow nearby, and wrong rules anywhere
        return _check(dynamics, points, (_suffixes(layouts[0]), _suffixes(layouts[1])))


def _check(dynamics: Dynamics, points: list[_Point], suffixes: Suffixes) -> VjpReport:
    n, m = points[0].u.size, points[0].theta.size
    lams = _choose_lams(n)
    rules = [rule for rule in (dynamics.vjp, dynamics.vjp_u, dynamics.jac) if rule is not None]
    problems = _problems_of_f(dynamics.f, points, suffixes)
    references = []
    complex_step = compiles = not problems and takes_complex(dynamics.f, points[0].t, points[0].u, points[0].theta)
    for point in [] if problems else points:  # an f that is wrong itself has no derivatives to compare with
        right = reference(dynamics.f, point.t, point.u, point.theta, lams.rows, complex_step=complex_step)
        references.append(right)
        complex_step = right.by_complex_step > 0
        for rule in rules:
            problems += _compare(rule, point, lams, right, suffixes)
        problems += _outside_pattern(dynamics, point, lams, right, suffixes)

    return VjpReport(
        problems=_first_of_each(problems),
        products=tuple(rule.name for rule in rules),
        times=tuple(point.t for point in points),
        n=n,
        m=m,
        n_lam=len(lams.rows),
        reference=_describe_reference(compiles, references),
        accuracy=max((right.accuracy for right in references), default=0.0),
        unknown=sum(right.unknown for right in references),
    )


def _compare(rule: Callback, point: _Point, lams: Lams, right: Reference, suffixes: Suffixes) -> list[VjpProblem]:
    if rule.name == "jac":
        calls = call_jac(rule, point.t, point.u, point.theta, lams.rows)
        return calls.problems(suffixes) + find_problems(Block("J", slice(0, point.u.size), calls, right, lams, suffixes))
    n, size = point.u.size, right.values.shape[1] if rule.name == "vjp" else point.u.size
    scales = np.maximum(1.0, np.abs(right.values[:, :size]))  # garbage as large as the results, or it would drown in them
    calls = call_with_lams(rule, point.t, point.u, point.theta, lams.rows, scales)
    blocks = [Block("u_bar", slice(0, n), calls, right, lams, suffixes)]
    if rule.name == "vjp":
        blocks.append(Block("theta_bar", slice(n, None), calls, right, lams, suffixes))
    return calls.problems(suffixes) + [problem for block in blocks for problem in find_problems(block)]


def _outside_pattern(dynamics: Dynamics, point: _Point, lams: Lams, right: Reference, suffixes: Suffixes) -> list[VjpProblem]:
    """Derivatives that are not zero where `jac_sparsity` says so, for the unit vectors among lam."""
    pattern, n = dynamics.sparsity, point.u.size
    if pattern is None or isinstance(pattern, str) or pattern.shape[0] != n:
        return []
    rows = lams.rows[: lams.units].argmax(axis=1)
    derivatives, margins = right.values[: lams.units, :n], right.margins[: lams.units, :n]
    outside = (np.abs(derivatives) > margins) & ~pattern[rows].toarray()
    problems, (states, _) = [], suffixes
    for k, j in np.argwhere(outside):
        name = f"df{states[rows[k]]}/du{states[j]}"
        expected = float(derivatives[k, j])
        problems.append(VjpProblem("jac_sparsity", "J", int(j), name, point.t, 0.0, expected, "the pattern leaves it out"))
    return problems


def _problems_of_f(f: Callback, points: list[_Point], suffixes: Suffixes) -> list[VjpProblem]:
    """f, too, must overwrite its output and leave its inputs alone; and it must be finite."""
    problems = []
    for point in points:
        calls = call_without_lam(f, point.t, point.u, point.theta)
        problems += calls.problems(suffixes) + calls.leftovers("du", suffixes)
        du = calls.results[0, 0]
        if not problems and not np.isfinite(du).all():
            i = int(np.argmin(np.isfinite(du)))
            raise ValueError(f"f must be finite for a comparison, but du{suffixes[0][i]} is {du[i]} at t = {point.t:g}.")
    return problems


def _first_of_each(problems: list[VjpProblem]) -> list[VjpProblem]:
    """Each wrong entry once, as it was first found, in the order of the products and blocks."""
    first: dict[tuple[str, str, int], VjpProblem] = {}
    for problem in problems:
        first.setdefault((problem.product, problem.block, problem.entry), problem)
    order = ("u_bar", "theta_bar")
    return sorted(first.values(), key=lambda p: (p.product, order.index(p.block) if p.block in order else -1, p.entry))


def _describe_reference(compiles: bool, references: list[Reference]) -> str:
    if not references:
        return ""
    at_points = [right.by_complex_step > 0 for right in references]
    if not compiles:
        return "extrapolated differences (f does not run with complex numbers)"
    if not any(at_points):
        return "extrapolated differences (f is not analytic, so the complex step is wrong)"
    if not all(at_points):
        return "the complex step, but extrapolated differences where f is not analytic"
    return "the complex step, confirmed by differences"


def _choose_lams(n: int) -> Lams:
    """Every unit vector and three random lam; for large n a sample of 64."""
    rng = np.random.default_rng(20)
    if n <= _LAMS:
        rows, dense = np.arange(n), rng.standard_normal((2, n))
    else:
        rows, dense = np.sort(rng.choice(n, _LAMS - _DENSE, replace=False)), rng.standard_normal((_DENSE - 1, n))
    unit = np.zeros((rows.size, n))
    unit[np.arange(rows.size), rows] = 1.0
    return Lams(np.vstack([unit, dense[:2], dense[0] + dense[1], dense[2:]]), rows.size)


def _suffixes(layout: Layout) -> list[str]:
    """What follows `u` or `theta` in the names of the entries: `[0]`, `['prey']`, ..."""
    return [name[len(layout.name) :] for name in layout.entry_names()]


def _sample(trajectory: Any, start: _Point) -> list[_Point]:
    n, theta = start.u.size, start.theta
    if isinstance(trajectory, Solution):
        times, states, theta = trajectory.t, trajectory.u, trajectory.theta
        if theta.size != start.theta.size:
            raise ValueError(f"trajectory must have {start.theta.size} parameters, as theta does, but it has {theta.size}.")
    else:
        times, states = _read_pair(trajectory)
    if n == 1 and states.ndim == 1:
        states = states[:, None]
    if states.shape != (times.size, n):
        raise ValueError(f"the states of trajectory must have shape ({times.size}, {n}), but their shape is {states.shape}.")
    chosen = np.unique(np.linspace(0, times.size - 1, _TIMES).round().astype(int))
    points = [_Point(float(times[k]), np.array(states[k], dtype=float), theta) for k in chosen]
    return [p for p in points if p.t != start.t or (p.u != start.u).any() or (theta != start.theta).any()]


def _read_pair(trajectory: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        times, states = trajectory
    except (TypeError, ValueError):
        kind = type(trajectory).__name__
        raise TypeError(f"trajectory must be an adjode.Solution or a pair (times, states), but a {kind} was given.") from None
    times, states = float_vector("the times of trajectory", times), np.asarray(states)
    if times.size == 0:
        raise ValueError("trajectory must hold at least one time, but it is empty.")
    if states.dtype.kind not in "fiub":
        raise TypeError(f"the states of trajectory must be real numbers, but their dtype is {states.dtype}.")
    require_finite("the states of trajectory", states)
    return times, states
