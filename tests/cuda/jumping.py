"""Problems with stops, tables, doses and events, for the tests of ensembles on a GPU."""

import numpy as np

from adjode import Doses, Dynamics, Event, Table
from adjode.losses import LeastSquares

N, SPAN = 3, (0.0, 4.0)
T_OBS = [0.0, 0.5, 1.0, 2.2, 3.0, 4.0]


def absorbs(t, u, theta, du):
    du[0] = -theta[0] * u[0]
    du[1] = theta[0] * u[0] - theta[1] * u[1] * u[1] + 0.1 * np.cos(t)


def bounces(t, u, theta, du):
    du[0] = u[1]
    du[1] = -theta[0] - theta[3] * u[1]


def floor(t, u, theta):
    return u[0]


def bounce(t, u, theta, u_new):
    u_new[0] = 0.0
    u_new[1] = -1.4 * theta[1] * u[1]


def high(t, u, theta):
    return u[0] - theta[2]


level = Table([0.0, 1.0, 1.5, 3.0, 5.0], [0.0, 2.0, 1.0, 1.0, 0.0])
steps = Table([-5.0, 0.7, 2.5], [0.0, 1.0, 0.3], kind="previous")
of_values = Table([0.0, 2.0, 4.0], kind="cubic")


def driven(t, u, theta, du):
    du[0] = level(t) - theta[0] * u[0]
    du[1] = steps(t) * u[0] - theta[1] * u[1] + of_values(t, theta[1:4])


def switches(t, u, theta, du):
    du[0] = (1.0 if t >= theta[2] else 0.2) - theta[0] * u[0]
    du[1] = u[0] - theta[1] * u[1] if t < 2.5 else -u[1]


curve = Table([-1.0, 0.5, 3.0], [0.0, 1.0, 1.5], outside="hold")


def over_a_state(t, u, theta, du):
    du[0] = theta[2] - curve(u[0])
    du[1] = curve(u[0]) - theta[1] * u[1]


bolus = [Doses([0.5, 2.0], 1.0, 0), Doses(1.0, "theta[2]", 1, fraction=0.5)]
infusion = Doses([0.6, 1.0], "theta[2]", 0, duration=[1.0, 1.5])
moving = [Doses(["theta[2]", 2.0], "theta[3]", 0, lag=0.3), Doses(0.4, 0.5, 1, duration="theta[3]")]
falls = [Event(floor, bounce, direction=-1)]
CASES = {
    "stops": (absorbs, {"stops": [1.0, 2.3]}),
    "tables": (driven, {}),
    "tables over states": (over_a_state, {}),
    "boluses": (absorbs, {"doses": bolus}),
    "boluses and stops": (absorbs, {"doses": bolus, "stops": [1.0, 2.3]}),
    "infusions": (absorbs, {"doses": infusion}),
    "moving doses": (absorbs, {"doses": moving}),
    "switches": (switches, {}),
    "events": (bounces, {"events": falls}),
    "events and doses": (bounces, {"events": [*falls, Event(high)], "doses": bolus}),
}
KNOWN = {name: Dynamics(f) for name, (f, _) in CASES.items()}


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1.5, (N, 2)), np.array([0.8, 0.6, 0.7, 0.3]) * rng.uniform(0.8, 1.2, (N, 4))


def least_squares():
    return LeastSquares(T_OBS, np.random.default_rng(2).uniform(0.5, 3.0, (len(T_OBS), 2)), sigma=0.3)
