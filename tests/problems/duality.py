"""How far tangents are from being the dual of the discrete adjoint; and whether those at all times are those at times."""

import warnings

import numpy as np

PLACES = np.array([0.3, 0.0, 1.0, 0.301, 0.7, 0.3])


def off_duality(solution, directions, seed=0, side="right", wrt=("u0", "theta")):
    """How far lam . du changes from the start to the end and the observations, as a part of its terms, at most.

    Observed are places of the span, and the times at which the state jumps. With "t0" or "T" in `wrt` these change too.
    """
    rng, n, m = np.random.default_rng(seed), solution.u.shape[1], solution.theta.size
    jumps = solution.span.time(solution.trajectory.jumps.t)
    times = np.concatenate([solution.t[0] + (solution.t[-1] - solution.t[0]) * PLACES, jumps])
    size = np.abs(solution.u).max(axis=0)
    U, W = rng.normal(size=(n, directions)) * size[:, None], rng.normal(size=(m, directions)) * np.abs(solution.theta)[:, None]
    u_T_bar, u_bars = rng.normal(size=n) / size, rng.normal(size=(times.size, n)) / size
    moved = {f"{name}_dot": rng.normal(size=directions) for name in ("t0", "T") if name in wrt}
    options = {"observations": (times, u_bars), "adjoint": "discrete", "on_inaccurate": "warn", "wrt": wrt, "side": side}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of steps too long for lam, in which the two are dual all the same
        dots = solution.pushforward(U, W, times, on_inaccurate="warn", side=side, **moved)
        bar = solution.pullback(u_T_bar, **options)
    terms = [u_T_bar[:, None] * dots.u_T, *(u_bars[:, :, None] * dots.u), -bar.u0[:, None] * U, -bar.theta[:, None] * W]
    terms += [-getattr(bar, name.removesuffix("_dot")) * dot[None] for name, dot in moved.items()]
    terms = np.concatenate(terms)
    return np.max(np.abs(terms.sum(axis=0)) / np.abs(terms).sum(axis=0))


def assert_the_same_at_all_times(solution, directions, side="right", seed=3):
    """What dense output gives at times inside of steps, at their ends and at jumps is what `times` gives."""
    rng, (n, m) = np.random.default_rng(seed), (solution.u.shape[1], solution.theta.size)
    shape = () if directions is None else (directions,)
    U, W = rng.normal(size=(n, *shape)), rng.normal(size=(m, *shape))
    times = np.concatenate([solution.t[0] + (solution.t[-1] - solution.t[0]) * rng.uniform(size=9), solution.t])
    asked = solution.pushforward(U, W, times, side=side, on_inaccurate="warn")
    found = solution.pushforward(U, W, dense=True, on_inaccurate="warn")
    assert found.u is None and asked.dense is None
    dots = found.dense(times, side=side)
    assert dots.shape == (times.size, n, *shape) and found.dense(times[0]).shape == (n, *shape)
    for i in range(n):
        np.testing.assert_allclose(dots[:, i], asked.u[:, i], rtol=0, atol=1e-12 * np.abs(asked.u).max())
    np.testing.assert_array_equal(found.u_T, found.dense(solution.t[-1]))
    np.testing.assert_allclose(found.u_T, asked.u_T, rtol=0, atol=1e-12 * np.abs(asked.u).max())
