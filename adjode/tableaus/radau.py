"""Radau IIA of order 5: collocation at the three right Radau points, with its polynomial as dense output."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from adjode.tableaus.tableau import ImplicitTableau


@dataclass(frozen=True, eq=False)
class RadauTableau(ImplicitTableau):
    """Three implicit stages, whose A is zero in row 0 and invertible below."""

    family: ClassVar[str] = "radau"
    together: ClassVar[bool] = True

    @cached_property
    def decoupled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The eigenvalues are mu, and the real and the imaginary part of a pair alpha + i beta; the transformation is T^-1 above T.

        T^-1 A^-1 T = [[mu, 0, 0], [0, alpha, beta], [0, -beta, alpha]] (Hairer, Wanner, Solving ODEs II, IV.8).
        """
        inverse = np.linalg.inv(self.A[1:, 1:])
        values, vectors = np.linalg.eig(inverse)
        real, pair = int(np.argmin(np.abs(values.imag))), int(np.argmax(values.imag))
        T = np.column_stack([vectors[:, real].real, vectors[:, pair].real, vectors[:, pair].imag])
        eigenvalues = np.array([values[real].real, values[pair].real, values[pair].imag])
        return eigenvalues, np.vstack([np.linalg.inv(T), T]), inverse

    def _has_its_form(self) -> bool:
        return super()._has_its_form() and self.stages == 3 and bool(np.linalg.cond(self.A[1:, 1:]) < 1e3)


def radau() -> RadauTableau:
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
    return RadauTableau(
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
        filtered=True,
    )
