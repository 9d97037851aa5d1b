"""The numbers of the stiff reference problems, for whoever solves them: reactions, states, parameters, times, the loss.

Nothing here imports adjode. Chemical systems are tables of reactions with mass action kinetics, from which other libraries get
their right-hand sides; each loss is a sum of `weights . u` over the observation times.

Sources: H. H. Robertson (1966), E. Schaefer (1975, "HIRES"), R. J. Field and R. M. Noyes (1974, "OREGO"): E. Hairer, G. Wanner,
Solving Ordinary Differential Equations II, IV.10. POLLU: J. G. Verwer, SIAM J. Sci. Comput. 15 (1994) 1243. The Brusselator:
Hairer and Wanner, IV.10.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Reaction(NamedTuple):
    """The rate is theta[parameter] times the product of the reactants' concentrations, which are numbers of states."""

    parameter: int
    reactants: tuple[int, ...]
    products: tuple[int, ...]


ROBER = (Reaction(0, (0,), (1,)), Reaction(1, (1, 1), (1, 2)), Reaction(2, (1, 2), (0, 2)))

HIRES = (
    Reaction(0, (0,), (1,)),
    Reaction(1, (2,), (3,)),
    Reaction(2, (4,), (5,)),
    Reaction(3, (1,), (0,)),
    Reaction(3, (3,), (2,)),
    Reaction(3, (5,), (4,)),
    Reaction(3, (6,), (4, 7)),
    Reaction(4, (1,), (3,)),
    Reaction(5, (3,), (5,)),
    Reaction(6, (4,), (2,)),
    Reaction(7, (2,), (0,)),
    Reaction(8, (5, 7), (6,)),
    Reaction(9, (6,), (5, 7)),
    Reaction(10, (6,), (7,)),
    Reaction(11, (), (0,)),
)

POLLU = tuple(
    Reaction(k, reactants, products)
    for k, (reactants, products) in enumerate(
        [
            ((0,), (1, 2)),
            ((1, 3), (0,)),
            ((4, 1), (5, 0)),
            ((6,), (4, 4, 7)),
            ((6,), (7,)),
            ((6, 5), (4, 7)),
            ((8,), (9, 7, 4)),
            ((8, 5), (10,)),
            ((10, 1), (9, 0, 11)),
            ((10, 0), (12,)),
            ((12,), (10, 0)),
            ((9, 1), (13, 0)),
            ((13,), (6, 4)),
            ((0, 5), (14,)),
            ((2,), (3,)),
            ((3,), (15,)),
            ((3,), (2,)),
            ((15,), (5, 5)),
            ((15,), (2,)),
            ((16, 5), (17, 4)),
            ((18,), (1,)),
            ((18,), (0, 2)),
            ((0, 3), (18,)),
            ((18, 0), (19,)),
            ((19,), (18, 0)),
        ]
    )
)

REACTIONS = {"rober": ROBER, "hires": HIRES, "pollu": POLLU}


def rate_terms(reactions: tuple[Reaction, ...], species: int, parameter: str, state: str) -> list[str]:
    """The derivative of each state as text, with names such as "theta[{}]" and "u[{}]"."""
    terms: list[list[str]] = [[] for _ in range(species)]
    for one in reactions:
        rate = " * ".join([parameter.format(one.parameter), *(state.format(i) for i in one.reactants)])
        for i in range(species):
            change = one.products.count(i) - one.reactants.count(i)
            if change:
                terms[i].append(rate if change == 1 else f"({float(change)}) * {rate}")
    return [" + ".join(own) for own in terms]


# fmt: off
POLLU_RATES = (
    0.35, 26.6, 1.23e4, 8.6e-4, 8.2e-4, 1.5e4, 1.3e-4, 2.4e4, 1.65e4, 9e3, 2.2e-2, 1.2e4, 1.88, 1.63e4, 4.8e6, 3.5e-4, 1.75e-2, 1e8,
    4.44e11, 1240.0, 2.1, 5.78, 4.74e-2, 1780.0, 3.12,
)
HIRES_RATES = (1.71, 1.71, 1.71, 0.43, 8.32, 0.69, 0.035, 8.32, 280.0, 0.69, 0.69, 7e-4)
# fmt: on


