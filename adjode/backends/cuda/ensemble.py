"""The backend of a GPU: each trajectory has a thread, which runs forward pass, loss and backward pass with steps of its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adjode.api.first_calls import Part, backward_parts, prove_ahead, try_at_start
from adjode.api.gradient import ValueAndGradient
from adjode.backends.cuda import device, member
from adjode.backends.cuda.chunks import DeviceOptions, Lanes
from adjode.backends.cuda.plan import Plan, plan_gradient, plan_solve
from adjode.backends.cuda.transfer import Results, StateResults, data_of, inputs_of, owned_data
from adjode.backends.outcome import Outcome, States, block_size, count_rows
from adjode.model.dynamics import Dynamics
from adjode.model.losses import PreparedLoss
from adjode.model.losses.members import MemberData
from adjode.passes.options import SolveOptions, rows_at_most
from adjode.tableaus import tableau as tableau_of

# Compiled kernels, by what they were compiled for; they go with their callbacks.
_kernels: weakref.WeakKeyDictionary[Dynamics, dict[tuple, Callable]] = weakref.WeakKeyDictionary()


class _Backend:
    def __init__(self, dynamics: Dynamics, options: dict[str, Any], device_options: dict[str, Any]):
        if dynamics.mass is not None:
            raise ValueError("backend='cuda' has only explicit methods, which take no mass matrix: use backend='threads'.")
        if options.get("max_seconds") is not None:
            raise ValueError("backend='cuda' does not support max_seconds: leave it out, or use backend='threads'.")
        device.require_gpu()
        self._dynamics, self._options, self._device_options = dynamics, options, DeviceOptions(**device_options)
        self._lanes, self._plans = Lanes(self._device_options), {}  # type: ignore[var-annotated]

    def _kernel(self, plan: Plan, make: Callable[[Plan], Callable]) -> Callable:
        of_dynamics = _kernels.setdefault(self._dynamics, {})
        if plan.key not in of_dynamics:
            of_dynamics[plan.key] = device.device_entry(make(plan), plan.real, plan.replaced)
        return of_dynamics[plan.key]

    def _require_explicit(self, *names: str) -> None:
        for name in names:
            method = self._options.get(name)
            if method is not None and tableau_of(method).implicit:
                raise ValueError(
                    f"{name}={method!r} is implicit, but backend='cuda' has only explicit methods: use backend='threads'."
                )

    def _check_callbacks(self, t_span: np.ndarray, n: int, m: int) -> None:
        parts = [Part(self._dynamics.f), *backward_parts(self._dynamics, wants_theta=False)]
        t0, T = map(float, t_span[0])
        try_at_start(self._dynamics, parts, t0, np.ones(n), np.ones(m), compiled=False)
        prove_ahead(self._dynamics, parts, (t0, T), np.ones(n), np.ones(m), compiled=False)

    def _run_chunks(self, plan: Plan, kernel: Callable, N: int, inputs: list, data: list, results: Any, done: Any) -> None:
        """Run all trajectories; `inputs` and `data` are pairs (array, whether it has a row for each trajectory)."""
        for first in range(0, N, results.chunk):
            stop = min(first + results.chunk, N)
            here = (tuple(array[first:stop] if own else array for array, own in arrays) for arrays in (inputs, data))
            outputs = results.of_chunk(first, stop)
            results.add(first, stop, self._lanes.run(plan, kernel, stop - first, (*here, outputs)))
            if done is not None:
                done(stop - first)


class CudaEnsemble(_Backend):
    """Values and gradients of a loss; see `outcome` for how backends are made and called.

    Parameters
    ----------
    dynamics, loss, wrt, shared, options
        As for `ThreadEnsemble`.
    **device_options
        `DeviceOptions`.

    Raises
    ------
    RuntimeError
        Without a GPU.
    ValueError, TypeError
        For bad input.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        loss: Any,
        wrt: Sequence[str],
        shared: frozenset[str],
        options: dict[str, Any],
        **device_options: Any,
    ):
        super().__init__(dynamics, options, device_options)
        self._loss, self._wrt, self._summed = loss, tuple(wrt), shared & set(wrt)

    def __call__(
        self,
        u0: Any,
        theta: Any,
        t_span: np.ndarray,
        *,
        loss: Any = None,
        size: int | None = None,
        done: Callable[[int], Any] | None = None,
    ) -> Outcome:
        """As `ThreadEnsemble`; u0 and theta may also be arrays on the GPU."""
        loss = loss or self._loss
        widths, N = {"u0": u0.shape[1], "theta": theta.shape[1]}, count_rows((u0, theta, t_span), loss)
        size = size or block_size(N, sum(widths[name] for name in self._summed))
        if N == 0:
            empty = {name: np.zeros((0, width)) if name in self._wrt else None for name, width in widths.items()}
            return Outcome(np.zeros(0), empty["u0"], empty["theta"], np.zeros(0, np.int64), np.zeros((0, 3), np.int64))
        plan, prepared = self._plan(t_span, (widths["u0"], widths["theta"]), _own(N, u0=u0, theta=theta, span=t_span))
        at_most = rows_at_most(self._options, loss, widths["u0"])
        inputs = inputs_of(plan, u0, theta, t_span, prepared.times, prepared.ends_at_T, at_most)
        results = Results(plan, N, size, self._lanes.chunk(plan, N), self._summed)
        data = data_of(plan, loss, prepared)
        self._run_chunks(plan, self._kernel(plan, member.make_gradient), N, inputs, data, results, done)
        value, u0_bar, theta_bar, status, work = results.fetch(self._device_options.stays(u0, theta))
        return Outcome(value, u0_bar, theta_bar, status, work)

    def _plan(self, t_span: np.ndarray, sizes: tuple[int, int], own: frozenset[str]) -> tuple[Plan, PreparedLoss]:
        (n, m), key = sizes, (*sizes, own)
        if key not in self._plans:
            self._check_callbacks(t_span, n, m)
            loss = self._loss.member(0) if isinstance(self._loss, MemberData) else self._loss
            span = float(t_span[0, 0]), float(t_span[0, 1])
            single = ValueAndGradient(self._dynamics, loss, span, self._wrt, self._options)
            single.require_prepared()
            self._require_explicit("method", "adjoint_method")
            _, prepared, sweep = single.prepare(np.ones(n), np.ones(m))
            forward = single.forward_options
            for rtol in (forward.rtol, sweep.rtol if sweep else 0.0):
                self._device_options.require_attainable(rtol)
            if span[1] < span[0]:
                prepared.reverse()
            own |= owned_data(self._loss, prepared)
            plan = plan_gradient(
                self._dynamics,
                forward,
                (n, m, prepared.times.size),
                self._device_options.real,
                own,
                span,
                loss=prepared,
                sweep=sweep,
                wants=frozenset(self._wrt),
            )
            self._plans = {key: (plan, prepared)}
        return self._plans[key]


