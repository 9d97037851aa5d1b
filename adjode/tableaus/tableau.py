"""`Tableau`: the numbers of one Runge-Kutta method, checked against its order conditions when built."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from adjode.tableaus.order_conditions import order_defect


@dataclass(frozen=True, eq=False)
class Tableau:
    """A Runge-Kutta method with dense output.

    Rows 0..s-1 are the stages, row s repeats the weights b with c = 1 (so `K[s] = f(t + h, u_new)` is the first stage of the
    next step, whether or not the method is called "first same as last"), rows s+1.. are extra stages of the dense output.

    Implicit methods are stiffly accurate, and have the same form: row 0 is the slope at the start of the step (for a method with no
    such stage a row and a column of zeros), rows 1..s are implicit, row s is the weights b, and there are no further rows.

    Parameters
    ----------
    name : str
        The name users choose the method by.
    order, dense_order : int
        Order of the step and of its dense output.
    stages : int
        s, the number of stages of the step.
    A : (r, r) array
        Coefficients of all rows: strictly lower triangular for an explicit method, lower triangular with one number on the diagonal
        of rows 1.. for "esdirk", and zero in row 0 and invertible below for "radau".
    c : (r,) array
        Nodes of all rows.
    P : (r, d) array
        Dense output: `u(t + x h) = u + h sum_i K_i sum_p P[i, p] x**(p+1)`.
    E : (k, r) array
        Error weights: k = 0 for a fixed-step method, 1 for an embedded pair, 2 for the pair of estimates of DOP853.
    embedded_orders : tuple of int
        Order of the embedded solution b - E[i], for each row of E.
    error_order : int
        The error norm shrinks as h**(error_order + 1).
    source : str
        Where the numbers come from.
    family : {"explicit", "radau", "esdirk", "rosenbrock", "auto"}
        Which stepper takes the steps; with "auto", that of "explicit" or of `partner`.
    filtered : bool
        Whether an implicit method's error estimate is multiplied by (I - h gamma J)^-1, as it must be where it would grow without
        bound with the stiffness (Hosea, Shampine 1996, Appl. Numer. Math. 20, 21-37, section 4).
    C, slopes, gamma : (r, r), (r,) arrays, float
        For "rosenbrock": see steppers/rosenbrock.py. Rows 1..s-1 are then k_i / h, and row s the slope after the step.
    partner : Tableau, optional
        For "auto", the implicit method, with no more rows than this one has, and a dense output of the same degree.
    """

    name: str
    order: int
    dense_order: int
    stages: int
    A: np.ndarray
    c: np.ndarray
    P: np.ndarray
    E: np.ndarray
    embedded_orders: tuple[int, ...]
    error_order: int
    source: str
    family: str = "explicit"
    filtered: bool = False
    C: np.ndarray | None = None
    slopes: np.ndarray | None = None
    gamma: float = 0.0
    partner: Tableau | None = None

    def __post_init__(self):
        for field in ("A", "c", "P", "E"):
            array = np.array(getattr(self, field), dtype=float, order="C")
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        self._check()

    @property
    def adaptive(self) -> bool:
        return len(self.E) > 0

    @property
    def has_extra_stages(self) -> bool:
        return len(self.A) > self.stages + 1

    @property
    def implicit(self) -> bool:
        return self.family != "explicit"

    @cached_property
    def decoupled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What separates the stages of an implicit method: (eigenvalues of A^-1, transformation, A^-1), A being that of its stages.

        For "radau" the eigenvalues are mu, and the real and the imaginary part of a pair alpha + i beta; the transformation is T^-1
        above T, with T^-1 A^-1 T = [[mu, 0, 0], [0, alpha, beta], [0, -beta, alpha]] (Hairer, Wanner, Solving ODEs II, IV.8). For
        "esdirk" there is mu alone, and in place of a transformation the weights of the slopes before in a first guess of each; for
        "rosenbrock" mu alone, C, and the weights of df/dt.
        """
        if self.C is not None and self.slopes is not None:
            return np.array([1.0 / self.gamma]), self.C, self.slopes[None].copy()
        if self.family == "esdirk":
            mu = 1.0 / self.A[1, 1]
            return np.array([mu]), self._guesses(), np.array([[mu]])
        inverse = np.linalg.inv(self.A[1:, 1:])
        values, vectors = np.linalg.eig(inverse)
        real, pair = int(np.argmin(np.abs(values.imag))), int(np.argmax(values.imag))
        T = np.column_stack([vectors[:, real].real, vectors[:, pair].real, vectors[:, pair].imag])
        eigenvalues = np.array([values[real].real, values[pair].real, values[pair].imag])
        return eigenvalues, np.vstack([np.linalg.inv(T), T]), inverse

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

    @cached_property
    def for_kernels(self) -> tuple[np.ndarray, ...]:
        """(A, c, E, P transposed) in C order."""
        return tuple(np.ascontiguousarray(a) for a in (self.A, self.c, self.E, self.P.T))

    def _check(self) -> None:
        if self.family == "rosenbrock":
            self._check_rosenbrock()
            return
        rows, s = len(self.A), self.stages
        b, rounding = self.A[s], 1e-14 * np.abs(self.P).sum(axis=0).max()  # the weights of a dense output may be far above 1
        checks = {
            "shapes": self.A.shape == (rows, rows) and self.c.shape == (rows,) and self.P.shape[0] == rows,
            "error weights": self.E.ndim == 2 and self.E.shape[1] == rows,
            "form of A": self._has_its_form(),
            "row sums": np.allclose(self.A.sum(axis=1), self.c, rtol=0, atol=1e-13),
            "order conditions of the step": order_defect(self.A, b, self.order) < 1e-13,
            "order conditions of the dense output": order_defect(self.A, self.P, self.dense_order, self.P.shape[1]) < rounding,
            "dense output meets the step's end": np.allclose(self.P.sum(axis=1), b, rtol=0, atol=rounding),
            "order conditions of the embedded solutions": len(self.E) == len(self.embedded_orders)
            and all(order_defect(self.A, b - e, p) < 1e-13 for e, p in zip(self.E, self.embedded_orders, strict=True)),
        }
        self._require(checks)

    def _require(self, checks: dict[str, bool]) -> None:
        failed = [what for what, holds in checks.items() if not holds]
        if failed:
            raise ValueError(f"tableau {self.name} fails its own checks: {', '.join(failed)}")

    def rosenbrock_form(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """alpha, alpha + Gamma, and Gamma, of the stages: with l = Gamma^-1 k / h in place of k / h there are no sums over C."""
        inner = slice(1, self.stages)
        assert self.C is not None
        Gamma = np.linalg.inv(np.eye(self.stages - 1) / self.gamma - self.C[inner, inner])
        alpha = self.A[inner, inner] @ Gamma
        return alpha, alpha + Gamma, Gamma

    def _check_rosenbrock(self) -> None:
        inner, (alpha, beta, Gamma) = slice(1, self.stages), self.rosenbrock_form()
        b, E, P = self.A[self.stages, inner] @ Gamma, self.E[0, inner] @ Gamma, Gamma.T @ self.P[inner]
        assert self.slopes is not None
        self._require(
            {
                "row sums": np.allclose(alpha.sum(axis=1), self.c[inner], rtol=0, atol=1e-12),
                "row sums of Gamma": np.allclose(Gamma.sum(axis=1), self.slopes[inner], rtol=0, atol=1e-12),
                "order conditions of the step": order_defect(alpha, b, self.order, beta=beta) < 1e-12,
                "order conditions of the embedded solution": order_defect(alpha, b - E, self.embedded_orders[0], beta=beta) < 1e-12,
                "order conditions of the dense output": order_defect(alpha, P, self.dense_order, P.shape[1], beta=beta) < 1e-12,
                "dense output meets the step's end": np.allclose(self.P.sum(axis=1), self.A[self.stages], rtol=0, atol=1e-11),
            }
        )

    def _has_its_form(self) -> bool:
        if self.family in ("explicit", "auto"):
            return not np.any(np.triu(self.A))
        inside = self.A[1:, 1:]
        if self.stages != len(inside) or np.any(self.A[0]):
            return False
        if self.family == "esdirk":
            return not np.any(np.triu(inside, 1)) and bool(np.all(np.diag(inside) == self.A[1, 1])) and self.A[1, 1] > 0
        return self.family == "radau" and self.stages == 3 and np.linalg.cond(inside) < 1e3


def hermite_weights(A: np.ndarray, stages: int) -> np.ndarray:
    """P of the cubic Hermite interpolant through both ends and their slopes `K[0]` and `K[stages]`."""
    b = A[stages]
    P = np.outer(b, [0.0, 3.0, -2.0])
    P[0] += [1.0, -2.0, 1.0]
    P[stages] += [0.0, -1.0, 1.0]
    return P


def with_weights(stage_rows: list[list[float]], b: list[float]) -> np.ndarray:
    """The square coefficient matrix of a method from its stage rows and its weights (row s)."""
    size = len(b) + 1
    A = np.zeros((size, size))
    for i, coefficients in enumerate([*stage_rows, b]):
        A[i, : len(coefficients)] = coefficients
    return A


def filled(entries: dict[int, float], size: int) -> np.ndarray:
    """A row of coefficients from those that are not zero."""
    row = np.zeros(size)
    row[list(entries)] = list(entries.values())
    return row
