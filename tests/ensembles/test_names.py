"""Ensembles of dynamics that declare names: inputs with names have a row for each trajectory, or one for all."""

from concurrent.futures import ProcessPoolExecutor

import numba
import numpy as np
import pytest

from adjode import Dynamics, ensemble_value_and_gradient, solve_ensemble
from adjode.losses import FinalState, Series
from tests.problems.named import PARAMETERS, STATES, predators_f, predators_vjp

SPAN, N = (0.0, 1.0), 3
RNG = np.random.default_rng(1)
U0, THETA = RNG.uniform(0.5, 1.5, (N, 2)), RNG.uniform(0.5, 1.5, (N, 3))
NAMED_U0, NAMED_THETA = {"predators": U0[:, 1], "prey": U0[:, 0]}, {"death": THETA[:, 2], "rates": THETA[:, :2]}


@numba.njit
def squares(k, t, u, u_bar):
    u_bar.prey, u_bar.predators = 2.0 * u.prey, 0.0
    return u.prey**2


DYNAMICS = Dynamics(predators_f, predators_vjp, states=STATES, parameters=PARAMETERS)


class Frame:
    """As much of a pandas DataFrame as is read here."""

    def __init__(self, named):
        self.named, self.columns = named, list(named)

    def __getitem__(self, label):
        return self.named[label]

    def to_dict(self):
        raise AssertionError


def records(named, kinds):
    rows = np.zeros(N, dtype=[(name, float, kinds[name]) for name in named])
    for name, values in named.items():
        rows[name] = values
    return rows


@pytest.mark.parametrize(
    ("u0", "theta"),
    [
        (NAMED_U0, NAMED_THETA),
        (Frame(NAMED_U0), NAMED_THETA),
        (records(NAMED_U0, {"prey": (), "predators": ()}), records(NAMED_THETA, PARAMETERS)),
    ],
    ids=["dicts", "frame", "records"],
)
def test_names_are_matched(u0, theta):
    evaluate = ensemble_value_and_gradient(DYNAMICS, FinalState([1.0, 0.5]), SPAN)
    (value, bar), (wanted, wanted_bar) = evaluate(u0, theta), evaluate(U0, THETA)
    np.testing.assert_array_equal(value, wanted)
    np.testing.assert_array_equal(bar.u0["predators"], wanted_bar.u0[:, 1])
    np.testing.assert_array_equal(bar.theta["rates"], wanted_bar.theta[:, :2])
    shared = evaluate(u0, {"death": 0.7, "rates": [0.9, 0.5]})[1]
    assert shared.theta["rates"].shape == (2,) and shared.theta["death"].shape == ()
    ensemble = solve_ensemble(DYNAMICS, u0, theta, SPAN)
    np.testing.assert_array_equal(ensemble.u_T["prey"], solve_ensemble(DYNAMICS, U0, THETA, SPAN).u_T[:, 0])
    assert ensemble[1].u_T["prey"] == ensemble.u_T["prey"][1]


BAD = [
    ({"prey": U0[:, 0]}, "u0 lacks 'predators': its entries must be"),
    (
        {"prey": U0[:, 0], "predators": 1.0},
        r"or all of them with the same leading axis .* but it has 'prey' the shape \(3,\), 'predators' the shape \(\)",
    ),
    ({"prey": U0, "predators": U0}, "u0 must have entries of the declared shapes"),
    (np.ones((N, 3)), "u0 must have 2 entries, but it has 3"),
]


@pytest.mark.parametrize(("u0", "message"), BAD, ids=range(len(BAD)))
def test_other_shapes(u0, message):
    with pytest.raises(ValueError, match=message):
        solve_ensemble(DYNAMICS, u0, THETA, SPAN)


def test_text_and_masks():
    for values, kind in ((np.array(["a"] * N), TypeError), (np.ma.masked_equal(U0[:, 0], U0[0, 0]), ValueError)):
        with pytest.raises(kind, match=r"u0\['prey'\] must"):
            solve_ensemble(DYNAMICS, {"prey": values, "predators": U0[:, 1]}, THETA, SPAN)


@pytest.mark.jitted
def test_a_series_with_fields_on_an_executor():
    loss = Series([0.5, 1.0], squares)
    value, bar = ensemble_value_and_gradient(DYNAMICS, loss, SPAN)(NAMED_U0, THETA)
    with ProcessPoolExecutor(1) as executor:
        there, bar_there = ensemble_value_and_gradient(DYNAMICS, loss, SPAN, executor=executor, chunks=1)(NAMED_U0, THETA)
    np.testing.assert_array_equal(there, value)
    np.testing.assert_array_equal(bar_there.theta, bar.theta)
