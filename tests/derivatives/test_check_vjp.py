"""check_vjp passes right rules, finds wrong ones, and names the slip."""

import dataclasses
import re

import numpy as np
import pytest
from numba import njit, types
from numba.core import config

import adjode
from adjode import Dynamics, check_vjp
from adjode.compile.flags import DISABLED

unchecked_only = pytest.mark.skipif(DISABLED or bool(config.BOUNDSCHECK), reason="an IndexError is raised here")

U0 = {"prey": 1.3, "predator": 0.7}
THETA = {"birth": 1.1, "rates": [0.4, 0.9], "growth": 0.3}


# --- a rule with any slip, chosen by the last parameter so that one compilation serves all of them ---------------------


def lotka_volterra(t, u, theta, du):
    du[0] = theta[0] * u[0] - theta[1] * u[0] * u[1]
    du[1] = -theta[2] * u[1] + theta[3] * u[0] * u[1]


def lotka_volterra_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = (theta[0] - theta[1] * u[1]) * lam[0] + theta[3] * u[1] * lam[1]
    u_bar[1] = -theta[1] * u[0] * lam[0] + (theta[3] * u[0] - theta[2]) * lam[1]
    theta_bar[0] = u[0] * lam[0]
    theta_bar[1] = -u[0] * u[1] * lam[0]
    theta_bar[2] = -u[1] * lam[1]
    theta_bar[3] = u[0] * u[1] * lam[1]
    if theta.size > 4:
        theta_bar[4] = 0.0


def lotka_volterra_vjp_u(t, u, theta, lam, u_bar):
    u_bar[0] = (theta[0] - theta[1] * u[1]) * lam[0] + theta[3] * u[1] * lam[1]
    u_bar[1] = -theta[1] * u[0] * lam[0] + (theta[3] * u[0] - theta[2]) * lam[1]
    if theta.size > 4 and theta[4] == 30:
        u_bar[1] = -theta[1] * u[0] * lam[0] + (theta[3] * u[1] - theta[2]) * lam[1]


right = njit(lotka_volterra_vjp)


def slipping_vjp(t, u, theta, lam, u_bar, theta_bar):  # noqa: C901
    slip, before, second = theta[4], theta_bar[2], u_bar[1]
    right(t, u, theta, lam, u_bar, theta_bar)
    if slip == 1:  # the whole block has the wrong sign
        for k in range(4):
            theta_bar[k] = -theta_bar[k]
    elif slip == 2:  # one entry has
        theta_bar[1] = -theta_bar[1]
    elif slip == 3:  # one term has
        u_bar[0] = (theta[0] - theta[1] * u[1]) * lam[0] - theta[3] * u[1] * lam[1]
    elif slip == 4:
        u_bar[0] = (theta[0] - theta[1] * u[1]) * lam[0] - theta[1] * u[0] * lam[1]
        u_bar[1] = theta[3] * u[1] * lam[0] + (theta[3] * u[0] - theta[2]) * lam[1]
    elif slip == 5:
        theta_bar[2] += before
    elif slip == 6:
        theta_bar[3] = 0.0
    elif slip == 7:
        theta_bar[2] = before
    elif slip == 8:
        theta_bar[1], theta_bar[2] = theta_bar[2], theta_bar[1]
    elif slip == 9:
        for k in range(4):
            theta_bar[k] *= 0.75
    elif slip == 10:
        theta_bar[3] *= 1 + 1e-6
    elif slip == 11:  # right for lam = e_0, not for others
        theta_bar[0] = u[0] * abs(lam[0])
    elif slip == 12:
        if t > 0.5:
            theta_bar[0] = -theta_bar[0]
    elif slip == 13:
        u[1] = 5.0
    elif slip == 14:
        u_bar[1] = np.nan
    elif slip == 15:
        theta_bar[theta.size] = 1.0
    elif slip == 16:
        u_bar[0] += u[2] * lam[0]
    elif slip == 17:
        theta_bar[0] = u[0] * lam[1]
    elif slip == 18:
        u_bar[1] = 2 * u_bar[1]
    elif slip == 19:
        theta_bar[1] = theta_bar[0]
    elif slip == 20:  # written in one branch only
        u_bar[1] = u_bar[1] if lam[0] > 0.0 else second


@pytest.fixture(scope="module")
def slipping():
    return Dynamics(lotka_volterra, slipping_vjp, vjp_u=lotka_volterra_vjp_u)


