"""Lists, dictionaries and arrays with axes in right-hand sides, each in a small one, as in `natural`."""

from collections.abc import Callable

import numpy as np
from scipy.special import expit, logsumexp, softmax

CASES: list[tuple[Callable, int, int]] = []


def case(n, m):
    def add(f):
        CASES.append((f, n, m))
        return f

    return add


@case(3, 3)
def alias_copy(t, u, theta, du):
    r = [u[0], u[1]]
    s = r.copy()
    s.append(theta[0])
    r.append(theta[1])
    du[0] = s[2]
    du[1] = r[2]
    du[2] = len(s) * r[-1]


@case(3, 3)
def list_in_loop_inside(t, u, theta, du):
    for i in range(u.size):
        r = []
        r.append(u[i])
        r.append(theta[i])
        du[i] = r[0] * r[1]


@case(3, 3)
def list_item_set(t, u, theta):
    d = [0.0] * 3
    d[0] = u[0] * theta[0]
    d[1] += u[1]
    d[-1] = theta[2] * d[0]
    return np.array(d)


@case(3, 3)
def dict_update(t, u, theta, du):
    r = {}
    r["a"] = theta[0] * u[0]
    r["b"] = r["a"] * u[1]
    r["a"] += theta[1]
    du[0] = r["a"]
    du[1] = r["b"]
    du[2] = sum(r.values())


@case(3, 3)
def dict_loop(t, u, theta, du):
    names = ("a", "b", "c")
    rates = {name: theta[k] * u[k] for k, name in enumerate(names)}
    for k, (name, rate) in enumerate(rates.items()):
        du[k] = rate if name != "b" else -rate


@case(3, 3)
def branch_list(t, u, theta, du):
    r = [u[0]]
    if u[1] > 0.5:
        r.append(theta[0])
    else:
        r.append(theta[1] * u[2])
    du[:] = r[1] * u


@case(3, 3)
def dict_branch(t, u, theta, du):
    p = {"a": 1.0, "b": theta[1]}
    if t > 0.5:
        p["a"] = theta[0]
    du[:] = p["a"] * u * p["b"]


@case(4, 4)
def keepdims_all(t, u, theta, du):
    A = u.reshape(2, 2)
    du[:] = (A / A.sum(keepdims=True) + A.mean(axis=0, keepdims=True) * A.max(axis=1, keepdims=True)).ravel()


@case(8, 2)
def sum_tuple_axes(t, u, theta, du):
    A = u.reshape(2, 2, 2)
    du[:] = (A * A.sum(axis=(0, 2), keepdims=True)).ravel() + np.sum(A, axis=(0, 1))[0] * theta[0]


@case(8, 2)
def mean_mid_axis(t, u, theta, du):
    A = u.reshape(2, 2, 2)
    du[:] = np.repeat((A**2).mean(axis=1).ravel(), 2) * theta[1]


@case(8, 2)
def concat_axis(t, u, theta, du):
    A = u.reshape(2, 4)
    B = np.concatenate((A[:, :1], A * theta[0], A[:, -1:]), axis=1)
    du[:] = (B[:, 2:] - 2 * B[:, 1:-1] + B[:, :-2]).ravel()


@case(8, 2)
def pad_wrap_2d(t, u, theta, du):
    A = u.reshape(2, 4)
    P = np.pad(A, ((1, 1), (2, 1)), mode="wrap")
    du[:] = (P[1:-1, 2:-1] * P[:-2, 1:-2] + P[2:, 3:]).ravel()


@case(8, 2)
def pad_reflect(t, u, theta, du):
    p = np.pad(u, (2, 3), mode="reflect")
    du[:] = p[:8] * theta[0] + p[5:] ** 2


@case(8, 2)
def pad_const(t, u, theta, du):
    p = np.pad(u.reshape(2, 4), 1)
    q = np.pad(u, 1, constant_values=theta[0])
    du[:] = p[1:-1, :-2].ravel() + q[2:] * q[:-2]


