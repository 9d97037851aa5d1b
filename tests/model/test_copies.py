"""Copies of what users bring give the numbers of the original, in this process and in another, and share nothing that changes."""

import copy
import pickle

import cloudpickle
import numba
import numpy as np
import pytest
from scipy import sparse

from adjode import Dynamics, losses, solve, value_and_gradient
from adjode.jacobian import structure_of
from benchmarks.problems import lv_f, lv_vjp
from tests.problems.systems import LV_THETA, LV_U0, lv_vjp_u
from tests.processes import said_elsewhere

SPAN = (0.0, 2.0)
T_OBS = np.array([1.5, 0.5, 1.5])
Y_OBS = np.array([[1.0, 0.5], [np.nan, 2.0], [0.7, 0.9]])


def closure():
    """Functions that only cloudpickle can send."""
    rate = 0.5

    @numba.njit
    def helper(x):
        return rate * x

    def f(t, u, theta):
        return -helper(theta[:2] * u)

    def vjp(t, u, theta, lam):
        theta_bar = np.zeros(theta.size)
        theta_bar[:2] = -helper(u * lam)
        return -helper(theta[:2] * lam), theta_bar

    return f, vjp


def quartic(k, t, u, u_bar):
    u_bar[0], u_bar[1] = 4.0 * (k + 1) * u[0] ** 3, t
    return (k + 1) * u[0] ** 4 + t * u[1]


def local_series():
    weight = 0.25

    @numba.njit
    def half(k, t, u, u_bar):
        u_bar[:] = 2.0 * weight * u
        return weight * (u * u).sum()

    return losses.Series(T_OBS, half)


def fields():
    rate = 0.5

    def f(t, u, theta, du):
        du.prey, du.predators = -rate * theta.death * u.prey, theta.rates[1] * u.predators

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        theta_bar[:] = 0.0
        u_bar.prey, u_bar.predators = -rate * theta.death * lam.prey, theta.rates[1] * lam.predators
        theta_bar.death, theta_bar.rates[1] = -rate * u.prey * lam.prey, u.predators * lam.predators

    return Dynamics(f, vjp, states=("prey", "predators"), parameters=(("rates", 3), "death"))


DYNAMICS = {
    "fields": fields,
    "plain": lambda: Dynamics(lv_f, lv_vjp, vjp_u=lv_vjp_u),
    "jitted": lambda: Dynamics(numba.njit(lv_f), numba.njit(lv_vjp), name="jitted"),
    "closure": lambda: Dynamics(*closure()),
    "debug": lambda: Dynamics(lv_f, lv_vjp, debug=True),
    "fused": lambda: Dynamics(lv_f, lv_vjp, vjp_u=lv_vjp_u, fused=True),
}
LOSSES = {
    "final": lambda: losses.FinalState([1.0, 2.0]),
    "squares": lambda: losses.LeastSquares(T_OBS, Y_OBS, sigma=0.3),
    "logarithms": lambda: losses.LeastSquares(T_OBS, Y_OBS[:, ::-1], sigma=0.3, components=[1, 0], log=True),
    "series": lambda: losses.Series(T_OBS, quartic),
    "jitted series": lambda: losses.Series(T_OBS, numba.njit(quartic)),
    "local series": local_series,
}
OBJECTS = DYNAMICS | LOSSES


def results(thing):
    """All numbers that an object of the tables gives."""
    if isinstance(thing, Dynamics):
        solution = solve(thing, LV_U0, LV_THETA, SPAN)
        bar = solution.pullback([1.0, 0.5], adjoint="discrete", wrt=("u0", "theta"))
        return repr(thing), solution.u.tobytes(), bar.u0.tobytes(), bar.theta.tobytes()
    evaluate = value_and_gradient(Dynamics(lv_f, lv_vjp), thing, SPAN)
    short, long = evaluate(LV_U0, LV_THETA), evaluate.step_by_step(LV_U0, LV_THETA)
    return [(float(value).hex(), bar.u0.tobytes(), bar.theta.tobytes()) for value, bar in (short, long)]


@pytest.fixture(scope="module")
def originals():
    made = {name: make() for name, make in OBJECTS.items()}
    return {name: (thing, results(thing)) for name, thing in made.items()}


@pytest.fixture(scope="module")
def elsewhere(originals, tmp_path_factory):
    """The results of all objects in another process, which has them by cloudpickle."""
    return said_elsewhere({name: (thing, results) for name, (thing, _) in originals.items()}, tmp_path_factory.mktemp("copies"))


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("way", ["copy", "deepcopy", "pickle", "cloudpickle"])
def test_copies_give_the_same_numbers(originals, name, way):
    original, expected = originals[name]
    if way == "pickle" and name in ("closure", "fields", "local series"):
        pytest.skip("pickle does not take functions that were made in another")
    module = {"pickle": pickle, "cloudpickle": cloudpickle}.get(way)
    other = getattr(copy, way)(original) if module is None else pickle.loads(module.dumps(original))
    assert other is not original
    assert results(other) == expected


@pytest.mark.parametrize("name", OBJECTS)
def test_another_process_gives_the_same_numbers(originals, elsewhere, name):
    assert elsewhere[name] == originals[name][1]


def test_a_copy_has_the_arrays_that_the_original_has_read():
    """Not those that the user has changed since."""
    mass, pattern = sparse.csr_array([[2.0, 1.0], [0.0, 1.0]]), np.array([[1, 1], [0, 1]])
    dynamics = Dynamics(lv_f, lv_vjp, mass=mass, jac_sparsity=pattern)
    mass.data[:], pattern[1, 0] = 7.0, 1
    for other in (dynamics, copy.deepcopy(dynamics), pickle.loads(pickle.dumps(dynamics))):
        np.testing.assert_array_equal(other.mass.matrix.toarray(), [[2.0, 1.0], [0.0, 1.0]])
        np.testing.assert_array_equal(other.sparsity.toarray(), [[True, True], [False, True]])
    components = np.array([1, 0])
    loss = losses.LeastSquares(T_OBS, Y_OBS, components=components)
    components[:] = 5
    np.testing.assert_array_equal(copy.deepcopy(loss).components, [1, 0])


def test_what_a_loss_returns_is_not_its_own():
    solution = solve(Dynamics(lv_f, lv_vjp), LV_U0, LV_THETA, SPAN)
    for name, make in LOSSES.items():
        loss = make()
        before, (_, seeds) = results(loss), loss.value_and_cotangents(solution)
        for array in [seeds["u_T_bar"]] if "u_T_bar" in seeds else seeds["observations"]:
            array[:] = 0.25
        assert results(loss) == before, name


def test_a_callback_is_one_thing(originals):
    callback = originals["plain"][0].f
    assert copy.copy(callback) is callback and copy.deepcopy([callback])[0] is callback
    assert pickle.loads(pickle.dumps(callback)) is callback  # in the process where it is compiled


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps, cloudpickle.dumps], ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", LOSSES)
def test_a_prepared_loss_cannot_be_copied(name, copied):
    with pytest.raises(TypeError, match="a prepared loss holds the addresses of its buffers: copy the loss"):
        copied(LOSSES[name]().prepare(2, SPAN[1]))


def test_copies_find_structures_for_themselves():
    dynamics = Dynamics(lv_f, lv_vjp, jac_sparsity="probe")
    place = 0.0, LV_U0, LV_THETA
    found = structure_of(dynamics, "auto", *place)
    for other in (copy.copy(dynamics), copy.deepcopy(dynamics)):
        assert structure_of(other, "auto", *place) is not found
    assert structure_of(dynamics, "auto", *place) is found