def report_of(slipping, slip, **options):
    return check_vjp(slipping, U0, {**THETA, "slip": slip}, **options)


def entries(report):
    return [(p.product, p.block, p.entry) for p in report.problems]


SLIPS = {
    "sign of a block": (1, [("theta_bar", k) for k in range(4)], "wrong sign"),
    "sign of an entry": (2, [("theta_bar", 1)], "wrong sign"),
    "sign of a term": (3, [("u_bar", 0)], r"wrong sign in the term of lam\['predator'\]"),
    "transposed": (4, [("u_bar", 0), ("u_bar", 1)], "transposed"),
    "accumulates": (5, [("theta_bar", 2)], "accumulates"),
    "missing": (6, [("theta_bar", 3)], "missing: it is zero"),
    "never written": (7, [("theta_bar", 2)], "never written"),
    "swapped": (8, [("theta_bar", 1), ("theta_bar", 2)], r"swapped with theta_bar\['rates'\]"),
    "factor": (9, [("theta_bar", k) for k in range(4)], "a factor 0.75"),
    "tiny": (10, [("theta_bar", 3)], ""),
    "not linear": (11, [("theta_bar", 0)], "not linear in lam"),
    "NaN": (14, [("u_bar", 1)], "not finite"),
    "read outside": (16, [("u_bar", 0)], "not finite"),
    "wrong lam": (17, [("theta_bar", 0)], r"lam\['prey'\] and lam\['predator'\] are confused"),
    "factor of an entry": (18, [("u_bar", 1)], "a factor 2"),
    "wrong entry": (19, [("theta_bar", 1)], r"holds what belongs in theta_bar\['birth'\]"),
    "some branches": (20, [("u_bar", 1)], "not written for every lam"),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=unchecked_only) if n == "read outside" else n for n in SLIPS])
def test_slip_is_found_and_named(slipping, name):
    slip, wrong, text = SLIPS[name]
    report = report_of(slipping, slip)
    assert not report.ok
    assert entries(report) == [("vjp", *entry) for entry in wrong]
    assert all(re.match(text, problem.slip) for problem in report.problems)
    assert all(problem.name in str(report) for problem in report.problems)


def test_right_rule_of_the_same_dynamics(slipping):
    report = report_of(slipping, 0)
    report.raise_if_wrong()
    assert report.ok and report.problems == [] and report.unsure == ()
    assert report.products == ("vjp", "vjp_u") and report.accuracy < 1e-9
    assert "vjp and vjp_u are right" in str(report) and "complex step" in str(report)
    assert repr(report) == str(report)


def test_problem_says_what_was_given_and_expected(slipping):
    report = report_of(slipping, 2, t=0.25)
    (problem,) = report.problems
    assert (problem.name, problem.t) == ("theta_bar['rates'][0]", 0.25)
    assert problem.derivative == "df['prey']/dtheta['rates'][0]"
    assert problem.expected == pytest.approx(-1.3 * 0.7, rel=1e-14)
    assert problem.given == pytest.approx(1.3 * 0.7, rel=1e-14)
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.slip = ""
    with pytest.raises(ValueError, match=r"theta_bar\['rates'\]\[0\] at t = 0.25: given 0.91.*wrong sign"):
        report.raise_if_wrong()


def test_vjp_u_alone_is_wrong(slipping):
    report = report_of(slipping, 30)
    assert entries(report) == [("vjp_u", "u_bar", 1)]
    assert report.problems[0].derivative == "df['predator']/du['predator']"


def test_changed_input(slipping):
    problem = report_of(slipping, 13).problems[0]
    assert (problem.product, problem.block, problem.name) == ("vjp", "u", "u['predator']")
    assert (problem.given, problem.expected) == (5.0, 0.7)
    assert problem.slip == "vjp changes its input u"


@unchecked_only
def test_write_outside(slipping):
    report = report_of(slipping, 15)
    assert "vjp writes outside theta_bar, which has 5 entries" in str(report)
    assert entries(report) == [("vjp", "outside theta_bar", 5)]


def test_error_that_shows_only_later_on_a_trajectory(slipping):
    times = np.linspace(0.0, 1.0, 101)
    states = np.column_stack([1.3 + times, 0.7 + times])
    assert report_of(slipping, 12, around=False).ok
    report = report_of(slipping, 12, trajectory=(times, states), around=False)
    assert entries(report) == [("vjp", "theta_bar", 0)] and report.problems[0].t > 0.5
    assert len(report.times) == 8


