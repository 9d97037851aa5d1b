"""How well do the pelts of hare and lynx determine the model? Ten thousand bootstrap fits, all at once.

The fit of `hare_lynx.py` is taken for the truth. Ten thousand sets of counts are drawn from it, with log-normal errors as the fit
assumes them, and to each of them the four rates and both initial populations are fitted anew. The fits go side by side, by a BFGS
method over arrays: each of its steps is one call of `ensemble_value_and_gradient`, in which each trajectory has counts of its own.

    python examples/bootstrap.py
"""

import argparse
import time
from pathlib import Path

import hare_lynx
import matplotlib
import numpy as np
from hare_lynx import PELTS, SIGMA, T_OBS, T_SPAN, TOLERANCES, YEAR

import adjode

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NAMES = ("hare 1900", "lynx 1900", "a", "b", "c", "d")
_STEPS, _HALVINGS = 40, 12


def fit_once(dynamics):
    """The fit to the counts themselves: the logarithms of the six entries, and the inverse of the Hessian there."""
    loss = adjode.losses.LeastSquares(T_OBS, PELTS, sigma=SIGMA, log=True)
    start = {"u0": hare_lynx.START_U0, "theta": hare_lynx.START_THETA}
    fit = adjode.Fit(dynamics, loss, T_SPAN, **start, free=("u0", "theta"), log=("u0", "theta"), **TOLERANCES)
    x = fit.minimize(tol=1e-12).x
    slopes = [fit.value_and_gradient(x + 1e-5 * e)[1] - fit.value_and_gradient(x - 1e-5 * e)[1] for e in np.eye(x.size)]
    return x, np.linalg.inv((np.array(slopes) + np.transpose(slopes)) / 4e-5)


def draw_counts(dynamics, x, N, rng):
    """(N, k, 2) counts that the fitted model might have given."""
    z = np.exp(x)
    u = adjode.solve(dynamics, z[:2], z[2:], T_SPAN, **TOLERANCES)(T_OBS)
    return u * np.exp(SIGMA * rng.normal(size=(N, *u.shape)))


class Losses:
    """The losses of all fits, and their gradients by the logarithms of the six entries."""

    def __init__(self, dynamics, counts):
        self.dynamics, self.counts, self.solves, self.failed = dynamics, counts, 0, 0

    def __call__(self, x, which):
        """Of the fits `which`, at their rows of x; infinite where a solve fails."""
        loss = adjode.losses.LeastSquares(T_OBS, self.counts[which], sigma=SIGMA, log=True)
        evaluate = adjode.ensemble_value_and_gradient(self.dynamics, loss, T_SPAN, on_failure="nan", **TOLERANCES)
        z = np.exp(x[which])
        value, bar = evaluate(z[:, :2], z[:, 2:])
        self.solves += len(z)
        self.failed += bar.stats.n_failed
        return np.where(np.isnan(value), np.inf, value), np.hstack([bar.u0, bar.theta]) * z


def minimize_all(losses, x, H, tolerance=1e-4):
    """BFGS with backtracking from the rows of x (N, k), all with H for their first inverse Hessian.

    A fit is done when its next step would lower the loss by less than tolerance**2 / 2. Returns x, the losses, and how many are
    left.
    """
    N, k = x.shape
    x, H, left = x.copy(), np.tile(H, (N, 1, 1)), np.arange(N)
    value, gradient = losses(x, left)
    for _ in range(_STEPS):
        step = -np.einsum("nij,nj->ni", H[left], gradient[left])
        slope = np.einsum("ni,ni->n", gradient[left], step)
        busy = -slope > tolerance**2
        left, step, slope = left[busy], step[busy], slope[busy]
        if not left.size:
            break
        new_x, new_value, new_gradient = search_all(losses, x, value, left, step, slope)
        update_all(H, left, new_x - x[left], new_gradient - gradient[left])
        x[left], value[left], gradient[left] = new_x, new_value, new_gradient
    return x, value, left.size


def search_all(losses, x, value, left, step, slope):
    """Halve the steps of those fits whose losses do not fall enough."""
    new_x, new_value, new_gradient = x[left] + step, np.full(left.size, np.inf), np.zeros_like(step)
    trial, open_ = x.copy(), np.arange(left.size)
    for halvings in range(_HALVINGS):
        trial[left[open_]] = new_x[open_] = x[left[open_]] + 0.5**halvings * step[open_]
        new_value[open_], new_gradient[open_] = losses(trial, left[open_])
        open_ = open_[~(new_value[open_] <= value[left[open_]] + 1e-4 * 0.5**halvings * slope[open_])]
        if not open_.size:
            break
    if open_.size:  # no step helps: stay
        new_x[open_] = x[left[open_]]
        new_value[open_], new_gradient[open_] = losses(x, left[open_])
    return new_x, new_value, new_gradient


