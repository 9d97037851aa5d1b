"""Right-hand sides as scientists write them, with whole arrays, lists and dictionaries: `CASES` has each with its n and m."""

from collections import namedtuple
from collections.abc import Callable

import numpy as np

CASES: list[tuple[Callable, int, int]] = []


def case(n, m):
    def add(f):
        CASES.append((f, n, m))
        return f

    return add


CONTACT = np.array([[2.0, 0.5, 0.3], [0.5, 1.5, 0.4], [0.3, 0.4, 1.1]])


PARAMS = {"k": 2.0, "g": 9.81, "names": "x", "A": np.array([[1.0, 0.2], [0.3, 2.0]])}


STOICH = [(0, 1, 2, 0.5), (1, 2, 0, 0.3), (2, 0, 1, 0.7)]


STOICH_T = tuple(STOICH)


S = np.array([[-1, 0, 1, 0], [1, -1, 0, 0], [0, 1, -1, -1]])


REACTANTS = [[0], [1, 2], [2], [0, 0]]


MASSES = [1.0, 2.0, 1.5]


@case(8, 2 * 6 + 6 + 6 * 6 + 6 + 6 * 2 + 2)
def batched_node(t, u, theta, du):
    x = u.reshape(4, 2)
    sizes = (2, 6, 6, 2)
    k = 0
    for i in range(3):
        nin, nout = sizes[i], sizes[i + 1]
        W = theta[k : k + nin * nout].reshape(nin, nout)
        k += nin * nout
        b = theta[k : k + nout]
        k += nout
        x = x @ W + b
        if i < 2:
            x = np.tanh(x)
    du[:] = x.ravel()


@case(8, 2 * 6 + 6 + 6 * 6 + 6 + 6 * 2 + 2)
def batched_loop_zip(t, u, theta, du):
    x = u.reshape(4, 2)
    start = 0
    for nin, nout in zip((2, 6, 6), (6, 6, 2), strict=True):
        W = theta[start : start + nin * nout].reshape(nout, nin)
        b = theta[start + nin * nout : start + nin * nout + nout]
        start += nin * nout + nout
        x = np.tanh(np.dot(x, W.T) + b[None, :])
    du[:] = x.reshape(-1)


@case(4, 4 * 4 * 3)
def layers_in_loop(t, u, theta, du):
    x = u
    for k in range(3):
        W = theta[16 * k : 16 * (k + 1)].reshape(4, 4)
        x = np.tanh(W @ x)
    du[:] = x


