"""`solve_ensemble`: many trajectories, of which the final states are kept, and their pullback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from adjode.api.keywords import EnsembleSolveKeywords, SweepKeywords
from adjode.api.solution import Solution
from adjode.api.solve import solve
from adjode.backends.cuda.arrays import to_host
from adjode.checks import float_vector
from adjode.ensembles.engine import Engine, split_options
from adjode.ensembles.failures import check_failures
from adjode.ensembles.gradient import EnsembleValueAndGradient, ensemble_stats
from adjode.ensembles.inputs import (
    Rows,
    count_members,
    doses_of_members,
    read_blocks,
    read_spans,
    require_times_inside,
    with_stops_of_members,
)
from adjode.ensembles.progress import progress_bar
from adjode.ensembles.seeds import read_seeds
from adjode.ensembles.steady import SteadySolver, has_steady_doses
from adjode.model.dynamics import Dynamics
from adjode.passes.options import SOLVE_NAMES
from adjode.passes.result import Cotangents, EnsembleStats


@dataclass(frozen=True, eq=False, repr=False)
class EnsembleSolution:
    """The solutions of many initial value problems: inputs and chosen states, but no dense output.

    `ens[i]` solves trajectory i again and returns its `Solution`.

    Attributes
    ----------
    u_T : (N, n) array, or structured as u0
        States at T; NaN where the solve failed.
    t_eval, u_eval : (k,), (N, k, n) arrays or None
        The times asked for and the states there.
    status : (N,) array of int
        `Status` of each trajectory, 0 for success.
    stats : EnsembleStats
        Work done: `n_f`, `n_steps`, `n_rejected`, each (N,).
    """

    dynamics: Dynamics
    u_T: Any
    t_eval: np.ndarray | None
    u_eval: np.ndarray | None
    stats: EnsembleStats
    t_span: np.ndarray
    u0: Rows
    theta: Rows
    options: dict[str, Any]
    engine: Engine

    @property
    def status(self) -> np.ndarray:
        return self.stats.status

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, i: int) -> Solution:
        if not -len(self) <= i < len(self):
            raise IndexError(f"there are {len(self)} trajectories, but number {i} was asked for.")
        i %= len(self)
        t0, T = self.t_span[i if len(self.t_span) > 1 else 0]
        return solve(self.dynamics, self.u0.of(i), self.theta.of(i), (t0, T), t_eval=self.t_eval, **self.options)

    def raise_if_failed(self) -> None:
        """Raise a SolveError if trajectories failed: how many, which is the first, and why."""
        check_failures(self.status, self.__getitem__)

    def pullback(
        self,
        u_T_bar: Any = None,
        *,
        observations: tuple[Any, Any] | None = None,
        wrt: Sequence[str] = ("u0", "theta"),
        on_failure: str = "raise",
        adjoint: str = "discrete",
        progress: bool = False,
        **options: Unpack[SweepKeywords],
    ) -> Cotangents:
        """Pull cotangents of the solutions back to u0 and theta.

        The steps were not kept: each trajectory is solved again, with the same steps, and pulled back at once.

        Parameters
        ----------
        u_T_bar : (N, n) or (n,) array, optional
            Cotangents of u(T): for each trajectory, or the same for all.
        observations : (times, u_bars), optional
            Times (k,) within all spans, in any order, and the cotangents (N, k, n) or (k, n) of the states there.
        wrt : subset of ("u0", "theta")
        on_failure : {"raise", "nan", "drop"}
            As for `ensemble_value_and_gradient`; a NaN among a trajectory's cotangents is a failure too.
        adjoint : {"discrete", "interpolating"}
        progress : bool
            Show a bar.
        **options
            Options of the interpolating adjoint, as for `value_and_gradient`: `quadrature`, `adjoint_rtol`, ...

        Returns
        -------
        Cotangents
            `u0` and `theta` with a row for each trajectory, or summed over them if shared.

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid.
        SolveError
            With on_failure="raise", if trajectories failed.
        """
        seeds = read_seeds(u_T_bar, observations, self.t_span, self.u0.layout.size, len(self))
        engine = replace(self.engine, progress=progress)
        every = {"adjoint": adjoint, **self.options, **options}
        evaluate = EnsembleValueAndGradient(self.dynamics, seeds, self.t_span, wrt, None, on_failure, every, engine)
        return evaluate.of_rows((self.u0, self.theta), len(self))[1]

    def __repr__(self) -> str:
        failed = f", {self.stats.n_failed} failed" if self.stats.n_failed else ""
        return f"EnsembleSolution of {self.dynamics.name}: {len(self)} trajectories{failed}"


def solve_ensemble(
    dynamics: Dynamics,
    u0: Any,
    theta: Any,
    t_span: Any,
    *,
    t_eval: Any = None,
    backend: str = "threads",
    workers: int | None = None,
    executor: Any = None,
    chunks: int = 64,
    progress: bool = False,
    **options: Unpack[EnsembleSolveKeywords],
) -> EnsembleSolution:
    """Solve `du/dt = f(t, u, theta)`, `u(t0) = u0` for many u0, theta or spans.

    Parameters
    ----------
    dynamics : Dynamics
        With `fused=True`, small systems run several times as fast.
    u0 : (n,) or (N, n) array, or structured array of shape () or (N,)
    theta : (m,) or (N, m) array, or structured array of shape () or (N,)
    t_span : (t0, T) or (N, 2) array
        An argument without the axis of trajectories is shared by all. All spans run in the same direction in time.
    t_eval : (k,) array, optional
        Times within all spans at which `u_eval` is wanted.
    backend, workers, executor, chunks, progress
        As for `ensemble_value_and_gradient`.
    **options
        Options of `solve`: `method`, `rtol`, `atol`, ...

    Returns
    -------
    EnsembleSolution
        A trajectory that fails does not stop the others and raises nothing: it has a `status` and NaN for its states.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.
    """
    if not isinstance(dynamics, Dynamics):
        raise TypeError(f"dynamics must be an adjode.Dynamics(f, vjp), but a {type(dynamics).__name__} was given.")
    of_solver, of_device = split_options(backend, {**options})
    for name in of_solver:
        if name not in SOLVE_NAMES:
            raise TypeError(f"option {name!r} is unknown; the options are {', '.join(sorted(SOLVE_NAMES))}.")
    engine = Engine(backend, workers, executor, chunks, progress, of_device)
    on_device, spans = engine.takes_device_arrays, read_spans(t_span)
    steady = has_steady_doses(of_solver, spans, engine)
    if of_solver.get("doses") is not None:
        of_solver["doses"] = doses_of_members(of_solver["doses"], spans)
    of_solver = with_stops_of_members(dynamics, of_solver, spans)
    states, parameters = read_blocks(dynamics, u0, theta, on_device=on_device)
    dynamics.require_order(
        states.layout, parameters.layout, readers=None if of_solver.get("doses") or of_solver.get("events") else ()
    )
    N = count_members(u0=states.count, theta=parameters.count, t_span=len(spans) if np.ndim(t_span) == 2 else None)
    times, order = np.zeros(0), np.zeros(0, dtype=np.int64)
    if t_eval is not None:
        times = float_vector("t_eval", t_eval)
        require_times_inside("t_eval", times, spans)
        order = np.argsort(-times if len(spans) and spans[0, 1] < spans[0, 0] else times, kind="stable")
    problem = dynamics, times[order], of_solver
    solver = SteadySolver(engine, *problem, spans) if steady else engine.solver(*problem)
    with progress_bar(progress, N) as done:
        result = solver(states.flat, parameters.flat, spans, **({} if done is None else {"done": done}))
    seen = result.states
    return EnsembleSolution(
        dynamics=dynamics,
        u_T=states.unflatten(seen[:, -1]),
        t_eval=None if t_eval is None else times,
        u_eval=None if t_eval is None else _in_order_given(seen, order),
        stats=ensemble_stats(result),
        t_span=spans,
        u0=states,
        theta=parameters,
        options=of_solver,
        engine=engine,
    )


def _in_order_given(seen: Any, order: np.ndarray) -> Any:
    """The states at the times before T, in the order in which these were given."""
    if (order[1:] > order[:-1]).all():
        return seen[:, :-1]
    return to_host(seen)[:, np.argsort(order)]
