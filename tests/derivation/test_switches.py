"""What is read of the times at which f switches."""

import bisect
import math
from bisect import bisect_left as find

import numba
import numpy as np
import pytest

from adjode.derivation.switches import switches_in

STARTS, TIMES, ORDER, ON = (1.0, 5.0), np.array([2.0, 3.0]), np.arange(2), True
PLACES = {"lag": (slice(0, 1), ()), "at": (slice(1, 3), (2,))}


def on_from(t, start, width=1.0):
    if t >= start and t < start + width:
        return 1.0
    return 0.0


on_from_jitted = numba.njit(on_from)


def loops(t, u, theta, du):
    for start in STARTS:
        if start <= t < start + 0.5:
            du[0] = 1.0
    for k in range(2):
        du[0] += theta[k + 1] if t >= TIMES[k] else 0.0


def named(t, u, theta, du):
    first, width = theta[0], theta[1]
    x = t - first
    du[0] = 1.0 if 0.0 <= x and x < width else u[0]


def fields(t, u, theta, du):
    du[0] = (2.0 * t > theta.lag + 1.0) + np.where(np.less(t, theta.at[1]), 1.0, 0.0)


def calls(t, u, theta, du):
    du[0] = on_from(t, theta[0]) + on_from_jitted(t - 3.0, theta[1], 2.0)


def periods(t, u, theta, du):
    day = (t - theta[0]) % 24.0
    du[0] = (not day < 4.0) * 1.0 + (math.fmod(t, 7.0) > 3.0) + (int(t / 5.0) % 2 == 0)


def early(t, u, theta):
    if ON and 10.0 - t > 3.0:
        return -u
    if t > 99.0:
        raise ValueError("too late")
    if t < np.inf or u[0] > t or theta[0] > 1.0:
        return u
    return 2.0 * u


def unread(t, u, theta, du):
    du[0] = 1.0 if np.sin(t) + np.cos(3.0 * t) > 0.0 else -1.0


def entries(t, u, theta, du):
    du[0] = 0.0
    for k in range(TIMES.size):
        if TIMES[k] <= t < TIMES[k] + 0.25:
            du[0] += 1.0


def arrays(t, u, theta, du):
    du[0] = np.sum((TIMES <= t) & (t < TIMES + 0.25)) + (t < TIMES).sum()


def found(t, u, theta, du):
    k = 0
    while k < 2 and t >= TIMES[k]:
        k += 1
    du[0] = 1.0 if k > 0 and t < TIMES[k - 1] + 0.25 else 0.0


def searched(t, u, theta, du):
    du[0] = TIMES[min(np.searchsorted(TIMES, t, side="right"), 1)] * u[0]


def bisected(t, u, theta, du):
    du[0] = bisect.bisect(STARTS, t) + find(TIMES, 2.0 * t)


def binned(t, u, theta, du):
    du[0] = np.digitize(t, TIMES, right=True)


def by_keywords(t, u, theta, du):
    du[0] = np.searchsorted(a=TIMES, v=t) + np.searchsorted(TIMES, t, sorter=ORDER) + np.searchsorted(a=TIMES, v=u[0])


