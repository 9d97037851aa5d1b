"""lam across a jump of the state, in every adjoint.

At time tau the state jumps from u- to u+ = R(tau, u-, theta), with slopes f- and f+ on the two sides. What a shift of tau does to
the loss is `rho = lam+ . (R_u f- + R_t - f+) + g- - g+`. If tau is where a guard e(t, u, theta) passes through zero, at the rate
`gamma = e_t + e_u f-`, then `lam- = R_u^T lam+ - e_u^T rho / gamma`, and theta_bar gains `R_theta^T lam+ - e_theta^T rho / gamma`.
At a known time e_u is zero, and rho the cotangent of tau. An event that ends the solution has no f+ and no g+. (Galan, Feehery,
Barton 1999, Appl. Numer. Math. 31, 17-47; Froehlich et al. 2017, Bioinformatics 33, 1049-1056.)

Of several jumps at one time each has its own states and slopes; one that a jump before it has taken along has that one's tau. Where
f switches u+ = u-, and f+ and f- are its two sides.
"""

from __future__ import annotations

from adjode.adjoints.products import add_to_entry, cost, dot, entry_of
from adjode.adjoints.shifting import BEFORE, BEHIND, E_U, LAM, MU, R_T, RIGHT, f_outside
from adjode.compile import slots
from adjode.compile.finite import all_finite
from adjode.compile.flags import kernel
from adjode.compile.outside import invoke_f, invoke_guards_dt, invoke_guards_vjp, invoke_resets_dt, invoke_resets_vjp
from adjode.compile.views import row
from adjode.loops.guards import RESETS, rule_of
from adjode.loops.jumps import AMOUNT, DURATION, FRACTION, INFLOW, INTO, LAG, TIME, number_of
from adjode.status import CALLBACK_RAISED, GRAZING, SUCCESS

APART = 2.0**-48  # of the sizes of times, that switches are moved by: 16 spacings of numbers
GRAZES, SLOW = 1e-8, 1e-6  # of the sizes of what gamma is a sum of; and of SPEED in loops/guards.py


@kernel
def add_theta(frame, factor):
    """Add a multiple of JUMP_THETA to the total."""
    total, theta_bar = slots.TOTAL(frame), slots.JUMP_THETA(frame)
    if slots.WANTS(frame)[slots.WANTS_THETA] == 1:
        for i in range(theta_bar.size):
            total[i] += factor * theta_bar[i]


@kernel
def _give_to(frame, dose, which, bar):
    """Add the cotangent of a number of a dose to that of the entry of theta that it is."""
    entry = slots.DOSE_ENTRIES(frame)[7 * dose + which]
    if entry >= 0 and slots.WANTS(frame)[slots.WANTS_THETA] == 1:
        add_to_entry(slots.TOTAL(frame), entry, slots.DOSES(frame)[dose, which] * bar)


@kernel
def time_varies(frame, action):
    """Whether the time of an action depends on theta."""
    actions, entries = slots.ACTIONS(frame), slots.DOSE_ENTRIES(frame)
    first = 7 * actions[2 * action]
    lasts = actions[2 * action + 1] >= slots.ENDS and entries[first + DURATION] >= 0
    return entries[first + TIME] >= 0 or entries[first + LAG] >= 0 or lasts


@kernel
def give_to_time(frame, action, rho):
    """Add the cotangent of the time of an action to those of what it is the sum of."""
    dose, kind = slots.ACTIONS(frame)[2 * action], slots.ACTIONS(frame)[2 * action + 1]
    _give_to(frame, dose, TIME, rho)
    _give_to(frame, dose, LAG, rho)
    if kind >= slots.ENDS:
        _give_to(frame, dose, DURATION, rho)