def test_along_a_solution(slipping):
    theta = {**THETA, "slip": 12}
    solution = adjode.solve(slipping, U0, theta, (0.0, 2.0))
    report = check_vjp(slipping, U0, theta, trajectory=solution)
    assert entries(report) == [("vjp", "theta_bar", 0)]
    assert check_vjp(slipping, U0, {**THETA, "slip": 0}, trajectory=(solution.t, solution.u)).ok
    other_theta = [1.0, 1.0, 1.0, 1.0, 0.0]
    report = check_vjp(slipping, U0, other_theta, trajectory=solution)  # the solution has its own theta, with the slip
    assert report.problems[0].t > 0.5


def test_flat_vectors_and_structured_scalars(slipping):
    flat = [1.1, 0.4, 0.9, 0.3, 2.0]
    assert [p.name for p in check_vjp(slipping, [1.3, 0.7], flat).problems] == ["theta_bar[1]"]
    record = np.array((1.3, 0.7), dtype=[("prey", float), ("predator", float)])[()]
    problem = check_vjp(slipping, record, flat).problems[0]
    assert problem.derivative == "df['prey']/dtheta[1]"


# --- right rules ----------------------------------------------------------------------------------------------------


HIDDEN = 50


def network(t, u, theta, du):
    for i in range(2):
        du[i] = theta[5 * HIDDEN + i]
    for k in range(HIDDEN):
        a = np.tanh(theta[2 * k] * u[0] + theta[2 * k + 1] * u[1] + theta[2 * HIDDEN + k])
        for i in range(2):
            du[i] += theta[3 * HIDDEN + 2 * k + i] * a


def network_vjp(t, u, theta, lam, u_bar, theta_bar):
    for i in range(2):
        u_bar[i] = 0.0
        theta_bar[5 * HIDDEN + i] = lam[i]
    for k in range(HIDDEN):
        a = np.tanh(theta[2 * k] * u[0] + theta[2 * k + 1] * u[1] + theta[2 * HIDDEN + k])
        z_bar = 0.0
        for i in range(2):
            theta_bar[3 * HIDDEN + 2 * k + i] = lam[i] * a
            z_bar += theta[3 * HIDDEN + 2 * k + i] * lam[i]
        z_bar *= 1 - a * a
        theta_bar[2 * HIDDEN + k] = z_bar
        for j in range(2):
            theta_bar[2 * k + j] = z_bar * u[j]
            u_bar[j] += z_bar * theta[2 * k + j]


def drag(t, u, theta, du):
    du[0] = u[1]
    du[1] = -theta[0] * u[1] * abs(u[1]) + np.sin(t)


def drag_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = 0.0
    u_bar[1] = lam[0] - 2 * theta[0] * abs(u[1]) * lam[1]
    theta_bar[0] = -u[1] * abs(u[1]) * lam[1]


def oscillator(t, u, theta):
    return np.array([u[1], -theta[0] * u[0]])


def oscillator_vjp(t, u, theta, lam):
    return np.array([-theta[0] * lam[1], lam[0]]), np.array([-u[0] * lam[1]])


def no_parameters(t, u, theta, du):
    du[0] = -(u[0] ** 3) + np.exp(-t) * u[1]
    du[1] = u[0] / (1 + u[1] ** 2)


def no_parameters_vjp(t, u, theta, lam, u_bar, theta_bar):
    d = 1 + u[1] ** 2
    u_bar[0] = -3 * u[0] ** 2 * lam[0] + lam[1] / d
    u_bar[1] = np.exp(-t) * lam[0] - 2 * u[0] * u[1] / d**2 * lam[1]


def relu(t, u, theta, du):
    z = theta[0] * u[0] - theta[1]
    du[0] = z if z > 0.0 else 0.0


def relu_vjp(t, u, theta, lam, u_bar, theta_bar):
    on = lam[0] if theta[0] * u[0] - theta[1] > 0.0 else 0.0
    u_bar[0] = theta[0] * on
    theta_bar[0] = u[0] * on
    theta_bar[1] = -on


