"""`memory=`: the same numbers at every budget, and what they cost."""

import functools
import gc
import re
import threading
import tracemalloc
import weakref

import numba
import numpy as np
import pytest

from adjode import Fit, SolveError, Status, ensemble_value_and_gradient, solve, solve_ensemble, value_and_gradient
from adjode.checks import memory_size
from adjode.compile import slots
from adjode.compile.watch import DEADLINE
from adjode.losses import FinalState, LeastSquares, Series
from adjode.passes import segments
from adjode.passes.segments import Segments, steps_ahead
from adjode.tableaus import METHODS, tableau
from tests.problems.mass_systems import CUBIC_THETA, CUBIC_U0, cubic
from tests.problems.methods import TRANSPOSED
from tests.problems.stiff_systems import van_der_pol
from tests.problems.systems import LV_THETA, LV_U0, cost_g, cost_g_vjp, lotka_volterra

SPAN = (0.0, 8.0)
TIMES = np.array([0.0, 3.3, 3.3, 4.0, 7.1])
LOSS = LeastSquares(TIMES, np.linspace(0.5, 2.0, 10).reshape(5, 2))
EXPLICIT = [name for name in METHODS if tableau(name).name == name and not tableau(name).implicit]


def steps_of(method):
    if not tableau(method).adaptive:
        return {"method": method, "step": 0.05}
    return {"method": method, "rtol": 1e-3 if tableau(method).order == 2 else 1e-6}


def least_memory(make):
    """The smallest budget, which the refusal of a smaller one names."""
    with pytest.raises(ValueError, match=r"memory must be at least \d+ bytes .* but 1 were given") as caught:
        make(1)
    return int(re.search(r"\d+", str(caught.value))[0])


def budgets(make):
    least = least_memory(make)
    return [least, least + 500, 2 * least, 4 * least, 100 * least]


def same(one, other):
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1].u0, other[1].u0)
    np.testing.assert_array_equal(one[1].theta, other[1].theta)


def segments_of(evaluate, n=2, m=4):
    (workspace,) = evaluate._idle[n, m]
    return workspace.program.segments


def at_every_budget(dynamics, loss, span, u0, theta, **options):
    full = value_and_gradient(dynamics, loss, span, **options)(u0, theta)

    def run(memory):
        evaluate = value_and_gradient(dynamics, loss, span, memory=memory, **options)
        first = evaluate(u0, theta)
        same(evaluate(u0, theta), full)  # the second time, too
        assert segments_of(evaluate, len(u0), len(theta)).nbytes <= memory
        return first

    again = []
    for memory in budgets(run):
        found = run(memory)
        same(found, full)
        assert found[1].stats.n_steps == full[1].stats.n_steps
        again.append(found[1].stats.n_recomputed)
    assert again[0] > again[2] > 0 == again[-1]
    assert full[1].stats.n_recomputed == 0


@pytest.mark.parametrize("method", [*EXPLICIT, *TRANSPOSED])
def test_the_same_bits_at_every_budget(method):
    at_every_budget(lotka_volterra(), LOSS, SPAN, LV_U0, LV_THETA, stops=[2.0, 4.0, 4.0 + 1e-15], **steps_of(method))


def test_back_in_time():
    at_every_budget(lotka_volterra(), LOSS, SPAN[::-1], LV_U0, LV_THETA, stops=[2.0])


def test_switching():
    at_every_budget(van_der_pol(), FinalState([1.0, 2.0]), (0.0, 45.0), np.array([2.0, -0.6]), np.array([50.0]), method="auto")


def test_a_mass_matrix():
    at_every_budget(cubic(), FinalState(np.ones(len(CUBIC_U0))), (0.0, 20.0), CUBIC_U0, CUBIC_THETA, method="Radau", rtol=1e-8)


def test_what_comes_after_the_last_cotangent():
    """Segments that have no part in the gradient."""
    at_every_budget(lotka_volterra(), LeastSquares([0.0, 1.0], np.ones((2, 2))), SPAN, LV_U0, LV_THETA)
    none = value_and_gradient(lotka_volterra(), FinalState([0.0, 0.0]), SPAN, memory=3000)(LV_U0, LV_THETA)[1]
    assert none.stats.n_steps == 0 and not none.u0.any() and not none.theta.any()


