"""Rodas5P: a Rosenbrock method of order 5 that keeps its order, nearly, where the problem is stiff."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from adjode.tableaus.adjoint_error import AdjointError
from adjode.tableaus.order_conditions import order_defect
from adjode.tableaus.quadrature_error import QuadratureError, no_quadrature_error
from adjode.tableaus.step_error import step_error
from adjode.tableaus.tableau import ImplicitTableau


@dataclass(frozen=True, eq=False, kw_only=True)
class RosenbrockTableau(ImplicitTableau):
    """A Rosenbrock method, see steppers/rosenbrock.py. Rows 1..s-1 are k_i / h, and row s the slope after the step.

    Parameters
    ----------
    C, slopes : (r, r), (r,) arrays
        Weights of the k before in each stage, and of df/dt.
    gamma : float
    """

    family: ClassVar[str] = "rosenbrock"

    C: np.ndarray
    slopes: np.ndarray
    gamma: float

    @cached_property
    def adjoint_error(self) -> AdjointError:
        return AdjointError(np.zeros(len(self.A)))  # its steps are not transposed

    @cached_property
    def quadrature_error(self) -> QuadratureError:
        return no_quadrature_error(len(self.A))

    @cached_property
    def decoupled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The one eigenvalue mu, C, and the weights of df/dt."""
        return np.array([1.0 / self.gamma]), self.C, self.slopes[None].copy()

    @cached_property
    def step_error(self) -> tuple[float, float]:
        inner, (alpha, beta, Gamma) = slice(1, self.stages), self.without_sums()
        b, E = self.A[self.stages, inner] @ Gamma, self.E[:, inner] @ Gamma
        return step_error(alpha, b, E, (self.order, self.error_order), beta)

    def without_sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """alpha, alpha + Gamma, and Gamma, of the stages: with l = Gamma^-1 k / h in place of k / h there are no sums over C."""
        inner = slice(1, self.stages)
        Gamma = np.linalg.inv(np.eye(self.stages - 1) / self.gamma - self.C[inner, inner])
        alpha = self.A[inner, inner] @ Gamma
        return alpha, alpha + Gamma, Gamma

    def _check(self) -> None:
        inner, (alpha, beta, Gamma) = slice(1, self.stages), self.without_sums()
        b, E, P = self.A[self.stages, inner] @ Gamma, self.E[0, inner] @ Gamma, Gamma.T @ self.P[inner]
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


_GAMMA = 0.21193756319429014
_A = [
    [],
    [3.0],
    [2.849394379747939, 0.45842242204463923],
    [-6.954028509809101, 2.489845061869568, -10.358996098473584],
    [2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641],
    [-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946],
]
_C = [
    [],
    [-14.155112264123755],
    [-17.97296035885952, -2.859693295451294],
    [147.12150275711716, -1.41221402718213, 71.68940251302358],
    [165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306],
    [24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471],
    [30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623, -28.087943162872662],
    [
        37.80277123390563,
        -3.2571969029072276,
        112.26918849496327,
        66.9347231244047,
        -40.06618937091002,
        -54.66780262877968,
        -9.48861652309627,
    ],
]
_NODES = [0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0]
_SLOPES = [_GAMMA, -0.42387512638858027, -0.3384627126235924, 1.8046452872882734, 2.325825639765069, 0.0, 0.0, 0.0]
# u(t + x h) = (1 - x) u + x (u_new + (1 - x) (H_0 + x (H_1 + x H_2)) . k)
_H = [
    [
        25.948786856663858,
        -2.5579724845846235,
        10.433815404888879,
        -2.3679251022685204,
        0.524948541321073,
        1.1241088310450404,
        0.4272876194431874,
        -0.17202221070155493,
    ],
    [
        -9.91568850695171,
        -0.9689944594115154,
        3.0438037242978453,
        -24.495224566215796,
        20.176138334709044,
        15.98066361424651,
        -6.789040303419874,
        -6.710236069923372,
    ],
    [
        11.419903575922262,
        2.8879645146136994,
        72.92137995996029,
        80.12511834622643,
        -52.072871366152654,
        -59.78993625266729,
        -0.15582684282751913,
        4.883087185713722,
    ],
]


def rodas5p() -> RosenbrockTableau:
    """Row 0 is the slope at the start, rows 1..8 the stages, row 9 the slope at the end, which is the next step's row 0."""
    A, C, P, E = np.zeros((10, 10)), np.zeros((10, 10)), np.zeros((10, 4)), np.zeros((1, 10))
    for i, coefficients in enumerate(_A, 1):
        A[i, 1 : 1 + len(coefficients)] = coefficients
    for i in (7, 8, 9):  # each corrects the one before: the last is the step, and the last correction its error
        A[i] = A[i - 1]
        A[i, i - 1] = 1.0
    for i, coefficients in enumerate(_C, 1):
        C[i, 1 : 1 + len(coefficients)] = coefficients
    h0, h1, h2 = np.array(_H)
    P[1:9] = np.column_stack([A[9, 1:9] + h0, h1 - h0, h2 - h1, -h2])
    E[0, 8] = 1.0
    return RosenbrockTableau(
        name="Rodas5P",
        order=5,
        dense_order=4,
        stages=9,
        A=A,
        c=np.array([0.0, *_NODES, 1.0]),
        P=P,
        E=E,
        embedded_orders=(4,),
        error_order=4,
        source="G. Steinebach (2023), BIT Numerical Mathematics 63, 27",
        C=C,
        slopes=np.array([0.0, *_SLOPES, 0.0]),
        gamma=_GAMMA,
    )
