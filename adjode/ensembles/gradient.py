"""`ensemble_value_and_gradient`: a loss and its gradient, for many trajectories at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np

from adjode.api.gradient import ValueAndGradient
from adjode.api.jumps_of_f import warn_of_jump
from adjode.api.keywords import EnsembleGradientKeywords
from adjode.api.solve import solve
from adjode.backends.cuda.arrays import to_host
from adjode.backends.outcome import Outcome, States, pairwise_sum
from adjode.checks import choose
from adjode.ensembles.engine import Engine, split_options
from adjode.ensembles.failures import check_failures
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
from adjode.ensembles.steady import SteadyGradient, has_steady_doses, without_past
from adjode.model.dynamics import Dynamics
from adjode.model.losses import Loss, loss_for, readers_in
from adjode.model.losses.members import MemberData
from adjode.passes.result import Cotangents, EnsembleStats

ON_FAILURE = ("raise", "nan", "drop")
_MOST_LOOKS = 64  # at trajectories with steps that are far shorter than the others


def ensemble_value_and_gradient(
    dynamics: Dynamics,
    loss: Loss,
    t_span: Any,
    *,
    wrt: Sequence[str] = ("u0", "theta"),
    reduce: str | None = None,
    on_failure: str = "raise",
    adjoint: str = "discrete",
    backend: str = "threads",
    workers: int | None = None,
    executor: Any = None,
    chunks: int = 64,
    progress: bool = False,
    **options: Unpack[EnsembleGradientKeywords],
) -> EnsembleValueAndGradient:
    """The values and gradients of a loss along many trajectories, as a function of (u0, theta).

    Buffers and compiled code are prepared at the first call, with a set of buffers for each thread. A call then takes one
    trajectory after another through the forward pass, the loss and the backward pass, in compiled code.

    Parameters
    ----------
    dynamics : Dynamics
        With `fused=True`, small systems run several times as fast.
    loss : FinalState, LeastSquares, Series, Likelihood or EventTimes
        If data have shape (N, ...), each trajectory has its own. The callback of a Series must be jitted.
    t_span : (t0, T) or (N, 2) array
        All spans run in the same direction.
    wrt : subset of ("u0", "theta")
    reduce : {None, "sum"}
        Whether to return the loss of each trajectory, or their sum. The cotangents are those of the sum either way: one for each
        trajectory for individual arguments, and the sum over trajectories for shared ones.
    on_failure : {"raise", "nan", "drop"}
        What to do about trajectories whose solve fails, which never stops the others: raise at the end; return NaN for them and for
        sums that include them; or leave them out of the sums.
    adjoint : {"discrete", "interpolating"}
    backend : {"threads", "cuda"}
    workers : int, optional
        Number of threads; by default one for each CPU, or with an executor one for each of its tasks.
    executor : object with `submit`, as in `concurrent.futures`, optional
        Run on its workers: a ProcessPoolExecutor, Dask's `client.get_executor()`, MPIPoolExecutor of mpi4py, ...
    chunks : int
        How many tasks to make for the executor: choose several for each worker. Large inputs are split into more.
    progress : bool
        Show a progress bar.
    **options
        Options of `value_and_gradient`: `method`, `rtol`, `atol`, ...; `memory` is for each thread. `on_inaccurate="warn"` does not
        warn here: gradients are those of the steps as taken, which they always are on a GPU. With backend="cuda" also `dtype`
        (float64 or float32, for all arithmetic), `memory` (bytes of the GPU's memory for stored steps; by default half of what is
        free) and `device_output` (whether values and cotangents stay on the GPU; by default if u0 or theta is an array there).

    Returns
    -------
    EnsembleValueAndGradient
        `(u0, theta) -> (value, Cotangents)`.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.

    Notes
    -----
    A trajectory has the bits of a single `value_and_gradient` of the same `Dynamics`, whatever its place and the number of
    trajectories and threads. Sums are taken by blocks, whose size depends only on the number of trajectories and of entries:
    compensated within a block (Neumaier 1974), pairwise over the blocks.
    """
    of_solver, of_device = split_options(backend, {**options})
    engine = Engine(backend, workers, executor, chunks, progress, of_device)
    return EnsembleValueAndGradient(dynamics, loss, t_span, wrt, reduce, on_failure, {"adjoint": adjoint, **of_solver}, engine)


class EnsembleValueAndGradient:
    """Values and gradients of a loss, as a function of (u0, theta); made by `ensemble_value_and_gradient`."""

    def __init__(
        self,
        dynamics: Dynamics,
        loss: Loss,
        t_span: Any,
        wrt: Sequence[str],
        reduce: str | None,
        on_failure: str,
        options: dict[str, Any],
        engine: Engine,
    ):
        self.dynamics, self.t_span = dynamics, read_spans(t_span)
        self._given = dynamics, loss, t_span, wrt, reduce, on_failure, options, engine
        self._steady = has_steady_doses(options, self.t_span, engine)
        if options.get("doses") is not None:
            options = {**options, "doses": doses_of_members(options["doses"], self.t_span)}
        self._spans_shared = np.ndim(t_span) != 2
        options = with_stops_of_members(dynamics, options, self.t_span)
        self._wrt, self._options = ((wrt,) if isinstance(wrt, str) else tuple(wrt)), options
        if reduce not in (None, "sum"):
            raise ValueError(f"reduce must be None or 'sum', but {reduce!r} was given.")
        self._sums, self._on_failure, self._engine = reduce == "sum", choose("on_failure", on_failure, ON_FAILURE), engine
        if len(self.t_span):
            alone = without_past(options) if self._steady else options
            self._evaluate_alone(loss, self.t_span[0], alone).require_prepared()
        self.loss = loss_for(dynamics.fields, loss)
        require_times_inside("t_obs", getattr(loss, "t_obs", np.zeros(0)), self.t_span)
        self._made: dict[Any, Callable[..., Outcome]] = {}

    def __reduce__(self):  # what has been made holds addresses
        return EnsembleValueAndGradient, self._given

    def __call__(self, u0: Any, theta: Any) -> tuple[Any, Cotangents]:
        """Values and cotangents at (u0, theta).

        Parameters
        ----------
        u0 : (n,) or (N, n) array, or structured array of shape () or (N,)
        theta : (m,) or (N, m) array, or structured array of shape () or (N,)
            An argument without the axis of trajectories is shared by all.

        Returns
        -------
        value : (N,) array, or float with reduce="sum"
        bar : Cotangents
            `u0` and `theta` in the form of the inputs: a row for each trajectory, or the sum over them for shared ones. `stats` has
            `status`, `n_f`, `n_steps` and `n_rejected`, and `error` the estimates for `u0` and `theta` of each trajectory, each
            (N,). On a GPU there are no estimates.

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid.
        SolveError
            With on_failure="raise", if trajectories failed: how many, which is the first, and why.
        """
        on_device = self._engine.takes_device_arrays
        blocks = read_blocks(self.dynamics, u0, theta, on_device=on_device)
        jumps = self._options.get("doses") or self._options.get("events")
        readers = None if jumps else readers_in(self.loss)
        self.dynamics.require_order(*(rows.layout for rows in blocks), readers=readers)
        own_spans = None if self._spans_shared else len(self.t_span)
        members = getattr(self.loss, "members", None)
        return self.of_rows(blocks, count_members(u0=blocks[0].count, theta=blocks[1].count, t_span=own_spans, loss=members))

    def of_rows(self, blocks: tuple[Rows, Rows], N: int) -> tuple[Any, Cotangents]:
        """The same, of inputs that have been read."""
        with progress_bar(self._engine.progress, N) as done:
            outcome = self._run(blocks, done)
        self._warn_of_jumps(outcome, blocks)
        return self._assemble(outcome, blocks)

    def _run(self, blocks: tuple[Rows, Rows], done: Callable[[int], Any] | None) -> Outcome:
        shared = frozenset(name for name, rows in zip(("u0", "theta"), blocks, strict=True) if rows.shared)
        key = shared, *(rows.flat.shape[1] for rows in blocks)
        made = self._made.get(key)
        if made is None:
            made = self._backend(shared)
            self._made = {key: made}
        return made(*(rows.flat for rows in blocks), self.t_span, **({} if done is None else {"done": done}))

    def _backend(self, shared: frozenset[str]) -> Callable[..., Outcome]:
        problem = self.dynamics, self.loss, self._wrt, shared, self._options
        return SteadyGradient(self._engine, *problem, self.t_span) if self._steady else self._engine.gradient(*problem)

    def _assemble(self, outcome: Outcome, blocks: tuple[Rows, Rows]) -> tuple[Any, Cotangents]:
        """The value and the cotangents in the form that the user wants, or an error for what failed."""
        failed = outcome.status != 0
        if self._on_failure == "raise":
            check_failures(outcome.status, lambda i: self._repeat(blocks, i))
        incomplete = self._on_failure == "nan" and failed.any()
        bars = []
        for rows, bar in zip(blocks, (outcome.u0, outcome.theta), strict=True):
            if bar is not None and rows.shared:
                bar = np.full(bar.shape[1], np.nan) if incomplete else pairwise_sum(bar)
            bars.append(rows.unflatten(bar))
        u0_bar, theta_bar = bars
        value: Any = outcome.value
        if self._sums:
            value = math.nan if incomplete else math.fsum(to_host(value)[~failed])
        error = None if outcome.error is None else dict(zip(("u0", "theta"), outcome.error.T, strict=True))
        return value, Cotangents(u0_bar, theta_bar, error=error, stats=ensemble_stats(outcome))

    def _warn_of_jumps(self, outcome: Outcome, blocks: tuple[Rows, Rows]) -> None:
        """Warn of the first trajectory along which f jumps without an event, of those whose steps say that it may have."""
        if outcome.work is None or outcome.work.shape[1] < 4:
            return
        for i in np.flatnonzero((outcome.work[:, 3] == 1) & (outcome.status == 0))[:_MOST_LOOKS]:
            alone, (u0, theta) = self._alone(i), (rows.of(i) for rows in blocks)
            solution = solve(self.dynamics, u0, theta, alone.t_span, **alone.solve_options)
            places = solution.t[:-1], solution.u[:-1]
            if warn_of_jump(self.dynamics, *places, solution.theta, of=f"trajectory {i}: ", stacklevel=4):
                return

    def _repeat(self, blocks: tuple[Rows, Rows], i: int) -> None:
        """Run trajectory i alone and step by step, for its errors."""
        self._alone(i).step_by_step(*(rows.of(i) for rows in blocks))

    def _alone(self, i: int) -> ValueAndGradient:
        """That of trajectory i."""
        loss: Any = self.loss.member(i) if isinstance(self.loss, MemberData) else self.loss
        return self._evaluate_alone(loss, self.t_span[i if len(self.t_span) > 1 else 0], self._options)

    def _evaluate_alone(self, loss: Any, span: np.ndarray, options: dict[str, Any]) -> ValueAndGradient:
        return ValueAndGradient(self.dynamics, loss, (float(span[0]), float(span[1])), self._wrt, options)


def ensemble_stats(result: Outcome | States) -> EnsembleStats:
    return EnsembleStats(result.status, *((None,) * 3 if result.work is None else result.work[:, :3].T))
