"""Find how many contacts people had in each month of an epidemic, from the cases that were reported in each week.

    d susceptible / dt = -contacts(t) susceptible infectious / N
    d exposed     / dt =  contacts(t) susceptible infectious / N - exposed / LATENT
    d infectious  / dt =  exposed / LATENT - infectious / ILL
    d cases       / dt =  exposed / LATENT

The contact rate is a table whose values are parameters. A part of the new cases of each week is reported; the counts scatter more
than Poisson's, by a dispersion that is found as well. The epidemic is made up, so that all can be held against what is true: a
lockdown from the seventh to the fifteenth week.

    python examples/epidemic.py
"""

import math
from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats

import adjode
from adjode import Experiment, Parameter, Table, priors
from adjode.losses import Likelihood, NegativeBinomial

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PEOPLE, LATENT, ILL = 1e5, 3.0, 5.0  # persons, days, days
REPORTED = 0.4
WEEKS = 7.0 * np.arange(1, 27)
SPAN = (0.0, WEEKS[-1])
KNOTS = np.linspace(*SPAN, 9)
TRUE = np.array([0.52, 0.5, 0.24, 0.15, 0.17, 0.3, 0.34, 0.3, 0.26])  # contacts a day at the knots
DISPERSION = 0.03
OPTIONS = {"rtol": 1e-8, "atol": 1e-6}

table = Table(KNOTS, kind="cubic")


def epidemic(t, u, theta, du):
    infections = table(t, theta.contacts) * u.susceptible * u.infectious / PEOPLE
    du.susceptible = -infections
    du.exposed = infections - u.exposed / LATENT
    du.infectious = u.exposed / LATENT - u.infectious / ILL
    du.cases = u.exposed / LATENT


def reported(t, u, theta, y):
    y[0] = REPORTED * u.cases


def start_of(p):
    return np.array([PEOPLE - p.exposed, p.exposed, 0.0, 0.0])


def simulate(dynamics, rng):
    """What is reported in each week."""
    theta = {"contacts": TRUE, "dispersion": DISPERSION}
    cases = adjode.solve(dynamics, [PEOPLE - 40.0, 40.0, 0.0, 0.0], theta, SPAN, t_eval=[0.0, *WEEKS], **OPTIONS).u_eval[:, 3]
    return counts_around(REPORTED * np.diff(cases), DISPERSION).rvs(random_state=rng).astype(float)


def counts_around(mean, dispersion):
    size = 1.0 / dispersion
    return stats.nbinom(size, size / (size + mean))


def fit(dynamics, counts):
    """Contacts are likely to be between 0.1 and 0.9 a day: a prior, which matters where the counts say little, as at the end."""
    loss = Likelihood(WEEKS, counts, NegativeBinomial("dispersion"), observe=reported, since=0.0)
    contacts = [f"contacts in week {knot / 7.0:.1f}" for knot in KNOTS]
    theta = {"contacts": contacts, "dispersion": "dispersion"}
    prior = priors.Normal(math.log(0.3), 0.5, scaled=True)
    parameters = {
        "exposed": Parameter(20.0, (1.0, 1e3), "log"),
        "dispersion": Parameter(0.1, (1e-4, 10.0), "log"),
    } | {name: Parameter(0.3, (0.01, 3.0), "log", prior=prior) for name in contacts}
    found = adjode.Fit(Experiment(dynamics, loss, SPAN, u0=start_of, theta=theta), parameters=parameters, **OPTIONS)
    return found, found.minimize()


def draw(found, result, counts, path):
    solution, t = found.solve(), np.linspace(*SPAN, 400)
    expected = REPORTED * np.diff(solution(np.append(0.0, WEEKS))[:, 3])
    low, high = counts_around(expected, result.parameters["dispersion"]).interval(0.9)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    left.fill_between(WEEKS / 7.0, low, high, color="C0", alpha=0.25, linewidth=0.0, label="90 % interval of counts")
    left.plot(WEEKS / 7.0, expected, color="C0", label="fitted")
    left.plot(WEEKS / 7.0, counts, "k.", label="reported")
    left.set(title="Cases per week", xlabel="week", ylabel="cases")
    left.legend()
    right.plot(t / 7.0, table(t, TRUE), "k--", label="true")
    contacts = solution.theta[: KNOTS.size]
    right.plot(t / 7.0, table(t, contacts), color="C1", label="found")
    right.plot(KNOTS / 7.0, contacts, "o", color="C1")
    right.axhline(1.0 / ILL, color="0.6", linewidth=0.8)
    right.set(title="Contacts per day; below the line the epidemic dies out", xlabel="week", ylim=(0.0, None))
    right.legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    dynamics = adjode.Dynamics(
        epidemic,
        states=("susceptible", "exposed", "infectious", "cases"),
        parameters={"contacts": KNOTS.shape, "dispersion": ()},
        name="epidemic",
    )
    counts = simulate(dynamics, np.random.default_rng(7))
    found, result = fit(dynamics, counts)
    first, _ = found.evaluate(found.x0)
    print(f"{result.nfev} solves; minus the log-likelihood falls from {first:.1f} to {result.fun:.1f}")
    exposed, dispersion = result.parameters["exposed"], result.parameters["dispersion"]
    print(f"exposed at the start: {exposed:.0f} (true 40); dispersion: {dispersion:.3f} (true 0.03)\n")
    print("week   contacts a day   true")
    for knot, value, true in zip(KNOTS, found.solve().theta, TRUE, strict=False):
        print(f"{knot / 7.0:4.1f}   {value:14.3f}   {true:.3f}")
    path = HERE / "output" / "epidemic.png"
    draw(found, result, counts, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