SCRATCH = ["ERROR", "Q", "Z", "W", "RIGHT", "PAIR", "MASSED", "PULLED", "PULLED_THETA", "U_BAR", "THETA_BAR", "INCREMENT"]


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "auto", *TRANSPOSED])
def test_a_snapshot_has_all_that_matters(method, monkeypatch):
    """Whatever else a pass writes to does not decide how it goes on."""
    plain = Segments._restore

    def restore(self, at):
        plain(self, at)
        for frame in filter(None, (self.forward.frame, self.forward.frame.partner)):
            for slot in (getattr(slots, name) for name in SCRATCH):
                if frame.has(slot):
                    frame[slot].fill(np.nan)
            frame[slots.K][1:] = np.nan

    full = value_and_gradient(lotka_volterra(), LOSS, SPAN, method=method)(LV_U0, LV_THETA)
    monkeypatch.setattr(Segments, "_restore", restore)
    same(value_and_gradient(lotka_volterra(), LOSS, SPAN, method=method, memory=4000)(LV_U0, LV_THETA), full)


# --- where else the option is taken ----------------------------------------------------------------------------------------------
def python_squares(k, t, u, u_bar):
    u_bar[:] = 2.0 * u
    return float(u @ u)


class OwnLoss:
    def value_and_cotangents(self, solution):
        states = solution([3.3, 1.0])
        return float((states**2).sum()), {"observations": ([3.3, 1.0], 2.0 * states)}


@pytest.mark.parametrize("loss", [Series([1.0, 3.3], python_squares), OwnLoss()], ids=["callback", "own"])
@pytest.mark.filterwarnings("ignore:.*plain Python")
def test_losses_in_plain_python(loss):
    full = value_and_gradient(lotka_volterra(), loss, SPAN)(LV_U0, LV_THETA)
    evaluate = value_and_gradient(lotka_volterra(), loss, SPAN, memory=4000)
    for _ in range(2):
        found = evaluate(LV_U0, LV_THETA)
        same(found, full)
        assert found[1].stats.n_recomputed > 0


@pytest.mark.jitted
def test_users_own_compiled_code():
    full = value_and_gradient(lotka_volterra(), LOSS, SPAN)
    inner = value_and_gradient(lotka_volterra(), LOSS, SPAN, memory="4 kB").jitted(2, 4)

    @numba.njit(nogil=True)
    def repeat(u0, theta, u0_bar, theta_bar):
        for _ in range(3):
            status, value = inner(u0, theta, u0_bar, theta_bar)
        return value

    bars = np.zeros(2), np.zeros(4)
    for scale in (1.0, 1.1):
        value, right = repeat(scale * LV_U0, LV_THETA, *bars), full(scale * LV_U0, LV_THETA)
        assert value == right[0]
        np.testing.assert_array_equal(bars[0], right[1].u0)
        np.testing.assert_array_equal(bars[1], right[1].theta)
    assert inner.workspace.program.segments.n_recomputed > 0


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_ensembles(adjoint):
    u0 = LV_U0 * np.linspace(0.8, 1.2, 7)[:, None]
    spans = np.column_stack([np.zeros(7), np.linspace(4.0, 9.0, 7)])
    loss, options = FinalState([1.0, -2.0]), {"adjoint": adjoint, "workers": 2}
    full = ensemble_value_and_gradient(lotka_volterra(), loss, spans, **options)(u0, LV_THETA)
    found = ensemble_value_and_gradient(lotka_volterra(), loss, spans, memory=4000, **options)(u0, LV_THETA)
    np.testing.assert_array_equal(found[0], full[0])
    np.testing.assert_array_equal(found[1].stats.n_steps, full[1].stats.n_steps)
    if adjoint == "discrete":
        np.testing.assert_array_equal(found[1].u0, full[1].u0)
        np.testing.assert_array_equal(found[1].theta, full[1].theta)
    np.testing.assert_allclose(found[1].u0, full[1].u0, rtol=1e-4)
    np.testing.assert_allclose(found[1].theta, full[1].theta, rtol=1e-4)
    states = solve_ensemble(lotka_volterra(), u0, LV_THETA, SPAN, memory=4000, workers=2)
    np.testing.assert_array_equal(states.u_T, solve_ensemble(lotka_volterra(), u0, LV_THETA, SPAN).u_T)


