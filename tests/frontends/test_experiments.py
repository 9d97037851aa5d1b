"""Fits of many experiments: what they share, what they are made of, and that their sums are those of single fits."""

import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import adjode
from adjode import Dynamics, Experiment, Experiments, Fit, Parameter, SolveError, SteadyState, priors
from adjode.losses import Gaussian, LeastSquares, Likelihood

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
TIMES, SPAN = np.linspace(0.5, 8.0, 8), (0.0, 8.0)


def drug(t, u, theta, du):
    du.gut = -theta.absorption * u.gut
    du.blood = theta.absorption * u.gut - theta.elimination * u.blood + theta.inflow


DRUG = Dynamics(drug, states=("gut", "blood"), parameters=("absorption", "elimination", "inflow", "sigma"))


def start(p, theta):
    return np.array([p.dose, p.level / theta.elimination])


def start_in_place(theta, u):
    u[0] = 2.0
    u[1] = theta.inflow / theta.elimination


def twice(p):
    return 2.0 * p.elimination


def squared(p):
    return p.level**2


def data(k):
    return np.abs(np.random.default_rng(k).normal(1.0, 0.3, size=(TIMES.size, 2)))


def theta(**changed):
    return {"absorption": "absorption", "elimination": "elimination", "inflow": 0.05, "sigma": "sigma"} | changed


def experiments():
    losses = [Likelihood(TIMES, data(k), Gaussian("sigma")) for k in range(4)]
    return Experiments(
        [
            Experiment(DRUG, losses[0], SPAN, u0={"gut": "dose", "blood": 0.1}, theta=theta(), name="one"),
            Experiment(DRUG, losses[1], SPAN, u0=start, theta=theta(elimination=twice), name="two"),
            Experiment(DRUG, losses[2], SPAN, u0=start_in_place, theta=theta(inflow=squared)),
            Experiment(
                DRUG,
                losses[3],
                SPAN,
                u0=[1.0, "level"],
                theta=theta(inflow="level"),
                start=SteadyState(theta={"inflow": "before"}, then={"gut": "dose"}),
                name="rested",
            ),
        ]
    )


PARAMETERS = {
    "absorption": Parameter(0.9, (0.01, 10.0), "log10", prior=priors.Normal(0.0, 0.5, scaled=True)),
    "elimination": Parameter(0.4, scale="log", prior=priors.LogNormal(-1.0, 0.3)),
    "dose": Parameter(1.6, prior=priors.Laplace(1.5, 0.2)),
    "level": Parameter(0.3, (0.0, 1.0), prior=priors.Uniform(0.0, 1.0)),
    "before": Parameter(0.2),
    "sigma": Parameter(0.4, scale="log"),
}


@pytest.fixture(scope="module")
def fit():
    return Fit(experiments(), parameters=PARAMETERS, **TIGHT)


def test_gradient_against_differences(fit):
    x, step = fit.x0 + 0.01, 1e-3
    value, gradient = fit.evaluate(x)

    def at(x):
        return fit.evaluate(x)[0]

    expected = [(8 * (at(x + e) - at(x - e)) - at(x + 2 * e) + at(x - 2 * e)) / (12 * step) for e in step * np.eye(x.size)]
    np.testing.assert_allclose(gradient, expected, rtol=0.0, atol=1e-8 * np.abs(gradient).max())


def test_value_is_the_sum_of_all(fit):
    p = {name: one.start for name, one in PARAMETERS.items()}
    same = {"absorption": p["absorption"], "sigma": p["sigma"]}
    rest = adjode.steady_state(DRUG, [1.0, p["level"]], [p["absorption"], p["elimination"], p["before"], p["sigma"]]).u
    cases = [
        ([p["dose"], 0.1], same | {"elimination": p["elimination"], "inflow": 0.05}),
        ([p["dose"], p["level"] / (2 * p["elimination"])], same | {"elimination": 2 * p["elimination"], "inflow": 0.05}),
        ([2.0, p["level"] ** 2 / p["elimination"]], same | {"elimination": p["elimination"], "inflow": p["level"] ** 2}),
        ([p["dose"], rest[1]], same | {"elimination": p["elimination"], "inflow": p["level"]}),
    ]
    total = sum(
        adjode.value_and_gradient(DRUG, Likelihood(TIMES, data(k), Gaussian("sigma")), SPAN, **TIGHT)(u0, theta)[0]
        for k, (u0, theta) in enumerate(cases)
    )
    total += 0.5 * (math.log10(0.9) / 0.5) ** 2 + math.log(0.5 * math.sqrt(2 * math.pi))
    total += 0.5 * ((math.log(0.4) + 1.0) / 0.3) ** 2 + math.log(0.4 * 0.3 * math.sqrt(2 * math.pi))
    total += 0.1 / 0.2 + math.log(0.4)
    np.testing.assert_allclose(fit.evaluate(fit.x0)[0], total, rtol=1e-11)