def daily(t, u, theta, du):
    du[0] = TIMES[min(int(t / 24.0), 1)] + (t - 7.0 * np.floor(t / 7.0) < 1.0) + (t - 5.0 * (t // 5.0) < 2.0)


def hourly(t, u, theta, du):
    hour = int(t % 24.0)
    du[0] = 1.0 if 6 <= hour < 18 else 0.0


def weekly(t, u, theta, du):
    weeks, days = divmod(t, 7.0)
    du[0] = (weeks % 2 == 0) * (days < 5.0)


def rounded(t, u, theta, du):
    du[0] = (round(t) > 3) + (abs(t - 3.0 * np.round(t / 3.0)) < 1.0)


def waves(t, u, theta, du):
    du[0] = (np.sin(np.pi * t) > 0.5) + np.sign(math.cos(2.0 * (t % np.pi))) + (np.sin(t) > 2.0)


def curves(t, u, theta, du):
    du[0] = (math.exp(-0.5 * t) < 0.25) + ((t - 3.0) ** 2 < 0.25) + (4.0 / t < 2.0) + (t * t > 9.0)


def kinks(t, u, theta, du):
    du[0] = max(0.0, 1.0 - abs(t - 5.0)) + np.interp(t, TIMES, [0.0, 1.0]) + max(t - theta[0], 0.0) + abs(u[0]) * abs(t - u[0])


def chosen(t, u, theta, du):
    start = 2.0 if t < 6.0 else 8.0
    du[0] = 1.0 if start < t < start + 1.0 else 0.0


def counted(t, u, theta, du):
    k = 0
    while k < theta.size and t >= theta[k]:
        k += 1
    du[0] = k


def without(t, u, theta, du):
    for i in range(u.size):
        du[i] = -t * u[i] if u[i] > 0.0 else np.cos(t)


def once(*times):
    return [(time, {}, 0.0) for time in times]


CASES = [
    (loops, [(1.0, {}, 0.0), (1.5, {}, 0.0), (5.0, {}, 0.0), (5.5, {}, 0.0), (2.0, {}, 0.0), (3.0, {}, 0.0)], 0),
    (named, [(0.0, {0: 1.0}, 0.0), (0.0, {0: 1.0, 1: 1.0}, 0.0)], 0),
    (fields, [(0.5, {0: 0.5}, 0.0), (0.0, {2: 1.0}, 0.0)], 0),
    (calls, [(0.0, {0: 1.0}, 0.0), (1.0, {0: 1.0}, 0.0), (3.0, {1: 1.0}, 0.0), (5.0, {1: 1.0}, 0.0)], 0),
    (periods, [(0.0, {0: 1.0}, 24.0), (4.0, {0: 1.0}, 24.0), (0.0, {}, 7.0), (3.0, {}, 7.0), (0.0, {}, 5.0)], 0),
    (early, [(7.0, {}, 0.0)], 0),
    (unread, [], 1),
    (entries, once(2.0, 2.25, 3.0, 3.25), 0),
    (arrays, once(2.0, 3.0, 2.25, 3.25), 0),
    (found, once(2.0, 3.0, 2.25, 3.25), 0),
    (searched, once(2.0, 3.0), 0),
    (bisected, once(1.0, 5.0, 1.5), 0),
    (binned, once(2.0, 3.0), 0),
    (by_keywords, [], 1),
    (daily, [(0.0, {}, 24.0), (0.0, {}, 7.0), (1.0, {}, 7.0), (0.0, {}, 5.0), (2.0, {}, 5.0)], 0),
    (hourly, [(float(k), {}, 24.0) for k in range(24)], 0),
    (weekly, [(0.0, {}, 7.0), (5.0, {}, 7.0)], 0),
    (rounded, [(-0.5, {}, 1.0), (-1.5, {}, 3.0), (0.0, {}, 3.0), (1.0, {}, 3.0), (-1.0, {}, 3.0)], 0),
    (waves, [(1 / 6, {}, 2.0), (5 / 6, {}, 2.0), (0.0, {}, np.pi), (np.pi / 4, {}, np.pi), (-np.pi / 4, {}, np.pi)], 0),
    (curves, once(2.0 * math.log(4.0), 3.5, 2.5, 2.0, 3.0, -3.0), 0),
    (kinks, [*once(5.0, 6.0, 4.0, 2.0, 3.0), (0.0, {0: 1.0}, 0.0)], 0),
    (chosen, once(6.0, 2.0, 8.0, 3.0, 9.0), 0),
    (counted, [], 1),
    (without, [], 0),
]


@pytest.mark.parametrize(("f", "expected", "lines"), CASES, ids=[case[0].__name__ for case in CASES])
def test_switches_of_a_source(f, expected, lines):
    found = switches_in(f, PLACES)
    assert [
        (pytest.approx(one.at.number), dict(one.at.entries), pytest.approx(one.period)) for one in found.switches.values()
    ] == expected
    assert len(found.unread) == lines and all(one.line.count("`") == 2 for one in found.switches.values())
