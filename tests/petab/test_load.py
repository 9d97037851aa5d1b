"""The two problems in examples/petab, whose likelihoods are calculated here once more, by SciPy and without SBML."""

import csv
import functools
import math
import shutil

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from adjode import SolveError
from adjode.petab import load
from tests import ROOT

FOLDER = ROOT / "examples" / "petab"
TIGHT = {"rtol": 1e-10, "atol": 1e-13}


@functools.cache
def problem(name):
    return load(FOLDER / f"{name}.yaml", **TIGHT)


def measurements(name):
    with open(FOLDER / f"{name}_measurements.tsv") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def normal(residual, sigma):
    return -0.5 * (residual / sigma) ** 2 - math.log(sigma * math.sqrt(2.0 * math.pi))


# --- receptor: conditions, a steady state before, replicates, noise that depends on states, data at t = inf -----------------
P = {"k_on": 0.8, "k_off": 0.6, "k_syn": 1.5, "k_deg": 0.4, "K": 1.2, "scale_a": 2.0, "scale_b": 3.0, "sd_A": 0.1, "sd_F": 0.15}
CONDITIONS = {"rest": (0.0, 0.0, 5.0), "low": (0.5, 1.0, 5.0), "high": (2.0, 0.5, 5.0), "fresh": (1.0, 0.0, 3.0)}


def receptor(t, u, ligand):
    R, A, F = u
    activated = P["k_on"] * (0.05 + ligand) * R
    relaxed = P["k_off"] * A * (1.0 + F / 2.0)
    expressed = P["k_syn"] * A**2 / (P["K"] ** 2 + A**2)
    return [relaxed - activated, activated - relaxed, 4.0 * expressed - P["k_deg"] * F]


def receptor_at(condition, before, t):
    ligand, t_add, total = CONDITIONS[condition]
    u, options = np.array([total - 0.25, 0.25, 0.0]), {"method": "LSODA", "rtol": 1e-11, "atol": 1e-13}
    if before:
        u = solve_ivp(receptor, (0.0, 200.0), u, args=(0.0,), **options).y[:, -1]
    for start, end, there in ((0.0, min(t, t_add), 0.0), (t_add, t, ligand)):
        if end > start:
            u = solve_ivp(receptor, (start, end), u, args=(there,), **options).y[:, -1]
    return u


def receptor_log_likelihood():
    total = 0.0
    for row in measurements("receptor"):
        t, d = min(float(row["time"]), 200.0), float(row["measurement"])
        R, A, F = receptor_at(row["simulationConditionId"], row["preequilibrationConditionId"], t)
        if row["observableId"] == "active":
            y, sigma = P[row["observableParameters"]] * A, row["noiseParameters"]
            total += normal(d - y, P.get(sigma, 0.2) + 0.05 * y)
        elif row["observableId"] == "feedback":
            y = F / 2.0 + 0.1
            total += normal(math.log10(d / y), P["sd_F"]) - math.log(d * math.log(10.0))
        else:
            total -= abs(d - A / (A + R)) / 0.02 + math.log(0.04)
    return total


def test_the_log_likelihood_of_receptor():
    assert problem("receptor").log_likelihood() == pytest.approx(receptor_log_likelihood(), rel=1e-8)


def test_priors_are_part_of_the_loss():
    fit, log10_k_off = problem("receptor"), math.log10(0.6)
    priors = normal(log10_k_off + 0.2, 0.5) + normal(0.4 - 0.5, 0.3) - 0.2 / 0.5 - math.log(1.0)
    assert fit.evaluate(fit.x0)[0] == pytest.approx(-fit.log_likelihood() - priors, rel=1e-12)


def test_names_scales_and_bounds_are_those_of_the_file():
    fit = problem("receptor")
    assert fit.names == list(P)
    assert fit.x0[[0, 3, 4]] == pytest.approx([math.log10(0.8), math.log(0.4), 1.2])
    assert fit.bounds[0] == pytest.approx((-3.0, 3.0)) and fit.bounds[4] == (0.1, 10.0)
    assert fit.experiments.names == ["rest -> low", "rest -> high", "fresh", "fresh at rest"]


# --- dosing: events by time and state, a rate rule, what an initial assignment gives a parameter, a lag that is estimated ----
DOSING = {"k_a": 1.1, "k_e": 0.5, "lag": 1.3, "drift": 0.1, "sd": 0.1}


def dosing(t, u, on):
    G, B, enzyme, _ = u
    inflow = 2.0 * math.exp(-(t - DOSING["lag"])) if on else 0.0
    blood = (DOSING["k_a"] * G + inflow) / 4.0 - DOSING["k_e"] * enzyme * max(B, 0.0)
    return [-DOSING["k_a"] * G, blood, DOSING["drift"] * (2.0 - enzyme), 0.0]


