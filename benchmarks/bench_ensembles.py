"""Ensembles on threads: time, scaling, and how far above the passes alone."""

from __future__ import annotations

import adjode
from benchmarks.ensembles import METHOD, TOLERANCE, measure
from benchmarks.problems import LORENZ_LOSS, LORENZ_SPAN, lorenz_dynamics, lorenz_ensemble

_N = 10_000
OPTIONS = {"method": METHOD, "rtol": TOLERANCE, "atol": TOLERANCE}


class SpeedEnsemble:
    """Ten thousand gradients of Lorenz systems."""

    params = ([1, 2], [False, True], ["own theta", "shared theta"])
    param_names = ["workers", "fused", "theta"]

    def setup(self, workers, fused, theta):
        self.u0, self.theta = lorenz_ensemble(_N)
        self.theta = self.theta[0] if theta == "shared theta" else self.theta
        problem = lorenz_dynamics(fused), LORENZ_LOSS, LORENZ_SPAN
        self.evaluate = adjode.ensemble_value_and_gradient(*problem, workers=workers, **OPTIONS)
        self.evaluate(self.u0, self.theta)

    def time_gradients(self, *params):
        self.evaluate(self.u0, self.theta)

    def time_solve(self, workers, fused, theta):
        adjode.solve_ensemble(lorenz_dynamics(fused), self.u0, self.theta, LORENZ_SPAN, workers=workers, **OPTIONS)


class ScalingEnsemble:
    """Speed-up over one thread, divided by the number of threads."""

    timeout = 300

    def setup_cache(self):
        return measure(_N, 10, fused=True)

    def track_speedup_per_thread(self, rows):
        return rows.get("speedup per thread, threads: 2", 1.0)

    def track_time_over_passes_alone(self, rows):
        return rows["seconds, threads: 1"] / rows["seconds, passes alone"]

    def track_error(self, rows):
        return rows["largest error of the gradient"]


class MemoryEnsemble:
    """Peak memory of a process that takes a hundred thousand gradients of a shared theta."""

    def setup(self):
        self.u0, theta = lorenz_ensemble(100_000)
        self.theta = theta[0]

    def peakmem_gradients(self):
        adjode.ensemble_value_and_gradient(lorenz_dynamics(), LORENZ_LOSS, LORENZ_SPAN, **OPTIONS)(self.u0, self.theta)