@kernel
def _pull_dose(frame, action, rho, lam):
    """The cotangents of what a dose is made of; its inflow is then what it was before."""
    actions, entries, mesh_t = slots.ACTIONS(frame), slots.DOSE_ENTRIES(frame), slots.FORWARD_T(frame)
    dose, kind = actions[2 * action], actions[2 * action + 1]
    if kind == slots.SWITCH:
        give_to_time(frame, action, rho)
        return
    amount, fraction = number_of(frame, dose, AMOUNT), number_of(frame, dose, FRACTION)
    if kind == slots.BOLUS:
        bar, duration = entry_of(lam, entries[7 * dose + INTO]), 1.0
    else:
        bar, duration = 0.0, number_of(frame, dose, DURATION)
        if slots.WANTS(frame)[slots.WANTS_THETA] == 1:
            bar = entry_of(slots.TOTAL(frame), entries[7 * dose + INFLOW]) / duration
    backwards = mesh_t[slots.FORWARD_COUNT(frame)[slots.STEPS]] < mesh_t[0]  # a dose is taken out again then
    if backwards != (kind == slots.ENDS):
        bar = -bar
    _give_to(frame, dose, AMOUNT, fraction * bar)
    _give_to(frame, dose, FRACTION, amount * bar)
    if kind != slots.BOLUS:
        _give_to(frame, dose, DURATION, -amount * fraction * bar / duration)
    give_to_time(frame, action, rho)


@kernel
def _pull_reset(frame, t, event, u, lam):
    """(status, lam . R_t): MU = R_u^T lam, and theta_bar gains R_theta^T lam."""
    work, which = slots.JUMP_WORK(frame), slots.WHICH(frame)
    mu, given, theta = row(work, MU), row(work, LAM), slots.THETA(frame)
    for k in range(lam.size):
        mu[k] = given[k] = lam[k]
    if rule_of(frame, event, RESETS) != 1:
        return SUCCESS, 0.0
    which[0], theta_bar = float(event), slots.JUMP_THETA(frame)
    for i in range(theta_bar.size):
        theta_bar[i] = 0.0
    if invoke_resets_vjp(frame, t, (u, theta, which, given, mu, theta_bar)) != 0:
        return CALLBACK_RAISED, 0.0
    add_theta(frame, 1.0)
    rate = row(work, R_T)
    if invoke_resets_dt(frame, t, (u, theta, which, rate)) != 0:
        return CALLBACK_RAISED, 0.0
    return SUCCESS, dot(lam, rate)


@kernel
def differentiate_guard(frame, k, u, e_u):
    """(status, e_t) of the event that is jump k, at u; e_u, and e_theta in JUMP_THETA."""
    t, which, theta_bar = slots.JUMP_T(frame)[k], slots.WHICH(frame), slots.JUMP_THETA(frame)
    theta, rate = slots.THETA(frame), slots.EVENT_RATE(frame)
    which[0] = float(slots.JUMP_WHAT(frame)[3 * k + 1])
    for i in range(theta_bar.size):
        theta_bar[i] = 0.0
    status = invoke_guards_vjp(frame, t, (u, theta, which, e_u, theta_bar))
    status |= invoke_guards_dt(frame, t, (u, theta, which, rate))
    return (SUCCESS if status == 0 else CALLBACK_RAISED), rate[0]


@kernel
def speed_of_guard(frame, k, e_t, e_u, slope):
    """(status, gamma) of jump k along a slope: GRAZING if gamma is zero but for rounding."""
    gamma, size = e_t, abs(e_t)
    for i in range(e_u.size):
        gamma += e_u[i] * slope[i]
        size += abs(e_u[i] * slope[i])
    if abs(gamma) > GRAZES * size and slots.JUMP_INFLOW(frame)[k] > SLOW:
        return SUCCESS, gamma
    slots.COUNT(frame)[slots.HAPPENING] = slots.JUMP_WHAT(frame)[3 * k + 1]
    return GRAZING, gamma


@kernel
def read_guard(frame, k, u, slope, e_u):
    """(status, gamma) of the guard of jump k, with e_u, and e_theta in JUMP_THETA."""
    status, e_t = differentiate_guard(frame, k, u, e_u)
    return speed_of_guard(frame, k, e_t, e_u, slope) if status == SUCCESS else (status, 1.0)


@kernel
def _pull_guard(frame, k, rho, lam):
    """lam -= e_u^T rho / gamma, and the same for theta_bar."""
    work = slots.JUMP_WORK(frame)
    e_u = row(work, E_U)
    status, gamma = read_guard(frame, k, row(slots.JUMP_U(frame), 2 * k), row(work, BEFORE), e_u)
    if status == SUCCESS:
        for i in range(lam.size):
            lam[i] -= e_u[i] * rho / gamma
        add_theta(frame, -rho / gamma)
    return status


