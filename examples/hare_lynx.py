"""Fit the Lotka-Volterra equations to the pelts of hare and lynx that the Hudson's Bay Company bought, 1900-1920.

    du1/dt =  a u1 - b u1 u2     hare, in thousands of pelts
    du2/dt = -c u2 + d u1 u2     lynx

Four rates and both initial populations are fitted to the logarithms of the counts, by SciPy's L-BFGS-B with adjoint gradients;
then once more with the gradients that SciPy takes by finite differences, to compare; and by least squares, for standard errors,
profile likelihoods, and bands of the fitted curves.

    python examples/hare_lynx.py
"""

import time
from pathlib import Path

import matplotlib
import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

import adjode

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
YEAR, HARE, LYNX = np.loadtxt(HERE / "data" / "hudson_bay.csv", delimiter=",", skiprows=2, unpack=True)
T_OBS, PELTS = YEAR - YEAR[0], np.column_stack([HARE, LYNX])
T_SPAN = (T_OBS[0], T_OBS[-1])
SIGMA = 0.25  # standard deviation of the logarithm of a count
TOLERANCES = {"rtol": 1e-8, "atol": 1e-8}

START_U0 = {"hare": HARE[0], "lynx": LYNX[0]}
START_THETA = {"a": 0.55, "b": 0.028, "c": 0.8, "d": 0.024}
UNITS = {"a": "1/year", "b": "1/(year thousand pelts)", "c": "1/year", "d": "1/(year thousand pelts)"}


# The dynamics. adjode derives their vector-Jacobian product, (df/du)^T lam and (df/dtheta)^T lam, and compiles both.
def lotka_volterra(t, u, theta, du):
    a, b, c, d = theta
    hare, lynx = u
    du[0] = a * hare - b * hare * lynx
    du[1] = -c * lynx + d * hare * lynx


# The same by hand, to compare.
def lotka_volterra_vjp(t, u, theta, lam, u_bar, theta_bar):
    a, b, c, d = theta
    hare, lynx = u
    u_bar[0] = lam[0] * (a - b * lynx) + lam[1] * d * lynx
    u_bar[1] = -lam[0] * b * hare + lam[1] * (d * hare - c)
    theta_bar[0] = lam[0] * hare
    theta_bar[1] = -lam[0] * hare * lynx
    theta_bar[2] = -lam[1] * lynx
    theta_bar[3] = lam[1] * hare * lynx


def build_fit(vjp=None):
    """Say what is to be fitted to what."""
    dynamics = adjode.Dynamics(lotka_volterra, vjp)
    adjode.check_vjp(dynamics, START_U0, START_THETA).raise_if_wrong()  # a slip in a vjp is named here, before it costs a fit
    return adjode.Fit(
        dynamics,
        adjode.losses.LeastSquares(T_OBS, PELTS, sigma=SIGMA, log=True),
        T_SPAN,
        u0=START_U0,
        theta=START_THETA,
        free=("u0", "theta"),
        log=("u0", "theta"),  # all six are positive
        **TOLERANCES,
    )


def finite_difference_gradient(fit, x, step=1e-4):
    """Central differences, with an error of order step**2."""
    steps = step * np.eye(x.size)
    return np.array([fit.value_and_gradient(x + e)[0] - fit.value_and_gradient(x - e)[0] for e in steps]) / (2 * step)


def fit_by_scipy_alone(x0):
    """The same fit as one would write it without adjode; also counts the solves."""
    solves = 0

    def rhs(t, u, a, b, c, d):
        hare, lynx = u
        return [a * hare - b * hare * lynx, -c * lynx + d * hare * lynx]

    def loss(x):
        nonlocal solves
        solves += 1
        z = np.exp(x)
        u = solve_ivp(rhs, T_SPAN, z[:2], args=tuple(z[2:]), t_eval=T_OBS, **TOLERANCES).y.T
        return 0.5 * np.sum(((np.log(u) - np.log(PELTS)) / SIGMA) ** 2)

    return minimize(loss, x0, method="L-BFGS-B", jac="2-point"), solves


def adjoint_at(fit, u0, theta):
    """The solution, and lam(t) = dL/du(t) as a function of time: what a pullback integrates."""
    solution = adjode.solve(fit.dynamics, u0, theta, T_SPAN, **TOLERANCES)
    _, seeds = fit.loss.value_and_cotangents(solution)
    return solution, solution.pullback(**seeds, dense_adjoint=True).adjoint