def test_fit():
    start = {"u0": LV_U0, "theta": LV_THETA}
    values = [
        Fit(lotka_volterra(), LOSS, SPAN, **start, **options).value_and_gradient(LV_THETA) for options in ({}, {"memory": 4000})
    ]
    assert values[0][0] == values[1][0]
    np.testing.assert_array_equal(values[0][1], values[1][1])


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_a_store_is_freed_with_the_prepared_object_that_has_it(adjoint):
    evaluate = value_and_gradient(lotka_volterra(), LOSS, SPAN, memory=100_000, adjoint=adjoint)
    evaluate(LV_U0, LV_THETA)
    store = weakref.ref(segments_of(evaluate))
    gc.disable()
    try:
        del evaluate
        assert store() is None
    finally:
        gc.enable()


# --- solutions -------------------------------------------------------------------------------------------------------------------
PULLBACKS = [{"adjoint": "discrete"}, {"adjoint": "discrete", "running_cost": (cost_g, cost_g_vjp)}]
SEEDS = {"u_T_bar": [1.0, 2.0], "observations": (TIMES, np.ones((5, 2)))}
WRT = {"wrt": ("u0", "theta", "t0", "T", "observation_times")}


@pytest.mark.parametrize("span", [SPAN, SPAN[::-1]], ids=["forth", "back"])
@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Radau", "auto"])
def test_solutions(method, span):
    make = functools.partial(solve, lotka_volterra(), LV_U0, LV_THETA, span, method=method, t_eval=TIMES[::-1], stops=[4.0])
    full, times = make(), np.append(np.linspace(*SPAN, 100)[::-1], [1.0, 1.0])
    bars = [full.pullback(**SEEDS, **WRT, **options) for options in PULLBACKS]
    all_budgets = budgets(lambda memory: make(memory=memory))
    for memory in all_budgets:
        found = make(memory=memory)
        assert found.stats == full.stats
        assert {all_budgets[0]: found.segments is not None, all_budgets[-1]: found.segments is None}.get(memory, True)
        for _ in range(2):
            np.testing.assert_array_equal(found(times), full(times))
            np.testing.assert_array_equal(found(span[0]), full(span[0]))
            for name in ("t", "u", "u_eval", "u_T", "stiff"):
                np.testing.assert_array_equal(getattr(found, name), getattr(full, name))
            for options, right in zip(PULLBACKS, bars, strict=True):
                bar = found.pullback(**SEEDS, **WRT, **options)
                for name in ("u0", "theta", "t0", "T", "observation_times", "running_cost"):
                    np.testing.assert_array_equal(getattr(bar, name), getattr(right, name))
        assert repr(found) == repr(full)
    if method in ("Radau", "auto"):
        with pytest.raises(ValueError, match="too little to keep the stages"):
            _ = make(memory=6000).stages


def test_solutions_are_shared_by_threads():
    full, found = (solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, memory=memory) for memory in (None, 4000))
    right, wrong = full.pullback([1.0, 2.0], adjoint="discrete").theta, []

    def work():
        for _ in range(10):
            wrong.append((found(3.0) != full(3.0)).any() or (found.pullback([1.0, 2.0], adjoint="discrete").theta != right).any())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 40 and not any(wrong)


# --- the interpolating adjoint ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["Tsit5", "Radau", "Rodas5P", "auto"])
@pytest.mark.parametrize("span", [SPAN, SPAN[::-1]], ids=["forth", "back"])
def test_the_interpolating_adjoint_is_as_accurate(method, span):
    """The starts of segments are stops of the backward pass, which cost it no accuracy."""
    make = functools.partial(value_and_gradient, lotka_volterra(), LOSS, span, adjoint="interpolating", stops=[4.0])
    right = make(rtol=1e-11, atol=1e-13)(LV_U0, LV_THETA)[1]
    scale = np.linalg.norm(right.theta)
    full = make(method=method)(LV_U0, LV_THETA)
    error = np.linalg.norm(full[1].theta - right.theta)
    whole = solve(lotka_volterra(), LV_U0, LV_THETA, span, method=method, stops=[4.0])
    lam = whole.pullback([1.0, 2.0], dense_adjoint=True).adjoint(1.0)
    for memory in budgets(lambda memory: make(method=method, memory=memory)(LV_U0, LV_THETA)):
        found = make(method=method, memory=memory)(LV_U0, LV_THETA)
        assert found[0] == full[0] and (found[1].stats.n_recomputed > 0) == (memory < 50_000)
        assert np.linalg.norm(found[1].theta - right.theta) <= max(2.0 * error, 3e-5 * scale)
        np.testing.assert_allclose(found[1].u0, full[1].u0, rtol=1e-3)  # what is observed at t0 is in it once
        solution = solve(lotka_volterra(), LV_U0, LV_THETA, span, method=method, stops=[4.0], memory=max(memory, 8000))
        bar = solution.pullback(**LOSS.value_and_cotangents(solution)[1])
        assert np.linalg.norm(bar.theta - right.theta) <= max(2.0 * error, 3e-5 * scale)
        np.testing.assert_allclose(solution.pullback([1.0, 2.0], dense_adjoint=True).adjoint(1.0), lam, rtol=1e-4)