@kernel
def to_slope(frame, f):
    """f to du/dt, where there is a mass matrix."""
    inverse, right = slots.MASS_INVERSE(frame), row(slots.JUMP_WORK(frame), RIGHT)
    if inverse.shape[0] > 0:
        for i in range(f.size):
            right[i] = f[i]
        for i in range(f.size):
            f[i] = dot(row(inverse, i), right)


@kernel
def _switches(frame, k):
    """Whether jump k is a switch of f."""
    whats = slots.JUMP_WHAT(frame)
    return whats[3 * k] == slots.DOSE and slots.ACTIONS(frame)[2 * whats[3 * k + 1] + 1] == slots.SWITCH


@kernel
def _move_switch(frame, k, theta, direction):
    """The time of a switch, by so little that rounding in f does not take it back: by one entry of theta that has a part in it."""
    span, numbers, entries = slots.TIME_SPAN(frame), slots.DOSES(frame), slots.DOSE_ENTRIES(frame)
    dose = slots.ACTIONS(frame)[2 * slots.JUMP_WHAT(frame)[3 * k + 1]]
    which = TIME if entries[7 * dose + TIME] >= 0 else LAG
    factor, now = numbers[dose, which], slots.THETA(frame)[entries[7 * dose + which]]
    size = max(abs(span[slots.EARLIEST]), abs(span[slots.LATEST])) + abs(factor * now)
    theta[entries[7 * dose + which]] = now + direction * APART * size / factor


@kernel
def _put_theta_beside(frame, k, ahead):
    """Into JUMP_THETA theta with which f, at the time of jump k, is as it is ahead of that jump or behind it, among all jumps then;
    whether there are any switches among these."""
    whats, mesh_t, forward = slots.JUMP_WHAT(frame), slots.FORWARD_T(frame), slots.FORWARD_COUNT(frame)
    given, theta, first, any_switch = slots.THETA(frame), slots.JUMP_THETA(frame), whats[3 * k + 2], False
    later = 1.0 if mesh_t[forward[slots.STEPS]] >= mesh_t[0] else -1.0
    for i in range(given.size):
        theta[i] = given[i]
    for j in range(first, forward[slots.OCCURRED]):
        if whats[3 * j + 2] == first and _switches(frame, j):
            any_switch = True
            _move_switch(frame, j, theta, later if j > k or (ahead and j == k) else -later)
    return any_switch


@kernel
def f_beside(frame, k, ahead, u, slope):
    """f at the time of jump k, ahead of it or behind it; what is there on one side alone, as at the end of a span, jumps not."""
    t = slots.JUMP_T(frame)[k]
    if slots.JUMP_WHAT(frame)[3 * k] == slots.DOSE and _put_theta_beside(frame, k, ahead):
        status = invoke_f(frame, t, (u, slots.JUMP_THETA(frame), slope))
        if status == 0 and all_finite(slope):
            return status
    return f_outside(frame, t, u, slope)


@kernel
def rate_beside(frame, k, ahead, u, lam, slope):
    """(status, lam . du/dt + g) beside jump k; du/dt goes to `slope`."""
    slots.COUNT(frame)[slots.DERIVATIVES] += 1
    return _rate(frame, f_beside(frame, k, ahead, u, slope), slots.JUMP_T(frame)[k], u, lam, slope)


@kernel
def rate_at(frame, t, u, lam, slope):
    """The same at a time."""
    slots.COUNT(frame)[slots.DERIVATIVES] += 1
    return _rate(frame, f_outside(frame, t, u, slope), t, u, lam, slope)


@kernel
def _rate(frame, status, t, u, lam, slope):
    g = 0.0
    to_slope(frame, slope)
    if slots.WANTS(frame)[slots.WANTS_COST] == 1:
        status |= cost(frame, t, u)
        g = slots.VALUE(frame)[0]
    return (SUCCESS if status == 0 else CALLBACK_RAISED), dot(lam, slope) + g


@kernel
def ends(frame, k):
    """Whether jump k has ended the solution."""
    forward = slots.FORWARD_COUNT(frame)
    return forward[slots.ENDED] > 0 and k == forward[slots.OCCURRED] - 1


