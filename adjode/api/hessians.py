"""`hessian_vector_product`: a loss, its gradient and products with its Hessian, as a function of (u0, theta) and directions."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from adjode.api.first_calls import backward_parts, forward_parts, try_behind
from adjode.api.keywords import ForwardKeywords
from adjode.api.solve import solve, try_before
from adjode.api.tangents import read_directions, try_tangents
from adjode.checks import choose, time_span, times_in_span
from adjode.compile import slots
from adjode.compile.slots import RECORD_STAGES
from adjode.derivatives.proof import require_derived_loss, require_second_of_loss, require_vjp_dot
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.model.losses import (
    Loss,
    PreparedLoss,
    PreparedObserved,
    loss_for,
    require_second_order,
    tangents_of_cotangents,
)
from adjode.model.selection import selection_mask
from adjode.passes.default_atol import beside_loss
from adjode.passes.forward import Forward, structure_for
from adjode.passes.jumps import NO_JUMPS
from adjode.passes.options import SolveOptions
from adjode.passes.program import Program
from adjode.passes.result import HessianProduct, HessianStats, PullbackStats
from adjode.passes.rows import Rows, probe, solve_until_served
from adjode.passes.second_order import SecondOrder
from adjode.passes.tangents import TangentPass
from adjode.status import CALLBACK_RAISED, REFINE, SUCCESS, solve_error

_SIDE_BY_SIDE = 16  # columns of a Hessian: so many tangents of every stage are kept


def hessian_vector_product(
    dynamics: Dynamics,
    loss: Loss,
    t_span: tuple[float, float],
    *,
    on_inaccurate: str = "refine",
    **options: Unpack[ForwardKeywords],
) -> HessianVectorProduct:
    """The loss, its gradient and products with its Hessian, as a function of (u0, theta, u0_dot, theta_dot).

    Buffers and compiled code are prepared at the first call. A call solves forwards, carries the tangents of the direction along
    the steps, and pulls the cotangents back with their tangents: the exact derivative of the discrete adjoint's gradient, on the
    mesh of the solve, which is held fixed. At the point of the call before it does not solve again.

    Parameters
    ----------
    dynamics : Dynamics
        Second derivatives are those of f, derived from its source, or `Dynamics(vjp_dot=...)`.
    loss : LeastSquares, Likelihood, FinalState, or Series with `value=`
        Of one trajectory.
    t_span : (t0, T)
    on_inaccurate : {"refine", "raise", "warn"}
        What to do where steps that were chosen for the states are too long for the gradient; see `Solution.pullback`.
    **options
        Options of `solve` (`method`, `rtol`, `atol`, ...) but `memory`, `doses` and `events`.

    Returns
    -------
    HessianVectorProduct
        `(u0, theta, u0_dot, theta_dot) -> HessianProduct`; its method `hessian(u0, theta)` gives the matrix.

    Raises
    ------
    ValueError, TypeError
        For bad input; if the method has no discrete adjoint; if the loss or the dynamics have no second derivatives.

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
    return HessianVectorProduct(dynamics, loss, t_span, on_inaccurate, dict(options))


