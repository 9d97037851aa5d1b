"""`certify=True`: a gradient computed a second time, in another way.

Along a solve with tolerances a tenth of those asked for, by the other adjoint: which has other kernels, another quadrature and
another mesh. What the two differ by is the error of the first, that of the state included, as far as they share none. They share f
and its products, so these are held against differences of f along random directions, at times across the span. And a tangent goes
the other way: `lam . du` changes only by what theta, observations and the loss put in, so that what the gradient says of a
direction is what the tangent of that direction says, which has no kernel and no product with an adjoint in common.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from adjode.api.seeds import Seeds
from adjode.api.solved import Solved, state_at_step
from adjode.api.tangents import pushforward
from adjode.compile import slots
from adjode.passes.discrete import MOST_UNITS
from adjode.passes.forward import Forward
from adjode.passes.options import PullbackOptions, SolveOptions
from adjode.passes.program import run_and_keep
from adjode.passes.result import Cotangents
from adjode.passes.tangents import refusal_of_tangents
from adjode.passes.trajectory import slopes
from adjode.status import INACCURATE, SolveError, Status
from adjode.steppers.family import family_of

_TIGHTER = 10.0
_LEAST_RTOL = 1e-13
_PLACES = 5  # where products are held against differences
_APART = 1e-4  # of the size of each entry, for differences
_AGREE = 1e-5  # of the sum of the sizes of all terms


def hold_against_another(
    solution: Solved,
    bar: Cotangents,
    options: PullbackOptions,
    seeds: Seeds | None,
    pull: Callable[[Any, PullbackOptions], Cotangents],
) -> None:
    """Put into `bar.error` what `pull(solution, options)` differs by in another way, if that is more than what is there.

    `seeds` are all that enters, or None where there is more than they tell.

    Raises
    ------
    SolveError
        If that is more than is promised (a warning, with `on_inaccurate="warn"`), the solve fails, or a product is not that of f.
    """
    tighter = _solve_tighter(solution)
    other = pull(tighter, _other_way(options, solution))
    _check_products(solution)
    differences, worst = _differences(solution, bar, other)
    known = bar.error or {}
    bar.error = {name: max(error, known.get(name, 0.0)) for name, error in differences.items()}
    unit = solution.options.unit_error(solution.layouts[0].size)
    units = max(differences.values(), default=0.0) / unit if unit else 0.0
    if units > MOST_UNITS:
        said = (
            f"by another adjoint, it differs by {units:.3g} times rtol, relative to the largest logarithmic derivative, most of "
            f"all in {worst}: tighten the tolerances until it does not, or choose another method."
        )
    elif unit and seeds is not None and differences and (units := _off_tangent(tighter, bar, seeds) / unit) > MOST_UNITS:
        said = (
            f"a tangent differs by {units:.3g} times rtol, relative to its terms, from what the gradient gives for its direction: "
            f"see adjode.check_vjp(dynamics, u0, theta, trajectory=...)."
        )
    else:
        return
    error = SolveError(
        f"the gradient is not certified: along a solve with tolerances ten times tighter, {said}",
        phase="adjoint",
        status=Status(INACCURATE),
        t=float(solution.t[0]),
    )
    if options.on_inaccurate != "warn":
        raise error
    warnings.warn(str(error), RuntimeWarning, stacklevel=4)


def _off_tangent(solution: Solved, bar: Cotangents, seeds: Seeds) -> float:
    """How far `lam . du` is from what it should change by along a solution, as a part of its terms; 0 where there is no tangent."""
    n, (layout, of_theta) = solution.layouts[0].size, solution.layouts
    plain = seeds.jump_bars is None and not np.any(seeds.u0_bar) and solution.segments is None and not solution.jumps.move
    if not plain or refusal_of_tangents(solution.dynamics, solution.options.tableau, n) is not None:
        return 0.0
    rng = np.random.default_rng(0)
    u_dot, w = (size * rng.choice([-1.0, 1.0], size.size) for size in _own_sizes(solution, state_at_step(solution, 0)))
    u0_bar = np.zeros(n) if bar.u0 is None else layout.flatten("u0", bar.u0)
    theta_bar = np.zeros(w.size) if bar.theta is None else of_theta.flatten("theta", bar.theta)
    u_dot, w = u_dot * (bar.u0 is not None), w * (bar.theta is not None)
    try:
        dots = pushforward(solution, u_dot, w, seeds.times)
    except SolveError as error:
        if error.status == INACCURATE:  # which says nothing of the gradient: it sees more than that does
            return 0.0
        raise
    observed = np.zeros(0) if dots.u is None else (seeds.u_bars * dots.u).ravel()
    terms = np.concatenate([seeds.u_T_bar * dots.u_T, observed, seeds.theta_bar * w, -u0_bar * u_dot, -theta_bar * w])
    return float(abs(terms.sum()) / max(np.abs(terms).sum(), 1e-300))


def _own_sizes(solution: Solved, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sizes of a state and of theta, by which directions are scaled."""
    sizes = np.maximum(np.abs(u), solution.options.least_sizes(u.size))
    return sizes, np.where(solution.theta == 0.0, 1.0, np.abs(solution.theta))


