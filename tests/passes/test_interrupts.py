"""Calls that are interrupted, that memory or time is too short for, and what the same objects compute afterwards."""

import functools
import pickle
import signal
import threading
import time

import numba
import numpy as np
import pytest
import scipy.optimize  # noqa: F401  which an alarm must not interrupt
from scipy import sparse

import adjode
from adjode import SolveError, Status
from adjode.compile import slots
from adjode.compile.entries import code_address
from adjode.compile.views import call_code
from adjode.compile.watch import CANCELLED, c_callback, keep_raised, new_watch, raise_kept, raise_pending
from adjode.frontends.experiments import Bound
from adjode.linalg.superlu import DONE, FACTOR, FAILED, SuperLU, call_solver
from adjode.losses import FinalState, LeastSquares, Series
from adjode.passes.trajectory import Trajectory
from adjode.status import INTERRUPTED

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")

SLOW, FAST = np.array([1.0, 1e5]), np.array([0.7, 1.0])  # the second entry is how long one evaluation takes
SPAN = (0.0, 300.0)


def f(t, u, theta, du):
    wasted = 0.0
    for i in range(int(theta[1])):
        wasted += np.sin(u[0] + i)
    du[0] = -theta[0] * u[0] + np.cos(3.0 * t) + 1e-300 * wasted


def vjp(t, u, theta, lam, u_bar, theta_bar):
    wasted = 0.0
    for i in range(int(theta[1])):
        wasted += np.cos(u[0] + i)
    u_bar[0] = -theta[0] * lam[0] + 1e-300 * wasted
    theta_bar[0] = -u[0] * lam[0]
    theta_bar[1] = 0.0


DYNAMICS = adjode.Dynamics(f, vjp)
U0 = np.array([1.0])


class Alarm(Exception):
    pass


@pytest.fixture
def alarm():
    """A signal that raises after 0.3 seconds, in a handler that the interpreter has to run."""

    def ring(number, frame):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.3)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


def same_gradient(one, other):
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1].u0, other[1].u0)
    np.testing.assert_array_equal(one[1].theta, other[1].theta)


OPTIONS = {
    "discrete": {},
    "interpolating": {"adjoint": "interpolating"},
    "Radau": {"method": "Radau"},
    "long way": {"adjoint": "backsolve", "on_drift": "warn"},
}


@pytest.mark.filterwarnings("ignore:the adjoint solve")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_same_object_goes_on_as_a_fresh_one(alarm, options):
    def make():
        return adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, **options)

    evaluate = make()
    evaluate(U0, FAST)  # compiled
    alarm()
    start = time.monotonic()
    with pytest.raises(Alarm):
        evaluate(U0, SLOW)
    assert time.monotonic() - start < 10.0  # it would take minutes
    same_gradient(evaluate(3.0 * U0, FAST), make()(3.0 * U0, FAST))


def quick_f(t, u, theta, du):
    du[0] = -theta[0] * u[0] + np.cos(3.0 * t)


SLOW_BEHIND = adjode.Dynamics(quick_f, vjp)  # what is slow is the judgement of the steps alone
DATA = LeastSquares(np.linspace(1.0, SPAN[1], 5), np.ones(5), sigma=0.5)


def hessian_product(dynamics, **options):
    evaluate = adjode.hessian_vector_product(dynamics, DATA, SPAN, **options)

    def parts(theta):
        found = evaluate(U0, theta, np.ones(1), np.array([1.0, 0.0]))
        return found.value, found.u0, found.theta, found.u0_dot, found.theta_dot

    return parts


def residuals(dynamics, **options):
    evaluate = adjode.residuals_and_jacobian(dynamics, DATA, SPAN, wrt={"theta": [0]}, **options)
    return lambda theta: evaluate(U0, theta)


FURTHER = {
    "Hessian": hessian_product,
    "tangents": functools.partial(residuals, jacobian="tangents"),
    "adjoints": functools.partial(residuals, jacobian="adjoints"),
}


