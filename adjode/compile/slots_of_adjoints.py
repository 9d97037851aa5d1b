"""The slots of backward passes and of tangents; see slots.py, of which they are a part."""

from __future__ import annotations

from adjode.compile.slot import Group, cube, floats_by_name, integers, integers_by_name, matrix, vector

SETTINGS, SIZED, OPTIONAL, STORE = Group.SETTINGS, Group.SIZED, Group.OPTIONAL, Group.STORE

WANTS = integers_by_name(
    SETTINGS,
    "flags: what a backward pass is to find, and how",
    wants_theta="theta_bar",
    wants_cost="a running cost",
    uses_vjp_u="in place of vjp along lam",
    has_vjp_u="there is one",
)
WANTS_THETA, WANTS_COST, USES_VJP_U, HAS_VJP_U = WANTS.places

U_BAR = vector(SIZED, "(n,)", "scratch that callbacks write to: a cotangent of the state")
THETA_BAR = vector(SIZED, "(m,)", "scratch that callbacks write to: a cotangent of the parameters")
G_U = vector(SIZED, "(n,)", "dg/du")
VALUE = vector(SIZED, "(1,)", "g; a loss: its value")

PLACE = integers_by_name(
    SIZED,
    "where the backward pass is in the mesh of the forward one",
    step="the step last looked up, or being pulled back",
    relevant="how many steps have a part in the gradient",
    left="observations before it",
    column="second order: which row of LAMS is being pulled back",
)
STEP, RELEVANT, LEFT, COLUMN = PLACE.places

COST = floats_by_name(
    SIZED,
    "the quadrature of a running cost, see adjoints/costs.py",
    cost_unit="the error that is one unit, as a part of what has been integrated; 0 for one piece a step",
    cost_span="|T - t0|",
    spacing="how far apart g is looked at, at most",
    most_pieces="into which all steps may be divided",
    pieces="so far",
    looks="evaluations of g alone",
    piece_t="where the piece begins that was integrated last",
    piece_h="its length, signed",
)
COST_UNIT, COST_SPAN, SPACING, MOST_PIECES, PIECES, LOOKS, PIECE_T, PIECE_H = COST.places
COST_SUMS = matrix(SIZED, "(5, p)", "integrals by logarithms, so far and of a piece, see adjoints/costs.py; a column for each of Q")
COST_GROUPS = matrix(SIZED, "(3, 3)", "errors of a piece, what they are compared with, and errors that stay, by kind of integral")
COST_PIECES = matrix(STORE, "(k, 2)", "where pieces of the quadrature begin in their steps, and their widths, the last one first")
COST_BREAKS = vector(SIZED, "(k,)", "times at which the running cost may jump, in order")
DRIVEN = matrix(STORE, "(k, 3)", "LIMITS for a pass over lam that the cost drives; none where that is not wanted")