class HessianVectorProduct:
    """A loss, its gradient and products with its Hessian; made by `hessian_vector_product`.

    Calls may be made from several threads: each works on buffers of its own. Copies and pickles carry the description alone.
    """

    def __init__(self, dynamics: Dynamics, loss: Any, t_span: tuple[float, float], on_inaccurate: str, options: dict[str, Any]):
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be an adjode.Dynamics(f), but a {type(dynamics).__name__} was given.")
        self._on_inaccurate = choose("on_inaccurate", on_inaccurate, ("refine", "raise", "warn"))
        self._given = dynamics, loss, t_span, on_inaccurate, options
        self.dynamics, self.loss, self.t_span = dynamics, loss_for(dynamics.fields, loss), time_span(t_span)
        if options.get("memory") is not None:
            raise ValueError("second derivatives need all steps of a solution: leave memory out.")
        dynamics.switches.warn(stacklevel=3)
        self._solve_options = beside_loss(options, self.loss)
        self.options = SolveOptions.of(dynamics, self.t_span, **self._solve_options)
        dynamics.switches.refuse("there are no second derivatives by such times: take the gradient alone")
        if self.options.doses or self.options.events:
            raise ValueError("there are no second derivatives of jumps of the state: leave doses and events out.")
        if not hasattr(loss, "prepare"):
            require_second_order(loss)
        dynamics.vjp_dot  # noqa: B018  (so that what is missing is said here)
        self._of_vectors: dict[tuple[int, int], tuple[Layout, Layout]] = {}
        self._idle: dict[tuple, list[_Workspace]] = {}

    def __reduce__(self):
        return HessianVectorProduct, self._given

    def __call__(self, u0: Any, theta: Any, u0_dot: Any = None, theta_dot: Any = None) -> HessianProduct:
        """The value, the gradient and the product at (u0, theta), for a direction (u0_dot, theta_dot), or for k.

        Parameters
        ----------
        u0, theta
            As for `solve`.
        u0_dot : (n,) array, dict or structured scalar, or (n, k) array, optional
            The direction in u0, or k of them in the columns; zero by default.
        theta_dot : (m,) array, dict or structured scalar, or (m, k) array, optional
            The same in theta, with as many columns.

        Raises
        ------
        ValueError, TypeError
            For bad input.
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
        """The value, the gradient (p,) and the Hessian (p, p) by the entries that `wrt` selects, those of u0 first.

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
            As a call.
        """
        layouts, flat = self._read(u0, theta)
        mask, n = selection_mask("wrt", wrt, layouts), flat[0].size
        if not mask.any():
            raise ValueError("wrt selects no entry, so there is no Hessian.")
        units, rows, value, gradient = np.eye(mask.size)[mask], [], 0.0, np.zeros(0)
        for k in range(0, len(units), _SIDE_BY_SIDE):
            chosen = units[k : k + _SIDE_BY_SIDE]
            value, lams, totals, _ = self.evaluate(layouts, *flat, chosen[:, :n], chosen[:, n:])
            bars = np.hstack([lams, totals])[:, mask]
            gradient = bars[0]
            rows.append(bars[1:])
        H = np.vstack(rows)
        return value, gradient, 0.5 * (H + H.T)  # symmetric but for rounding

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

    def _make(self, layouts: tuple[Layout, Layout], u0: np.ndarray, theta: np.ndarray, k: int) -> _Workspace:
        options = self.options
        loss = self.loss.prepare(u0.size, self.t_span[1])
        require_second_order(loss)
        loss.try_calls(u0, theta)
        loss.times[:] = times_in_span("t_obs", loss.times, *self.t_span)
        try_before(self.dynamics, options, forward_parts(self.dynamics, options), self.t_span, u0, theta)
        structure = structure_for(options.tableau, self.dynamics, options.linear_solver, self.t_span[0], u0, theta)
        sizes = u0.size, theta.size, k
        asked = self._on_inaccurate, self._solve_options
        return _Workspace(self.dynamics, options, structure, loss, self.t_span, sizes, *asked)


class _Workspace:
    """The passes of one call with all their buffers, made once and run many times."""

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        loss: PreparedLoss,
        t_span: tuple[float, float],
        sizes: tuple[int, int, int],
        on_inaccurate: str,
        solve_options: dict[str, Any],
    ):
        if t_span[1] < t_span[0]:
            loss.reverse()
        n, m, k = sizes
        self.dynamics, self.options, self.loss, self.t_span = dynamics, options, loss, t_span
        self.solve_options = solve_options
        self.u0, self.theta, self.u_dots, self.theta_dots = np.zeros(n), np.zeros(m), np.zeros((k, n)), np.zeros((k, m))
        self.is_solved = self.is_tried = False
        self.forward = Forward(dynamics, options, structure, self.u0, self.theta, t_span, record=RECORD_STAGES, times=loss.times)
        given, limit = (dynamics, options, structure, self.forward.span, self.theta), options.max_seconds
        self.tangents = TangentPass(
            *given, self.u_dots, self.theta_dots, self.forward.frame[slots.TIMES], recorded=True, laces=False, max_seconds=limit
        )
        self.second = SecondOrder(*given, self.tangents, loss.times, max_seconds=limit)
        self.rows = None
        if options.unit_error(n):
            asked: Any = {"wants_theta": True, "on_inaccurate": on_inaccurate, "jumps": NO_JUMPS}
            self.rows = Rows(dynamics, options, structure, self.forward, self.theta, loss.times, m, **asked)
        self.forward.measure_for(self.tangents.frame, self.second.frame)
        for behind in (self.tangents, self.second):
            behind.share_watch(self.forward.watch)
        self.solving, self._followed = Program(self.forward), (np.zeros(0), np.zeros(0))
        self._follow()
        self.pushing, self.pulling = Program(backward=self.tangents, goes_on=True), Program(backward=self.second, goes_on=True)

    def run(
        self,
        layout: Layout,
        u0: np.ndarray,
        theta: np.ndarray,
        u_dots: np.ndarray,
        theta_dots: np.ndarray,
    ) -> tuple[float, np.ndarray, np.ndarray, HessianStats]:
        """See `HessianVectorProduct.evaluate`."""
        work = self._solve(layout, u0, theta)
        self.u_dots[:], self.theta_dots[:] = u_dots, theta_dots
        forward = self.forward
        self._follow()
        if (status := self.pushing.run()) != SUCCESS:
            raise self.tangents.error(status, solve(self.dynamics, u0, theta, self.t_span, **self.solve_options).dense)
        if not self.is_tried:
            self._try_tangents()
        if self.rows is not None:
            self.rows.backward.warn_if_inaccurate(stacklevel=4)
        direct = self._put_cotangents(forward.frame[slots.OBSERVED])
        if (status := self.pulling.run()) != SUCCESS:
            raise self._error(status)
        lams, totals = self.second.lams.copy(), self.second.totals.copy()
        lams += self.second.u_bars[forward.frame[slots.TIMES] == forward.t_start].sum(axis=0)  # observed at t0
        totals += direct
        return float(self.loss.value[0]), lams, totals, self._stats(work)

    def _follow(self) -> None:
        """Have the passes behind read from where the steps are, and the tangents of their stages."""
        trajectory, count = self.forward.trajectory, self.forward.count
        places = trajectory.t, self.tangents.keep_states(self.forward.steps)
        if not all(one is other for one, other in zip(places, self._followed, strict=True)):
            self._followed = places
            self.tangents.follow(trajectory, count)
            self.second.follow(trajectory, count)

    def _solve(self, layout: Layout, u0: np.ndarray, theta: np.ndarray) -> PullbackStats:
        """Solve forwards, unless this was the last point, in steps that serve the gradient; the work."""
        if self.is_solved and np.array_equal(u0, self.u0) and np.array_equal(theta, self.theta):
            return PullbackStats()
        self.is_solved, self._is_judging = False, False
        self.u0[:], self.theta[:] = u0, theta
        if (status := solve_until_served(self.solving, self._judge)) != SUCCESS:
            if self.rows is not None and self._is_judging:
                raise self.rows.backward.error(status, solve(self.dynamics, u0, theta, self.t_span, **self.solve_options).dense)
            raise self.forward.error(status, layout)
        if not self.is_tried:
            times, states = self.forward.places()
            parts = [*forward_parts(self.dynamics, self.options), *backward_parts(self.dynamics, wants_theta=True)]
            try_behind(self.dynamics, parts, times, states, theta)
            require_vjp_dot(self.dynamics, times, states, theta)
        self.is_solved, work = True, PullbackStats(n_f=self.forward.derivatives)
        if self.rows is not None:
            self.rows.backward.add_work(work)
        return work

    def _judge(self) -> int:
        """Whether the steps serve the gradient; of a loss that owes nothing to the states, what is seen of them."""
        if self.rows is None:
            return SUCCESS
        observed, loss = self.forward.frame[slots.OBSERVED], self.loss
        loss.observe(observed, self.theta)
        if not np.isfinite(loss.run()):
            loss.explain()
        u_bars = loss.u_bars
        if not u_bars.any():
            sizes = np.abs(observed).max(axis=0, initial=0.0) + self.options.least_sizes(self.u0.size)
            u_bars = probe(*u_bars.shape) / sizes
        status = self.rows.pull(u_bars)
        self._is_judging = status != REFINE
        return status

    def _try_tangents(self) -> None:
        try_tangents(self.tangents, *self.forward.places())
        self.is_tried = True

    def _put_cotangents(self, observed: np.ndarray) -> np.ndarray:
        """Those of the states and their tangents, for the pass behind; the loss's own of theta, in rows (1 + k, m)."""
        loss, (k, n) = self.loss, self.u_dots.shape
        loss.observe(observed, self.theta)
        if not np.isfinite(loss.run()):
            loss.explain()
        dots = self.tangents.observed.reshape(len(observed), k, n)
        u_bar_dots, theta_bar_dots = tangents_of_cotangents(loss, dots, self.theta_dots)
        if isinstance(loss, PreparedObserved):
            require_derived_loss(loss, self.theta)
            require_second_of_loss(loss, self.theta)
        self.second.u_bars[:, 0], self.second.u_bars[:, 1:] = loss.u_bars, u_bar_dots
        own = loss.theta_bar if loss.theta_bar.size else np.zeros(self.theta.size)
        return np.vstack([own, theta_bar_dots])

    def _error(self, status: int) -> Exception:
        t, step_size = self.second.place
        cause, limit = None, self.options.max_seconds
        if status == CALLBACK_RAISED:
            inputs = {"u": self.u0, "theta": self.theta, "lam": np.ones_like(self.u0), "v": self.u_dots[0], "w": self.theta_dots[0]}
            vjp_dot = self.dynamics.vjp_dot
            cause = vjp_dot.reproduce_error(t, *vjp_dot.arguments(inputs | {"lam_dot": np.zeros_like(self.u0)}))
        called = "vjp_dot (or another callback of the backward pass)"
        return solve_error(status, phase="second-order", t=t, step_size=step_size, cause=cause, max_seconds=limit, callback=called)

    def _stats(self, work: PullbackStats) -> HessianStats:
        pushed, count = self.tangents.stats, self.second.count
        n_jac, n_lu = int(count[slots.JACOBIANS]) + work.n_jac, int(count[slots.FACTORISATIONS]) + work.n_lu
        n_vjp = (
            work.n_vjp
            + work.n_vjp_u
            + int(count[slots.VJPS] + count[slots.PRODUCTS] + count[slots.JACOBIANS] * self.second.rows_of_jacobian)
        )
        return HessianStats(
            n_f=work.n_f + pushed.n_f,
            n_jvp=pushed.n_jvp,
            n_vjp=pushed.n_vjp + pushed.n_vjp_u + n_vjp,
            n_vjp_dot=int(count[slots.CURVATURES]),
            n_steps=self.forward.steps - self.forward.crossings,
            n_jac=pushed.n_jac + n_jac,
            n_lu=pushed.n_lu + n_lu,
        )
