"""The Jacobian in any storage: exactly what jac or the vjp say, with few products where the pattern is known."""

import functools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from adjode import Dynamics, check_vjp, solve
from adjode.compile import slots
from adjode.compile.frame import Frame
from adjode.jacobian import make_jacobian, probe, products_for, put_jacobian, structure_of
from adjode.linalg.structure import KINDS, row_groups
from adjode.passes.span import Span
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS


# du_i = theta_0 u_i^2 + theta_1 sum of A_ij u_j, A (n, n) in the rest of theta
def quadratic_f(t, u, theta, du):
    n = u.size
    for i in range(n):
        du[i] = theta[0] * u[i] * u[i]
        for j in range(n):
            du[i] += theta[1] * theta[2 + i * n + j] * u[j]


def quadratic_vjp(t, u, theta, lam, u_bar, theta_bar):
    n = u.size
    theta_bar[:] = 0.0
    for j in range(n):
        u_bar[j] = 2.0 * theta[0] * u[j] * lam[j]
        theta_bar[0] += lam[j] * u[j] * u[j]
    for i in range(n):
        for j in range(n):
            u_bar[j] += theta[1] * theta[2 + i * n + j] * lam[i]
            theta_bar[1] += theta[2 + i * n + j] * lam[i] * u[j]
            theta_bar[2 + i * n + j] = theta[1] * lam[i] * u[j]


def quadratic_vjp_u(t, u, theta, lam, u_bar):
    n = u.size
    for j in range(n):
        u_bar[j] = 2.0 * theta[0] * u[j] * lam[j]
    for i in range(n):
        for j in range(n):
            u_bar[j] += theta[1] * theta[2 + i * n + j] * lam[i]


def quadratic_jac(t, u, theta, J):
    n = u.size
    for i in range(n):
        for j in range(n):
            J[i, j] = theta[1] * theta[2 + i * n + j]
        J[i, i] += 2.0 * theta[0] * u[i]


def quadratic_jac_returned(t, u, theta):
    n = u.size
    J = theta[1] * theta[2:].copy().reshape((n, n))
    for i in range(n):
        J[i, i] += 2.0 * theta[0] * u[i]
    return J


SOURCES = {
    "vjp": {},
    "vjp_u": {"vjp_u": quadratic_vjp_u},
    "jac": {"jac": quadratic_jac},
    "jac returned": {"jac": quadratic_jac_returned},
}


@functools.cache
def dynamics_from(source, fused=False):
    return Dynamics(quadratic_f, quadratic_vjp, fused=fused, **SOURCES[source])


def with_pattern(source, A):
    made = Dynamics(quadratic_f, quadratic_vjp, jac_sparsity=A, **SOURCES[source])
    return made


def make_pass(calls, stages):
    jacobian = make_jacobian(calls)

    def run(frame):
        return jacobian(frame, 0.0, slots.Y(frame))

    from adjode.compile.flags import kernel

    return kernel(run)


def assembled(dynamics, u, theta, linear_solver="auto"):
    """The Jacobian as a matrix, its structure, the status."""
    structure = structure_of(dynamics, linear_solver, 0.0, u, theta)
    frame = Frame()
    frame[slots.Y], frame[slots.THETA] = u, theta
    frame[slots.SETTING], frame[slots.COUNT] = slots.SETTING.zeros(), slots.COUNT.zeros()
    frame[slots.TIME_SPAN] = Span(0.0, 1.0).numbers
    put_jacobian(frame, dynamics, structure, theta.size)
    status = dynamics.calls.entry("jacobian", frame, make_pass)(frame.argument)
    rows, columns = structure.entries
    J = np.zeros((u.size, u.size))
    J[rows, columns] = frame[slots.JACOBIAN].reshape(-1)[structure.places(rows, columns)]
    assert frame[slots.COUNT][slots.JACOBIANS] == 1
    assert not frame[slots.UNIT].any()
    return J, structure, status


def problem(A, seed=0):
    u = np.random.default_rng(seed).normal(size=len(A))
    return u, np.concatenate([[0.7, 1.3], A.ravel()]), 1.3 * A + np.diag(1.4 * u)