JUMP_WORK = matrix(STORE, "(10, n)", "slopes before and behind a jump, and other vectors on the way over it")
JUMP_THETA = vector(STORE, "(m,)", "THETA_BAR of callbacks at jumps, which see memory: the other one stays in registers")
JUMP_K_BAR = matrix(STORE, "(rows, n)", "discrete adjoint: K_BAR of the step that a jump shifts, for the same reason")
JUMP_BARS = vector(STORE, "(k,) or (0,)", "discrete adjoint: cotangents of the times of jumps, if there are any")
MASS_INVERSE = matrix(STORE, "(n, n) or (0, n)", "the inverse of the mass matrix, if there is one and slopes at jumps are wanted")
JUMP_TOTAL = vector(STORE, "(m + 1,)", "discrete adjoint: TOTAL of the step that ends at an event, for the cotangent of its guard")
SHIFT = floats_by_name(
    STORE,
    "discrete adjoint: what a shift of times does, see adjoints/shifts.py",
    exact="whether it is that of the steps themselves",
    timed="whether f depends on time",
    cost_timed="whether the running cost does",
    moves="whether the steps between the two last jumps of the state move with the first of these",
    known="whether there are such steps, so that OF_START is known",
    takes_size="whether the cotangent of the size of the step being pulled back is wanted",
    takes_time="whether that of its time is",
    end_is_free="whether that step keeps its size, so that its end moves too",
    step_size="its size, signed",
    of_size="that cotangent so far",
    of_time="that of its time so far",
    of_start="the cotangent of the time at which the steps from there to the next jump begin",
    leads_to="the jump at the end of the step being pulled back, counted from 1, if its time moves",
    of_jump="the cotangent of its time, but for that step",
    guard_rate="of its guard, an event's: the derivative by time; then along the step, by its size",
    guard_time="that by the time of the step",
    rounds="how often a step is still to be pulled back; 0 where none has been begun",
)
# fmt: off
(
    EXACT, TIMED, COST_TIMED, MOVES, KNOWN, TAKES_SIZE, TAKES_TIME, END_IS_FREE, STEP_SIZE, OF_SIZE, OF_TIME, OF_START, LEADS_TO,
    OF_JUMP, GUARD_RATE, GUARD_TIME, ROUNDS,
) = SHIFT.places
# fmt: on
EVENT_RATE = vector(STORE, "(1,)", "the derivative of a guard by time")
U = vector(SIZED, "(n,)", "the forward solution at the place last looked up")
LAM = vector(SIZED, "(n,)", "discrete adjoint: the cotangent of the state")
K_BAR = matrix(SIZED, "(rows, n)", "discrete adjoint: cotangents of the slopes")
Y_BAR = vector(SIZED, "(n,)", "discrete adjoint: the cotangent of the state at the start of the step")
STAGE_BAR = vector(SIZED, "(n,)", "discrete adjoint: the cotangent of a stage")
TRUST = floats_by_name(
    SIZED,
    "what is known of the gradient's error, in the scale of logarithmic derivatives",
    unit_error="the relative error that is one unit, rtol; 0 if errors are not judged",
    most="units that pass",
    switches_to="whether the forward pass can turn to an implicit method",
    may_conserve="whether lam . du/dt may be conserved, see adjoints/drift.py; READS_TIME if f reads it",
    state_error="continuous adjoints: the error of a step of the forward pass, as a part of the state",
    log_rtol="continuous adjoints: the logarithm of the relative tolerance that steps are held to",
    rule_is_off="by what factor the errors of theta_bar as a quadrature are larger than its sums say",
    seen_rough="whether there has been an integrand of theta_bar that is rougher than u and lam",
    grew_freely="whether it was in steps that u has not chosen",
    free_steps="how many of the first steps have grown as fast as they may, if that is much of the span",
    last_rule_sum="RULE_SUM of the pass before, on longer steps",
    last_along="theta_bar of that, along both probes",
    lam_sum="sum of the errors of lam",
    theta_sum="sum of those of theta_bar",
    zero_sum="the same for parameters that are zero, which have no logarithmic derivative: in units of 1",
    counts_for="how many steps the one being pulled back stands for; 0 if it is not judged",
    behind="the size of the step behind it",
    to_skip="how many of the next ones are not to be judged",
    skipped="the largest step behind it that has not been judged, since the last one that has",
    skipped_length="how long these are together",
    is_steady="implicit methods: whether the errors of the last two steps judged are about the same part of lam, and J is the same",
    last_part="which part that is in the last one",
    far="whether the frozen matrix was far off what became of the errors that were carried last",
    theta_along="continuous adjoints: the error estimate of the quadrature of theta_bar in the last step",
    theta_rule="what tells the error of theta_bar along THETA_PROBE as a quadrature, of the step being pulled back",
    theta_parts="the sum of the sizes of its parts",
    theta_lately="how large these sums have been of late, by time",
    theta_explained="what it has been of late where u and lam explained it",
    theta_before="the sample before the last one, see adjoints/samples.py",
    theta_long_before="the one before that",
    zero_rule="theta_rule along ZERO_PROBE",
    zero_parts="the sum of the sizes of its parts",
    zero_lately="theta_lately along ZERO_PROBE",
    zero_explained="theta_explained along ZERO_PROBE",
    zero_before="theta_before along ZERO_PROBE",
    zero_long_before="theta_long_before along ZERO_PROBE",
    joint="what the slope at the end of the step being pulled back weighs, for it and for the step behind it",
    samples_taken="how many",
    sampled_at="when the last one was",
    samples_apart="how long after that the one before was",
    sampled_to="up to where second differences have been judged",
    covers="how much of the span the last one is for, over COUNTS_FOR",
    by_last="the factor of the last sample in it",
    by_before="that of the one before",
    by_long_before="and of the one before that",
    rule_row="the row of QUADRATURE_WEIGHTS for this step",
    rough="how rough u and lam have been of late, see adjoints/theta_error.py",
    rough_lam="how rough lam alone has been",
    rule_of_theta="sum of the errors of theta_bar as a quadrature",
    rule_of_zeros="the same for parameters that are zero",
    rule_sum="both sums before RULE_IS_OFF",
    rule_scale="what the errors of each step as a quadrature are to be taken times",
    free_sum="sum of those in steps that u has not chosen",
    theta_size="the largest theta_bar on the way, in the units of the parameters",
    zero_size="the same of those that are zero",
    stiff_behind="whether there are implicit steps behind the one being pulled back",
    left_wrong="what the last of them have left wrong in lam, to explicit steps",
    transient="for how many implicit steps, from this one on, parts of what has been observed are faster than a step",
    seeds="cotangents of states inside the step being pulled back",
    sound="the largest lam before any step that may amplify it",
    amplified="whether there has been such a step",
    worst="the largest error of a step",
    worst_t="where that step begins",
    worst_h="its size",
    worst_entry="the entry of lam with the largest estimate there",
    u0_error="the error of u0_bar relative to the largest logarithmic derivative, at the end",
    theta_error="the error of theta_bar as a part of that",
    units="the larger one in units",
    steps_in_cell="how many steps a row of CELLS is for",
    room_in_cell="how many more the last one has room for",
    cells_used="how many rows of CELLS there are",
    carrying="whether errors of implicit steps are carried",
    raw_h="implicit methods: the step whose error is found from RAW in steppers/transposed_error.py",
    raw_t="where that starts",
    raw_steps="how many steps it stands for",
    raw_seeded="for observations inside of it, which part of it the step before is, at most 1; UNSEEDED or LEFT there",
    raw_lam="the size of lam behind it",
    raw_jacobian="the number of the frozen Jacobian by which its error has been found",
    lasting="the sum of errors as parts of lam",
    pending="the sum of those that LASTING_THETA has not got yet",
    has_zeros="whether parameters are zero",
    along="theta_bar along THETA_PROBE so far",
    autonomous="whether it is, so far as is known",
    follows="whether that is followed in the step being pulled back",
    left_now="the observations left before that step",
    lam_flow="lam . du/dt at one of its ends",
    flow_terms="the sum of the sizes of the terms",
    flow_t="where that is",
    last_flow="the same product in the last step in which it was followed",
    last_flow_t="where that was",
    drift_left="the observations left then",
    drift="by how much it has changed in all",
    drift_part="what part of lam that is; 0 for a small one",
    drift_most="the largest such part, which is no less in the steps before",
    drift_along="theta_bar along THETA_PROBE when that was found",
    drift_theta="the sum of the errors of theta_bar from it",
    largest_drift="the largest change between two steps",
    drift_t="the time of that",
    drift_h="the step there",
    kink_error="what a kink inside of the step being pulled back, or a jump of f there, may make wrong; 0 where there is none",
    kink_at="when that is",
    side_behind="the side of comparisons on which the step behind starts",
    step_behind="which step that is",
    worst_is_kink="whether the largest error is one of these",
    forward_step="continuous adjoints: the step of the forward pass that the last step has led to",
)
# fmt: off
(
    UNIT_ERROR, MOST, SWITCHES_TO, MAY_CONSERVE, STATE_ERROR, LOG_RTOL, RULE_IS_OFF, SEEN_ROUGH, GREW_FREELY, FREE_STEPS,
    LAST_RULE_SUM, LAST_ALONG, LAM_SUM, THETA_SUM, ZERO_SUM, COUNTS_FOR, BEHIND, TO_SKIP, SKIPPED, SKIPPED_LENGTH, IS_STEADY,
    LAST_PART, FAR, THETA_ALONG, THETA_RULE, THETA_PARTS, THETA_LATELY, THETA_EXPLAINED, THETA_BEFORE, THETA_LONG_BEFORE, ZERO_RULE,
    ZERO_PARTS, ZERO_LATELY, ZERO_EXPLAINED, ZERO_BEFORE, ZERO_LONG_BEFORE, JOINT, SAMPLES_TAKEN, SAMPLED_AT, SAMPLES_APART,
    SAMPLED_TO, COVERS, BY_LAST, BY_BEFORE, BY_LONG_BEFORE, RULE_ROW, ROUGH, ROUGH_LAM, RULE_OF_THETA, RULE_OF_ZEROS, RULE_SUM,
    RULE_SCALE, FREE_SUM, THETA_SIZE, ZERO_SIZE, STIFF_BEHIND, LEFT_WRONG, TRANSIENT, SEEDS, SOUND, AMPLIFIED, WORST, WORST_T,
    WORST_H, WORST_ENTRY, U0_ERROR, THETA_ERROR, UNITS, STEPS_IN_CELL, ROOM_IN_CELL, CELLS_USED, CARRYING, RAW_H, RAW_T, RAW_STEPS,
    RAW_SEEDED, RAW_LAM, RAW_JACOBIAN, LASTING, PENDING, HAS_ZEROS, ALONG, AUTONOMOUS, FOLLOWS, LEFT_NOW, LAM_FLOW, FLOW_TERMS,
    FLOW_T, LAST_FLOW, LAST_FLOW_T, DRIFT_LEFT, DRIFT, DRIFT_PART, DRIFT_MOST, DRIFT_ALONG, DRIFT_THETA, LARGEST_DRIFT, DRIFT_T,
    DRIFT_H, KINK_ERROR, KINK_AT, SIDE_BEHIND, STEP_BEHIND, WORST_IS_KINK, FORWARD_STEP,
) = TRUST.places
# fmt: on
LAM_ERROR = vector(SIZED, "(n,)", "discrete adjoint: error estimate of the step being pulled back")
LAM_RECENT = vector(SIZED, "(n,)", "discrete adjoint: how large the entries of lam have been of late, in units of the states")
STEP_ERROR = matrix(SIZED, "(ROWS, n) or (0, n)", "implicit methods: vectors of steppers/transposed_error.py")
CARRIED = vector(SIZED, "(n,) or (0,)", "the error of lam that is carried over implicit steps, see adjoints/carried.py")
CARRIED_THETA = vector(SIZED, "(m,) or (0,)", "the sum of their parts in theta_bar")
LASTING_THETA = vector(SIZED, "(m,)", "the parts in theta_bar of errors that last, see `add_lasting` in adjoints/carried.py")
FLOW = matrix(SIZED, "(2, n)", "discrete adjoint: du/dt at an end of the step, and what it would be at another time")
U_SIZE = vector(SIZED, "(n,)", "sizes of the states in an implicit step, in whose units its equations are solved")
U_FLOOR = vector(SIZED, "(n,)", "the least size of a state, in whose units lam is measured")
U_LARGEST = vector(SIZED, "(n,)", "continuous adjoints: the largest size of a state in the steps that are not at hand")
U_SCALES = vector(SIZED, "(n,)", "continuous adjoints: the size of each state along the trajectory")
ABOUT_ONE = vector(SIZED, "(m,) or (0,)", "numbers about 1 of either sign")
THETA_PROBE = vector(SIZED, "(m,) or (0,)", "sizes of the parameters, times these")
ZERO_PROBE = vector(SIZED, "(m,) or (0,)", "they themselves for parameters that are zero, else 0")
STAGE_PARTS = matrix(SIZED, "(2, rows)", "what each stage of the step adds to theta_bar along THETA_PROBE and ZERO_PROBE")
SAMPLES = matrix(SIZED, "(6, n) or (0, n)", "of slopes and their cotangents, see adjoints/samples.py")
SIDE = vector(OPTIONAL, "(1,) or (0,)", "a result of SIDES; empty where there is none")
KINK_WORK = matrix(SIZED, "(7, n) or (0, n)", "vectors of adjoints/kinks.py")
KINK_THETA = matrix(SIZED, "(2, m) or (0, m)", "the same of the parameters")
CELLS = matrix(STORE, "(k, 11) or (k, 12)", "for parts of the mesh, last one first, what adjoints/cells.py says")
KINKS = matrix(STORE, "(k, 4) or (0, 4)", "and what it says of kinks, where there is SIDE")
BASIS = matrix(SIZED, "(1, rows)", "discrete adjoint: the weights of the dense output at one place")
FORWARD_T = vector(STORE, "(k + 1,)", "MESH_T of the forward pass")
FORWARD_U = matrix(STORE, "(k + 1, n)", "MESH_U of the forward pass")
FORWARD_C = cube(STORE, "(k, degree, n)", "MESH_C of the forward pass")
FORWARD_STAGES = cube(STORE, "(k, rows, n)", "STAGES of the forward pass")
FORWARD_KIND = integers(OPTIONAL, "(k,) or (0,)", "MESH_KIND of the forward pass")
FORWARD_COUNT = integers(STORE, "(7 or more,)", "COUNT of the forward pass, from STEPS to LED at least")
JUMP_ROWS = integers(
    STORE, "(k,) or (0,)", "row of JUMPS for each stop, -1 for none, less for others; empty where they are in reverse order"
)
U0_BAR = vector(STORE, "(n,)", "where the backward pass leaves lam at t0")
JUMPS = matrix(STORE, "(k, n)", "what to add to lam at each time; a loss: its derivatives")
ANCHORS = matrix(STORE, "(k, n)", "backsolve: where to put the state at each time; rates: slopes of the dense output")
CURVES = matrix(STORE, "(k, n)", "rates: second derivatives of the dense output")
STEP_SIZES = vector(STORE, "(k,)", "rates: of the steps that the times lie in")
PLACES = vector(STORE, "(k,)", "rates: where in these they lie, 0 .. 1")
RATES = vector(STORE, "(k,)", "rates: cotangents along du/dt")

