"""`check_gradient`: hold the gradient of a fit against differences of its value, and its two parts, vjp and loss, apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adjode.checks import float_vector
from adjode.derivatives.check import VjpReport, check_vjp
from adjode.frontends.evaluation import Evaluation
from adjode.model.dynamics import Dynamics

if TYPE_CHECKING:
    from adjode.frontends.fit import Fit

_TIGHT, _TIGHT_OF_LOW_ORDER = 1e-10, 1e-8  # tolerances of the solves that are compared, to which the loss is known
_NOISE = 30.0  # such tolerances that the step control may change the loss by
_STEP = 2e-3  # of an entry's size
_VAGUE = 1e-3  # of a derivative, below which it is not worth to tell
_SHOWN = 10


class Entry(NamedTuple):
    """One derivative: its name, what the code gives, what differences give, and how far these can be off."""

    name: str
    given: float
    expected: float
    accuracy: float

    @property
    def ok(self) -> bool:
        return bool(abs(self.given - self.expected) <= self.accuracy)  # not for NaN

    def __str__(self) -> str:
        return f"{self.name}: given {self.given:.8g}, expected {self.expected:.8g} +- {self.accuracy:.1g}"


@dataclass(frozen=True, eq=False, repr=False)
class GradientReport:
    """The result of `Fit.check_gradient`; `str(report)` describes it in words.

    Attributes
    ----------
    entries : tuple of Entry
        The gradient by the free entries: name, given, expected, accuracy, ok.
    of_loss : tuple of Entry
        The derivative of the loss alone by a shift of each state at all times, with the solution otherwise held fixed.
    of_vjp : tuple of VjpReport
        The result of `check_vjp` for each dynamics.
    """

    entries: tuple[Entry, ...]
    of_loss: tuple[Entry, ...]
    of_vjp: tuple[VjpReport, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self._wrong_vjps and all(entry.ok for entry in (*self.entries, *self.of_loss))

    @property
    def _wrong_vjps(self) -> list[VjpReport]:
        return [report for report in self.of_vjp if report.ok is False]

    def raise_if_wrong(self) -> None:
        """Raise a ValueError with the report, unless all is right."""
        if not self.ok:
            raise ValueError(str(self))

    def __str__(self) -> str:
        if self.ok:
            return f"The gradient is right: {len(self.entries)} entries compared with differences of the loss."
        lines = ["check_gradient found errors."]
        for report in self._wrong_vjps:
            lines += ["The derivatives of the dynamics are wrong:", str(report)]
        lines += _told("The cotangents that the loss returns are wrong, as a shift of a state at all times shows:", self.of_loss)
        blame = not self._wrong_vjps and all(entry.ok for entry in self.of_loss)
        about = (
            ", though vjp and the loss's cotangents of states look right: is theta_bar missing, or is f not smooth?"
            if blame
            else ":"
        )
        return "\n".join(lines + _told(f"The gradient is wrong{about}", self.entries))

    __repr__ = __str__


def _told(heading: str, entries: Sequence[Entry]) -> list[str]:
    wrong = [entry for entry in entries if not entry.ok]
    if not wrong:
        return []
    more = [f"  ... and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    return [heading, *(f"  {entry}" for entry in wrong[:_SHOWN]), *more]


def compare(
    names: Sequence[str], value: Callable[[np.ndarray], float], x: np.ndarray, given: np.ndarray, noise: float
) -> tuple[Entry, ...]:
    """The derivatives of `value`, known to `noise` of it, at x: as given, and by extrapolated central differences."""
    entries, noise = [], noise * abs(value(x))
    for i, (name, step) in enumerate(zip(names, _STEP * np.where(x == 0.0, 1.0, np.abs(x)), strict=True)):
        slopes = []
        for part in (step, 0.5 * step, 0.25 * step):
            move = np.where(np.arange(x.size) == i, part, 0.0)
            slopes.append((value(x + move) - value(x - move)) / (2.0 * part))
        coarse, fine = ((4.0 * slopes[k + 1] - slopes[k]) / 3.0 for k in range(2))
        accuracy = 4.0 * abs(fine - coarse) + _VAGUE * abs(fine) + noise / (0.25 * step)
        entries.append(Entry(name, float(given[i]), float(fine), float(accuracy)))
    return tuple(entries)


class Shifted:
    """A solution, all of whose states are shifted by the same vector."""

    def __init__(self, solution: Any, shift: np.ndarray):
        self._solution, self._shift = solution, shift

    def __call__(self, t: Any, **options: Any) -> np.ndarray:
        return self._solution(t, **options) + self._shift

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._solution, name)
        is_state = name in ("u", "u_T", "u0", "u_eval") and isinstance(value, np.ndarray) and value.dtype.names is None
        return value + self._shift if is_state else value


def of_loss(loss: Any, solution: Any, prefix: str) -> tuple[Entry, ...]:
    """The derivatives of a loss by a shift of each state, from its cotangents and from differences."""
    layout = solution.layouts[0]
    _, seeds = loss.value_and_cotangents(solution)
    total = np.zeros(layout.size)
    if seeds.get("u_T_bar") is not None:
        total += layout.flatten("u_T_bar", seeds["u_T_bar"])
    if seeds.get("observations") is not None:
        total += np.sum(np.reshape(seeds["observations"][1], (-1, layout.size)), axis=0)
    size = np.max(np.abs(solution.u), axis=0)

    def value(x: np.ndarray) -> float:
        return float(loss.value_and_cotangents(Shifted(solution, x - size))[0])

    return compare([prefix + name for name in layout.entry_names("u")], value, size, total, 1e-13)


def _parts(fit: Fit, x: np.ndarray) -> list[tuple[str, Evaluation, np.ndarray]]:
    return fit._problem.parts(fit._natural(x))


def check_gradient(fit: Fit, x: Any) -> GradientReport:
    """See `Fit.check_gradient`."""
    options = [evaluation.forward_options for _, evaluation, _ in _parts(fit, fit.x0)]
    tight = _TIGHT if min(one.tableau.order for one in options) >= 5 else _TIGHT_OF_LOW_ORDER
    if any(one.adaptive and one.rtol > tight for one in options):
        fit = fit.with_options(rtol=tight, atol=options[0].tightened_atol(tight / options[0].rtol))
    x = fit.x0 if x is None else float_vector("x", x, fit.x0.size)
    _, gradient = fit.evaluate(x)
    entries = compare(fit.names, lambda at: fit.evaluate(at)[0], x, gradient, _NOISE * max(tight, fit._problem.rtol))
    losses: list[Entry] = []
    reports: dict[Dynamics, VjpReport] = {}
    for name, evaluation, z in _parts(fit, x):
        solution = evaluation.solve(z)
        losses += of_loss(evaluation.loss, solution, f"{name}: " if name else "")
        if evaluation.dynamics not in reports:
            reports[evaluation.dynamics] = check_vjp(evaluation.dynamics, *evaluation.unflatten(z), evaluation.t_span[0], solution)
    return GradientReport(entries, tuple(losses), tuple(reports.values()))
