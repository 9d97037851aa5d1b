"""Where a continuous adjoint is along the steps of the forward solve, and how far one of its own may go.

lam may be smooth where u is not, and so may theta_bar's integrand until a short pulse is met: steps chosen by what has been seen of
them would pass over what the forward solve took short steps for. So no step back goes over more than a few of those steps; its
stages and the nodes of the quadrature then lie about as densely as those of the forward solve did.
"""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.loops.limits import limited

_REACH = 3  # steps of the forward solve


@kernel
def find_forward_step(frame, t):
    """The step of the forward solve that t is in, most often that of the last look or the one before it."""
    place, mesh_t = slots.PLACE(frame), slots.FORWARD_T(frame)
    direction, steps = -slots.CONTROL(frame)[slots.DIRECTION], slots.FORWARD_COUNT(frame)[slots.STEPS]
    k = place[0] if place[0] < steps else steps - 1
    while k > 0 and direction * (t - mesh_t[k]) < 0.0:
        k -= 1
    while k < steps - 1 and direction * (t - mesh_t[k + 1]) > 0.0:
        k += 1
    place[0] = k
    return k


@kernel
def within_reach(frame, t, h):
    """h, or the largest step back from t that no limit forbids and that is over no more than a few steps of the forward solve."""
    h, mesh_t, k = limited(frame, t, h), slots.FORWARD_T(frame), find_forward_step(frame, t)
    last = k - _REACH if mesh_t[k] == t else k - _REACH + 1
    room = abs(t - mesh_t[max(last, 0)])
    return room if 0.0 < room < h else h
