"""Tables by themselves: SciPy's numbers in Python and compiled, what is refused, what is a break, derivatives by the source."""

import pickle

import numba
import numpy as np
import pytest
from scipy import interpolate

from adjode import Dynamics, Table, check_vjp, derive

RNG = np.random.default_rng(0)
TIMES, VALUES = np.sort(RNG.uniform(0.0, 10.0, 12)), RNG.normal(size=12)
THERE = np.concatenate([TIMES, RNG.uniform(TIMES[0], TIMES[-1], 200)])
SCIPY = {
    "previous": lambda t, v: interpolate.interp1d(t, v, "previous"),
    "linear": interpolate.interp1d,
    "cubic": interpolate.CubicSpline,
    "akima": interpolate.Akima1DInterpolator,
}
by_kind = pytest.mark.parametrize("kind", SCIPY)
by_linear_kind = pytest.mark.parametrize("kind", ["previous", "linear", "cubic"])
ROUNDING = {"rtol": 0, "atol": 1e-13}


@by_kind
@pytest.mark.parametrize("size", [3, 4, 12])
def test_the_numbers_are_scipys(kind, size):
    table, expected = Table(TIMES[:size], VALUES[:size], kind), SCIPY[kind](TIMES[:size], VALUES[:size])
    there = THERE[THERE <= TIMES[size - 1]]
    np.testing.assert_allclose(table(there), expected(there), **ROUNDING)
    np.testing.assert_allclose(table(np.tile(there, (2, 1))), np.tile(expected(there), (2, 1)), **ROUNDING)
    assert table(float(there[0])) == pytest.approx(float(expected(there[0])), abs=1e-13) and np.ndim(table(float(there[0]))) == 0


@by_linear_kind
@pytest.mark.parametrize("outside", ["raise", "hold"])
def test_values_may_come_with_the_call(kind, outside):
    table, expected = Table(TIMES, kind=kind, outside=outside), SCIPY[kind](TIMES, VALUES)
    np.testing.assert_allclose(table(THERE, VALUES), expected(THERE), **ROUNDING)


CLOSED = np.append(VALUES[:-1], VALUES[0])
FAR = RNG.uniform(-40.0, 60.0, 200)
FOLDED = TIMES[0] + (FAR - TIMES[0]) % (TIMES[-1] - TIMES[0])


@by_kind
def test_periodic_ones_begin_again(kind):
    scipys = {"cubic": lambda t, v: interpolate.CubicSpline(t, v, bc_type="periodic")}.get(kind, SCIPY[kind])(TIMES, CLOSED)
    table = Table(TIMES, CLOSED, kind, outside="periodic")
    np.testing.assert_allclose(table(FAR), scipys(FOLDED), rtol=0, atol=1e-12)
    assert table.period == TIMES[-1] - TIMES[0] and repr(table).endswith("periodic)")
    if kind != "akima":
        np.testing.assert_allclose(Table(TIMES, kind=kind, outside="periodic")(FAR, VALUES[:-1]), table(FAR), rtol=0, atol=1e-12)


@by_kind
@pytest.mark.parametrize("outside", ["raise", "hold", "periodic"])
def test_columns_are_tables_of_their_own(kind, outside):
    values = RNG.normal(size=(12, 3))
    values[-1] = values[0]
    table, alone = Table(TIMES, values, kind, outside=outside), [Table(TIMES, one, kind, outside=outside) for one in values.T]
    for j in range(3):
        np.testing.assert_array_equal(table(THERE, j), alone[j](THERE))
    np.testing.assert_array_equal(table.breaks, np.unique(np.concatenate([one.breaks for one in alone])))
    again = pickle.loads(pickle.dumps(table))
    assert repr(again) == repr(table) and ", 3 columns" in repr(table) and again(3.0, 2) == table(3.0, 2)


def test_a_long_spline_leaves_out_values_far_away():
    times = np.cumsum(RNG.uniform(0.2, 1.0, 300))
    values, there = RNG.normal(size=300), RNG.uniform(times[0], times[-1], 500)
    table, expected = Table(times, kind="cubic"), interpolate.CubicSpline(times, values)
    np.testing.assert_allclose(table(there, values), expected(there), **ROUNDING)
    assert dict(zip(table.rule.__code__.co_freevars, table.rule.__closure__, strict=True))["width"].cell_contents < 100


