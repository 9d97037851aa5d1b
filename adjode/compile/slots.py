"""All slots of a frame: what lies where, of which type, and what it means.

They stand by owner, the room whose kernels fill them or work on them; most are read in others too, so they are declared in one
place, below all rooms. A frame has them in another order, see `Group`.

n is the number of states, m that of parameters; a method has `rows` stages, of which 0 is the state at the start of a step and s
the one at its end, and dense output of some degree.
"""

from __future__ import annotations

from adjode.compile.slot import (
    Group,
    address,
    arrange,
    cube,
    floats_by_name,
    frame_address,
    integers,
    integers_by_name,
    matrix,
    vector,
)

METHOD, SETTINGS, SIZED, OPTIONAL, STORE = Group.METHOD, Group.SETTINGS, Group.SIZED, Group.OPTIONAL, Group.STORE

# --- the method -------------------------------------------------------------------------------------------------------------------

A = matrix(METHOD, "(rows, rows)", "coefficients of the stages, row s those of the step")
C = vector(METHOD, "(rows,)", "nodes of the stages")
E = matrix(METHOD, "(1 or 2, rows)", "weights of the error estimates")
PT = matrix(METHOD, "(degree, rows)", "weights of the dense output, a row for each power, see Tableau")
LAM_WEIGHTS = vector(METHOD, "(rows,)", "weights of the discrete adjoint's error estimate, see tableaus/adjoint_error.py")
LAM_POWERS = integers(METHOD, "(4,)", "halves and raised, see there, the orders of the method and of its dense output")
LAM_FACTORS = vector(METHOD, "(3,)", "order, factor, and by_lam, see there")
STEP_WEIGHTS = matrix(METHOD, "(2, rows) or (0, 0)", "implicit methods: step, see there")
WEIGHTS = matrix(METHOD, "(3, r)", "quadrature rule, and its fine and coarse error weights")
NODES = vector(METHOD, "(r - 2,)", "interior nodes of the rule; none where the stages are its nodes")
Q_ROWS = integers(METHOD, "(rows,)", "row of Q for the integrand of each stage")
EIGENVALUES = vector(METHOD, "(1 or 3,)", "implicit methods: mu, alpha, beta, see Tableau.decoupled")
TRANSFORM = matrix(METHOD, "by family", "what separates the stages, see Tableau.decoupled")
INVERSE = matrix(METHOD, "by family", "the inverse of A, see Tableau.decoupled")

# --- loops: what a pass is to do --------------------------------------------------------------------------------------------------

SETTING = integers_by_name(
    SETTINGS,
    "what the pass is to do",
    last_stage="s, the last stage of a step",
    top="the last stage of its dense output",
    adaptive="whether errors choose the steps",
    dense="whether every step needs its dense output",
    record="what is kept of each step, a sum of the RECORD_... below",
    rule="the kind of quadrature, see loops/quadrature.py",
    integrand_free="whether the derivative writes the whole integrand into q",
    filtered="as in Tableau",
    centred="as in Tableau",
)
LAST_STAGE, TOP, ADAPTIVE, DENSE, RECORD, RULE, INTEGRAND_FREE, FILTERED, CENTRED = SETTING.places
RECORD_DENSE, RECORD_STAGES, RECORD_MESH = 1, 2, 4  # dense output; the states of all stages; nothing but times and states

CONTROL = floats_by_name(
    SIZED,
    "tolerances and limits",
    rtol="of the state",
    q_rtol="of the quadrature",
    q_atol="of the quadrature, where it is given",
    max_step="the largest step",
    direction="1 or -1",
    span="|T - t0|",
    error_order="order of the error estimate",
    t_start="where the pass starts, as all times of passes counted from the start of the solve",
    first_step="0 to choose it",
    max_attempts="steps accepted and rejected, at most",
    atol_scale="if positive, absolute tolerances of lam are a part of this, see loops/tolerances.py; else ATOL is given",
    q_atol_scale="the same of the quadrature",
    cost_size="the least size of lam that a running cost will make",
    newton_tol="where Newton's iteration ends, in tolerances",
    eps="the spacing of numbers at 1",
    reach="how far ahead the stages of a step are, in steps: 1 or more",
)
# fmt: off
(
    RTOL, Q_RTOL, Q_ATOL, MAX_STEP, DIRECTION, SPAN, ERROR_ORDER, T_START, FIRST_STEP, MAX_ATTEMPTS, ATOL_SCALE, Q_ATOL_SCALE,
    COST_SIZE, NEWTON_TOL, EPS, REACH,
) = CONTROL.places
# fmt: on

