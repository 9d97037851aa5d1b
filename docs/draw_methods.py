"""Draw what methods do: one step and its dense output, where steps are stable, what "auto" chooses, and error against time.

    python -m docs.draw_methods

in the folder of the repository writes docs/step.svg, docs/stability.svg, docs/auto.svg and docs/measured/error_time.svg. The last
is drawn from docs/measured/tight/compare.json, which the command of the page "Benchmarks" measures anew.
"""

import json

import numpy as np

import adjode
from adjode.tableaus import tableau
from benchmarks.report import points, unique
from docs.drawing import BLUE, DOCS, FAINT, GREEN, INK, ORANGE, RED, plt, save


def pendulum(t, u):
    return np.array([u[1], -np.sin(u[0])])


def van_der_pol(t, u, theta, du):
    du[0] = u[1]
    du[1] = theta[0] * (1.0 - u[0] ** 2) * u[1] - u[0]


def stages_of(method, u, h):
    """The states of the stages of one step of the pendulum, their slopes, and the state after it."""
    Y, K = [], np.zeros((method.stages, u.size))
    for i in range(method.stages):
        Y.append(u + h * method.A[i, :i] @ K[:i])
        K[i] = pendulum(method.c[i] * h, Y[i])
    return np.array(Y), K, u + h * method.A[method.stages, : method.stages] @ K


def draw_step():
    """A step of Tsit5, far longer than its error control would let pass."""
    method, u, h = tableau("Tsit5"), np.array([2.2, 0.0]), 2.3
    Y, K, after = stages_of(method, u, h)
    slopes = np.vstack([K, pendulum(h, after)])
    x = np.linspace(0.0, 1.0, 101)
    dense = u + h * (x[:, None] ** np.arange(1, method.P.shape[1] + 1)) @ method.P.T @ slopes
    exact = adjode.solve(adjode.Dynamics(_pendulum), u, [1.0], (0.0, 1.3 * h), rtol=1e-10, atol=1e-10)
    t = np.linspace(0.0, 1.2 * h, 121)
    figure, axes = plt.subplots(figsize=(8.0, 3.9))
    axes.plot(t, exact(t)[:, 0], color=FAINT, linewidth=5.0, label="the solution")
    axes.plot(x * h, dense[:, 0], color=BLUE, label="dense output: a polynomial of degree 4")
    for i, (c, state, slope) in enumerate(zip(method.c, Y, K, strict=False)):
        half = 0.06 * h
        axes.plot(h * c + half * np.array([-1, 1]), state[0] + half * slope[0] * np.array([-1, 1]), color=ORANGE, linewidth=1.3)
        axes.plot(h * c, state[0], "o", color=ORANGE, label="stages, and the slopes f there" if i == 0 else None)
        place = (-12, -11) if i == 4 else (5, 5)  # stages 5 and 6 are neighbours
        axes.annotate(f"{i + 1}", (h * c, state[0]), place, textcoords="offset points", color=ORANGE)
    axes.plot([0.0, h], [u[0], after[0]], "s", color=GREEN, label="the state before and after the step")
    axes.set(xlabel="t", ylabel="u (angle of a pendulum)", xticks=[0.0, h], xticklabels=["t", "t + h"])
    axes.legend(loc="lower left")
    save(figure, "step.svg")


def _pendulum(t, u, theta, du):
    du[0] = u[1]
    du[1] = -np.sin(u[0])


def amplification(method, z):
    """|R(z)|, what one step of u' = z u / h multiplies u by (Hairer, Wanner 1996, IV.3)."""
    s = method.stages if not method.implicit else method.stages + 1
    A, b = method.A[:s, :s], method.A[-1, :s] if method.implicit else method.A[method.stages, :s]
    inner = np.linalg.solve(np.eye(s) - z[..., None, None] * A, np.ones((*z.shape, s, 1)))[..., 0]
    return np.abs(1.0 + z * (inner @ b))


def draw_stability():
    figure, (small, large) = plt.subplots(1, 2, figsize=(10.0, 3.9))
    for axes, names, (x, y) in (
        (small, (("Euler", RED), ("RK4", ORANGE), ("Tsit5", BLUE), ("DOP853", GREEN)), ((-7.0, 2.0), 5.0)),
        (large, (("Tsit5", BLUE), ("Radau", GREEN)), ((-16.0, 16.0), 16.0)),
    ):
        z = np.linspace(*x, 241)[None, :] + 1j * np.linspace(-y, y, 201)[:, None]
        for name, colour in names:
            size = amplification(tableau(name), z)
            axes.contour(z.real, z.imag, size, levels=[1.0], colors=[colour], linewidths=1.6)
            axes.contourf(z.real, z.imag, size, levels=[0.0, 1.0], colors=[colour], alpha=0.14)
            axes.plot([], [], color=colour, label=name)
        axes.axvline(0.0, color=FAINT, linewidth=1.0)
        axes.axhline(0.0, color=FAINT, linewidth=1.0)
        axes.set(xlabel="real part of $h\\,\\mu$", ylabel="imaginary part", aspect="equal")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    small.set_title("explicit methods: stable inside")
    large.set_title("Radau: stable everywhere\nbut inside the curve on the right")
    save(figure, "stability.svg")


def draw_auto():
    """Van der Pol's oscillator: slow stretches are stiff, jumps between them are not."""
    solution = adjode.solve(adjode.Dynamics(van_der_pol), [2.0, 0.0], [100.0], (0.0, 170.0), method="auto", rtol=1e-6, atol=1e-8)
    middle, size, stiff = (solution.t[1:] + solution.t[:-1]) / 2, np.diff(solution.t), solution.stiff
    figure, (state, steps) = plt.subplots(2, 1, figsize=(8.0, 4.4), sharex=True)
    state.plot(solution.t, solution.u[:, 0], color=INK, linewidth=1.4)
    state.set_ylabel("u")
    for which, colour, name in ((stiff, GREEN, "Radau"), (~stiff, BLUE, "Tsit5")):
        steps.semilogy(middle[which], size[which], "o", markersize=3, color=colour, label=f"{np.sum(which)} steps of {name}")
    steps.set(xlabel="t", ylabel="size of the step")
    steps.legend(loc="upper left", bbox_to_anchor=(0.02, 1.08), ncols=2)
    steps.set_ylim(top=100.0)
    save(figure, "auto.svg")


def draw_error_time():
    results = json.loads((DOCS / "measured" / "tight" / "compare.json").read_text())
    figure, axes = plt.subplots(figsize=(7.4, 4.2))
    shown = {"DOP853": BLUE, "Vern7": ORANGE, "Vern9": GREEN, "heyoka: adjoint": INK}
    for name in unique(results["speed"], "contender"):
        key = next((key for key in shown if name.endswith(key)), None)
        if key is not None:
            errors, seconds = np.transpose(points(results, "lv_final", name))
            line = "--" if key.startswith("heyoka") else "-"
            axes.loglog(errors, 1e6 * seconds, line, marker="o", markersize=4, color=shown[key], label=key)
    axes.invert_xaxis()
    axes.set(xlabel="relative error of the gradient", ylabel="microseconds\nfor a value and its gradient")
    axes.set_yticks([20, 50, 100], ["20", "50", "100"])
    axes.minorticks_off()
    axes.legend(loc="upper left")
    save(figure, "measured/error_time.svg")


if __name__ == "__main__":
    draw_error_time()
    draw_stability()
    draw_step()
    draw_auto()
