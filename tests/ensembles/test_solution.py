"""`solve_ensemble` and the pullback of what it returns, beside single solves."""

import functools

import numpy as np
import pytest

from adjode import EnsembleSolution, Solution, SolveError, Status, solve, solve_ensemble
from benchmarks.problems import lv_dynamics
from tests.problems.systems import DECAY, LV_THETA, LV_U0

N, SPAN = 7, (0.0, 2.0)
T_EVAL = np.array([1.5, 0.2, 2.0, 0.2, 0.0])
RNG = np.random.default_rng(3)
U0 = LV_U0 + RNG.uniform(-0.3, 0.3, (N, 2))
THETA = LV_THETA * RNG.uniform(0.8, 1.2, (N, 4))
SPANS = np.column_stack([RNG.uniform(-0.5, 0.0, N), RNG.uniform(2.0, 3.0, N)])
SPANS[2] = SPAN  # begins and ends at an observation
U_T_BARS, U_BARS = RNG.normal(size=(N, 2)), RNG.normal(size=(N, T_EVAL.size, 2))
TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def solved(t_span=SPAN, **options) -> EnsembleSolution:
    return solve_ensemble(lv_dynamics(), U0, THETA, t_span, **options)


@functools.cache
def singles(backwards=False, **options):
    spans = SPANS[:, ::-1] if backwards else SPANS
    return [solve(lv_dynamics(), u0, theta, span, **options) for u0, theta, span in zip(U0, THETA, spans, strict=True)]


@pytest.mark.parametrize("method", ["Tsit5", "DOP853"])
@pytest.mark.parametrize("backwards", [False, True])
def test_states(backwards, method):
    spans = SPANS[:, ::-1] if backwards else SPANS
    ens = solved(spans, method=method, t_eval=T_EVAL)
    assert len(ens) == N and ens.u_eval.shape == (N, T_EVAL.size, 2) and (ens.status == 0).all()
    ens.raise_if_failed()
    for i, one in enumerate(singles(backwards, method=method)):
        np.testing.assert_array_equal(ens.u_T[i], one.u_T)
        np.testing.assert_allclose(ens.u_eval[i], one(T_EVAL), rtol=1e-12)
        assert ens.stats.n_steps[i] == one.stats.n_steps and ens.stats.n_rejected[i] == one.stats.n_rejected


def test_one_of_them():
    ens = solved(SPANS, t_eval=T_EVAL)
    for i in (0, 3, -1):
        one = ens[i]
        assert isinstance(one, Solution)
        np.testing.assert_array_equal(one.u_T, ens.u_T[i])
        np.testing.assert_array_equal(one.t_eval, T_EVAL)
    for i in (N, -N - 1):
        with pytest.raises(IndexError, match=f"there are {N} trajectories, but number {i} was asked for"):
            ens[i]
    assert repr(ens) == f"EnsembleSolution of Lotka-Volterra: {N} trajectories"


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("backwards", [False, True])
def test_pullback(backwards, adjoint):
    ens = solved(SPANS[:, ::-1] if backwards else SPANS, **TIGHT)
    bar = ens.pullback(U_T_BARS, observations=(T_EVAL, U_BARS), adjoint=adjoint)
    rtol = 1e-9 if adjoint == "discrete" else 1e-5
    for i, one in enumerate(singles(backwards, **TIGHT)):
        expected = one.pullback(U_T_BARS[i], observations=(T_EVAL, U_BARS[i]), adjoint=adjoint)
        np.testing.assert_allclose(bar.u0[i], expected.u0, rtol=rtol)
        np.testing.assert_allclose(bar.theta[i], expected.theta, rtol=rtol)


def test_cotangents_that_are_shared():
    ens = solved(**TIGHT)
    bar = ens.pullback([1.0, -1.0], observations=([0.5], [[0.0, 2.0]]), wrt="theta")
    assert bar.u0 is None
    for i in range(N):
        expected = ens[i].pullback([1.0, -1.0], observations=([0.5], [[0.0, 2.0]]), adjoint="discrete")
        np.testing.assert_allclose(bar.theta[i], expected.theta, rtol=1e-10)
    mixed = ens.pullback(U_T_BARS, observations=([0.5], [[0.0, 2.0]]))
    expected = ens[4].pullback(U_T_BARS[4], observations=([0.5], [[0.0, 2.0]]), adjoint="discrete")
    np.testing.assert_allclose(mixed.u0[4], expected.u0, rtol=1e-10)


def test_inputs_that_are_shared():
    """The cotangents of what is shared are sums."""
    ens = solve_ensemble(lv_dynamics(), U0[0], THETA, SPAN)
    bar = ens.pullback(U_T_BARS)
    terms = [ens[i].pullback(U_T_BARS[i], adjoint="discrete").u0 for i in range(N)]
    np.testing.assert_allclose(bar.u0, np.sum(terms, axis=0), rtol=1e-10)
    assert bar.theta.shape == (N, 4)


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_the_dot_product_identity(adjoint):
    """u_T_bar . du(T) = u0_bar . du0 + theta_bar . dtheta, for a sum over trajectories and by central differences."""
    du0, dtheta, h = RNG.normal(size=(N, 2)), RNG.normal(size=(N, 4)), 1e-6
    bar = solved(SPANS, **TIGHT).pullback(U_T_BARS, adjoint=adjoint)
    moved = [solve_ensemble(lv_dynamics(), U0 + s * du0, THETA + s * dtheta, SPANS, **TIGHT).u_T for s in (h, -h)]
    pushed = np.sum(U_T_BARS * (moved[0] - moved[1])) / (2 * h)
    assert np.sum(bar.u0 * du0) + np.sum(bar.theta * dtheta) == pytest.approx(pushed, rel=1e-6)


