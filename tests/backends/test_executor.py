"""Ensembles on the workers of an executor: the bits of one machine, whatever becomes of the workers."""

import concurrent.futures
import functools
import multiprocessing
import os
import pickle
import signal
import sys

import numba
import numpy as np
import pytest

from adjode import Dynamics, SolveError, ensemble_value_and_gradient, solve_ensemble
from adjode.backends.executor import plan_parts
from adjode.losses import FinalState, LeastSquares
from benchmarks.problems import lv_dynamics, lv_f, lv_vjp
from tests.problems.systems import LV_THETA, LV_U0

pytestmark = pytest.mark.jitted
SPAN, N = (0.0, 2.0), 300
RNG = np.random.default_rng(5)
U0 = LV_U0 + RNG.uniform(-0.3, 0.3, (N, 2))
LOSS = LeastSquares([0.0, 1.0, 2.0], RNG.uniform(0.5, 2.0, (N, 3, 2)))


class Here(concurrent.futures.Executor):
    """Runs a task when it is submitted, in this thread; what the first calls raise can be chosen."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def submit(self, function, *arguments):
        self.calls += 1
        future = concurrent.futures.Future()
        error = self.errors.pop(0) if self.errors else None
        if error is None:
            future.set_result(function(*arguments))
        else:
            future.set_exception(error)
        return future


@functools.cache
def here():
    return ensemble_value_and_gradient(lv_dynamics(), LOSS, SPAN)(U0, LV_THETA)


def assert_same(got, expected=None):
    expected = expected or here()
    np.testing.assert_array_equal(got[0], expected[0])
    for name in ("u0", "theta"):
        np.testing.assert_array_equal(getattr(got[1], name), getattr(expected[1], name))
        np.testing.assert_array_equal(got[1].error[name], expected[1].error[name])
    np.testing.assert_array_equal(got[1].stats.n_steps, expected[1].stats.n_steps)


def spread(executor, **options):
    return ensemble_value_and_gradient(lv_dynamics(), LOSS, SPAN, executor=executor, **options)


@pytest.mark.parametrize("chunks", [1, 7, 1000])
def test_the_bits_of_one_machine(chunks):
    executor = Here()
    evaluate = spread(executor, chunks=chunks)
    assert_same(evaluate(U0, LV_THETA))
    assert executor.calls == min(chunks, N)
    assert_same(evaluate(U0, LV_THETA))  # in parts by the steps of the first call


@pytest.mark.parametrize("blocks", [1, 3, 10])
def test_blocks_stay_whole(blocks, monkeypatch):
    """Sums of several trajectories have the same bits too."""
    monkeypatch.setattr("adjode.backends.outcome._MOST_BLOCKS", blocks)
    monkeypatch.setattr("adjode.backends.outcome._LEAST_BLOCKS", blocks)
    expected = ensemble_value_and_gradient(lv_dynamics(), LOSS, SPAN)(U0, LV_THETA)
    executor = Here()
    assert_same(spread(executor, chunks=4)(U0, LV_THETA), expected)
    assert executor.calls == min(4, blocks)


def test_solve_and_pullback():
    spans = np.column_stack([np.zeros(N), np.linspace(1.0, 3.0, N)])
    expected = solve_ensemble(lv_dynamics(), U0, LV_THETA, spans, t_eval=[0.5, 0.1])
    ens = solve_ensemble(lv_dynamics(), U0, LV_THETA, spans, t_eval=[0.5, 0.1], executor=Here(), chunks=5)
    np.testing.assert_array_equal(ens.u_T, expected.u_T)
    np.testing.assert_array_equal(ens.u_eval, expected.u_eval)
    bars = [one.pullback(U0, observations=([0.3], [[1.0, 2.0]])) for one in (ens, expected)]
    np.testing.assert_array_equal(bars[0].theta, bars[1].theta)


def test_a_lost_part_is_tried_again():
    executor = Here(ConnectionError("gone"), None, KeyError("lost"), ConnectionError("gone"))
    assert_same(spread(executor, chunks=3)(U0, LV_THETA))
    assert executor.calls == 6


def test_a_part_that_kills_its_workers_is_given_up():
    with pytest.raises(RuntimeError, match="trajectories 0 to 299 were given up, because their worker died 3 times"):
        spread(Here(*[ConnectionError("gone")] * 3), chunks=1)(U0, LV_THETA)


def test_what_the_problem_raises_is_not_tried_again():
    executor = Here()
    with pytest.raises(ValueError, match="weights must have one entry for each of the 2 states"):
        ensemble_value_and_gradient(lv_dynamics(), FinalState([1.0]), SPAN, executor=executor, chunks=1)(U0, LV_THETA)
    assert executor.calls == 1


def test_an_executor_that_takes_nothing_more():
    class Broken(Here):
        def submit(self, function, *arguments):
            if self.calls == 2:
                raise concurrent.futures.BrokenExecutor("a process died")
            return super().submit(function, *arguments)

    with pytest.warns(RuntimeWarning, match="takes no more work .*a process died.* 3 parts of the ensemble run in this process"):
        got = spread(Broken(), chunks=5)(U0, LV_THETA)
    assert_same(got)


def test_failures_and_progress(capsys):
    u0 = U0.copy()
    u0[123] = np.nan
    with pytest.raises(SolveError, match="1 of 300 trajectories failed; the first is number 123: u0 must be finite"):
        spread(Here(), progress=True)(u0, LV_THETA)
    assert "300/300" in capsys.readouterr().err
    value, bar = spread(Here(), on_failure="drop")(u0, LV_THETA)
    assert np.isnan(value[123]) and np.isfinite(bar.theta).all()


def test_without_cloudpickle(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ImportError, match=r"executor= needs cloudpickle.*pip install 'adjode\[distributed\]'"):
        spread(Here())(U0, LV_THETA)


def test_traffic():
    """What docs/ensembles.md says of the bytes that travel for each trajectory."""

    class Counting(Here):
        def __init__(self):
            super().__init__()
            self.sent, self.returned = 0, 0

        def submit(self, function, *arguments):
            future = super().submit(function, *arguments)
            self.sent += len(pickle.dumps(arguments))
            self.returned += len(pickle.dumps(future.result()))
            return future

    u0, theta = np.resize(U0, (3000, 2)), np.tile(LV_THETA, (3000, 1))
    problem = lv_dynamics(), FinalState([1.0, 0.0]), SPAN
    expected = {"own": (48, 104), "shared": (16, 72)}
    for name, given in (("own", theta), ("shared", LV_THETA)):
        executor = Counting()
        ensemble_value_and_gradient(*problem, executor=executor, chunks=2)(u0, given)
        assert executor.sent / 3000 == pytest.approx(expected[name][0], abs=4)  # beside the callbacks, once for each part
        partial_sums = 1000 * 4 * 8 if name == "shared" else 0
        assert (executor.returned - partial_sums) / 3000 == pytest.approx(expected[name][1], abs=1)


@pytest.mark.parametrize("N", [1, 2, 10, 1000])
@pytest.mark.parametrize("chunks", [1, 3, 64])
@pytest.mark.parametrize("size", [1, 7])
def test_parts(N, chunks, size):
    cost = np.random.default_rng(N).exponential(size=N) ** 2
    parts = plan_parts(N, size, chunks, cost, row_bytes=48)
    assert [first for first, _ in parts] == [0, *(stop for _, stop in parts[:-1])] and parts[-1][1] == N
    assert all(first % size == 0 and first < stop for first, stop in parts) and len(parts) <= min(chunks, -(-N // size))
    costs = [cost[first:stop].sum() for first, stop in parts]
    largest_block = max(cost[k : k + size].sum() for k in range(0, N, size))
    assert max(costs) <= cost.sum() / min(chunks, -(-N // size)) + largest_block * (1 + 1e-12)


def test_large_inputs_make_more_parts():
    assert len(plan_parts(10_000, 10, 4, np.ones(10_000), row_bytes=1 << 20)) >= 150


# --- real workers ------------------------------------------------------------------------------------------------------------


def of_main(factor):
    """Dynamics that no worker can import."""

    def f(t, u, theta, du):
        lv(t, u, theta, du)
        du[0] *= factor

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        lam = np.array([factor * lam[0], lam[1]])
        lv_pull(t, u, theta, lam, u_bar, theta_bar)

    lv, lv_pull = numba.njit(lv_f), numba.njit(lv_vjp)
    return Dynamics(f, vjp)


def slow_problem(rows=4000):
    """Some seconds of work."""
    return np.resize(U0, (rows, 2)), (of_main(1.5), FinalState([1.0, 2.0]), SPAN), {"rtol": 1e-12, "atol": 1e-12}


class Deadly:
    """An executor that kills a process when some tasks are done."""

    def __init__(self, executor, pid, tasks=5):
        self.executor, self.pid, self.left = executor, pid, tasks

    def submit(self, *task):
        future = self.executor.submit(*task)
        future.add_done_callback(self.count)
        return future

    def count(self, future):
        self.left -= 1
        if self.left == 0:
            os.kill(self.pid, signal.SIGKILL)


@pytest.mark.slow
def test_process_pool():
    """Workers that compile for themselves, callbacks that exist here only, and a worker killed in the middle."""
    u0, problem, options = slow_problem()
    expected = ensemble_value_and_gradient(*problem, **options)(u0, LV_THETA)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert_same(ensemble_value_and_gradient(*problem, executor=pool, **options)(u0, LV_THETA), expected)
        deadly = Deadly(pool, next(iter(pool._processes)))
        with pytest.warns(RuntimeWarning, match="the executor takes no more work"):
            got = ensemble_value_and_gradient(*problem, executor=deadly, **options)(u0, LV_THETA)
    assert_same(got, expected)


@pytest.mark.slow
def test_dask():
    """A cluster of processes, one of which is killed in the middle: the others, and the one that takes its place, do the rest."""
    distributed = pytest.importorskip("distributed")
    u0, problem, options = slow_problem()
    expected = ensemble_value_and_gradient(*problem, **options)(u0, LV_THETA)
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster) as client:
        executor = client.get_executor()
        assert_same(ensemble_value_and_gradient(*problem, executor=executor, **options)(u0, LV_THETA), expected)
        pids = set(client.run(os.getpid).values())
        deadly = Deadly(executor, min(pids))
        assert_same(ensemble_value_and_gradient(*problem, executor=deadly, **options)(u0, LV_THETA), expected)
        assert deadly.left < 0 and min(pids) not in client.run(os.getpid).values()
