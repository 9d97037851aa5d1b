"""adjode: both tiers, its adjoints, two methods, those of Verner fused, and those for stiff problems. With `"gauss"` the spiral has
its `vjp_u`, as the documentation advises. "only f" is given f alone, as one writes it at first: the vjp is derived."""

from __future__ import annotations

import itertools
from functools import partial

from benchmarks.cases import JACOBIANS, STIFF_JACOBIANS, Gradient
from benchmarks.peers import Contender
from benchmarks.stiff_cases import CHEMICAL, STIFF_CASES

REQUIRES = ("adjode",)
TIERS = ("fused", "portable")
METHODS = ("Tsit5", "DOP853")
VERNER = (("fused", "discrete", "Vern7"), ("fused", "discrete", "Vern9"), ("fused", "gauss", "Vern9"))
ONLY_F = (("discrete", "Tsit5"), ("gauss", "Tsit5"))
STIFF = (("discrete", "Radau"), ("discrete", "Kvaerno5"), ("discrete", "TRBDF2"), ("gauss", "Radau"), ("gauss", "Rodas5P"))
RESIDUALS = (  # tier, method, cases
    *((tier, method, JACOBIANS) for tier, method in itertools.product(TIERS, METHODS)),
    *(("portable", method, STIFF_JACOBIANS) for method in ("Radau", "Kvaerno5", "TRBDF2", "auto")),
)
ADJOINTS = {  # options, and the algorithm of the C floor
    "gauss": ({"adjoint": "interpolating", "quadrature": "gauss"}, "quadrature"),
    "augmented": ({"adjoint": "interpolating", "quadrature": "augmented"}, "augmented"),
    "discrete": ({"adjoint": "discrete"}, "discrete"),
}


def contenders() -> list[Contender]:
    from adjode.tableaus import METHODS as KNOWN

    ordinary = [
        Contender(
            "adjode",
            f"{tier}, {adjoint}, {method}",
            partial(_make, tier, adjoint, method),
            floor=ADJOINTS[adjoint][1] if method == "Tsit5" else None,
            startup=(adjoint, method) == ("discrete", "Tsit5"),
            fine=tier == "fused" and method != "Tsit5",
        )
        for tier, adjoint, method in [*itertools.product(TIERS, ADJOINTS, METHODS), *VERNER]
    ]
    only_f = [
        Contender(
            "adjode",
            f"{tier}, {adjoint}, {method}, only f",
            partial(_make_of_f, tier, adjoint, method),
            floor=ADJOINTS[adjoint][1],
            startup=adjoint == "discrete",
        )
        for tier, (adjoint, method) in itertools.product(TIERS, ONLY_F)
    ]
    stiff = [
        Contender(
            "adjode",
            f"{tier}, {adjoint}, {method}",
            partial(_make_stiff, tier, adjoint, method),
            cases=STIFF_CASES if tier == "portable" else CHEMICAL,
            startup=(adjoint, method) == ("discrete", "Radau"),
        )
        for tier, (adjoint, method) in itertools.product(TIERS, STIFF)
        if method in KNOWN
    ]
    residuals = [
        Contender("adjode", f"{tier}, residuals and Jacobian, {method}", partial(_make_residuals, tier, method), cases)
        for tier, method, cases in RESIDUALS
    ]
    return ordinary + only_f + stiff + residuals


def _make_stiff(tier, adjoint, method, case, tol):
    import adjode
    from benchmarks.stiff_problems import STIFF_PROBLEMS

    problem = STIFF_PROBLEMS[case.name](*([True] if tier == "fused" else []))
    options = {"method": method, "rtol": tol, "atol": tol * case.scales(), **ADJOINTS[adjoint][0]}
    return as_gradient(adjode.value_and_gradient(problem.dynamics, problem.loss, problem.t_span, **options))


def _make_of_f(tier, adjoint, method, case, tol):
    import adjode
    from benchmarks import naive, problems

    problem = problems.PROBLEMS[case.name]()
    dynamics = adjode.Dynamics(naive.naive if case.system == "spiral" else problems.lv_f, fused=tier == "fused")
    options = {"method": method, "rtol": tol, "atol": tol, **ADJOINTS[adjoint][0]}
    return as_gradient(adjode.value_and_gradient(dynamics, problem.loss, problem.t_span, **options))


def _make(tier, adjoint, method, case, tol):
    import adjode
    from benchmarks import problems

    problem = problems.PROBLEMS[case.name]()
    if case.system == "spiral":
        products = {"vjp_u": problems.spiral_vjp_u} if adjoint == "gauss" else {}
        dynamics = adjode.Dynamics(problems.spiral_f, problems.spiral_vjp, fused=tier == "fused", **products)
    else:
        dynamics = adjode.Dynamics(problems.lv_f, problems.lv_vjp, fused=tier == "fused")
    options = {"method": method, "rtol": tol, "atol": tol, **ADJOINTS[adjoint][0]}
    return as_gradient(adjode.value_and_gradient(dynamics, problem.loss, problem.t_span, **options))


def _make_residuals(tier, method, case, tol):
    import adjode
    from benchmarks import problems, stiff_problems

    if case.system == "spiral":
        dynamics = problems.spiral(tier == "fused").dynamics
    elif case.system == "lotka_volterra":
        dynamics = problems.lv_dynamics(tier == "fused")
    else:
        dynamics = stiff_problems.chemical_dynamics(case.system, tier == "fused")
    loss = adjode.losses.LeastSquares(case.times, case.data, sigma=case.sigma)
    options = {"method": method, "rtol": tol, "atol": tol * case.scales()}
    evaluate, n = adjode.residuals_and_jacobian(dynamics, loss, case.t_span, **options), case.u0.size

    def value_and_jacobian(u0, theta):
        r, J = evaluate(u0, theta)
        return Gradient(0.5 * float(r @ r), J[:, :n], J[:, n:])

    return value_and_jacobian


def as_gradient(evaluate):
    def value_and_gradient(u0, theta):
        value, bar = evaluate(u0, theta)
        return Gradient(value, bar.u0, bar.theta)

    return value_and_gradient
