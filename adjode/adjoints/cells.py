"""Which steps were too long for the adjoint, by parts of the span, and the limits of those of another forward solve."""

from __future__ import annotations

import math

from adjode.adjoints.carried import WITH_STATE
from adjode.adjoints.products import dot
from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel

ROUNDS = 8  # how often the forward solve is asked for shorter steps
# The columns of CELLS: where it starts; the step that is worst, and the longest one; the largest error, that for parameters that
# are zero, what may be amplified, the error as a part of lam; theta_bar along the probe behind the cell; its largest errors as a
# quadrature, those for parameters that are zero apart; the largest drift in a step; and where methods switch, whether a step of it
# is implicit.
START, WORST_STEP, LONGEST, ERROR, ERROR_OF_ZEROS, RATIO, LASTING, ALONG, RULE, RULE_OF_ZEROS, DRIFT, IMPLICIT = COLUMNS = range(12)
# Of KINKS: the largest error of a kink, when that is, the step that has it, and whether it is behind that, where only a stage has
# come to.
KINK, KINK_AT, KINK_STEP, KINK_BEHIND = KINK_COLUMNS = range(4)

_SHARE = 0.1  # of a unit, for the error of a step after refinement; half of that the next time
_DRIFT_SHARE = 0.5  # units, for that of a cell
_SHARES = 20.0  # units, for errors that last: so many times less for each, the more steps there are
_LEAST_FACTOR = 0.02  # estimates far from where they hold say too little
_EXPLICIT_ROUNDS = 3  # before a method that can turns to implicit steps ...
_CHEAPER = 0.3  # ... at once where explicit ones would have to be so many times shorter
_LEAST_OF_IMPLICIT = 0.25  # of a step: what lasts of implicit steps may still be damped
_TO_LOOK = 0.25  # of a step that u has not chosen, to see how much theta_bar changes
_NEAR_KINK = 1.0 / 32.0  # of a step with a kink in it: where that is, is known so well
_TO_KINK = 1.0 / 8.0  # of a step with a kink behind it, of those that lead there
MAGNIFIES = 4  # half powers: estimates that are raised to a higher one are far off where they are off
_GRADES = 4.0  # times the limit behind, for those: a small part of lam that they overlook has a large error in much longer steps
_NOT_QUITE = 1.0 - 1e-9
DAMPS = 4.0  # an estimate that is more of lam amplifies what it should damp


@kernel
def divide_mesh(frame):
    """How many steps belong together in a cell."""
    trust, cells = slots.TRUST(frame), slots.CELLS(frame).shape[0]
    if cells > 0:
        trust[slots.STEPS_IN_CELL] = (slots.PLACE(frame)[slots.RELEVANT] + cells - 1) // cells


@kernel
def to_power(x, times):
    """x to that power; a call of pow that is not inlined costs a kernel on a GPU its registers."""
    power = 1.0
    for _ in range(times):
        power *= x
    return power


@kernel
def keep(frame, step, steps, h, found):
    """Put a step down in its cell: that of the step behind it, or the next one where that is full."""
    trust, cells, longest = slots.TRUST(frame), slots.CELLS(frame), max(h, slots.TRUST(frame)[slots.SKIPPED])
    trust[slots.SKIPPED] = trust[slots.SKIPPED_LENGTH] = 0.0
    if cells.shape[0] == 0:
        return
    k = int(trust[slots.CELLS_USED]) - 1
    # what steps count for may sum up to more than there are
    begins = not trust[slots.ROOM_IN_CELL] > 0.0 and k + 1 < cells.shape[0]
    if begins:
        k += 1
        trust[slots.CELLS_USED], trust[slots.ROOM_IN_CELL] = k + 1, trust[slots.STEPS_IN_CELL]
        cells[k, WORST_STEP], cells[k, LONGEST] = h, h
        for column in range(ERROR, cells.shape[1]):
            cells[k, column] = 0.0
        cells[k, ALONG] = trust[slots.ALONG]
    trust[slots.ROOM_IN_CELL] -= steps
    cells[k, START] = slots.FORWARD_T(frame)[step]
    error, of_zeros, ratio, lasting = found
    if error > cells[k, ERROR] or ratio > cells[k, RATIO] or lasting > cells[k, LASTING]:
        cells[k, WORST_STEP] = h
    cells[k, LONGEST] = max(cells[k, LONGEST], longest)
    cells[k, ERROR], cells[k, RATIO] = _larger(cells[k, ERROR], error), _larger(cells[k, RATIO], ratio)
    cells[k, ERROR_OF_ZEROS] = _larger(cells[k, ERROR_OF_ZEROS], of_zeros)
    cells[k, LASTING] = max(cells[k, LASTING], lasting)
    _keep_kink(frame, k, step, h, begins)