@pytest.mark.jitted
@by_kind
@pytest.mark.parametrize("outside", ["raise", "hold"])
def test_compiled_it_gives_the_same(kind, outside):
    table = Table(TIMES, VALUES, kind, outside=outside)

    @numba.njit
    def along(there):
        return np.array([table(x) for x in there])

    np.testing.assert_allclose(along(THERE), table(THERE), **ROUNDING)


@pytest.mark.jitted
def test_compiled_it_repeats_and_has_columns():
    table = Table(TIMES, np.stack([CLOSED, -CLOSED, CLOSED**2], axis=1), "cubic", outside="periodic")
    of_values = Table(TIMES, outside="periodic")

    @numba.njit
    def along(there, values):
        return np.array([table(x, 0) + of_values(x, values) * table(x, 2) for x in there])

    expected = table(FAR, 0) + of_values(FAR, VALUES[:-1]) * table(FAR, 2)
    np.testing.assert_allclose(along(FAR, VALUES[:-1]), expected, rtol=0, atol=1e-12)

    @numba.njit
    def beyond(j):
        return table(1.0, j)

    with pytest.raises(ValueError, match="with a column that it does not have"):
        beyond(3)


@by_kind
def test_beyond_its_times(kind):
    held, table = Table(TIMES, VALUES, kind, outside="hold"), Table(TIMES, VALUES, kind)
    np.testing.assert_array_equal(held([TIMES[0] - 5.0, TIMES[-1] + 5.0]), VALUES[[0, -1]])
    first, last = TIMES[0], TIMES[-1]
    assert table(np.nextafter(last, 20.0)) == pytest.approx(VALUES[-1], abs=1e-13)  # by rounding it is that end
    assert table(np.nextafter(first, -20.0)) == pytest.approx(VALUES[0], abs=1e-13)
    for x in [first - 1.0] if kind == "previous" else [first - 1.0, last + 1.0]:
        with pytest.raises(ValueError, match=r"is outside its times, .*: give times that reach further, or outside='hold'"):
            table([3.0, x])
    if kind == "previous":
        assert table(last + 5.0) == VALUES[-1]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (([0, 2, 1], [1, 2, 3]), ValueError, r"times must increase, but times\[1\] is 2 and times\[2\] is 1\."),
        (([0, 1, 1], [1, 2, 3]), ValueError, r"times must increase, but times\[1\] is 1 and times\[2\] is 1\."),
        (([0, np.nan, 1], [1, 2, 3]), ValueError, r"times must be finite, but entry 1 is nan\."),
        (([0, 1, 2], [1, np.inf, 3]), ValueError, r"values must be finite, but entry 1 is inf\."),
        (([0, 1], [1, 2, 3]), ValueError, r"values must have one entry for each of the 2 times, but they have 3\."),
        (([0, 1], [[[1], [2]]]), ValueError, r"values must have one dimension, but its shape is \(1, 2, 1\)\."),
        (([0, 1, 2], [[1, 2], [3, 4]]), ValueError, r"values must have one entry for each of the 3 times, but they have 2\."),
        (([0, 1], [[], []]), ValueError, r"values must have a column or more, but their shape is \(2, 0\)\."),
        (([], []), ValueError, r"kind='linear' needs 2 times or more, but 0 are given\."),
        (([0], [1]), ValueError, r"kind='linear' needs 2 times or more, but 1 is given\."),
        (([0, 1], [1, 2], "akima"), ValueError, r"kind='akima' needs 3 times or more, but 2 are given\."),
        (([0, 1, 2], None, "akima"), ValueError, r"kind='akima' is not linear in its values, .*: give them, or use 'cubic'\."),
        (([0, 1], [1, 2], "quintic"), ValueError, r"kind must be one of .*, but 'quintic' was given\."),
        ((["a", "b"], [1, 2]), TypeError, r"times must hold real numbers, but its dtype is <U1\."),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        Table(*given)


def test_a_spline_that_repeats_needs_equal_ends():
    with pytest.raises(ValueError, match=r"kind='cubic' with outside='periodic' needs the same value at both ends\."):
        Table(TIMES, VALUES, "cubic", outside="periodic")


