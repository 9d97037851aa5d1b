"""What a pullback returns, the work that passes count, and what a callback raised in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.checks import choose, times_in_span
from adjode.compile import slots
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.passes.segmented import SegmentedOutput
from adjode.passes.trajectory import DenseOutput, before_jumps


@dataclass
class PullbackStats:
    """Work of a pullback: evaluations of each callback, steps of the backward pass, drift of a backsolve in tolerances.

    For implicit methods also Jacobians, whose rows are among the evaluations, factorisations (real and complex ones counted alike),
    and iterations: of Newton, or for the discrete adjoint of GMRES. With `memory` also the steps of the forward pass that were
    solved again. `n_refined` is how often the forward pass was run again with shorter steps.
    """

    n_f: int = 0
    n_vjp: int = 0
    n_vjp_u: int = 0
    n_g: int = 0
    n_g_vjp: int = 0
    n_steps: int = 0
    n_rejected: int = 0
    drift: float | None = None
    n_jac: int = 0
    n_lu: int = 0
    n_newton: int = 0
    n_recomputed: int = 0
    n_refined: int = 0


@dataclass(frozen=True)
class TangentStats:
    """Work of a pass of tangents: evaluations of each callback; for implicit methods also Jacobians, whose rows are among the
    products, factorisations (real and complex ones alike), and iterations of GMRES.
    """

    n_f: int = 0
    n_jvp: int = 0
    n_vjp: int = 0
    n_vjp_u: int = 0
    n_jac: int = 0
    n_lu: int = 0
    n_iterations: int = 0


@dataclass(frozen=True)
class HessianStats:
    """Work of a Hessian-vector product: evaluations of each callback in all passes, and the steps of the solve. A point that is the
    same as that of the last call needs no solve.

    For implicit methods also Jacobians, whose rows are among the products, and factorisations.
    """

    n_f: int = 0
    n_jvp: int = 0
    n_vjp: int = 0
    n_vjp_dot: int = 0
    n_steps: int = 0
    n_jac: int = 0
    n_lu: int = 0


@dataclass(frozen=True, eq=False)
class HessianProduct:
    """The result of `hessian_vector_product`: a loss, its gradient, and the product of its Hessian with one or many directions.

    Attributes
    ----------
    value : float
    u0, theta : array, dict or structured scalar
        The gradient by u0 and theta, in the form in which these were given, on the same mesh by the discrete adjoint.
    u0_dot, theta_dot : the same, or (n, k) and (m, k) arrays
        How the gradient changes along the direction; a column for each if there are many.
    stats : HessianStats
    """

    value: float
    u0: Any
    theta: Any
    u0_dot: Any
    theta_dot: Any
    stats: HessianStats


@dataclass(frozen=True, eq=False)
class TangentOutput:
    """Directional derivatives of the states at any time: those of the polynomials that the dense output has in each step.

    Attributes
    ----------
    output : DenseOutput
        Of all entries of the derivatives, in one vector.
    start : (n,) or (n, k) array
        At t0, before jumps of the state there.
    """

    output: DenseOutput
    start: np.ndarray

    def __call__(self, t: Any, side: str = "right") -> np.ndarray:
        """The derivatives at `t`: (n,) for a scalar, (c, n) for c times inside the span; with k directions (n, k) and (c, n, k).

        Where the state jumps, they are those after the jump, in the order of integration, or before it with side="left".
        """
        choose("side", side, ("left", "right"))
        times = times_in_span("t", t, self.output.t[0], self.output.t[-1])
        seen = times if side == "right" else before_jumps(self.output.span, self.output.jumps, times)
        dots = self.output(seen).reshape(-1, *self.start.shape)
        if side == "left":
            dots[times == self.output.t[0]] = self.start
        return dots[0] if np.ndim(t) == 0 else dots


@dataclass(frozen=True, eq=False)
class Tangents:
    """The result of `Solution.pushforward`: directional derivatives of the states.

    Attributes
    ----------
    u_T : (n,) or (n, k) array
        Derivatives of u(T); a column for each direction if there are many.
    times : (c,) array or None
        The times asked for.
    u : (c, n) or (c, n, k) array, or None
        Derivatives of the states there.
    stats : TangentStats
    dense : TangentOutput or None
        Derivatives at any time, `dots.dense(t)`, with `dense=True`.
    """

    u_T: np.ndarray
    times: np.ndarray | None
    u: np.ndarray | None
    stats: TangentStats
    dense: TangentOutput | None = None


@dataclass(frozen=True, eq=False)
class EnsembleStats:
    """How each of N trajectories went: its `Status` and, in the forward pass, evaluations of f and accepted and rejected steps.

    Attributes
    ----------
    status : (N,) array of int
        0 for success.
    n_f, n_steps, n_rejected : (N,) arrays of int, or None where they are not counted
    """

    status: np.ndarray
    n_f: np.ndarray | None = None
    n_steps: np.ndarray | None = None
    n_rejected: np.ndarray | None = None

    @property
    def n_failed(self) -> int:
        return int(np.count_nonzero(self.status))


@dataclass(eq=False)  # not frozen: that would take as long as a quarter of a call's Python
class Cotangents:
    """The result of a pullback; an entry that was not asked for is None.

    Attributes
    ----------
    u0, theta : array, dict or structured scalar
        Cotangents of the initial state and the parameters, in the form in which these were given.
    t0, T : float
        Cotangents of the initial and the final time.
    observation_times : (k,) array
        Cotangents of the observation times, in the order given.
    running_cost : float
        The value of the running cost's integral.
    error : dict of str -> float, or (N,) array of an ensemble's trajectories; or None
        For "u0" and "theta" an estimate of their error, along the steps that were taken, on the scale of logarithmic derivatives x
        dL/dx and relative to the largest of them. x is the size of a state (at least atol / rtol) or of a parameter (1 if it is
        zero). From adjoint="discrete" and "interpolating", or certify=True.
    stats : PullbackStats
    adjoint : DenseOutput
        lam(t), if `dense_adjoint` was asked for.
    """

    u0: Any = None
    theta: Any = None
    t0: float | None = None
    T: float | None = None
    observation_times: np.ndarray | None = None
    running_cost: float | None = None
    error: dict[str, Any] | None = None
    stats: PullbackStats | EnsembleStats | None = None
    adjoint: DenseOutput | None = None


def estimate_of(trust: np.ndarray) -> dict[str, float]:
    """`Cotangents.error`, of a pass that judges itself."""
    return {"u0": trust.item(slots.U0_ERROR), "theta": trust.item(slots.THETA_ERROR)}


def find_cause(
    dynamics: Dynamics,
    theta: np.ndarray,
    state: DenseOutput | SegmentedOutput,
    cost: tuple[Callback, Callback] | None,
    places: list[tuple[float, np.ndarray]],
) -> Exception | None:
    """The exception that one of the callbacks raises at one of the `places` (t, lam)."""
    callbacks = [dynamics.vjp, dynamics.vjp_u, dynamics.jac, dynamics.f, *(cost or ())]
    for t, lam in places:
        inputs = {"u": state(t), "theta": theta, "lam": lam}
        for callback in filter(None, callbacks):
            cause = callback.reproduce_error(t, *callback.arguments(inputs))
            if cause is not None:
                return cause
    return None
