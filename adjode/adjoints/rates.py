"""How fast the state changes in an implicit step, along a cotangent: u_bar . du/dt, the cotangent of a time.

f at the state multiplies the state's error by the stiffness. The derivative p' of the step's dense output does not, but is of lower
order. Of what is fast the equation itself knows more: differentiated, M u'' = f_t + J u', so that with a time eta

    (M - eta J) u' = M (u' - eta u'') + eta f_t.

With p' and p'' on its right side it gives a slope s whose errors are damped as far as they are fast; f is right for what is slow.
With F = (M - eta J)^-1 M and d = M^-1 f - s, the answer is s + (3 F^2 - 2 F^3) d: the factor of d is 1 + O(eta^2) for what is slow
and O(1 / (eta J)^2) for what is fast. eta is a part of the step: 1 - eta J is far from zero then, also for what grows in the step.
Error estimates of implicit methods are filtered in the same way (L. F. Shampine, L. S. Baca 1984, Appl. Numer. Math. 1, 1-14;
Hairer, Wanner, Solving ODEs II, section IV.8).
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.finite import is_finite
from adjode.compile.flags import kernel
from adjode.compile.views import row
from adjode.jacobian import make_jacobian
from adjode.linalg.linear import make_linear
from adjode.linalg.mass import multiply
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS
from adjode.steppers.frozen import STALE, Frozen

_APART = 1e-3  # of the step, for the difference that f_t is
_ETA = 0.3  # of the step: with less, errors of what is stiff enter; with more, 1 - eta J is near zero for some that grow

# In the frame: TIMES, OBSERVED, ANCHORS and CURVES are the times, with p, p' and p'' there; STEP_SIZES and PLACES say in which
# steps, and where in these; JUMPS are the cotangents; RATES the answers. f_t is in G_U, f in LAM, s in Y.


@kernel
def _copy(frame, x, out):
    for k in range(out.size):
        out[k] = x[k]


def _make_slope_of_f(call_f: Callable) -> Callable:
    @kernel
    def slope_of_f(frame, j):
        """LAM = f and G_U = f_t, by a difference of second order inside the step; the status of f."""
        t, u, f, f_t, other = (
            slots.TIMES(frame)[j],
            row(slots.OBSERVED(frame), j),
            slots.LAM(frame),
            slots.G_U(frame),
            slots.U(frame),
        )
        apart = _APART * slots.STEP_SIZES(frame)[j]
        apart = -apart if slots.PLACES(frame)[j] > 0.5 else apart
        slots.COUNT(frame)[slots.DERIVATIVES] += 3
        status = call_f(frame, t, u, f) | call_f(frame, t + apart, u, other)
        for k in range(f.size):
            f_t[k] = (2.0 * other[k] - 1.5 * f[k]) / apart
        status |= call_f(frame, t + 2.0 * apart, u, other)
        for k in range(f.size):
            f_t[k] -= 0.5 * other[k] / apart
        return status

    return slope_of_f


def _make_slope(frozen: Frozen) -> Callable:
    solve, times_mass = frozen.solve, multiply if frozen.massed else _copy

    @kernel
    def slope(frame, j):
        """Y = s + (3 F^2 - 2 F^3) d"""
        eta, s, d, f, f_t = _ETA * slots.STEP_SIZES(frame)[j], slots.Y(frame), slots.U(frame), slots.LAM(frame), slots.G_U(frame)
        first, second = row(slots.ANCHORS(frame), j), row(slots.CURVES(frame), j)
        for k in range(s.size):
            d[k] = first[k] / eta - second[k]
        times_mass(frame, d, s)
        for k in range(s.size):
            s[k] += f_t[k]
        solve(frame, s)
        times_mass(frame, s, d)
        for k in range(s.size):
            d[k] = (f[k] - d[k]) / eta
        solve(frame, d)
        for weight in (3.0, -2.0):
            times_mass(frame, d, f)
            for k in range(s.size):
                d[k] = f[k] / eta
            solve(frame, d)
            for k in range(s.size):
                s[k] += weight * d[k]

    return slope


def make_rates(calls: Calls, stages: tuple[int, int] | None, *, kind: str, massed: bool) -> Callable:
    """The kernel that fills RATES, with matrices in storage of this kind, and perhaps a mass matrix."""
    frozen = Frozen(make_jacobian(calls), make_linear(kind, massed))
    refresh, slope_of_f, slope = frozen.refresh, _make_slope_of_f(calls.f), _make_slope(frozen)

    @kernel
    def rates(frame):
        times, steps, along, s = slots.TIMES(frame), slots.STEP_SIZES(frame), slots.RATES(frame), slots.Y(frame)
        for j in range(times.size):
            slots.CLOCK(frame)[slots.T_TRIED] = times[j]
            slots.COUNT(frame)[slots.FRESHNESS] = STALE
            if slope_of_f(frame, j) != 0:
                return CALLBACK_RAISED
            status = refresh(frame, times[j], row(slots.OBSERVED(frame), j), _ETA * steps[j])
            if status != SUCCESS:
                return status
            slope(frame, j)
            along[j] = 0.0
            for k in range(s.size):
                along[j] += slots.JUMPS(frame)[j, k] * s[k]
            if not is_finite(along[j]):
                return NON_FINITE
        return SUCCESS

    return rates
