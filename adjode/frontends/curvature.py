"""The curvature of a loss by its gradients: its Hessian at a minimum, and minima beside it, found with what is known of it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from adjode.status import SolveError

_FIRST_STEP = 1e-4  # of an entry or of 1, in differences of gradients
_PART = 0.02  # of the distance along which the loss rises by a half: the step of the second differences
_GAIN = 1e-7  # that a step must promise to be taken
_ITERATIONS = 60
_HALVINGS = 12
_ARMIJO = 1e-4
_DAMPED = 0.2  # of its curvature, of which a step must show as much to be believed


class Differentiated(Protocol):
    """What is read of a `Fit`."""

    bounds: list[tuple[float, float]]

    def evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray]: ...


def hessian_by_differences(fit: Differentiated, x: np.ndarray) -> np.ndarray:
    """The Hessian (k, k) at x by differences of gradients, whose steps suit what first ones have found."""
    rough = _differences(fit, x, _FIRST_STEP * np.maximum(1.0, np.abs(x)))
    sizes = np.sqrt(np.maximum(np.diag(rough), 0.0))
    return _differences(fit, x, np.minimum(_PART / np.maximum(sizes, 1e-300), 10.0 * _FIRST_STEP * np.maximum(1.0, np.abs(x))))


def _differences(fit: Differentiated, x: np.ndarray, steps: np.ndarray) -> np.ndarray:
    H = np.zeros((x.size, x.size))
    for k, (low, high) in enumerate(fit.bounds):
        ends = []
        for end in (max(x[k] - steps[k], low), min(x[k] + steps[k], high)):
            at = x.copy()
            at[k] = end
            ends.append((end, fit.evaluate(at)[1]))
        (a, before), (b, behind) = ends
        H[k] = (behind - before) / (b - a)
    return 0.5 * (H + H.T)


class Settling:
    """Minima near one that is known, with some entries held, by quasi-Newton steps (BFGS) that begin with the Hessian there.

    Parameters
    ----------
    fit : Fit
    H : (k, k) array
        The Hessian, positive definite; what steps show of the curvature is kept from call to call.
    held : (k,) array of bool
    noise : float
        Relative, of the loss.
    """

    def __init__(self, fit: Differentiated, H: np.ndarray, held: np.ndarray, noise: float):
        self._fit, self._B, self._others, self._noise = fit, H.copy(), ~held, noise
        self._low, self._high = np.array(fit.bounds).T

    def guess(self, x: np.ndarray, to: np.ndarray) -> np.ndarray:
        """Where the minimum of the others goes, to first order, when held entries go from x to `to`."""
        others, change = self._others, to - x
        found = to.copy()
        found[others] = x[others] - np.linalg.solve(self._B[np.ix_(others, others)], self._B[others][:, ~others] @ change[~others])
        return np.where(others, np.clip(found, self._low, self._high), to)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        """The minimum that is found from x, which has the entries that are held; and its loss."""
        value, gradient = self._fit.evaluate(x)
        for _ in range(_ITERATIONS):
            step = self._step(x, gradient)
            if -(gradient @ step) <= _GAIN:
                break
            found = self._search(x, value, gradient, step)
            if found is None:
                break
            moved, value, slope = found
            self._learn(moved - x, slope - gradient)
            x, gradient = moved, slope
        return x, value

    def _step(self, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Newton's, within the bounds; without entries that are at a bound and would leave."""
        free = self._others & ~((x <= self._low) & (gradient > 0.0)) & ~((x >= self._high) & (gradient < 0.0))
        target = x.copy()
        target[free] -= np.linalg.solve(self._B[np.ix_(free, free)], gradient[free])
        step = np.clip(target, self._low, self._high) - x
        if gradient @ step >= 0.0:  # bounds have turned it
            target = x - np.where(free, gradient / np.diag(self._B), 0.0)
            step = np.clip(target, self._low, self._high) - x
        return np.where(free, step, 0.0)

    def _search(
        self, x: np.ndarray, value: float, gradient: np.ndarray, step: np.ndarray
    ) -> tuple[np.ndarray, float, np.ndarray] | None:
        """A point along the step at which the loss is less, as far as its noise allows; None if there is none."""
        allowed, promised, last = self._noise * max(1.0, abs(value)), gradient @ step, None
        for halved in range(_HALVINGS):
            part = 0.5**halved
            try:
                loss, slope = self._fit.evaluate(x + part * step)
            except SolveError as error:
                last = error
                continue
            if loss <= value + _ARMIJO * part * promised + allowed:
                return x + part * step, loss, slope
        if last is not None:
            raise last
        return None

    def _learn(self, s: np.ndarray, y: np.ndarray) -> None:
        """BFGS, damped where the step shows little curvature (Powell 1978)."""
        block = np.ix_(self._others, self._others)
        B, s, y = self._B[block], s[self._others], y[self._others]
        Bs = B @ s
        size = float(s @ Bs)
        shown = float(s @ y)
        if shown < _DAMPED * size:
            part = (1.0 - _DAMPED) * size / (size - shown)
            y = part * y + (1.0 - part) * Bs
        self._B[block] = B - np.outer(Bs, Bs) / size + np.outer(y, y) / (s @ y)
