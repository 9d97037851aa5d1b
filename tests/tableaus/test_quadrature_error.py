"""Weights that tell how well a rule integrates what its stages have seen."""

import numpy as np
import pytest

from adjode.tableaus import tableau

EXPLICIT = ("RK45", "Tsit5", "DOP853", "Vern7", "Vern9")
METHODS = (*EXPLICIT, "Radau", "Kvaerno5")


def parts(method, integrand):
    t = tableau(method)
    return t.A[t.stages] * integrand(t.c)


@pytest.mark.parametrize("method", METHODS)
def test_constants_are_annihilated_and_something_is_not(method):
    found = tableau(method).quadrature_error
    for weights in found.weights:
        assert abs(weights @ parts(method, np.ones_like)) < 1e-12
        assert abs(weights @ parts(method, lambda c: np.cos(5.0 * c))) > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_errors_of_smooth_integrands_within_a_factor(method):
    t = tableau(method)
    found, b = t.quadrature_error, t.A[t.stages]
    factors = []
    for y in np.linspace(1.0, 6.0, 21):
        values = parts(method, lambda c, y=y: np.exp(1j * y * c))
        error = abs(values.sum() - (np.exp(1j * y) - 1.0) / (1j * y))
        ratio = abs(found.weights[0] @ values) / np.abs(b[found.weights[0] != 0.0]).sum()
        factors.append(found.factor * ratio ** (found.halves / 2) / error)
    assert 0.3 < np.median(factors) < 3.0 and max(factors) < 300.0 and min(factors) > 0.003


@pytest.mark.parametrize("method", METHODS)
def test_slopes_from_states(method):
    t = tableau(method)
    needed = (t.quadrature_error.weights != 0.0).any(axis=0)
    slopes = np.random.default_rng(1).normal(size=(3, 2))
    k = np.vander(t.c, 3) @ slopes  # parabolas, which a first slope is extrapolated by
    states = 7.0 + t.A @ k
    states[0] = 7.0
    np.testing.assert_allclose((t.quadrature_error.slopes @ (states - states[0]))[needed], k[needed], atol=1e-9)


@pytest.mark.parametrize("method", ["Euler", "Midpoint", "BS3", "TRBDF2"])
def test_methods_with_too_few_stages_take_samples(method):
    t = tableau(method)
    found, factors = t.quadrature_error, []
    assert found.sampled and (np.flatnonzero(found.weights.any(axis=0)) == t.stages).all() and not found.slopes.any()
    for y in np.linspace(0.5, 3.0, 11):
        error = abs(parts(method, lambda c, y=y: np.exp(1j * y * c)).sum() - (np.exp(1j * y) - 1.0) / (1j * y))
        ratio = abs(np.exp(1j * y) - 2.0 + np.exp(-1j * y))
        factors.append(found.factor * ratio ** (found.halves / 2) / error)
    assert 0.3 < np.median(factors) < 3.0 and max(factors) < 10.0 and min(factors) > 0.1


def test_a_method_whose_stages_tell_nothing():
    found = tableau("Rodas5P").quadrature_error
    assert found.halves == 0 and not found.weights.any() and not found.slopes.any() and not found.sampled
