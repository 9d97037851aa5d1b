"""Train a neural ordinary differential equation on a spiral.

The data are 30 points of du/dt = A^T u^3. The model is du/dt = W2 tanh(W1 u^3 + b1) + b2, a network with 50 hidden units and 252
weights (the spiral of Chen, Rubanova, Bettencourt, Duvenaud 2018). SciPy's L-BFGS-B trains it on the whole trajectory at once,
with adjoint gradients.

    python examples/spiral.py
"""

import math
import time
from pathlib import Path

import matplotlib
import numpy as np
from scipy.integrate import solve_ivp

import adjode

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
A = np.array([[-0.1, 2.0], [-2.0, -0.1]])
U0 = np.array([2.0, 0.0])
T_OBS = np.linspace(0.0, 1.5, 30)
T_SPAN = (T_OBS[0], T_OBS[-1])
TOLERANCES = {"rtol": 1e-6, "atol": 1e-6}
ITERATIONS = 600

# Callbacks see theta as one vector: W1 (50, 2) row by row, b1, W2 (2, 50) row by row, b2.
HIDDEN = 50
B1 = 2 * HIDDEN
W2 = 3 * HIDDEN
B2 = 5 * HIDDEN


# The network and its vector-Jacobian product, one hidden unit after another: in place, without arrays of their own.
def network(t, u, theta, du):
    x, y = u[0] ** 3, u[1] ** 3
    du[0], du[1] = theta[B2], theta[B2 + 1]
    for i in range(HIDDEN):
        a = math.tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[B1 + i])
        du[0] += theta[W2 + i] * a
        du[1] += theta[W2 + HIDDEN + i] * a


def network_vjp(t, u, theta, lam, u_bar, theta_bar):
    x, y = u[0] ** 3, u[1] ** 3
    x_bar, y_bar = 0.0, 0.0
    for i in range(HIDDEN):
        a = math.tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[B1 + i])
        a_bar = lam[0] * theta[W2 + i] + lam[1] * theta[W2 + HIDDEN + i]
        z_bar = a_bar * (1.0 - a * a)  # z is the argument of tanh
        theta_bar[2 * i] = z_bar * x
        theta_bar[2 * i + 1] = z_bar * y
        theta_bar[B1 + i] = z_bar
        theta_bar[W2 + i] = lam[0] * a
        theta_bar[W2 + HIDDEN + i] = lam[1] * a
        x_bar += z_bar * theta[2 * i]
        y_bar += z_bar * theta[2 * i + 1]
    theta_bar[B2], theta_bar[B2 + 1] = lam[0], lam[1]
    u_bar[0], u_bar[1] = 3.0 * u[0] ** 2 * x_bar, 3.0 * u[1] ** 2 * y_bar


def true_trajectory(times):
    return solve_ivp(lambda t, u: A.T @ u**3, (0.0, times[-1]), U0, method="DOP853", t_eval=times, rtol=1e-10, atol=1e-10).y.T


def initial_weights():
    rng = np.random.default_rng(0)
    return {
        "W1": rng.normal(size=(HIDDEN, 2)) * 0.1,
        "b1": np.zeros(HIDDEN),
        "W2": rng.normal(size=(2, HIDDEN)) * 0.1,
        "b2": np.zeros(2),
    }


def build_fit():
    dynamics = adjode.Dynamics(network, network_vjp)
    adjode.check_vjp(dynamics, U0, initial_weights()).raise_if_wrong()
    # LeastSquares is half a sum of squares; this sigma makes it the sum
    loss = adjode.losses.LeastSquares(T_OBS, true_trajectory(T_OBS), sigma=math.sqrt(0.5))
    return adjode.Fit(dynamics, loss, T_SPAN, u0=U0, theta=initial_weights(), **TOLERANCES)


class History:
    """Keeps the weights and the loss of every iteration, and prints some of them."""

    def __init__(self, x, loss):
        self.weights, self.losses = [x.copy()], [loss]

    def __call__(self, intermediate_result):
        self.weights.append(intermediate_result.x.copy())
        self.losses.append(intermediate_result.fun)
        if (len(self.losses) - 1) % 50 == 0:
            print(f"  iteration {len(self.losses) - 1:4d}  loss {self.losses[-1]:.3e}")


def draw(fit, history, path):
    times = np.linspace(*T_SPAN, 600)
    truth = true_trajectory(times)
    last = len(history.losses) - 1
    shown = {0: "tab:orange", 20: "tab:green", last: "tab:blue"}
    paths = {}
    for k in shown:
        u0, theta = fit.unpack(history.weights[k])
        paths[k] = adjode.solve(fit.dynamics, u0, theta, T_SPAN, **TOLERANCES)(times)

    figure, (phase, series, curve) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    labels = {k: "before training" if k == 0 else f"iteration {k}" for k in shown}
    phase.plot(*truth.T, color="0.8", linewidth=6, label="truth", solid_capstyle="round")
    for k, colour in shown.items():
        phase.plot(*paths[k].T, color=colour, label=labels[k], zorder=3 if k == last else 2)
    phase.plot(*true_trajectory(T_OBS).T, "o", color="0.15", markersize=4, label="data", zorder=4)
    phase.set(title="Trajectory", xlabel="$u_1$", ylabel="$u_2$", aspect="equal", xlim=(-2.3, 3.1), ylim=(-2.2, 3.2))
    phase.legend(loc="upper center", ncols=3, fontsize="small")

    for i, colour in enumerate(("tab:blue", "tab:red")):
        series.plot(times, truth[:, i], color="0.8", linewidth=6, label="truth" if i == 0 else None)
        series.plot(times, paths[last][:, i], color=colour, label=f"$u_{i + 1}$, learned")
        series.plot(T_OBS, true_trajectory(T_OBS)[:, i], "o", color=colour, markersize=4)
    series.set(title="Learned states and data", xlabel="time t", ylabel="states $u_1$, $u_2$", ylim=(-2.6, 3.3))
    series.legend(ncols=3, loc="upper center", fontsize="small")

    curve.semilogy(history.losses, color="0.3", linewidth=1.2)
    for k, colour in shown.items():
        curve.plot(k, history.losses[k], "o", color=colour, clip_on=False)
    curve.set(title="Training", xlabel="iteration of L-BFGS-B", ylabel="L: sum of squared errors at the data", xlim=(0, last))
    curve.grid(alpha=0.3)

    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main():
    began = time.perf_counter()
    fit = build_fit()
    loss, _ = fit.value_and_gradient(fit.x0)
    print(f"{len(fit.x0)} weights, {T_OBS.size} points; compiled and checked in {time.perf_counter() - began:.1f} s")

    history = History(fit.x0, loss)
    began = time.perf_counter()
    result = fit.minimize(callback=history, options={"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "maxcor": 30, "ftol": 1e-14})
    seconds = time.perf_counter() - began
    each = 1e3 * seconds / result.nfev
    print(f"{result.nit} iterations, {result.nfev} losses and gradients in {seconds:.1f} s ({each:.1f} ms each)")
    print(f"loss before: {loss:.4g}, after: {result.fun:.4g}")

    path = HERE / "output" / "spiral.png"
    draw(fit, history, path)
    print(f"figure: {path}")


if __name__ == "__main__":
    main()
