"""Right-hand sides of four states and four parameters: each uses something of the language that can be differentiated."""

import numpy as np
from numba import njit

from adjode.kernels import as_matrix, exp, tanh, tanh_into

K = np.array([0.3, 0.5, 0.7, 0.2])
IDX = np.array([2, 0, 3, 1])
PAIRS = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
N = 4
RATES = (0.3, 0.7)


def hill(x, n, k):
    return x**n / (k**n + x**n)


@njit
def mm(s, vmax, km):
    return vmax * s / (km + s)


def piece(x):
    if x > 1.0:
        return x * x
    elif x > 0.8:
        y = x * 3.0
        return y * x
    return 2.0 * x - 1.0


def pairflux(u, theta, out):
    for i in range(u.size):
        out[i] = theta[0] * u[i] * u[(i + 1) % u.size]


def hill_f(t, u, theta, du):
    for i in range(4):
        du[i] = hill(u[i], theta[0], theta[1]) - mm(u[i], theta[2], theta[3])


def piece_f(t, u, theta, du):
    for i in range(4):
        du[i] = piece(u[i]) * theta[i]


def horner_f(t, u, theta, du):
    for i in range(4):
        s = 0.0
        for k in range(4):
            s = s * u[i] + theta[k]
        du[i] = s


def prod_f(t, u, theta, du):
    p = 1.0
    for i in range(4):
        p *= u[i]
        du[i] = p * theta[i]


def carry2_f(t, u, theta, du):
    a, b = u[0], u[1]
    for i in range(4):
        a, b = b * theta[i], a + b * b
        du[i] = a


def while_f(t, u, theta, du):
    k = 0
    s = u[0]
    while k < 4:
        s = np.sin(s * theta[k]) + u[k]
        du[k] = s
        k += 1


def scratch_f(t, u, theta, du):
    flux = np.empty(4)
    pairflux(u, theta, flux)
    for i in range(4):
        du[i] = flux[i - 1] - flux[i]


def gather_f(t, u, theta, du):
    for i in range(4):
        du[i] = 0.0
    for k in range(4):
        i, j = PAIRS[k, 0], PAIRS[k, 1]
        r = theta[k] * u[i] * u[j]
        du[i] -= r
        du[j] += r


def idx_f(t, u, theta, du):
    for i in range(4):
        du[i] = u[IDX[i]] * theta[IDX[i]] + K[i]


def vec_f(t, u, theta, du):
    du[:] = theta * u - u**2 + np.exp(-u) * K


def vec2_f(t, u, theta, du):
    z = theta * u
    z = np.tanh(z) + u[::-1]
    du[:] = z * z.sum()
    du *= 2.0
    du += K


def mat_f(t, u, theta, du):
    W = np.outer(theta, K)
    du[:] = W @ u + W.T @ u + np.dot(theta, u) * u


def ret_f(t, u, theta):
    x, y, z, w = u
    a, b, c, d = theta
    return np.array([a * x - b * y, b * np.sin(z) * y, c * w**2, d * x * y * z * w])


def ret2_f(t, u, theta):
    du = np.zeros_like(u)
    du[0] = theta[0] * u[1]
    du[1:] = u[:-1] * theta[1:]
    return du


def ret3_f(t, u, theta):
    return theta * u * (1 - u)


def rows_f(t, u, theta, du):
    X = u.reshape(2, 2)
    D = du.reshape(2, 2)
    A = theta.reshape(2, 2)
    for i in range(2):
        for j in range(2):
            s = 0.0
            for k in range(2):
                s += A[i, k] * X[k, j]
            D[i, j] = np.tanh(s)


def matmul2_f(t, u, theta, du):
    X = u.reshape((2, 2))
    A = theta.reshape((2, 2))
    Y = np.tanh(X @ A.T)
    du[:] = (Y @ A + X.sum(0)).ravel()


def minmax_f(t, u, theta, du):
    du[0] = max(u[0], theta[0]) * u[1]
    du[1] = min(u[0], u[1], theta[2])
    du[2] = abs(u[2] - theta[0]) * theta[1]
    du[3] = np.maximum(u[3], 0.0) + np.abs(-u[3])


def if_f(t, u, theta, du):
    if t > 0.2 and u[0] > 0.1:
        a = theta[0] * u[0]
        du[0] = a
    else:
        a = theta[1]
        du[0] = 0.0
    du[1] = a * u[1]
    du[2] = u[2] if u[2] > u[1] else theta[2] * u[2] ** 2
    du[3] = -u[3] * a


