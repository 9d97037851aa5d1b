"""`Fit`: initial states and parameters fitted to a loss by SciPy's optimisers, with adjoint gradients or with tangents."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from adjode.api.keywords import FitKeywords
from adjode.checks import float_vector
from adjode.frontends.check_gradient import GradientReport, check_gradient
from adjode.frontends.entries import Parameter
from adjode.frontends.evaluation import Evaluation
from adjode.frontends.experiments import Experiment, Experiments
from adjode.frontends.inference import LeastSquaresFit
from adjode.frontends.least_squares import METHODS
from adjode.frontends.minimize import OF_SECOND_ORDER, TAKE_PRODUCTS, MinimizeTask, check_method
from adjode.frontends.problems import Shared, Single
from adjode.frontends.starts import StartOptions, run_starts
from adjode.model.dynamics import Dynamics
from adjode.model.losses import Loss
from adjode.status import SolveError

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

MOST_ENTRIES = 50  # up to which a Jacobian by tangents is worth more than the gradients that it costs, see benchmarks/fits.py


class Fit(LeastSquaresFit):
    """A loss as a function of the entries of `u0` and `theta` that are fitted, or the sum of the losses of many experiments as a
    function of the parameters that they share: `Fit(experiments, parameters={"rate": Parameter(1.0, scale="log")})`.

    Parameters
    ----------
    dynamics : Dynamics, or Experiments, or a sequence of Experiment
        With experiments, `parameters` replaces everything that follows except the options.
    loss : FinalState, LeastSquares, Series, or any object with `value_and_cotangents(solution)`
    t_span : (t0, T)
    u0, theta : vector, dict or structured scalar
        Starting values; entries that are not free keep them.
    free : tuple of block names, or dict
        What is fitted. A tuple names whole blocks: ("theta",), ("u0", "theta"). A dict has for each block True or False, a boolean
        mask, a list of indices, or a list of entry names (if the block is a dict or structured).
    log : tuple of block names, or dict
        Which entries are fitted by their logarithm, so that they stay positive; in the same form as `free`.
    bounds : dict of block name -> (low, high), or as SciPy takes them, optional
        Bounds in natural units. Each is a number, an array, or a dict of entries; None means no bound. The form of SciPy is a pair
        for each free entry, or `scipy.optimize.Bounds`.
    parameters : dict of name -> Parameter or number, optional
        For experiments: the starting value of each, with its bounds, scale and prior. A number is fixed.
    workers : int, optional
        Threads for experiments; by default one for each processor. Sums are taken in the order of the experiments, so the result
        has the same bits for any number of threads.
    executor : optional
        Anything with `submit(function, *arguments)`, used instead of threads.
    **options
        Options of `value_and_gradient`: `method`, `rtol`, `atol`, `adjoint`, ...; an experiment's own options take precedence.

    Attributes
    ----------
    x0 : (k,) array
        The free entries at the start, as the optimiser sees them: u0 before theta, and logarithms where asked for.
    bounds : list of k pairs (low, high)
        Bounds of x, as `scipy.optimize.minimize` takes them.
    names : list of k str
        The entry behind each x: "theta[0]", "u0['hare']", ..., or the names of parameters.
    n_failed : int
        The number of solves that have failed so far.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.

    Examples
    --------
    A rate of decay and an initial amount, from three measurements:

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
        dynamics: Dynamics | Experiment | Experiments | Sequence[Experiment],
        loss: Loss | None = None,
        t_span: tuple[float, float] | None = None,
        *,
        u0: Any = None,
        theta: Any = None,
        free: Any = ("theta",),
        log: Any = (),
        bounds: Any = None,
        parameters: Mapping[str, Parameter | float] | None = None,
        workers: int | None = None,
        executor: Any = None,
        **options: Unpack[FitKeywords],
    ):
        entries = {"u0": u0, "theta": theta, "free": free, "log": log, "bounds": bounds, "parameters": parameters}
        self._given = (dynamics, loss, t_span), {**entries, **options}
        if isinstance(dynamics, (Experiment, Sequence)):
            if parameters is None:
                raise TypeError("a fit of experiments needs parameters, a dict of name -> adjode.Parameter.")
            given = {"loss": loss, "t_span": t_span, "u0": u0, "theta": theta, "bounds": bounds, "log": log or None}
            if more := [name for name, value in given.items() if value is not None]:
                raise ValueError(f"{', '.join(more)}: each experiment has its own, and its parameters their bounds and scales.")
            shared = Shared(dynamics, parameters, workers, executor, dict(options))
            self.experiments, self.parameters = shared.experiments, shared.parameters
            super().__init__(shared)
        else:
            if parameters is not None or workers is not None or executor is not None:
                raise ValueError("parameters, workers and executor belong to a fit of experiments, Fit([experiment, ...], ...).")
            single = Single(dynamics, loss, t_span, u0, theta, free, log, bounds, dict(options))
            found = single.evaluation
            self.dynamics, self.loss, self.t_span, self.wrt = found.dynamics, found.loss, found.t_span, found.wrt
            super().__init__(single)

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
        If the solve fails, the value is infinite and the gradient NaN; the first time, a RuntimeWarning says why. SciPy's L-BFGS-B
        does not recover from such points (it may even report success); `minimize` makes it step back.
        """
        try:
            return self.evaluate(float_vector("x", x, self._free.size))
        except SolveError as error:
            self.n_failed += 1
            if self.n_failed == 1:
                message = f"a solve failed, so the loss is infinite there (n_failed counts further ones): {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
            return math.inf, np.full(self._free.size, np.nan)

    def minimize(
        self,
        method: str = "L-BFGS-B",
        *,
        x0: Any = None,
        starts: int = 1,
        seed: Any = None,
        sampling: str = "latin",
        workers: int | Executor = 1,
        progress: bool = False,
        callback: Callable | None = None,
        **options: Any,
    ) -> OptimizeResult:
        """Minimise the loss by `scipy.optimize.minimize`, from x0 or from many starts, and within the bounds.

        Parameters
        ----------
        method : {"L-BFGS-B", "TNC", "trust-constr", "BFGS", "CG", "Newton-CG", "trust-ncg", "trust-krylov"}
            The last five take no bounds. The last two use Hessian-vector products, see `hessp`; "Newton-CG" and "trust-constr" use
            them if available, and otherwise differences of gradients.
        x0 : (k,) array, optional
            Where to start instead of `Fit.x0`, on the same scale.
        starts, seed : int
            From how many points to fit: x0, and others within the bounds, which must be finite. The best fit is returned; its
            `starts` are all fits that ended. The points are the same for the same seed.
        sampling : {"latin", "sobol"}
            How the other points are chosen: by a Latin hypercube, or a scrambled Sobol sequence.
        workers : int or Executor
            What runs the other starts: a number of threads, or an executor of `concurrent.futures` or one like it. An executor that
            uses processes is sent the fit, so its functions must be defined in modules.
        progress : bool
            Show iteration, loss and norm of the gradient with tqdm; with workers, the number of starts that have ended.
        callback : callable, optional
            Called after each iteration, as SciPy does.
        **options
            Passed on to `scipy.optimize.minimize`: `tol`, `options`, ...

        Returns
        -------
        scipy.optimize.OptimizeResult
            With `u0` and `theta` at the minimum, in the form in which they were given, or `parameters`, a dict; `loss`; and
            `n_failed`, the number of failed solves.

        Raises
        ------
        SolveError
            If the solve at x0 fails, or at all starts. Later failures do not stop the fit; a RuntimeWarning at the end counts them.
        TypeError
            If the method needs second derivatives and there are none.

        Notes
        -----
        At a point where the solve fails, the optimiser is shown the tangent plane of its current iterate turned uphill: whichever
        way it stepped, the loss seems to rise as steeply as it was expected to fall, so a line search steps back.
        """
        how, second_order = StartOptions(starts, seed, sampling, workers), False
        if check_method(method, self.bounds) in OF_SECOND_ORDER + TAKE_PRODUCTS and not {"hess", "hessp"} & {*options}:
            second_order = self.has_second_order or method in OF_SECOND_ORDER
        task = MinimizeTask(self, method, options, callback=callback, second_order=second_order)
        return self._finish(run_starts(task, how.points(self, x0), how, progress, "iterations"), "linear")

    def fit(self, method: str = "auto", **options: Any) -> OptimizeResult:
        """Fit by `least_squares` or by `minimize`, whichever suits the loss.

        Parameters
        ----------
        method : str
            "auto": "trf" of `least_squares` if the loss is a sum of squares with tangents and at most 50 entries are free,
            otherwise "L-BFGS-B" of `minimize`; or a method of either.
        **options
            Options of the one that is used: `starts`, `seed`, `workers`, `progress`, ...

        Returns
        -------
        scipy.optimize.OptimizeResult
            With its `loss`, and the `method` that was used.

        Raises
        ------
        ValueError, TypeError, SolveError
            As for `least_squares` and `minimize`.
        """
        if method == "auto":
            method = "trf" if self.names[MOST_ENTRIES:] == [] and self.has_residuals else "L-BFGS-B"
        result = self.least_squares(method, **options) if method in METHODS else self.minimize(method, **options)
        result.method = method
        return result

    def check_gradient(self, x: Any = None) -> GradientReport:
        """Compare the gradient at x, by default x0, with differences of the loss, entry by entry.

        Worth a call if derivatives are written by hand, especially those of your own loss. It takes six tight solves per entry.

        Returns
        -------
        GradientReport
            `print(report)` says what is wrong: the dynamics' derivatives, the loss's cotangents, or the gradient alone.
            `report.ok`, `report.raise_if_wrong()`.
        """
        return check_gradient(self, x)

    def part(self, experiment: str | None = None, x: Any = None) -> tuple[Evaluation, np.ndarray]:
        """What one of several experiments is made of, and its u0 and theta at x, by default x0, in one vector."""
        return self._problem.part(self._natural(self.x0 if x is None else float_vector("x", x, self._free.size)), experiment)

    def with_options(self, **options: Unpack[FitKeywords]) -> Fit:
        """The same fit with some options changed."""
        problem, given = self._given
        return Fit(*problem, **{**given, **options})

    def __repr__(self) -> str:
        listed = self.names if len(self.names) <= 8 else [*self.names[:7], "..."]
        logs = f", {int(self._log.sum())} on a log scale" if self._log.any() else ""
        return f"Fit of {self._problem.of}: {len(self.names)} of {self._start.size} entries free ({', '.join(listed)}){logs}"