@pytest.mark.parametrize(
    "make", [pytest.param(make, marks=[pytest.mark.slow] * (name == "Hessian"), id=name) for name, make in FURTHER.items()]
)
def test_other_derivatives_go_on_as_fresh_ones(alarm, make):
    """Interrupted, or out of time, in the solve or in the pass that judges its steps."""
    for dynamics, phase in ((DYNAMICS, "forward"), (SLOW_BEHIND, "adjoint")):
        evaluate, limited = make(dynamics), make(dynamics, max_seconds=0.3)
        right = [part.tobytes() for part in map(np.asarray, evaluate(FAST))]
        alarm()
        with pytest.raises(Alarm):
            evaluate(SLOW)
        with pytest.raises(SolveError, match=f"{phase} solve stopped .* max_seconds = 0.3"):
            limited(SLOW)
        for one in (evaluate, limited):
            assert [part.tobytes() for part in map(np.asarray, one(FAST))] == right


def test_solve_and_each_pullback(alarm):
    solution = adjode.solve(DYNAMICS, U0, FAST, SPAN)
    for adjoint in ("discrete", "interpolating"):
        solution.pullback([1.0], adjoint=adjoint)
    alarm()
    with pytest.raises(Alarm):
        adjode.solve(DYNAMICS, U0, SLOW, SPAN)
    slow = adjode.solve(DYNAMICS, U0, FAST, SPAN)
    slow.theta[1] = SLOW[1]
    for adjoint in ("discrete", "interpolating"):
        alarm()
        with pytest.raises(Alarm):
            slow.pullback([1.0], adjoint=adjoint)


def test_fit(alarm):
    times = np.linspace(1.0, SPAN[1], 5)
    fit = adjode.Fit(DYNAMICS, LeastSquares(times, np.ones(5)), SPAN, u0=U0, theta=SLOW, free={"theta": [0]})
    alarm()
    with pytest.raises(Alarm):
        fit.minimize()


def test_experiments_in_threads(alarm, monkeypatch):
    """The next call does not wait for what an interruption has left running."""
    plain, go_on, late = Bound.value_and_gradient, threading.Event(), []

    def waits(bound, p):
        if p[0] > 1.0:
            late.append(not go_on.wait(20.0))
        return plain(bound, p)

    experiments = [adjode.Experiment(DYNAMICS, FinalState([1.0]), SPAN, u0=[u], theta=["rate", "cost"]) for u in (1.0, 2.0)]
    fit = adjode.Fit(experiments, parameters={"rate": adjode.Parameter(0.7), "cost": 1.0}, workers=2)
    value, gradient = fit.value_and_gradient(fit.x0)
    monkeypatch.setattr(Bound, "value_and_gradient", waits)
    alarm()
    with pytest.raises(Alarm):
        fit.value_and_gradient(fit.x0 + 1.0)
    again = fit.value_and_gradient(fit.x0)
    go_on.set()
    assert again[0] == value and again[1].tobytes() == gradient.tobytes() and not any(late)


def test_solves_of_experiments_in_threads_stop(alarm, monkeypatch):
    plain, ended = Bound.value_and_gradient, []

    def ends(bound, p):
        try:
            return plain(bound, p)
        finally:
            ended.append(bound)

    experiments = [adjode.Experiment(DYNAMICS, FinalState([1.0]), SPAN, u0=[u], theta=["rate", "cost"]) for u in (1.0, 2.0)]
    fit = adjode.Fit(experiments, parameters={"rate": adjode.Parameter(0.7), "cost": adjode.Parameter(1.0)}, workers=2)
    right = fit.value_and_gradient(fit.x0)
    monkeypatch.setattr(Bound, "value_and_gradient", ends)
    alarm()
    with pytest.raises(Alarm):
        fit.value_and_gradient(SLOW)
    patience = time.monotonic() + 10.0
    while len(ended) < 2 and time.monotonic() < patience:
        time.sleep(0.01)
    assert len(ended) == 2
    again = fit.value_and_gradient(fit.x0)
    assert again[0] == right[0] and again[1].tobytes() == right[1].tobytes()


def slow_beyond(t, u, theta, du):
    wasted = 0.0
    for i in range(10_000_000 if theta[0] > 1.05 else 1):
        wasted += np.sin(u[0] + i)
    du[0] = -theta[0] * u[0] + np.cos(3.0 * t) + 1e-300 * wasted


