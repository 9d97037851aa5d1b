"""The backend of a GPU in numba-cuda's simulator, where kernels are plain Python: the bits of the CPU's passes, run likewise.

Needs NUMBA_ENABLE_CUDASIM=1 and NUMBA_DISABLE_JIT=1, and so a process of its own: `make test-cuda`.
"""

import os
import warnings
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from adjode import Dynamics, SolveError, Status, ensemble_value_and_gradient, solve_ensemble, value_and_gradient
from adjode.losses import FinalState, LeastSquares, Series
from benchmarks.problems import lv_f, lv_vjp
from tests.problems.systems import DECAY, LV_THETA, LV_U0, lv_vjp_u

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1" or os.environ.get("NUMBA_DISABLE_JIT") != "1":
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1 and NUMBA_DISABLE_JIT=1", allow_module_level=True)
pytest.importorskip("numba_cuda")

from numba import cuda

from adjode.backends.cuda import chunks, device
from adjode.backends.cuda.ensemble import CudaEnsemble
from benchmarks import cuda_ensemble

SPAN, N = (0.0, 1.5), 5
lotka_volterra = Dynamics(lv_f, lv_vjp)
T_OBS = [0.0, 0.3, 0.31, 1.2, 1.5, 0.3]  # in no order, one twice, both ends


def squares(k, t, u, u_bar):
    u_bar[0] = 2.0 * u[0] * (k + 1.0)
    u_bar[1] = t
    return u[0] ** 2 * (k + 1.0) + t * u[1]


def least_squares(*members, times=T_OBS, log=False):
    y = np.random.default_rng(2).uniform(0.5, 3.0, (*members, len(times), 2))
    y[..., 2, 1] = np.nan
    return LeastSquares(times, y, sigma=0.3, log=log)


LOSSES = {
    "final": FinalState([1.0, -2.0]),
    "least squares": least_squares(),
    "logarithms": least_squares(log=True),
    "many observations": least_squares(times=np.linspace(0.0, 1.5, 40)),  # more than lie in a thread's own memory
    "series": Series(T_OBS, squares),
    "at the start": Series([0.0], squares),
    "nothing observed": Series([], squares),
}


def inputs(shared=False, seed=0):
    rng = np.random.default_rng(seed)
    theta = LV_THETA * rng.uniform(0.8, 1.2, (N, 4))
    return LV_U0 + rng.uniform(-0.3, 0.3, (N, 2)), theta[0] if shared else theta


def on_device(u0, theta, loss="final", span=SPAN, dynamics=lotka_volterra, **options):
    loss = LOSSES[loss] if isinstance(loss, str) else loss
    value, bar = ensemble_value_and_gradient(dynamics, loss, span, backend="cuda", **options)(u0, theta)
    return SimpleNamespace(value=value, u0=bar.u0, theta=bar.theta, stats=bar.stats)


def one_by_one(u0, theta, loss="final", span=SPAN, dynamics=lotka_volterra, **options):
    """Single calls on the CPU, and for what is shared the sum."""
    loss = LOSSES[loss] if isinstance(loss, str) else loss
    spans = np.broadcast_to(span, (N, 2))
    rows = (np.broadcast_to(block, (N, np.shape(block)[-1])) for block in (u0, theta))
    results, judged = [], {} if options.get("adjoint") == "interpolating" else {"on_inaccurate": "warn"}
    for i, (u, p) in enumerate(zip(*rows, strict=True)):
        member = loss.member(i) if hasattr(loss, "member") else loss
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # on a GPU gradients are those of the steps that were taken
            results.append(value_and_gradient(dynamics, member, tuple(spans[i]), **judged, **options)(u, p))
    bars = [np.array([getattr(bar, name) for _, bar in results]) for name in ("u0", "theta")]
    return SimpleNamespace(value=np.array([value for value, _ in results]), u0=bars[0], theta=bars[1])


