"""Which breaks dynamics have: their own, and those of tables that f calls with t, wherever it does."""

import pickle
import warnings

import numba
import numpy as np
import pytest

from adjode import Dynamics, Table, solve, value_and_gradient
from adjode.compile.fingerprint import fingerprint
from adjode.losses import FinalState
from adjode.model.switches import switches_of

DOSE = Table([0.0, 1.0, 2.0], [0.0, 3.0, 0.0], "previous")
OTHER = Table([0.0, 0.5, 2.0], [0.0, 3.0, 4.0])


@numba.njit
def helper(amount, when):
    return DOSE(when) * amount


def module_f(t, u, theta, du):
    du[0] = helper(theta[0], t)


def nothing(t, u, theta, lam, u_bar, theta_bar):
    u_bar[:] = 0.0
    theta_bar[:] = 0.0


def direct(t, u, theta, du):
    du[0] = DOSE(t)


def renamed(t, u, theta, du):
    s = t
    du[0], rate = OTHER(s), u[0]
    du[0] += rate


def both(time, u, theta):
    if u[0] > 0.0:
        return np.array([OTHER(time) + helper(1.0, time)])
    return np.array([0.0])


def of_a_state(t, u, theta, du):
    x = u[0] + theta[0]
    du[0] = DOSE(x)


def shifted(t, u, theta, du):
    du[0] = DOSE(t - 0.5)


def wrapped(t, u, theta, du):
    t = t % 2.0
    du[0] = DOSE(t)


def bent(t, u, theta, du):
    du[0] = DOSE(1.0 + np.sin(t) * np.cos(t))


def in_a_loop(t, u, theta, du):
    du[0] = 0.0
    for k in range(3):
        du[0] += helper(1.0, t - k)


def breaks_of(f, given=None):
    own = np.zeros(0) if given is None else given
    return np.union1d(own, switches_of(f, None, given).times)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (direct, [1, 2]),
        (module_f, [1, 2]),
        (numba.njit(module_f), [1, 2]),
        (renamed, [0.5]),
        (both, [0.5, 1, 2]),
        (of_a_state, []),
        (lambda t, u, theta: np.array([DOSE(t)]), [1, 2]),
        (nothing, []),
        (shifted, [1.5, 2.5]),
        (in_a_loop, [1, 2, 3, 4]),
    ],
)
def test_tables_are_found_where_they_are_called_with_what_is_linear_in_t(f, expected):
    assert breaks_of(f).tolist() == expected
    assert breaks_of(f, np.array([7.0, 1.0])).tolist() == sorted({*expected, 7.0, 1.0})
    assert breaks_of(f, np.zeros(0)).tolist() == expected


BOTH = DOSE, OTHER


def of_a_tuple(t, u, theta, du):
    du[0] = BOTH[1](t) + BOTH[0](t)


def by_another_name(t, u, theta, du):
    table = OTHER
    du[0] = table(t)


@pytest.mark.parametrize(("f", "expected"), [(of_a_tuple, [0.5, 1, 2]), (by_another_name, [0.5])])
def test_tables_that_are_called_in_another_way_are_taken_as_called_with_t(f, expected):
    assert breaks_of(f).tolist() == expected


def test_tables_of_a_time_of_day():
    dynamics = Dynamics(wrapped, nothing)
    assert dynamics.breaks.size == 0 and dynamics.switches.within((0.0, 5.0)).tolist() == [1, 2, 3, 4]


def test_a_time_that_cannot_be_followed_is_warned_of():
    with pytest.warns(RuntimeWarning, match=r"adjode cannot read from .*test_breaks.py, line .*DOSE\(1.0 \+ np.sin"):
        value_and_gradient(Dynamics(bent, nothing), FinalState([1.0]), (0.0, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value_and_gradient(Dynamics(bent, nothing, breaks=()), FinalState([1.0]), (0.0, 1.0))


def test_without_a_source_all_tables_count():
    space = {"table": OTHER, "__name__": __name__}
    exec("def f(t, u, theta, du):\n    du[0] = table(u[0])", space)
    assert breaks_of(space["f"]).tolist() == [0.5]


def test_dynamics_have_them():
    dynamics = Dynamics(module_f, nothing, breaks=[5.0, 1.0, -2.0])
    assert dynamics.breaks.tolist() == [-2, 1, 2, 5] and "4 breaks" in repr(dynamics)
    for other in (pickle.loads(pickle.dumps(dynamics)), dynamics.checked()):
        assert other.breaks.tolist() == [-2, 1, 2, 5]
    solution = solve(dynamics, [0.0], [1.0], (0.0, 4.0), stops=[3.0])
    assert {1.0, 2.0, 3.0} <= set(solution.t) and solution.u_T[0] == pytest.approx(3.0, abs=1e-12)
    with pytest.raises(ValueError, match=r"breaks must be finite, but entry 1 is nan"):
        Dynamics(module_f, nothing, breaks=[1.0, np.nan])
    with pytest.raises(TypeError, match="breaks must hold real numbers"):
        Dynamics(module_f, nothing, breaks="noon")


def test_another_table_is_another_callback():
    def model_of(table):
        def f(t, u, theta, du):
            du[0] = table(t)

        return f

    prints = [fingerprint(model_of(Table([0.0, 1.0], values, outside="hold"))) for values in ([1.0, 1.0], [1.0, 1.0], [2.0, 2.0])]
    assert prints[0] == prints[1] != prints[2]
    ends = [solve(Dynamics(model_of(Table([0.0, 1.0], [a, a])), nothing), [0.0], [], (0.0, 1.0)).u_T[0] for a in (1.0, 2.0)]
    np.testing.assert_allclose(ends, [1.0, 2.0], rtol=1e-13)


def test_a_name_that_stands_for_another_table(monkeypatch):
    before = solve(Dynamics(direct, nothing), [0.0], [], (0.0, 2.0)).u_T[0]
    monkeypatch.setitem(globals(), "DOSE", OTHER)
    after = solve(Dynamics(direct, nothing), [0.0], [], (0.0, 2.0)).u_T[0]
    np.testing.assert_allclose([before, after], [3.0, 0.75 + 1.5 * 3.5], rtol=1e-13)
