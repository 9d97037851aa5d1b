"""Measure what each choice costs and how exact its gradient is; write the tables of the page "Choosing".

    python -m docs.measure_choices

in the folder of the repository prints the tables and writes them to docs/measured_choices.md. Work is counted in evaluations of
the callbacks; one table has times beside them, each the least of many runs. The reference gradients are those of
tests/references/problems.json, computed without adjode.
"""

import itertools
import math
import time
from pathlib import Path

import numpy as np

import adjode
from benchmarks.problems import lv_final, lv_series, spiral, spiral_with_vjp_u


def pull_back(problem, *, solve, **options):
    """The forward solution of a reference problem, and the pullback of its loss."""
    solution = problem.solve(**solve)
    _, seeds = problem.loss.value_and_cotangents(solution)
    return solution, solution.pullback(**seeds, **options)


def table(title, columns, rows):
    lines = [f"**{title}**", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([*lines, ""])


def methods():
    rows = []
    for method in ("BS3", "Tsit5", "RK45", "DOP853"):
        for tol in (1e-4, 1e-6, 1e-8, 1e-10):
            solution, bar = pull_back(lv_final(), solve={"method": method, "rtol": tol, "atol": tol})
            forward, backward = solution.stats, bar.stats
            error = lv_final().gradient_error(bar)
            rows.append(
                (f"`{method}`", f"{tol:.0e}", forward.n_steps, forward.n_f, backward.n_steps, backward.n_vjp, f"{error:.1e}")
            )
    columns = ("method", "rtol = atol", "steps", "`n_f`", "steps back", "`n_vjp`", "error")
    return table("Methods and tolerances: Lotka-Volterra, 2 states, 4 parameters, the loss at T = 10", columns, rows)


def strategies():
    rows, tol = [], {"rtol": 1e-8, "atol": 1e-8}
    for adjoint in ("interpolating", "backsolve"):
        for quadrature, norm in (("gauss", "all"), ("augmented", "all"), ("augmented", "lam")):
            for build in (spiral, spiral_with_vjp_u) if quadrature == "gauss" else (spiral,):
                _, bar = pull_back(build(), solve=tol, adjoint=adjoint, quadrature=quadrature, error_norm=norm)
                rule = f'`"{quadrature}"`' + (', `error_norm="lam"`' if norm == "lam" else "")
                given = "f, vjp, vjp_u" if build is spiral_with_vjp_u else "f, vjp"
                stats, error = bar.stats, build().gradient_error(bar)
                work = stats.n_steps, stats.n_rejected, stats.n_f, stats.n_vjp, stats.n_vjp_u
                rows.append((f'`"{adjoint}"`', rule, given, *work, f"{error:.1e}"))
    _, bar = pull_back(spiral(), solve=tol, adjoint="discrete")
    work = bar.stats.n_steps, bar.stats.n_rejected, bar.stats.n_f, bar.stats.n_vjp, bar.stats.n_vjp_u
    rows.append(('`"discrete"`', "", "f, vjp", *work, f"{spiral().gradient_error(bar):.1e}"))
    columns = ("adjoint", "quadrature", "callbacks", "steps back", "rejected", "`n_f`", "`n_vjp`", "`n_vjp_u`", "error")
    return table(
        "Adjoints and quadratures, backward pass only: the spiral, 2 states, 252 parameters, 30 observations, Tsit5 at 1e-8",
        columns,
        rows,
    )


# --- value_and_gradient: the discrete adjoint beside the interpolating one ---------------------------------------------------

ADJOINTS = ("discrete", "interpolating")
TOLERANCES = [10.0 ** (-k / 2) for k in range(5, 25)]
ROUNDS = 1000


def least_times(calls):
    """The least time of each call. They take turns, so that whatever slows the machine down meets all of them."""
    for call in calls:
        call()  # compiles
    least = [math.inf] * len(calls)
    for _ in range(ROUNDS):
        for k, call in enumerate(calls):
            start = time.perf_counter()
            call()
            least[k] = min(least[k], time.perf_counter() - start)
    return least


def at_error(target, errors, costs):
    """Tolerance, evaluations and seconds at this error of the gradient: between two tolerances, on logarithmic scales."""
    logs = np.log(np.column_stack([errors, costs]))
    for low, high in reversed(list(itertools.pairwise(logs))):
        if low[0] > math.log(target) >= high[0]:
            share = (low[0] - math.log(target)) / (low[0] - high[0])
            return np.exp(low + share * (high - low))[1:]
    return None


def equal_errors():
    rows = []
    for problem in (lv_final(), lv_series(), spiral()):
        choices = [(adjoint, tol) for adjoint in ADJOINTS for tol in TOLERANCES]
        calls = [problem.value_and_gradient(rtol=tol, atol=tol, adjoint=adjoint) for adjoint, tol in choices]
        found = {adjoint: ([], []) for adjoint in ADJOINTS}
        for (adjoint, tol), call, seconds in zip(choices, calls, least_times(calls), strict=True):
            bar = call()[1]
            found[adjoint][0].append(problem.gradient_error(bar))
            found[adjoint][1].append((tol, problem.solve(rtol=tol, atol=tol).stats.n_f + bar.stats.n_vjp, seconds))
        for target in (1e-4, 1e-6, 1e-8):
            both = [at_error(target, *found[adjoint]) for adjoint in ADJOINTS]
            if all(one is not None for one in both):
                (tol, work, seconds), (other_tol, other_work, other_seconds) = both
                numbers = f"{tol:.0e}", f"{other_tol:.0e}", f"{work:.0f}", f"{other_work:.0f}"
                rows.append((f"`{problem.name}`", f"{target:.0e}", *numbers, f"{1e6 * seconds:.0f}", f"{1e6 * other_seconds:.0f}"))
    title = (
        "`value_and_gradient` at equal error of the gradient, Tsit5: tolerance, evaluations of `f` and `vjp` in both passes, and "
        "microseconds of a call that it takes"
    )
    names = [f"{what}{adjoint}" for what in ("rtol = atol, ", "evaluations, ", "time, ") for adjoint in ADJOINTS]
    return table(title, ("problem", "error", *names), rows)


def slopes_of_the_value():
    """How far a gradient is from the slope of the values that the same function returns."""
    rows, problem, along, h = [], lv_series(), np.array([0.5, -0.5, 0.5, 0.5]), 1e-6
    fixed = [{"method": "RK4", "step": 0.1}, {"method": "Tsit5", "step": 0.1}]
    for options in (*fixed, *({"method": "Tsit5", "rtol": tol, "atol": tol} for tol in (1e-4, 1e-6, 1e-8, 1e-10))):
        apart = []
        for adjoint in ADJOINTS:
            evaluate = adjode.value_and_gradient(problem.dynamics, problem.loss, problem.t_span, adjoint=adjoint, **options)
            up, down = (evaluate(problem.u0, problem.theta + change * along)[0] for change in (h, -h))
            slope = evaluate(problem.u0, problem.theta)[1].theta @ along
            apart.append(f"{abs(slope * 2.0 * h / (up - down) - 1.0):.0e}")
        steps = f"fixed steps of {options['step']}" if "step" in options else f"rtol = atol = {options['rtol']:.0e}"
        rows.append((f"`{options['method']}`, {steps}", *apart))
    title = f"Relative difference of the gradient and the slope of the values returned (differences of {h:g}), `{problem.name}`"
    return table(title, ("steps", *(f'`"{adjoint}"`' for adjoint in ADJOINTS)), rows)


def subsets():
    rows = []
    problem = lv_final()
    for wrt in (("T",), ("u0",), ("u0", "t0"), ("theta",), ("u0", "theta", "t0", "T")):
        _, bar = pull_back(problem, solve={"rtol": 1e-8, "atol": 1e-8}, wrt=wrt)
        rows.append((f"`{wrt}`", bar.stats.n_steps, bar.stats.n_f, bar.stats.n_vjp))
    return table("Asking for less: Lotka-Volterra, Tsit5, rtol = atol = 1e-8", ("`wrt`", "steps back", "`n_f`", "`n_vjp`"), rows)


# --- a problem that contracts: u' = -k (u - cos t), whose solution is known ------------------------------------------------


def relaxation_f(t, u, theta, du):
    du[0] = -theta[0] * (u[0] - np.cos(t))


def relaxation_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -lam[0] * (u[0] - np.cos(t))


def relaxation_final(u0, k, T):
    settled = k * (k * np.cos(T) + np.sin(T)) / (k * k + 1)
    return (u0 - k * k / (k * k + 1)) * np.exp(-k * T) + settled


def contraction():
    dynamics, T, tiny = adjode.Dynamics(relaxation_f, relaxation_vjp), 4.0, 1e-30
    rows = []
    for k in (1.0, 4.0, 16.0):
        exact = relaxation_final(0.0, k + 1j * tiny, T).imag / tiny  # complex step
        solution = adjode.solve(dynamics, [0.0], [k], (0.0, T), rtol=1e-8, atol=1e-8)
        for name, options in (
            ('`"interpolating"`', {}),
            ('`"backsolve"`', {"adjoint": "backsolve"}),
            ('`"backsolve"`, `reanchor=True`', {"adjoint": "backsolve", "reanchor": True}),
            ('`"discrete"`', {"adjoint": "discrete"}),
        ):
            try:
                bar = solution.pullback([1.0], **options)
            except adjode.SolveError as error:
                rows.append((f"{k:g}", name, "", "", f"`SolveError`, `Status.{error.status.name}`"))
                continue
            drift = "" if bar.stats.drift is None else f"{bar.stats.drift:.1g}"
            rows.append((f"{k:g}", name, bar.stats.n_vjp, drift, f"{abs(bar.theta[0] / exact - 1):.1e}"))
    columns = ("k", "adjoint", "`n_vjp`", "drift", "error of dL/dk")
    return table("A contracting flow: u' = -k (u - cos t), T = 4, Tsit5, rtol = atol = 1e-8", columns, rows)


# --- a problem where theta_bar is harder than lam, which is constant: u' = theta exp(-1000 (t - 1/2)^2) ---------------------


def pulse_f(t, u, theta, du):
    du[0] = theta[0] * np.exp(-1000.0 * (t - 0.5) ** 2)


def pulse_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = 0.0
    theta_bar[0] = lam[0] * np.exp(-1000.0 * (t - 0.5) ** 2)


def hard_quadrature():
    dynamics, exact = adjode.Dynamics(pulse_f, pulse_vjp), np.sqrt(np.pi / 1000.0)  # the tails outside of [0, 1] are below 1e-100
    solution = adjode.solve(dynamics, [0.0], [1.0], (0.0, 1.0), rtol=1e-8, atol=1e-8, max_step=0.05)
    rows = []
    for quadrature, norm in (("gauss", "all"), ("augmented", "all"), ("augmented", "lam")):
        bar = solution.pullback([1.0], quadrature=quadrature, error_norm=norm, wrt="theta")
        rule = f'`"{quadrature}"`' + (', `error_norm="lam"`' if norm == "lam" else "")
        rows.append((rule, bar.stats.n_steps, bar.stats.n_vjp, f"{abs(bar.theta[0] / exact - 1):.1e}"))
    title = "A pulse: u' = theta exp(-1000 (t - 1/2)^2), `max_step=0.05`, Tsit5, rtol = atol = 1e-8"
    return table(title, ("quadrature", "steps back", "`n_vjp`", "error of dL/dtheta"), rows)


def main():
    parts = methods, equal_errors, slopes_of_the_value, strategies, subsets, contraction, hard_quadrature
    text = "\n".join(part() for part in parts)
    print(text)
    (Path(__file__).parent / "measured_choices.md").write_text(text)


if __name__ == "__main__":
    main()
