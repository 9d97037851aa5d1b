"""Four numbers side by side: the same sums as one by one, wherever in an array, and in vectors of the machine."""

import re

import numpy as np
import pytest
from numba import njit

from adjode.compile.flags import DISABLED
from adjode.compile.fours import load, plus, side_by_side, store


def combine(weights, rows, base, out, first):
    total = load(base, first)
    for j in range(weights.size):
        total = plus(total, weights[j], load(rows[j], first))
    store(out, first, total)


def fill(numbers, out):
    store(out, 0, side_by_side(numbers[3], numbers[2], numbers[1], numbers[0]))


compiled = combine if DISABLED else njit(combine)


@pytest.mark.parametrize("first", range(4))  # wherever vectors of the machine begin
def test_sums_are_those_of_numpy(first):
    rng = np.random.default_rng(first)
    weights, rows, base, out = rng.normal(size=5), rng.normal(size=(5, 9)), rng.normal(size=9), np.full(9, 7.0)
    compiled(weights, rows, base, out, first)
    four = slice(first, first + 4)
    np.testing.assert_allclose(out[four], base[four] + weights @ rows[:, four], rtol=0, atol=1e-14)
    assert (np.delete(out, range(first, first + 4)) == 7.0).all()


def test_a_four_is_a_value():
    base, out = np.arange(4.0), np.zeros(4)

    def twice(base, out):
        before = load(base, 0)
        store(base, 0, side_by_side(0.0, 0.0, 0.0, 0.0))
        store(out, 0, plus(before, 1.0, before))

    (twice if DISABLED else njit(twice))(base, out)
    assert out.tolist() == [0.0, 2.0, 4.0, 6.0] and not base.any()


def test_numbers_keep_their_order():
    out = np.zeros(4)
    (fill if DISABLED else njit(fill))(np.arange(4.0), out)
    assert out.tolist() == [3.0, 2.0, 1.0, 0.0]


@pytest.mark.jitted
def test_they_are_vectors_in_the_code():
    compiled(np.ones(1), np.ones((1, 4)), np.zeros(4), np.zeros(4), 0)
    (text,) = compiled.inspect_llvm().values()
    assert re.search(r"fmul .*<4 x double>", text) and re.search(r"store <4 x double>", text)
