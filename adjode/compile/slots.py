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
QUADRATURE_WEIGHTS = matrix(
    METHOD, "(2, rows)", "what tells the error of theta_bar as a quadrature, see tableaus/quadrature_error.py"
)
QUADRATURE_FACTORS = vector(METHOD, "(5,)", "halves, factor, excess, and the ratio of what is just resolved, see there")
QUADRATURE_SLOPES = matrix(METHOD, "(rows, rows)", "slopes, see there")
ERROR_FACTORS = vector(METHOD, "(2,)", "power and factor, see tableaus/step_error.py")
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
    judged="whether the errors of the steps are summed up, see loops/errors.py",
)
LAST_STAGE, TOP, ADAPTIVE, DENSE, RECORD, RULE, INTEGRAND_FREE, FILTERED, CENTRED, JUDGED = SETTING.places
RECORD_DENSE, RECORD_STAGES, RECORD_MESH = 1, 2, 4  # dense output; the states of all stages; nothing but times and states
WHERE_OBSERVED = 8  # with RECORD_DENSE: the dense output of steps in which a time is observed, and of no others

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
    asked_rtol="rtol as it is asked for",
    part_of_asked="what single steps are held to, as a part of what is asked for, see Tolerances.of_steps",
)
# fmt: off
(
    RTOL, Q_RTOL, Q_ATOL, MAX_STEP, DIRECTION, SPAN, ERROR_ORDER, T_START, FIRST_STEP, MAX_ATTEMPTS, ATOL_SCALE, Q_ATOL_SCALE,
    COST_SIZE, NEWTON_TOL, EPS, REACH, ASKED_RTOL, PART_OF_ASKED,
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
ATOL_AT_MOST = vector(STORE, "(n,) or (0,)", "what ATOL is at most, where it follows START; see passes/default_atol.py")
FLOOR_BEHIND = vector(STORE, "(n,) or (0,)", "U_FLOOR of the passes behind this one, where it follows that")
START = vector(SIZED, "(n,)", "the state at the start of the pass")
STOPS = vector(STORE, "(k,)", "times to meet, the last one the end of the pass")
CROSSED = integers(OPTIONAL, "(k,) or (0,)", "1 for stops at which f may jump, else 0; empty for zeros")
TIMES = vector(STORE, "(k,)", "times to observe, in the order of integration; a loss: those of its observations")

LIMITS = matrix(STORE, "(k, 2) or (k, 3)", "for parts of the span in order: the end, the largest step, and 1 where it is stiff")
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
    size_of_theta="of theta_bar alone",
    size_of_lam="of lam alone",
    lam_unit="that, and what absolute tolerances add to it",
    largest_lam="the size of the largest lam so far",
    least_size="which it is taken for where it is less",
    part="of rtol times the size that absolute tolerances are",
)
# fmt: off
(
    T, H, LOG_ERROR, T_TRIED, H_TRIED, H_LAST, H_FACTORED, H_PREVIOUS, REMAINS, RADIUS, T_REST, T_FROM, LANDS_WITHIN, APART,
    SIZE, SIZE_OF_THETA, SIZE_OF_LAM, LAM_UNIT, LARGEST_LAM, LEAST_SIZE, PART,
) = CLOCK.places
# fmt: on

COUNT = integers_by_name(
    SIZED,
    "integers that change along the way",
    steps="accepted, of those in the store",
    earlier="steps before the first one in the store",
    occurred="jumps of the state so far",
    ended="the event that has ended the pass, counted from 1",
    later="steps behind the last one in the store, of a pass that has gone on",
    begun="the jump with which steps began that go on in the store, counted from 1; 0 if the time of that is fixed",
    led="whether the step before the first one in the store is no crossing",
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
    happening="the event that a step ends at",
    before_gap="whether the step tried has a stage behind it, where f may have jumped or has ended",
    limit="the row of LIMITS that the time reached is in",
    vjps="discrete adjoint: products that keep (df/dtheta)^T w; tangents: vjps",
    costs="discrete adjoint: evaluations of g",
    products="discrete adjoint: other products; tangents: jvps",
    freshness="of the Jacobian, see steppers/frozen.py",
    last_iterations="of the last solve of an implicit method",
    jacobians="evaluated",
    factorisations="real and complex",
    iterations="of Newton or GMRES",
    curvatures="second order: products with vjp_dot",
)
# fmt: off
(
    STEPS, EARLIER, OCCURRED, ENDED, LATER, BEGUN, LED, REJECTED, DERIVATIVES, INTEGRANDS, STOP, FRESH, RETRY, SEEN, ENTERED,
    CROSSINGS, STIFF, EVIDENCE, CALM, SWITCHES, HAPPENING, BEFORE_GAP, LIMIT, VJPS, COSTS, PRODUCTS, FRESHNESS, LAST_ITERATIONS,
    JACOBIANS, FACTORISATIONS, ITERATIONS, CURVATURES,
) = COUNT.places
# fmt: on