def test_the_same_bits_for_any_number_of_threads_and_on_an_executor(fit):
    expected = fit.evaluate(fit.x0)
    with ThreadPoolExecutor(2) as executor:
        for how in ({"workers": 1}, {"workers": 3}, {"executor": executor}):
            other = Fit(experiments(), parameters=PARAMETERS, **TIGHT, **how)
            for _ in range(2):  # the first compiles, one after the other
                value, gradient = other.evaluate(fit.x0)
                assert value == expected[0]
                np.testing.assert_array_equal(gradient, expected[1])
    copied = pickle.loads(pickle.dumps(fit)).evaluate(fit.x0)
    np.testing.assert_array_equal(copied[1], expected[1])


def test_one_experiment_is_the_fit_of_one_loss():
    loss, names = LeastSquares(TIMES, data(0)), {"absorption": 0.9, "elimination": 0.4, "inflow": 0.05, "sigma": 1.0}
    single = Fit(DRUG, loss, SPAN, u0=[1.6, 0.1], theta=names, free={"u0": [0], "theta": ["elimination"]}, log=("theta",), **TIGHT)
    given = Experiment(DRUG, loss, SPAN, u0=["dose", 0.1], theta=names | {"elimination": "rate"})
    shared = Fit(given, parameters={"dose": Parameter(1.6), "rate": Parameter(0.4, scale="log")}, **TIGHT)
    assert shared.evaluate(shared.x0)[0] == single.evaluate(single.x0)[0]
    np.testing.assert_array_equal(shared.evaluate(shared.x0)[1], single.evaluate(single.x0)[1])
    for one, other in zip(shared.evaluate_residuals(shared.x0), single.evaluate_residuals(single.x0), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(shared.least_squares().x, single.least_squares().x, rtol=1e-6)


def one(**changed):
    given = {"loss": LeastSquares(TIMES, data(0)), "t_span": SPAN, "u0": ["dose", 0.0], "theta": [1.0, 0.5, 0.0, 1.0]}
    return Experiment(DRUG, **given | changed)


def of_squares(**options):
    ones = [
        Experiment(
            DRUG, LeastSquares(TIMES, data(k), sigma=0.3), SPAN, u0=["dose", 0.1], theta=theta(elimination=f"rate {k}", sigma=1.0)
        )
        for k in range(2)
    ]
    free = {"absorption": Parameter(0.9, (0.1, 5.0), "log10", prior=priors.Normal(0.1, 0.2, scaled=True)), "dose": Parameter(1.5)}
    return Fit(ones, parameters=free | {f"rate {k}": Parameter(0.3, (0.01, 3.0), "log") for k in range(2)}, **TIGHT, **options)


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
def test_least_squares_uncertainty_and_profiles():
    fit = of_squares(on_inaccurate="warn")  # so that the same steps are those of both
    r, J = fit.evaluate_residuals(fit.x0)
    value, gradient = fit.evaluate(fit.x0)
    np.testing.assert_allclose(J.T @ r, gradient, rtol=0.0, atol=1e-11 * np.abs(gradient).max())
    assert r.size == 2 * 16 + 1  # with that of the prior
    np.testing.assert_allclose(value - 0.5 * r @ r, math.log(0.2 * math.sqrt(2 * math.pi)), rtol=1e-9)
    result = fit.least_squares()
    assert set(result.parameters) == {"absorption", "dose", "rate 0", "rate 1"}
    np.testing.assert_allclose(math.log10(result.parameters["absorption"]), result.x[0], rtol=1e-12)
    found = fit.uncertainty(absolute_sigma=True)
    np.testing.assert_allclose(found.values, list(result.parameters.values()), rtol=1e-12)
    J = fit.evaluate_residuals(result.x)[1]
    of_x = np.linalg.inv(J.T @ J)
    np.testing.assert_allclose(found.covariance_of_x, of_x, rtol=1e-8)
    np.testing.assert_allclose(found.standard_errors[0], found.values[0] * math.log(10.0) * math.sqrt(of_x[0, 0]), rtol=1e-8)
    low, high = found.intervals()[0]
    np.testing.assert_allclose(low * high, found.values[0] ** 2, rtol=1e-10)
    profile = fit.profile("rate 0", absolute_sigma=True)
    assert profile.intervals["rate 0"][0] < result.parameters["rate 0"] < profile.intervals["rate 0"][1]
    band = fit.predict([1.0, 2.0], experiment="experiment 2")
    assert band.u.shape == (2, 2) and (band.standard_errors > 0.0).all()
    with pytest.raises(ValueError, match="say of which experiment, by its name: 'experiment 1', 'experiment 2'"):
        fit.predict([1.0])
    np.testing.assert_allclose(fit.minimize(tol=1e-12).x, result.x, atol=1e-4)


def test_many_starts_and_verdicts():
    fit = of_squares()
    bounded = {name: replace(one, bounds=(0.05, 3.0)) for name, one in fit.parameters.items()}
    fit = Fit(list(fit.experiments), parameters=bounded, **TIGHT)
    result = fit.fit(starts=3, seed=1, workers=2)
    assert result.method == "trf" and len(result.starts) == 3
    best = result.starts.values[int(np.argmin(result.starts.losses))]
    np.testing.assert_allclose(best, list(result.parameters.values()), rtol=1e-12)
    verdicts = fit.identifiability(absolute_sigma=True).verdicts
    assert list(verdicts) == fit.names and "structurally not" not in verdicts.values()


def gradient_differences(fit, x, p, step=1e-4):
    return (fit.evaluate(x + step * p)[1] - fit.evaluate(x - step * p)[1]) / (2.0 * step)


def test_products_with_the_hessian():
    fit, rng = of_squares(), np.random.default_rng(3)
    p = rng.normal(size=fit.x0.size)
    wanted = gradient_differences(fit, fit.x0, p)
    np.testing.assert_allclose(fit.hessp(fit.x0, p), wanted, rtol=0.0, atol=1e-5 * np.abs(wanted).max())
    H = fit.hessian(fit.x0)
    np.testing.assert_allclose(H @ p, fit.hessp(fit.x0, p), rtol=0.0, atol=1e-10 * np.abs(wanted).max())


def test_the_hessian_of_likelihoods_with_functions_of_parameters():
    """Of the mesh, which is held fixed: symmetric to rounding, and what differences of gradients tend to."""
    given = {name: one for name, one in PARAMETERS.items() if name != "before"}
    fit = Fit(list(experiments())[:3], parameters=given, step=0.1)
    x = fit.x0 + 0.01
    H = np.array([fit.hessp(x, e) for e in np.eye(x.size)])
    np.testing.assert_allclose(H, H.T, rtol=0.0, atol=1e-10 * np.abs(H).max())
    wanted = [gradient_differences(fit, x, e) for e in np.eye(x.size)]
    np.testing.assert_allclose(H, wanted, rtol=0.0, atol=1e-6 * np.abs(H).max())


def test_a_state_of_rest_has_no_second_derivatives(fit):
    with pytest.raises(TypeError, match="in 'rested': there are no second derivatives of a steady state"):
        fit.hessian(fit.x0)


def test_a_steady_state_alone():
    """Data of a state of rest are those at the start of a span of zero length."""
    loss = Likelihood([0.0], {"blood": [0.4]}, Gaussian(0.1))
    given = Experiment(DRUG, loss, (0.0, 0.0), u0=[0.0, 0.0], theta=theta(inflow="inflow", sigma=1.0), start="steady_state")
    free = {"absorption": 1.0, "elimination": Parameter(0.5), "inflow": Parameter(0.3)}
    value, gradient = (fit := Fit(given, parameters=free)).evaluate(fit.x0)
    np.testing.assert_allclose(value, 0.5 * 2.0**2 + math.log(0.1 * math.sqrt(2 * math.pi)), rtol=1e-12)
    np.testing.assert_allclose(gradient, [20.0 * -0.3 / 0.25, 20.0 / 0.5], rtol=1e-10)


def test_failures_tell_the_experiment():
    fit = Fit(experiments(), parameters=PARAMETERS | {"elimination": Parameter(-900.0)})
    with pytest.raises(SolveError, match="^in 'one': "):
        fit.evaluate(fit.x0)
    given = one(u0=[0.0, 1.0], theta=theta(sigma=1.0), start="steady_state")
    fit = Fit(given, parameters={"absorption": 1.0, "elimination": Parameter(-0.1)}, max_steps=2000)
    with pytest.raises(SolveError, match="^in 'experiment 1': drug does not come to rest"):
        fit.evaluate(fit.x0)


def two_arguments(p, q, out):
    out[0] = p[0] * q[0]


FREE = {"dose": Parameter(1.0)}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Fit([one()], parameters={"dos": Parameter(1.0)}),
            ValueError,
            r"u0\['gut'\] is the parameter 'dose', which",
        ),
        (lambda: Fit([one()], parameters=FREE | {"rate": Parameter(1.0)}), ValueError, "no experiment uses the parameter 'rate'"),
        (lambda: Fit([one()], parameters={"dose": 1.0}), ValueError, "no free parameter"),
        (
            lambda: Fit([one()], parameters={"dose": "1.0"}),
            TypeError,
            "the parameter 'dose' must be an adjode.Parameter, or a number",
        ),
        (lambda: one(loss=LeastSquares([1.0, 2.0], [[np.nan, np.nan]] * 2), name="a"), ValueError, "^'a' has no data, or they are"),
        (lambda: one(loss=LeastSquares([], np.zeros((0, 2)))), ValueError, "^an experiment has no data"),
        (lambda: Fit([one()], parameters=FREE).evaluate([1.0, 2.0]), ValueError, r"x must have 1 entries, .* shape is \(2,\)"),
        (lambda: Fit([one()], parameters=FREE).evaluate([np.nan]), SolveError, "dose is nan"),
        (lambda: Fit([one()]), TypeError, "a fit of experiments needs parameters"),
        (lambda: Fit([one()], parameters=FREE, log=("theta",)), ValueError, "log: each experiment has its own"),
        (lambda: Fit([one(), 3], parameters=FREE), TypeError, "a int is among them"),
        (lambda: Fit([], parameters=FREE), ValueError, "there are no experiments"),
        (lambda: Fit([one(name="a"), one(name="a")], parameters=FREE), ValueError, "more than one is called 'a'"),
        (
            lambda: Fit([one(u0=two_arguments)], parameters=FREE),
            TypeError,
            "must be a function whose arguments are called p or theta",
        ),
        (lambda: Fit([one(u0=["dose", [1.0, 2.0]])], parameters=FREE), (TypeError, ValueError), "u0"),
        (lambda: Fit([one(start="rest")], parameters=FREE), ValueError, "start must be one of"),
        (lambda: Fit([one(start=SteadyState(theta={"x": 1.0}))], parameters=FREE), ValueError, "names entries, but that of the"),
        (lambda: Fit([one(start=SteadyState(then={"liver": 1.0}))], parameters=FREE), ValueError, "then sets the state 'liver'"),
        (
            lambda: Fit([one(t_span=(0.0, 4.0))], parameters=FREE).evaluate(np.ones(1)),
            ValueError,
            "in 'experiment 1': t_obs",
        ),
        (lambda: Fit([one()], parameters={"dose": Parameter(-1.0, scale="log")}), ValueError, "dose must start positive"),
        (lambda: Fit([one()], parameters={"dose": Parameter(1.0, (2.0, 3.0))}), ValueError, "dose must start within its bounds"),
        (lambda: Parameter(1.0, scale="ln"), ValueError, "scale must be one of 'lin', 'log', 'log10'"),
        (lambda: Parameter(1.0, prior=3.0), TypeError, "prior must be one of adjode.priors"),
        (lambda: priors.Normal(0.0, 0.0), ValueError, "the width of a prior must be positive"),
        (lambda: priors.Uniform(1.0, 1.0), ValueError, "must be above 1.0"),
        (
            lambda: Fit(DRUG, LeastSquares([1.0], [1.0]), SPAN, u0=[1.0], theta=[1.0], workers=2),
            ValueError,
            "belong to a fit of",
        ),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_laplace_priors_are_no_squares():
    fit = Fit([one()], parameters={"dose": Parameter(1.0, prior=priors.Laplace(1.0, 1.0))})
    with pytest.raises(ValueError, match="a Laplace prior is not a sum of squares"):
        fit.evaluate_residuals(fit.x0)