def draw(fit, solution, lam, path):
    t, level = np.linspace(*T_SPAN, 1001), 0.95
    band = fit.predict(t[::5], level=level)
    u, colours = solution(t), ("tab:brown", "tab:blue")
    figure, (series, adjoint, phase) = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")

    for i, (animal, colour) in enumerate(zip(("hare", "lynx"), colours, strict=True)):
        series.plot(YEAR, PELTS[:, i], "o", color=colour, markersize=5, label=f"{animal}, counted")
        series.plot(YEAR[0] + t, u[:, i], color=colour, label=f"{animal}, fitted")
        series.fill_between(YEAR[0] + band.times, band.low[:, i], band.high[:, i], color=colour, alpha=0.25, linewidth=0.0)
        adjoint.plot(YEAR[0] + t, lam(t)[:, i], color=colour, label=animal)
    series.set(
        title=f"Pelts and the fitted solution, with {level:.0%} bands", xlabel="year", ylabel="pelts (thousands)", ylim=(0, 112)
    )
    series.legend(ncols=2, loc="upper center")

    adjoint.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    adjoint.set(title="Adjoint: what more pelts would do to the loss", xlabel="year", ylabel="dL/du (1 / thousand pelts)")
    adjoint.legend()

    phase.plot(u[:, 0], u[:, 1], color="0.35", label="fitted")
    points = phase.scatter(*PELTS.T, c=YEAR, cmap="viridis", zorder=3, label="counted")
    figure.colorbar(points, ax=phase, label="year", ticks=YEAR[::5])
    phase.set(title="Hare and lynx", xlabel="hare pelts (thousands)", ylabel="lynx pelts (thousands)")
    phase.legend()

    for axes in (series, adjoint):
        axes.set_xticks(YEAR[::5])
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def check_gradient(fit, gradient):
    difference = finite_difference_gradient(fit, fit.x0)
    error = np.max(np.abs(gradient - difference)) / np.max(np.abs(difference))
    print(f"gradient at the start, beside central differences: relative difference {error:.1e}")
    _, by_hand = build_fit(lotka_volterra_vjp).value_and_gradient(fit.x0)
    error = np.max(np.abs(gradient - by_hand)) / np.max(np.abs(by_hand))
    print(f"and with the vjp by hand in place of the derived one: {error:.1e}\n")


def show_result(result, start_loss):
    print(f"\nloss {start_loss:.3f} at the start, {result.fun:.3f} at the minimum ({result.message})")
    for name, value in result.theta.items():
        print(f"  {name}          {value:9.5f}  {UNITS[name]}")
    for name, value in result.u0.items():
        print(f"  {name} {YEAR[0]:.0f}  {value:9.5f}  thousand pelts")


def compare_with_scipy(fit, compile_seconds):
    result, seconds = timed(fit.minimize)
    (alone, solves), alone_seconds = timed(lambda: fit_by_scipy_alone(fit.x0))
    print("\nthe same fit with SciPy alone: solve_ivp (RK45, plain Python right-hand side), gradients by 2-point differences")
    print(f"  adjode       {result.nfev:4d} solves and pullbacks  {seconds:7.3f} s  loss {result.fun:.6f}")
    print(f"  SciPy alone  {solves:4d} solves                {alone_seconds:7.3f} s  loss {alone.fun:.6f}")
    print(f"  ratio {alone_seconds / seconds:.1f}, after {compile_seconds:.1f} s in which adjode compiled and checked the vjp")


def show_uncertainty(fit):
    """Estimates, standard errors and profile limits, in one table."""
    result, seconds = timed(fit.fit)
    print(f"\nby least squares: loss {result.loss:.6f} after {result.nfev} solves with Jacobians, {seconds:.3f} s\n")
    found, profile = fit.uncertainty(), fit.profile()
    lines = str(found).splitlines()
    for line, ends in zip(lines, ["profile", *(profile.shown(name)[1] for name in fit.names), ""], strict=True):
        print(f"{line}  {ends:>16}".rstrip())


def timed(task):
    began = time.perf_counter()
    return task(), time.perf_counter() - began


def main():
    fit, build_seconds = timed(build_fit)
    (start_loss, gradient), first_seconds = timed(lambda: fit.value_and_gradient(fit.x0))  # compiles what is left
    print(fit)
    check_gradient(fit, gradient)

    result = fit.minimize(progress=True)
    show_result(result, start_loss)
    compare_with_scipy(fit, build_seconds + first_seconds)
    show_uncertainty(fit)

    path = HERE / "output" / "hare_lynx.png"
    draw(fit, *adjoint_at(fit, result.u0, result.theta), path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
