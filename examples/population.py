"""What twelve people have in common, and in what they differ: theophylline in serum after one tablet each.

    d gut   / dt = -absorption gut                                                in mg per kg of body weight
    d blood / dt =  absorption elimination / clearance gut - elimination blood    in mg/L

with absorption = typical absorption exp(SPREAD a) and clearance = typical clearance exp(SPREAD c) of each person; a and c are
standard normal, which is a prior of each. Twelve experiments share the typical values, the elimination and the size of the errors;
each has its own dose, data, a and c. One fit finds all 28 parameters, and takes as much of the differences between people for real
as the data call for: where they say little, a and c stay near zero.

The data are eleven concentrations of each person over a day (Boeckmann, Sheiner and Beal 1994).

    python examples/population.py
"""

import math
from pathlib import Path

import matplotlib
import numpy as np

import adjode
from adjode import Experiment, Parameter, priors
from adjode.losses import Gaussian, Likelihood

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
COLUMNS = ("subject", "weight", "dose", "time", "concentration")
DATA = dict(zip(COLUMNS, np.loadtxt(HERE / "data" / "theophylline.csv", delimiter=",", skiprows=2, unpack=True), strict=True))
PEOPLE = np.unique(DATA["subject"]).astype(int)
DAY, SPREAD = (0.0, 25.0), {"absorption": 0.6, "clearance": 0.25}
SPREAD_OF_ABSORPTION, SPREAD_OF_CLEARANCE = SPREAD["absorption"], SPREAD["clearance"]
ONE_TABLET = adjode.Doses(0.0, "dose", "gut")
TYPICAL = ("absorption", "elimination", "clearance")


def theophylline(t, u, theta, du):
    absorption = theta.absorption * math.exp(SPREAD_OF_ABSORPTION * theta.a)
    clearance = theta.clearance * math.exp(SPREAD_OF_CLEARANCE * theta.c)
    du.gut = -absorption * u.gut
    du.blood = absorption * theta.elimination / clearance * u.gut - theta.elimination * u.blood


def experiment(dynamics, person):
    """One person: their tablet, and the data that were taken of them."""
    rows = DATA["subject"] == person
    loss = Likelihood(DATA["time"][rows], {"blood": DATA["concentration"][rows]}, Gaussian("sigma"))
    own = {"a": f"a {person}", "c": f"c {person}", "dose": DATA["dose"][rows][0]}
    theta = {name: name for name in (*TYPICAL, "sigma")} | own
    return Experiment(dynamics, loss, DAY, u0=[0.0, 0.0], theta=theta, doses=ONE_TABLET, name=f"person {person}")


def fit_of(dynamics, people=PEOPLE):
    shared = {
        "absorption": Parameter(1.0, (0.2, 10.0), "log"),
        "elimination": Parameter(0.1, (0.02, 0.5), "log"),
        "clearance": Parameter(0.05, (0.01, 0.2), "log"),
        "sigma": Parameter(1.0, (0.05, 5.0), "log"),
    }
    own = {f"{what} {person}": Parameter(0.0, (-5.0, 5.0), prior=priors.Normal(0.0, 1.0)) for person in people for what in "ac"}
    return adjode.Fit([experiment(dynamics, person) for person in people], parameters=shared | own, rtol=1e-8, atol=1e-8)


def draw(fit, result, path):
    figure, axes = plt.subplots(3, 4, figsize=(12, 7.5), sharex=True, sharey=True, layout="constrained")
    t = np.linspace(*DAY, 300)
    nobody = np.where([name[:2] in ("a ", "c ") for name in fit.names], 0.0, result.x)
    for axis, person in zip(axes.flat, PEOPLE, strict=True):
        rows, name = DATA["subject"] == person, f"person {person}"
        axis.plot(t, fit.solve(nobody, experiment=name)(t)[:, 1], color="0.7", label="typical")
        axis.plot(t, fit.solve(experiment=name)(t)[:, 1], color="C0", label="own")
        axis.plot(DATA["time"][rows], DATA["concentration"][rows], "k.", markersize=4)
        axis.set_title(name, fontsize=9)
    axes[0, 0].legend(fontsize=8)
    figure.supxlabel("hours")
    figure.supylabel("theophylline in serum (mg/L)")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    dynamics = adjode.Dynamics(
        theophylline, states=("gut", "blood"), parameters=(*TYPICAL, "sigma", "a", "c", "dose"), name="theophylline"
    )
    fit = fit_of(dynamics)
    result = fit.minimize(options={"maxiter": 500, "ftol": 1e-12})
    found = result.parameters
    print(f"{result.nfev} losses and gradients of {len(PEOPLE)} people, {len(fit.names)} parameters: loss {result.fun:.2f}\n")
    for name, unit in zip((*TYPICAL, "sigma"), ("1/h", "1/h", "L/h/kg", "mg/L"), strict=True):
        print(f"{name:<12}{found[name]:8.4f} {unit}")
    print("\nperson  absorption   clearance")
    for person in PEOPLE:
        absorption = found["absorption"] * math.exp(SPREAD["absorption"] * found[f"a {person}"])
        clearance = found["clearance"] * math.exp(SPREAD["clearance"] * found[f"c {person}"])
        print(f"{person:6d}  {absorption:8.3f}/h  {clearance:.4f} L/h/kg")
    path = HERE / "output" / "population.png"
    draw(fit, result, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