def falls(t, u, on):
    return u[1] - 0.6


falls.terminal, falls.direction = True, -1


def dosing_log_likelihood():
    total = 0.0
    for condition, given in (("half", 4.0), ("whole", 8.0)):
        rows = [row for row in measurements("dosing") if row["simulationConditionId"] == condition]
        t, u, seen = 0.0, np.array([given, 0.0, 1.1, given / 2.0]), {}
        for end in sorted({float(row["time"]) for row in rows} | {DOSING["lag"], 3.0}):
            while t < end:
                part = solve_ivp(
                    dosing, (t, end), u, args=(t >= DOSING["lag"],), events=falls, method="DOP853", rtol=1e-11, atol=1e-12
                )
                t, u = part.t[-1], part.y[:, -1].copy()
                u[1] *= 0.5 if part.status == 1 else 1.0
            if end == 3.0:
                u[0], u[3] = u[0] + u[3], u[3] / 2.0
            seen[end] = u.copy()
        for row in rows:
            G, B, enzyme, _ = seen[float(row["time"])]
            y, sigma = (B, 0.1) if row["observableId"] == "concentration" else (math.log(G + 1.0), 0.1 * math.hypot(1.0, enzyme))
            total += normal(float(row["measurement"]) - y, sigma)
    return total


def test_the_log_likelihood_of_dosing():
    assert problem("dosing").log_likelihood() == pytest.approx(dosing_log_likelihood(), rel=1e-8)


# --- gradients ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["receptor", "dosing"])
def test_gradients_against_differences(name):
    fit, h = problem(name), 1e-4
    x = fit.x0 + 0.01
    _, gradient = fit.evaluate(x)
    for k in range(x.size):
        ahead = [fit.evaluate(x + s * h * np.eye(x.size)[k])[0] for s in (-2, -1, 1, 2)]
        expected = (ahead[0] - 8.0 * ahead[1] + 8.0 * ahead[2] - ahead[3]) / (12.0 * h)
        assert gradient[k] == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.abs(gradient).max()), fit.names[k]


def test_a_fit_lowers_the_loss_and_speaks_the_names_of_the_file():
    fit = load(FOLDER / "dosing.yaml")
    result = fit.minimize()
    assert result.success and result.fun < fit.evaluate(fit.x0)[0] - 1.0
    assert set(result.parameters) == {"k_a", "k_e", "lag", "sd", "full"}


def test_a_parameter_may_be_called_like_the_placeholder_of_another_observable(tmp_path):
    for path in FOLDER.glob("receptor*"):
        shutil.copy(path, tmp_path)
    for file, old, new in (
        ("receptor_observables.tsv", "\t0.02\t", "\tnoiseParameter1_other\t"),
        ("receptor_parameters.tsv", "sd_F\t", "noiseParameter1_other\tlin\t0.001\t1\t0.02\t1\t\t\nsd_F\t"),
    ):
        text = (tmp_path / file).read_text()
        assert old in text
        (tmp_path / file).write_text(text.replace(old, new))
    fit = load(tmp_path / "receptor.yaml", **TIGHT)
    assert "noiseParameter1_other" in fit.names
    assert fit.log_likelihood() == pytest.approx(problem("receptor").log_likelihood(), rel=1e-10)


def test_failures_name_the_condition():
    fit = load(FOLDER / "dosing.yaml", max_steps=3)
    with pytest.raises(SolveError, match="in 'half'"):
        fit.evaluate(fit.x0)


def test_the_source_is_python_that_can_be_read():
    source = problem("receptor").source
    assert "activate = 2.0 * k_on * (0.05 + L) * R" in source
    assert "L = ligand if time >= t_add else 0.0" in source
    assert "du[2] = 2.0 * express - degrade" in source


def test_noise_of_known_size_has_residuals(tmp_path):
    for path in FOLDER.glob("dosing*"):
        shutil.copy(path, tmp_path)
    for file, old, new in (("observables", "sd * sqrt(1 + enzyme^2)", "2 * sd"), ("parameters", "0.1\t1\nfull", "0.1\t0\nfull")):
        path = tmp_path / f"dosing_{file}.tsv"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    fit = load(tmp_path / "dosing.yaml")
    (r, J), (_, gradient) = fit.evaluate_residuals(fit.x0), fit.evaluate(fit.x0)
    assert r.size == 28
    np.testing.assert_allclose(J.T @ r, gradient, rtol=0.0, atol=1e-6 * np.abs(gradient).max())
