"""Named states and parameters: the same form comes back."""

import numpy as np
import pytest

from adjode import solve
from adjode.model.layout import Layout
from tests.problems.systems import LV_SPAN, LV_THETA, LV_U0, lotka_volterra

U0 = {"prey": 1.0, "predator": 1.0}
THETA = {"growth": 1.5, "contact": np.array([1.0, 3.0, 1.0])}


def test_dicts_come_back():
    flat = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    named = solve(lotka_volterra(), U0, THETA, LV_SPAN)
    wanted = flat.pullback([1.0, 2.0])
    for u_T_bar in ({"prey": 1.0, "predator": 2.0}, {"predator": 2.0, "prey": 1.0}, [1.0, 2.0]):
        bar = named.pullback(u_T_bar)
        assert list(bar.u0) == ["prey", "predator"] and list(bar.theta) == ["growth", "contact"]
        assert (bar.u0["prey"], bar.u0["predator"]) == tuple(wanted.u0)
        assert bar.theta["growth"] == wanted.theta[0]
        np.testing.assert_array_equal(bar.theta["contact"], wanted.theta[1:])
    assert named.u_T["predator"] == flat.u_T[1]
    np.testing.assert_array_equal(named.u, flat.u)


def test_structured_scalars_come_back():
    dtype = np.dtype([("growth", "f8"), ("contact", "f4", (3,))])
    theta = np.array((1.5, [1.0, 3.0, 1.0]), dtype=dtype)
    u0 = np.array((1.0, 1.0), dtype=[("prey", "f8"), ("predator", "f8")])[()]
    wanted = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN).pullback([1.0, 2.0])
    solution = solve(lotka_volterra(), u0, theta, LV_SPAN)
    u_T_bar = np.array((1.0, 2.0), dtype=u0.dtype)[()]
    bar = solution.pullback(u_T_bar)
    assert (bar.u0["prey"], bar.u0["predator"]) == tuple(wanted.u0)
    assert bar.theta.dtype.names == ("growth", "contact") and bar.theta["growth"] == wanted.theta[0]
    np.testing.assert_array_equal(bar.theta["contact"], wanted.theta[1:])


def test_round_trip_and_names():
    example = {"a": 1.0, "b": np.arange(6.0).reshape(2, 3), "c": np.zeros(0)}
    layout = Layout("theta", example)
    flat = layout.flatten("theta", example)
    np.testing.assert_array_equal(flat, [1.0, 0, 1, 2, 3, 4, 5])
    back = layout.unflatten(flat)
    assert back["a"] == 1.0 and np.ndim(back["a"]) == 0 and back["c"].shape == (0,)
    np.testing.assert_array_equal(back["b"], example["b"])
    assert layout.entry_names()[:3] == ["theta['a']", "theta['b'][0, 0]", "theta['b'][0, 1]"]
    assert Layout("u0", [1.0, 2.0]).entry_names() == ["u0[0]", "u0[1]"]
    assert Layout("theta", {}).size == 0


def test_failures_name_the_entry():
    with pytest.raises(RuntimeError, match=r"u\['prey'\]"):
        solve(lotka_volterra(), {"prey": 1e300, "predator": 1e300}, THETA, LV_SPAN)


BAD = [
    (
        {"prey": 1.0},
        {"prey": 1.0, "predator": 1.0},
        ValueError,
        r"x must have the entries \['prey', 'predator'\], but it has \['prey'\]",
    ),
    ({"prey": [1.0]}, {"prey": 1.0}, ValueError, r"x\['prey'\] must have shape \(\), but its shape is \(1,\)"),
    ({"prey": np.nan}, {"prey": 1.0}, ValueError, r"x\['prey'\] must be finite"),
    ([1.0, 2.0], {"prey": 1.0}, ValueError, r"x must have 1 entries, but it has 2"),
    ({"prey": 1.0}, [1.0], TypeError, r"x must be a flat vector like u0, but a dict was given"),
]


@pytest.mark.parametrize(("value", "example", "kind", "message"), BAD, ids=range(len(BAD)))
def test_bad_values(value, example, kind, message):
    with pytest.raises(kind, match=message):
        Layout("u0", example).flatten("x", value)


def test_bad_structures():
    with pytest.raises(ValueError, match="one structured scalar"):
        Layout("u0", np.zeros(3, dtype=[("a", "f8")]))
    with pytest.raises(TypeError, match="field 'a' has fields of its own"):
        Layout("u0", np.zeros((), dtype=[("a", [("b", "f8")])]))
    with pytest.raises(TypeError, match="field 'a' has dtype"):
        Layout("u0", np.zeros((), dtype=[("a", "U3")]))
    with pytest.raises(ValueError, match=r"must have the fields"):
        Layout("u0", np.zeros((), dtype=[("a", "f8")])).flatten("x", np.zeros((), dtype=[("b", "f8")]))


def test_a_dict_in_another_order_is_another_layout():
    layout = Layout("u0", U0)
    assert layout == Layout("u0", {"prey": 5.0, "predator": 0.0}) and hash(layout) == hash(Layout("u0", dict(U0)))
    assert layout != Layout("u0", {"predator": 1.0, "prey": 1.0})
    assert layout != Layout("theta", U0) and layout != Layout("u0", [1.0, 1.0])
