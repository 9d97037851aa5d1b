"""Tangents across doses and events: the dual of the discrete adjoint to rounding, and against closed forms."""

import numpy as np
import pytest

from adjode import Doses, solve, value_and_gradient
from adjode.losses import LeastSquares
from tests.problems.duality import assert_the_same_at_all_times, off_duality
from tests.problems.hybrid import (
    BALL_EVENTS,
    BALL_THETA,
    BALL_U0,
    BOUNCE,
    HUNT_SEED,
    HUNT_SPAN,
    HUNT_THETA,
    HUNT_U0,
    PK_DOSES,
    PK_SPAN,
    PK_THETA,
    PK_U0,
    TWO_THETA,
    ball,
    ball_at,
    drug,
    drug_at,
    hunt,
    hunt_jumps,
    mixed_hunt,
    two_compartments,
)
from tests.problems.methods import TRANSPOSED
from tests.problems.numerics import complex_step

METHODS = ["Tsit5", "DOP853", "Vern7", *TRANSPOSED, "auto"]
SPANS = {"forwards": HUNT_SPAN, "backwards": HUNT_SPAN[::-1]}
RTOL = 1e-9
TIGHT = {"rtol": RTOL, "atol": RTOL}


# --- duality -------------------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("fixed_mesh")
@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("span", [PK_SPAN, PK_SPAN[::-1], (0.0, 5.8)], ids=["forwards", "backwards", "infused"])
@pytest.mark.parametrize("method", METHODS)
def test_dual_across_doses(method, span):
    solution = solve(drug(), PK_U0, PK_THETA, span, doses=PK_DOSES, method=method)
    assert len(solution.trajectory.jumps.t) == (3 if span[1] == 5.8 else 4)
    for directions in (1, 9):
        assert off_duality(solution, directions) < 1e-13


@pytest.mark.usefixtures("fixed_mesh")
@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("method", ["Tsit5", "Radau", "auto"])
def test_dual_of_both_sides_of_jumps_and_of_ends_that_move(method, side):
    everything = {"side": side, "wrt": ("u0", "theta", "t0", "T")}
    for span in (PK_SPAN, PK_SPAN[::-1]):
        assert off_duality(solve(drug(), PK_U0, PK_THETA, span, doses=PK_DOSES, method=method), 3, **everything) < 1e-12
    assert off_duality(solve(hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, method=method, **hunt_jumps()), 3, **everything) < 1e-12


@pytest.mark.usefixtures("fixed_mesh")
@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("method", METHODS)
def test_dual_across_doses_and_events(method, span):
    solution = solve(hunt(), HUNT_U0, HUNT_THETA, span, method=method, **hunt_jumps())
    assert len(solution.trajectory.jumps.t) > 4
    assert off_duality(solution, 9) < 1e-12


@pytest.mark.usefixtures("fixed_mesh")
@pytest.mark.parametrize("method", ["Tsit5", "Radau"])
def test_of_steps_that_move_to_the_tolerance(method):
    """The discrete adjoint has steps that move with the times of jumps, and tangents have not: they agree to the tolerance."""
    for solution in (
        solve(drug(), PK_U0, PK_THETA, PK_SPAN, doses=PK_DOSES, method=method, **TIGHT),
        solve(hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, method=method, **TIGHT, **hunt_jumps()),
    ):
        assert off_duality(solution, 3) < 1e3 * RTOL


@pytest.mark.parametrize("method", ["Tsit5", "Radau"])
def test_dual_where_events_meet_and_one_ends_the_solution(method):
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 9.0), events=[BOUNCE, *BALL_EVENTS], method=method)
    assert [name for _, name in solution.events] == ["near_top", "near_top", "height", "lands", "late"] and solution.ended
    assert off_duality(solution, 3) < 1e-13
    assert off_duality(solution, 9) < 1e-13


def test_dual_with_a_mass_matrix():
    doses = [Doses([1.4, 4.0], ["theta[7]", 0.2], 0, fraction="theta[5]"), Doses(2.5, 0.6, 1, duration=0.5)]
    solution = solve(mixed_hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, method="Radau", doses=doses)
    assert off_duality(solution, 3) < 1e-13


