"""A house that is heated: its thermal properties, and the sunshine that nobody measured, from logged temperatures.

    C_air   d air/dt   = G_between (walls - air) + G_windows (outside(t) - air) + heating(t) + sun(t)
    C_walls d walls/dt = G_between (air - walls) + G_outwards (outside(t) - walls)

The temperature outside was measured every half hour, and the heating logged whenever it was switched: two tables, which f calls.
What the sun brings in is a table as well, one whose values are parameters: a straight line between them, every two hours.

The house and its three days are synthetic, made here with known properties and noise from a fixed seed, so that what is found
can be held against what is true.

    python examples/house.py
"""

import time
from pathlib import Path

import matplotlib
import numpy as np
from scipy.integrate import solve_ivp

import adjode
from adjode import Table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
SPAN = (0.0, 72.0)  # hours
TRUE = {"c_air": 0.6, "c_walls": 8.0, "g_between": 0.9, "g_windows": 0.07, "g_outwards": 0.11}
UNITS = {"c_air": "kWh/K", "c_walls": "kWh/K", "g_between": "kW/K", "g_windows": "kW/K", "g_outwards": "kW/K"}
T_SUN, T_OBS, NOISE = np.arange(0.0, 72.1, 2.0), np.arange(0.25, 72.1, 0.25), 0.05
TOLERANCES = {"rtol": 1e-7, "atol": 1e-7}


def weather(rng):
    """Half-hourly temperatures outside, in degrees."""
    t = np.arange(0.0, 72.1, 0.5)
    gusts = np.convolve(rng.normal(size=t.size + 8), np.ones(9) / 3.0, mode="valid")
    return t, 3.0 - 4.0 * np.cos(2.0 * np.pi * (t - 3.0) / 24.0) + 0.04 * t + 0.4 * gusts


def thermostat(rng):
    """When the heating was switched, and the power in kW from then on."""
    on = np.sort(np.concatenate([24.0 * day + np.array([5.0, 9.0, 16.0, 20.5]) + rng.uniform(0.0, 1.0, 4) for day in range(3)]))
    times = np.sort(np.concatenate([[0.0], on, on + rng.uniform(0.3, 2.5, on.size)]))
    return times, 5.0 * (np.arange(times.size) % 2)


def sunshine(t):
    """What the sun truly brings in, in kW: two bright days, and a dull one between them."""
    day = np.maximum(np.sin(np.pi * ((t % 24.0) - 7.5) / 10.0), 0.0) * ((t % 24.0) > 7.5)
    return day * np.choose(np.minimum(t // 24.0, 2).astype(int), [2.0, 0.4, 1.5])


RNG = np.random.default_rng(5)
OUTSIDE = Table(*weather(RNG), kind="linear")
HEATING = Table(*thermostat(RNG), kind="previous")
SUN = Table(T_SUN, kind="linear")  # its values come with the call


def house(t, u, theta, du):
    between, outside = theta.g_between * (u.walls - u.air), OUTSIDE(t)
    gain = HEATING(t) + SUN(t, theta.sun)
    du.air = (between + theta.g_windows * (outside - u.air) + gain) / theta.c_air
    du.walls = (-between + theta.g_outwards * (outside - u.walls)) / theta.c_walls


def measured(rng):
    """Temperatures of air and walls at T_OBS, by SciPy from the true house, with noise."""
    truth = [TRUE[name] for name in ("c_air", "c_walls", "g_between", "g_windows", "g_outwards")]

    def rhs(t, u):
        between, outside = truth[2] * (u[1] - u[0]), OUTSIDE(t)
        air = between + truth[3] * (outside - u[0]) + HEATING(t) + sunshine(np.asarray(t))
        return [air / truth[0], (-between + truth[4] * (outside - u[1])) / truth[1]]

    u = solve_ivp(rhs, SPAN, [18.0, 16.0], t_eval=T_OBS, rtol=1e-7, atol=1e-7, max_step=0.05).y.T
    return u + NOISE * rng.normal(size=u.shape)


def build_fit(data):
    parameters = (*TRUE, ("sun", T_SUN.size))
    dynamics = adjode.Dynamics(house, states=("air", "walls"), parameters=parameters)
    day = (T_SUN % 24.0 > 6.0) & (T_SUN % 24.0 < 20.0)  # at night it is dark
    start = {"c_air": 1.0, "c_walls": 5.0, "g_between": 0.5, "g_windows": 0.1, "g_outwards": 0.1, "sun": 0.3 * day}
    return adjode.Fit(
        dynamics,
        adjode.losses.LeastSquares(T_OBS, data, sigma=NOISE),
        SPAN,
        u0={"air": data[0, 0], "walls": data[0, 1]},
        theta=start,
        free={"u0": True, "theta": np.append(np.ones(len(TRUE), dtype=bool), day)},
        log={"theta": list(TRUE)},  # the five are positive
        bounds={"theta": (0.0, np.inf)},
        **TOLERANCES,
    )


def draw(solution, theta, data, path):
    t = np.linspace(*SPAN, 2001)
    u = solution(t)
    figure, (inputs, temperatures, sun) = plt.subplots(3, 1, figsize=(10, 9), sharex=True, layout="constrained")
    inputs.plot(t, OUTSIDE(t), color="tab:blue", label="outside, measured every half hour")
    inputs.set(title="Inputs", ylabel="temperature (°C)", ylim=(-3.0, 15.0))
    power = inputs.twinx()
    power.fill_between(t, HEATING(t), step="post", color="tab:red", alpha=0.3, label="heating, logged when switched")
    power.set(ylabel="heating (kW)", ylim=(0.0, 15.0))
    inputs.legend(loc="upper left")
    power.legend(loc="upper right")

    for i, (name, colour) in enumerate((("air", "tab:orange"), ("walls", "tab:brown"))):
        temperatures.plot(T_OBS, data[:, i], ".", color=colour, markersize=3, label=f"{name}, measured")
        temperatures.plot(t, u[:, i], color=colour, label=f"{name}, fitted")
    temperatures.set(title="Indoor temperatures", ylabel="temperature (°C)")
    temperatures.margins(y=0.25)
    temperatures.legend(ncols=4, loc="upper center", fontsize="small")

    sun.plot(t, sunshine(t), color="0.6", label="true")
    sun.plot(T_SUN, theta["sun"], "o-", color="tab:green", markersize=4, label="found")
    sun.set(title="Sunshine, which was not measured", xlabel="time (hours)", ylabel="sun (kW)", xticks=np.arange(0, 73, 12))
    sun.legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    data = measured(RNG)
    fit = build_fit(data)
    print(fit)
    print(f"{fit.dynamics}: a step ends wherever an input jumps, or its slope\n")
    fit.value_and_gradient(fit.x0)  # compiles
    began = time.perf_counter()
    result = fit.minimize(options={"maxiter": 2000, "maxfun": 4000})
    seconds = time.perf_counter() - began
    per_reading = 2.0 * result.fun / data.size
    print(f"{result.nfev} losses and gradients in {seconds:.1f} s; loss per reading {per_reading:.3f}, where noise makes 1\n")
    for name, true in TRUE.items():
        print(f"  {name:10s} {result.theta[name]:7.4f}, true {true:7.4f}  {UNITS[name]}")
    found, there = (0.25 * np.interp(T_OBS, T_SUN, kw).sum() for kw in (result.theta["sun"], sunshine(T_SUN)))
    print(f"  sun in all {found:7.2f}, true {there:7.2f}  kWh")
    path = HERE / "output" / "house.png"
    draw(adjode.solve(fit.dynamics, result.u0, result.theta, SPAN, **TOLERANCES), result.theta, data, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
