"""What handlers of signals raise waits until Numba has done compiling, and then comes through."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from adjode import Dynamics, value_and_gradient
from adjode.compile.flags import DISABLED
from adjode.compile.signals import uninterrupted
from adjode.losses import FinalState
from benchmarks.problems import lv_f, lv_vjp
from tests import ROOT
from tests.problems.systems import LV_THETA, LV_U0

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
NUMBERS = signal.SIGALRM, signal.SIGUSR1


class Alarm(Exception):
    pass


@pytest.fixture
def rung():
    """The signals that have been handled; SIGALRM's handler raises."""
    seen = []

    def ring(number, frame):
        seen.append(number)
        if number == signal.SIGALRM:
            raise Alarm

    before = {number: signal.signal(number, ring) for number in NUMBERS}
    yield seen
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("order", [NUMBERS, NUMBERS[::-1]])
def test_handlers_wait(rung, order):
    handlers = [signal.getsignal(number) for number in NUMBERS]

    @uninterrupted()
    def work():
        with uninterrupted():
            for number in (*order, *order):
                signal.raise_signal(number)
        assert rung == []

    with pytest.raises(Alarm):
        work()
    assert sorted(rung) == sorted(NUMBERS)
    assert [signal.getsignal(number) for number in NUMBERS] == handlers


def test_errors_come_through(rung):
    @uninterrupted()
    def fail(rings):
        if rings:
            signal.raise_signal(signal.SIGALRM)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail(False)
    with pytest.raises(Alarm) as raised:
        fail(True)
    assert isinstance(raised.value.__context__, ValueError)


def test_other_threads_handle_no_signals(rung):
    handlers, inside = [signal.getsignal(number) for number in NUMBERS], []

    @uninterrupted()
    def work():
        inside.extend(signal.getsignal(number) for number in NUMBERS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == handlers


# Compiles all that a gradient needs, and is interrupted at random until it is through.
SCRIPT = """
import random, signal, sys
from adjode import Dynamics, value_and_gradient
from adjode.losses import FinalState
from benchmarks.problems import lv_f, lv_vjp
from tests import ROOT
from tests.problems.systems import LV_THETA, LV_U0

class Alarm(Exception):
    pass

def ring(number, frame):
    raise Alarm

signal.signal(signal.SIGALRM, ring)
times, interrupted = random.Random(1), 0
while True:
    try:
        signal.setitimer(signal.ITIMER_REAL, times.uniform(0.02, 2.0))
        dynamics = Dynamics(lv_f, lv_vjp, fused=sys.argv[1] == "True")
        value, bar = value_and_gradient(dynamics, FinalState([1.0, 1.0]), (0.0, 2.0))(LV_U0, LV_THETA)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        break
    except Alarm:
        interrupted += 1
print(interrupted, value, *bar.theta)
"""


@pytest.mark.slow
@pytest.mark.skipif(DISABLED, reason="nothing is compiled")
@pytest.mark.parametrize("fused", [False, True])
def test_compiling_may_be_interrupted_anywhere(fused, tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "ADJODE_PRECOMPILED": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(fused)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr, done.stderr
    interrupted, *numbers = done.stdout.split()
    value, bar = value_and_gradient(Dynamics(lv_f, lv_vjp), FinalState([1.0, 1.0]), (0.0, 2.0))(LV_U0, LV_THETA)
    assert int(interrupted) > 0
    np.testing.assert_allclose(list(map(float, numbers)), [value, *bar.theta], rtol=1e-9)