def test_a_table_is_called_as_it_was_made():
    columns = Table(TIMES, np.stack([VALUES, VALUES], axis=1))
    for given in (None, 1.0):
        with pytest.raises(TypeError, match=r"a Table of 2 columns is called as table\(t, column\), with a number from 0 to 1"):
            columns(1.0, given)
    with pytest.raises(ValueError, match="a Table of 2 columns is called with column 2: they are counted from 0"):
        columns(1.0, 2)
    with pytest.raises(ValueError, match=r"of 12 times takes 11 values, but is called with values of shape \(12,\)"):
        Table(TIMES, outside="periodic")(1.0, VALUES)
    with pytest.raises(TypeError, match="with values is called with others"):
        Table(TIMES, VALUES)(1.0, VALUES)
    with pytest.raises(TypeError, match="without values is called without them"):
        Table(TIMES)(1.0)
    with pytest.raises(ValueError, match=r"of 12 times is called with values of shape \(3,\)"):
        Table(TIMES)(1.0, VALUES[:3])
    with pytest.raises(ValueError, match="outside must be one of"):
        Table(TIMES, VALUES, outside="repeat")


def test_it_does_not_change():
    given = VALUES.copy()
    table = Table(TIMES, given, "cubic", outside="hold")
    given[:] = 0.0
    assert table(TIMES[3]) == VALUES[3]
    with pytest.raises(ValueError, match="read-only"):
        table.values[0] = 1.0
    again = pickle.loads(pickle.dumps(table))
    np.testing.assert_array_equal(again(THERE), table(THERE))
    assert repr(again) == repr(table) == "Table(12 times, 0.027385 .. 9.35072, kind='cubic')" and again.outside == "hold"
    assert repr(Table([0, 1])) == "Table(2 times, 0 .. 1, kind='linear', without values)"


# --- breaks -----------------------------------------------------------------------------------------------------------------------


def test_breaks_are_where_it_jumps_or_its_slope():
    times = np.arange(7.0)
    assert Table(times, [0, 0, 3, 3, 3, 0, 0], "previous").breaks.tolist() == [2, 5]
    assert Table(times, [0, 0, 3, 6, 9, 9, 9], "linear").breaks.tolist() == [1, 4]
    assert Table(times, 0.1 * times + 0.3, "linear").breaks.tolist() == []  # but for rounding
    assert Table(times, [2] + [0] * 6, "linear", outside="hold").breaks.tolist() == [0, 1]
    assert Table(times, kind="linear").breaks.tolist() == [1, 2, 3, 4, 5]
    assert Table(times, kind="linear", outside="hold").breaks.tolist() == times.tolist()
    assert Table(times, kind="previous").breaks.tolist() == [1, 2, 3, 4, 5, 6]
    assert Table(times, [0, 0, 3, 3, 3, 0, 0], "previous", outside="periodic").breaks.tolist() == [2, 5]
    assert Table(times, [1, 0, 3, 3, 3, 0, 0], "previous", outside="periodic").breaks.tolist() == [1, 2, 5, 6]
    assert Table(times, times, outside="periodic").breaks.tolist() == [6]


@pytest.mark.parametrize("kind", ["cubic", "akima"])
def test_breaks_of_a_spline_leave_out_what_is_smooth(kind):
    times = np.linspace(0.0, 100.0, 1001)
    smooth, rough = (Table(times, values, kind) for values in (np.sin(0.2 * times), RNG.normal(size=1001)))
    assert rough.breaks.size > 980
    gaps = np.diff(np.searchsorted(times, [times[0], *smooth.breaks, times[-1]]))
    assert gaps.max() <= 16 and (kind == "akima" or gaps.min() > 5)
    assert Table(times, np.full(1001, 3.0), kind).breaks.size == 0


def test_breaks_of_a_spline_do_not_depend_on_what_happens_elsewhere():
    times, values = np.arange(200.0), np.full(200, 1000.0)
    values[50:52], values[150:152] = 9000.0, 1000.1
    breaks = Table(times, values, "akima").breaks
    assert {49.0, 52.0, 149.0, 152.0} <= set(breaks) and 100.0 not in breaks
    assert set(range(146, 156)) <= set(Table(times, values, "cubic").breaks)


# --- derivatives ------------------------------------------------------------------------------------------------------------------


def model_of(table, of_values):
    """An f that calls the table with time and with what depends on states and parameters."""
    if of_values:

        def f(t, u, theta, du):
            du[0] = table(u[0] * t, theta[1:13]) - theta[0] * u[1]
            du[1] = table(t, theta[1:]) ** 2
    else:

        def f(t, u, theta, du):
            du[0] = table(u[0]) * theta[0] - theta[1] * u[1]
            du[1] = table(u[1] * theta[2]) + table(t)

    return f


