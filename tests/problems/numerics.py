"""What tests compute by themselves: derivatives by complex numbers, which are exact to rounding, and orders."""

from __future__ import annotations

import numpy as np


def complex_step(loss, blocks):
    """Gradients of a function of blocks of complex numbers."""
    blocks, gradients = [np.array(b, dtype=complex) for b in blocks], []
    for block in blocks:
        gradient = np.zeros(block.size)
        for i in range(block.size):
            block[i] += 1e-30j
            gradient[i] = loss(*blocks).imag / 1e-30
            block[i] = block[i].real
        gradients.append(gradient)
    return gradients


def jacobian(vjp, t, u, theta):
    """df/du of complex numbers, by the rows that a vjp in place gives."""
    J = np.zeros((u.size, u.size), dtype=complex)
    for i, unit in enumerate(np.eye(u.size)):
        vjp(t, u, theta, unit, J[i], np.zeros(theta.size, dtype=complex))
    return J


def slope(f, t, u, theta):
    """f of complex numbers, by an f in place."""
    du = np.zeros(u.size, dtype=complex)
    f(t, u, theta, du)
    return du


def rate(errors):
    """The order that two errors show, the second with half the step of the first."""
    return np.log2(errors[0] / errors[1])