def _solve_tighter(solution: Any) -> Any:
    """The same solution, with tolerances a tenth of those it has, or steps half as long; a SolveError if that fails."""
    options, theta_T = _tighter(solution.options, solution.layouts[0].size), solution.jumps.extended(solution.theta)
    problem = solution.problem[0], options, solution.structure, solution.u0.copy(), theta_T, solution.span.ends
    forward = Forward(*problem, record=solution.trajectory.record, lasting=True, jumps=solution.jumps)
    trajectory, segments = run_and_keep(forward, solution.layouts[0])
    ended = int(forward.count[slots.ENDED])
    again = replace(solution, trajectory=trajectory, segments=segments, options=options, t_eval=None, u_eval=None)
    return replace(again, theta_T=theta_T, ended=ended)


def _tighter(options: SolveOptions, n: int) -> SolveOptions:
    if options.step is not None:
        return replace(options, step=options.step / 2.0)
    rtol = max(options.rtol / _TIGHTER, min(options.rtol, _LEAST_RTOL))
    return replace(options, rtol=rtol, atol=options.absolute_tolerances(n) / _TIGHTER)


def _other_way(options: PullbackOptions, solution: Solved) -> PullbackOptions:
    """How the second gradient is computed: by the other adjoint or, where there is none, by what there is."""
    method = solution.options.tableau
    transposable = family_of(method).transposable
    if solution.dynamics.mass is not None or (not options.discrete and transposable):
        return PullbackOptions(adjoint="discrete", max_seconds=options.max_seconds)
    instead = None if transposable or not solution.options.adaptive else "Radau"
    return PullbackOptions(method=instead, max_seconds=options.max_seconds)


def _differences(solution: Solved, bar: Cotangents, other: Cotangents) -> tuple[dict[str, float], str]:
    """By block, as parts of the largest logarithmic derivative, see `Cotangents.error`; and the entry with the largest."""
    u0 = state_at_step(solution, 0)
    sizes = np.maximum(np.abs(u0), solution.options.least_sizes(u0.size)), np.abs(solution.theta)
    blocks = [
        (
            layout.name,
            layout.flatten(layout.name, getattr(bar, layout.name)),
            layout.flatten(layout.name, getattr(other, layout.name)),
            size,
        )
        for layout, size in zip(solution.layouts, sizes, strict=True)
        if getattr(bar, layout.name) is not None
    ]
    names = {layout.name: layout.entry_names() for layout in solution.layouts}
    largest = max((np.max(np.abs(mine) * size, initial=0.0) for _, mine, _, size in blocks), default=0.0)
    found, worst = {}, (0.0, "")
    for name, mine, theirs, size in blocks:
        zeros = np.max(np.abs(mine), where=size == 0.0, initial=0.0)
        of_zeros = largest if zeros == 0.0 else max(zeros, largest)
        parts = _parts(np.abs(mine - theirs), size, largest, of_zeros)
        found[name] = float(np.max(parts, initial=0.0))
        if found[name] > worst[0]:
            worst = found[name], names[name][int(np.argmax(parts))]
    return found, worst[1]


def _parts(difference: np.ndarray, size: np.ndarray, largest: float, of_zeros: float) -> np.ndarray:
    scaled, scale = np.where(size == 0.0, difference, difference * size), np.where(size == 0.0, of_zeros, largest)
    return scaled / np.where(scale > 0.0, scale, 1e-300)  # of a gradient that is zero everything is an error


def _check_products(solution: Solved) -> None:
    """Hold vjp against differences of f, along a random direction at a few places."""
    for t, u, v, w, lam in _directions(solution):
        u_bar, theta_bar = np.zeros(u.size), np.zeros(w.size)
        solution.dynamics.vjp(t, u.copy(), solution.theta.copy(), lam, u_bar, theta_bar)
        terms = np.concatenate([u_bar * v, theta_bar * w])
        wide, near = (_difference(solution, t, u, v, w, lam, _APART * part) for part in (2.0, 1.0))
        exact = (4.0 * near - wide) / 3.0
        doubt = abs(near - wide) + _AGREE * (np.abs(terms).sum() + abs(exact))
        if not abs(terms.sum() - exact) <= doubt and np.isfinite(exact):
            raise SolveError(
                f"the gradient is not certified: at t = {t:.6g} vjp says {terms.sum():.6g} for a derivative of f along a line, "
                f"and differences of f {exact:.6g}: see adjode.check_vjp(dynamics, u0, theta, trajectory=...).",
                phase="adjoint",
                status=Status(INACCURATE),
                t=t,
            )


def _directions(solution: Solved) -> Iterator[tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Places along the solution, directions of the state and the parameters in their own sizes, and lam."""
    rng, n = np.random.default_rng(0), solution.layouts[0].size
    t0, T = float(solution.t[0]), float(solution.t[-1])
    for part in (np.arange(_PLACES) + 0.5) / _PLACES:
        t = t0 + part * (T - t0)
        u = np.asarray(solution(t))
        v, w = (size * rng.choice([-1.0, 1.0], size.size) for size in _own_sizes(solution, u))
        yield t, u, v, w, rng.normal(size=n)


def _difference(solution: Solved, t: float, u: np.ndarray, v: np.ndarray, w: np.ndarray, lam: np.ndarray, apart: float) -> float:
    out, sides = np.empty((1, u.size)), []
    for sign in (1.0, -1.0):
        slopes(solution.dynamics.f.handle, solution.theta + sign * apart * w, np.array([t]), (u + sign * apart * v)[None], out)
        sides.append(out[0] @ lam)
    return (sides[0] - sides[1]) / (2.0 * apart)
