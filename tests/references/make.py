"""Recompute the stored references, without adjode, and compare.

    python tests/references/make.py            compare, and fail if anything is off
    python tests/references/make.py --write    also write all but the reference of the spiral anew

Lotka-Volterra: Taylor series of the system and of its variational equations, 40 terms in 40-digit decimal arithmetic. The
spiral: SciPy's DOP853 at rtol 1e-13 on the variational equations, with a Jacobian written out by hand, in pieces that end at
the observation times. Pleiades: Taylor series of the system and its variational equations, 24 terms in NumPy's long doubles
(64 bits of mantissa on x86), where only the recurrences of products, quotients and powers are written out, and no Jacobian. The
batch network: SciPy's DOP853 at rtol 1e-13 on the adjoint equation beside the state and theta_bar, and the slope of the loss along
one direction by the complex step. `rober` and the other
stiff problems are recomputed by make_stiff.py.
"""

from __future__ import annotations

import argparse
import decimal
import itertools
import json
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

HERE = Path(__file__).parent
TERMS = 40  # of a Taylor series
_PROBLEMS = ("lv_final", "lv_series", "spiral", "spiral_data", "pleiades", "batch_network")
LIMIT = dict.fromkeys(_PROBLEMS, 1e-12) | dict.fromkeys(("lv_final", "lv_series"), 1e-15)  # largest error accepted
NAMES = ("u1", "u2", "a", "b", "c", "d")  # of the inputs that Lotka-Volterra's sensitivities are taken by


# --- Lotka-Volterra: a value and its derivatives by the six inputs are carried together -----------------------------------


def product_term(x, y, k):
    """Coefficient k of the product of two series of (value, derivatives...)."""
    value = sum(x[i][0] * y[k - i][0] for i in range(k + 1))
    parts = [sum(x[i][j] * y[k - i][0] + x[i][0] * y[k - i][j] for i in range(k + 1)) for j in range(1, 7)]
    return [value, *parts]


def times_parameter(theta, p, x):
    """Parameter p times (value, derivatives...)."""
    parts = [theta[p] * entry for entry in x]
    parts[3 + p] += x[0]
    return parts


def lv_step(u, v, theta, h):
    """One step h of the Taylor series of u' = a u - b u v, v' = -c v + d u v."""
    us, vs = [u], [v]
    for k in range(TERMS):
        uv = product_term(us, vs, k)
        growth, eaten = times_parameter(theta, 0, us[k]), times_parameter(theta, 1, uv)
        death, births = times_parameter(theta, 2, vs[k]), times_parameter(theta, 3, uv)
        us.append([(x - y) / (k + 1) for x, y in zip(growth, eaten, strict=True)])
        vs.append([(y - x) / (k + 1) for x, y in zip(death, births, strict=True)])
    sums = []
    for series in (us, vs):
        total = [Decimal(0)] * 7
        for term in reversed(series):
            total = [s * h + x for s, x in zip(total, term, strict=True)]
        sums.append(total)
    return sums


def lotka_volterra(stored):
    """The references of lv_final and lv_series, by the same names as stored."""
    decimal.getcontext().prec = 40
    theta = [Decimal(repr(float(x))) for x in stored["lv_final"]["theta"]]
    u = [Decimal(repr(float(stored["lv_final"]["u0"][0]))), *map(Decimal, (1, 0, 0, 0, 0, 0))]
    v = [Decimal(repr(float(stored["lv_final"]["u0"][1]))), *map(Decimal, (0, 1, 0, 0, 0, 0))]
    series = [Decimal(0)] * 7
    for _ in range(100):
        u, v = lv_step(u, v, theta, Decimal("0.1"))
        series = [s + x + y for s, x, y in zip(series, u, v, strict=True)]
    final = [x + y for x, y in zip(u, v, strict=True)]
    slope = theta[0] * u[0] - theta[1] * u[0] * v[0] - theta[2] * v[0] + theta[3] * u[0] * v[0]
    state = {"final": [u[0], v[0]]}
    return {
        "lv_final": {"loss": final[:1], "u0": final[1:3], "theta": final[3:], "T": [slope], **state},
        "lv_series": {"loss": series[:1], "u0": series[1:3], "theta": series[3:], **state},
    }


