"""SciPy's implicit methods for the stiff problems, with Jacobians from compiled code: (lam, theta_bar) back along the dense output,
or u and its derivatives in one pass."""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Gradient, derivatives_from_tangents
from benchmarks.stiff_cases import REACTIONS


def _callbacks(case):
    """f and vjp compiled by Numba, and the pattern of the Jacobian, or None."""
    from numba import njit

    if case.system in REACTIONS:
        from benchmarks import chemistry

        f, vjp, pattern = getattr(chemistry, f"{case.system}_f"), getattr(chemistry, f"{case.system}_vjp"), None
    else:
        from benchmarks.brusselator import brusselator_2d_callbacks, brusselator_2d_sparsity

        points = round((case.u0.size / 2) ** 0.5)
        f, vjp, _ = brusselator_2d_callbacks(points)
        pattern = brusselator_2d_sparsity(points)
    return njit(f, error_model="numpy"), njit(vjp, error_model="numpy"), pattern


class _System:
    """The right-hand sides and their Jacobians as SciPy takes them."""

    def __init__(self, case):
        self.f, self.vjp, self.pattern = _callbacks(case)
        n = case.u0.size
        if self.pattern is not None:
            from scipy.optimize._numdiff import group_columns

            self.groups = group_columns(self.pattern.T.tocsc())
            self.rows, self.columns = self.pattern.nonzero()
            self.members = [np.flatnonzero(self.groups == k).astype(int) for k in range(self.groups.max() + 1)]
        self.units = (
            np.eye(n) if self.pattern is None else np.array([self.groups == k for k in range(len(self.members))], dtype=float)
        )

    def slope(self, u, theta):
        du = np.empty(u.size)
        self.f(0.0, u, theta, du)
        return du

    def products(self, u, theta, lam):
        u_bar, theta_bar = np.empty(u.size), np.empty(theta.size)
        self.vjp(0.0, u, theta, lam, u_bar, theta_bar)
        return u_bar, theta_bar

    def jacobian(self, u, theta):
        rows = np.array([self.products(u, theta, unit)[0] for unit in self.units])
        if self.pattern is None:
            return rows
        from scipy.sparse import csc_matrix

        return csc_matrix((rows[self.groups[self.rows], self.columns], (self.rows, self.columns)), shape=self.pattern.shape)

    def jacobian_back(self, u, theta):
        """Of (lam, theta_bar), without what lam adds to theta_bar: Newton's method converges without it."""
        from scipy.linalg import block_diag
        from scipy.sparse import block_diag as sparse_block_diag

        J, nothing = -self.jacobian(u, theta).T, np.zeros((theta.size, theta.size))
        return block_diag(J, nothing) if self.pattern is None else sparse_block_diag([J, nothing], format="csc")


def make_stiff(method, case, tol):
    from scipy.integrate import solve_ivp

    system = _System(case)
    stops = np.concatenate([[case.t_span[0]], case.times])
    n, m = case.u0.size, case.theta.size
    largest = np.abs(case.weights).max()

    def value_and_gradient(u0, theta):
        forward = solve_ivp(
            lambda t, u: system.slope(u, theta),
            case.t_span,
            u0,
            method=method,
            jac=lambda t, u: system.jacobian(u, theta),
            rtol=tol,
            atol=tol * case.scales(),
            dense_output=True,
        )
        if not forward.success:
            raise RuntimeError(forward.message)
        value, u_bars = case.loss(forward.sol(case.times).T)

        def back(t, y):
            u_bar, theta_bar = system.products(forward.sol(t), theta, np.ascontiguousarray(y[:n]))
            return -np.concatenate([u_bar, theta_bar])

        y = np.zeros(n + m)
        atol = tol * np.concatenate([np.full(n, largest), 1.0 / np.abs(theta)])
        for k in range(len(u_bars) - 1, -1, -1):
            y[:n] += u_bars[k]
            span = (stops[k + 1], stops[k])
            jac = {"jac": lambda t, y: system.jacobian_back(forward.sol(t), theta)}
            piece = solve_ivp(back, span, y, method=method, rtol=tol, atol=atol, **jac)
            if not piece.success:
                raise RuntimeError(piece.message)
            y = piece.y[:, -1].copy()
        return Gradient(value, y[:n], y[n:])

    return value_and_gradient


def make_stiff_jacobian(method, case, tol):
    from scipy.integrate import solve_ivp
    from scipy.sparse import block_diag

    system = _System(case)
    n, m = case.u0.size, case.theta.size
    inputs = n + m
    sizes = np.concatenate([np.ones(n), 1.0 / np.abs(case.theta)])  # of derivatives, beside those of the states
    atol = tol * np.concatenate([case.scales(), np.outer(sizes, case.scales()).ravel()])

    def value_and_jacobian(u0, theta):
        def slope(t, y):
            u, S = y[:n], y[n:].reshape(inputs, n)  # a row of S is a column of the Jacobian
            rows = [system.products(u, theta, unit) for unit in system.units]
            dS = S @ np.array([by_u for by_u, _ in rows]).T
            dS[n:] += np.array([by_theta for _, by_theta in rows]).T
            return np.concatenate([system.slope(u, theta), dS.ravel()])

        def jacobian(t, y):
            return block_diag([system.jacobian(y[:n], theta)] * (1 + inputs), format="csc")

        y0 = np.concatenate([u0, np.eye(inputs, n).ravel()])
        found = solve_ivp(slope, case.t_span, y0, method=method, jac=jacobian, t_eval=case.times, rtol=tol, atol=atol)
        if not found.success:
            raise RuntimeError(found.message)
        tangents = found.y[n:].T.reshape(-1, inputs, n).transpose(0, 2, 1)
        return derivatives_from_tangents(case, found.y[:n].T, tangents)

    return value_and_jacobian
