"""Low-order methods: BS3 (adaptive), and the fixed-step RK4, Midpoint and Euler."""

import numpy as np

from adjode.tableaus.tableau import Tableau, hermite_weights, with_weights


def bs3() -> Tableau:
    """The pair of Bogacki and Shampine. The error estimate is twice the difference of the two solutions.

    Where something grows or decays by many decades, errors of this method of low order add up to twice a tolerance for each factor
    of e; so it is one, as for methods of higher order, and SciPy's RK23 takes a fifth fewer steps.
    """
    A = with_weights([[], [1 / 2], [0, 3 / 4]], [2 / 9, 1 / 3, 4 / 9])
    return Tableau(
        name="BS3",
        order=3,
        dense_order=3,
        stages=3,
        A=A,
        c=np.array([0, 1 / 2, 3 / 4, 1]),
        P=hermite_weights(A, 3),
        E=2.0 * np.array([[5 / 72, -1 / 12, -1 / 9, 1 / 8]]),
        embedded_orders=(2,),
        error_order=2,
        source="P. Bogacki, L. F. Shampine (1989), Appl. Math. Lett. 2, 321-325",
    )


def rk4() -> Tableau:
    A = with_weights([[], [1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6])
    return Tableau(
        name="RK4",
        order=4,
        dense_order=3,
        stages=4,
        A=A,
        c=np.array([0, 1 / 2, 1 / 2, 1, 1]),
        P=hermite_weights(A, 4),
        E=np.zeros((0, 5)),
        embedded_orders=(),
        error_order=0,
        source="W. Kutta (1901), Z. Math. Phys. 46, 435-453; dense output: cubic Hermite",
    )


def midpoint() -> Tableau:
    return Tableau(
        name="Midpoint",
        order=2,
        dense_order=2,
        stages=2,
        A=with_weights([[], [1 / 2]], [0, 1]),
        c=np.array([0, 1 / 2, 1]),
        P=np.array([[1, -1], [0, 1], [0, 0]]),
        E=np.zeros((0, 3)),
        embedded_orders=(),
        error_order=0,
        source="C. Runge (1895), Math. Ann. 46, 167-178",
    )


def euler() -> Tableau:
    return Tableau(
        name="Euler",
        order=1,
        dense_order=1,
        stages=1,
        A=with_weights([[]], [1]),
        c=np.array([0, 1]),
        P=np.array([[1], [0]]),
        E=np.zeros((0, 2)),
        embedded_orders=(),
        error_order=0,
        source="L. Euler (1768), Institutiones calculi integralis",
    )