def assert_same_bits(one, other, shared=()):
    np.testing.assert_array_equal(one.value, other.value)
    for name in ("u0", "theta"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if name in shared:
            np.testing.assert_allclose(mine, theirs.sum(axis=0), rtol=1e-14, atol=1e-14 * abs(theirs).sum(axis=0).max())
        else:
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_bits_of_single_calls(loss, adjoint):
    u0, theta = inputs()
    assert_same_bits(on_device(u0, theta, loss, adjoint=adjoint), one_by_one(u0, theta, loss, adjoint=adjoint))


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("method", ["DOP853", "Vern9", "BS3", "RK4"])
def test_other_methods(method, adjoint):
    options = {"method": method, "adjoint": adjoint, **({"step": 0.05} if method == "RK4" else {})}
    u0, theta = inputs()
    assert_same_bits(on_device(u0, theta, "series", **options), one_by_one(u0, theta, "series", **options))


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("wrt", ["u0", "theta"])
def test_one_block_alone_with_vjp_u(wrt, adjoint):
    dynamics, (u0, theta) = Dynamics(lv_f, lv_vjp, vjp_u=lv_vjp_u), inputs()
    one, other = (run(u0, theta, dynamics=dynamics, wrt=wrt, adjoint=adjoint) for run in (on_device, one_by_one))
    np.testing.assert_array_equal(getattr(one, wrt), getattr(other, wrt))
    assert getattr(one, "theta" if wrt == "u0" else "u0") is None


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_time_that_runs_backwards_and_spans_of_their_own(adjoint):
    u0, theta = inputs()
    for loss in ("final", "series"):
        assert_same_bits(*(run(u0, theta, loss, SPAN[::-1], adjoint=adjoint) for run in (on_device, one_by_one)))
    spans = np.linspace([-0.4, 1.5], [0.0, 2.5], N)
    for loss in ("final", "series"):
        assert_same_bits(*(run(u0, theta, loss, spans, adjoint=adjoint) for run in (on_device, one_by_one)))


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_small_states(adjoint):
    """By default absolute tolerances follow the state at the start and the data, of each trajectory its own."""
    scale = np.array([1.0, 1e-8, 1e-8, 1e-5, 1.0])[:, None]
    (u0, theta), y = inputs(), np.random.default_rng(3).uniform(0.5, 3.0, (N, len(T_OBS), 2))
    u0[2:4, 1] = 0.0
    loss = LeastSquares(T_OBS, scale[:, None] * y, sigma=np.broadcast_to(0.3 * scale[:, None], y.shape))
    one, other = (run(scale * u0, theta, loss, adjoint=adjoint) for run in (on_device, one_by_one))
    assert_same_bits(one, other)
    backends = ("threads", "cuda")
    here, there = (solve_ensemble(lotka_volterra, scale * u0, theta, SPAN, t_eval=[0.3, 1.5], backend=one) for one in backends)
    np.testing.assert_array_equal(there.u_eval, here.u_eval)


def test_data_of_their_own():
    u0, theta = inputs()
    for loss in (least_squares(N), FinalState(np.random.default_rng(3).normal(size=(N, 2)))):
        assert_same_bits(on_device(u0, theta, loss), one_by_one(u0, theta, loss))


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_large_systems_and_many_parameters(adjoint):
    """Above 8 states the stages are loops, above 32 parameters these stay in device memory."""
    n = 40
    decay = Dynamics(DECAY.dynamics.f.given, DECAY.dynamics.vjp.given)
    u0, theta = np.random.default_rng(1).uniform(0.5, 2.0, (2, N, n))
    loss = FinalState(np.linspace(-1.0, 1.0, n))
    one, other = (run(u0, theta, loss, (0.0, 0.5), decay, adjoint=adjoint) for run in (on_device, one_by_one))
    assert_same_bits(one, other)


@pytest.mark.parametrize("shared", ["u0", "theta"])
def test_sums_over_what_is_shared(shared):
    """The order of the sum is that of threads, and does not depend on the chunks."""
    u0, theta = inputs()
    given = (u0[0], theta) if shared == "u0" else (u0, theta[0])
    one = on_device(*given)
    assert_same_bits(one, one_by_one(*given), {shared})
    threads, bar = ensemble_value_and_gradient(lotka_volterra, LOSSES["final"], SPAN)(*given)
    np.testing.assert_array_equal(getattr(one, shared), getattr(bar, shared))
    in_chunks = on_device(*given, memory="9kB")
    np.testing.assert_array_equal(getattr(one, shared), getattr(in_chunks, shared))


# --- memory ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def launches(monkeypatch):
    """The numbers of threads and of entries of each lane in the launches."""
    seen = []

    def launch(kernel, threads, *arguments):
        if isinstance(arguments[3], tuple):
            seen.append((threads, arguments[3][-1].shape[0]))
        return plain(kernel, threads, *arguments)

    plain = device.launch
    monkeypatch.setattr(device, "launch", launch)
    return seen


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_chunks_under_a_budget(launches, adjoint):
    u0, theta = inputs()
    whole = on_device(u0, theta, "many observations", adjoint=adjoint)
    assert [threads for threads, _ in launches] == [N]
    lane = launches[0][1]
    launches.clear()
    parts = on_device(u0, theta, "many observations", adjoint=adjoint, memory=2.5 * 8 * lane)
    assert [threads for threads, _ in launches] == [2, 2, 1]
    assert_same_bits(whole, parts)


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_trajectories_with_more_steps_run_again(launches, monkeypatch, adjoint):
    """Alone, and with as much room as they need."""
    monkeypatch.setattr(chunks, "_FIRST_CAPACITY", 8)
    u0, theta = inputs()
    theta[[1, 3]] *= [[6.0], [14.0]]  # so that they take several times as many steps
    result = on_device(u0, theta, "final", adjoint=adjoint)
    steps = result.stats.n_steps
    assert (steps[[0, 2, 4]] <= 16).all() and (steps[[1, 3]] > 16).all()
    counts = [threads for threads, _ in launches]
    assert counts[0] == N and counts[2] == 2 and counts == sorted(counts, reverse=True)
    assert_same_bits(result, one_by_one(u0, theta, "final", adjoint=adjoint))


def test_a_step_cap_is_no_lack_of_room(launches):
    u0, theta = inputs()
    theta[2] *= 20.0
    result = on_device(u0, theta, max_steps=40, on_failure="nan")
    assert [threads for threads, _ in launches] == [N]
    assert result.stats.status.tolist() == [0, 0, Status.MAX_STEPS, 0, 0]


@pytest.mark.parametrize("max_steps", [8, 15, 16])
def test_the_cap_is_met_where_no_step_is_rejected(monkeypatch, max_steps):
    monkeypatch.setattr(chunks, "_FIRST_CAPACITY", 8)
    result = on_device(*inputs(), method="RK4", step=0.1, max_steps=max_steps, on_failure="nan")  # 15 steps
    assert (result.stats.status == (Status.MAX_STEPS if max_steps < 15 else 0)).all()
    assert (result.stats.n_steps == min(max_steps, 15)).all()


def test_too_little_memory_is_an_error():
    with pytest.raises(
        ValueError, match=r"memory=500 bytes cannot hold a trajectory of 128 steps with 3 numbers each: raise memory"
    ):
        on_device(*inputs(), memory=500)


# --- single precision -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("loss", ["final", "many observations", "series"])
def test_single_precision(loss, adjoint):
    """To the tolerance, of the spacing of single precision; everything that comes out is float32."""
    u0, theta = inputs()
    result = on_device(u0, theta, loss, adjoint=adjoint, dtype=np.float32, rtol=1e-4, atol=1e-4)
    exact = one_by_one(u0, theta, loss, rtol=1e-9, atol=1e-9)
    for name in ("value", "u0", "theta"):
        mine, theirs = getattr(result, name), getattr(exact, name)
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, theirs, atol=3e-3 * abs(theirs).max())