def update_all(H, left, s, y):
    """The BFGS formula for the inverse Hessian, where the curvature along the step is positive."""
    curvature = np.einsum("ni,ni->n", s, y)
    good = curvature > 1e-12
    left, s, y, rho = left[good], s[good], y[good], 1.0 / curvature[good, None, None]
    turned = np.eye(s.shape[1]) - rho * s[:, :, None] * y[:, None, :]
    H[left] = turned @ H[left] @ turned.transpose(0, 2, 1) + rho * s[:, :, None] * s[:, None, :]


def draw(dynamics, x, fits, covariance, path):
    """The band of fitted solutions, and the distributions of the six entries next to those of the linear theory."""
    figure, axes = plt.subplots(2, 4, figsize=(15, 6.5), layout="constrained")
    t = np.linspace(*T_SPAN, 201)
    some = np.exp(fits[:2000])
    u = adjode.solve_ensemble(dynamics, some[:, :2], some[:, 2:], T_SPAN, t_eval=t, **TOLERANCES).u_eval
    for i, (animal, colour) in enumerate((("hare", "tab:brown"), ("lynx", "tab:blue"))):
        low, middle, high = np.percentile(u[:, :, i], (2.5, 50, 97.5), axis=0)
        axes[i, 0].fill_between(YEAR[0] + t, low, high, color=colour, alpha=0.25, label="95% of the fits")
        axes[i, 0].plot(YEAR[0] + t, middle, color=colour, label="their median")
        axes[i, 0].plot(YEAR, PELTS[:, i], "o", color=colour, markersize=4, label="counted")
        axes[i, 0].set(title=animal, xlabel="year", ylabel="thousand pelts", xticks=YEAR[::5], ylim=(0, 1.4 * high.max()))
        axes[i, 0].legend(ncols=3, loc="upper center", fontsize="small", columnspacing=1.0)
    spreads = np.sqrt(np.diag(covariance))
    for panel, name, best, values, spread in zip(axes[:, 1:].T.ravel(), NAMES, x, fits.T, spreads, strict=True):
        panel.hist(np.exp(values), bins=60, density=True, color="0.8", label="bootstrap")
        z = np.exp(np.linspace(values.min(), values.max(), 300))
        normal = np.exp(-(((np.log(z) - best) / spread) ** 2) / 2) / (spread * np.sqrt(2 * np.pi))
        panel.plot(z, normal / z, color="0.2", label="linear theory")
        panel.axvline(np.exp(best), color="tab:red", linewidth=1.0, label="fit to the counts")
        meaning = hare_lynx.MEANINGS.get(name)
        panel.locator_params(axis="x", nbins=5)
        panel.set(title=f"{name}: {meaning}" if meaning else name, yticks=[], xlabel=hare_lynx.UNITS.get(name, "thousand pelts"))
    for panel in axes[:, 1]:
        panel.set_ylabel("density of the fits")
    axes[0, 1].margins(y=0.4)  # room for the legend
    axes[0, 1].legend(fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-N", type=int, default=10_000, help="number of bootstrap fits")
    parser.add_argument("--portable", action="store_true", help="do not compile the passes for this model")
    arguments = parser.parse_args()
    callbacks = hare_lynx.lotka_volterra, hare_lynx.lotka_volterra_vjp
    dynamics = adjode.Dynamics(*callbacks, fused=not arguments.portable)
    x, covariance = fit_once(dynamics)
    losses = Losses(dynamics, draw_counts(dynamics, x, arguments.N, np.random.default_rng(0)))
    began = time.perf_counter()
    fits, value, left = minimize_all(losses, np.tile(x, (arguments.N, 1)), covariance)
    seconds = time.perf_counter() - began
    print(f"{len(fits)} fits, {losses.solves} gradients in {seconds:.1f} s; {left} not done, {losses.failed} solves failed")
    print(f"mean loss {value.mean():.2f}; for {2 * T_OBS.size} counts and 6 entries one expects {T_OBS.size - 3}\n")
    print("             fit        95% of the bootstrap    spread of the logarithm: bootstrap, linear theory")
    for name, best, values, variance in zip(NAMES, x, fits.T, np.diag(covariance), strict=True):
        low, high = np.exp(np.percentile(values, (2.5, 97.5)))
        print(f"{name:10s} {np.exp(best):8.4f}    {low:8.4f} .. {high:8.4f}    {values.std():.4f}  {variance**0.5:.4f}")
    path = Path(__file__).parent / "output" / "bootstrap.png"
    draw(dynamics, x, fits, covariance, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