def ifloop_f(t, u, theta, du):
    n = u.size
    for i in range(n):
        if i == 0:
            left = theta[0]
        else:
            left = u[i - 1]
        if i < n - 1:
            right = u[i + 1] * theta[1]
        else:
            right = 0.0
        du[i] = left * right - u[i] ** 3 + theta[2] * (left - u[i])


def readback_f(t, u, theta, du):
    du[0] = theta[0] * u[0]
    du[1] = du[0] * u[1] + theta[1]
    du[2] = du[1] * du[0]
    du[3] = 0.5 * du[2]


def readloop_f(t, u, theta, du):
    du[0] = theta[0] * u[0]
    for i in range(1, 4):
        du[i] = du[i - 1] * u[i] + theta[i]


def thomas_f(t, u, theta, du):
    n = 4
    cp = np.empty(n)
    dp = np.empty(n)
    b = 2.0 + theta[0]
    cp[0] = -1.0 / b
    dp[0] = u[0] / b
    for i in range(1, n):
        m = b + cp[i - 1]
        cp[i] = -1.0 / m
        dp[i] = (u[i] + dp[i - 1] * theta[1]) / m
    du[n - 1] = dp[n - 1]
    for i in range(n - 2, -1, -1):
        du[i] = dp[i] - cp[i] * du[i + 1]


def nested_f(t, u, theta, du):
    tot = 0.0
    for i in range(4):
        row = 0.0
        for j in range(i):
            row += u[i] * u[j] * theta[j]
        tot += row * row
        du[i] = row
    for i in range(4):
        du[i] += tot * u[i]


def carried_nested_f(t, u, theta, du):
    x = u[0]
    for i in range(4):
        y = u[i]
        for j in range(3):
            y = y * x + theta[j]
            x = np.cos(x) + 0.1 * y
        du[i] = x * y


def func_f(t, u, theta, du):
    e = np.exp(-theta[0] / 1.5)
    du[0] = np.sqrt(u[0]) * e
    du[1] = np.log(u[1] + theta[1]) * np.log1p(u[0])
    du[2] = np.arctan2(u[2], theta[2]) + np.hypot(u[0], u[1])
    du[3] = (
        np.sinh(u[3]) * np.cosh(u[2]) / np.tan(theta[3] + 0.1)
        + u[3] ** theta[0]
        + theta[1] ** u[0]
        + u[1] ** 2.5
        + u[2] ** -2
        + u[0] ** 0.5
    )


def enum_f(t, u, theta, du):
    for i, x in enumerate(u):
        du[i] = x * theta[i]
    for i, (a, b) in enumerate(zip(u, theta, strict=False)):
        du[i] += a * b * a


def tuple_f(t, u, theta, du):
    r = (theta[0] * u[0], theta[1] * u[1])
    for k in (0, 1):
        du[k] = r[k] * RATES[k]
    du[2], du[3] = r[0] - r[1], sum(u)


def continue_f(t, u, theta, du):
    for i in range(4):
        du[i] = theta[i]
        if i == 2:
            continue
        du[i] = u[i] * theta[i] * u[i]


def local2d_f(t, u, theta, du):
    A = np.zeros((4, 4))
    for i in range(4):
        A[i, i] = -theta[i]
        if i > 0:
            A[i, i - 1] = theta[i - 1] * u[i]
    for i in range(4):
        s = 0.0
        for j in range(4):
            s += A[i, j] * u[j]
        du[i] = s


def step_f(t, u, theta, du):
    h = 0.1
    y = u.copy()
    for _ in range(3):
        y = y + h * theta * y * (1.0 - y)
    du[:] = y


def aug_f(t, u, theta, du):
    v = u * theta
    v *= u
    v += theta
    v[0] = v[1] * 2.0
    du[:] = v


def bcast_f(t, u, theta, du):
    X = u.reshape(2, 2)
    m = theta[:2]
    Y = (X - m) * m[:, None]
    du[:] = (Y / Y.sum()).ravel() + X.sum(axis=1)[0]


def kern_f(t, u, theta, du):
    tanh_into(u * theta, du)
    W = as_matrix(theta, 0, 2, 2)
    du[0] += exp(W[0, 1]) * tanh(u[0])


def power_f(t, u, theta, du):
    for i in range(4):
        du[i] = (u[i] / theta[0]) ** theta[1] * (1.0 - u[i] / theta[2]) + u[i] ** 3 / (theta[3] ** 3 + u[i] ** 3)