def test_closed_form():
    scale = np.linspace(0.5, 1.5, 4)[:, None]
    ens = solve_ensemble(DECAY.dynamics, DECAY.u0 * scale, DECAY.theta, DECAY.t_span, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ens.u_T, DECAY.final(DECAY.u0 * scale, DECAY.theta, *DECAY.t_span), rtol=1e-8)
    exact = DECAY.cotangents(np.ones(7))
    bar = ens.pullback(np.ones(7))
    np.testing.assert_allclose(bar.u0, np.tile(exact[0], (4, 1)), rtol=1e-7)
    np.testing.assert_allclose(bar.theta, exact[1] * scale.sum(), rtol=1e-7)


def test_failures():
    u0 = U0.copy()
    u0[3, 0] = np.nan
    ens = solve_ensemble(lv_dynamics(), u0, THETA, SPAN, t_eval=[1.0])
    assert ens.status[3] == Status.NON_FINITE and np.isnan(ens.u_T[3]).all() and np.isnan(ens.u_eval[3]).all()
    assert np.isfinite(np.delete(ens.u_T, 3, axis=0)).all() and "1 failed" in repr(ens)
    with pytest.raises(SolveError, match="1 of 7 trajectories failed; the first is number 3: u0 must be finite"):
        ens.raise_if_failed()
    with pytest.raises(SolveError, match="1 of 7 trajectories failed; the first is number 3"):
        ens.pullback(ens.u_T)
    bar = ens.pullback(ens.u_T, on_failure="nan")
    good = solved().pullback(solved().u_T)
    assert np.isnan(bar.u0[3]).all() and (np.delete(bar.u0, 3, axis=0) == np.delete(good.u0, 3, axis=0)).all()


def test_named_states():
    pair = np.zeros(N, dtype=[("prey", float), ("predators", float)])
    pair["prey"], pair["predators"] = U0.T
    ens = solve_ensemble(lv_dynamics(), pair, THETA, SPAN)
    np.testing.assert_array_equal(ens.u_T["predators"], solved().u_T[:, 1])
    assert ens[2].u_T["prey"] == ens.u_T["prey"][2] and ens.pullback([1.0, 0.0]).u0["prey"].shape == (N,)


def test_no_trajectories():
    ens = solve_ensemble(lv_dynamics(), U0[:0], LV_THETA, SPAN, t_eval=[1.0])
    assert len(ens) == 0 and ens.u_T.shape == (0, 2) and ens.u_eval.shape == (0, 1, 2)
    bar = ens.pullback(np.zeros((0, 2)))
    assert bar.u0.shape == (0, 2) and (bar.theta == 0.0).all()


@pytest.mark.slow
@pytest.mark.jitted
def test_fused():
    """The forward pass of an ensemble and that of its pullback are one entry; beside single solves it agrees to rounding."""
    ens = solve_ensemble(lv_dynamics(fused=True), U0, THETA, SPANS, **TIGHT)
    np.testing.assert_allclose(ens.u_T, solved(SPANS, **TIGHT).u_T, rtol=1e-9)
    expected = solved(SPANS, **TIGHT).pullback(U_T_BARS)
    np.testing.assert_allclose(ens.pullback(U_T_BARS).theta, expected.theta, rtol=1e-7)


BAD = [
    (lambda: solve_ensemble(3, U0, THETA, SPAN), TypeError, "dynamics must be an adjode.Dynamics"),
    (lambda: solve_ensemble(lv_dynamics(), LV_U0, LV_THETA, SPAN), ValueError, "an ensemble needs a row for each trajectory"),
    (lambda: solved(t_eval=[3.0]), ValueError, r"t_eval must lie in the span \[0.0, 2.0\], but 3.0 was given"),
    (lambda: solved(adjoint="discrete"), TypeError, "option 'adjoint' is unknown; the options are atol, "),
    (lambda: solved(rtol=-1.0), ValueError, "rtol must be zero or positive"),
    (lambda: solved().pullback(U0[:2]), ValueError, r"u_T_bar must have the shape \(2,\) or \(7, 2\), but its shape is \(2, 2\)"),
    (lambda: solved().pullback([1.0, np.nan]), ValueError, "u_T_bar must be finite"),
    (lambda: solved().pullback([1j, 0]), TypeError, "u_T_bar must hold real numbers"),
    (lambda: solved().pullback(observations=[1.0]), ValueError, r"observations must be a pair \(times, u_bars\)"),
    (lambda: solved().pullback(observations=([1.0], [1.0])), ValueError, r"u_bars must have the shape \(1, 2\) or \(7, 1, 2\)"),
    (lambda: solved().pullback(observations=([9.0], [[1.0, 1.0]])), ValueError, "observation times must lie in the span"),
    (
        lambda: solved(SPANS).pullback(observations=([2.9], [[1.0, 1.0]])),
        ValueError,
        "observation times must lie in the span .* in trajectory",
    ),
    (lambda: solved().pullback([1.0, 0.0], wrt=("T",)), TypeError, "there is no compiled form for wrt=.*take 'u0'"),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
