"""The two systems with what a user of SciPy or NumbaLSODA derives by hand, compiled by Numba.

Each of the functions overwrites its last argument; theta is flat, as in benchmarks/cases.py.

    lotka_volterra_f, spiral_f                  (u, theta, du)
    lotka_volterra_back, spiral_back            (y, theta, dy), y = (u, lam, theta_bar), in reversed time
    lotka_volterra_tangent, spiral_tangent      (y, theta, dy), y = (u, du/du0, du/dtheta), the derivatives by rows of n + m

Numba is imported with this file, so import it where it is needed.
"""

import math

from numba import njit

from benchmarks.cases import HIDDEN

_B1, _ROW_1, _ROW_2, _B2 = 2 * HIDDEN, 3 * HIDDEN, 4 * HIDDEN, 5 * HIDDEN
_WIDTH = _B2 + 4  # n + m of the spiral

compiled = njit(error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})


@compiled
def lotka_volterra_f(u, theta, du):
    both = u[0] * u[1]
    du[0] = theta[0] * u[0] - theta[1] * both
    du[1] = theta[3] * both - theta[2] * u[1]


@compiled
def lotka_volterra_back(y, theta, dy):
    prey, predators, first, second = y[0], y[1], y[2], y[3]
    both = prey * predators
    both_bar = theta[3] * second - theta[1] * first
    dy[0] = theta[1] * both - theta[0] * prey
    dy[1] = theta[2] * predators - theta[3] * both
    dy[2] = theta[0] * first + both_bar * predators
    dy[3] = both_bar * prey - theta[2] * second
    dy[4] = first * prey
    dy[5] = -first * both
    dy[6] = -second * predators
    dy[7] = second * both


@compiled
def lotka_volterra_tangent(y, theta, dy):
    prey, predators = y[0], y[1]
    both = prey * predators
    dy[0] = theta[0] * prey - theta[1] * both
    dy[1] = theta[3] * both - theta[2] * predators
    a, b = theta[0] - theta[1] * predators, -theta[1] * prey
    c, d = theta[3] * predators, theta[3] * prey - theta[2]
    for k in range(6):
        dy[2 + k] = a * y[2 + k] + b * y[8 + k]
        dy[8 + k] = c * y[2 + k] + d * y[8 + k]
    dy[4] += prey
    dy[5] -= both
    dy[12] -= predators
    dy[13] += both


@compiled
def spiral_f(u, theta, du):
    x, y = u[0] * u[0] * u[0], u[1] * u[1] * u[1]
    first, second = theta[_B2], theta[_B2 + 1]
    for i in range(HIDDEN):
        active = math.tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[_B1 + i])
        first += theta[_ROW_1 + i] * active
        second += theta[_ROW_2 + i] * active
    du[0] = first
    du[1] = second


@compiled
def spiral_back(y, theta, dy):
    u, v, lam_u, lam_v = y[0], y[1], y[2], y[3]
    x, z = u * u * u, v * v * v
    first, second, x_bar, z_bar = theta[_B2], theta[_B2 + 1], 0.0, 0.0
    for i in range(HIDDEN):
        active = math.tanh(theta[2 * i] * x + theta[2 * i + 1] * z + theta[_B1 + i])
        to_first, to_second = theta[_ROW_1 + i], theta[_ROW_2 + i]
        first += to_first * active
        second += to_second * active
        bar = (lam_u * to_first + lam_v * to_second) * (1.0 - active * active)
        x_bar += bar * theta[2 * i]
        z_bar += bar * theta[2 * i + 1]
        dy[4 + 2 * i] = bar * x
        dy[5 + 2 * i] = bar * z
        dy[4 + _B1 + i] = bar
        dy[4 + _ROW_1 + i] = lam_u * active
        dy[4 + _ROW_2 + i] = lam_v * active
    dy[4 + _B2] = lam_u
    dy[5 + _B2] = lam_v
    dy[0] = -first
    dy[1] = -second
    dy[2] = 3.0 * u * u * x_bar
    dy[3] = 3.0 * v * v * z_bar


@compiled
def spiral_tangent(y, theta, dy):
    u, v = y[0], y[1]
    x, z, x_u, z_v = u * u * u, v * v * v, 3.0 * u * u, 3.0 * v * v
    first, second, a, b, c, d = theta[_B2], theta[_B2 + 1], 0.0, 0.0, 0.0, 0.0
    for k in range(2 + 2 * _WIDTH):
        dy[k] = 0.0
    row_1, row_2 = 4, 4 + _WIDTH  # where du/dtheta begins: after u and the two columns of du/du0
    for i in range(HIDDEN):
        w_x, w_z, to_first, to_second = theta[2 * i], theta[2 * i + 1], theta[_ROW_1 + i], theta[_ROW_2 + i]
        active = math.tanh(w_x * x + w_z * z + theta[_B1 + i])
        first += to_first * active
        second += to_second * active
        slope_1, slope_2 = to_first * (1.0 - active * active), to_second * (1.0 - active * active)
        a += slope_1 * w_x
        b += slope_1 * w_z
        c += slope_2 * w_x
        d += slope_2 * w_z
        dy[row_1 + 2 * i] = slope_1 * x
        dy[row_1 + 2 * i + 1] = slope_1 * z
        dy[row_1 + _B1 + i] = slope_1
        dy[row_1 + _ROW_1 + i] = active
        dy[row_2 + 2 * i] = slope_2 * x
        dy[row_2 + 2 * i + 1] = slope_2 * z
        dy[row_2 + _B1 + i] = slope_2
        dy[row_2 + _ROW_2 + i] = active
    dy[row_1 + _B2] = 1.0
    dy[row_2 + _B2 + 1] = 1.0
    a, b, c, d = a * x_u, b * z_v, c * x_u, d * z_v
    for k in range(_WIDTH):
        s, r = y[2 + k], y[2 + _WIDTH + k]
        dy[2 + k] += a * s + b * r
        dy[2 + _WIDTH + k] += c * s + d * r
    dy[0] = first
    dy[1] = second


F = {"lotka_volterra": lotka_volterra_f, "spiral": spiral_f}
BACK = {"lotka_volterra": lotka_volterra_back, "spiral": spiral_back}
TANGENT = {"lotka_volterra": lotka_volterra_tangent, "spiral": spiral_tangent}