@dataclass(frozen=True, eq=False)
class StiffCase:
    """An initial value problem whose loss is the sum of `weights . u` over observation times.

    Attributes
    ----------
    name : str
    u0, theta : (n,), (m,) arrays
    t_span : (t0, T)
    times : (k,) array
        Rising, the last is T.
    weights : (n,) array
    """

    name: str
    u0: np.ndarray
    theta: np.ndarray
    t_span: tuple[float, float]
    times: np.ndarray
    weights: np.ndarray

    @property
    def system(self) -> str:
        return self.name

    def loss(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss of the states at the observation times, (k, n), and its derivative by them."""
        return float((u @ self.weights).sum()), np.tile(self.weights, (len(u), 1))

    def scales(self) -> np.ndarray:
        """How small the states are where they matter, for absolute tolerances: atol = rtol * scale."""
        return SCALES.get(self.name, 1.0) * np.ones(self.u0.size)


# rober's second state is never larger than 4e-5, HIRES's states at the end are all below 1e-2, POLLU's radicals are tiny
SCALES: dict[str, object] = {"rober": np.array([1e-2, 1e-6, 1e-2]), "hires": 1e-3, "pollu": 1e-4}


def rober() -> StiffCase:
    times = 10.0 ** np.arange(-5, 6)
    weights = np.array([0.0, 1e4, 1.0])
    return StiffCase("rober", np.array([1.0, 0.0, 0.0]), np.array([0.04, 3e7, 1e4]), (0.0, 1e5), times, weights)


def hires() -> StiffCase:
    """Eight states, twelve parameters, a long span, one observation. The light reactions of HIRES have three rates here."""
    u0 = np.array([1.0, 0, 0, 0, 0, 0, 0, 0.0057])
    return StiffCase("hires", u0, np.array(HIRES_RATES), (0.0, 321.8122), np.array([321.8122]), np.arange(1.0, 9.0))


def pollu() -> StiffCase:
    """Twenty states, twenty-five parameters, ten observations."""
    u0 = np.zeros(20)
    u0[[1, 3, 6, 7, 8, 16]] = 0.2, 0.04, 0.1, 0.3, 0.01, 0.007
    return StiffCase("pollu", u0, np.array(POLLU_RATES), (0.0, 60.0), np.linspace(6.0, 60.0, 10), np.cos(np.arange(20.0)))


def orego() -> StiffCase:
    """u1' = s (u2 + u1 (1 - q u1 - u2)), u2' = (u3 - (1 + u1) u2) / s, u3' = w (u1 - u3), theta = (s, q, w)."""
    times = np.linspace(30.0, 360.0, 12)
    return StiffCase("orego", np.array([1.0, 2.0, 3.0]), np.array([77.27, 8.375e-6, 0.161]), (0.0, 360.0), times, np.ones(3))


def van_der_pol(mu: float) -> StiffCase:
    """u1' = u2, u2' = mu (1 - u1^2) u2 - a u1, theta = (mu, a).

    The span takes in the first jump up to mu = 1e3. Beyond, it ends halfway to it: sensitivities grow so much on the way through a
    jump, and shrink again, that nothing is left of them in double precision at mu = 1e6.
    """
    T = mu + 10.0 if mu <= 1e3 else mu / 2
    name = f"van_der_pol_{mu:.0e}"
    return StiffCase(name, np.array([2.0, 0.0]), np.array([mu, 1.0]), (0.0, T), np.array([T]), np.array([1.0, 0.0]))


def brusselator_1d(points: int = 50) -> StiffCase:
    """u_i' = a + u_i^2 v_i - (b + 1) u_i + d (N + 1)^2 (u_{i-1} - 2 u_i + u_{i+1}), v_i' = b u_i - u_i^2 v_i + d ..., on N points.

    Values at the ends are 1 and 3; u_i and v_i alternate in the state; theta = (a, b, d).
    """
    x = np.arange(1, points + 1) / (points + 1)
    u0 = np.column_stack([1.0 + np.sin(2 * np.pi * x), np.full(points, 3.0)]).ravel()
    weights = np.tile([1.0 / points, 0.0], points)
    theta = np.array([1.0, 3.0, 0.02])
    return StiffCase("brusselator_1d", u0, theta, (0.0, 10.0), np.array([10.0]), weights)


def brusselator_2d(points: int = 32) -> StiffCase:
    """The Brusselator on a periodic grid of N x N points in the unit square: 2 N^2 states, u and v alternating.

    u' = b + u^2 v - (a + 1) u + d N^2 lap(u) + s(x, y), v' = a u - u^2 v + d N^2 lap(v), s = c inside a disc; theta = (a, b, d, c).
    """
    x = np.arange(points) / points
    u0 = np.empty((points, points, 2))
    u0[..., 0] = 22.0 * ((x * (1.0 - x)) ** 1.5)[None, :]
    u0[..., 1] = 27.0 * ((x * (1.0 - x)) ** 1.5)[:, None]
    weights = np.cos(np.arange(2.0 * points**2)) + 1.0
    weights /= points**2
    theta = np.array([3.4, 1.0, 1.0, 5.0])
    return StiffCase("brusselator_2d", u0.ravel(), theta, (0.0, 11.5), np.array([11.5]), weights)


def disc(points: int) -> np.ndarray:
    """The source of the 2-D Brusselator, for c = 1: one inside the disc of radius 0.1 around (0.3, 0.6)."""
    x = np.arange(points) / points
    return (((x[:, None] - 0.3) ** 2 + (x[None, :] - 0.6) ** 2) <= 0.1**2).astype(float).ravel()


CHEMICAL = ("rober", "hires", "pollu")
STIFF_CASES = (*CHEMICAL, "brusselator_2d")
MAKE = {
    "rober": rober,
    "hires": hires,
    "pollu": pollu,
    "orego": orego,
    "brusselator_1d": brusselator_1d,
    "brusselator_2d": brusselator_2d,
} | {f"van_der_pol_{mu:.0e}": functools.partial(van_der_pol, mu) for mu in (1.0, 1e3, 1e6)}


@functools.cache
def stiff_case(name: str) -> StiffCase:
    return MAKE[name]()