# --- the spiral -------------------------------------------------------------------------------------------------------


def spiral_data():
    """Times and states of the cubic spiral that the neural ODE is fitted to."""
    A = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    times = np.linspace(0.0, 1.5, 30)
    states = [np.array([2.0, 0.0])]
    for start, end in itertools.pairwise(times):
        piece = solve_ivp(lambda t, u: A.T @ u**3, (start, end), states[-1], method="DOP853", rtol=1e-13, atol=1e-15)
        states.append(piece.y[:, -1])
    return times, np.array(states)


def spiral_rhs(t, y, w1, b1, w2, b2):
    """The neural ODE and its variational equations: y holds u (2,) and S (2, 2 + 252), the derivative of u by (u0, theta)."""
    u, S = y[:2], y[2:].reshape(2, -1)
    cube = u**3
    a = np.tanh(w1 @ cube + b1)
    slope = 1.0 - a**2
    by_u = (w2 * slope) @ w1 * (3.0 * u**2)
    dS = by_u @ S
    through = w2 * slope  # du'/dz, z = W1 u^3 + b1
    H = b1.size
    dS[:, 2 : 2 + 2 * H] += (through[:, :, None] * cube).reshape(2, 2 * H)
    dS[:, 2 + 2 * H : 2 + 3 * H] += through
    for k in range(2):
        dS[k, 2 + (3 + k) * H : 2 + (4 + k) * H] += a
        dS[k, 2 + 5 * H + k] += 1.0
    return np.concatenate([w2 @ a + b2, dS.ravel()])


def spiral(times, states):
    rng = np.random.default_rng(0)
    w1, b1 = rng.normal(size=(50, 2)) * 0.1, np.zeros(50)
    w2, b2 = rng.normal(size=(2, 50)) * 0.1, np.zeros(2)
    y = np.concatenate([[2.0, 0.0], np.eye(2, 254).ravel()])
    loss, gradient = 0.0, np.zeros(254)
    for k, t in enumerate(times):
        if k:
            span = (times[k - 1], t)
            y = solve_ivp(spiral_rhs, span, y, args=(w1, b1, w2, b2), method="DOP853", rtol=1e-13, atol=1e-15).y[:, -1]
        residual = y[:2] - states[k]
        loss += residual @ residual
        gradient += 2.0 * residual @ y[2:].reshape(2, -1)
    return {"spiral": {"loss": [loss], "u0": gradient[:2], "theta": gradient[2:], "final": y[:2]}}


# --- Pleiades: arrays (..., 36) hold a value and its derivatives by u0 (28) and the masses (7) -------------------------------

LEFT, RIGHT = np.triu_indices(7, 1)  # the pairs of bodies
PULL = np.eye(7)[:, LEFT], np.eye(7)[:, RIGHT]  # from pairs to bodies
PLEIADES_TERMS = 24


def times(x, y):
    return np.concatenate([x[..., :1] * y[..., :1], x[..., 1:] * y[..., :1] + x[..., :1] * y[..., 1:]], axis=-1)


def over(x, y):
    value = x[..., :1] / y[..., :1]
    return np.concatenate([value, (x[..., 1:] - value * y[..., 1:]) / y[..., :1]], axis=-1)


def term(x, y, k):
    """Coefficient k of the product of two series, their coefficients along the first axis."""
    return times(x[: k + 1], y[k::-1]).sum(axis=0)


