"""`Tableau`: the numbers of one Runge-Kutta method, checked against its order conditions when built."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from adjode.tableaus.adjoint_error import AdjointError, adjoint_error, implicit_adjoint_error
from adjode.tableaus.order_conditions import order_defect
from adjode.tableaus.quadrature_error import QuadratureError, quadrature_error
from adjode.tableaus.step_error import step_error


@dataclass(frozen=True, eq=False)
class Tableau:
    """An explicit Runge-Kutta method with dense output; the forms of other families are beside their tableaus.

    Rows 0..s-1 are the stages, row s repeats the weights b with c = 1 (so `K[s] = f(t + h, u_new)` is the first stage of the
    next step, whether or not the method is called "first same as last"), rows s+1.. are extra stages of the dense output.

    Parameters
    ----------
    name : str
        The name users choose the method by.
    order, dense_order : int
        Order of the step and of its dense output.
    stages : int
        s, the number of stages of the step.
    A : (r, r) array
        Coefficients of all rows.
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
    filtered : bool
        Whether an implicit method's error estimate is multiplied by (I - h gamma J)^-1, as it must be where it would grow without
        bound with the stiffness (Hosea, Shampine 1996, Appl. Numer. Math. 20, 21-37, section 4).
    middle : (r, d) array, optional
        The same dense output about the middle of the step, `u(t + x h) = u + h sum_i K_i x sum_p middle[i, p] (x - 1/2)**p`. At
        high order the weights of powers of x are in the ten thousands and cancel, these hardly do: kernels take them if given.
    partner : Tableau, optional
        Of a method that switches, the implicit one, with no more rows than this one has, and a dense output of the same degree.

    Attributes
    ----------
    family : str
        The name of its family, see steppers/family.py.
    implicit : bool
        Whether it takes implicit steps, among others perhaps.
    together : bool
        Whether all implicit stages are solved for together.
    """

    family: ClassVar[str] = "explicit"
    implicit: ClassVar[bool] = False
    together: ClassVar[bool] = False

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
    filtered: bool = False
    middle: np.ndarray | None = None
    partner: Tableau | None = None

    def __post_init__(self):
        for field in ("A", "c", "P", "E", *(["middle"] if self.centred else [])):
            array = np.array(getattr(self, field), dtype=float, order="C")
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        self._check()

    @property
    def adaptive(self) -> bool:
        return len(self.E) > 0

    @property
    def reach(self) -> float:
        """How far from its start a step evaluates f, in steps."""
        return max(1.0, float(np.max(self.c)))

    @property
    def centred(self) -> bool:
        """Whether kernels take the weights of the dense output about the middle of the step."""
        return self.middle is not None

    @cached_property
    def decoupled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What separates implicit stages: eigenvalues of A^-1, A being that of the stages, and matrices that the family needs."""
        raise TypeError(f"{self.name} has no implicit stages")

    @cached_property
    def adjoint_error(self) -> AdjointError:
        """What the discrete adjoint estimates its error by."""
        return adjoint_error(self.A, self.P, self.stages, self.order)

    @cached_property
    def quadrature_error(self) -> QuadratureError:
        """What the discrete adjoint estimates the error of theta_bar by."""
        return quadrature_error(self.A, self.c, self.stages, self.order)

    @cached_property
    def step_error(self) -> tuple[float, float]:
        """What the error of a step is found by from its estimate; see `step_error`."""
        step = slice(0, self.stages + 1)
        return step_error(self.A[step, step], self.A[self.stages, step], self.E[:, step], (self.order, self.error_order))

    @cached_property
    def for_kernels(self) -> tuple[np.ndarray, ...]:
        """(A, c, E, P or `middle` transposed) in C order."""
        weights = self.P if self.middle is None else self.middle
        return tuple(np.ascontiguousarray(a) for a in (self.A, self.c, self.E, weights.T))

    def _check(self) -> None:
        rows, s = len(self.A), self.stages
        b = self.A[s]
        checks = {
            "shapes": self.A.shape == (rows, rows) and self.c.shape == (rows,) and self.P.shape[0] == rows,
            "error weights": self.E.ndim == 2 and self.E.shape[1] == rows,
            "form of A": self._has_its_form(),
            "row sums": np.allclose(self.A.sum(axis=1), self.c, rtol=0, atol=1e-13),
            "order conditions of the step": order_defect(self.A, b, self.order) < 1e-13,
            **self._check_dense_output(),
            "order conditions of the embedded solutions": len(self.E) == len(self.embedded_orders)
            and all(order_defect(self.A, b - e, p) < 1e-13 for e, p in zip(self.E, self.embedded_orders, strict=True)),
        }
        self._require(checks)

    def _check_dense_output(self) -> dict[str, bool]:
        weights, about, powers = (self.P, 0.0, self.P) if self.middle is None else (self.middle, 0.5, about_start(self.middle))
        # weights may be far above 1, and so is what rounding leaves
        least, rounding = (1e-14 * np.abs(array).sum(axis=0).max() for array in (weights, self.P))
        defect = order_defect(self.A, weights, self.dense_order, weights.shape[1], about=about)
        return {
            "order conditions of the dense output": defect < least,
            "dense output meets the step's end": np.allclose(self.P.sum(axis=1), self.A[self.stages], rtol=0, atol=rounding),
            "dense output about the middle": np.allclose(powers, self.P, rtol=0, atol=rounding),
        }

    def _require(self, checks: dict[str, bool]) -> None:
        failed = [what for what, holds in checks.items() if not holds]
        if failed:
            raise ValueError(f"tableau {self.name} fails its own checks: {', '.join(failed)}")

    def _has_its_form(self) -> bool:
        return not np.any(np.triu(self.A))


@dataclass(frozen=True, eq=False)
class ImplicitTableau(Tableau):
    """An implicit method, stiffly accurate, in the same form.

    Row 0 is the slope at the start of the step (for a method with no such stage a row and a column of zeros), rows 1..s are
    implicit, row s is the weights b, and there are no further rows.
    """

    implicit: ClassVar[bool] = True

    @cached_property
    def adjoint_error(self) -> AdjointError:
        return implicit_adjoint_error(self.A, self.order, self.dense_order)

    def _has_its_form(self) -> bool:
        return self.stages == len(self.A) - 1 and not np.any(self.A[0])


def about_start(middle: np.ndarray) -> np.ndarray:
    """Weights of powers of x from those of powers of x - 1/2, by Horner's scheme."""
    P, degree = middle.copy(), middle.shape[1]
    for first in range(degree - 1):
        for p in range(degree - 2, first - 1, -1):
            P[:, p] -= 0.5 * P[:, p + 1]
    return P


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