@kernel
def mark_implicit(frame):
    """The step put down last is implicit, which matters where methods switch."""
    cells = slots.CELLS(frame)
    if cells.shape[0] > 0 and cells.shape[1] > IMPLICIT:
        cells[int(slots.TRUST(frame)[slots.CELLS_USED]) - 1, IMPLICIT] = 1.0


@kernel
def _keep_kink(frame, k, step, h, begins):
    trust, kinks = slots.TRUST(frame), slots.KINKS(frame)
    if kinks.shape[0] == 0:
        return
    if begins:
        kinks[k, KINK] = 0.0
    if trust[slots.KINK_ERROR] > kinks[k, KINK]:
        kinks[k, KINK], kinks[k, KINK_AT], kinks[k, KINK_STEP] = trust[slots.KINK_ERROR], trust[slots.KINK_AT], h
        kinks[k, KINK_BEHIND] = 1.0 if abs(trust[slots.KINK_AT] - slots.FORWARD_T(frame)[step]) > h else 0.0


@kernel
def keep_rules(frame, h, of_rules):
    """Add the errors of theta_bar as a quadrature to the cell of the step, and to those behind it that it is for too."""
    cells, trust, last = slots.CELLS(frame), slots.TRUST(frame), int(slots.TRUST(frame)[slots.CELLS_USED]) - 1
    if last < 0 or max(of_rules[0], of_rules[1]) == 0.0:
        return
    _add_rules(cells, last, h, of_rules)
    reaches, k = h + trust[slots.COVERS] * trust[slots.COUNTS_FOR], last - 1
    while trust[slots.COVERS] > 0.0 and k >= 0 and abs(cells[k, START] - cells[last, START]) < _NOT_QUITE * reaches:
        _add_rules(cells, k, cells[k, LONGEST], of_rules)
        k -= 1


@kernel
def _add_rules(cells, k, h, of_rules):
    if of_rules[0] > cells[k, RULE] or of_rules[1] > cells[k, RULE_OF_ZEROS]:
        cells[k, WORST_STEP] = h
    cells[k, RULE], cells[k, RULE_OF_ZEROS] = _larger(cells[k, RULE], of_rules[0]), _larger(cells[k, RULE_OF_ZEROS], of_rules[1])


@exact_kernel
def _larger(one, other):
    """The larger one; infinity for what is not a number."""
    if not (one < math.inf and other < math.inf):
        return math.inf
    return max(one, other)


@exact_kernel
def _beside(cells, rows, k, column):
    """The largest of a cell and its neighbours: a step that sees little of an integrand it does not resolve has been lucky."""
    return max(cells[max(k - 1, 0), column], cells[k, column], cells[min(k + 1, rows - 1), column])


@kernel
def _has_kink(kinks, k, least):
    """Whether there is a kink in a cell that matters."""
    return kinks.shape[0] > 0 and kinks[k, KINK] > least


@kernel
def _parts(kinks, k, least):
    """How many parts a cell has: three if there is a kink in one of its steps that matters."""
    return 3 if _has_kink(kinks, k, least) and kinks[k, KINK_BEHIND] == 0.0 else 1


@kernel
def _count_limits(kinks, rows, least):
    """How many rows of limits there will be."""
    count = rows
    for k in range(rows):
        count += _parts(kinks, k, least) - 1
    return count


@kernel
def _put_limits(frame, k, end, limit, stiff, least):
    """Put the limits for a cell into the last rows before row `end`; the first of them. At a kink steps are short."""
    cells, kinks, limits, mesh = slots.CELLS(frame), slots.KINKS(frame), slots.LIMITS(frame), slots.FORWARD_T(frame)
    first, near = end - _parts(kinks, k, least), math.inf
    if _has_kink(kinks, k, least):
        near = kinks[k, KINK_STEP] * max(least / kinks[k, KINK], _TO_KINK if first == end - 1 else _NEAR_KINK)
        if first == end - 1:
            limit = min(limit, near)
    for i in range(first, end):
        limits[i, 0], limits[i, 1] = cells[k - 1, START] if k > 0 else math.inf, limit
        if limits.shape[1] > 2:
            limits[i, 2] = 1.0 if stiff else 0.0
    if first < end - 1:
        ahead = -near if mesh[1] > mesh[0] else near
        limits[first, 0], limits[first + 1, 0] = kinks[k, KINK_AT] + ahead, kinks[k, KINK_AT] - ahead
        limits[first + 1, 1] = min(near, limit)
    return first