@pytest.mark.parametrize("fused", [False, True], ids=["portable", "fused"])
@pytest.mark.parametrize("source", SOURCES)
def test_dense(source, fused):
    A = np.random.default_rng(2).normal(size=(4, 4))
    u, theta, expected = problem(A)
    dynamics = dynamics_from(source, fused)
    J, structure, status = assembled(dynamics, u, theta)
    assert status == SUCCESS and structure.kind == "dense"
    np.testing.assert_allclose(J, expected, rtol=1e-15)
    assert products_for(dynamics, structure) == (0 if "jac" in source else 4)


@pytest.mark.parametrize("linear_solver", KINDS)
@pytest.mark.parametrize("source", ["vjp", "vjp_u", "jac"])
def test_with_a_pattern(source, linear_solver):
    A = np.triu(np.tril(np.random.default_rng(2).normal(size=(30, 30)), 1), -2)
    u, theta, expected = problem(A)
    dynamics = with_pattern(source, A)
    J, structure, status = assembled(dynamics, u, theta, linear_solver)
    assert status == SUCCESS and structure.kind == linear_solver
    np.testing.assert_allclose(J, expected, rtol=1e-15)
    assert products_for(dynamics, structure) == (0 if "jac" in source else 4)


@given(st.integers(1, 10), st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_any_pattern(n, seed, density):
    """Rows of a group share no column, and together they give every entry exactly."""
    rng = np.random.default_rng(seed)
    A = np.where(rng.random((n, n)) < density, rng.normal(size=(n, n)), 0.0)
    u, theta, expected = problem(A, seed)
    dynamics = with_pattern("vjp", sparse.coo_array(A))
    groups = row_groups(dynamics.sparsity)
    for group in range(groups.max() + 1):
        assert (dynamics.sparsity.toarray()[groups == group].sum(axis=0) <= 1).all()
    for linear_solver in KINDS:
        J, _, status = assembled(dynamics, u, theta, linear_solver)
        assert status == SUCCESS
        np.testing.assert_allclose(J, expected, rtol=1e-14, atol=1e-300)


def test_probe_finds_entries_that_happen_to_be_zero():
    A = np.diag(np.ones(5), 1) + np.diag(np.full(6, 2.0))
    u, theta, _ = problem(A)
    for start in (u, np.zeros(6)):
        for source in ("jac", "vjp"):
            dynamics = Dynamics(quadratic_f, quadratic_vjp, jac_sparsity="probe", **SOURCES[source])
            found = probe(dynamics, 0.0, start, theta).toarray()
            if source == "jac":  # which gives values and no more
                np.testing.assert_array_equal(found, A != 0)
            else:  # every entry is computed, whatever the value of A
                assert found.all()
    structure = structure_of(Dynamics(quadratic_f, quadratic_vjp, jac=quadratic_jac, jac_sparsity="probe"), "banded", 0.0, u, theta)
    assert structure.widths == (0, 1)


def _products_f(t, u, theta, du):
    du[0] = u[0] * u[1]
    du[1] = theta[0] * u[1]
    du[2] = -u[2]


def _products_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = lam[0] * u[1]
    u_bar[1] = lam[0] * u[0] + theta[0] * lam[1]
    u_bar[2] = -lam[2]
    theta_bar[0] = lam[1] * u[1]


def test_probe_at_zero():
    """Where a vjp multiplies by an entry that is zero, the entry is in the pattern."""
    dynamics = Dynamics(_products_f, _products_vjp, jac_sparsity="probe")
    found = probe(dynamics, 0.0, np.zeros(3), np.zeros(1)).toarray()
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 1, 0], [0, 0, 1]])


def _raising_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[:] = lam
    theta_bar[:] = 0.0
    if lam[1] != 0.0:
        raise ValueError("no")


def _nan_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[:] = lam
    theta_bar[:] = 0.0
    if lam[1] != 0.0:
        u_bar[2] = np.nan


def _nan_outside_jac(t, u, theta, J):
    J[:] = np.eye(3)
    J[2, 2] = np.inf


@pytest.mark.parametrize("sparsity", [None, np.ones((3, 3))], ids=["dense", "pattern"])
def test_failures(sparsity):
    for vjp, jac, expected in (
        (_raising_vjp, None, CALLBACK_RAISED),
        (_nan_vjp, None, NON_FINITE),
        (_products_vjp, _nan_outside_jac, NON_FINITE),
    ):
        dynamics = Dynamics(_products_f, vjp, jac=jac, jac_sparsity=sparsity)
        assert assembled(dynamics, np.ones(3), np.ones(1))[2] == expected


