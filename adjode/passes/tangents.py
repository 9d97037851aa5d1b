"""The pass of the tangents: many directions at once along the steps of a trajectory, the first step first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.adjoints.tangents import make_tangents
from adjode.compile import slots
from adjode.compile.calls import PORTABLE
from adjode.compile.kinds import LANES
from adjode.jacobian import products_for, put_jacobian
from adjode.linalg.structure import Structure
from adjode.loops.quadrature import NONE, rule
from adjode.model.dynamics import Dynamics
from adjode.passes.base import put_partner
from adjode.passes.jumps import NO_JUMPS, Jumps, put_jumps_along
from adjode.passes.options import SolveOptions
from adjode.passes.replay import Replay, put_replay
from adjode.passes.result import TangentStats
from adjode.passes.segmented import SegmentedOutput
from adjode.passes.span import Span
from adjode.passes.trajectory import DenseOutput
from adjode.status import CALLBACK_RAISED, NON_FINITE, SolveError, solve_error
from adjode.steppers.family import EXPLICIT, Solver, family_of
from adjode.steppers.frozen import put_frozen
from adjode.steppers.tangents import put_tangents
from adjode.tableaus import Tableau

_MOST_ROWS = 200  # states up to which vjps may take the place of jvps
_AS_QUICK = 1.5  # directions for each state from which on matrices from vjps are quicker than jvps
_FEWEST_LANES = 8  # directions from which on a jvps is quicker than as many jvps
_SMALL = 64  # entries of a block of directions up to which a pass of the fused tier is worth compiling
_FEWER = 2  # vjps for each jvps that they take the place of
_ITERATIONS, _OVERHEAD = 6, 2000  # of GMRES for a direction, and multiplications that one takes besides


class TangentPass(Replay):
    """The tangents of the steps of a trajectory, which `follow` names.

    Parameters
    ----------
    dynamics : Dynamics
    options, structure, span
        Of the forward pass.
    theta : (m,) array
        Which the pass reads whenever it runs.
    start_dots, theta_dots : (k, n), (k, m) arrays
        Tangents of u0 and theta, a row for each direction.
    times : (c,) array
        When to write them down, since the start of the solve, in the order of integration.
    recorded : bool
        Whether the trajectory has the states of the stages.
    laces : bool
        Whether many directions may lie side by side, which is faster; not where their stages are kept for others to read, or
        `theta_dots` change from run to run.
    jumps : Jumps
        Of the forward pass.

    Attributes
    ----------
    dots : (k, n) array
        At the end, the tangents of u(T).
    observed : (c, k, n) array
        Those of the states at `times`.

    Raises
    ------
    ValueError
        If the method has no tangents, or the dynamics have no products with their Jacobian.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        span: Span,
        theta: np.ndarray,
        start_dots: np.ndarray,
        theta_dots: np.ndarray,
        times: np.ndarray,
        *,
        recorded: bool = False,
        laces: bool = True,
        max_seconds: float | None = None,
        jumps: Jumps = NO_JUMPS,
    ):
        tableau = options.tableau
        if (refusal := refusal_of_tangents(dynamics, tableau, start_dots.shape[1])) is not None:
            raise ValueError(refusal)
        super().__init__(dynamics, max_seconds)
        self.span, self.theta = span, theta
        (k, n), frame = start_dots.shape, self.frame
        self.n = n
        self.direct = structure is not None and _solves_directly(tableau.partner or tableau, structure, k)
        if structure is not None and self.direct:
            structure = Structure("dense", n)
        solver = EXPLICIT if structure is None else Solver(family_of(tableau), structure.kind, dynamics.mass is not None)
        frame[slots.THETA], frame[slots.TIME_SPAN] = theta, span.numbers
        frame[slots.THETA_DOTS] = np.ascontiguousarray(theta_dots)
        pays = k >= _FEWEST_LANES and (self.direct or tableau.partner is not None or not tableau.implicit)
        one_each = laces and structure is None and not jumps.inflows and k >= _AS_QUICK * n
        columns = _columns(frame[slots.THETA_DOTS]) if one_each else None
        by_u = dynamics.jvps_u if pays and laces and not jumps.inflows and not theta_dots.any() else None
        jvps = by_u if by_u is not None or not pays else dynamics.jvps
        by_columns = columns is not None and (n <= _FEWER * -(-k // LANES) or jvps is None)
        self.jvps, self._reads_theta = None if by_columns else jvps, by_u is None
        columns = columns if by_columns and columns is not None else np.zeros(0, dtype=np.int64)
        self._is_small = recorded and by_columns and n * (k + -k % 4) <= _SMALL and not jumps
        more = -k % 4 if self._is_small else 0  # in fours
        frame[slots.THETA_COLUMNS] = np.pad(columns, (0, more), constant_values=self.theta.size)
        self._width = k + more if by_columns else LANES if laces and self.jvps is not None else 1
        frame[slots.WIDTH] = np.array([self._width])
        frame[slots.START_DOTS] = self._laced(start_dots)
        size = frame[slots.START_DOTS].size
        self.observe(times)
        frame[slots.U_FLOOR] = options.least_sizes(n)
        frame[slots.STAGE_STATE_DOTS] = np.zeros((0, 0, 0))
        frame[slots.MESH_DOTS], frame[slots.MESH_DOTS_C] = np.zeros((0, 0)), np.zeros((0, 0, 0))
        self._allocate(tableau, n, size)
        if structure is not None:
            self._put_implicit(tableau, structure, n)
        self._put_products(tableau, n, k)
        self.jumps = jumps
        put_jumps_along(frame, jumps, n, k, dynamics)
        self._at = frame[slots.PLACE]
        self._rows_of_jacobian = 0 if structure is None else products_for(dynamics, structure)
        recorded = recorded or structure is not None
        self.entry_name = solver.entry_name("tangents-recorded" if recorded else "tangents")
        self.make = functools.partial(make_tangents, recorded=recorded, solver=solver)

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        """Of the portable tier, unless there are few directions and states: else a pass is products and long vectors."""
        return (self.dynamics.calls if self._is_small else PORTABLE).entry(self.entry_name, self.frame, self.make)

    def _laced(self, rows: np.ndarray) -> np.ndarray:
        """Directions (k, n) as one vector: WIDTH of them side by side in columns, or those given, one behind the other."""
        if self._width == 1:
            return np.ascontiguousarray(rows).reshape(-1)
        padded = np.pad(rows, ((0, -len(rows) % self._width), (0, 0)))
        return np.ascontiguousarray(padded.reshape(-1, self._width, self.n).transpose(0, 2, 1)).reshape(-1)

    def _unlaced(self, vectors: np.ndarray) -> np.ndarray:
        """Directions (..., k, n) from such vectors."""
        k, first, width = len(self.frame[slots.THETA_DOTS]), vectors.shape[:-1], self._width
        if width == 1:
            return vectors.reshape(*first, k, self.n)
        blocks = -(-k // width)
        return vectors.reshape(*first, blocks, self.n, width).swapaxes(-1, -2).reshape(*first, blocks * width, self.n)[..., :k, :]

    @property
    def dots(self) -> np.ndarray:
        return self._unlaced(self.frame[slots.DOTS])

    @property
    def observed(self) -> np.ndarray:
        return self._unlaced(self._observed)

    def _allocate(self, tableau: Tableau, n: int, size: int) -> None:
        frame, rows = self.frame, len(tableau.A)
        put_replay(frame, tableau, NONE, n)
        self.count = frame[slots.COUNT]
        frame.allocate(
            {
                **dict.fromkeys((slots.Y, slots.STATE_DOT, slots.PRODUCT), (n,)),
                **dict.fromkeys((slots.DOTS, slots.NEXT_DOTS, slots.STATE_DOTS), (size,)),
                slots.K: (rows, n),
                slots.Q: (rule(NONE, tableau).weights.shape[1] + 1, 0),
                slots.STAGE_DOTS: (rows, size),
                slots.U_SIZE: (n,),
                slots.BASIS: (1, rows),
            }
        )

    def _put_implicit(self, tableau: Tableau, structure: Structure, n: int) -> None:
        frame = self.frame
        if tableau.partner is not None:
            put_partner(frame, tableau, NONE, n)
            assert frame.partner is not None
            rows = tableau.partner.stages + 1
            frame.partner[slots.STAGE_DOTS], frame.partner[slots.BASIS] = frame[slots.STAGE_DOTS][:rows], np.zeros((1, rows))
        else:
            put_frozen(frame, tableau, n)
        put_tangents(frame.partner or frame, tableau.partner or tableau, n)
        size = (frame.partner or frame)[slots.W].size if self.direct else 0
        frame[slots.STAGE_MATRIX], frame[slots.STAGE_PIVOTS] = np.zeros((size, size)), np.zeros(size, dtype=np.int64)
        frame[slots.RIGHTS] = np.zeros((size, len(frame[slots.THETA_DOTS])))
        frame[slots.DOT_COLUMNS] = np.zeros((n if self.direct else 0, len(frame[slots.THETA_DOTS])))
        put_jacobian(frame, self.dynamics, structure, self.theta.size)

    def _put_products(self, tableau: Tableau, n: int, k: int) -> None:
        """The callbacks, and room for matrices where products are with these."""
        frame, dynamics, m, stiff = self.frame, self.dynamics, self.theta.size, tableau.partner or tableau
        jvps = self.jvps
        quicker = k >= _AS_QUICK * n and jvps is None  # as by columns in any case
        jvp = None if self.direct or quicker else dynamics.jvp
        blocks = 0 if jvp is not None else stiff.stages if stiff.together else 1
        behind = frame[slots.THETA_COLUMNS].size > 0
        frame[slots.ROWS_U], frame[slots.ROWS_THETA] = np.zeros((blocks, n, n)), np.zeros((blocks, n, m + behind))
        frame[slots.UNIT] = np.zeros(n)
        frame[slots.F], frame[slots.VJP] = dynamics.f.handle, dynamics.vjp.handle
        for slot, callback in ((slots.VJP_U, dynamics.vjp_u), (slots.JAC, dynamics.jac), (slots.JVP, jvp), (slots.JVPS, jvps)):
            if callback is not None:
                frame[slot] = callback.handle
        self.jvp = jvp
        blocks = 0 if jvps is None else -(-k // LANES)
        size, units, unlaced = n * LANES, self.direct and jvps is not None, 0 if self._width > 1 else blocks
        frame[slots.LANES_U], frame[slots.LANES_OUT] = np.zeros(unlaced * size), np.zeros(max(unlaced, units) * size)
        of_theta = m * LANES * self._reads_theta
        frame[slots.LANES_THETA] = np.zeros((blocks, of_theta))
        frame[slots.LANES_UNIT], frame[slots.NO_LANES] = np.zeros(units * size), np.zeros(units * of_theta)

    def observe(self, times: np.ndarray) -> None:
        """Write down what the tangents are at `times` (c,), since the start, in the order of integration."""
        frame = self.frame
        frame[slots.TIMES] = np.ascontiguousarray(times)
        frame[slots.OBSERVED_DOTS] = self._observed = np.zeros((times.size, frame[slots.START_DOTS].size))

    def keep_states(self, steps: int) -> np.ndarray:
        """Have the pass write down the tangents of the states of all stages, of so many steps: (steps or more, rows, k n)."""
        kept, (rows, size) = self.frame[slots.STAGE_STATE_DOTS], self.frame[slots.STAGE_DOTS].shape
        if len(kept) < steps:
            kept = self.frame[slots.STAGE_STATE_DOTS] = np.zeros((max(steps, 2 * len(kept)), rows, size))
        return kept

    def keep_dense(self, steps: int, degree: int) -> None:
        """Have the pass write down the dense output of the tangents, of so many steps."""
        size = self.frame[slots.DOTS].size
        self.frame[slots.MESH_DOTS], self.frame[slots.MESH_DOTS_C] = np.zeros((steps + 1, size)), np.zeros((steps, degree, size))

    @property
    def dense(self) -> tuple[np.ndarray, np.ndarray]:
        """At the end, where it is kept: tangents (steps + 1, k, n) where steps start, and coefficients (steps, degree, k, n)."""
        return self._unlaced(self.frame[slots.MESH_DOTS]), self._unlaced(self.frame[slots.MESH_DOTS_C])

    @property
    def place(self) -> tuple[float, float]:
        """The time reached, and the step that was being taken."""
        step, mesh = self._at.item(slots.STEP), self.frame[slots.FORWARD_T]
        return float(self.span.time(mesh[step])), float(mesh[step + 1] - mesh[step])

    @property
    def stats(self) -> TangentStats:
        """The work of the last run."""
        count = self.count.tolist()
        n_jac, n_lu, n_iterations = count[slots.JACOBIANS : slots.ITERATIONS + 1]
        n_vjp, rows = count[slots.VJPS], n_jac * self._rows_of_jacobian
        short = self.dynamics.vjp_u is not None
        return TangentStats(
            n_f=count[slots.DERIVATIVES],
            n_jvp=count[slots.PRODUCTS],
            n_vjp=n_vjp + (0 if short else rows),
            n_vjp_u=rows if short else 0,
            n_jac=n_jac,
            n_lu=n_lu,
            n_iterations=n_iterations,
        )

    def error(self, status: int, state: DenseOutput | SegmentedOutput) -> SolveError:
        """What a run that ended with this status is called; `state` is the forward solution."""
        t, step_size = self.place
        blamed: dict[str, Any] = {}
        bad = np.argwhere(~np.isfinite(self.dots))
        if status == NON_FINITE and bad.size:
            blamed = self.dynamics.entry("u", int(bad[0][1]))
        return solve_error(
            status,
            phase="tangent",
            t=t,
            step_size=step_size,
            **blamed,
            max_seconds=self.max_seconds,
            callback="a callback of the tangents",
            cause=self._find_cause(t, step_size, state) if status == CALLBACK_RAISED else None,
            event=self.jumps.event_at(self.frame),
        )

    def _find_cause(self, t: float, step_size: float, state: DenseOutput | SegmentedOutput) -> Exception | None:
        """The exception that one of the callbacks raises in the step."""
        ones, m = np.ones(self.n), np.ones(self.theta.size)
        for time in self.span.time(self.span.elapsed(np.linspace(t, t + step_size, 9))):
            inputs = {"u": state(time), "theta": self.theta, "lam": ones, "v": ones, "w": m}
            for callback in filter(None, (self.jvp, *self.dynamics.callbacks)):
                cause = callback.reproduce_error(float(time), *callback.arguments(inputs))
                if cause is not None:
                    return cause
        return None


def _columns(theta_dots: np.ndarray) -> np.ndarray | None:
    """The one entry of theta (m,) that changes in each direction (k, m), by 1, or m for none; None if there are others."""
    k, m = theta_dots.shape
    rows, columns = np.nonzero(theta_dots)
    if np.unique(rows).size < rows.size or not (theta_dots[rows, columns] == 1.0).all():
        return None
    found = np.full(k, m)
    found[rows] = columns
    return found


def _solves_directly(tableau: Tableau, structure: Structure, k: int) -> bool:
    """Whether one factorisation of the exact equations of the stages takes less than iterations for each of k directions."""
    n, together = structure.n, tableau.stages if tableau.together else 1
    if n > _MOST_ROWS or n > 2 * (_ITERATIONS + 1) * k:  # a vjp for each state and stage, or jvps for each direction
        return False
    entries = n * n if structure.kind == "dense" else 10 * n
    size, systems = together * n, 5 if tableau.together else 1  # a complex one counts for four
    iterated = _ITERATIONS * (systems * entries + together * n * n + _OVERHEAD)
    return size**3 / 3 + k * size * size < k * iterated


def refusal_of_tangents(dynamics: Dynamics, tableau: Tableau, n: int) -> str | None:
    """Why n states have no tangents, if they have none."""
    if not family_of(tableau).transposable:
        return (
            f"tangents of {tableau.name} would need second derivatives of f, because the Jacobian is part of the method: choose "
            f"method='Radau'."
        )
    if n > _MOST_ROWS and dynamics.jvp is None:
        return (
            f"tangents of {n} states need a jvp, and none can be derived ({dynamics.jvp_refusal.rstrip('.')}): give "
            f"Dynamics a jvp(t, u, theta, v, w, du_dot)."
        )
    return None
