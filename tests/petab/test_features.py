"""What the examples do not use: log-likelihoods and priors of small problems beside an independent integration, by SciPy."""

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from adjode.petab import load
from tests.petab.writer import sbml, write

P = {"k_on": 0.7, "k_off": 0.4, "k_loss": 0.3, "dose": 2.5, "start": 1.4, "volume": 3.0, "scale": 1.6, "sd": 0.15, "t_on": 1.5}
PRIOR = ["objectivePriorType", "objectivePriorParameters"]
PARAMETERS = [
    ["parameterId", "parameterScale", "lowerBound", "upperBound", "nominalValue", "estimate", *PRIOR],
    ["k_on", "log10", 1e-3, 1e3, 0.7, 1, "parameterScaleLaplace", "-0.1;0.4"],
    ["k_off", "lin", 1e-3, 1e3, 0.4, 1, "logNormal", "-1;0.5"],
    ["k_loss", "log", 1e-3, 1e3, 0.3, 1, "logLaplace", "-1;0.3"],
    ["dose", "log10", 1e-3, 1e3, 2.5, 1, "parameterScaleUniform", "-3;3"],
    ["start", "lin", 1e-3, 1e3, 1.4, 1, "laplace", "1;0.5"],
    ["volume", "log10", 1e-3, 1e3, 3.0, 1, "uniform", "1;4"],
    ["scale", "lin", 1e-3, 1e3, 1.6, 1, "normal", "1.5;0.2"],
    ["sd", "lin", 1e-3, 1e3, 0.15, 1, "", ""],
    ["t_on", "lin", 1e-3, 1e3, 1.5, 1, "", ""],
]


def model(trigger):
    return sbml(
        compartments={"cell": 2.0, "outside": 5.0},
        species={"L": ("outside", 0.5), "R": ("cell", 1.0), "C": ("cell", 0.0)},
        parameters={"k_on": 1.0, "k_off": 1.0, "k_loss": 1.0, "feed": 0.0, "pulse": None, "t_on": 0.0},
        rules=[("pulse", "piecewise(feed * exp(-time), time > t_on, 0)")],
        events=[(trigger, "L", "1.5 * L + 0.1")],
        reactions=[
            (["R", "L"], ["C"], "cell * k_on * R * L"),
            (["C"], ["R", "L"], "cell * k_off * C"),
            (["L"], [], "outside * k_loss * L"),
            ([], ["L"], "outside * (pulse + 0.1)"),
        ],
    )


CONDITIONS = [
    ["conditionId", "L", "R", "outside", "feed"],
    ["rest", 0.2, "start", "", 0],  # before: outside as in the model
    ["dosed", "dose", "NaN", "volume", 0.8],  # L anew, R as it is
    ["kept", "", "", 4.0, 0],  # nothing anew
    ["fresh", "", "start", 4.0, 0.3],  # L as in the model
]
OBSERVABLES = [
    ["observableId", "observableFormula", "noiseFormula", "observableTransformation", "noiseDistribution"],
    ["bound", "observableParameter1_bound * (C + 0.2) + 0.1 * time", "sd * (1 + time)", "lin", "normal"],
    ["free", "L + 0.1", "noiseParameter1_free", "log", "laplace"],
    ["total", "(R + C) * cell + L * outside", "0.05", "log10", "laplace"],
    ["receptor", "R", "0.07 + 0.1 * R", "log", "normal"],
]
TIMES = (0.0, 1.0, 1.7, 4.0)


def rates(t, u, outside, feed):
    L, R, C = u
    bind = 2.0 * (P["k_on"] * R * L - P["k_off"] * C)
    pulse = feed * math.exp(-t) if t > P["t_on"] else 0.0
    return [pulse + 0.1 - P["k_loss"] * L - bind / outside, -bind / 2.0, bind / 2.0]


def integrated(u, t0, t1, *inputs):
    if t1 == t0:
        return u
    return solve_ivp(rates, (t0, t1), u, method="LSODA", args=inputs, rtol=1e-11, atol=1e-13).y[:, -1]


def states(before, condition):
    """The states at TIMES, and how large the outside is."""
    outside, feed = {"dosed": (P["volume"], 0.8), "kept": (4.0, 0.0), "fresh": (4.0, 0.3)}[condition]
    u = np.array([0.5, P["start"], 0.0])
    if before:
        u = integrated(np.array([0.2, P["start"], 0.0]), 0.0, 1e3, 5.0, 0.0)
    if condition == "dosed":
        u[0] = P["dose"]
    found, t = [], 0.0
    for end in sorted({*TIMES, 1.5, 2.0}):
        u, t = integrated(u, t, end, outside, feed), end
        if end == 2.0:
            u[0] = 1.5 * u[0] + 0.1
        found += [u] * (end in TIMES)
    return found, outside


