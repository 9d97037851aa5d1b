"""Predators and prey, whose callbacks take states and parameters by name."""

STATES, PARAMETERS = ("prey", "predators"), {"rates": (2,), "death": ()}


def predators_f(t, u, theta, du):
    du.prey = theta.rates[0] * u.prey - theta.rates[1] * u.prey * u.predators
    du.predators = theta.rates[1] * u.prey * u.predators - theta.death * u.predators


def predators_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar.prey = (theta.rates[0] - theta.rates[1] * u.predators) * lam.prey + theta.rates[1] * u.predators * lam.predators
    u_bar.predators = -theta.rates[1] * u.prey * lam.prey + (theta.rates[1] * u.prey - theta.death) * lam.predators
    theta_bar.rates[0] = u.prey * lam.prey
    theta_bar.rates[1] = u.prey * u.predators * (lam.predators - lam.prey)
    theta_bar.death = -u.predators * lam.predators
