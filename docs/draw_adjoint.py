"""Draw how lambda goes back: the sweep with its jumps, and the two ways of having u(t) on the way; the figures of "The rule".

    python -m docs.draw_adjoint

in the folder of the repository writes docs/sweep.svg and docs/ways_back.svg. All curves are solves by adjode.
"""

import itertools

import numpy as np

import adjode
from docs.drawing import BLUE, FAINT, GREEN, INK, ORANGE, RED, plt, save


def logistic(t, u, theta, du):
    du[0] = theta[0] * u[0] * (1.0 - u[0] / theta[1])


def follower(t, u, theta, du):
    du[0] = -theta[0] * (u[0] - np.cos(2.0 * t))


def draw_sweep():
    u0, theta, span = [0.5], [0.9, 10.0], (0.0, 8.0)
    times, data = np.array([1.5, 3.0, 4.5, 6.0, 8.0]), np.array([2.6, 3.4, 8.6, 8.1, 10.6])
    solution = adjode.solve(adjode.Dynamics(logistic), u0, theta, span, rtol=1e-9, atol=1e-9)
    residuals = solution(times)[:, 0] - data  # dL/du(t_k) of L = sum (u(t_k) - data)^2 / 2
    lam = solution.pullback(observations=(times, residuals[:, None]), dense_adjoint=True).adjoint
    figure, (state, adjoint) = plt.subplots(2, 1, figsize=(8.0, 4.8), sharex=True)
    t = np.linspace(*span, 321)
    state.plot(t, solution(t)[:, 0], color=BLUE, label="u(t), solved forward")
    state.plot(times, data, "o", color=ORANGE, label="data")
    state.vlines(times, data, data + residuals, color=ORANGE, linewidth=1.4, linestyle=":")
    state.set(ylabel="u", ylim=(0.0, 12.0))
    state.legend(loc="upper left")
    edges = np.concatenate([[span[0]], times])
    for a, b in itertools.pairwise(edges):
        piece = np.linspace(a + 1e-6, b - 1e-6, 81)
        adjoint.plot(piece, lam(piece)[:, 0], color=GREEN)
    for time in times[:-1]:
        adjoint.plot([time, time], lam(np.array([time + 1e-6, time - 1e-6]))[:, 0], color=ORANGE, linestyle=":")
    adjoint.plot([times[-1]] * 2, [0.0, residuals[-1]], color=ORANGE, linestyle=":")
    adjoint.axhline(0.0, color=FAINT, linewidth=1.0, zorder=0)
    adjoint.annotate("solved backward,\nfrom observation to observation", (4.1, 1.75), color=INK, ha="center")
    adjoint.annotate("", (2.2, 1.5), (6.0, 1.5), arrowprops={"arrowstyle": "-|>", "color": INK})
    low, high = adjoint.get_ylim()
    adjoint.set(xlabel="t", ylabel="$\\lambda = dL/du$", ylim=(low, max(high, 2.7)), xlim=(-0.1, 8.15))
    save(figure, "sweep.svg")


def draw_ways_back():
    """A state that follows a cosine at rate 6: forward all solutions come together, backward they part."""
    dynamics, rate, span = adjode.Dynamics(follower), 6.0, (0.0, 6.0)
    forward = adjode.solve(dynamics, [1.6], [rate], span, rtol=1e-6, atol=1e-9)
    back = adjode.solve(dynamics, forward.u_T, [rate], span[::-1], rtol=1e-6, atol=1e-9)
    exact = adjode.solve(dynamics, [1.6], [rate], span, method="Vern9", rtol=1e-14, atol=1e-14)
    t = np.linspace(*span, 361)
    figure, (curves, errors) = plt.subplots(1, 2, figsize=(10.0, 3.6))
    curves.plot(t, forward(t)[:, 0], color=BLUE, label="forward, with its dense output")
    near = np.abs(back(t)[:, 0]) < 3.0
    curves.plot(t[near], back(t)[near, 0], "--", color=RED, label="integrated back from u(T)")
    curves.set(xlabel="t", ylabel="u", ylim=(-1.6, 3.0))
    curves.legend(loc="upper right")
    for name, solution, colour in (("dense output", forward, BLUE), ("integrated back", back, RED)):
        errors.semilogy(t, np.abs(solution(t) - exact(t))[:, 0] + 1e-12, color=colour, label=name, linewidth=1.2)
    start = np.abs(back(np.array([5.5])) - exact(np.array([5.5])))[0, 0]
    errors.semilogy(t, start * np.exp(rate * (5.5 - t)), ":", color=INK, label="growth as $e^{6\\,(T - t)}$")
    errors.set(xlabel="t", ylabel="error of u", ylim=(1e-11, 1e13))
    errors.legend(loc="upper right")
    save(figure, "ways_back.svg")


if __name__ == "__main__":
    draw_sweep()
    draw_ways_back()
