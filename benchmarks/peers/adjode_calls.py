"""What benchmarks/paired.py times of adjode: the contenders of `benchmarks.compare`, a call of one step, and ensembles."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from benchmarks.cases import Gradient
from benchmarks.peers import Contender
from benchmarks.peers import adjode as peer

REQUIRES = peer.REQUIRES
MEMBERS = 10_000
THREADS = (1, 2)


def contenders() -> list[Contender]:
    calls = [Contender("adjode", f"{tier}, one step", partial(_one_step, tier)) for tier in peer.TIERS]
    ensembles = [
        Contender("adjode", f"{tier}, ensemble, {threads}", partial(_ensemble, tier, threads))
        for tier, threads in itertools.product(peer.TIERS, THREADS)
    ]
    return [*peer.contenders(), *calls, *ensembles]


def _one_step(tier, case, tol):
    """Of which nine tenths are Python."""
    import adjode
    from benchmarks.problems import lv_final

    problem = lv_final(fused=tier == "fused")
    options = {"rtol": tol, "atol": tol, "first_step": 0.01}
    return peer.as_gradient(adjode.value_and_gradient(problem.dynamics, problem.loss, (0.0, 0.01), **options))


def _ensemble(tier, threads, case, tol):
    """Ten thousand Lorenz systems, whatever the case."""
    import adjode
    from benchmarks.problems import LORENZ_LOSS, LORENZ_SPAN, lorenz_dynamics, lorenz_ensemble

    inputs = lorenz_ensemble(MEMBERS)
    problem = lorenz_dynamics(tier == "fused"), LORENZ_LOSS, LORENZ_SPAN
    evaluate = adjode.ensemble_value_and_gradient(*problem, workers=threads, rtol=tol, atol=tol)

    def summed(u0, theta):
        value, bar = evaluate(*inputs)
        return Gradient(float(np.sum(value)), bar.u0.sum(axis=0), bar.theta.sum(axis=0))

    return summed