Y = vector(SIZED, "(n,)", "the state reached")
ERROR = vector(SIZED, "(n,)", "error estimate of the step tried")
K = matrix(SIZED, "(rows, n)", "slopes of the stages")
Q = matrix(SIZED, "(r + 1, p)", "integrands in the rows of the rule, then a scratch row")
TOTAL = vector(SIZED, "(p,)", "the quadrature so far")
INCREMENT = vector(SIZED, "(p,)", "the quadrature over the step tried")
THETA = vector(SIZED, "(m,)", "parameters")
PARTNER = frame_address("the frame of the other one of two methods")

# --- loops: what is recorded, with a row for each step or time --------------------------------------------------------------------

STAGES = cube(STORE, "(k, rows, n)", "states of all stages, that at the start of the step the first")
MESH_T = vector(STORE, "(k + 1,)", "times at the ends of the steps")
MESH_U = matrix(STORE, "(k + 1, n)", "states there")
MESH_C = cube(STORE, "(k, degree, n)", "dense output, coefficients of the powers of x")
MESH_KIND = integers(OPTIONAL, "(k,) or (0,)", "the kind of each step, below; empty where all are of the method's own")
# behind CROSSING those to a stop at which the state jumps as well, and those in which it jumps: JUMP + k where jump k was the last
EXPLICIT_STEP, IMPLICIT_STEP, CROSSING, TO_JUMP_AT_STOP, JUMP = range(5)
OBSERVED = matrix(STORE, "(k, n)", "states at TIMES")

# --- loops: where the state jumps ------------------------------------------------------------------------------------------------

PLANNED = vector(STORE, "(k,)", "STOPS, but for those that are known only when the pass begins")
PLANNED_ROWS = integers(STORE, "(k,) or (0,)", "JUMP_ROWS of these")
PLANNED_CROSSED = integers(STORE, "(k,) or (0,)", "CROSSED of these")
DOSES = matrix(STORE, "(k, 5)", "time, lag, amount, fraction and duration of each dose; factors of the entries below")
# of a switch of f: three parts of its time; a period or 0 as its amount, and which repeat it is as the fraction
DOSE_ENTRIES = integers(
    OPTIONAL, "(7 k,) or (0,)", "for each of these the entry of theta or -1; then of the state and of its inflow"
)
ONGOING = integers(STORE, "(r,)", "how many doses of each inflow last at present")
ACTIONS = integers(OPTIONAL, "(2 a,) or (0,)", "what is to be done when: the dose, and BOLUS, BEGINS, ENDS or SWITCH")
BOLUS, BEGINS, ENDS, SWITCH = range(4)
GUARD_SIGNS = vector(OPTIONAL, "(e,) or (0,)", "the sign of each guard where the next step begins; 0 if it is to be found out")
GUARD_HITS = integers(STORE, "(2 e,)", "how often each event has happened, and what becomes of it at the time reached")
GUARD_RULES = integers(
    STORE,
    "(5 e,)",
    "direction, how often until the pass ends (0 for never), priority, first with this guard, and 1 for one that resets, 2 for one "
    "that does not, but is a step of the mesh all the same",
)
GUARD_VALUES = matrix(STORE, "(8, e)", "guards at places of a step, see loops/guards.py")
EVENT_WORK = matrix(STORE, "(4, n)", "a state between, what a reset writes, a slope, and the state for callbacks to see")
MIDDLE_T = vector(STORE, "(1,)", "the time in the middle of a step, as guards are given it")
WHICH = vector(STORE, "(1,)", "the event whose reset is called")
JUMP_T = vector(STORE, "(k,)", "when the state has jumped")
JUMP_U = matrix(STORE, "(2 k, n)", "before and behind that")
JUMP_WHAT = integers(OPTIONAL, "(3 k,) or (0,)", "what it was, EVENT, NESTED or DOSE; which one; and the first jump at that time")
EVENT, NESTED, DOSE = range(3)
JUMP_INFLOW = vector(STORE, "(k,)", "the inflow that has changed, as it was before; of an event, see SPEED in loops/guards.py")

