"""Products with Hessians, and the same by differences of gradients."""

import itertools

import numpy as np

from adjode import hessian_vector_product, value_and_gradient


def flat(u, theta):
    return np.concatenate([np.ravel(u), np.ravel(theta)])


def by_differences(dynamics, loss, span, u0, theta, along, **options):
    """The product by extrapolated central differences of gradients by the discrete adjoint."""
    evaluate = value_and_gradient(dynamics, loss, span, adjoint="discrete", on_inaccurate="warn", **options)

    def gradient(step):
        bar = evaluate(u0 + step * along[0], theta + step * along[1])[1]
        return flat(bar.u0, bar.theta)

    h = 1e-3
    quotients = [(gradient(h * part) - gradient(-h * part)) / (2 * h * part) for part in (1.0, 0.5, 0.25)]
    once = [(4 * b - a) / 3 for a, b in itertools.pairwise(quotients)]
    return (16 * once[1] - once[0]) / 15


def product_of(dynamics, loss, span, u0, theta, along, **options):
    found = hessian_vector_product(dynamics, loss, span, **options)(u0, theta, *along)
    return flat(found.u0_dot, found.theta_dot), found


def assert_product(dynamics, loss, span, u0, theta, along, within=1e-8, **options):
    given, found = product_of(dynamics, loss, span, u0, theta, along, **options)
    expected = by_differences(dynamics, loss, span, u0, theta, along, **options)
    np.testing.assert_allclose(given, expected, rtol=0, atol=within * np.abs(expected).max())
    return found