def chain(t, u, theta, du):
    n = u.size
    for i in range(n):
        du[i] = theta[0] * (u[i - 1] - 2 * u[i] + u[(i + 1) % n]) + u[i] * (1 - theta[1] * u[i])


def chain_vjp(t, u, theta, lam, u_bar, theta_bar):
    n = u.size
    theta_bar[0] = theta_bar[1] = 0.0
    for i in range(n):
        u_bar[i] = theta[0] * (lam[i - 1] - 2 * lam[i] + lam[(i + 1) % n]) + (1 - 2 * theta[1] * u[i]) * lam[i]
        theta_bar[0] += (u[i - 1] - 2 * u[i] + u[(i + 1) % n]) * lam[i]
        theta_bar[1] -= u[i] ** 2 * lam[i]
    if theta[2] == 1.0:
        u_bar[70] += 1e-6 * u_bar[70]
    theta_bar[2] = 0.0


@pytest.fixture(scope="module")
def chain_dynamics():
    return Dynamics(chain, chain_vjp)


def test_network():
    rng = np.random.default_rng(1)
    dynamics, u0 = Dynamics(network, network_vjp), rng.standard_normal(2)
    for theta in (rng.standard_normal(252), np.where(rng.random(252) < 0.5, 0.0, 20 * rng.standard_normal(252))):
        report = check_vjp(dynamics, u0, theta)
        report.raise_if_wrong()
        assert "complex step" in report.reference and report.accuracy < 1e-6


def test_abs_misleads_the_complex_step():
    dynamics = Dynamics(drag, drag_vjp)
    for speed in (0.8, -0.8, 0.0, -1e-7):
        assert check_vjp(dynamics, [0.0, speed], [0.3], t=0.5).problems == []
        report = check_vjp(dynamics, [0.0, speed], [0.3], t=0.5, around=False)
        assert report.problems == []
        assert ("not analytic" in report.reference) == (abs(speed) > 0.5)  # near 0 the two agree to rounding


def test_out_of_place():
    check_vjp(Dynamics(oscillator, oscillator_vjp), [1.0, 0.5], [2.0]).raise_if_wrong()


def test_explicit_signature_takes_no_complex_numbers():
    vector = types.float64[::1]
    f = njit(types.void(types.float64, vector, vector, vector))(lotka_volterra)
    report = check_vjp(Dynamics(f, lotka_volterra_vjp), U0, THETA)
    report.raise_if_wrong()
    assert ("does not run with complex numbers" in report.reference) != DISABLED
    assert report.accuracy < 1e-8


def test_no_parameters():
    report = check_vjp(Dynamics(no_parameters, no_parameters_vjp), [0.6, 1.2], [], t=0.3)
    report.raise_if_wrong()
    assert report.m == 0 and "0 parameters" in str(report)


@pytest.fixture(scope="module")
def relu_dynamics():
    return Dynamics(relu, relu_vjp)


@pytest.mark.parametrize("threshold", [0.5, 2.0, 1.0, 1.0 + 1e-12])
def test_one_state_with_a_kink(relu_dynamics, threshold):
    check_vjp(relu_dynamics, 1.0, [1.0, threshold]).raise_if_wrong()


def test_many_states(chain_dynamics):
    u0 = np.random.default_rng(2).uniform(0.5, 1.5, 100)
    report = check_vjp(chain_dynamics, u0, [0.7, 0.4, 0.0])
    report.raise_if_wrong()
    assert report.n_lam == 64
    report = check_vjp(chain_dynamics, u0, [0.7, 0.4, 1.0])
    assert entries(report) == [("vjp", "u_bar", 70)]


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_units_do_not_matter(slipping, scale):
    theta = [1.1, 0.4 / scale, 0.9, 0.3 / scale]
    u0 = [1.3 * scale, 0.7 * scale]
    assert check_vjp(slipping, u0, [*theta, 0.0]).ok
    assert entries(check_vjp(slipping, u0, [*theta, 10.0])) == [("vjp", "theta_bar", 3)]


# --- around the point, and what cannot be judged ---------------------------------------------------------------------


def equal_entries_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = lam[0] * (theta[0] - theta[1] * u[0]) + lam[1] * theta[1] * u[1]  # u[0] for u[1], theta[1] for theta[3]
    u_bar[1] = -lam[0] * theta[1] * u[1] + lam[1] * (theta[3] * u[0] - theta[2])  # u[1] for u[0]
    theta_bar[0] = lam[0] * u[1]  # u[1] for u[0]
    theta_bar[1] = -lam[0] * u[0] * u[1]
    theta_bar[2] = -lam[1] * u[1]
    theta_bar[3] = lam[1] * u[1] * u[1]  # u[1] for u[0]