# --- what it costs ---------------------------------------------------------------------------------------------------------------
@functools.cache
def fewest(stores, snapshots):
    """The fewest stores to be solved again, by trying all ways to place snapshots: those ahead, and each one once to be read."""
    if stores == 1:
        return 1
    if snapshots == 1:
        return stores * (stores + 1) // 2
    return min(k + fewest(stores - k, snapshots - 1) + fewest(k, snapshots) for k in range(1, stores))


def test_snapshots_are_placed_as_is_optimal():
    for snapshots in range(1, 7):
        for stores in range(2, 60):
            k = steps_ahead(stores, snapshots)
            rest = fewest(stores - k, snapshots - 1) + fewest(k, snapshots) if snapshots > 1 else stores * (stores - 1) // 2 + 1
            assert 0 < k < stores and (snapshots == 1 or k + rest == fewest(stores, snapshots))


def steps_again(steps, room, snapshots):
    """What the schedule makes of so many steps in stores of so many; what the last store has is not needed again."""
    left, spacing = (steps - 1) // room, 1
    while left // spacing > snapshots:
        spacing *= 2
    kept, total = [k for k in range(0, left + 1, spacing) if k < left], 0
    if kept and kept[-1] == left - 1:  # of that store the last one has overwritten a part
        left, total = kept.pop(), min(steps - left * room + 2, room)
    while kept:
        free = snapshots + 1 - len(kept)
        total += room * fewest(left - kept[-1], free + 1)
        left = kept.pop()
    return total


@pytest.mark.parametrize("steps", [40, 120, 500, 505, 2000, 6000])
def test_steps_solved_again_are_those_of_the_schedule(steps):
    options = {"method": "RK4", "step": 1.0 / 64.0, "memory": 4000}
    evaluate = value_and_gradient(lotka_volterra(), FinalState([1.0, 1.0]), (0.0, steps / 64.0), **options)
    found, made = evaluate(0.1 * LV_U0, LV_THETA)[1].stats, segments_of(evaluate)
    assert found.n_steps == steps
    assert found.n_recomputed == steps_again(steps, made.capacity, len(made._room))


def test_memory_is_that_of_the_budget():
    def peak(**options):
        evaluate = value_and_gradient(lotka_volterra(), LOSS, (0.0, 500.0), max_step=0.01, **options)
        tracemalloc.start()
        try:
            evaluate(LV_U0, LV_THETA)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(memory="1 MB")  # compiled
    assert peak() > 6_000_000
    for memory in (60_000, 1_000_000):
        assert peak(memory=memory) < memory + 125_000