TIME_SPAN = floats_by_name(
    SIZED,
    "the time of callbacks",
    origin="what passes count time from, the start of the solve",
    earliest="time of the span",
    latest="time of the span",
)
ORIGIN, EARLIEST, LATEST = TIME_SPAN.places

ATOL = vector(SIZED, "(n,)", "absolute tolerances of the state")
START = vector(SIZED, "(n,)", "the state at the start of the pass")
STOPS = vector(STORE, "(k,)", "times to meet, the last one the end of the pass")
CROSSED = integers(OPTIONAL, "(k,) or (0,)", "1 for stops at which f may jump, else 0; empty for zeros")
TIMES = vector(STORE, "(k,)", "times to observe, in the order of integration; a loss: those of its observations")

LIMITS = matrix(STORE, "(k, 3)", "for parts of the span in order: the end, the largest step, and 1 where it is stiff")
LIMITED = integers(STORE, "(2,)", "how many rows of LIMITS there are, and how often they have been set")

WATCH = integers(STORE, "see watch.py", "when to look up from the work")

# --- loops: where a pass is -------------------------------------------------------------------------------------------------------

CLOCK = floats_by_name(
    SIZED,
    "floats that change along the way",
    t="the time reached",
    h="the step to try next",
    log_error="logarithm of the error norm of the last accepted step",
    t_tried="time of the last evaluation or step tried, for messages",
    h_tried="that step, for messages",
    h_last="the step that log_error belongs to",
    h_factored="the step that the factors of an implicit method are for; 0 for none",
    h_previous="the step of PREVIOUS; 0 for none",
    remains="what is left after a correction of Newton's, as a part of it",
    radius="spectral radius of the Jacobian",
    t_rest="what the time reached has beyond t, by rounding",
    t_from="where the last stop left off, or the start",
    lands_within="how near a stop must be for a step with a stage behind it to end there",
    apart="how far a preconditioned matrix is from 1, along the right-hand side",
    size="of lam and theta_bar, see loops/tolerances.py",
    size_of_theta="of theta_bar alone, and no more than that of the largest lam",
    largest_lam="the size of the largest lam so far",
    least_size="which it is taken for where it is less",
    part="of rtol times the size that absolute tolerances are",
)
# fmt: off
(
    T, H, LOG_ERROR, T_TRIED, H_TRIED, H_LAST, H_FACTORED, H_PREVIOUS, REMAINS, RADIUS, T_REST, T_FROM, LANDS_WITHIN, APART,
    SIZE, SIZE_OF_THETA, LARGEST_LAM, LEAST_SIZE, PART,
) = CLOCK.places
# fmt: on

COUNT = integers_by_name(
    SIZED,
    "integers that change along the way",
    steps="accepted, of those in the store",
    earlier="steps before the first one in the store",
    occurred="jumps of the state so far",
    ended="the event that has ended the pass, counted from 1",
    rejected="steps",
    derivatives="evaluations of the right-hand side",
    integrands="evaluations of the integrand",
    stop="the next one",
    fresh="whether K[0] belongs to the state reached",
    retry="whether the last step was rejected",
    seen="times observed",
    entered="whether the pass is under way",
    crossings="steps across a stop at which f may jump, among those accepted",
    stiff="which of two methods is in use: 1 for the implicit one",
    evidence="for the other method",
    calm="steps in a row that speak against it",
    switches="from one method to the other",
    suspicions="steps in which a guard may have been zero",
    happening="the event that a step ends at",
    before_gap="whether the step tried has a stage behind it, where f may have jumped or has ended",
    limit="the row of LIMITS that the time reached is in",
    vjps="discrete adjoint: products that keep (df/dtheta)^T w",
    costs="discrete adjoint: evaluations of g",
    products="discrete adjoint: other products",
    freshness="of the Jacobian, see steppers/frozen.py",
    last_iterations="of the last solve of an implicit method",
    jacobians="evaluated",
    factorisations="real and complex",
    iterations="of Newton or GMRES",
)
# fmt: off
(
    STEPS, EARLIER, OCCURRED, ENDED, REJECTED, DERIVATIVES, INTEGRANDS, STOP, FRESH, RETRY, SEEN, ENTERED, CROSSINGS, STIFF,
    EVIDENCE, CALM, SWITCHES, SUSPICIONS, HAPPENING, BEFORE_GAP, LIMIT, VJPS, COSTS, PRODUCTS, FRESHNESS, LAST_ITERATIONS,
    JACOBIANS, FACTORISATIONS, ITERATIONS,
) = COUNT.places
# fmt: on

