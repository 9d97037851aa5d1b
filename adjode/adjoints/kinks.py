"""Kinks of f inside of steps of the discrete adjoint, and jumps, where f comes to the other side of a comparison with the state.

The stages of a step over a kink have J from one side or the other, and not each for the part of the step that is its own. What that
makes wrong is of the order of the step, but the error of the state of that of its square, so the solve need not shorten it. How far
J^T lam and (df/dtheta)^T lam are apart on the two sides says how much it is, and another solve goes to the kink in short steps
(cells.py). Where f itself jumps no step is short enough: the time of that moves with the state and the parameters, and what this
does to the gradient is not in the steps.
"""

from __future__ import annotations

from adjode.adjoints.carried import size_of_theta
from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.outside import invoke_f, invoke_sides, invoke_vjp
from adjode.compile.views import row

# rows of KINK_WORK; those of KINK_THETA are for the two sides
_F, _F_NEW, _BAR, _BAR_NEW, _BETWEEN, _SIZE, _SCRATCH = WORK_ROWS = range(7)
_PART = 0.5  # of what the ends differ by, that stages may have from the wrong side
_HALVINGS = 24


@kernel
def _side(frame, t, u):
    """Where f raises, it will say so itself."""
    values, du = slots.SIDE(frame), row(slots.KINK_WORK(frame), _SCRATCH)
    return values[0] if invoke_sides(frame, t, (u, slots.THETA(frame), du, values)) == 0 else 0.0


@kernel
def _put_ends(frame, t, t_new, u, u_new):
    """f, and the products of lam, on both sides."""
    work, of_theta, theta, lam = slots.KINK_WORK(frame), slots.KINK_THETA(frame), slots.THETA(frame), slots.LAM(frame)
    status = invoke_f(frame, t, (u, theta, row(work, _F))) | invoke_f(frame, t_new, (u_new, theta, row(work, _F_NEW)))
    status |= invoke_vjp(frame, t, (u, theta, lam, row(work, _BAR), row(of_theta, 0)))
    return status | invoke_vjp(frame, t_new, (u_new, theta, lam, row(work, _BAR_NEW), row(of_theta, 1)))


@exact_kernel
def _between(frame, h, u, u_new, x):
    """The state at a part x of the step, by a cubic, to KINK_WORK."""
    work = slots.KINK_WORK(frame)
    for k in range(u.size):
        change = u_new[k] - u[k]
        bend = (1.0 - 2.0 * x) * change + h * ((x - 1.0) * work[_F, k] + x * work[_F_NEW, k])
        work[_BETWEEN, k] = u[k] + x * (change + (x - 1.0) * bend)


@kernel
def _place(frame, t, h, u, u_new, start):
    """Which part of the way to u_new is on the side of its start."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        x = 0.5 * (low + high)
        _between(frame, h, u, u_new, x)
        if _side(frame, t + x * h, row(slots.KINK_WORK(frame), _BETWEEN)) == start:
            low = x
        else:
            high = x
    return high


@exact_kernel
def _errors(frame, h):
    """What may be wrong in lam, also since f jumps; and in theta_bar, for parameters that are zero apart."""
    work, of_theta, lam, floor = slots.KINK_WORK(frame), slots.KINK_THETA(frame), slots.LAM(frame), slots.U_FLOOR(frame)
    of_lam, jump, rate = 0.0, 0.0, 0.0
    for k in range(lam.size):
        size = work[_SIZE, k] + floor[k]
        of_lam = max(of_lam, abs(work[_BAR_NEW, k] - work[_BAR, k]) * size)
        jump += lam[k] * (work[_F_NEW, k] - work[_F, k])
        if size > 0.0:
            rate = max(rate, abs(work[_F, k]) / size, abs(work[_F_NEW, k]) / size)
    for k in range(of_theta.shape[1]):
        of_theta[0, k] -= of_theta[1, k]
    part, zeros = size_of_theta(frame, row(of_theta, 0))
    of_lam = _PART * abs(h) * of_lam + (abs(jump) / rate if rate > 0.0 else 0.0)
    return of_lam, _PART * abs(h) * part, _PART * abs(h) * zeros


@kernel
def begin_kinks(frame):
    work = slots.KINK_WORK(frame)
    slots.TRUST(frame)[slots.STEP_BEHIND] = -1.0
    for k in range(work.shape[1] if work.shape[0] > 0 else 0):
        work[_SIZE, k] = 0.0


@exact_kernel
def _note_sizes(frame, u, u_new):
    """The largest states so far: at a kink one of them may pass through zero."""
    work = slots.KINK_WORK(frame)
    for k in range(u.size):
        work[_SIZE, k] = max(work[_SIZE, k], abs(u[k]), abs(u_new[k]))


@kernel
def _farthest(frame):
    """The stage that lies farthest behind the start of its step: the last one, or one behind the step."""
    nodes, last = slots.C(frame), slots.SETTING(frame)[slots.LAST_STAGE]
    found = last
    for i in range(1, last):
        if nodes[i] > max(nodes[found], 1.0):
            found = i
    return found


@kernel
def _other_side(frame, step, t, h, V):
    """(side of the start, the stage that is on another one); 0 where none is of the last, the middle and the farthest one."""
    trust, nodes, last = slots.TRUST(frame), slots.C(frame), slots.SETTING(frame)[slots.LAST_STAGE]
    start, number = _side(frame, t, row(V, 0)), slots.FORWARD_COUNT(frame)[slots.EARLIER] + step
    end = trust[slots.SIDE_BEHIND] if number + 1 == trust[slots.STEP_BEHIND] else _side(frame, t + h, row(V, last))
    trust[slots.SIDE_BEHIND], trust[slots.STEP_BEHIND] = start, number
    if end != start:
        return start, last
    for i in (last // 2, _farthest(frame)):
        if i != last and _side(frame, t + nodes[i] * h, row(V, i)) != start:
            return start, i
    return start, 0


@exact_kernel
def find_kink(frame, step, h, V):
    """Put down what a kink in the step makes wrong, if there is one, and add it to the sums of errors.

    LAM has the cotangents of the state at its end.
    """
    trust = slots.TRUST(frame)
    if slots.SIDE(frame).size == 0:
        return
    trust[slots.KINK_ERROR] = 0.0
    t, u, last = slots.FORWARD_T(frame)[step], row(V, 0), slots.SETTING(frame)[slots.LAST_STAGE]
    _note_sizes(frame, u, row(V, last))
    start, other = _other_side(frame, step, t, h, V)
    if other == 0:
        return
    width, u_other = h if other == last else slots.C(frame)[other] * h, row(V, other)
    if _put_ends(frame, t, t + width, u, u_other) != 0:
        return
    trust[slots.KINK_AT] = t + width * _place(frame, t, width, u, u_other, start)
    of_lam, of_theta, of_zeros = _errors(frame, h)
    trust[slots.LAM_SUM] += of_lam
    trust[slots.THETA_SUM] += of_theta
    trust[slots.ZERO_SUM] += of_zeros
    trust[slots.KINK_ERROR] = max(of_lam, of_theta, of_zeros)