# --- failures --------------------------------------------------------------------------------------------------------------------
def test_interrupted_while_steps_are_solved_again(monkeypatch):
    full = value_and_gradient(lotka_volterra(), LOSS, SPAN)(LV_U0, LV_THETA)
    evaluate, solution = (
        make(memory=4000)
        for make in (
            functools.partial(value_and_gradient, lotka_volterra(), LOSS, SPAN),
            functools.partial(solve, lotka_volterra(), LV_U0, LV_THETA, SPAN),
        )
    )
    compiled, bars, right = evaluate.jitted(2, 4), (np.zeros(2), np.zeros(4)), solution.pullback([1.0, 2.0], adjoint="discrete")
    plain, calls = Segments._solve, 0

    def interrupted(self, first, last):
        nonlocal calls
        calls += 1
        status = plain(self, first, last)
        if calls == 1:
            raise KeyboardInterrupt
        return status

    monkeypatch.setattr(Segments, "_solve", interrupted)
    for call in (
        lambda: evaluate(LV_U0, LV_THETA),
        lambda: compiled(LV_U0, LV_THETA, *bars),
        lambda: solution.pullback([1.0, 2.0], adjoint="discrete"),
        lambda: solution(np.linspace(*SPAN, 50)),
    ):
        calls = 0
        with pytest.raises(KeyboardInterrupt):
            call()
    same(evaluate(LV_U0, LV_THETA), full)
    assert compiled(LV_U0, LV_THETA, *bars) == (0, full[0])
    np.testing.assert_array_equal(bars[1], full[1].theta)
    np.testing.assert_array_equal(solution.pullback([1.0, 2.0], adjoint="discrete").theta, right.theta)
    np.testing.assert_array_equal(solution([1.0]), solve(lotka_volterra(), LV_U0, LV_THETA, SPAN)([1.0]))


def test_time_is_short_while_steps_are_solved_again(monkeypatch):
    evaluate = value_and_gradient(lotka_volterra(), LOSS, SPAN, memory=4000, max_seconds=1000.0)
    right, plain = evaluate(LV_U0, LV_THETA), Segments._solve

    def late(self, first, last):
        self.forward.watch[DEADLINE] = 1
        return plain(self, first, last)

    with monkeypatch.context() as patch:
        patch.setattr(Segments, "_solve", late)
        with pytest.raises(SolveError, match="adjoint solve stopped .* max_seconds = 1000") as raised:
            evaluate(LV_U0, LV_THETA)
    assert raised.value.status == Status.TIMED_OUT
    same(evaluate(LV_U0, LV_THETA), right)


def test_a_right_hand_side_that_changes(monkeypatch):
    solution, plain = solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, memory=4000), Segments._solve
    solution.theta[0] *= 1.5
    with pytest.raises(RuntimeError, match="f gave different values when steps were solved again"):
        solution.pullback([1.0, 2.0], adjoint="discrete")
    assert Segments._solve is plain


def test_bad_budgets():
    make = functools.partial(solve, lotka_volterra(), LV_U0, LV_THETA, SPAN)
    for bad in ("much", "12 XB", "-3 MB", "1e3"):
        with pytest.raises(ValueError, match='memory must be a number of bytes, or a string such as "512MB"'):
            make(memory=bad)
    for bad in (0, -5, np.nan):
        with pytest.raises(ValueError, match="memory must be positive"):
            make(memory=bad)
    with pytest.raises(ValueError, match="memory must be finite"):
        make(memory=np.inf)
    with pytest.raises(TypeError, match="memory must be a number"):
        make(memory=[1])
    with pytest.raises(ValueError, match="memory must be at least"):
        ensemble_value_and_gradient(lotka_volterra(), LOSS, SPAN, memory=100)(LV_U0[None], LV_THETA)
    with pytest.raises(ValueError, match="leave memory out"):
        make(memory="1MB").pullback([1.0, 1.0], adjoint="backsolve")
    sizes = {
        "512MB": 512_000_000,
        "2 GB": 2_000_000_000,
        "64KiB": 65536,
        "1.5 kb": 1500,
        4096: 4096,
        " 7 TiB ": 7 * 1024**4,
        "9b": 9,
    }
    assert [memory_size("memory", given) for given in sizes] == list(sizes.values())


def test_memory_that_the_system_has_not(monkeypatch):
    """A budget that is larger: what there is."""
    plain, asked = segments.Trajectory.of_capacity, []

    def of_capacity(capacity, *shape, **options):
        asked.append(capacity)
        if 8 < capacity and len(asked) < 4:  # the first one is for the time until there is a budget
            raise MemoryError
        return plain(capacity, *shape, **options)

    monkeypatch.setattr(segments.Trajectory, "of_capacity", of_capacity)
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, memory=100_000)
    assert len(asked) == 4 and asked[1] > 1.9 * asked[2] > 3.5 * asked[3]
    monkeypatch.undo()
    np.testing.assert_array_equal(solution.u_T, solve(lotka_volterra(), LV_U0, LV_THETA, SPAN).u_T)