def test_indices_that_equal_entries_hide():
    dynamics, u0, theta = Dynamics(lotka_volterra, equal_entries_vjp), [2.0, 2.0], [1.3, 0.6, 0.9, 0.6]
    assert check_vjp(dynamics, u0, theta, around=False).ok
    report = check_vjp(dynamics, u0, theta)
    assert entries(report) == [("vjp", "u_bar", 0), ("vjp", "u_bar", 1), ("vjp", "theta_bar", 0), ("vjp", "theta_bar", 3)]
    assert str(check_vjp(dynamics, u0, theta)) == str(report)  # the same points again


def infection(t, u, theta, du):
    rate = theta[0] * u[0] * u[1]
    du[0], du[1], du[2] = -rate, rate - theta[1] * u[1] ** 2, theta[1] * u[1] ** 2


def forgetful_infection_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = theta[0] * u[1] * (lam[1] - lam[0])
    u_bar[1] = theta[0] * u[0] * (lam[1] - lam[0])  # the loss of infected ones forgotten
    u_bar[2] = 0.0
    theta_bar[0] = u[0] * u[1] * (lam[1] - lam[0])
    theta_bar[1] = 0.0  # here too


def test_terms_that_vanish_where_states_are_zero():
    dynamics, start = Dynamics(infection, forgetful_infection_vjp), ([9.0, 0.0, 0.0], [0.2, 0.7])
    assert check_vjp(dynamics, *start, around=False).ok
    report = check_vjp(dynamics, *start)
    assert entries(report) == [("vjp", "u_bar", 1), ("vjp", "theta_bar", 1)]


def test_points_around_where_f_is_not_defined_are_left_out():
    report = check_vjp(Dynamics(narrow, narrow_vjp), [1.0], [2.0])
    report.raise_if_wrong()
    assert report.skipped > 0 and f"{report.skipped} further points left out" in str(report)
    assert len(report.times) + report.skipped == 7


def narrow(t, u, theta, du):
    if u[0] < 1.0 or u[0] > 1.2:
        raise ValueError("u must be between 1 and 1.2")
    du[0] = theta[0] * u[0]


def narrow_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0], theta_bar[0] = theta[0] * lam[0], u[0] * lam[0]


def cells(t, u, theta, du):
    du[0] = theta[0] - theta[1] * u[0] + u[1]
    du[1] = theta[2] * u[0] - theta[3] * u[1]


def cells_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[1] * lam[0] + theta[2] * lam[1]
    u_bar[1] = (theta[4] if theta.size > 4 else 1.0) * lam[0] - theta[3] * lam[1]
    theta_bar[0], theta_bar[1], theta_bar[2], theta_bar[3] = lam[0], -u[0] * lam[0], u[0] * lam[1], -u[1] * lam[1]
    if theta.size > 4:
        theta_bar[4] = 0.0


def test_each_entry_has_its_own_scale():
    """df[0]/du[1] = 1 beside terms of 1e15: the complex step has it and the rule agrees, or nobody can tell."""
    dynamics, u0, theta = Dynamics(cells, cells_vjp), [2e15, 3.0], [1e15, 0.7, 1e-15, 0.4]
    report = check_vjp(dynamics, u0, theta)
    report.raise_if_wrong()
    assert report.ok is True and report.accuracy < 1e-6
    report = check_vjp(dynamics, u0, [*theta, 0.4])
    assert report.ok is None and report.unsure == ("df[0]/du[1]",)
    with pytest.raises(ValueError, match=r"may be right.*1 derivative could not be judged.*df\[0\]/du\[1\]"):
        report.raise_if_wrong()
    assert entries(check_vjp(dynamics, u0, [1e15, 0.7, 1e-15, 0.4, 1e14])) == [("vjp", "u_bar", 1)]


def rooted(t, u, theta, du):
    du[0] = theta[0] * np.sqrt(u[0])


def rooted_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = 0.5 * theta[0] / np.sqrt(u[0]) * lam[0] if u[0] > 0.0 else 0.0
    theta_bar[0] = np.sqrt(u[0]) * lam[0]


