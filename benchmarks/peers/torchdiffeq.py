"""torchdiffeq: on one thread, in double precision; with `odeint_adjoint` the error norm is that of (u, lam) alone."""

from __future__ import annotations

from functools import partial

from benchmarks.cases import HIDDEN, Gradient
from benchmarks.peers import Contender

REQUIRES = ("torchdiffeq", "torch")
VARIANTS = (("odeint_adjoint", "dopri5"), ("odeint_adjoint", "dopri8"), ("odeint", "dopri5"), ("odeint", "dopri8"))


def contenders() -> list[Contender]:
    return [
        Contender("torchdiffeq", f"{entry}, {method}", partial(_make, entry, method), startup=(entry, method) == VARIANTS[0])
        for entry, method in VARIANTS
    ]


def _systems():
    import torch

    class LotkaVolterra(torch.nn.Module):
        def __init__(self, theta):
            super().__init__()
            self.theta = torch.nn.Parameter(theta)

        def forward(self, t, u):
            both = u[0] * u[1]
            return torch.stack([self.theta[0] * u[0] - self.theta[1] * both, self.theta[3] * both - self.theta[2] * u[1]])

    class Spiral(LotkaVolterra):
        def forward(self, t, u):
            n, theta = HIDDEN, self.theta
            w1, b1 = theta[: 2 * n].view(n, 2), theta[2 * n : 3 * n]
            w2, b2 = theta[3 * n : 5 * n].view(2, n), theta[5 * n :]
            return torch.addmv(b2, w2, torch.tanh(torch.addmv(b1, w1, u**3)))

    return {"lotka_volterra": LotkaVolterra, "spiral": Spiral}


def _make(entry, method, case, tol):
    import torch
    import torchdiffeq

    torch.set_num_threads(1)
    system = _systems()[case.system](torch.tensor(case.theta))
    solve, options = getattr(torchdiffeq, entry), {"method": method, "rtol": tol, "atol": tol}
    if entry == "odeint_adjoint":
        options["adjoint_options"] = {"norm": "seminorm"}
    # the first time is that of u0
    skip = 1 if case.times[0] > case.t_span[0] else 0
    times = torch.tensor([case.t_span[0], *case.times][1 - skip :], dtype=torch.float64)
    data = None if case.data is None else torch.tensor(case.data)

    def value_and_gradient(u0, theta):
        start = torch.tensor(u0, requires_grad=True)
        with torch.no_grad():
            system.theta.copy_(torch.from_numpy(theta))
        system.theta.grad = None
        u = solve(system, start, times, **options)[skip:]
        value = u.sum() if data is None else ((u - data) ** 2).sum()
        value.backward()
        return Gradient(value.item(), start.grad.numpy(), system.theta.grad.numpy().copy())

    return value_and_gradient
