"""The tableaus: order conditions, and that the self-check notices wrong digits."""

from dataclasses import replace

import numpy as np
import pytest

from adjode.tableaus import METHODS, tableau
from adjode.tableaus.order_conditions import density, order_defect, trees, vertices
from adjode.tableaus.rodas5p import RosenbrockTableau

METHOD_NAMES = [name for name in METHODS if name != "RK23" and not isinstance(tableau(name), RosenbrockTableau)]


def test_number_of_rooted_trees():
    assert [len(trees(p)) for p in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]


def test_density_of_the_tall_and_the_bushy_tree():
    assert density(((((),),),)) == 24 and vertices(((((),),),)) == 4
    assert density(((), (), ())) == 4


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_order_is_exactly_as_stated(name):
    t = tableau(name)
    b = t.A[t.stages]
    assert order_defect(t.A, b, t.order) < 1e-13
    assert order_defect(t.A, b, t.order + 1) > 1e-6


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_dense_output_order_is_exactly_as_stated(name):
    t = tableau(name)
    padded = np.hstack([t.P, np.zeros((len(t.P), 1))])
    assert order_defect(t.A, padded, t.dense_order, padded.shape[1]) < 1e-14 * np.abs(t.P).sum(axis=0).max()
    assert order_defect(t.A, padded, t.dense_order + 1, padded.shape[1]) > 1e-6


@pytest.mark.parametrize("name", [name for name in METHOD_NAMES if tableau(name).adaptive])
def test_embedded_orders(name):
    t = tableau(name)
    for e, order in zip(t.E, t.embedded_orders, strict=True):
        assert order_defect(t.A, t.A[t.stages] - e, order) < 1e-13
        assert order_defect(t.A, t.A[t.stages] - e, order + 1) > 1e-6


def test_orders_of_a_rosenbrock_method_are_exactly_as_stated():
    t = tableau("Rodas5P")
    alpha, beta, Gamma = t.without_sums()
    b, E, P = t.A[9, 1:9] @ Gamma, t.E[0, 1:9] @ Gamma, Gamma.T @ t.P[1:9]
    padded = np.hstack([P, np.zeros((8, 1))])
    for weights, order, powers in ((b, 5, 0), (b - E, 4, 0), (padded, 4, 5)):
        assert order_defect(alpha, weights, order, powers, beta) < 1e-12
        assert order_defect(alpha, weights, order + 1, powers, beta) > 1e-6
    for field, index in (("A", (4, 2)), ("C", (5, 3)), ("P", (3, 2)), ("E", (0, 7)), ("slopes", 3), ("gamma", None)):
        array = np.array(getattr(t, field))
        array[... if index is None else index] += 1e-6
        with pytest.raises(ValueError, match="fails its own checks"):
            replace(t, **{field: float(array) if index is None else array})


@pytest.mark.parametrize("field", ["A", "P", "E", "c"])
def test_a_wrong_digit_is_noticed(field):
    t = tableau("RK45")
    array = getattr(t, field).copy()
    index = (0, 2) if field == "E" else (3, 1) if array.ndim == 2 else (3,)
    array[index] += 1e-9
    with pytest.raises(ValueError, match="fails its own checks"):
        replace(t, **{field: array})


def test_dense_output_about_the_middle():
    t = tableau("Vern9")
    x = np.linspace(0.0, 1.0, 9)
    about = x[:, None] * (x[:, None] - 0.5) ** np.arange(9)
    powers = x[:, None] ** np.arange(1, 10)
    np.testing.assert_allclose(powers @ t.P.T, about @ t.middle.T, rtol=0, atol=1e-10)
    assert np.abs(t.middle * 0.5 ** np.arange(9)).max() < 1e-2 * np.abs(t.P).max()
    wrong = t.middle.copy()
    wrong[24, 3] += 1e-9
    with pytest.raises(ValueError, match="order conditions of the dense output"):
        replace(t, middle=wrong)
    with pytest.raises(ValueError, match="dense output about the middle"):
        replace(t, P=t.P + 1e-8)


def test_arrays_are_frozen():
    with pytest.raises(ValueError, match="read-only"):
        tableau("Tsit5").A[1, 0] = 1.0


def test_names_follow_scipy():
    assert tableau("RK23").name == "BS3"


def test_unknown_method():
    with pytest.raises(ValueError, match=r"method 'Tsit6' is unknown; choose one of Tsit5, RK45"):
        tableau("Tsit6")


def test_coefficients_agree_with_scipy():
    from scipy.integrate import RK23, RK45

    for name, theirs, times in (("RK45", RK45, 1.0), ("BS3", RK23, 2.0)):
        ours = tableau(name)
        s = ours.stages
        np.testing.assert_allclose(ours.A[:s, :s][:, : theirs.A.shape[1]], theirs.A, atol=1e-16)
        np.testing.assert_allclose(ours.A[s, :s], theirs.B, atol=1e-16)
        np.testing.assert_allclose(ours.E[0], times * theirs.E, atol=1e-16)
        np.testing.assert_allclose(ours.P, theirs.P, atol=1e-14)