@case(8, 2)
def roll_tuple(t, u, theta, du):
    A = u.reshape(2, 4)
    du[:] = (np.roll(A, (1, -2), axis=(0, 1)) * A + np.roll(A, 3) * theta[0]).ravel()


@case(8, 2)
def diff_axis(t, u, theta, du):
    A = u.reshape(2, 4)
    du[:] = 0.0
    du[:4] = np.diff(A, axis=0)[0]
    du[4:7] = np.diff(A)[1] * theta[0]


@case(8, 2)
def stack_axis(t, u, theta, du):
    x, y = u[:4], u[4:]
    A = np.stack((x, y * theta[0]), axis=1)
    B = np.stack((x, y), axis=-1)
    du[:] = (A * B).ravel() + np.column_stack((y, x)).ravel()


@case(8, 2)
def vstack_mix(t, u, theta, du):
    A = np.vstack((u[:4], u.reshape(2, 4)))
    B = np.hstack((A.T, A.T[:, :1]))
    du[:] = (B[:, :2] * B[:, 2:]).ravel()


@case(6, 2)
def conv_modes(t, u, theta, du):
    k = np.array([0.5, 1.0, 2.0])
    du[:] = np.convolve(u, k, "same") + theta[0]
    du[:4] += np.convolve(u, k * theta[1], "valid")
    du[:] += np.convolve(k, u)[1:7]


@case(6, 2)
def einsum_three(t, u, theta, du):
    A = u.reshape(2, 3)
    du[:] = np.einsum("ij,kj,kl->il", A, A, A).ravel() + np.einsum("ij->ji", A).ravel() * np.einsum("ij,ij", A, A)


@case(6, 6)
def einsum_batches(t, u, theta, du):
    A, B = u.reshape(3, 2, 1), theta.reshape(2, 3)
    C = np.einsum("...i,...j->...ij", A[:, 0], np.einsum("ij,...i->...j", B, A[..., 0]), optimize=True)
    np.einsum("b...,b...->b...", u.reshape(3, 2), theta.reshape(3, 2), out=du.reshape(3, 2))
    du += C.sum() * np.einsum("...ij,jk", u.reshape(3, 1, 2), B).ravel()[:6]


@case(6, 2)
def einsum_outer_t(t, u, theta, du):
    du[:] = (
        np.einsum("i,j->ji", u[:2], u[:3]).ravel()
        + np.einsum("ij,i->j", u.reshape(3, 2), u[:3])[0]
        + np.einsum("ji,kj->ik", u.reshape(2, 3), u.reshape(3, 2)).ravel()[:6]
    )


@case(4, 8)
def star_rest(t, u, theta, du):
    a, *mid, z = theta
    first, second, *_ = u
    du[0] = a * mid[0] + z
    du[1] = sum(mid)
    du[2] = first * second
    du[3] = len(u) * mid[-1]


def poly(x, *params, power=2):
    y = 0.0
    for k, p in enumerate(params):
        y += p * x ** (k * power)
    return y


@case(2, 3)
def varargs(t, u, theta, du):
    du[0] = poly(u[0], theta[0], theta[1], theta[2])
    du[1] = poly(u[1], theta[0], power=1)


def three(a, b, c):
    return a * b - c


@case(2, 3)
def star_call(t, u, theta, du):
    du[0] = three(*theta)
    du[1] = three(u[0], *theta[:2])


@case(3, 3)
def changing_shapes(t, u, theta, du):
    x = u
    for k in range(2):
        x = np.concatenate((x, x * theta[k]))
    du[:] = x[:3] + x[-3:] * x[3:6]


@case(3, 3)
def number_then_array(t, u, theta, du):
    y = 0.0
    for k in range(3):
        y = y * u + theta[k]
    du[:] = y


@case(3, 3)
def nested_unroll(t, u, theta, du):
    out = []
    for i in range(3):
        row = []
        for j in range(3):
            row.append(u[i] * theta[j] if i != j else 0.0)
        out.append(sum(row))
    du[:] = np.array(out)


