"""What is decided of guards by a glance: never that there is no zero where values suggest one."""

import numpy as np

from adjode.loops.guards import END, START, TRIED, settles


def glanced(signs, at_start, in_the_middle, at_end):
    """(what is decided, GUARD_VALUES)."""
    places = np.zeros((8, len(signs)))
    places[START], places[TRIED], places[END] = at_start, in_the_middle, at_end
    return settles.py_func(np.array(signs), places.reshape(-1), len(signs)), places


def test_what_settles_has_a_parabola_far_from_zero():
    rng, x, many = np.random.default_rng(0), np.linspace(0.0, 1.0, 101), 0
    for _ in range(3000):
        e0, e1, e2 = rng.choice([-1.0, 1.0]) + rng.normal(size=3) * 10.0 ** rng.uniform(-3.0, 1.0)
        sign = np.sign(e0)
        settled, places = glanced([sign], e0, e1, e2)
        parabola = sign * (e0 + x * (4.0 * e1 - 3.0 * e0 - e2) + 2.0 * x**2 * (e0 - 2.0 * e1 + e2))
        if settled:
            assert parabola.min() > 0.25 * (max(sign * e0, sign * e1, sign * e2) - parabola.min())
            many += 1
        assert places[START, 0] == (e2 if settled else e0)
    assert 300 < many < 2700


def test_one_that_is_near_zero_leaves_all_as_they_are():
    settled, places = glanced([1.0, -1.0], [5.0, -1.0], [5.1, -1.0], [5.2, -1e-3])
    assert not settled
    np.testing.assert_array_equal(places[START], [5.0, -1.0])
    settled, places = glanced([1.0, -1.0], [5.0, -1.0], [5.1, -1.0], [5.2, -1.1])
    assert settled
    np.testing.assert_array_equal(places[START], [5.2, -1.1])


def test_what_is_not_known_or_not_finite_does_not_settle():
    for sign, values in ((0.0, (1.0, 1.0, 1.0)), (1.0, (0.0, 1.0, 1.0))):
        assert not glanced([sign], *values)[0]
    for place in range(3):
        for bad in (np.nan, np.inf, -np.inf):
            values = [1.0, 1.0, 1.0]
            values[place] = bad
            with np.errstate(invalid="ignore"):
                assert not glanced([1.0], *values)[0]