# --- steppers: implicit methods ---------------------------------------------------------------------------------------------------

Z = matrix(SIZED, "(s or 1, n)", "Newton: increments of the stages")
W = matrix(SIZED, "(s or 1, n)", "the same, transformed; the adjoint: cotangents of the slopes")
RIGHT = matrix(SIZED, "(s or 1, n)", "right-hand sides")
PAIR = vector(SIZED, "(2 n,) or (0,)", "complex right-hand side")
PREVIOUS = matrix(SIZED, "(degree, n)", "dense output of the step before")
KRYLOV = cube(SIZED, "(most + 3, stages, n)", "GMRES: basis, the right-hand side, and the sum of restarts")
SOLVE_WEIGHTS = vector(SIZED, "(n,)", "GMRES: weights of the entries of a cotangent in a norm")
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

from adjode.compile.slots_of_adjoints import *  # noqa: E402, F403  # in their place: the order of slots is that of declaration

# --- losses -----------------------------------------------------------------------------------------------------------------------

ROWS = integers(STORE, "(k,)", "row of OBSERVED for each datum")
DATA = matrix(STORE, "(k, c)", "the data")
DATA_WEIGHTS = matrix(STORE, "(k, c)", "1/sigma")
COMPONENTS = integers(STORE, "(c,)", "which states were observed")
LOGARITHMS = integers(SETTINGS, "(1,)", "whether logarithms are compared")
PROBE = matrix(STORE, "(k, c)", "cotangents of residuals, to be pulled back; zeros where data are missing")
RESIDUALS = vector(STORE, "(N,)", "of the data that are not missing")
RESIDUAL_DOTS = matrix(STORE, "(N, p)", "their tangents")
RESULT = vector(STORE, "(c,)", "what is observed at one time: the results of a function of state and parameters")
RESULT_BAR = vector(STORE, "(c,)", "its cotangent")
RESULTS = matrix(STORE, "(k, c)", "what is observed at all times")
RESULTS_BAR = matrix(STORE, "(k, c)", "its cotangents")
SCALES = matrix(STORE, "(k, c)", "the scales of the densities of the data")
SCALES_BAR = matrix(STORE, "(k, c)", "their cotangents")
DENSITIES = integers(STORE, "(3 c,)", "which they are; the entries of theta that are their scales and shapes, else -1, or -2")
COLUMN_NUMBERS = matrix(STORE, "(2, c)", "factors of these scales, and shapes")
COUNTED_SINCE = integers(STORE, "(k,)", "the datum since which one is counted, or -1")
CONSTANT = vector(STORE, "(1,)", "what is added to the loss")
OF_DATUM = vector(STORE, "(3,)", "what is observed, a density of the user's own there, and its derivative by that")
RESULTS_U = matrix(STORE, "(k c, n)", "its derivatives by the states")
RESULTS_THETA = matrix(STORE, "(k c, m)", "its derivatives by theta")
DIRECT = vector(STORE, "(m,) or (0,)", "derivative of the loss by theta, at these states; empty where it does not see theta")

BESIDE = address("times of events: the compiled loss that is added, 0 for none")
BESIDE_FRAME = address("its frame")

# --- callbacks, by address --------------------------------------------------------------------------------------------------------

F = address("f")
VJP = address("vjp")
VJP_U = address("vjp_u")
JAC = address("jac")
JVP = address("jvp")
F_DT = address("the derivative of f by time")
VJP_DOT = address("vjp_dot")
JVPS = address("jvps, with many directions at once")
SIDES = address("the sides of comparisons with the state that f is on, see derivation/sides.py")
GUARDS = address("the guards of events")
GLANCE = address("what looks at guards along a step, see loops/guards.py")
GUARDS_VJP = address("their derivatives")
GUARDS_DT = address("their derivatives by time")
RESETS = address("resets of events")
RESETS_VJP = address("their derivatives")
RESETS_JVP = address("their products with directions")
RESETS_DT = address("their derivatives by time")
G = address("the running cost")
G_VJP = address("its derivatives")
G_DT = address("its derivative by time")

ALL = arrange(globals())
