"""`hessian_vector_product`: a loss, its gradient and products with its Hessian, as a function of (u0, theta) and directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import numpy as np

from adjode.api.first_calls import forward_parts
from adjode.api.hessian_workspace import Cost, Workspace
from adjode.api.keywords import ForwardKeywords
from adjode.api.solve import try_before
from adjode.api.steady import is_steady
from adjode.api.tangents import read_directions
from adjode.checks import choose, time_span, times_in_span
from adjode.model.dynamics import Dynamics
from adjode.model.events import guards_of
from adjode.model.layout import Layout
from adjode.model.losses import Loss, loss_for
from adjode.model.losses.second_order import require_second_order
from adjode.model.selection import selection_mask
from adjode.passes.default_atol import beside_loss
from adjode.passes.forward import structure_for
from adjode.passes.options import SolveOptions
from adjode.passes.result import HessianProduct, HessianStats

_SIDE_BY_SIDE = 16  # columns of a Hessian: so many tangents of every stage are kept


def matrix_of(products: Callable[[np.ndarray], np.ndarray], units: np.ndarray) -> np.ndarray:
    """The Hessian (k, k) whose products with some of the `units`, in rows, are given in rows."""
    H = np.vstack([products(units[k : k + _SIDE_BY_SIDE]) for k in range(0, len(units), _SIDE_BY_SIDE)])
    return 0.5 * (H + H.T)  # symmetric but for rounding


def hessian_vector_product(
    dynamics: Dynamics,
    loss: Loss,
    t_span: tuple[float, float],
    *,
    running_cost: Callable | tuple[Callable, Callable] | None = None,
    on_inaccurate: str = "refine",
    **options: Unpack[ForwardKeywords],
) -> HessianVectorProduct:
    """The loss, its gradient and products with its Hessian, as a function of (u0, theta, u0_dot, theta_dot).

    Buffers and compiled code are prepared at the first call. A call solves forwards, carries the tangents of the direction along
    the steps, and pulls the cotangents back with their tangents. The product is the exact derivative of the discrete adjoint's
    gradient, on the mesh of the solve, which is held fixed. A call at the same point as the last one does not solve again.

    Parameters
    ----------
    dynamics : Dynamics
        Its second derivatives are derived from the source of f, or given as `Dynamics(vjp_dot=...)`.
    loss : LeastSquares, Likelihood, FinalState, or Series with `value=`
        The loss of one trajectory.
    t_span : (t0, T)
    running_cost : callable, or pair of callables, optional
        `g(t, u, theta)`, whose integral is added to the loss, as for `value_and_gradient`; its second derivatives are derived.
    on_inaccurate : {"refine", "raise", "warn"}
        What to do if steps that were chosen for the states are too long for the gradient; see `Solution.pullback`.
    **options
        Options of `solve` (`method`, `rtol`, `atol`, ...) except `memory`.

    Returns
    -------
    HessianVectorProduct
        `(u0, theta, u0_dot, theta_dot) -> HessianProduct`; its method `hessian(u0, theta)` gives the matrix.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, the method has no discrete adjoint, or the loss or the dynamics have no second derivatives.

    Examples
    --------
    >>> import adjode
    >>> def f(t, u, theta, du):
    ...     du[0] = -theta[0] * u[0]
    >>> loss = adjode.losses.FinalState([1.0])
    >>> product = adjode.hessian_vector_product(adjode.Dynamics(f), loss, (0.0, 1.0), rtol=1e-10, atol=1e-10)
    >>> found = product([1.0], [2.0], theta_dot=[1.0])
    >>> print(f"{found.theta[0]:.6f} {found.theta_dot[0]:.6f} {found.u0_dot[0]:.6f}")
    -0.135335 0.135335 -0.135335
    """
    return HessianVectorProduct(dynamics, loss, t_span, running_cost, on_inaccurate, dict(options))


class HessianVectorProduct:
    """A loss, its gradient and products with its Hessian; made by `hessian_vector_product`.

    It may be called from several threads, each of which uses its own buffers. Copies and pickles contain only the description.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        loss: Any,
        t_span: tuple[float, float],
        running_cost: Any,
        on_inaccurate: str,
        options: dict[str, Any],
    ):
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be an adjode.Dynamics(f), but a {type(dynamics).__name__} was given.")
        self._on_inaccurate = choose("on_inaccurate", on_inaccurate, ("refine", "raise", "warn"))
        self._given = dynamics, loss, t_span, running_cost, on_inaccurate, options
        self.dynamics, self.loss, self.t_span = dynamics, loss_for(dynamics.fields, loss), time_span(t_span)
        if options.get("memory") is not None:
            raise ValueError("second derivatives need all steps of a solution: leave memory out.")
        dynamics.switches.warn(stacklevel=3)
        self._solve_options = beside_loss(options, self.loss)
        self.options = SolveOptions.of(dynamics, self.t_span, **self._solve_options)
        if is_steady(self.options, self.t_span):
            raise ValueError("second derivatives do not support doses in steady state: start from u0 some periods earlier.")
        if self.options.events:
            guards_of(self.options.events, dynamics.fields, dynamics.debug).curved  # noqa: B018  (as for vjp_dot)
        self._cost = None if running_cost is None else Cost(running_cost, dynamics.fields)
        if not hasattr(loss, "prepare"):
            require_second_order(loss)
        dynamics.vjp_dot  # noqa: B018  (so that what is missing is said here)
        self._of_vectors: dict[tuple[int, int], tuple[Layout, Layout]] = {}
        self._idle: dict[tuple, list[Workspace]] = {}

    def __reduce__(self):
        return HessianVectorProduct, self._given

    def __call__(self, u0: Any, theta: Any, u0_dot: Any = None, theta_dot: Any = None) -> HessianProduct:
        """The value, the gradient and the product at (u0, theta), for one direction (u0_dot, theta_dot) or for k of them.

        Parameters
        ----------
        u0, theta
            As for `solve`.
        u0_dot : (n,) array, dict or structured scalar, or (n, k) array, optional
            The direction in u0, or k directions in columns; zero by default.
        theta_dot : (m,) array, dict or structured scalar, or (m, k) array, optional
            The direction in theta, with as many columns.

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid.
        SolveError
            If a pass cannot be completed, or the loss is not finite.
        """
        layouts = self._layouts_of_vectors(u0, theta, u0_dot, theta_dot)
        if layouts is not None:
            value, lams, totals, stats = self.evaluate(layouts, u0, theta, u0_dot[None], theta_dot[None])
            return HessianProduct(value, lams[0], totals[0], lams[1], totals[1], stats)
        layouts, flat = self._read(u0, theta)
        u_dots, theta_dots, many = read_directions(layouts, u0_dot, theta_dot)
        value, lams, totals, stats = self.evaluate(layouts, *flat, u_dots, theta_dots)
        u0_bar, theta_bar = layouts[0].unflatten(lams[0]), layouts[1].unflatten(totals[0])
        if many:
            return HessianProduct(value, u0_bar, theta_bar, lams[1:].T.copy(), totals[1:].T.copy(), stats)
        return HessianProduct(value, u0_bar, theta_bar, layouts[0].unflatten(lams[1]), layouts[1].unflatten(totals[1]), stats)

    def hessian(self, u0: Any, theta: Any, wrt: Any = ("u0", "theta")) -> tuple[float, np.ndarray, np.ndarray]:
        """The value, the gradient (p,) and the Hessian (p, p) by the entries that `wrt` selects, with those of u0 first.

        Parameters
        ----------
        u0, theta
            As for `solve`.
        wrt : tuple of block names, or dict
            As `free` of a `Fit`: whole blocks ("u0", "theta"), or for each block True or False, a boolean mask, a list of indices,
            or a list of entry names.

        Raises
        ------
        ValueError, TypeError, SolveError
            As for a call.
        """
        layouts, flat = self._read(u0, theta)
        mask, n = selection_mask("wrt", wrt, layouts), flat[0].size
        if not mask.any():
            raise ValueError("wrt selects no entry, so there is no Hessian.")
        value, gradient = 0.0, np.zeros(0)

        def products(chosen: np.ndarray) -> np.ndarray:
            nonlocal value, gradient
            value, lams, totals, _ = self.evaluate(layouts, *flat, chosen[:, :n], chosen[:, n:])
            bars = np.hstack([lams, totals])[:, mask]
            gradient = bars[0]
            return bars[1:]

        H = matrix_of(products, np.eye(mask.size)[mask])
        return value, gradient, H

    def _read(self, u0: Any, theta: Any) -> tuple[tuple[Layout, Layout], tuple[np.ndarray, np.ndarray]]:
        layouts = self.dynamics.layouts(u0, theta)
        self.dynamics.require_order(*layouts)
        if layouts[0].is_flat and layouts[1].is_flat:
            self._of_vectors[layouts[0].size, layouts[1].size] = layouts
        return layouts, (layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta))

    def _layouts_of_vectors(self, *given: Any) -> tuple[Layout, Layout] | None:
        """The short way to these: of finite vectors of floats (u0, theta, u0_dot, theta_dot) of sizes that were read before."""
        if not all(type(one) is np.ndarray and one.dtype == np.float64 and one.ndim == 1 for one in given):
            return None
        n, m, *sizes = (one.size for one in given)
        layouts = self._of_vectors.get((n, m)) if sizes == [n, m] else None
        return layouts if layouts is not None and np.isfinite(np.concatenate(given)).all() else None

    def evaluate(
        self, layouts: tuple[Layout, Layout], u0: np.ndarray, theta: np.ndarray, u_dots: np.ndarray, theta_dots: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, HessianStats]:
        """The same for vectors u0 (n,), theta (m,) and directions (k, n), (k, m): the value; the gradient, and behind it its
        tangents, in rows, (1 + k, n) and (1 + k, m); the work."""
        idle = self._idle.setdefault((layouts, len(u_dots)), [])
        try:
            workspace = idle.pop()
        except IndexError:
            workspace = self._make(layouts, u0, theta, len(u_dots))
        found = workspace.run(layouts[0], u0, theta, u_dots, theta_dots)
        idle.append(workspace)
        return found

    def _make(self, layouts: tuple[Layout, Layout], u0: np.ndarray, theta: np.ndarray, k: int) -> Workspace:
        options = self.options
        loss = self.loss.prepare(u0.size, self.t_span[1])
        require_second_order(loss)
        loss.try_calls(u0, theta)
        loss.times[:] = times_in_span("t_obs", loss.times, *self.t_span)
        parts = forward_parts(self.dynamics, options) + ([] if self._cost is None else self._cost.parts)
        try_before(self.dynamics, options, parts, self.t_span, u0, theta)
        structure = structure_for(options.tableau, self.dynamics, options.linear_solver, self.t_span[0], u0, theta)
        sizes = u0.size, theta.size, k
        asked = self._on_inaccurate, self._solve_options
        return Workspace(self.dynamics, options, structure, loss, self.t_span, sizes, self._cost, *asked)
