"""Stiffly accurate, L-stable ESDIRK methods: Kvaerno5 and TRBDF2."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from adjode.tableaus.order_conditions import elementary_weights
from adjode.tableaus.tableau import ImplicitTableau, hermite_weights


@dataclass(frozen=True, eq=False)
class EsdirkTableau(ImplicitTableau):
    """An explicit first stage, then implicit ones: A is lower triangular with one number on the diagonal of rows 1.."""

    family: ClassVar[str] = "esdirk"

    @cached_property
    def decoupled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The one eigenvalue mu; in place of a transformation, weights of the slopes before in a first guess of each; mu."""
        mu = 1.0 / self.A[1, 1]
        return np.array([mu]), self._guesses(), np.array([[mu]])

    def _guesses(self) -> np.ndarray:
        """The parabola through the first three slopes; at a node that the stage before has too, what leads to the same state."""
        c, guesses = self.c, np.zeros_like(self.A)
        for i in range(1, len(c)):
            if c[i] == c[i - 1]:
                guesses[i, :i] = (self.A[i - 1, :i] - self.A[i, :i]) / self.A[i, i]
            else:
                near = np.vander(c[: min(i, 3)], increasing=True).T
                guesses[i, : len(near)] = np.linalg.solve(near, c[i] ** np.arange(len(near)))
        return guesses

    def _has_its_form(self) -> bool:
        inside = self.A[1:, 1:]
        one_number = bool(np.all(np.diag(inside) == self.A[1, 1])) and self.A[1, 1] > 0
        return super()._has_its_form() and not np.any(np.triu(inside, 1)) and one_number


def _square(rows: list[list[float]]) -> np.ndarray:
    A = np.zeros((len(rows), len(rows)))
    for i, coefficients in enumerate(rows):
        A[i, : len(coefficients)] = coefficients
    return A


def _nodes(A: np.ndarray) -> np.ndarray:
    """Row sums, the ones at the end exactly."""
    c = A.sum(axis=1)
    c[np.isclose(c, 1.0, rtol=0, atol=1e-13)] = 1.0
    return c


def kvaerno5() -> EsdirkTableau:
    """Kvaerno's 5(4) pair, both of whose solutions are stages: the sixth is the embedded one.

    The two are so near each other that steps by their difference make errors of tens of tolerances. The error estimate is ten times
    the difference, so that a tolerance means with this method what it means with the others (`benchmarks/stiff_accuracy.py`).
    """
    g = 0.26
    A = _square(
        [
            [],
            [g, g],
            [0.13, 0.84033320996790809, g],
            [0.22371961478320505, 0.47675532319799699, -0.06470895363112615, g],
            [0.16648564323248321, 0.10450018841591720, 0.03631482272098715, -0.13090704451073998, g],
            [0.13855640231268224, 0.0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676, g],
            [
                0.13659751177640291,
                0.0,
                -0.05496908796538376,
                -0.04118626728321046,
                0.62993304899016403,
                0.06962479448202728,
                g,
            ],
        ]
    )
    return EsdirkTableau(
        name="Kvaerno5",
        order=5,
        dense_order=4,
        stages=6,
        A=A,
        c=_nodes(A),
        P=_least_interpolant(A, 4),
        E=np.array([10.0 * (A[6] - A[5])]),
        embedded_orders=(4,),
        error_order=4,
        source="A. Kvaerno (2004), BIT Numerical Mathematics 44, 489-502; dense output: see `_least_interpolant`",
    )


def trbdf2() -> EsdirkTableau:
    """The trapezoidal rule and BDF2 as one method; cubic Hermite output."""
    w, d = np.sqrt(2.0) / 4, 1.0 - np.sqrt(2.0) / 2
    A = _square([[], [d, d], [w, w, d]])
    return EsdirkTableau(
        name="TRBDF2",
        order=2,
        dense_order=2,
        stages=2,
        A=A,
        c=_nodes(A),
        P=hermite_weights(A, 2),
        E=np.array([A[2] - [(1 - w) / 3, (3 * w + 1) / 3, d / 3]]),
        embedded_orders=(3,),
        error_order=2,
        source="M. Hosea, L. Shampine (1996), Applied Numerical Mathematics 20, 21-37",
        filtered=True,
    )


def _least_interpolant(A: np.ndarray, order: int) -> np.ndarray:
    """Of all dense outputs of this order and degree that meet the step's end, that with the least sum of squares of weights.

    The conditions are linear in the weights P[i, p]: for each rooted tree, sum_i P[i, p] Phi_i(tree) is 1 / density for the power
    of the tree's size, else 0; and sum_p P[i, p] = b_i. Where the problem is stiff without bound, the states of the stages lie on
    its slow manifold, and the slopes are what leads there: those of a cubic, K = inv(A) c^3 behind K_0 = 0, must give the cubic.
    """
    rows, left, right = len(A), [], []
    cubic = np.append(0.0, np.linalg.solve(A[1:, 1:], A[1:].sum(axis=1) ** 3))
    for phi, size, density in [*zip(*elementary_weights(A, order), strict=True), (cubic, 3, 1)]:
        for p in range(order):
            left.append(np.outer(phi, np.eye(order)[p]).ravel())
            right.append(1.0 / density if p == size - 1 else 0.0)
    for i in range(rows):
        left.append(np.outer(np.eye(rows)[i], np.ones(order)).ravel())
        right.append(A[-1, i])
    return np.linalg.lstsq(np.array(left), np.array(right), rcond=1e-10)[0].reshape(rows, order)