def vjp_of_slow(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -u[0] * lam[0]


@pytest.mark.parametrize("what", ["starts", "profile"])
def test_what_runs_in_threads_stops(alarm, what):
    """Solves that would take minutes, from starts, and along a profile, beyond a value."""
    times = np.linspace(0.5, 3.0, 6)
    data = np.exp(-times) + 0.3 * (-1.0) ** np.arange(6)
    fit = adjode.Fit(
        adjode.Dynamics(slow_beyond, vjp_of_slow),
        LeastSquares(times, data),
        (0.0, 3.0),
        u0=[1.0],
        theta={"rate": 0.9},
        bounds={"theta": (0.1, 20.0)},
    )
    found = fit.least_squares()
    fit.x0, before = found.x, threading.active_count()
    alarm()
    start = time.monotonic()
    with pytest.raises(Alarm):
        fit.least_squares(starts=3, seed=1, workers=2) if what == "starts" else fit.profile(workers=2)
    assert time.monotonic() - start < 10.0 and threading.active_count() == before
    assert fit.least_squares().cost <= found.cost


@pytest.mark.parametrize("workers", [1, 2])
def test_ensembles(alarm, workers):
    u0 = np.linspace(1.0, 2.0, 40)[:, None]
    make = lambda: adjode.ensemble_value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, workers=workers)  # noqa: E731
    evaluate = make()
    evaluate(u0, FAST)
    others = threading.active_count()
    alarm()
    with pytest.raises(Alarm):
        evaluate(u0, SLOW)
    assert threading.active_count() <= others
    same_gradient_of_all(evaluate(u0, FAST), make()(u0, FAST))
    alarm()
    with pytest.raises(Alarm):
        adjode.solve_ensemble(DYNAMICS, u0, SLOW, SPAN, workers=workers)


def same_gradient_of_all(one, other):
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1].u0, other[1].u0)
    np.testing.assert_array_equal(one[1].theta, other[1].theta)


def test_many_short_trajectories(alarm):
    """None of which is long enough to look up by itself."""
    u0 = np.linspace(1.0, 2.0, 1_000_000)[:, None]
    evaluate = adjode.ensemble_value_and_gradient(DYNAMICS, FinalState([1.0]), (0.0, 1.0), workers=2)
    evaluate(u0[:4], FAST)
    alarm()
    with pytest.raises(Alarm):
        evaluate(u0, np.array([1.0, 50.0]))


def test_users_own_compiled_code(alarm):
    inner = adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN).jitted(1, 2)

    @numba.njit
    def repeat(u0, theta, u0_bar, theta_bar, times):
        total = 0.0
        for _ in range(times):
            status, value = inner(u0, theta, u0_bar, theta_bar)
            total += value
        return total

    bars = np.zeros(1), np.zeros(2)
    right = repeat(U0, FAST, *bars, 1)
    alarm()
    with pytest.raises(Alarm):
        repeat(U0, SLOW, *bars, 10)
    assert repeat(U0, FAST, *bars, 1) == right


def grows(t, u, theta, du):
    for i in range(u.size):
        du[i] = theta.sum() * u[i]


def pulls(t, u, theta, lam, u_bar, theta_bar):
    u_bar[:] = theta.sum() * lam
    theta_bar[:] = (u * lam).sum()


GROWTH, FIRST = adjode.Dynamics(grows, pulls), LeastSquares([1.0], [0.5], components=[0])


def products_of_growth():
    evaluate = adjode.hessian_vector_product(GROWTH, FIRST, (0.0, 1.0))

    def parts(u0, theta):
        found = evaluate(u0, theta, u0, theta)
        return found.value, found.u0, found.theta, found.u0_dot, found.theta_dot

    return parts


