"""pydiffsol: the discrete adjoints of its Tsitouras method and, on stiff problems, of its ESDIRK and BDF methods.

Models are in DiffSL, compiled by LLVM.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.cases import HIDDEN, Gradient
from benchmarks.peers import Contender
from benchmarks.stiff_cases import CHEMICAL, REACTIONS, rate_terms

REQUIRES = ("pydiffsol",)

LOTKA_VOLTERRA = """
in_i { a = 1, b = 1, c = 1, d = 1, x0 = 1, y0 = 1 }
u_i { x = x0, y = y0 }
F_i { a * x - b * x * y, -c * y + d * x * y }
"""


def _spiral() -> str:
    n = HIDDEN
    inputs = ", ".join(f"p{k} = 0" for k in range(5 * n + 2))
    w1 = ", ".join(f"({i}, {j}): p{2 * i + j}" for i in range(n) for j in range(2))
    b1 = ", ".join(f"p{2 * n + i}" for i in range(n))
    w2 = ", ".join(f"({i}, {j}): p{(3 + i) * n + j}" for i in range(2) for j in range(n))
    return f"""
in_i {{ {inputs}, x0 = 1, y0 = 1 }}
W_ij {{ {w1} }}
b_i {{ {b1} }}
V_ij {{ {w2} }}
c_i {{ p{5 * n}, p{5 * n + 1} }}
u_i {{ x = x0, y = y0 }}
q_i {{ u_i * u_i * u_i }}
z_i {{ W_ij * q_j }}
h_i {{ tanh(z_i + b_i) }}
v_i {{ V_ij * h_j }}
F_i {{ v_i + c_i }}
"""


def contenders() -> list[Contender]:
    stiff = [
        Contender("pydiffsol", f"discrete adjoint, {method}", partial(_make, method), cases=CHEMICAL, startup=method == "bdf")
        for method in ("bdf", "esdirk34", "tr_bdf2")
    ]
    return [Contender("pydiffsol", "discrete adjoint, tsit45", partial(_make, "tsit45"), startup=True), *stiff]


def _chemistry(case) -> str:
    """The state starts at inputs x0, x1, ...; the parameters are p0, p1, ..."""
    inputs = ", ".join([*(f"p{k} = 1" for k in range(case.theta.size)), *(f"x{k} = 1" for k in range(case.u0.size))])
    states = ", ".join(f"y{k} = x{k}" for k in range(case.u0.size))
    terms = rate_terms(REACTIONS[case.name], case.u0.size, "p{}", "y{}")
    return f"in_i {{ {inputs} }}\nu_i {{ {states} }}\nF_i {{ {', '.join(terms)} }}\n"


def _make(method, case, tol):
    import pydiffsol

    if case.name in REACTIONS:
        code = _chemistry(case)
    else:
        code = LOTKA_VOLTERRA if case.system == "lotka_volterra" else _spiral()
    ode = pydiffsol.Ode(code, matrix_type=pydiffsol.nalgebra_dense, ode_solver=getattr(pydiffsol, method))
    ode.rtol = tol
    ode.atol = tol * (float(np.max(case.scales())) if case.name in REACTIONS else 1.0)
    times, m = np.ascontiguousarray(case.times), case.theta.size

    def value_and_gradient(u0, theta):
        solution, checkpoint = ode.solve_adjoint_fwd(np.concatenate([theta, u0]), times)
        value, u_bars = case.loss(solution.ys.T)
        bar = ode.solve_adjoint_bkwd(solution, checkpoint, np.ascontiguousarray(u_bars.T))[:, 0]
        return Gradient(value, bar[m:], bar[:m])

    return value_and_gradient