@by_kind
@pytest.mark.parametrize("of_values", [False, True])
def test_derivatives(kind, of_values):
    if of_values and kind == "akima":
        return
    table = Table(TIMES, None if of_values else VALUES, kind, outside="hold")
    f, theta = model_of(table, of_values), RNG.uniform(0.5, 1.5, 13)
    derived, u, t = derive(f), np.array([2.3, 3.1]), 1.7
    x, out, h = np.concatenate([u, theta]), np.zeros(2), 1e-6

    def at(t, x):
        du = np.zeros(2)
        f(t, x[:2], x[2:], du)
        return du

    J = np.stack([(at(t, x + h * e) - at(t, x - h * e)) / (2 * h) for e in np.eye(15)], axis=1)
    lam, u_bar, theta_bar = np.array([0.7, -1.3]), np.empty(2), np.empty(13)
    derived.vjp(t, u, theta, lam, u_bar, theta_bar)
    np.testing.assert_allclose([*u_bar, *theta_bar], J.T @ lam, atol=1e-8)
    tangent = RNG.normal(size=15)
    derived.jvp(t, u, theta, tangent[:2], tangent[2:], out)
    assert lam @ out == pytest.approx(np.concatenate([u_bar, theta_bar]) @ tangent, rel=1e-13)
    derived.df_dt(t, u, theta, out)
    np.testing.assert_allclose(out, (at(t + h, x) - at(t - h, x)) / (2 * h), atol=1e-8)
    second = np.empty(2), np.empty(13)
    derived.vjp_dot(t, u, theta, lam, tangent[:2], tangent[2:], np.zeros(2), *second)
    sides = [np.empty(2), np.empty(13)], [np.empty(2), np.empty(13)]
    for sign, side in zip((1, -1), sides, strict=True):
        moved = x + sign * h * tangent
        derived.vjp(t, moved[:2], moved[2:], lam, *side)
    np.testing.assert_allclose(np.concatenate(second), (np.concatenate(sides[0]) - np.concatenate(sides[1])) / (2 * h), atol=1e-7)


@by_linear_kind
def test_derivatives_of_columns_and_of_what_repeats(kind):
    table = Table(TIMES, np.stack([CLOSED, CLOSED**2], axis=1), kind, outside="periodic")
    of_values = Table(TIMES, kind=kind, outside="periodic")

    def f(t, u, theta, du):
        for j in range(2):
            du[j] = table(7.0 * u[j], j) * theta[0] + of_values(t - 20.0 * u[j], theta[1:])

    derived, x, t = derive(f), np.concatenate([[2.3, 3.1], RNG.uniform(0.5, 1.5, 12)]), 1.7

    def at(x):
        du = np.zeros(2)
        f(t, x[:2], x[2:], du)
        return du

    J = np.stack([(at(x + 1e-6 * e) - at(x - 1e-6 * e)) / 2e-6 for e in np.eye(14)], axis=1)
    lam, u_bar, theta_bar = np.array([0.7, -1.3]), np.empty(2), np.empty(12)
    derived.vjp(t, x[:2], x[2:], lam, u_bar, theta_bar)
    np.testing.assert_allclose([*u_bar, *theta_bar], J.T @ lam, atol=1e-7)


def test_check_vjp_takes_tables_of_states():
    curve = Table([0.0, 1.0, 2.5, 4.0], [0.0, 1.0, 5.0, 6.0], "cubic", outside="hold")

    def f(t, u, theta, du):
        du[0] = -theta[0] * curve(u[0])

    check_vjp(Dynamics(f), [1.3], [0.8]).raise_if_wrong()


def test_the_pattern_of_the_jacobian_holds_what_a_table_reads():
    table = Table([0.0, 1.0, 2.0], kind="linear")

    def f(t, u, theta, du):
        du[0] = table(t, u[1:4])
        du[1] = table(u[3], theta)
        du[2] = 0.0
        du[3] = u[2]

    rows, columns = derive(f).sparsity(4, 3)
    found = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert found - {(0, 0)} == {(0, 1), (0, 2), (0, 3), (1, 3), (3, 2)}  # which entry is read is not known
