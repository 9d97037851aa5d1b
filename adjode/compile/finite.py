"""Whether numbers are finite: 0 x is NaN where x is infinite or NaN."""

from __future__ import annotations

from adjode.compile.flags import kernel


@kernel
def is_finite(x):
    return 0.0 * x == 0.0


@kernel
def all_finite(x):
    """Whether all entries of a vector are."""
    total = 0.0
    for k in range(x.size):
        total += 0.0 * x[k]
    return total == 0.0