@case(4, 4 * 4 * 3)
def layers_runtime_loop(t, u, theta, du):
    x = u.copy()
    for k in range(theta.size // 16):
        W = theta[16 * k : 16 * (k + 1)].reshape(4, 4)
        x = np.tanh(W @ x)
    du[:] = x


@case(4, 4 * 4 * 3)
def layers_3d(t, u, theta, du):
    Ws = theta.reshape(3, 4, 4)
    x = u
    for W in Ws:
        x = np.tanh(W @ x)
    du[:] = x


@case(3, 3)
def growing_list(t, u, theta, du):
    r = []
    for i in range(3):
        r.append(theta[i] * u[i] ** 2)
    for i in range(3):
        du[i] = r[i] - r[(i + 1) % 3]


@case(3, 3)
def growing_list_sum(t, u, theta):
    out = []
    for i in range(len(MASSES)):
        s = 0.0
        for j in range(3):
            if i != j:
                s += theta[j] * (u[j] - u[i])
        out.append(s)
    return np.array(out)


@case(3, 3)
def list_of_u_size(t, u, theta):
    out = []
    for i in range(u.size):
        out.append(theta[i] * u[i] ** 2)
    return np.array(out)


@case(3, 3)
def growing_list_zip(t, u, theta, du):
    flux = []
    for (a, b, _, k), th in zip(STOICH, theta, strict=True):
        flux.append(k * th * u[a] * u[b])
    du[0] = flux[2] - flux[0]
    du[1] = flux[0] - flux[1]
    du[2] = flux[1] - flux[2]


@case(3, 9)
def einsum_mv(t, u, theta, du):
    du[:] = np.einsum("ij,j->i", theta.reshape(3, 3), u)


@case(3, 27)
def einsum_quadratic(t, u, theta, du):
    du[:] = np.einsum("ijk,j,k->i", theta.reshape(3, 3, 3), u, u)


@case(4, 4)
def einsum_matmul(t, u, theta, du):
    du[:] = np.einsum("ij,jk->ik", theta.reshape(2, 2), u.reshape(2, 2)).ravel()


@case(4, 4)
def einsum_implicit(t, u, theta, du):
    du[:] = np.einsum("i,i", u, theta) * u + np.einsum("ii->", u.reshape(2, 2))


@case(6, 3)
def sum_axis(t, u, theta, du):
    X = u.reshape(3, 2)
    d = X[:, None, :] - X[None, :, :]
    r2 = np.sum(d * d, axis=2) + 0.1
    F = -np.sum(theta[None, :, None] * d / (r2**1.5)[:, :, None], axis=1)
    du[:] = F.ravel()


@case(6, 3)
def sum_axis_minus(t, u, theta, du):
    X = u.reshape(3, 2)
    d = X[:, np.newaxis] - X
    r = np.sqrt((d**2).sum(axis=-1) + 0.1)
    F = (theta[:, np.newaxis] * d / r[..., np.newaxis] ** 3).sum(axis=1)
    du[:] = F.flatten()


@case(28, 7)
def pleiades_fill_diag(t, u, theta):
    x, y, vx, vy = np.split(u, 4)
    dx = np.subtract.outer(x, x)
    dy = np.subtract.outer(y, y)
    r2 = dx * dx + dy * dy
    np.fill_diagonal(r2, 1.0)
    w = theta / r2**1.5
    return np.concatenate((vx, vy, -(w * dx).sum(axis=1), -(w * dy).sum(axis=1)))


@case(28, 7)
def pleiades_hstack(t, u, theta):
    q = u[:14].reshape(2, 7)
    v = u[14:]
    d = q[:, None, :] - q[:, :, None]
    r3 = (np.sum(d**2, axis=0) + np.eye(7)) ** 1.5
    acc = np.sum(theta * d / r3, axis=2)
    return np.hstack([v, acc.ravel()])


@case(6, 1)
def lorenz96_roll(t, u, theta, du):
    du[:] = (np.roll(u, -1) - np.roll(u, 2)) * np.roll(u, 1) - u + theta[0]


@case(2 * 9, 3)
def brusselator_roll(t, u, theta, du):
    n = 3
    U, V = u[: n * n].reshape(n, n), u[n * n :].reshape(n, n)

    def lap(w):
        return np.roll(w, 1, axis=0) + np.roll(w, -1, axis=0) + np.roll(w, 1, axis=1) + np.roll(w, -1, axis=1) - 4 * w

    A, B, D = theta[0], theta[1], theta[2]
    du[: n * n] = (D * lap(U) + A - (B + 1) * U + U**2 * V).ravel()
    du[n * n :] = (D * lap(V) + B * U - U**2 * V).ravel()


def laplacian(w, dx=0.5):
    return (np.roll(w, 1, 0) + np.roll(w, -1, 0) + np.roll(w, 1, 1) + np.roll(w, -1, 1) - 4.0 * w) / dx**2


@case(2 * 9, 4)
def gray_scott(t, u, theta, du):
    uv = u.reshape(2, 3, 3)
    U, V = uv[0], uv[1]
    Du, Dv, F, k = theta
    uvv = U * V * V
    dU = Du * laplacian(U) - uvv + F * (1 - U)
    dV = Dv * laplacian(V, dx=0.5) + uvv - (F + k) * V
    du[:] = np.stack((dU, dV)).ravel()


@case(5, 6)
def kuramoto_outer(t, u, theta, du):
    du[:] = theta[:5] + theta[5] / len(u) * np.sin(np.subtract.outer(u, u)).sum(axis=0)


@case(5, 6)
def kuramoto_broadcast(t, u, theta, du):
    omega, K = theta[:-1], theta[-1]
    du[:] = omega + K * np.mean(np.sin(u[None, :] - u[:, None]), axis=1)


@case(9, 2)
def sir_age(t, u, theta, du):
    sus, inf, rec = u[:3], u[3:6], u[6:]
    beta, gamma = theta
    N = sus + inf + rec
    lam = beta * CONTACT @ (inf / N)
    du[:3] = -lam * sus
    du[3:6] = lam * sus - gamma * inf
    du[6:] = gamma * inf


@case(9, 2)
def sir_age_matrix(t, u, theta):
    sus, inf, rec = u.reshape(3, 3)
    force = theta[0] * (CONTACT @ inf) / u.sum()
    new = force * sus
    healed = theta[1] * inf
    return np.stack([-new, new - healed, healed]).ravel()


@case(4, 5)
def pendulum_solve(t, u, theta, du):
    a, b, wa, wb = u
    m1, m2, l1, l2, g = theta
    c = np.cos(a - b)
    s = np.sin(a - b)
    M = np.array([[(m1 + m2) * l1, m2 * l2 * c], [l1 * c, l2]])
    rhs = np.array([-m2 * l2 * wb**2 * s - (m1 + m2) * g * np.sin(a), l1 * wa**2 * s - g * np.sin(b)])
    acc = np.linalg.solve(M, rhs)
    du[:2] = u[2:]
    du[2:] = acc


@case(4, 5)
def pendulum_inv(t, u, theta, du):
    q, v = u[:2], u[2:]
    c = np.cos(q[0] - q[1])
    M = np.array([[theta[0] + theta[1], theta[1] * c], [theta[1] * c, theta[1]]])
    f = -theta[2:4] * np.sin(q) - theta[4] * v
    du[:2] = v
    du[2:] = np.linalg.inv(M) @ f


@case(4, 5)
def det_use(t, u, theta, du):
    A = u.reshape(2, 2) + np.eye(2)
    du[:] = u * np.linalg.det(A) * theta[0]


@case(8, 3)
def pendulum_chain(t, u, theta, du):
    n = 4
    q, v = u[:n], u[n:]
    i = np.arange(n)
    M = np.minimum(n - i[:, None], n - i[None, :]) * np.cos(q[:, None] - q[None, :])
    C = np.minimum(n - i[:, None], n - i[None, :]) * np.sin(q[:, None] - q[None, :])
    rhs = -C @ v**2 - theta[0] * (n - i) * np.sin(q) - theta[1] * v
    du[:n] = v
    du[n:] = np.linalg.solve(M, rhs)


@case(3, 4)
def stoich_matrix(t, u, theta, du):
    rates = np.array([theta[0] * u[0], theta[1] * u[1] * u[2], theta[2] * u[2], theta[3] * u[0] ** 2])
    du[:] = S @ rates


@case(3, 4)
def stoich_loops(t, u, theta, du):
    du[:] = 0.0
    for r in range(S.shape[1]):
        rate = theta[r]
        for i in range(S.shape[0]):
            if S[i, r] < 0:
                rate *= u[i] ** (-S[i, r])
        for i in range(S.shape[0]):
            du[i] += S[i, r] * rate


@case(3, 4)
def reactants_lists(t, u, theta, du):
    du[:] = 0.0
    for r, idx in enumerate(REACTANTS):
        v = theta[r]
        for i in idx:
            v *= u[i]
        for i in range(3):
            du[i] += S[i, r] * v


@case(3, 4)
def prod_power(t, u, theta, du):
    orders = np.maximum(-S, 0)
    rates = theta * np.prod(u[:, None] ** orders, axis=0)
    du[:] = S @ rates


@case(3, 4)
def exp_log_rates(t, u, theta, du):
    rates = theta * np.exp(np.maximum(-S, 0).T @ np.log(u))
    du[:] = S.dot(rates)


def hill(x, K, n=4):
    return x**n / (K**n + x**n)


@case(3, 4)
def repressilator(t, u, theta, du):
    for i in range(3):
        du[i] = theta[0] * (1.0 - hill(u[i - 1], theta[1], n=theta[2])) - theta[3] * u[i]


def rates_of(u, k, scale=1.0, *, offset=0.0):
    forward, backward = k[0] * u[0], k[1] * u[1]
    return scale * forward + offset, scale * backward + offset


@case(2, 3)
def helper_tuple(t, u, theta, du):
    f, b = rates_of(u, theta, offset=0.1)
    g, _ = rates_of(u, theta[1:], 2.0)
    du[0] = b - f
    du[1] = f - b - g


@case(2, 3)
def dict_const(t, u, theta, du):
    du[0] = PARAMS["k"] * u[0] - theta[0] * u[1]
    du[1] = -PARAMS["g"] * np.sin(u[0]) - theta[1]


@case(2, 3)
def dict_array(t, u, theta, du):
    du[:] = PARAMS["A"] @ u * theta[0]


@case(2, 3)
def dict_local(t, u, theta, du):
    p = {"a": theta[0], "b": theta[1], "c": theta[2]}
    du[0] = p["a"] * u[0]
    du[1] = p["b"] * u[1] - p["c"] * u[0]


@case(2, 3)
def dict_call(t, u, theta, du):
    p = dict(zip(("a", "b"), theta, strict=False))
    du[0] = p["a"] * u[0]
    du[1] = p.get("b", 0.0) * u[1] + theta[2]


@case(2, 3)
def dict_star(t, u, theta, du):
    kw = {"scale": theta[0], "offset": theta[1]}
    du[0], du[1] = rates_of(u, theta, **kw)


@case(3, 3)
def generator_sum(t, u, theta, du):
    s = sum(th * x for th, x in zip(theta, u, strict=True))
    for i in range(3):
        du[i] = s - u[i]


@case(3, 3)
def gen_sum_const(t, u, theta, du):
    for i in range(3):
        du[i] = sum(theta[j] * (u[j] - u[i]) for j in range(3) if j != i)


@case(3, 3)
def list_comp_cond(t, u, theta, du):
    for i in range(3):
        du[i] = sum([theta[j] * (u[j] - u[i]) for j in range(3) if j != i])


@case(3, 3)
def list_comp_np(t, u, theta):
    return np.array([sum(theta[j] * (u[j] - u[i]) for j in range(len(u))) for i in range(len(u))])


@case(3, 3)
def list_comp_u(t, u, theta):
    return np.array([theta[i] * u[i] for i in range(len(u))])


@case(3, 3)
def comp_over_u(t, u, theta):
    return np.array([th * x for th, x in zip(theta, u, strict=True)])


@case(3, 3)
def returns_list(t, u, theta):
    x, y, z = u
    s, r, b = theta
    return [s * (y - x), x * (r - z) - y, x * y - b * z]


@case(5, 2)
def heat_diff(t, u, theta, du):
    padded = np.concatenate(([theta[0]], u, [theta[1]]))
    du[:] = np.diff(padded, n=2) / 0.1**2


@case(5, 2)
def heat_pad(t, u, theta, du):
    p = np.pad(u, 1, mode="edge")
    du[:] = theta[0] * (p[2:] - 2 * p[1:-1] + p[:-2])


@case(5, 2)
def heat_convolve(t, u, theta, du):
    du[:] = theta[0] * np.convolve(u, np.array([1.0, -2.0, 1.0]), mode="same")


@case(5, 2)
def heat_gradient(t, u, theta, du):
    du[:] = -theta[0] * np.gradient(u, 0.1)


@case(5, 2)
def nonlocal_trapz(t, u, theta, du):
    x = np.linspace(0.0, 1.0, 5)
    total = np.trapezoid(u * x, x)
    du[:] = theta[0] * u - theta[1] * total * u


@case(5, 2)
def trapz_dx(t, u, theta, du):
    du[:] = theta[0] * u - theta[1] * np.trapezoid(u**2, dx=0.25)


@case(5, 2)
def upwind_where(t, u, theta, du):
    v = np.where(u > 0.5, theta[0], theta[1])
    du[:] = -v * (u - np.roll(u, 1))


@case(4, 4)
def kron_use(t, u, theta, du):
    A = np.kron(np.eye(2), theta.reshape(2, 2))
    du[:] = A @ u


@case(4, 4)
def clip_max(t, u, theta, du):
    du[:] = np.clip(u * theta, 0.1, 0.9) + np.maximum(u - 0.5, 0.0) + np.minimum(u, theta)


@case(4, 4)
def cumsum_axis(t, u, theta, du):
    X = u.reshape(2, 2)
    du[:] = np.cumsum(X, axis=1).ravel() * theta + np.cumsum(u)


@case(9, 9)
def trace_norm(t, u, theta, du):
    P = u.reshape(3, 3)
    du[:] = (P / np.trace(P) * np.linalg.norm(theta)).ravel()


@case(4, 6)
def softmax_att(t, u, theta, du):
    z = np.outer(u, u) * theta[0]
    e = np.exp(z - z.max())
    A = e / e.sum(axis=1, keepdims=True)
    du[:] = A @ u - theta[1] * u


@case(4, 6)
def layernorm(t, u, theta, du):
    x = (u - u.mean()) / np.sqrt(u.var() + 1e-5)
    du[:] = theta[:4] * x + theta[4]


def swish(x):
    return x / (1 + np.exp(-x))


def dense(x, W, b, act=None):
    y = W @ x + b
    return y if act is None else act(y)


@case(4, 40)
def dense_helper(t, u, theta, du):
    y = dense(u, theta[:16].reshape(4, 4), theta[16:20], act=swish)
    y = dense(y, theta[20:36].reshape(4, 4), theta[36:40])
    du[:] = y


@case(4, 40)
def pairs_of_layers(t, u, theta, du):
    layers = [(theta[:16].reshape(4, 4), theta[16:20]), (theta[20:36].reshape(4, 4), theta[36:40])]
    x = u
    for W, b in layers[:-1]:
        x = np.tanh(W @ x + b)
    W, b = layers[-1]
    du[:] = W @ x + b


def unflatten(theta, sizes):
    out, k = [], 0
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):  # noqa: RUF007
        out.append((theta[k : k + a * b].reshape(b, a), theta[k + a * b : k + a * b + b]))
        k += a * b + b
    return out