@case(3, 3)
def list_as_matrix(t, u, theta, du):
    M = []
    for i in range(3):
        M.append([u[i] * theta[j] for j in range(3)])
    du[:] = np.array(M) @ u


@case(3, 3)
def grown_used(t, u, theta, du):
    x = []
    for i in range(u.size):
        x.append(u[i] ** 2 * theta[0])
    y = np.array(x)
    du[:] = y / np.sum(x) + x[0] * len(x)
    z = [v * 2.0 for v in x]
    du[0] += z[1]


@case(3, 3)
def gen_max(t, u, theta, du):
    du[:] = u * max(v * v for v in theta) - min(th for th in theta)


@case(3, 3)
def gen_nested(t, u, theta, du):
    s = sum(u[i] * theta[j] for i in range(3) for j in range(i))
    du[:] = s * u


@case(3, 3)
def list_comp_zip(t, u, theta, du):
    S = [(1, -1), (0, 2), (-1, 0)]
    v = [theta[0] * u[0], theta[1] * u[1] * u[2]]
    du[:] = np.array([sum(c * r for c, r in zip(row, v, strict=True)) for row in S])


@case(4, 4)
def inv_use(t, u, theta, du):
    A = theta.reshape(2, 2) + 2 * np.eye(2)
    B = np.linalg.inv(A)
    du[:2] = B @ u[:2]
    du[2:] = np.linalg.inv(A @ A.T).ravel()[:2] * np.linalg.det(A)


@case(4, 4)
def tril_use(t, u, theta, du):
    L = np.tril(theta.reshape(2, 2))
    U = np.triu(theta.reshape(2, 2), 1) + np.diag(u[:2])
    np.fill_diagonal(U, u[3])
    du[:] = (L @ L.T @ U).ravel()


@case(4, 4)
def meshgrid_ij(t, u, theta, du):
    X, Y = np.meshgrid(u[:2], theta, indexing="ij")
    du[:] = (X * np.sin(Y)).sum(axis=0) + np.kron(u[:2].reshape(1, 2), theta[:2].reshape(2, 1)).ravel()


@case(4, 4)
def tile2(t, u, theta, du):
    A = np.tile(u[:2], (2, 1)) * np.repeat(theta[:2], 2).reshape(2, 2)
    du[:] = A.ravel() + np.tile(u[:2], 2)


@case(5, 3)
def gradient_trapz(t, u, theta, du):
    x = np.array([0.0, 0.1, 0.3, 0.6, 1.0])
    du[:] = np.gradient(u, theta[0]) + np.trapezoid(u * u, x) + np.trapezoid(u, dx=theta[1])


@case(4, 4)
def norms(t, u, theta, du):
    A = u.reshape(2, 2)
    du[:2] = np.linalg.norm(A, axis=1)
    du[2:] = np.prod(A, axis=0) + np.cumprod(A, axis=0)[1] + np.min(A, axis=1) - np.std(A, axis=0)


@case(4, 4)
def offsets(t, u, theta, du):
    sizes = [1, 2, 1]
    offsets = np.cumsum([0, *sizes])
    for k in range(3):
        du[offsets[k] : offsets[k + 1]] = theta[k] * u[offsets[k] : offsets[k + 1]]


@case(4, 4)
def offsets2(t, u, theta, du):
    k = 0
    for n in [1, 2, 1]:
        du[k : k + n] = np.cumsum(theta[k : k + n]) * u[k]
        k += n


class Settings:
    """Of a model, as attributes."""


CFG = Settings()
CFG.k, CFG.A, CFG.names = 2.0, np.array([[1.0, 0.5], [0.2, 0.3]]), ("x", "y")


@case(2, 2)
def namespace(t, u, theta, du):
    du[:] = CFG.A @ u * CFG.k + theta[len(CFG.names) - 1]


