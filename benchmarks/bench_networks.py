"""Networks as right-hand sides: a batch through one network, beside its matrix products alone; a layer with many parameters.

OPENBLAS_NUM_THREADS=1 in the environment keeps the threads of OpenBLAS out of the times (docs/networks.md).
"""

from __future__ import annotations

import math

import numba
import numpy as np

from adjode import functions as kernels
from benchmarks.problems import BATCH, WIDTH, batch_network, wide_layer

TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


@numba.njit
def matrix_products(n_f, n_vjp, n_vjp_u, x, h, w1, w2, w3, out, a, a_bar, small, square):
    """The matrix products of so many calls of the network's callbacks, and nothing else."""
    for _ in range(n_f):
        np.dot(x, w1.T, a)
        np.dot(h, w2.T, a)
        np.dot(h, w3.T, out)
    for _ in range(n_vjp + n_vjp_u):
        np.dot(x, w1.T, a)
        np.dot(h, w2.T, a)
        np.dot(x, w3, a_bar)
        np.dot(h, w2, a_bar)
        np.dot(h, w1, out)
    for _ in range(n_vjp):
        np.dot(x.T, h, small)
        np.dot(a.T, h, square)
        np.dot(x.T, h, small)


def loop_over(function):
    @numba.njit(error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


ORIGINS = {"kernels": kernels, "the_c_library": math}
LOOPS = {f"{name}_of_{origin}": (module, name) for name in kernels.OF_NUMBERS for origin, module in ORIGINS.items()}


class Activations:
    """A loop over 4096 numbers."""

    params = list(LOOPS)
    param_names = ["loop"]

    def setup(self, loop):
        module, name = LOOPS[loop]
        self.x = np.abs(np.random.default_rng(0).normal(size=4096))
        self.out = np.empty_like(self.x)
        self.loop = loop_over(getattr(module, name))
        self.loop(self.x, self.out)

    def time_loop(self, loop):
        self.loop(self.x, self.out)


STRATEGIES: dict[str, dict[str, str]] = {
    "discrete": {},
    "interpolating, gauss": {"adjoint": "interpolating"},
    "interpolating, augmented": {"adjoint": "interpolating", "quadrature": "augmented"},
}


class BatchNetwork:
    """256 states of dimension 2 through a 2-64-64-2 network, gradient at 1e-6."""

    params = (["portable", "fused"], list(STRATEGIES))
    param_names = ["tier", "adjoint"]

    def setup(self, tier, adjoint):
        self.problem = batch_network(tier == "fused")
        self.gradient = self.problem.value_and_gradient(**STRATEGIES[adjoint], **TOLERANCE)
        _, bar = self.gradient()
        self.error = self.problem.gradient_error(bar)
        self.evaluations = (self.problem.solve(**TOLERANCE).stats.n_f, bar.stats.n_vjp, bar.stats.n_vjp_u)
        shapes = [(BATCH, 2), (BATCH, WIDTH), (WIDTH, 2), (WIDTH, WIDTH), (2, WIDTH)]
        outputs = [(BATCH, 2), (BATCH, WIDTH), (BATCH, WIDTH), (2, WIDTH), (WIDTH, WIDTH)]
        self.matrices = [np.ones(shape) for shape in (*shapes, *outputs)]
        matrix_products(1, 1, 1, *self.matrices)

    def time_value_and_gradient(self, tier, adjoint):
        self.gradient()

    def time_matrix_products_alone(self, tier, adjoint):
        matrix_products(*self.evaluations, *self.matrices)

    def track_gradient_error(self, tier, adjoint):
        return self.error

    def track_evaluations(self, tier, adjoint):
        return sum(self.evaluations)


class WideLayer:
    """n states and n^2 + n parameters: what theta_bar costs beyond u0_bar, for each node of the quadrature and parameter."""

    params = [250, 500, 1000]
    param_names = ["n"]
    timeout = 300

    def setup(self, n):
        problem = wide_layer(n)
        self.both = problem.value_and_gradient(wrt=("u0", "theta"), **TOLERANCE)
        self.state_alone = problem.value_and_gradient(wrt=("u0",), **TOLERANCE)
        self.both()
        self.state_alone()

    def time_value_and_gradient(self, n):
        self.both()

    def time_without_theta(self, n):
        self.state_alone()

    def track_evaluations_of_vjp(self, n):
        return self.both()[1].stats.n_vjp