@case(4, 4 * 5 + 5 + 5 * 4 + 4)
def unflatten_helper(t, u, theta, du):
    params = unflatten(theta, (4, 5, 4))
    x = u
    for i, (W, b) in enumerate(params):
        x = W @ x + b
        if i < len(params) - 1:
            x = np.tanh(x)
    du[:] = x


@case(4, 4 * 5 + 5 + 5 * 4 + 4)
def unflatten_shapes(t, u, theta, du):
    shapes = [(5, 4), (5,), (4, 5), (4,)]
    parts = []
    k = 0
    for shape in shapes:
        n = int(np.prod(shape))
        parts.append(theta[k : k + n].reshape(shape))
        k += n
    W1, b1, W2, b2 = parts
    du[:] = W2 @ np.tanh(W1 @ u + b1) + b2


Rates = namedtuple("Rates", "a b c")


@case(2, 3)
def ntuple(t, u, theta, du):
    p = Rates(*theta)
    du[0] = p.a * u[0] - p.b * u[0] * u[1]
    du[1] = p.c * u[0] * u[1] - u[1]


@case(2, 3)
def starred(t, u, theta, du):
    a, *rest = theta
    du[0] = a * u[0]
    du[1] = rest[0] * u[1] + rest[1]


@case(2, 3)
def walrus(t, u, theta, du):
    if (x := theta[0] * u[0]) > 0.3:
        du[0] = x
    else:
        du[0] = -x
    du[1] = x * u[1]


@case(3, 3)
def meshgrid(t, u, theta, du):
    X, Y = np.meshgrid(u, u)
    du[:] = (theta[0] * np.sin(X - Y)).sum(axis=1)


@case(3, 3)
def tile_repeat(t, u, theta, du):
    du[:] = (np.tile(u, 3).reshape(3, 3) * np.repeat(theta, 3).reshape(3, 3)).sum(axis=0)


@case(3, 3)
def triu(t, u, theta, du):
    K = np.tril(np.outer(u, u), -1) + np.triu(np.outer(theta, u))
    du[:] = K @ u


@case(3, 3)
def any_all(t, u, theta, du):
    if any(x > 1.0 for x in u):
        du[:] = -u
    else:
        du[:] = theta * u


@case(3, 3)
def max_list(t, u, theta, du):
    du[:] = theta * max(u) - min(u[0], u[1], u[2]) + abs(u)


@case(4, 4)
def matrix_power(t, u, theta, du):
    du[:2] = np.linalg.matrix_power(theta.reshape(2, 2), 3) @ u[:2]
    du[2:] = u[2:]


@case(4, 3)
def polyval(t, u, theta, du):
    du[:] = np.polyval(theta, u)