NESTED = {"rates": {"on": 0.5, "off": [1.0, 2.0]}, "index": {"A": 0, "B": 1}}


@case(2, 2)
def nested_dict(t, u, theta, du):
    A, B = NESTED["index"]["A"], NESTED["index"]["B"]
    du[A] = -NESTED["rates"]["on"] * u[A] * theta[0]
    du[B] = NESTED["rates"]["off"][1] * u[B]
    if "extra" in NESTED:
        du[B] += 1.0
    du[NESTED["index"].get("B", 0)] += theta[1]


@case(2, 2)
def scipy_special(t, u, theta, du):
    du[:] = expit(theta * u) + softmax(u) * logsumexp(theta)


@case(4, 2)
def ellipsis_new(t, u, theta, du):
    A = u.reshape(2, 2)
    B = A[..., np.newaxis] * theta[np.newaxis, np.newaxis, :]
    du[:] = B[..., 0].ravel() + B[:, 1, ...].ravel()


@case(4, 2)
def ufunc_outer(t, u, theta, du):
    du[:] = np.multiply.outer(u, u).sum(axis=1) + np.add.outer(theta, u)[0]


@case(4, 2)
def loop_rows_list(t, u, theta, du):
    pairs = [[0, 1], [1, 2], [2, 3]]
    du[:] = 0.0
    for i, j in pairs:
        flux = theta[0] * (u[j] - u[i])
        du[i] += flux
        du[j] -= flux


@case(4, 2)
def sum_of_arrays(t, u, theta, du):
    X = [u[:2], u[2:]]
    c = sum(X) / len(X)
    du[:] = np.concatenate([theta[0] * (c - x) for x in X])


@case(4, 2)
def tuple_keys(t, u, theta, du):
    K = {(0, 1): theta[0], (1, 2): theta[1]}
    du[:] = 0.0
    for (i, j), k in K.items():
        du[i] += k * (u[j] - u[i])
    du[3] = K[0, 1] * u[3]


@case(4, 2)
def closure_list(t, u, theta, du):
    params = [theta[0], theta[1]]

    def rate(i):
        return params[i % 2] * u[i]

    for i in range(4):
        du[i] = rate(i)


@case(4, 8)
def list_of_layers(t, u, theta, du):
    Ws = [theta[:4].reshape(2, 2), theta[4:].reshape(2, 2)]
    x = u.reshape(2, 2)
    for W in Ws:
        x = np.tanh(W @ x)
    du[:] = x.ravel()


@case(4, 8)
def residual_layers(t, u, theta, du):
    x = u.copy()
    for i in range(2):
        h = x
        for j in range(2):
            h = np.tanh(theta[4 * i : 4 * i + 4] * h + j)
        x = x + h
    du[:] = x


@case(3, 3)
def reverse_list(t, u, theta, du):
    r = [theta[i] * u[i] for i in range(3)]
    for i, x in enumerate(reversed(r)):
        du[i] = x
    for i, x in enumerate(r[::-1]):
        du[i] += x * x
    a, b = divmod(7, 3)
    du[a - 2] += b


@case(3, 3)
def int_table(t, u, theta, du):
    idx = np.array([2, 0, 1])
    v = u[idx]
    du[:] = v * theta
    du[idx] += u
    w = np.where(S3 > 0, u[:, None], 0.0).sum(axis=0)
    du[:] += w


S3 = np.array([[1, 0, -1], [0, 2, 1], [1, 1, 0]])


@case(3, 3)
def filled_by_theta(t, u, theta):
    v = np.full(3, theta[0])
    v[1:] = u[1:] * theta[1:]
    return v


@case(3, 3)
def filled_and_set(t, u, theta, du):
    v = np.full(3, theta[0] * u[1])
    v[1] = u[0]
    w = np.full_like(u, u[2])
    w[0] *= theta[1]
    for i in range(2):
        w[i + 1] = v[i]
    du[:] = v * w + np.ones(3) * theta[2]