def pleiades_series(u, masses):
    """Taylor coefficients (PLEIADES_TERMS + 1, 28, 36) of the solution through u."""
    place = np.zeros((PLEIADES_TERMS + 2, 2, 7, 36), dtype=u.dtype)  # (term, coordinate, body, value and derivatives)
    place[:2] = u.reshape(2, 2, 7, 36)  # positions, and velocities as their slopes
    apart = np.zeros((PLEIADES_TERMS, 2, 21, 36), dtype=u.dtype)
    squared, near = np.zeros((2, PLEIADES_TERMS, 21, 36), dtype=u.dtype)  # r^2, and its power -3/2
    for k in range(PLEIADES_TERMS):
        apart[k] = place[k][:, RIGHT] - place[k][:, LEFT]
        squared[k] = term(apart, apart, k).sum(axis=0)
        if k == 0:
            root = np.sqrt(squared[0, :, :1])
            near[0] = np.concatenate([root**-3, -1.5 * root**-5 * squared[0, :, 1:]], axis=-1)
        else:
            # p = r^2, s = p^(-3/2): p s' = -3/2 p' s
            weights = -1.5 * np.arange(1, k + 1) - np.arange(k - 1, -1, -1)
            total = (weights[:, None, None] * times(squared[1 : k + 1], near[k - 1 :: -1])).sum(axis=0)
            near[k] = over(total, k * squared[0])
        force = term(near[:, None], apart, k)
        slope = PULL[0] @ times(masses[RIGHT], force) - PULL[1] @ times(masses[LEFT], force)
        place[k + 2] = slope / ((k + 1) * (k + 2))
    speed = place[1:] * np.arange(1, PLEIADES_TERMS + 2)[:, None, None, None]
    return np.stack([place[:-1], speed], axis=1).reshape(-1, 28, 36)


def pleiades(stored):
    rows = np.eye(35, 36, 1, dtype=np.longdouble)
    u, masses = rows[:28].copy(), rows[28:].copy()
    u[:, 0], masses[:, 0] = stored["u0"], stored["theta"]
    t, T = np.longdouble(0), np.longdouble(stored["t_span"][1])
    while t < T:
        series = pleiades_series(u, masses)
        size = np.abs(series).max(axis=(1, 2))
        # the last terms, and so roughly what is left out, are 1e-20 of the first
        h = min(T - t, *((1e-20 * size[0] / size[-k]) ** (1.0 / (len(size) - k)) for k in (1, 2)))
        u = np.polynomial.polynomial.polyval(h, series)
        t = t + h
    loss = np.cos(np.arange(14)) @ u[:14]
    return {"pleiades": {"loss": loss[:1], "u0": loss[1:29], "theta": loss[29:], "final": u[:, 0]}}


# --- the batch network: U' = tanh(tanh(U W1^T + b1) W2^T + b2) W3^T + b3 --------------------------------------------------

SHAPES = ((64, 2), (64,), (64, 64), (64,), (2, 64), (2,))  # of W1, b1, W2, b2, W3, b3
TIGHT = {"method": "DOP853", "rtol": 1e-13, "atol": 1e-14}


def split(theta):
    ends = np.cumsum([np.prod(shape) for shape in SHAPES])
    return [part.reshape(shape) for part, shape in zip(np.split(theta, ends[:-1]), SHAPES, strict=True)]


def network(U, theta):
    """The activations of both hidden layers, and U'."""
    w1, b1, w2, b2, w3, b3 = split(theta)
    first = np.tanh(U @ w1.T + b1)
    second = np.tanh(first @ w2.T + b2)
    return first, second, second @ w3.T + b3


def network_adjoint(t, y, theta):
    """The right-hand side for y = (u, lam, theta_bar)."""
    n = (y.size - theta.size) // 2
    U, lam = y[:n].reshape(-1, 2), y[n : 2 * n].reshape(-1, 2)
    w1, _, w2, _, w3, _ = split(theta)
    first, second, slope = network(U, theta)
    to_second = (lam @ w3) * (1.0 - second**2)
    to_first = (to_second @ w2) * (1.0 - first**2)
    blocks = (to_first.T @ U, to_first.sum(0), to_second.T @ first, to_second.sum(0), lam.T @ second, lam.sum(0))
    return np.concatenate([slope.ravel(), -(to_first @ w1).ravel(), *(-block.ravel() for block in blocks)])


