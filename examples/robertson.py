"""Fit the three rates of Robertson's reactions, which lie nine powers of ten apart, from starts that are wrong by factors.

    A -> B          k1 = 0.04
    B + B -> C + B  k2 = 3e7
    B + C -> A + C  k3 = 1e4

The data are A, B and C at times from 1e-2 to 1e5, with noise of 1 %; B is never more than 4e-5. The problem is
stiff: the steps of an explicit method would not grow beyond a fraction of a thousandth.

    python examples/robertson.py
"""

import numpy as np

import adjode

TRUE = np.array([0.04, 3e7, 1e4])
T_OBS, T_SPAN = np.geomspace(1e-2, 1e5, 40), (0.0, 1e5)
U0 = np.array([1.0, 0.0, 0.0])
OPTIONS = {"method": "Radau", "rtol": 1e-7, "atol": 1e-11}
NOISE = 0.01


def robertson(t, u, theta, du):
    slow, fast, back = theta[0] * u[0], theta[1] * u[1] ** 2, theta[2] * u[1] * u[2]
    du[0] = -slow + back
    du[1] = slow - back - fast
    du[2] = fast


def robertson_vjp(t, u, theta, lam, u_bar, theta_bar):
    a, b = lam[1] - lam[0], lam[2] - lam[1]
    u_bar[0] = theta[0] * a
    u_bar[1] = -theta[2] * u[2] * a + 2 * theta[1] * u[1] * b
    u_bar[2] = -theta[2] * u[1] * a
    theta_bar[0] = u[0] * a
    theta_bar[1] = u[1] ** 2 * b
    theta_bar[2] = -u[1] * u[2] * a


def make_data(dynamics):
    """A, B and C as measured."""
    u = adjode.solve(dynamics, U0, TRUE, T_SPAN, t_eval=T_OBS, **OPTIONS).u_eval
    noise = np.random.default_rng(0).normal(1.0, NOISE, (T_OBS.size, 3))
    return u * noise


def fit_from(dynamics, data, factors):
    """A fit of the logarithms of the rates, from the true ones times these factors."""
    loss = adjode.losses.LeastSquares(T_OBS, data, sigma=NOISE, log=True)
    fit = adjode.Fit(dynamics, loss, T_SPAN, u0=U0, theta=TRUE * factors, free=("theta",), log=("theta",), **OPTIONS)
    return fit.minimize()


def main():
    dynamics = adjode.Dynamics(robertson, robertson_vjp)
    data = make_data(dynamics)
    for factors in ([1.0, 1.0, 1.0], [3.0, 0.3, 2.0], [0.2, 5.0, 0.5], [5.0, 5.0, 5.0]):
        result = fit_from(dynamics, data, np.array(factors))
        ratios = ", ".join(f"{ratio:.3f}" for ratio in result.theta / TRUE)
        print(f"from {factors} times the true rates: {ratios} times; loss {result.fun:.2f}")


if __name__ == "__main__":
    main()