@exact_kernel
def error_of_drift(frame, at_start):
    """What the drift says of lam at the start, whose size is `at_start`, and of theta_bar."""
    trust = slots.TRUST(frame)
    return max(trust[slots.DRIFT_MOST] * at_start, trust[slots.DRIFT_THETA])


@exact_kernel
def _units_of_drift(frame, unit, at_start):
    """The error that the drift makes, for each part of that: its sum over the cells."""
    trust, cells, total = slots.TRUST(frame), slots.CELLS(frame), 0.0
    for k in range(int(trust[slots.CELLS_USED])):
        total += cells[k, DRIFT]
    return error_of_drift(frame, at_start) / unit / total if total > 0.0 else 0.0


@exact_kernel
def _factor_of_drift(units, halves):
    """How much shorter the steps of a cell with so much of it are to be."""
    return 0.8 * (_DRIFT_SHARE / units) ** (2.0 / halves) if units > _DRIFT_SHARE else math.inf


@exact_kernel
def set_limits(frame, unit, unit_of_zeros, at_start):
    """The largest steps for another forward solve: those of this one, or shorter where the errors say so.

    Errors that last are parts of what is still added to theta_bar, and of lam at the start, whose size is `at_start`.
    """
    trust, cells, limited = slots.TRUST(frame), slots.CELLS(frame), slots.LIMITED(frame)
    share, lasts = _SHARE / to_power(2.0, limited[1]), max(1.0, _SHARE / _SHARES * slots.PLACE(frame)[slots.RELEVANT])
    order, halves = slots.LAM_FACTORS(frame)[0], float(slots.LAM_POWERS(frame)[0])
    scale, rule_power = trust[slots.RULE_SCALE], 2.0 / (order * halves)
    looks = trust[slots.GREW_FREELY] == 1.0 and limited[1] == 0
    along, drift = dot(slots.THETA_PROBE(frame), slots.TOTAL(frame)), _units_of_drift(frame, unit, at_start)
    least = _LEAST_OF_IMPLICIT if slots.STEP_WEIGHTS(frame).shape[0] > 0 else 0.0
    rows, switches = int(trust[slots.CELLS_USED]), trust[slots.SWITCHES_TO] == 1.0
    place = many = _count_limits(slots.KINKS(frame), rows, share * unit)
    graded, behind = halves > MAGNIFIES and slots.STEP_WEIGHTS(frame).shape[0] == 0, math.inf
    turns = limited[1] >= (1 if trust[slots.STIFF_BEHIND] == 1.0 else _EXPLICIT_ROUNDS)
    for k in range(rows):
        error, ratio, factor = max(cells[k, ERROR] / unit, cells[k, ERROR_OF_ZEROS] / unit_of_zeros), cells[k, RATIO], math.inf
        rule, rule_of_zeros = cells[k, RULE], cells[k, RULE_OF_ZEROS]
        if trust[slots.GREW_FREELY] == 0.0:
            rule, rule_of_zeros = _beside(cells, rows, k, RULE), _beside(cells, rows, k, RULE_OF_ZEROS)
        rule = scale * max(rule / unit, rule_of_zeros / unit_of_zeros)
        lasting = lasts * WITH_STATE * cells[k, LASTING] * max(abs(along - cells[k, ALONG]), at_start) / unit
        shorter = (0.5 * DAMPS / ratio) ** (1.0 / order) if not ratio <= DAMPS else 1.0
        stiff = switches and not shorter >= (1.0 if turns else _CHEAPER)
        if not (stiff or error <= share):
            factor = 0.8 * (share / error) ** (2.0 / (order * halves))
        if not (stiff or lasting <= share):
            factor = min(factor, max(0.8 * (share / lasting) ** (2.0 / (order * halves)), least))
        if k + 1 == rows and trust[slots.GREW_FREELY] == 1.0:  # at a singularity errors fall by less than their order
            rule_power, looks = rule_power * (1 + limited[1]), False
        if not rule <= share:
            factor = min(factor, max(0.8 * (share / rule) ** rule_power, _TO_LOOK if looks else 0.0))
        if not stiff:
            factor = min(factor, shorter)
        of_drift = _factor_of_drift(drift * cells[k, DRIFT], order * halves)
        limit = min(cells[k, WORST_STEP] * max(factor, _LEAST_FACTOR), cells[k, LONGEST] * max(of_drift, _LEAST_FACTOR))
        if limited[1] > 0:
            limit = min(limit, cells[k, LONGEST])
        if graded:
            limit = behind = min(limit, _GRADES * behind)
        stiff = stiff or (switches and cells[k, IMPLICIT] == 1.0)  # explicit steps would amplify what u at rest does not show
        place = _put_limits(frame, k, place, limit, stiff, share * unit)
    limited[0], limited[1] = many, limited[1] + 1