def test_derivative_that_is_infinite_at_the_point_alone():
    dynamics = Dynamics(rooted, rooted_vjp)
    assert check_vjp(dynamics, [0.0], [1.5], around=False).unsure == ("df[0]/du[0]",)
    check_vjp(dynamics, [0.0], [1.5]).raise_if_wrong()


# --- reports and bad input ------------------------------------------------------------------------------------------


def wrong_chain_vjp(t, u, theta, lam, u_bar, theta_bar):
    for i in range(u.size):
        u_bar[i] = lam[i] + u[i]
    theta_bar[:] = 0.0


def test_long_reports_are_cut():
    report = check_vjp(Dynamics(chain, wrong_chain_vjp), np.linspace(1.0, 2.0, 100), [0.7, 0.4, 0.0])
    assert "u_bar are wrong" in str(report) and "more" in str(report)
    assert len(report.problems) == 102
    assert len(str(report).splitlines()) < 20


def accumulating_f(t, u, theta, du):
    du[0] += theta[0] * u[0]


def steep(t, u, theta, du):
    if u[0] < 0.0:
        raise ValueError("u must not be negative")
    du[0] = theta[0] / u[0]


def one_zero_vjp(t, u, theta, lam, u_bar, theta_bar):
    if theta[0] == 7.0:
        raise ValueError("seven")
    u_bar[0] = -theta[0] / u[0] ** 2 * lam[0]
    theta_bar[0] = lam[0] / u[0]


@pytest.fixture(scope="module")
def steep_dynamics():
    return Dynamics(steep, one_zero_vjp)


def test_f_that_accumulates():
    report = check_vjp(Dynamics(accumulating_f, one_zero_vjp), [1.0], [1.0])
    assert entries(report) == [("f", "du", 0)]
    assert "accumulates" in str(report) and "no products were compared" in str(report)


def test_f_that_is_defined_on_one_side(steep_dynamics):
    check_vjp(steep_dynamics, [1e-3], [1.0]).raise_if_wrong()


def test_exceptions_of_callbacks_come_through(steep_dynamics):
    with pytest.raises(ValueError, match="negative") as caught:
        check_vjp(steep_dynamics, [-1.0], [1.0], t=2.0)
    assert "raised by f when check_vjp called it at t = 2.0" in caught.value.__notes__
    with pytest.raises(ValueError, match="seven") as caught:
        check_vjp(steep_dynamics, [1.0], [7.0])
    assert "raised by vjp" in caught.value.__notes__[0]


def test_f_that_is_not_finite(steep_dynamics):
    with pytest.raises(ValueError, match=r"f must be finite for a comparison, but du\[0\] is inf at t = 0"):
        check_vjp(steep_dynamics, [0.0], [1.0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dynamics": relu}, TypeError, "dynamics must be an adjode.Dynamics"),
        ({"u0": []}, ValueError, "u0 must have at least one entry"),
        ({"u0": [np.nan]}, ValueError, "u0 must be finite"),
        ({"theta": "abc"}, TypeError, "theta must hold real numbers"),
        ({"t": np.inf}, ValueError, "t must be finite"),
        ({"t": None}, TypeError, "t must hold real numbers"),
        ({"trajectory": 3}, TypeError, "trajectory must be an adjode.Solution or a pair"),
        ({"trajectory": ([], [])}, ValueError, "at least one time"),
        ({"trajectory": ([0.0, 1.0], [[1.0, 2.0]])}, ValueError, r"must have shape \(2, 1\)"),
        ({"trajectory": ([0.0], [[np.inf]])}, ValueError, "the states of trajectory must be finite"),
        ({"trajectory": ([0.0], ["a"])}, TypeError, "the states of trajectory must be real numbers"),
    ],
)
def test_bad_input(relu_dynamics, arguments, error, message):
    with pytest.raises(error, match=message):
        check_vjp(**{"dynamics": relu_dynamics, "u0": [1.0], "theta": [1.0, 0.5], **arguments})


def test_solution_of_other_size(slipping, relu_dynamics):
    solution = adjode.solve(slipping, U0, {**THETA, "slip": 0}, (0.0, 1.0))
    with pytest.raises(ValueError, match="trajectory must have 2 parameters"):
        check_vjp(relu_dynamics, [1.0], [1.0, 0.5], trajectory=solution)
