"""Copies of what has been used: the numbers of the original, on buffers of their own, in this process and in another."""

import copy
import pickle

import cloudpickle
import numpy as np
import pytest

from adjode import (
    Dynamics,
    Experiment,
    Fit,
    Parameter,
    ensemble_value_and_gradient,
    hessian_vector_product,
    residuals_and_jacobian,
    solve,
    solve_ensemble,
    value_and_gradient,
)
from adjode.losses import FinalState, LeastSquares
from benchmarks.problems import lv_f, lv_vjp
from tests.problems.systems import LV_THETA, LV_U0, lotka_volterra, lv_vjp_u
from tests.processes import said_elsewhere

pytestmark = pytest.mark.jitted
ADJOINTS = ("discrete", "interpolating")
SPAN, OTHER = (0.0, 2.0), 1.1 * LV_THETA
MANY = LV_U0 * np.array([[1.0], [1.2], [0.7]])
LOSS = LeastSquares([0.5, 2.0], np.ones((2, 2)))


def gradient(evaluate):
    """At another place than it has been used at, which a shared buffer would show."""
    return [part.tobytes() for value, bar in [evaluate(LV_U0, OTHER)] for part in (np.array(value), bar.u0, bar.theta)]


def ensemble_gradient(evaluate):
    return [part.tobytes() for value, bar in [evaluate(MANY[::-1], OTHER)] for part in (value, bar.u0, bar.theta)]


def fit(made):
    value, slope = made.value_and_gradient(made.x0 + 0.1)
    return [float(value).hex(), slope.tobytes()]


def second_order(product):
    found = product(LV_U0, OTHER, np.ones(2), OTHER)
    return [np.asarray(part).tobytes() for part in (found.value, found.u0, found.theta, found.u0_dot, found.theta_dot)]


def jacobian(residuals):
    return [part.tobytes() for part in residuals(LV_U0, OTHER)]


def solution(solved):
    bar = solved.pullback([1.0, 0.5])
    return [solved(np.linspace(*SPAN, 5)).tobytes(), bar.u0.tobytes(), bar.theta.tobytes()]


def ensemble_solution(solved):
    bar = solved.pullback(np.ones((3, 2)))
    return [solved.u_T.tobytes(), bar.u0.tobytes(), bar.theta.tobytes(), solved[1].u.tobytes()]


def made(dynamics, adjoint):
    """Used objects, and what they say: {name: (object, function)}."""
    options = {"adjoint": adjoint}
    one = value_and_gradient(dynamics, LOSS, SPAN, **options)
    many = ensemble_value_and_gradient(dynamics, FinalState([1.0, 0.5]), SPAN, workers=1, **options)
    fitted = Fit(dynamics, LOSS, SPAN, u0=LV_U0, theta=LV_THETA, **options)
    one(LV_U0, LV_THETA), many(MANY, LV_THETA), fitted.value_and_gradient(fitted.x0)
    return {"ValueAndGradient": (one, gradient), "EnsembleValueAndGradient": (many, ensemble_gradient), "Fit": (fitted, fit)}


@pytest.fixture(scope="module")
def used():
    dynamics = lotka_volterra()
    objects = {f"{name}, {adjoint}": pair for adjoint in ADJOINTS for name, pair in made(dynamics, adjoint).items()}
    objects |= {
        f"{name}, fused": pair for name, pair in made(Dynamics(lv_f, lv_vjp, vjp_u=lv_vjp_u, fused=True), "discrete").items()
    }
    product = hessian_vector_product(Dynamics(lv_f), LOSS, SPAN)
    residuals = residuals_and_jacobian(dynamics, LOSS, SPAN)
    experiments = [Experiment(dynamics, LOSS, SPAN, u0=[prey, 1.0], theta=LV_THETA) for prey in ("prey", 1.5)]
    together = Fit(experiments, parameters={"prey": Parameter(1.0)})
    second_order(product), jacobian(residuals), together.value_and_gradient(together.x0)
    objects |= {"Hessian": (product, second_order), "Residuals": (residuals, jacobian), "Experiments": (together, fit)}
    objects["Solution"] = solve(dynamics, LV_U0, LV_THETA, SPAN), solution
    objects["EnsembleSolution"] = solve_ensemble(dynamics, MANY, LV_THETA, SPAN, workers=1), ensemble_solution
    return objects


NAMES = [
    *(f"{name}, {kind}" for kind in (*ADJOINTS, "fused") for name in ("ValueAndGradient", "EnsembleValueAndGradient", "Fit")),
    "Hessian",
    "Residuals",
    "Experiments",
    "Solution",
    "EnsembleSolution",
]
WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "cloudpickle": lambda thing: pickle.loads(cloudpickle.dumps(thing)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_gives_the_same_numbers_and_leaves_the_original_its_own(used, name, way):
    original, say = used[name]
    expected, other = say(original), WAYS[way](original)
    assert other is not original
    assert say(other) == expected
    assert say(original) == expected


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_the_buffers_of_a_copy_are_its_own(adjoint):
    original = value_and_gradient(lotka_volterra(), LOSS, SPAN, adjoint=adjoint)
    original(LV_U0, LV_THETA)
    other = copy.deepcopy(original)
    other(LV_U0, LV_THETA)
    (mine,), (theirs,) = ([w for pool in each._idle.values() for w in pool] for each in (original, other))
    for name in ("u0", "theta"):
        assert not np.shares_memory(getattr(mine, name), getattr(theirs, name))
    assert not np.shares_memory(mine.forward.trajectory.t, theirs.forward.trajectory.t)
    assert not np.shares_memory(mine.backward.lam, theirs.backward.lam)


def test_arrays_of_a_deep_copy_of_a_solution_are_its_own():
    original = solve(lotka_volterra(), LV_U0, LV_THETA, SPAN)
    before, other = solution(original), copy.deepcopy(original)
    other.u[:] = 7.0
    other.theta[:] = 7.0
    assert solution(original) == before


def test_another_process_gives_the_same_numbers(used, tmp_path):
    expected = {name: say(thing) for name, (thing, say) in used.items()}
    assert said_elsewhere(used, tmp_path) == expected