def network_final(u0, theta):
    return solve_ivp(lambda t, u: network(u.reshape(-1, 2), theta)[2].ravel(), (0.0, 1.0), u0, **TIGHT).y[:, -1]


def batch_network():
    rng = np.random.default_rng(0)
    theta = np.zeros(sum(np.prod(shape) for shape in SHAPES))
    for weights in split(theta)[::2]:  # views
        weights[:] = rng.normal(size=weights.shape) / np.sqrt(weights.shape[1])
    u0 = rng.normal(size=512)
    final = network_final(u0, theta)
    start = np.concatenate([final, 2.0 * final, np.zeros(theta.size)])
    y = solve_ivp(network_adjoint, (1.0, 0.0), start, args=(theta,), **TIGHT).y[:, -1]
    blocks = {"loss": np.array([final @ final]), "u0": y[512:1024], "theta": y[1024:], "final": final}

    directions = rng.normal(size=512), rng.normal(size=theta.size)
    moved = network_final(u0 + 1e-20j * directions[0], theta + 1e-20j * directions[1])
    slope = np.sum(moved**2).imag / 1e-20
    return blocks, [blocks["u0"] @ directions[0] + blocks["theta"] @ directions[1]], [slope]


def compare_network(write):
    blocks, product, slope = batch_network()
    path = HERE / "batch_network.npz"
    if write:
        np.savez(path, **blocks)
    with np.load(path) as stored:
        agreed = compare({"batch_network": blocks}, {"batch_network": {"reference": dict(stored)}})
    error = disagreement(product, slope)
    print(f"{'batch_network':13s} {'slope':6s} {error:.1e}")
    return agreed and error < LIMIT["batch_network"]


# --- compare ----------------------------------------------------------------------------------------------------------


def disagreement(got, stored):
    """Largest difference, relative to the largest entry."""
    got, stored = np.array([float(x) for x in got]), np.array(stored, dtype=float)
    return float(np.max(np.abs(got - stored)) / np.max(np.abs(stored)))


def compare(recomputed, stored):
    agreed = True
    for name, blocks in recomputed.items():
        assert set(blocks) == set(stored[name]["reference"]), name
        for block, values in blocks.items():
            error = disagreement(values, stored[name]["reference"][block])
            agreed &= error < LIMIT[name]
            print(f"{name:13s} {block:6s} {error:.1e}")
    return agreed


def compare_data(times, states, write):
    path = HERE / "spiral_data.csv"
    if write:
        lines = ["# Cubic spiral du/dt = A^T u^3, A = [[-0.1, 2], [-2, -0.1]], u(0) = (2, 0); written by make.py", "t,u1,u2"]
        lines += [f"{t!r},{u1!r},{u2!r}" for t, (u1, u2) in zip(times.tolist(), states.tolist(), strict=True)]
        path.write_text("\n".join(lines) + "\n")
    table = np.loadtxt(path, delimiter=",", skiprows=2)
    error = disagreement(np.column_stack([times, states]).ravel(), table.ravel())
    print(f"{'spiral':13s} {'data':6s} {error:.1e}")
    return error < LIMIT["spiral_data"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write all but the reference of the spiral anew")
    write = parser.parse_args().write
    stored = json.loads((HERE / "problems.json").read_text())
    print("difference from the stored values, relative to the largest entry")
    by_series = lotka_volterra(stored) | pleiades(stored["pleiades"])
    if write:
        for name, blocks in by_series.items():
            stored[name]["reference"] = {block: [float(x) for x in values] for block, values in blocks.items()}
        (HERE / "problems.json").write_text(json.dumps(stored, indent=1) + "\n")
    agreed = compare(by_series, stored)
    times, states = spiral_data()
    agreed &= compare_data(times, states, write)
    agreed &= compare(spiral(times, states), stored)
    agreed &= compare_network(write)
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