Y = vector(SIZED, "(n,)", "the state reached")
ERROR = vector(SIZED, "(n,)", "error estimate of the step tried")
K = matrix(SIZED, "(rows, n)", "slopes of the stages")
Q = matrix(SIZED, "(r + 1, p)", "integrands in the rows of the rule, then a scratch row")
TOTAL = vector(SIZED, "(p,)", "the quadrature so far")
INCREMENT = vector(SIZED, "(p,)", "the quadrature over the step tried")
THETA = vector(SIZED, "(m,)", "parameters")
PARTNER = frame_address("the frame of the other one of two methods; behind that, the one along which the error of lam is carried")

# --- loops: what is recorded, with a row for each step or time --------------------------------------------------------------------

STAGES = cube(STORE, "(k, rows, n)", "states of all stages, that at the start of the step the first")
MESH_T = vector(STORE, "(k + 1,)", "times at the ends of the steps")
MESH_U = matrix(STORE, "(k + 1, n)", "states there")
MESH_C = cube(STORE, "(k, degree, n)", "dense output, coefficients of the powers of x")
MESH_KIND = integers(OPTIONAL, "(k,) or (0,)", "the kind of each step, below; empty where all are of the method's own")
# behind CROSSING, those in which the state jumps: JUMP + k where jump k was the last one
EXPLICIT_STEP, IMPLICIT_STEP, CROSSING, JUMP = range(4)
OBSERVED = matrix(STORE, "(k, n)", "states at TIMES")

# --- loops: where the state jumps ------------------------------------------------------------------------------------------------

PLANNED = vector(STORE, "(k,)", "STOPS, but for those that are known only when the pass begins")
PLANNED_ROWS = integers(STORE, "(k,) or (0,)", "JUMP_ROWS of these")
PLANNED_CROSSED = integers(STORE, "(k,) or (0,)", "CROSSED of these")
DOSES = matrix(STORE, "(k, 5)", "time, lag, amount, fraction and duration of each dose; factors of the entries below")
DOSE_ENTRIES = integers(
    OPTIONAL, "(7 k,) or (0,)", "for each of these the entry of theta or -1; then of the state and of its inflow"
)
ONGOING = integers(STORE, "(r,)", "how many doses of each inflow last at present")
ACTIONS = integers(OPTIONAL, "(2 a,) or (0,)", "what is to be done when: the dose, and BOLUS, BEGINS or ENDS")
BOLUS, BEGINS, ENDS = range(3)
GUARD_SIGNS = integers(OPTIONAL, "(e,) or (0,)", "the sign of each guard where the next step begins; 0 if it is to be found out")
GUARD_HITS = integers(STORE, "(2 e,)", "how often each event has happened, and what becomes of it at the time reached")
GUARD_RULES = integers(
    STORE, "(5 e,)", "direction, how often until the pass ends (0 for never), priority, first with this guard, resets"
)
GUARD_VALUES = matrix(STORE, "(7, e)", "guards at places of a step, see loops/guards.py")
EVENT_WORK = matrix(STORE, "(2, n)", "a state between, and what a reset writes")
WHICH = vector(STORE, "(1,)", "the event whose reset is called")
JUMP_T = vector(STORE, "(k,)", "when the state has jumped")
JUMP_U = matrix(STORE, "(2 k, n)", "before and behind that")
JUMP_WHAT = integers(OPTIONAL, "(3 k,) or (0,)", "what it was, EVENT, NESTED or DOSE; which one; and the first jump at that time")
EVENT, NESTED, DOSE = range(3)
JUMP_INFLOW = vector(STORE, "(k,)", "the inflow that has changed, as it was before")

