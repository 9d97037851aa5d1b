"""Products derived of random callbacks: right, or refused."""

from collections import Counter

import numpy as np
import pytest
from numba import njit

from adjode.derivation import derive
from tests.derivation.checking import difference, points, value, verdict
from tests.derivation.programs import FORMS
from tests.derivation.statements import generate

EVERYDAY, SLOW = range(200), range(1_000, 4_000)


def test_products_of_generated_programs():
    assert_right(EVERYDAY)


@pytest.mark.slow
def test_products_of_many_generated_programs():
    assert_right(SLOW)


def assert_right(seeds: range) -> None:
    """None is wrong; and few are refused, or have no derivative that could be checked."""
    verdicts = {seed: verdict(generate(seed)) for seed in seeds}
    assert not {seed: text for seed, text in verdicts.items() if text.startswith("wrong")}
    counts = Counter(text.split(":")[0] for text in verdicts.values())
    assert counts["right"] > 0.9 * len(seeds), counts


def test_the_tangent_of_a_copy_is_a_copy():
    """Where that of the array is a view of an argument, as the rest of the sum that is copied has none."""
    assert verdict(generate(21_626)) == "right"


def test_a_wrong_rule_is_found(monkeypatch):
    from adjode.derivation import rules

    tanh = rules.CALLS["tanh"]
    monkeypatch.setitem(rules.CALLS, "tanh", lambda bar, y, f, x: tuple(rules.N.neg(gain) for gain in tanh(bar, y, f, x)))
    verdicts = [verdict(generate(seed)) for seed in range(60)]
    assert sum(text.startswith("wrong") for text in verdicts) >= 3


def test_programs_are_of_all_forms():
    programs = [generate(seed) for seed in EVERYDAY]
    assert {program.form for program in programs} == set(FORMS)
    texts = "".join(program.text for program in programs)
    constructs = ["for ", "while ", "if ", "elif ", " if ", "@", ".reshape(", "[:, None]", "np.dot(", ".copy()", "made(k0)"]
    of_arrays = ["np.roll(", "np.diff(", "np.concatenate("]
    for construct in [*constructs, *of_arrays, "helper1(", "into1(", "pair1(", "enumerate(", "zip("]:
        assert construct in texts


@pytest.mark.jitted
@pytest.mark.parametrize("seed", [4, 16, 22])
def test_texts_compile(seed):
    program = generate(seed)
    derived = derive(program.function(jit=njit))
    (t, u, theta), *_ = points(program)
    lam = [] if program.form == "number" else [np.linspace(0.5, 1.0, program.n)]
    bars = [[np.full(size, np.nan) for size in (program.n, program.m)] for _ in range(2)]
    derived.vjp(t, u, theta, *lam, *bars[0])
    derived.vjp.py_func(t, u, theta, *lam, *bars[1])
    assert difference(np.concatenate(bars[0]), np.concatenate(bars[1])) < 1e-12
    assert np.isfinite(value(program.function(), program.form, t, u, theta)).all()