@pytest.mark.parametrize(
    "make",
    [
        lambda: adjode.value_and_gradient(GROWTH, Series([1.0], ones), (0.0, 1.0)),
        lambda: adjode.residuals_and_jacobian(GROWTH, FIRST, (0.0, 1.0)),
        products_of_growth,
    ],
    ids=["gradient", "Jacobian", "Hessian"],
)
def test_sizes_and_forms_from_several_threads(make):
    shared = make()
    inputs = [([1.0], [0.5]), ([1.0, 2.0], [0.1, 0.2]), ([2.0], {"a": 0.3, "b": 0.1}), ({"x": 3.0}, [0.7])]
    right = [str(make()(*given)) for given in inputs]
    wrong = []

    def call(k):
        wrong.extend(str(got) for _ in range(200) if (got := str(shared(*inputs[k]))) != right[k])

    threads = [threading.Thread(target=call, args=(k % 4,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@numba.njit
def ones(k, t, u, u_bar):
    u_bar[:] = 1.0
    return u.sum()


@pytest.mark.parametrize("ended_by", [MemoryError, KeyboardInterrupt])
def test_a_store_that_could_not_grow(monkeypatch, ended_by):
    """Whatever line of its growing an exception comes from."""
    evaluate = adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, rtol=1e-9)
    plain, compiled, bars = Trajectory.put_recorded, evaluate.jitted(1, 2), (np.zeros(1), np.zeros(2))
    growth = iter([ended_by])

    def put(trajectory, frame):
        frame[slots.MESH_U] = trajectory.u
        if (error := next(growth, None)) is not None:
            raise error
        plain(trajectory, frame)

    right = adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, rtol=1e-9)(U0, FAST)
    workspace = compiled.workspace
    monkeypatch.setattr(Trajectory, "put_recorded", put)
    if ended_by is MemoryError:
        status, value = compiled(U0, FAST, *bars)
        assert status == Status.STORE_FULL and np.isnan(value) and np.isnan(bars[0]).all()
    else:
        with pytest.raises(KeyboardInterrupt):
            compiled(U0, FAST, *bars)
    assert workspace.forward.frame[slots.MESH_T].size == 1  # no room, until it has grown
    assert compiled(U0, FAST, *bars) == (0, right[0])
    np.testing.assert_array_equal(bars[1], right[1].theta)


def test_python_says_that_there_is_no_room(monkeypatch):
    evaluate = adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, rtol=1e-9)
    right = evaluate(U0, FAST)
    fresh = adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, rtol=1e-9)

    def grow(trajectory):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Trajectory, "grow", grow)
        for call in (lambda: fresh(U0, FAST), lambda: adjode.solve(DYNAMICS, U0, FAST, SPAN, rtol=1e-9)):
            with pytest.raises(MemoryError, match="no room for more steps: give a budget, such as memory="):
                call()
    same_gradient(fresh(U0, FAST), right)


# --- a limit on time ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the adjoint solve")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_max_seconds(options):
    evaluate = adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, max_seconds=0.5, **options)
    adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, **options)(U0, FAST)  # compiled
    right = evaluate(U0, FAST)
    with pytest.raises(SolveError, match=r"forward solve stopped at t = .* longer than max_seconds = 0.5") as raised:
        evaluate(U0, SLOW)
    assert raised.value.status == Status.TIMED_OUT and raised.value.phase == "forward"
    assert pickle.loads(pickle.dumps(raised.value)).status == Status.TIMED_OUT
    same_gradient(evaluate(U0, FAST), right)


def test_max_seconds_of_a_pullback():
    solution = adjode.solve(DYNAMICS, U0, FAST, SPAN)
    solution.theta[1] = SLOW[1]
    for adjoint in ("discrete", "interpolating"):
        with pytest.raises(SolveError, match="adjoint solve stopped .* max_seconds = 0.2"):
            solution.pullback([1.0], adjoint=adjoint, max_seconds=0.2)


def test_max_seconds_in_compiled_code_ensembles_and_fits():
    evaluate = adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, max_seconds=0.3)
    compiled, bars = evaluate.jitted(1, 2), (np.zeros(1), np.zeros(2))
    assert compiled(U0, SLOW, *bars)[0] == Status.TIMED_OUT
    assert compiled(U0, FAST, *bars)[0] == 0
    u0 = np.array([[1.0], [2.0], [3.0]])
    many = adjode.ensemble_value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN, max_seconds=0.3, on_failure="nan", workers=1)
    assert (many(u0, SLOW)[1].stats.status == Status.TIMED_OUT).all()
    assert (many(u0, FAST)[1].stats.status == 0).all()
    loss = LeastSquares([SPAN[1]], [1.0])
    fit = adjode.Fit(DYNAMICS, loss, SPAN, u0=U0, theta=FAST, free={"theta": [1]}, max_seconds=0.3)
    with pytest.warns(RuntimeWarning, match="max_seconds"):
        assert np.isinf(fit.value_and_gradient([SLOW[1]])[0])
    assert np.isfinite(fit.value_and_gradient([1.0])[0]) and fit.n_failed == 1


