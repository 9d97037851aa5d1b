"""Stops, tables, doses and events on a GPU, in numba-cuda's simulator: the bits of the CPU's passes, run likewise.

Needs NUMBA_ENABLE_CUDASIM=1 and NUMBA_DISABLE_JIT=1, and so a process of its own: `make test-cuda`.
"""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from adjode import Dynamics, Event, Status, ensemble_value_and_gradient, solve_ensemble, value_and_gradient
from adjode.losses import EventTimes, FinalState
from tests.cuda.jumping import CASES, KNOWN, SPAN, N, bounces, falls, floor, inputs, least_squares

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1" or os.environ.get("NUMBA_DISABLE_JIT") != "1":
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1 and NUMBA_DISABLE_JIT=1", allow_module_level=True)
pytest.importorskip("numba_cuda")

from adjode.backends.cuda import chunks


def on_device(name, loss, span=SPAN, **options):
    value, bar = ensemble_value_and_gradient(KNOWN[name], loss, span, backend="cuda", **CASES[name][1], **options)(*inputs())
    return SimpleNamespace(value=value, u0=bar.u0, theta=bar.theta, stats=bar.stats)


def one_by_one(name, loss, span=SPAN, **options):
    rows, spans = zip(*inputs(), strict=True), np.broadcast_to(span, (N, 2))
    options = {"on_inaccurate": "warn"} | options if options.get("adjoint") != "interpolating" else options
    found = [
        value_and_gradient(KNOWN[name], loss, tuple(t_span), **CASES[name][1], **options)(*row)
        for row, t_span in zip(rows, spans, strict=True)
    ]
    bars = [np.array([getattr(bar, block) for _, bar in found]) for block in ("u0", "theta")]
    return SimpleNamespace(value=np.array([value for value, _ in found]), u0=bars[0], theta=bars[1])


def assert_same_bits(one, other):
    for name in ("value", "u0", "theta"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.filterwarnings("ignore:the adjoint solve")
@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_single_calls(name, adjoint):
    for span in (SPAN, SPAN[::-1]) if "events" not in name else (SPAN,):
        assert_same_bits(*(run(name, least_squares(), span, adjoint=adjoint) for run in (on_device, one_by_one)))


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("name", ["tables", "infusions", "moving doses", "events and doses"])
def test_spans_of_their_own(name, adjoint):
    spans = np.linspace([0.0, 3.5], [0.2, 4.0], N)
    loss = FinalState([1.0, -2.0])
    assert_same_bits(*(run(name, loss, spans, adjoint=adjoint) for run in (on_device, one_by_one)))


@pytest.mark.parametrize("name", CASES)
def test_solutions(name):
    rows, options = inputs(), {"t_eval": [0.5, 1.0, 3.0], **CASES[name][1]}
    here, there = (solve_ensemble(KNOWN[name], *rows, SPAN, backend=one, **options) for one in ("threads", "cuda"))
    np.testing.assert_array_equal(here.u_eval, there.u_eval)
    np.testing.assert_array_equal(here.u_T, there.u_T)
    for count in ("n_f", "n_steps", "n_rejected"):
        np.testing.assert_array_equal(getattr(here.stats, count), getattr(there.stats, count))


@pytest.mark.parametrize("name", ["moving doses", "events and doses"])
def test_trajectories_that_need_more_room_run_again(name, monkeypatch):
    whole = on_device(name, least_squares())
    monkeypatch.setattr(chunks, "_FIRST_CAPACITY", 3)
    assert_same_bits(on_device(name, least_squares()), whole)


@pytest.mark.parametrize("shared", ["u0", "theta"])
def test_sums_over_what_is_shared(shared):
    u0, theta = inputs()
    given = (u0[0], theta) if shared == "u0" else (u0, theta[0])
    for name in ("infusions", "events"):
        options = {"on_inaccurate": "warn", **CASES[name][1]}
        here, there = (
            ensemble_value_and_gradient(KNOWN[name], least_squares(), SPAN, backend=one, **options)(*given)
            for one in ("threads", "cuda")
        )
        np.testing.assert_array_equal(getattr(here[1], shared), getattr(there[1], shared))


def test_an_event_that_ends_the_solution():
    """The last state, and the gradient of it, are those at the event."""
    ends = Event(floor, direction=-1, terminal=True)
    u0, theta = inputs()
    theta[0] = 1e-3  # so that there is none within the span
    found = [
        ensemble_value_and_gradient(KNOWN["events"], FinalState([0.5, 1.0]), SPAN, events=ends, backend=one, on_inaccurate="warn")
        for one in ("threads", "cuda")
    ]
    (here, bar_here), (there, bar_there) = (evaluate(u0, theta) for evaluate in found)
    np.testing.assert_array_equal(here, there)
    np.testing.assert_array_equal(bar_here.theta, bar_there.theta)
    states = [solve_ensemble(KNOWN["events"], u0, theta, SPAN, events=ends, backend=one).u_T for one in ("threads", "cuda")]
    np.testing.assert_array_equal(*states)
    assert (np.abs(states[1][1:, 0]) < 1e-12).all() and states[1][0, 0] > 0.1


def test_failures_of_jumps():
    u0, theta = inputs()
    theta[1, 2] = -3.0  # the time of a dose, before the start
    options = {**CASES["moving doses"][1], "on_failure": "nan", "backend": "cuda"}
    value, bar = ensemble_value_and_gradient(KNOWN["moving doses"], FinalState([1.0, 0.0]), SPAN, **options)(u0, theta)
    assert bar.stats.status.tolist() == [0, Status.DOSE_TOO_EARLY, 0] and np.isnan(value[1]) and np.isnan(bar.theta[1]).all()
    theta = inputs()[1]
    theta[2, 1] = 0.1  # it comes to rest
    value, bar = ensemble_value_and_gradient(
        KNOWN["events"], FinalState([1.0, 0.0]), (0.0, 12.0), events=falls, on_failure="nan", backend="cuda"
    )(u0, theta)
    assert bar.stats.status[2] == Status.ZENO and np.isnan(bar.u0[2]).all()


def test_losses_of_times_of_events_are_refused():
    loss = EventTimes([1.0], event="floor")
    evaluate = ensemble_value_and_gradient(Dynamics(bounces), loss, SPAN, events=falls, backend="cuda")
    with pytest.raises(ValueError, match="backend='cuda' does not support losses of EventTimes: use backend='threads'"):
        evaluate(*inputs())
