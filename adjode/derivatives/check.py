"""`check_vjp`: hold hand-written vector-Jacobian products against numerical derivatives of f, and name what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.checks import float_vector
from adjode.derivatives import places
from adjode.derivatives.numerical import VAGUE, Reference, reference, takes_complex
from adjode.derivatives.places import Place, sample
from adjode.derivatives.slips import (
    Block,
    Lams,
    Suffixes,
    VjpProblem,
    call_jac,
    call_with_lams,
    call_without_lam,
    find_problems,
)
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.model.trial import Trial

_SHOWN = 10  # entries printed
_LAMS = 64
_DENSE = 8  # random lam among these, where n is too large for every unit vector


@dataclass(frozen=True, eq=False, repr=False)
class VjpReport:
    """The result of `check_vjp`; `str(report)` describes it in words.

    Attributes
    ----------
    problems : list of VjpProblem
        The wrong entries, each as it was first found: product, block, entry, name, t, given, expected, slip, derivative.
    products : tuple of str
        The products that were compared.
    times : tuple of float
        The times at which they were compared.
    n, m : int
        The numbers of states and parameters.
    n_lam : int
        How many lam each product was applied to, at each time.
    reference : str
        How the derivatives of f were computed; "" if f itself is wrong.
    accuracy : float
        By how much an entry could be off unnoticed where it is known best, relative to itself, or to the largest term of its row if
        it is far smaller than that; the worst of all entries.
    unsure : tuple of str
        The derivatives that could not be judged at any of the points: "df[0]/du[1]", ...
    skipped : int
        How many points around the given one were left out because f is not defined there.
    """

    problems: list[VjpProblem]
    products: tuple[str, ...]
    times: tuple[float, ...]
    n: int
    m: int
    n_lam: int
    reference: str
    accuracy: float
    unsure: tuple[str, ...]
    skipped: int

    @property
    def ok(self) -> bool | None:
        """Whether all is right; None if nothing wrong was found, but not all could be judged."""
        return False if self.problems else None if self.unsure else True

    def raise_if_wrong(self) -> None:
        """Raise a ValueError with the text of the report, which names what is wrong or could not be judged, unless it is ok."""
        if not self.ok:
            raise ValueError(str(self))

    def __str__(self) -> str:
        if not self.problems:
            verb = "may be" if self.unsure else "is" if len(self.products) == 1 else "are"
            return f"{' and '.join(self.products)} {verb} right: {self._what_was_compared()}"
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
            f"against f's derivatives by {self.reference}, to {self.accuracy:.1g} of each entry."
        )
        if self.skipped:
            text += f" {_count(self.skipped, 'further point')} left out, where f is not defined."
        if self.unsure:
            listed = ", ".join(self.unsure[:_SHOWN]) + ", ..." * (len(self.unsure) > _SHOWN)
            text += (
                f" {_count(len(self.unsure), 'derivative')} could not be judged, since f is not finite or not smooth around, or "
                f"its rounding hides them: {listed}."
            )
        return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def check_vjp(dynamics: Dynamics, u0: Any, theta: Any, t: float = 0.0, trajectory: Any = None, *, around: bool = True) -> VjpReport:
    """Compare the `vjp` (and `vjp_u`, `jac`, `jac_sparsity`) of a dynamics with numerical derivatives of its f.

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
        Also compare at about 8 of its times: a Solution is used with its own theta, a pair of arrays (k,) and (k, n) with `theta`.
    around : bool
        Also compare at a few points around (u0, theta), where entries that are zero or equal no longer are, and a short way along a
        trajectory from there; the points are the same in each call. Points where f is not defined are left out.

    Returns
    -------
    VjpReport
        `report.ok`, `report.raise_if_wrong()`, `print(report)`, `report.problems`.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, or if f is not finite at a point.
    Exception
        Whatever a callback raises, with a note that says where.

    Notes
    -----
    The derivatives of f are computed by the complex step if f compiles for complex numbers and extrapolated differences confirm it,
    and otherwise by the differences. Their accuracy determines what passes as right; where f has a kink, any value between the two
    one-sided derivatives passes. The products are taken with every unit vector (a sample of them if n > 64) and with random lam,
    twice each, with different contents in u_bar and theta_bar beforehand. This costs O(n + m) evaluations of f at each point. An
    entry counts as judged if its derivative is known to a thousandth, or if neither this nor the value of the rule can be told from
    zero, at less than a millionth of the largest term of its row.

    Examples
    --------
    >>> adjode.check_vjp(dynamics, u0, theta).raise_if_wrong()  # doctest: +SKIP
    """
    if not isinstance(dynamics, Dynamics):
        raise TypeError(f"dynamics must be an adjode.Dynamics(f, vjp), but a {type(dynamics).__name__} was given.")
    layouts = dynamics.layouts(u0, theta)
    dynamics.require_order(*layouts)
    start = Place(float(float_vector("t", t, 1)[0]), layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta))
    if start.u.size == 0:
        raise ValueError("u0 must have at least one entry, but it is empty.")
    points = [start] if trajectory is None else [start, *sample(trajectory, start)]

    with np.errstate(all="ignore"):  # f may overflow nearby, and wrong rules anywhere
        return _check(dynamics, points, around, (_suffixes(layouts[0]), _suffixes(layouts[1])))


def compared(dynamics: Dynamics, points: list[Place]) -> VjpReport:
    """The report on places of a solve, quickly: with differences alone, for which nothing need be compiled."""
    suffixes = ([f"[{k}]" for k in range(points[0].u.size)], [f"[{k}]" for k in range(points[0].theta.size)])
    return _check(dynamics, points, False, suffixes, wants_complex=False)


def _check(
    dynamics: Dynamics, points: list[Place], wants_around: bool, suffixes: Suffixes, wants_complex: bool = True
) -> VjpReport:
    n, m = points[0].u.size, points[0].theta.size
    lams = _choose_lams(n)
    rules = [rule for rule in (dynamics.vjp, dynamics.vjp_u, dynamics.jac) if rule is not None]
    f = Trial(dynamics.f, compiled=not dynamics.calls.fused)
    problems = _problems_of_f(dynamics.f, f, points, suffixes)
    skipped = 0
    if wants_around and not problems:
        further, skipped = places.around(f, points[0])
        points = [*points, *further]
    references: list[Reference] = []
    doubts: dict[tuple[str, str], np.ndarray] = {}
    complex_step = compiles = (
        wants_complex and not problems and takes_complex(dynamics.f, points[0].t, points[0].u, points[0].theta)
    )
    for point in [] if problems else points:  # an f that is wrong itself has no derivatives to compare with
        right = reference(dynamics.f, point.t, point.u, point.theta, lams.rows, complex_step=complex_step)
        references.append(right)
        complex_step = right.by_complex_step > 0
        for rule in rules:
            problems += _compare(rule, point, lams, right, suffixes, doubts)
        if np.array_equal(point.theta == 0.0, points[0].theta == 0.0):  # a pattern may come from zeros among the parameters
            problems += _outside_pattern(dynamics, point, lams, right, suffixes)

    return VjpReport(
        problems=_first_of_each(problems),
        products=tuple(rule.name for rule in rules),
        times=tuple(point.t for point in points),
        n=n,
        m=m,
        n_lam=len(lams.rows),
        reference=_describe_reference(compiles, references),
        accuracy=_worst_accuracy(references),
        unsure=_unsure(doubts, problems, lams, suffixes),
        skipped=skipped,
    )


def _worst_accuracy(references: list[Reference]) -> float:
    """That of the entry that is known worst, where it is known best, of those that can be judged."""
    if not references:
        return 0.0
    best = np.min([right.accuracy for right in references], axis=0)
    return float(np.max(best, where=best <= VAGUE, initial=0.0))


def _unsure(
    doubts: dict[tuple[str, str], np.ndarray], problems: list[VjpProblem], lams: Lams, suffixes: Suffixes
) -> tuple[str, ...]:
    """The derivatives that could not be judged at any point, of entries that are not known to be wrong."""
    wrong, names = {(problem.block, problem.entry) for problem in problems}, dict[str, None]()
    for (_, block), doubtful in doubts.items():
        for row, j in np.argwhere(doubtful[: lams.units]):
            if (block, int(j)) not in wrong:
                by = f"dtheta{suffixes[1][j]}" if block == "theta_bar" else f"du{suffixes[0][j]}"
                names[f"df{suffixes[0][lams.axis(int(row))]}/{by}"] = None
    return tuple(names)


def _compare(
    rule: Callback, point: Place, lams: Lams, right: Reference, suffixes: Suffixes, doubts: dict[tuple[str, str], np.ndarray]
) -> list[VjpProblem]:
    """What is wrong with a rule at one point; what cannot be judged there stays among the doubts."""
    n, size = point.u.size, right.values.shape[1] if rule.name == "vjp" else point.u.size
    if rule.name == "jac":
        calls = call_jac(rule, point.t, point.u, point.theta, lams.rows)
        blocks = [Block("J", slice(0, n), calls, right, lams, suffixes)]
    else:
        scales = np.maximum(1.0, np.abs(right.values[:, :size]))  # garbage as large as the results, or it would drown in them
        calls = call_with_lams(rule, point.t, point.u, point.theta, lams.rows, scales)
        blocks = [Block("u_bar", slice(0, n), calls, right, lams, suffixes)]
    if rule.name == "vjp":
        blocks.append(Block("theta_bar", slice(n, None), calls, right, lams, suffixes))
    for block in blocks:
        key = rule.name, block.name
        doubts[key] = doubts.get(key, True) & block.doubtful
    return calls.problems(suffixes) + [problem for block in blocks for problem in find_problems(block)]


def _outside_pattern(dynamics: Dynamics, point: Place, lams: Lams, right: Reference, suffixes: Suffixes) -> list[VjpProblem]:
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


def _problems_of_f(f: Callback, trial: Trial, points: list[Place], suffixes: Suffixes) -> list[VjpProblem]:
    """f, too, must overwrite its output and leave its inputs alone; and it must be finite."""
    problems = []
    for point in points:
        calls = call_without_lam(f, point.t, point.u, point.theta)
        problems += calls.problems(suffixes) + calls.leftovers("du", suffixes)
        du = calls.results[0, 0]
        if not problems and not np.isfinite(du).all():
            slip = trial.slip(point.t, point.u, point.theta)
            if slip is not None and slip.trespasses:
                raise ValueError(f"f {slip.text}.")
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