@kernel
def _restore_inflow(frame, k, action):
    """The inflow that a dose has changed, as it was before."""
    entry = slots.DOSE_ENTRIES(frame)[7 * slots.ACTIONS(frame)[2 * action] + INFLOW]
    if entry >= 0:
        slots.THETA(frame)[entry] = slots.JUMP_INFLOW(frame)[k]


@kernel
def forget_jump(frame, k):
    """Of jump k, which has no part in the gradient: what inflows were before it."""
    if slots.JUMP_WHAT(frame)[3 * k] == slots.DOSE:
        _restore_inflow(frame, k, slots.JUMP_WHAT(frame)[3 * k + 1])


@kernel
def forget_behind(frame, steps):
    """The same of jumps behind so many steps."""
    kinds, whats = slots.FORWARD_KIND(frame), slots.JUMP_WHAT(frame)
    for step in range(slots.FORWARD_COUNT(frame)[slots.STEPS] - 1, steps - 1, -1):
        if kinds.size > 0 and kinds[step] >= slots.JUMP:
            last = kinds[step] - slots.JUMP
            for k in range(last, whats[3 * last + 2] - 1, -1):
                forget_jump(frame, k)


@kernel
def _cross_back(frame, k, shifts, sides, lam):
    """(status, rho) of jump k alone, without what its guard does: lam becomes R_u^T lam+.

    `sides` say whether what a shift does to the steps behind is in OF_START, and what it does to that before comes later.
    """
    t, which, work, (known, pends) = slots.JUMP_T(frame)[k], slots.JUMP_WHAT(frame)[3 * k + 1], slots.JUMP_WORK(frame), sides
    before, behind = row(slots.JUMP_U(frame), 2 * k), row(slots.JUMP_U(frame), 2 * k + 1)
    status, rate, by_reset = SUCCESS, 0.0, 0.0
    if known:
        rate = -slots.SHIFT(frame)[slots.OF_START]
    elif shifts and not ends(frame, k):
        status, rate = rate_beside(frame, k, False, behind, lam, row(work, BEHIND))
    if slots.JUMP_WHAT(frame)[3 * k] == slots.DOSE:
        _restore_inflow(frame, k, which)
    elif status == SUCCESS:
        status, by_reset = _pull_reset(frame, t, which, before, lam)
        for i in range(lam.size):
            lam[i] = work[MU, i]
    rho = by_reset - rate
    if shifts and not pends and status == SUCCESS:
        status, rate = rate_beside(frame, k, True, before, lam, row(work, BEFORE))
        rho += rate
    return status, rho


@kernel
def moves(frame, k):
    """Whether the time of jump k depends on the state or on theta."""
    whats = slots.JUMP_WHAT(frame)
    return whats[3 * k] != slots.DOSE or time_varies(frame, whats[3 * k + 1])


@kernel
def _pull_jump(frame, k, carried, sides, lam):
    """(status, what a shift of its time does to the loss, if it has been taken along)."""
    whats, shift = slots.JUMP_WHAT(frame), slots.SHIFT(frame)
    what, which = whats[3 * k], whats[3 * k + 1]
    status, rho = _cross_back(frame, k, moves(frame, k), sides, lam)
    rho += carried
    if slots.JUMP_BARS(frame).size > 0:
        rho += slots.JUMP_BARS(frame)[k]
    if status != SUCCESS or what == slots.NESTED:
        return status, rho
    if sides[1] and moves(frame, k):
        shift[slots.LEADS_TO], shift[slots.OF_JUMP] = k + 1, rho
    if what == slots.DOSE:
        _pull_dose(frame, which, rho, lam)
    elif not sides[1]:
        status = _pull_guard(frame, k, rho, lam)
    return status, 0.0


@kernel
def pull_jumps(frame, last, sides, lam):
    """lam back over jump `last` and those before it at the same time.

    `sides` are, for all of them, as in `_cross_back`: known of the last jump, to come for the first one, to which the step before
    then LEADS_TO.
    """
    first, carried, status = slots.JUMP_WHAT(frame)[3 * last + 2], 0.0, SUCCESS
    for k in range(last, first - 1, -1):
        if status == SUCCESS:
            status, carried = _pull_jump(frame, k, carried, (sides[0] and k == last, sides[1] and k == first), lam)
    return status