# --- steppers: implicit methods ---------------------------------------------------------------------------------------------------

Z = matrix(SIZED, "(s or 1, n)", "Newton: increments of the stages")
W = matrix(SIZED, "(s or 1, n)", "the same, transformed; the adjoint: cotangents of the slopes")
RIGHT = matrix(SIZED, "(s or 1, n)", "right-hand sides")
PAIR = vector(SIZED, "(2 n,) or (0,)", "complex right-hand side")
PREVIOUS = matrix(SIZED, "(degree, n)", "dense output of the step before")
KRYLOV = cube(SIZED, "(most + 3, stages, n)", "GMRES: basis, the right-hand side, and the sum of restarts")
SOLVE_WEIGHTS = vector(SIZED, "(n,)", "GMRES: weights of the entries of a cotangent in a norm")
SOLVED_TO = vector(SIZED, "(1,)", "GMRES: where it ends, as a part of the right-hand side")
HESSENBERG = matrix(SIZED, "(most + 4, most + 1)", "GMRES: the small least-squares problem")
POWER = matrix(SIZED, "(2, n)", "a vector of the power method and its image")

# --- linalg, and the Jacobian ----------------------------------------------------------------------------------------------------

JACOBIAN = matrix(SIZED, "by storage", "df/du in the storage of the linear solver")
LU = matrix(SIZED, "by storage", "real factors")
LU_COMPLEX = matrix(SIZED, "by storage", "complex factors, in pairs of floats")
PIVOTS = integers(SIZED, "by storage", "of the real factors")
PIVOTS_COMPLEX = integers(SIZED, "by storage", "of the complex factors")
WIDTHS = integers(SETTINGS, "(2,)", "bandwidths of the Jacobian, lower and upper")
DIAGONAL = integers(SIZED, "(n,)", "where the diagonal is in the storage")
ROUTINES = integers(SIZED, "by storage", "addresses of compiled code, see linalg/lapack.py and linalg/sparse.py")
SYMBOLIC = integers(SIZED, "see linalg/symbolic.py", "order and fill-in of a sparse matrix")
SOURCE = integers(SETTINGS, "(1,)", "where the Jacobian comes from, see jacobian.py")
UNIT = vector(SIZED, "(n,)", "a sum of unit vectors, which the vjp is given for lam")
PULLED = vector(SIZED, "(n,)", "what a vjp writes")
PULLED_THETA = vector(SIZED, "(m,)", "what a vjp writes")
WHOLE = vector(SIZED, "(n n,) or (0,)", "what a jac writes")
ROW_STARTS = integers(SIZED, "(groups + 1,)", "where each group of rows starts in ROW_ORDER")
ROW_ORDER = integers(SIZED, "(n,)", "rows by group")
ENTRY_STARTS = integers(SIZED, "(groups + 1,) or (0,)", "where the entries of each group start")
ENTRY_SOURCES = integers(SIZED, "(nnz,)", "where entries are in what the callback wrote")
ENTRY_PLACES = integers(SIZED, "(nnz,)", "where they go in the storage")
ENTRIES = integers(SIZED, "(3 nnz,)", "rows, columns and places in the storage of all entries")
MASS = vector(SIZED, "(nnz,)", "entries of the mass matrix by rows")
MASS_STARTS = integers(SIZED, "(n + 1,)", "where its rows start")
MASS_COLUMNS = integers(SIZED, "(nnz,)", "columns of its entries")
MASS_PLACES = integers(SIZED, "(nnz,)", "places of its entries in the storage of the Jacobian")
MASSED = matrix(SIZED, "(3, n)", "products with it")
NULL = vector(SIZED, "(nnz,)", "by rows, a basis of the vectors that its transpose sends to zero")
NULL_STARTS = integers(SIZED, "(k + 1,)", "where the rows of that start")
NULL_COLUMNS = integers(SIZED, "(nnz,)", "columns of its entries")