def test_bad_input():
    for bad, error, words in (
        (np.ones((2, 3)), ValueError, r"square matrix \(n, n\), but its shape is \(2, 3\)"),
        (np.ones(3), ValueError, r"its shape is \(3,\)"),
        ("band", TypeError, "'band' was given"),
        (object(), TypeError, "a object was given"),
    ):
        with pytest.raises(error, match=words):
            Dynamics(_products_f, _products_vjp, jac_sparsity=bad)
    dynamics = Dynamics(_products_f, _products_vjp, jac_sparsity=np.eye(4))
    with pytest.raises(ValueError, match=r"must have shape \(3, 3\), as u0 has 3 entries, but its shape is \(4, 4\)"):
        structure_of(dynamics, "auto", 0.0, np.ones(3), np.ones(1))
    with pytest.raises(ValueError, match="linear_solver must be one of 'auto', 'dense', 'banded', 'sparse', but 'lu'"):
        structure_of(dynamics, "lu", 0.0, np.ones(3), np.ones(1))
    with pytest.raises(ValueError, match="'banded' needs the zeros of the Jacobian: give Dynamics a jac_sparsity"):
        structure_of(Dynamics(_products_f, _products_vjp), "banded", 0.0, np.ones(3), np.ones(1))
    with pytest.raises(TypeError, match=r"jac takes 2 arguments, but it must be jac\(t, u, theta, J\) or jac\(t, u, theta\)"):
        Dynamics(_products_f, _products_vjp, jac=lambda t, u: u)


def test_a_jac_that_leaves_its_matrix():
    def jac(t, u, theta, J):
        J[3, 3] = u[0]

    with pytest.raises(ValueError, match="jac indexes an array out of bounds where u has 3 entries"):
        solve(Dynamics(_products_f, _products_vjp, jac=jac), np.ones(3), np.ones(1), (0.0, 1.0), method="Radau")


def test_wrong_shape_returned():
    def jac(t, u, theta):
        return np.ones((2, 2))

    dynamics = Dynamics(_products_f, _products_vjp, jac=jac)
    u, theta = np.ones(3), np.ones(1)
    assert assembled(dynamics, u, theta)[2] == CALLBACK_RAISED
    error = dynamics.jac.reproduce_error(0.0, *dynamics.jac.arguments({"u": u, "theta": theta}))
    assert "the matrix returned has the wrong shape" in str(error)


def test_pickled_with_its_pattern():
    dynamics = pickle.loads(pickle.dumps(with_pattern("jac", np.eye(3))))
    assert dynamics.jac is not None and dynamics.sparsity.shape == (3, 3)
    assert "with jac" in repr(dynamics)


@functools.cache
def right_and_wrong():
    def transposed(t, u, theta, J):
        n = u.size
        for i in range(n):
            for j in range(n):
                J[j, i] = theta[1] * theta[2 + i * n + j]
            J[i, i] += 2.0 * theta[0] * u[i]

    def unwritten(t, u, theta, J):
        n = u.size
        for i in range(n):
            J[i, i] = 2.0 * theta[0] * u[i]
            for j in range(n):
                J[i, j] += theta[1] * theta[2 + i * n + j]

    return transposed, unwritten


def test_check_vjp_checks_jac_and_pattern():
    A = np.triu(np.tril(np.random.default_rng(2).normal(size=(5, 5)), 1), -1)
    u, theta, expected = problem(A)
    transposed, unwritten = right_and_wrong()
    assert check_vjp(with_pattern("jac", A), u, theta).ok
    report = check_vjp(Dynamics(quadratic_f, quadratic_vjp, jac=transposed), u, theta)
    assert {one.product for one in report.problems} == {"jac"} and "transposed" in str(report)
    report = check_vjp(Dynamics(quadratic_f, quadratic_vjp, jac=unwritten), u, theta)
    assert {one.product for one in report.problems} == {"jac"} and "5 of the 5 columns of J are wrong: not written" in str(report)
    narrow = A.copy()
    narrow[1, 2] = 0.0
    (found,) = check_vjp(with_pattern("vjp", narrow), u, theta).problems
    assert found.product == "jac_sparsity" and found.name == "df[1]/du[2]" and np.isclose(found.expected, expected[1, 2])