class CudaSolver(_Backend):
    """Forward passes alone, as `ThreadSolver`."""

    def __init__(self, dynamics: Dynamics, times: np.ndarray, options: dict[str, Any], **device_options: Any):
        super().__init__(dynamics, options, device_options)
        self._times = times

    def __call__(
        self, u0: Any, theta: Any, t_span: np.ndarray, *, size: int | None = None, done: Callable[[int], Any] | None = None
    ) -> States:
        N, n, m, k = count_rows((u0, theta, t_span)), u0.shape[1], theta.shape[1], self._times.size + 1
        if N == 0:
            return States(np.zeros((0, k, n)), np.zeros(0, np.int64), np.zeros((0, 3), np.int64))
        own = _own(N, u0=u0, theta=theta, span=t_span)
        if (n, m, own) not in self._plans:
            self._check_callbacks(t_span, n, m)
            self._require_explicit("method")
            span = float(t_span[0, 0]), float(t_span[0, 1])
            options = SolveOptions.of(self._dynamics, t_span, **self._options)
            self._device_options.require_attainable(options.rtol)
            self._plans = {(n, m, own): plan_solve(self._dynamics, options, (n, m, k), self._device_options.real, own, span)}
        plan = self._plans[n, m, own]
        at_most = rows_at_most(self._options, None, n)
        inputs = inputs_of(plan, u0, theta, t_span, np.append(self._times, t_span[0, 1]), True, at_most)
        results = StateResults(plan, N, self._lanes.chunk(plan, N))
        self._run_chunks(plan, self._kernel(plan, member.make_solve), N, inputs, [], results, done)
        return States(*results.fetch(self._device_options.stays(u0, theta)))


def _own(N: int, **arrays: Any) -> frozenset[str]:
    """Which of the arrays, and of the times, have a row for each trajectory."""
    own = frozenset(name for name, array in arrays.items() if array.shape[0] == N > 1)
    return own | {"times"} if "span" in own else own  # which count from t0