def test_bad_limits():
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="max_seconds must be positive"):
            adjode.solve(DYNAMICS, U0, FAST, SPAN, max_seconds=bad)


def test_a_cancelled_pass_stops():
    from adjode.backends.driver import Seat

    evaluate = adjode.value_and_gradient(DYNAMICS, FinalState([1.0]), SPAN)
    seat = Seat.of_gradient(evaluate.workspace(U0, FAST), frozenset())
    seat.cancel()
    assert seat._program.watch[CANCELLED] == 1
    outputs = np.full(1, np.nan), np.zeros(1, dtype=np.int64), np.zeros((1, 3), dtype=np.int64), (np.zeros((1, 1)),) * 4
    given = U0[None], FAST[None], *seat.data_of(FinalState([1.0])), np.zeros((1, 1)), np.array([SPAN])
    with pytest.raises(KeyboardInterrupt):
        seat.run(0, 1, 1, given, outputs)


@pytest.mark.slow
def test_numba_does_not_cache_what_holds_addresses(tmp_path, monkeypatch):
    """A file of a user's with cache=True around `jitted`: the second process must not load the first one's addresses."""
    import subprocess
    import sys

    script = tmp_path / "user.py"
    script.write_text(
        "import numba, numpy as np, adjode\n"
        "def f(t, u, theta, du): du[0] = -theta[0] * u[0]\n"
        "def vjp(t, u, theta, lam, u_bar, theta_bar): u_bar[0] = -theta[0] * lam[0]; theta_bar[0] = -u[0] * lam[0]\n"
        "inner = adjode.value_and_gradient(adjode.Dynamics(f, vjp), adjode.losses.FinalState([1.0]), (0.0, 1.0)).jitted(1, 1)\n"
        "@numba.njit(cache=True)\n"
        "def outer(u0, theta, u0_bar, theta_bar): return inner(u0, theta, u0_bar, theta_bar)\n"
        "print(outer(np.ones(1), np.ones(1), np.ones(1), np.ones(1))[1])\n"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert abs(float(done.stdout) - np.exp(-1.0)) < 1e-5
        assert "annot cache compiled function" in done.stderr
    assert not list(tmp_path.glob("__pycache__/*outer*.nbc"))


@pytest.mark.jitted
def test_a_signal_that_arrives_as_compiled_code_calls_for_help(alarm, capfd):
    """Python handles it when it enters what is called: it is neither lost nor taken for success."""
    raise_signal = numba.types.ExternalFunction("raise", numba.int32(numba.int32))
    asked = []
    help_at = c_callback(lambda number: asked.append(number) or number + 1, lambda error: keep_raised(error) or INTERRUPTED)

    @numba.njit
    def ask(address, number, ringing):
        if ringing:
            raise_signal(number)
        return call_code(address, number)

    for _ in range(2):
        assert ask(code_address(help_at), 5, False) == 6
        assert ask(code_address(help_at), int(signal.SIGALRM), True) == INTERRUPTED
        with pytest.raises(Alarm):
            raise_pending(new_watch())
    assert asked == [5, 5] and not capfd.readouterr().err


@pytest.mark.jitted
def test_a_signal_that_arrives_as_compiled_code_calls_superlu(alarm, capfd):
    raise_signal = numba.types.ExternalFunction("raise", numba.int32(numba.int32))
    matrix = sparse.csc_array(np.array([[1.0, 2.0], [3.0, 4.0]]))
    solver = SuperLU(matrix)

    @numba.njit
    def factor(address, values, ringing):
        if ringing:
            raise_signal(ringing)
        return call_solver(address, FACTOR, 0, values, values)

    for _ in range(2):
        assert factor(solver.routines[0], matrix.data, 0) == DONE
        assert factor(solver.routines[0], matrix.data, int(signal.SIGALRM)) == FAILED
        with pytest.raises(Alarm):
            raise_kept()
    assert not capfd.readouterr().err
