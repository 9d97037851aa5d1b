"""Measure what each choice costs and how exact its gradient is; write the tables of the page "Choosing".

    python -m docs.measure_choices

in the folder of the repository prints the tables and writes them to docs/measured_choices.md. Work is counted in evaluations of
the callbacks, not in seconds. The reference gradients are those of tests/references/problems.json, computed without adjode.
"""

from pathlib import Path

import numpy as np

import adjode
from benchmarks.problems import lv_final, spiral, spiral_with_vjp_u


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
    text = "\n".join(part() for part in (methods, strategies, subsets, contraction, hard_quadrature))
    print(text)
    (Path(__file__).parent / "measured_choices.md").write_text(text)


if __name__ == "__main__":
    main()
