"""Densities of users' own: rules of a loss of a number that is observed, and the kernel that adds them up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from numba import njit
from numba.core.dispatcher import Dispatcher

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import segment
from adjode.model.constants import with_current_constants
from adjode.model.field_access import with_entries
from adjode.model.fields import Pair
from adjode.model.losses import densities
from adjode.model.losses.observed import add, fill
from adjode.model.losses.rule import Rule, rule_of


class _DensityRule(Rule):
    def __init__(self, option: str, kind: str, given: Callable, fields: Pair):
        own: Any = with_entries(option, with_current_constants(given), (None, None, fields[1]))
        if not isinstance(own, Dispatcher):
            own = njit(error_model="numpy", nogil=True)(own)
        super().__init__(option, kind, _of_vector(own), fields)


def _of_vector(own: Callable) -> Callable:
    """A density in the form of other callbacks: what is observed is a vector of one, by which rules are derived."""

    def density(d, u, theta):
        return own(u[0], d, theta)

    return density


def density_rule(function: Callable, fields: Pair) -> Rule:
    """The rule of `function(y, d, theta)`."""
    return rule_of("density", "density", function, fields, _DensityRule)


def with_own(known: Callable, rules: Sequence[Rule]) -> Callable:
    """The kernel that adds up the densities of all columns: `known` first, which leaves out those of users' own."""
    for k, rule in enumerate(rules):
        known = _after(known, *rule.uniform, densities.OWN + k)
    return known


def _after(before: Callable, function: Callable, vjp: Callable, kind: int) -> Callable:
    @kernel
    def add_up(frame):
        """Minus the logarithms of all densities so far, and of this kind; their derivatives by results and theta."""
        total, failed, previous = before(frame), False, slots.COUNTED_SINCE(frame)
        data, results, of_results, kinds = slots.DATA(frame), slots.RESULTS(frame), slots.RESULTS_BAR(frame), slots.DENSITIES(frame)
        theta, theta_bar, direct = slots.THETA(frame), slots.THETA_BAR(frame), slots.DIRECT(frame)
        datum = slots.OF_DATUM(frame)
        y, value, y_bar = segment(datum, 0, 1), segment(datum, 1, 1), segment(datum, 2, 1)
        for k in range(data.shape[0]):
            for c in range(data.shape[1]):
                if kinds[c] != kind or math.isnan(data[k, c]):
                    continue
                since = previous[k]
                y[0] = results[k, c] - (results[since, c] if since >= 0 else 0.0)
                value[0] = y_bar[0] = math.nan
                fill(theta_bar, math.nan)
                failed |= function(data[k, c], y, theta, value) != 0
                failed |= vjp(data[k, c], y, theta, value, y_bar, theta_bar) != 0
                total += value[0]
                of_results[k, c] += y_bar[0]
                if since >= 0:
                    of_results[since, c] -= y_bar[0]
                add(theta_bar, direct)
        return math.nan if failed else total

    return add_up
