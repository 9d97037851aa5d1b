"""Radau IIA of order 5: collocation at the three right Radau points, with its polynomial as dense output."""

import numpy as np

from adjode.tableaus.tableau import Tableau


def radau() -> Tableau:
    """Everything follows from the nodes: stages and dense output are integrals of Lagrange polynomials."""
    root = np.sqrt(6.0)
    c = np.array([0.0, (4 - root) / 10, (4 + root) / 10, 1.0])
    powers = np.arange(3)
    lagrange = np.linalg.inv(np.vander(c[1:], increasing=True)).T  # row i: the coefficients of the polynomial that is 1 at node i
    P = np.zeros((4, 3))
    P[1:] = lagrange / (powers + 1)
    A = np.zeros((4, 4))
    A[1:, 1:] = c[1:, None] ** (powers + 1) @ P[1:].T
    # The embedded method of order 3 has a weight 1/mu on the slope at the start, mu being the real eigenvalue of A^-1: then the
    # factorisation of mu/h - J serves the error estimate too (Hairer, Wanner, Solving ODEs II, IV.8).
    values = np.linalg.eigvals(np.linalg.inv(A[1:, 1:]))
    mu = values[np.argmin(np.abs(values.imag))].real
    embedded = np.zeros(4)
    embedded[0] = 1.0 / mu
    embedded[1:] = np.linalg.solve(np.vander(c[1:], increasing=True).T, 1.0 / (powers + 1) - np.array([embedded[0], 0.0, 0.0]))
    return Tableau(
        name="Radau",
        order=5,
        dense_order=3,
        stages=3,
        A=A,
        c=c,
        P=P,
        E=np.array([A[3] - embedded]),
        embedded_orders=(3,),
        error_order=3,
        source="E. Hairer, G. Wanner, Solving Ordinary Differential Equations II (1996), sections IV.5 and IV.8",
        family="radau",
        filtered=True,
    )