@pytest.mark.usefixtures("fixed_mesh")
@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
def test_dual_with_a_mass_matrix_across_times_that_move(span):
    solution = solve(mixed_hunt(), HUNT_U0, HUNT_THETA, span, method="Radau", **hunt_jumps())
    assert len(solution.trajectory.jumps.t) > 4
    for directions in (3, 9):
        assert off_duality(solution, directions) < 1e-12


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("method", ["Tsit5", "Radau", "auto"])
def test_dense_output_on_both_sides_of_jumps(method, side):
    for span in SPANS.values():
        assert_the_same_at_all_times(solve(hunt(), HUNT_U0, HUNT_THETA, span, method=method, **hunt_jumps()), 9, side)
    at_ends = [Doses([0.0, 2.0, 4.0], 0.2, 0), Doses("theta[6]", 0.6, 1)]
    solution = solve(hunt(), HUNT_U0, HUNT_THETA, (0.0, 4.0), method=method, doses=at_ends)
    assert_the_same_at_all_times(solution, 3, side)
    assert_the_same_at_all_times(solve(ball(), BALL_U0, BALL_THETA, (0.0, 9.0), events=BOUNCE, method=method), None, side)


@pytest.mark.usefixtures("fixed_mesh")
@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
def test_adjoints_that_start_before_the_last_jumps(span, adjoint):
    """While an infusion lasts, which ends behind what is observed, and in front of it."""
    solution = solve(hunt(), HUNT_U0, HUNT_THETA, span, **hunt_jumps(), rtol=1e-10, atol=1e-10)
    for t in (3.0, 2.7, 1.2):
        dots = solution.pushforward(np.eye(2, 12), np.eye(12)[2:], [t])
        bar = solution.pullback(observations=([t], HUNT_SEED[None]), adjoint=adjoint)
        wanted = HUNT_SEED @ dots.u[0]
        atol = (1e-13 if adjoint == "discrete" else 1e-7) * np.abs(wanted).max()
        np.testing.assert_allclose(np.concatenate([bar.u0, bar.theta]), wanted, rtol=0.0, atol=atol)
    call = value_and_gradient(
        hunt(), LeastSquares([3.0], [[0.0, 0.0]]), span, **hunt_jumps(), rtol=1e-10, atol=1e-10, adjoint=adjoint
    )
    (_, prepared), (_, other) = call(HUNT_U0, HUNT_THETA), call.step_by_step(HUNT_U0, HUNT_THETA)
    np.testing.assert_allclose(prepared.theta, other.theta, rtol=0.0, atol=1e-8 * np.abs(other.theta).max())


# --- closed forms ----------------------------------------------------------------------------------------------------------------
def test_of_a_drug():
    rng, times = np.random.default_rng(0), np.array([0.2, 1.0, 5.5, 6.2, 12.0])
    u0_dot, theta_dot = rng.normal(size=2), rng.normal(size=10)
    dots = solve(drug(), PK_U0, PK_THETA, PK_SPAN, doses=PK_DOSES, **TIGHT).pushforward(u0_dot, theta_dot, times)
    for t, found in zip(times, dots.u, strict=True):
        exact = drug_at(PK_U0 + 1e-30j * u0_dot, PK_THETA + 1e-30j * theta_dot, 0.0, t).imag / 1e-30
        np.testing.assert_allclose(found, exact, rtol=0.0, atol=100.0 * RTOL * np.abs(exact).max())


def test_of_a_ball():
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 9.0), events=BOUNCE, **TIGHT)
    dots = solution.pushforward(np.eye(2, 4), np.eye(2, 4, 2))
    wanted = [complex_step(lambda u0, theta, i=i: ball_at(u0, theta, 9.0)[i], [BALL_U0, BALL_THETA]) for i in range(2)]
    np.testing.assert_allclose(dots.u_T, [np.concatenate(row) for row in wanted], rtol=1e-7, atol=1e-6)


def test_of_a_steady_state():
    doses = Doses(0.0, "theta[4]", 0, fraction="theta[5]", every=8.0, steady_state=True)
    solution = solve(two_compartments(), np.zeros(3), TWO_THETA, (0.0, 6.0), doses=doses, **TIGHT)
    dots, seed = solution.pushforward(np.ones((3, 6)), np.eye(6)), np.array([0.3, 1.0, -0.5])
    np.testing.assert_allclose(seed @ dots.u_T, solution.pullback(seed, adjoint="discrete").theta, rtol=1e-7)
