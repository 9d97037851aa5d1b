"""The benchmark of fits: Gauss-Newton needs at most half the solves of L-BFGS-B, and ends no higher."""

import numpy as np
import pytest

from benchmarks import fits


def solves_and_losses(case, starts):
    found = fits.race(case, starts)
    return [np.array([(one.solves, one.loss) for one in found[way]]).T for way in ("Gauss-Newton", "L-BFGS-B")]


@pytest.mark.parametrize("make", [fits.hare_lynx, lambda: fits.ring(10)], ids=["hare and lynx", "ring"])
def test_half_the_solves(make):
    (solves, losses), (others, other_losses) = solves_and_losses(make(), 5)
    assert 2 * np.median(solves) <= np.median(others)
    assert np.median(losses) <= np.median(other_losses) * (1.0 + 1e-6)


@pytest.mark.slow
def test_half_the_solves_of_a_chemical_model():
    """POLLU, all of whose 25 rates are free."""
    (solves, losses), (others, other_losses) = solves_and_losses(fits.pollution(), 2)
    assert 2 * np.median(solves) <= np.median(others)
    assert np.median(losses) <= np.median(other_losses) * (1.0 + 1e-6)


def test_the_table():
    rows = fits.table(("problem", "entries", "by", "solves", "time", "at the lowest loss"), fits.rows_of("ring", fits.ring(10), 2))
    assert rows.count("\n") == 4 and "Gauss-Newton" in rows
