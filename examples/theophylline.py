"""Fit what twelve people do with a tablet of theophylline, and find the doses that each of them needs over a week.

    d gut   / dt = -absorption gut                                                in mg per kg of body weight
    d blood / dt =  absorption elimination / clearance gut - elimination blood    in mg/L

The data are eleven concentrations of each person over a day, after one oral dose (Boeckmann, Sheiner and Beal 1994). Three numbers
for each of the twelve are fitted at once, as the trajectories of one ensemble, each with a dose and with data of its own. Then
everybody gets a tablet every twelve hours; gradients with respect to the amounts find those that keep to 10 mg/L.

    python examples/theophylline.py
"""

from pathlib import Path

import matplotlib
import numpy as np
from scipy.optimize import minimize

import adjode

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
SUBJECT, _, DOSE, TIME, CONCENTRATION = np.loadtxt(HERE / "data" / "theophylline.csv", delimiter=",", skiprows=2, unpack=True)
PEOPLE = np.unique(SUBJECT)
PARAMETERS = ("absorption", "elimination", "clearance", "dose")
START = np.array([1.5, 0.08, 0.04])  # 1/h, 1/h, L/h per kg
DAY, WEEK, EVERY, TARGET = (0.0, 25.0), (0.0, 168.0), 12.0, 10.0
TOLERANCES = {"rtol": 1e-8, "atol": 1e-8}
ONE_TABLET = adjode.Doses(0.0, "dose", "gut")
TABLETS = adjode.Doses(0.0, "dose", "gut", every=EVERY, until=WEEK[1] - EVERY)


def theophylline(t, u, theta, du):
    du.gut = -theta.absorption * u.gut
    du.blood = theta.absorption * theta.elimination / theta.clearance * u.gut - theta.elimination * u.blood


def read_data():
    """All times at which anybody was measured, and for each person the concentrations there: NaN where not."""
    times = np.unique(TIME)
    data = np.full((PEOPLE.size, times.size, 2), np.nan)
    data[SUBJECT.astype(int) - 1, np.searchsorted(times, TIME), 1] = CONCENTRATION
    return times, data


def in_logarithms(evaluate, theta, which):
    """The summed loss of all people as a function of the logarithms of those entries of theta (people, 4), and its gradient."""

    def loss(x):
        trial = theta.copy()
        trial[:, which] = np.exp(x.reshape(len(theta), -1))
        values, bars = evaluate(np.zeros((len(theta), 2)), trial)
        return np.sum(values), (bars.theta * trial)[:, which].ravel()

    return loss


def fit(dynamics):
    """theta (people, 4), and the root of the mean square of what is left."""
    times, data = read_data()
    theta = np.column_stack([np.tile(START, (PEOPLE.size, 1)), [DOSE[SUBJECT == person][0] for person in PEOPLE]])
    loss = adjode.losses.LeastSquares(times, data)
    evaluate = adjode.ensemble_value_and_gradient(dynamics, loss, DAY, doses=ONE_TABLET, **TOLERANCES)
    objective = in_logarithms(evaluate, theta, slice(0, 3))
    x0 = np.log(theta[:, :3]).ravel()
    start, _ = objective(x0)
    result = minimize(objective, x0, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-13})
    theta[:, :3] = np.exp(result.x.reshape(-1, 3))
    print(f"{result.nfev} losses and gradients of {PEOPLE.size} people: loss {start:.1f} at the start, {result.fun:.3f} at the end")
    return theta, np.sqrt(2.0 * result.fun / TIME.size)


def find_doses(dynamics, theta):
    """What each person has to take every twelve hours, in mg/kg, for TARGET over the last day of a week."""
    times = np.linspace(WEEK[1] - 24.0, WEEK[1], 49)[:-1] + 0.25
    loss = adjode.losses.LeastSquares(times, np.column_stack([np.full(times.size, np.nan), np.full(times.size, TARGET)]))
    evaluate = adjode.ensemble_value_and_gradient(dynamics, loss, WEEK, doses=TABLETS, **TOLERANCES)
    objective = in_logarithms(evaluate, theta, slice(3, 4))
    result = minimize(objective, np.log(theta[:, 3]), jac=True, method="L-BFGS-B", options={"ftol": 1e-13})
    return np.column_stack([theta[:, :3], np.exp(result.x)])


def concentrations(dynamics, theta, doses, t):
    """(people, times)"""
    u0 = np.zeros((len(theta), 2))
    return adjode.solve_ensemble(dynamics, u0, theta, (0.0, t[-1]), doses=doses, t_eval=t, **TOLERANCES).u_eval[:, :, 1]


def draw(dynamics, theta, own, path):
    figure, (day, same, each) = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    t, ylabel = np.linspace(*DAY, 401), "theophylline in serum (mg/L)"
    for k, curve in enumerate(concentrations(dynamics, theta, ONE_TABLET, t)):
        here = SUBJECT == PEOPLE[k]
        day.plot(t, curve, color=f"C{k % 10}", linewidth=1.0)
        day.plot(TIME[here], CONCENTRATION[here], ".", color=f"C{k % 10}")
    day.set(title="One tablet; a colour for each of twelve people", xlabel="time (hours)", ylabel=ylabel)
    day.plot([], [], ".", color="0.4", label="measured")
    day.plot([], [], color="0.4", label="fitted")
    day.legend()

    t, mean = np.linspace(*WEEK, 2001), own.copy()
    mean[:, 3] = np.mean(own[:, 3])
    for axes, given, title in ((same, mean, "the same dose for all"), (each, own, "to each their own")):
        for k, curve in enumerate(concentrations(dynamics, given, TABLETS, t)):
            axes.plot(t / 24.0, curve, color=f"C{k % 10}", linewidth=0.8)
        axes.axhline(TARGET, color="0.2", linewidth=1.2, linestyle="--", label=f"wanted: {TARGET:.0f} mg/L", zorder=3)
        axes.set(title=f"A tablet every {EVERY:.0f} hours: {title}", xlabel="time (days)", ylabel=ylabel, ylim=(0.0, 30.0))
        axes.legend(loc="upper right")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    dynamics = adjode.Dynamics(theophylline, states=("gut", "blood"), parameters=PARAMETERS)
    theta, left = fit(dynamics)
    own = find_doses(dynamics, theta)
    print(f"concentrations are off by {left:.3f} mg/L\n")
    print("person  absorption  elimination  clearance   every twelve hours")
    for person, row in zip(PEOPLE, own, strict=True):
        print(f"{person:6.0f}  {row[0]:8.3f}/h  {row[1]:9.4f}/h  {row[2]:7.4f} L/h/kg  {row[3]:5.2f} mg/kg")
    path = HERE / "output" / "theophylline.png"
    draw(dynamics, theta, own, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