# --- tangents: k directions at once, in one vector, one behind the other or laced, see steppers/tangents.py -----------------------

START_DOTS = vector(SIZED, "(k n,)", "tangents of the state at the start")
THETA_DOTS = matrix(SIZED, "(k, m)", "tangents of the parameters")
DOTS = vector(SIZED, "(k n,)", "tangents of the state reached")
NEXT_DOTS = vector(SIZED, "(k n,)", "tangents of the state after the step")
STATE_DOTS = vector(SIZED, "(k n,)", "tangents of the state of a stage")
STAGE_DOTS = matrix(SIZED, "(rows, k n)", "tangents of the slopes of the stages")
OBSERVED_DOTS = matrix(STORE, "(times, k n)", "tangents of the states at TIMES")
MESH_DOTS = matrix(STORE, "(steps + 1, k n) or (0, 0)", "tangents of the states at the starts of steps, where they are kept")
MESH_DOTS_C = cube(STORE, "(steps, degree, k n) or (0, 0, 0)", "the coefficients of their dense output")
WIDTH = integers(SETTINGS, "(1,)", "how many directions of a block lie side by side; 1 where one is behind the other")
LANES_U = vector(STORE, "(k n,) or (0,)", "STATE_DOTS laced for a jvps, where blocks are not")
LANES_OUT = vector(STORE, "(k n,), (n lanes,) or (0,)", "what that, or one with unit vectors, writes")
LANES_UNIT = vector(STORE, "(n lanes,) or (0,)", "zeros, for unit vectors that a jvps makes df/du of")
NO_LANES = vector(STORE, "(m lanes,) or (0,)", "zeros, for tangents of theta beside these")
LANES_THETA = matrix(
    STORE,
    "(k / lanes, m lanes or 0) or (0, 0)",
    "THETA_DOTS laced, or empty where theta never changes; none where products are with one direction",
)
TIME_DOTS = vector(STORE, "(k,)", "tangents of the time of a jump")
STATE_DOT = vector(SIZED, "(n,)", "one of them")
PRODUCT = vector(SIZED, "(n,)", "a product with the Jacobian")
NO_DOT = vector(SIZED, "(m,)", "zeros, for a tangent of the parameters")
STAGE_MATRIX = matrix(STORE, "(b n, b n) or (0, 0)", "factors of the equations of b stages, where they are solved for directly")
RIGHTS = matrix(STORE, "(b n, k) or (0, 0)", "their right-hand sides, and then their solutions, a column for each direction")
DOT_COLUMNS = matrix(STORE, "(n, k) or (0, k)", "tangents of the state of a stage before them, directions side by side")
STAGE_PIVOTS = integers(STORE, "(b n,) or (0,)", "their pivots")
ROWS_U = cube(SIZED, "(b, n, n) or (0, n, n)", "df/du at b stages; none where products are jvps")
ROWS_THETA = cube(SIZED, "(b, n, m) or (0, n, m)", "df/dtheta there; with THETA_COLUMNS a column of zeros behind")
THETA_COLUMNS = integers(
    SIZED, "(k,) or (0,)", "where theta changes in each direction, m for nowhere; none where that is more than one entry"
)
STAGE_STATE_DOTS = cube(
    STORE, "(k, rows, p n) or (0, 0, 0)", "tangents of the states of the stages of all steps, where they are kept"
)

# --- second order: lam and its tangents in p directions, one behind the other ----------------------------------------------------

LAMS = matrix(STORE, "(1 + p, n)", "lam, and its tangents")
FIRST_BARS = matrix(STORE, "(1 + p, n)", "K_BAR[0] of each")
TOTALS = matrix(STORE, "(1 + p, m)", "the cotangent of the parameters so far, and its tangents")
KAPPA = matrix(SIZED, "(rows, n)", "the cotangents of the slopes of a step as lam has had them pulled back")
NO_LAM = vector(SIZED, "(n,)", "zeros, for a tangent of lam")