# --- adjoints ---------------------------------------------------------------------------------------------------------------------

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
)
STEP, RELEVANT, LEFT = PLACE.places

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
DRIVEN = matrix(STORE, "(k, 3)", "LIMITS for a pass over lam that the cost drives; none where that is not wanted")

JUMP_WORK = matrix(STORE, "(5, n)", "slopes before and behind a jump, and other vectors on the way over it")
EVENT_RATE = vector(STORE, "(1,)", "the derivative of a guard by time")
U = vector(SIZED, "(n,)", "the forward solution at the place last looked up")
LAM = vector(SIZED, "(n,)", "discrete adjoint: the cotangent of the state")
K_BAR = matrix(SIZED, "(rows, n)", "discrete adjoint: cotangents of the slopes")
Y_BAR = vector(SIZED, "(n,)", "discrete adjoint: the cotangent of the state at the start of the step")
STAGE_BAR = vector(SIZED, "(n,)", "discrete adjoint: the cotangent of a stage")
TRUST = floats_by_name(
    SIZED,
    "discrete adjoint: what is known of the gradient's error, in the scale of logarithmic derivatives",
    unit_error="the relative error that is one unit, rtol; 0 if errors are not judged",
    most="units that pass",
    switches_to="whether the forward pass can turn to an implicit method",
    last_largest="the largest logarithmic derivative of the pass before, on longer steps; 0 if there was none",
    lam_sum="sum of the errors of lam",
    theta_sum="sum of those of theta_bar",
    zero_sum="the same for parameters that are zero, which have no logarithmic derivative: in units of 1",
    counts_for="how many steps the one being pulled back stands for; 0 if it is not judged",
    behind="the size of the step behind it",
    skipped="the largest step behind it that has not been judged, since the last one that has",
    theta_along="error estimate of theta_bar along THETA_PROBE, of the step being pulled back",
    zero_along="the same along ZERO_PROBE",
    theta_size="the largest theta_bar on the way, in the units of the parameters",
    zero_size="the same of those that are zero",
    stiff_behind="whether there are implicit steps behind the one being pulled back",
    seeds="cotangents of states inside the step being pulled back",
    sound="the largest lam before any step that may amplify it",
    amplified="whether there has been such a step",
    worst="the largest error of a step",
    worst_t="where that step begins",
    worst_h="its size",
    worst_entry="the entry of lam with the largest estimate there",
    u0_error="the error of u0_bar as a part of the largest logarithmic derivative, at the end",
    theta_error="the error of theta_bar as a part of that",
    units="the larger one in units",
    steps_in_cell="how many steps a row of CELLS is for",
    room_in_cell="how many more the last one has room for",
    cells_used="how many rows of CELLS there are",
    carrying="whether CARRIED is not zero",
    carried_size="the largest entry of it, at the start of the step that has been pulled back",
    lasting="the sum of errors as parts of lam",
    pending="the sum of those that LASTING_THETA has not got yet",
    has_zeros="whether parameters are zero",
    along="theta_bar along THETA_PROBE so far",
)
# fmt: off
(
    UNIT_ERROR, MOST, SWITCHES_TO, LAST_LARGEST, LAM_SUM, THETA_SUM, ZERO_SUM, COUNTS_FOR, BEHIND, SKIPPED, THETA_ALONG, ZERO_ALONG,
    THETA_SIZE, ZERO_SIZE, STIFF_BEHIND, SEEDS, SOUND, AMPLIFIED, WORST, WORST_T, WORST_H, WORST_ENTRY, U0_ERROR, THETA_ERROR,
    UNITS, STEPS_IN_CELL, ROOM_IN_CELL, CELLS_USED, CARRYING, CARRIED_SIZE, LASTING, PENDING, HAS_ZEROS, ALONG,
) = TRUST.places
# fmt: on
LAM_ERROR = vector(SIZED, "(n,)", "discrete adjoint: error estimate of the step being pulled back")
LAM_RECENT = vector(SIZED, "(n,)", "discrete adjoint: how large the entries of lam have been of late, in units of the states")
STEP_ERROR = matrix(SIZED, "(5, n) or (0, n)", "implicit methods: vectors of steppers/transposed_error.py")
CARRIED = vector(SIZED, "(n,) or (0,)", "LAM of the frame that carries errors: that of lam")
CARRIED_THETA = vector(SIZED, "(m,) or (0,)", "the sum of their parts in theta_bar")
LASTING_THETA = vector(SIZED, "(m,)", "the parts in theta_bar of errors that last, see `add_lasting` in adjoints/carried.py")
U_SIZE = vector(SIZED, "(n,)", "sizes of the states in an implicit step, in whose units its equations are solved")
U_FLOOR = vector(SIZED, "(n,)", "the least size of a state, in whose units lam is measured")
U_LARGEST = vector(SIZED, "(n,)", "continuous adjoints: the largest size of a state in the steps that are not at hand")
U_SCALES = vector(SIZED, "(n,)", "continuous adjoints: the size of each state along the trajectory")
THETA_PROBE = vector(SIZED, "(m,) or (0,)", "sizes of the parameters, times numbers about 1 of either sign")
ZERO_PROBE = vector(SIZED, "(m,) or (0,)", "such numbers for parameters that are zero, else 0")
CELLS = matrix(STORE, "(k, 8)", "for parts of the mesh, last one first, what adjoints/trust.py says")
BASIS = matrix(SIZED, "(1, rows)", "discrete adjoint: the weights of the dense output at one place")
FORWARD_T = vector(STORE, "(k + 1,)", "MESH_T of the forward pass")
FORWARD_U = matrix(STORE, "(k + 1, n)", "MESH_U of the forward pass")
FORWARD_C = cube(STORE, "(k, degree, n)", "MESH_C of the forward pass")
FORWARD_STAGES = cube(STORE, "(k, rows, n)", "STAGES of the forward pass")
FORWARD_KIND = integers(OPTIONAL, "(k,) or (0,)", "MESH_KIND of the forward pass")
FORWARD_COUNT = integers(STORE, "(2 or more,)", "COUNT of the forward pass, its STEPS and EARLIER at least")
JUMP_ROWS = integers(STORE, "(k,) or (0,)", "row of JUMPS for each stop, -1 for none; empty where they are in reverse order")
U0_BAR = vector(STORE, "(n,)", "where the backward pass leaves lam at t0")
JUMPS = matrix(STORE, "(k, n)", "what to add to lam at each time; a loss: its derivatives")
ANCHORS = matrix(STORE, "(k, n)", "backsolve: where to put the state at each time; rates: slopes of the dense output")
CURVES = matrix(STORE, "(k, n)", "rates: second derivatives of the dense output")
STEP_SIZES = vector(STORE, "(k,)", "rates: of the steps that the times lie in")
PLACES = vector(STORE, "(k,)", "rates: where in these they lie, 0 .. 1")
RATES = vector(STORE, "(k,)", "rates: cotangents along du/dt")

# --- losses -----------------------------------------------------------------------------------------------------------------------

ROWS = integers(STORE, "(k,)", "row of OBSERVED for each datum")
DATA = matrix(STORE, "(k, c)", "the data")
DATA_WEIGHTS = matrix(STORE, "(k, c)", "1/sigma")
COMPONENTS = integers(STORE, "(c,)", "which states were observed")
LOGARITHMS = integers(SETTINGS, "(1,)", "whether logarithms are compared")

# --- callbacks, by address --------------------------------------------------------------------------------------------------------

F = address("f")
VJP = address("vjp")
VJP_U = address("vjp_u")
JAC = address("jac")
GUARDS = address("the guards of events")
GUARDS_VJP = address("their derivatives")
GUARDS_DT = address("their derivatives by time")
RESETS = address("resets of events")
RESETS_VJP = address("their derivatives")
RESETS_DT = address("their derivatives by time")
G = address("the running cost")
G_VJP = address("its derivatives")

ALL = arrange(globals())
