"""Draw how lambda jumps where a ball bounces, the figure of the page "Events".

python -m docs.draw_bounce

in the folder of the repository writes docs/measured/bounce.svg.
"""

import itertools

import numpy as np

import adjode
from docs.drawing import BLUE, FAINT, GREEN, ORANGE, plt, save

U0, THETA, END = np.array([50.0, 0.0]), np.array([9.8, 0.8]), 15.0


def f(t, u, theta, du):
    du[0] = u[1]
    du[1] = -theta[0]


def ground(t, u):
    return u[0]


def bounce(t, u, theta, u_new):
    u_new[1] = -theta[1] * u[1]


def flights(times):
    """Times of each flight, its ends included, so that nothing is drawn across a jump."""
    edges = np.concatenate([[0.0], times, [END]])
    return [np.linspace(a + 1e-9, b - 1e-9, 200) for a, b in itertools.pairwise(edges)]


def draw():
    hits = adjode.Event(ground, bounce, direction=-1)
    solution = adjode.solve(adjode.Dynamics(f), U0, THETA, (0.0, END), events=hits, rtol=1e-9, atol=1e-9)
    lam = solution.pullback([1.0, 0.0], dense_adjoint=True).adjoint
    figure, axes = plt.subplots(3, 1, figsize=(7.6, 5.6), sharex=True)
    labels = ("height (m)", "$\\lambda$ of the height", "$\\lambda$ of the speed (s)")
    for t in flights(solution.t_events[0]):
        values = solution(t)[:, 0], *lam(t).T
        for axis, value, colour in zip(axes, values, (BLUE, ORANGE, GREEN), strict=True):
            axis.plot(t, value, color=colour)
    for axis, label in zip(axes, labels, strict=True):
        axis.set_ylabel(label)
        axis.axhline(0.0, color=FAINT, linewidth=0.8, zorder=0)
        for time in solution.t_events[0]:
            axis.axvline(time, color=FAINT, linewidth=0.8, zorder=0)
    axes[-1].set_xlabel("t (s)")
    axes[-1].set_xlim(0.0, END)
    save(figure, "measured/bounce.svg")


if __name__ == "__main__":
    draw()