def rows():
    rng = np.random.default_rng(4)
    for before, condition in (("rest", "dosed"), ("rest", "kept"), ("", "fresh")):
        for t, u in zip(TIMES, states(before, condition)[0], strict=True):
            for observable, value in (("bound", 1.6 * (u[2] + 0.2)), ("free", u[0] + 0.1), ("total", 4.0), ("receptor", u[1])):
                for replicate in range(1 + (observable == "bound")):
                    parameters = ("scale" if condition != "kept" else "1.2", "") if observable == "bound" else ("", "")
                    parameters = ("", "sd" if t < 2.0 else "0.3") if observable == "free" else parameters
                    yield [observable, before, condition, value * math.exp(0.1 * rng.normal()), t, *parameters, f"r{replicate}"]


BEFORE, DURING = "preequilibrationConditionId", "simulationConditionId"
HEAD = ["observableId", BEFORE, DURING, "measurement", "time", "observableParameters", "noiseParameters"]


def log_likelihood():
    total, known = 0.0, {}
    for observable, before, condition, d, t, scale, noise, _ in rows():
        if (before, condition) not in known:
            known[before, condition] = states(before, condition)
        found, outside = known[before, condition]
        L, R, C = found[TIMES.index(t)]
        if observable == "bound":
            y, sigma = (P["scale"] if scale == "scale" else 1.2) * (C + 0.2) + 0.1 * t, P["sd"] * (1.0 + t)
            total -= 0.5 * ((d - y) / sigma) ** 2 + math.log(sigma * math.sqrt(2.0 * math.pi))
        elif observable == "free":
            sigma = P["sd"] if noise == "sd" else 0.3
            total -= abs(math.log(d) - math.log(L + 0.1)) / sigma + math.log(2.0 * sigma * d)
        elif observable == "total":
            y = 2.0 * (R + C) + outside * L
            total -= abs(math.log10(d / y)) / 0.05 + math.log(2.0 * 0.05 * d * math.log(10.0))
        else:
            sigma = 0.07 + 0.1 * R
            total -= 0.5 * (math.log(d / R) / sigma) ** 2 + math.log(sigma * d * math.sqrt(2.0 * math.pi))
    return total


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    measurements = [[*HEAD, "replicateId"], *rows()]
    path = write(tmp_path_factory.mktemp("features"), model("time >= 2"), PARAMETERS, CONDITIONS, OBSERVABLES, measurements)
    return load(path, rtol=1e-10, atol=1e-13)


def test_the_log_likelihood(problem):
    """Species that are set anew behind a steady state or keep what they have, compartments and starts that are parameters, time in
    observables and rules, an event and a switch behind a steady state, replicates, noise on all scales.
    """
    assert problem.experiments.names == ["rest -> dosed", "rest -> kept", "fresh"]
    assert problem.log_likelihood() == pytest.approx(log_likelihood(), rel=1e-7)


def test_priors_of_all_kinds(problem):
    ln, normal = math.log, 0.5 * math.log(2.0 * math.pi)
    expected = abs(math.log10(0.7) + 0.1) / 0.4 + ln(0.8)
    expected += 0.5 * ((ln(0.4) + 1.0) / 0.5) ** 2 + ln(0.5 * 0.4) + normal
    expected += abs(ln(0.3) + 1.0) / 0.3 + ln(0.6 * 0.3)
    expected += ln(6.0) + 0.4 / 0.5 + ln(1.0) + ln(3.0)
    expected += 0.5 * (0.1 / 0.2) ** 2 + ln(0.2) + normal
    assert problem.evaluate(problem.x0)[0] == pytest.approx(expected - problem.log_likelihood(), rel=1e-12)


def test_the_gradient(problem):
    x, h = problem.x0 + 0.013, 1e-4
    gradient = problem.evaluate(x)[1]
    for k, e in enumerate(h * np.eye(x.size)):
        two, one, plus, more = (problem.evaluate(x + s * e)[0] for s in (-2, -1, 1, 2))
        expected = (two - 8.0 * one + 8.0 * plus - more) / (12.0 * h)
        assert gradient[k] == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.abs(gradient).max()), problem.names[k]


def test_what_is_set_anew(problem):
    assert set(problem.scenarios["rest -> dosed"].then) == {"L"}
    assert problem.scenarios["rest -> kept"].then == {} == problem.scenarios["fresh"].then


def test_an_event_that_a_steady_state_may_meet_is_refused(tmp_path):
    measurements = [[*HEAD, "replicateId"], *rows()]
    path = write(tmp_path, model("C >= 0.3"), PARAMETERS, CONDITIONS, OBSERVABLES, measurements)
    with pytest.raises(ValueError, match="rest -> dosed: event e0 depends on states and may happen before the steady state"):
        load(path)
