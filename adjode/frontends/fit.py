"""`Fit`: initial states and parameters fitted to a loss by SciPy's optimisers, with adjoint gradients."""

from __future__ import annotations

import contextlib
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from adjode.api.gradient import value_and_gradient
from adjode.api.keywords import FitKeywords
from adjode.checks import choose, float_vector, time_span
from adjode.frontends.selection import BLOCKS, natural_bounds, selection_mask
from adjode.model.dynamics import Dynamics
from adjode.model.losses import Loss
from adjode.status import SolveError, Status

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

# SciPy's methods that use gradients, without SLSQP: its line search can accept a point however much the loss rises there.
BOUNDED = ("L-BFGS-B", "TNC", "trust-constr")
UNBOUNDED = ("BFGS", "CG", "Newton-CG")


class Fit:
    """A loss as a function of those entries of `u0` and `theta` that are to be fitted.

    Parameters
    ----------
    dynamics : Dynamics
    loss : FinalState, LeastSquares, Series, or any object with `value_and_cotangents(solution)`
    t_span : (t0, T)
    u0, theta : vector, dict or structured scalar
        Starting values; entries that are not free keep them.
    free : tuple of block names, or dict
        What is fitted. A tuple names whole blocks: ("theta",), ("u0", "theta"). A dict says for each block True or False, a boolean
        mask, a list of indices, or a list of entry names (where the block is a dict or structured).
    log : tuple of block names, or dict
        Which entries are fitted by their logarithm, so that they stay positive; given as `free`.
    bounds : dict of block name -> (low, high), optional
        Bounds in natural units; each a number, an array, or a dict of entries; None is no bound.
    **options
        Options of `value_and_gradient`: `method`, `rtol`, `atol`, `adjoint`, ...

    Attributes
    ----------
    x0 : (k,) array
        The free entries at the start, as the optimiser sees them: u0 before theta, logarithms where asked for.
    bounds : list of k pairs (low, high)
        Bounds of x, as `scipy.optimize.minimize` takes them.
    names : list of k str
        The entry behind each x: "theta[0]", "u0['hare']", ...
    n_failed : int
        Solves that have failed so far.

    Raises
    ------
    ValueError, TypeError
        For bad input.

    Examples
    --------
    A rate of decay, and the amount that was there, from three measurements:

    >>> import adjode
    >>> def f(t, u, theta, du):
    ...     du[0] = -theta[0] * u[0]
    >>> def vjp(t, u, theta, lam, u_bar, theta_bar):
    ...     u_bar[0] = -theta[0] * lam[0]
    ...     theta_bar[0] = -u[0] * lam[0]
    >>> loss = adjode.losses.LeastSquares([1.0, 2.0, 3.0], [2.0, 1.0, 0.5])
    >>> start = {"u0": {"amount": 1}, "theta": {"rate": 1}}
    >>> fit = adjode.Fit(adjode.Dynamics(f, vjp), loss, (0, 3), **start, free=("u0", "theta"), log=("theta",))
    >>> fit
    Fit of f by LeastSquares, t = 0 .. 3: 2 of 2 entries free (u0['amount'], theta['rate']), 1 on a log scale
    >>> result = fit.minimize()
    >>> print(f"{result.u0['amount']:.2f} {result.theta['rate']:.2f}")
    4.00 0.69
    """

    def __init__(
        self,
        dynamics: Dynamics,
        loss: Loss,
        t_span: tuple[float, float],
        *,
        u0: Any,
        theta: Any,
        free: Any = ("theta",),
        log: Any = (),
        bounds: Mapping[str, tuple[Any, Any]] | None = None,
        **options: Unpack[FitKeywords],
    ):
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be an adjode.Dynamics(f, vjp), but a {type(dynamics).__name__} was given.")
        if not hasattr(loss, "value_and_cotangents"):
            raise TypeError(f"loss must have a method value_and_cotangents(solution), but a {type(loss).__name__} was given.")
        self.dynamics, self.loss, self.t_span = dynamics, loss, time_span(t_span)
        layouts = self._layouts = dynamics.layouts(u0, theta)
        dynamics.require_order(*layouts, jumps=options.get("doses") or options.get("events"))
        self._start = np.concatenate([layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta)])
        is_free = selection_mask("free", free, layouts)
        self._free = np.flatnonzero(is_free)
        if not self._free.size:
            raise ValueError("free selects no entry, so there is nothing to fit.")
        self._log = selection_mask("log", log, layouts)[self._free]
        entry_names = layouts[0].entry_names() + layouts[1].entry_names()
        self.names = [entry_names[i] for i in self._free]
        self._check_positive()
        self.x0 = self._transform(self._start[self._free])
        self.bounds = self._transform_bounds(bounds)
        n = layouts[0].size
        self._wrt = tuple(block for block, part in zip(BLOCKS, (is_free[:n], is_free[n:]), strict=True) if part.any())
        self._value_and_cotangents = value_and_gradient(dynamics, loss, self.t_span, wrt=self._wrt, **options)
        self.n_failed = 0

    def value_and_gradient(self, x: Any) -> tuple[float, np.ndarray]:
        """The loss and its gradient by x, for optimisers that you call yourself.

        Parameters
        ----------
        x : (k,) array

        Returns
        -------
        value : float
        gradient : (k,) array

        Notes
        -----
        Where the solve fails, the value is infinite and the gradient NaN; the first time, a RuntimeWarning says why. SciPy's
        L-BFGS-B does not recover from such points (it may even report success): `minimize` leads it back.
        """
        try:
            return self._evaluate(float_vector("x", x, self._free.size))
        except SolveError as error:
            self.n_failed += 1
            if self.n_failed == 1:
                message = f"a solve failed, so the loss is infinite there (n_failed counts further ones): {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
            return math.inf, np.full(self._free.size, np.nan)

    def unpack(self, x: Any) -> tuple[Any, Any]:
        """`(u0, theta)` at x, in the form they were given in; entries that are not free have their starting values."""
        return self._unflatten(self._natural(float_vector("x", x, self._free.size)))

    def minimize(
        self, method: str = "L-BFGS-B", *, progress: bool = False, callback: Callable | None = None, **options: Any
    ) -> OptimizeResult:
        """Minimise the loss by `scipy.optimize.minimize`, from x0 and within the bounds.

        Parameters
        ----------
        method : {"L-BFGS-B", "TNC", "trust-constr", "BFGS", "CG", "Newton-CG"}
            The last three take no bounds.
        progress : bool
            Show iteration, loss and norm of the gradient with tqdm.
        callback : callable, optional
            Called after each iteration, as SciPy does.
        **options
            Passed on to `scipy.optimize.minimize`: `tol`, `options`, ...

        Returns
        -------
        scipy.optimize.OptimizeResult
            With `u0` and `theta` at the minimum, in the form they were given in, and `n_failed`, the number of failed solves.

        Raises
        ------
        SolveError
            If the solve at x0 fails. Later failures do not stop the fit; a RuntimeWarning at the end counts them.

        Notes
        -----
        At a point where the solve fails, the optimiser is shown the tangent plane of its current iterate turned uphill: whichever
        way it stepped, the loss seems to rise as steeply as it was expected to fall, so that a line search steps back.
        """
        from scipy import optimize

        method = choose("method", method, BOUNDED + UNBOUNDED)
        bounded = bool(np.isfinite(self.bounds).any())
        if bounded and method in UNBOUNDED:
            raise ValueError(f"{method} takes no bounds: leave them out, or choose one of {', '.join(BOUNDED)}.")
        failed_before = self.n_failed
        objective = _Objective(self)
        with _progress_line(progress) as show:
            result = optimize.minimize(
                objective,
                self.x0,
                jac=True,
                method=method,
                bounds=self.bounds if bounded else None,
                callback=_after_iteration(objective, show, callback),
                **options,
            )
        result.u0, result.theta = self.unpack(result.x)
        result.n_failed = self.n_failed - failed_before
        if result.n_failed:
            warnings.warn(
                f"{result.n_failed} of the {objective.n_evaluations} solves of the fit failed and were stepped back from; "
                f"the first: {objective.first_failure}",
                RuntimeWarning,
                stacklevel=2,
            )
        return result

    def __repr__(self) -> str:
        t0, T = self.t_span
        listed = self.names if len(self.names) <= 8 else [*self.names[:7], "..."]
        logs = f", {int(self._log.sum())} on a log scale" if self._log.any() else ""
        return (
            f"Fit of {self.dynamics.name} by {type(self.loss).__name__}, t = {t0:g} .. {T:g}: "
            f"{len(self.names)} of {self._start.size} entries free ({', '.join(listed)}){logs}"
        )

    def _evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss and its gradient by x, both finite, or a SolveError."""
        z = self._natural(x)
        if not np.isfinite(z).all():
            raise self._non_finite(f"{self.names[int(np.argmax(~np.isfinite(z[self._free])))]} overflows")
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow in the loss is reported below
            value, bar = self._value_and_cotangents(*self._unflatten(z))
        n, cotangents = self._layouts[0].size, np.zeros(z.size)
        if "u0" in self._wrt:
            cotangents[:n] = self._layouts[0].flatten("the cotangent of u0", bar.u0)
        if "theta" in self._wrt:
            cotangents[n:] = self._layouts[1].flatten("the cotangent of theta", bar.theta)
        gradient = cotangents[self._free] * np.where(self._log, z[self._free], 1.0)
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise self._non_finite("the loss or its gradient is not finite")
        return float(value), gradient

    def _non_finite(self, what: str) -> SolveError:
        return SolveError(f"{what}.", phase="loss", status=Status.NON_FINITE, t=self.t_span[0])

    def _natural(self, x: np.ndarray) -> np.ndarray:
        """u0 and theta in one vector, in natural units, with x in place of the free entries."""
        z = self._start.copy()
        z[self._free] = x
        with np.errstate(over="ignore"):
            z[self._free[self._log]] = np.exp(x[self._log])
        return z

    def _unflatten(self, z: np.ndarray) -> tuple[Any, Any]:
        n = self._layouts[0].size
        return self._layouts[0].unflatten(z[:n]), self._layouts[1].unflatten(z[n:])

    def _transform(self, values: np.ndarray) -> np.ndarray:
        """Natural units to x; what is not positive on a log scale becomes -inf."""
        x = values.copy()
        x[self._log] = np.log(values[self._log], out=np.full(int(self._log.sum()), -np.inf), where=values[self._log] > 0)
        return x

    def _transform_bounds(self, bounds: Mapping[str, tuple[Any, Any]] | None) -> list[tuple[float, float]]:
        low, high = natural_bounds(bounds, self._layouts)
        start, low, high = self._start[self._free], low[self._free], high[self._free]
        for name, value, least, most in zip(self.names, start, low, high, strict=True):
            if not least <= value <= most:
                raise ValueError(f"{name} must start within its bounds ({least:g}, {most:g}), but it starts at {value:g}.")
        return [(float(a), float(b)) for a, b in zip(self._transform(low), self._transform(high), strict=True)]

    def _check_positive(self) -> None:
        start = self._start[self._free]
        for i in np.flatnonzero(self._log & ~(start > 0)):
            raise ValueError(f"{self.names[i]} must start positive to be fitted on a log scale, but it starts at {start[i]:g}.")


# --- what the optimiser sees ------------------------------------------------------------------------------------------


class _Point(NamedTuple):
    x: np.ndarray
    value: float
    gradient: np.ndarray


class _Objective:
    """The loss for SciPy, finite everywhere.

    The anchor is the iterate from which the optimiser is searching; SciPy's callback moves it. A substitute value must exceed the
    anchor's, not just that of the latest good trial, or a line search could accept the failing point.
    """

    def __init__(self, fit: Fit):
        self.fit = fit
        self.anchor: _Point | None = None
        self.trials: dict[bytes, _Point] = {}  # good points since the anchor was set
        self.failed: set[bytes] = set()
        self.first_failure: SolveError | None = None
        self.n_evaluations = 0

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.n_evaluations += 1
        try:
            point = _Point(x.copy(), *self.fit._evaluate(x))
        except SolveError as error:
            if self.anchor is None:
                error.args = (f"the fit cannot start, because the solve at x0 fails: {error}",)
                raise
            self.fit.n_failed += 1
            self.failed.add(x.tobytes())
            self.first_failure = self.first_failure or error
            return self._uphill(x)
        self.anchor = self.anchor or point
        self.trials[x.tobytes()] = point
        return point.value, point.gradient.copy()

    def _uphill(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """`value + |gradient . (x - anchor)|`: its slope along any step is the anchor's, turned uphill."""
        assert self.anchor is not None
        change = float(self.anchor.gradient @ (x - self.anchor.x))
        return self.anchor.value + abs(change), math.copysign(1.0, change) * self.anchor.gradient

    def accept(self, x: np.ndarray) -> _Point:
        """Move the anchor to the iterate x."""
        assert self.anchor is not None
        if x.tobytes() in self.trials:
            self.anchor = self.trials[x.tobytes()]
            self.trials = {}
        return self.anchor


def _after_iteration(objective: _Objective, show: Callable[[_Point, int], None], callback: Callable | None) -> Callable:
    """SciPy's callback: move the anchor, show progress, and call the user's in whichever of SciPy's two forms it has."""
    by_name = callback is not None and set(inspect.signature(callback).parameters) == {"intermediate_result"}

    def after_iteration(x: np.ndarray, *state: Any) -> Any:
        point = objective.accept(x)
        show(point, len(objective.failed))
        if callback is None:
            return None
        if by_name:
            from scipy.optimize import OptimizeResult

            return callback(intermediate_result=OptimizeResult(x=x, fun=point.value))
        return callback(x, *state)

    return after_iteration


@contextlib.contextmanager
def _progress_line(progress: bool) -> Iterator[Callable[[_Point, int], None]]:
    if not progress:
        yield lambda point, n_failed: None
        return
    from tqdm.auto import tqdm

    with tqdm(desc="fit", unit=" iterations") as line:

        def show(point: _Point, n_failed: int) -> None:
            facts = {"loss": f"{point.value:.6g}", "|gradient|": f"{np.linalg.norm(point.gradient):.2e}"}
            line.set_postfix(facts | ({"failed": n_failed} if n_failed else {}), refresh=False)
            line.update()

        yield show