def lamb_f(t, u, theta, du):
    n = len(u)
    last = n - 1
    for i in range(1, last):
        du[i] = theta[0] * (u[i - 1] - 2.0 * u[i] + u[i + 1])
    du[0] = theta[1] * (u[1] - u[0])
    du[last] = theta[2] * (u[last - 1] - u[last])


def rev_f(t, u, theta, du):
    s = 1.0
    for i in range(3, -1, -1):
        s = s * u[i] + theta[i]
        du[i] = s
    for i in reversed(range(4)):
        du[i] += s * u[i]


def step2_f(t, u, theta, du):
    for i in range(0, 4, 2):
        du[i] = u[i + 1] * theta[i]
        du[i + 1] = -u[i] * theta[i] * u[i]


def mean_f(t, u, theta, du):
    m = u.mean()
    s = np.sum(u * theta)
    du[:] = m * u - s


def unused_f(t, u, theta, du):
    for i in range(4):
        du[i] = np.sin(t) * K[i]


def int_f(t, u, theta, du):
    k = int(t * 3)
    du[0] = u[k] * theta[k]
    du[1] = u[1] // 1.0
    du[2] = u[2] % 0.3 + theta[1]
    du[3] = np.floor(u[3]) * theta[0]


def ifcarry_f(t, u, theta, du):
    s = 0.0
    p = 1.0
    for i in range(4):
        if u[i] > 1.0:
            s += u[i] * theta[i]
            p = p * u[i]
        else:
            s = s * 0.5
        du[i] = s * p


def boolop_f(t, u, theta, du):
    for i in range(4):
        if i > 0 and u[i - 1] > 0.9:
            du[i] = u[i - 1] * theta[i]
        else:
            du[i] = u[i]


def scalararr_f(t, u, theta, du):
    a = np.array([theta[0] * u[0], theta[1], u[2]])
    for i in range(3):
        du[i] = a[i] * u[i]
    du[3] = a.sum()


def out_f(t, u, theta, du):
    du[:] = np.where(u > 1.0, u * u, theta)


def overwritten_f(t, u, theta, du):
    v = np.empty(4)
    for i in range(4):
        v[i] = u[i] * theta[i]
    for k in range(3):
        for i in range(k, 4):
            v[i] = np.sin(v[i]) * v[i - 1] + v[k]
    for i in range(4):
        du[i] = v[i] * v[i - 1]


def reused_f(t, u, theta, du):
    v = np.empty(2)
    for i in range(4):
        v[0] = u[i] * theta[i]
        v[1] = v[0] * u[i - 1]
        du[i] = v[0] * v[1] ** 2


def positive(x):
    if x > 0.0:
        return np.log(x)
    else:
        raise ValueError("x must be positive")


def guarded_f(t, u, theta, du):
    if u[0] < 0.0:
        raise ValueError("u must not be negative")
    assert theta.size == 4
    for i in range(4):
        du[i] = positive(u[i]) * theta[i]


def while_size_f(t, u, theta, du):
    i = 0
    while i < u.size:
        du[i] = u[i] * u[i] * theta[i]
        i += 1
    k, s = 0, 1.0
    while k < len(theta) - 1:
        s = s * theta[k] + u[k]
        k += 1
    du[0] += s


def roll_f(t, u, theta, du):
    v = u * theta
    w = np.roll(v, 1) * np.roll(u * u, -1) + np.roll(v, 2 * u.size + 3)
    v = v * w
    du[:] = np.roll(np.roll(v, 0), -7) * theta + np.roll(K, 2) * np.roll(v, 4)
    du[:] = np.roll(du, 1) + np.roll(du, int(t) + 2)


def diff_f(t, u, theta, du):
    v = u * theta
    flux = np.diff(v) * np.diff(u)
    du[0] = flux[0] + np.diff(v * v)[1]
    du[1:] = flux * theta[:3]
    du[:3] += np.diff(IDX) * u[:3] ** 2
    du[1:3] -= np.diff(np.diff(theta * u))


def concatenate_f(t, u, theta, du):
    v = u * theta
    padded = np.concatenate((np.array([theta[0] * u[0]]), v, np.array([theta[3] ** 2]), v[:0]))
    padded[2] += u[1]
    du[:] = padded[2:] * padded[:-2] - np.concatenate((v[1:], v[:1] * u[:1]))
    du[:] = np.concatenate((du[:2] + du[2:], K[:2]), axis=0) * np.concatenate((np.sin(u[:1]), u[1:]))
    for i in range(2):
        part = np.concatenate((u[i : i + 2], theta[:2]))
        du[i] += part[i] * part[2]


PROGRAMS = {name.removesuffix("_f"): value for name, value in list(globals().items()) if name.endswith("_f")}