def test_tolerances_that_single_precision_cannot_meet():
    with pytest.raises(ValueError, match=r"rtol must be at least 4\.8e-07 with dtype=float32, but 1e-09 was given"):
        on_device(*inputs(), dtype="float32", rtol=1e-9)


def explodes(t, u, theta, du):
    du[0] = u[0] * u[0]


def explodes_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = 2.0 * u[0] * lam[0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_singularity(dtype):
    """u = 1 / (1 - t) ends where steps fall below the spacing of numbers, of either precision, and at no cap on steps."""
    evaluate = ensemble_value_and_gradient(
        Dynamics(explodes, explodes_vjp), FinalState([1.0]), (0.0, 2.0), backend="cuda", dtype=dtype, on_failure="nan", rtol=1e-5
    )
    value, bar = evaluate(np.array([[1.0], [0.1]]), np.zeros(0))
    assert bar.stats.status.tolist() == [Status.STEP_TOO_SMALL, 0]
    assert np.isnan(value[0]) and value[1] == pytest.approx(0.125, rel=1e-4)
    assert bar.stats.n_steps[0] < 1000


# --- failures ---------------------------------------------------------------------------------------------------------------------


def raises(t, u, theta, du):
    if u[0] > 2.0:
        raise ValueError("too large")
    du[0] = theta[0] * u[0]


def raises_vjp(t, u, theta, lam, u_bar, theta_bar):
    if theta[0] == 0.25:
        lam[5] = 0.0
    u_bar[0] = theta[0] * lam[0]
    theta_bar[0] = lam[0] * u[0] if theta[0] != 0.5 else np.nan


@pytest.mark.parametrize("shared", [False, True])
def test_members_that_fail(shared):
    """In every pass, and without a partial gradient; sums leave them out or are NaN."""
    dynamics = Dynamics(raises, raises_vjp)
    u0 = np.array([[1.0], [1.8], [np.nan], [1.0], [1.0], [1.0]])
    theta = np.full((6, 1), 0.1)
    theta[[1, 3, 4], 0] = 1.0, 0.5, 0.25
    expected = [0, Status.CALLBACK_RAISED, Status.NON_FINITE, Status.NON_FINITE, Status.CALLBACK_RAISED, 0]
    options = {"backend": "cuda", "on_failure": "drop"}
    value, bar = ensemble_value_and_gradient(dynamics, FinalState([1.0]), (0.0, 1.0), **options)(u0, theta)
    assert bar.stats.status.tolist() == expected
    failed = np.array(expected) != 0
    for block in (value, bar.u0[:, 0], bar.theta[:, 0]):
        assert np.isnan(block[failed]).all() and np.isfinite(block[~failed]).all()
    evaluate = ensemble_value_and_gradient(dynamics, FinalState([1.0]), (0.0, 1.0), backend="cuda")
    with pytest.raises(SolveError, match=r"4 of 6 trajectories failed; the first is number 1: .*ValueError: too large"):
        evaluate(u0, theta)
    if shared:
        value, bar = ensemble_value_and_gradient(dynamics, FinalState([1.0]), (0.0, 1.0), **options)(u0[[0, 2, 5]], theta[0])
        np.testing.assert_allclose(bar.theta, 2.0 * np.exp(0.1), rtol=1e-6)


def test_a_loss_that_is_not_finite():
    u0, theta = inputs()
    u0[1, 0] = -u0[1, 0]
    result = on_device(u0, theta, "logarithms", on_failure="nan")
    assert result.stats.status.tolist() == [0, Status.NON_FINITE, 0, 0, 0] and np.isnan(result.theta[1]).all()


@pytest.mark.parametrize("count", [0, 1])
def test_few_trajectories(count):
    u0, theta = (block[:count] for block in inputs())
    value, bar = ensemble_value_and_gradient(lotka_volterra, LOSSES["final"], SPAN, backend="cuda")(u0, theta)
    assert value.shape == (count,) and bar.u0.shape == (count, 2) and bar.theta.shape == (count, 4)


def test_options_are_checked():
    with pytest.raises(ValueError, match="dtype must be float64 or float32, but 'int32' was given"):
        on_device(*inputs(), dtype="int32")
    with pytest.raises(ValueError, match="memory must be a number of bytes, or a string such as .*, but 'much' was given"):
        on_device(*inputs(), memory="much")
    with pytest.raises(TypeError, match="device_output: an option of backend='cuda' only"):
        ensemble_value_and_gradient(lotka_volterra, LOSSES["final"], SPAN, device_output=False)


# --- arrays on the device ---------------------------------------------------------------------------------------------------------


def test_device_arrays_in_and_out():
    u0, theta = inputs()
    expected = on_device(u0, theta)
    there = on_device(cuda.to_device(u0), cuda.to_device(theta))
    for name in ("value", "u0", "theta"):
        assert there.__dict__[name].__cuda_ndarray__
        np.testing.assert_array_equal(there.__dict__[name].copy_to_host(), expected.__dict__[name])
    back = on_device(cuda.to_device(u0), theta, device_output=False)
    assert_same_bits(back, expected)
    total = ensemble_value_and_gradient(lotka_volterra, LOSSES["final"], SPAN, backend="cuda", reduce="sum", device_output=True)
    value, bar = total(u0, theta[0])
    assert isinstance(value, float) and bar.u0.__cuda_ndarray__ and isinstance(bar.theta, np.ndarray)


def test_device_arrays_are_taken_as_they_are():
    u0, theta = inputs()
    with pytest.raises(ValueError, match="u0 is a device array, which is used without a copy .* its dtype is float32"):
        on_device(cuda.to_device(u0.astype(np.float32)), theta)
    with pytest.raises(ValueError, match="u0 on a GPU must have the shape"):
        on_device(cuda.to_device(u0[None]), theta)
    with pytest.raises(TypeError, match="u0 lies on a GPU: use backend='cuda'"):
        ensemble_value_and_gradient(lotka_volterra, LOSSES["final"], SPAN)(cuda.to_device(u0), theta)
    u0[2] = np.nan
    with pytest.raises(SolveError, match="1 of 5 trajectories failed; the first is number 2"):
        on_device(cuda.to_device(u0), theta)


# --- solutions --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [SPAN, SPAN[::-1]])
def test_solutions_and_their_pullback(span):
    u0, theta = inputs()
    u0[3, 0] = np.nan
    times, cotangents = [1.2, 0.3], np.random.default_rng(4).normal(size=(N, 2))
    here, there = (solve_ensemble(lotka_volterra, u0, theta, span, t_eval=times, backend=name) for name in ("threads", "cuda"))
    for name in ("u_T", "u_eval", "status"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    np.testing.assert_array_equal(here.stats.n_f, there.stats.n_f)
    seeds = {"observations": (times, np.ones((2, 2))), "on_failure": "nan"}
    bars = [solutions.pullback(cotangents, **seeds) for solutions in (here, there)]
    np.testing.assert_array_equal(bars[0].u0, bars[1].u0)
    np.testing.assert_array_equal(bars[0].theta, bars[1].theta)


def test_solutions_that_stay_on_the_device():
    u0, theta = inputs()
    here = solve_ensemble(lotka_volterra, u0, theta, SPAN, t_eval=[0.3, 1.2])
    there = solve_ensemble(lotka_volterra, cuda.to_device(u0), theta, SPAN, t_eval=[0.3, 1.2], backend="cuda")
    np.testing.assert_array_equal(there.u_T.copy_to_host(), here.u_T)
    np.testing.assert_array_equal(there.u_eval.copy_to_host(), here.u_eval)
    np.testing.assert_array_equal(there.pullback(there.u_T).u0.copy_to_host(), here.pullback(here.u_T).u0)


class AtOnce:
    """An executor that runs what it is given before it returns."""

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.mark.parametrize("shared", [False, True])
def test_parts_of_an_executor(shared):
    given = inputs(shared)
    whole = on_device(*given, "least squares")
    parts = on_device(*given, "least squares", executor=AtOnce(), chunks=3)
    with pytest.raises(ValueError, match="device_output=True and executor= exclude each other"):
        on_device(*given, executor=AtOnce(), device_output=True)
    assert_same_bits(whole, parts)


def test_progress():
    u0, theta = inputs()
    seen = []
    ensemble = CudaEnsemble(lotka_volterra, LOSSES["final"], ("u0",), frozenset(), {"adjoint": "discrete"}, memory=9000)
    ensemble(u0, theta, np.array([SPAN]), done=seen.append)
    assert sum(seen) == N and len(seen) > 1


def test_implicit_methods_are_refused():
    with pytest.raises(ValueError, match=r"method='Radau' is implicit, but backend='cuda' has only explicit methods"):
        on_device(*inputs(), method="Radau")
    with pytest.raises(ValueError, match=r"method='auto' is implicit, but backend='cuda' has only explicit methods"):
        on_device(*inputs(), method="auto")
    with pytest.raises(ValueError, match=r"adjoint_method='Kvaerno5' is implicit"):
        on_device(*inputs(), adjoint="interpolating", adjoint_method="Kvaerno5")
    with pytest.raises(ValueError, match=r"method='Radau' is implicit"):
        solve_ensemble(lotka_volterra, *inputs(), SPAN, backend="cuda", method="Radau")
    massed = Dynamics(lotka_volterra.f.source, lotka_volterra.vjp.source, mass=[1.0, 2.0])
    with pytest.raises(ValueError, match="backend='cuda' has only explicit methods, which take no mass matrix"):
        solve_ensemble(massed, *inputs(), SPAN, backend="cuda")


def test_the_benchmark_measures(monkeypatch):
    """Every part of it that needs a GPU runs, if not at the speed of one."""
    monkeypatch.setattr(cuda_ensemble, "_COUNTED", 3)
    monkeypatch.setattr(cuda_ensemble, "_REPEATS", 1)
    assert cuda_ensemble.why_not() == ""
    assert cuda_ensemble.check_against_cpu("float64") == 0.0 and cuda_ensemble.check_against_cpu("float32") < 1e-3
    rows = [cuda_ensemble.Row(what, dtype, 2, 1.0) for what in ("forward", "gradient") for dtype in ("float64", "float32")]
    cuda_ensemble.measure(rows)
    assert all(row.seconds is not None and row.diffrax is None for row in rows)


def test_losses_of_functions_are_refused():
    def total(u, theta):
        return u[0] + theta[0] * u[1]

    evaluate = ensemble_value_and_gradient(lotka_volterra, FinalState(value=total), SPAN, backend="cuda")
    with pytest.raises(ValueError, match="backend='cuda' does not support losses of a function of the state and theta: use"):
        evaluate(*inputs())
