"""Fits from many starts: where they are, side by side in threads and processes, and the table of optima."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from adjode import Dynamics, Fit, SolveError
from adjode.losses import LeastSquares
from tests.problems.systems import lotka_volterra

TIMES = np.linspace(0.0, 6.0, 25)


def oscillator(t, u, theta, du):
    du[0] = u[1]
    du[1] = -theta[0] * theta[0] * u[0]


def frequency(**changes):
    """The loss of a frequency has a local minimum for every period."""
    given = {"u0": [1.0, 0.0], "theta": {"frequency": 1.0}, "bounds": {"theta": (0.5, 8.0)}, **changes}
    return Fit(Dynamics(oscillator), LeastSquares(TIMES, np.cos(3.0 * TIMES)), (0.0, 6.0), **given)


@pytest.mark.parametrize("sampling", ["latin", "sobol"])
def test_starts_of_minimize(sampling):
    fit = frequency(log="theta")
    assert fit.minimize().loss > 1.0
    result = fit.minimize(starts=12, seed=1, sampling=sampling)
    assert result.theta["frequency"] == pytest.approx(3.0, rel=1e-4)
    assert len(result.starts) == 12 and result.loss == result.starts.losses.min() == result.fun
    again = fit.minimize(starts=12, seed=1, sampling=sampling, workers=2)
    np.testing.assert_array_equal(again.starts.losses, result.starts.losses)
    other = fit.minimize(starts=12, seed=2, sampling=sampling)
    assert not np.array_equal(other.starts.losses, result.starts.losses)
    assert (result.starts.values > 0.499).all() and (result.starts.values < 8.001).all()


def test_threads_and_processes_find_the_same():
    fit = frequency()
    alone = fit.least_squares(starts=4, seed=3)
    np.testing.assert_array_equal(fit.least_squares(starts=4, seed=3, workers=3).starts.losses, alone.starts.losses)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        sent = fit.least_squares(starts=4, seed=3, workers=pool)
    np.testing.assert_allclose(sent.starts.losses, alone.starts.losses, rtol=1e-12)


def test_the_table_of_optima():
    starts = frequency().fit(starts=16, seed=1).starts
    optima = starts.optima()
    assert sorted(k for group in optima for k in group) == list(range(16)) and len(optima) > 2
    least = [starts.losses[group[0]] for group in optima]
    assert least == sorted(least)
    lines = str(starts).splitlines()
    assert lines[0].split() == ["loss", "starts", "theta['frequency']"] and len(lines) == 1 + len(optima)
    assert float(lines[1].split()[2]) == pytest.approx(3.0, rel=1e-4) and int(lines[1].split()[1]) == len(optima[0])
    frame = starts.to_frame()
    assert frame.shape == (16, 4) and frame["loss"].min() == starts.losses.min()
    assert repr(starts) == f"Starts of 16 fits, {len(optima)} optima"


def test_starts_that_fail():
    def f(t, u, theta, du):
        du[0] = theta[0] * u[0] * u[0]

    times = np.linspace(0.5, 4.0, 8)
    given = {"u0": [1.0], "theta": [1.0], "max_steps": 2000, "bounds": {"theta": (-1.0, 2.0)}}
    fit = Fit(Dynamics(f), LeastSquares(times, 1.0 / (1.0 - 0.24 * times)), (0.0, 4.0), **given)
    with pytest.warns(
        RuntimeWarning, match=r"solves of the fit failed, and the optimiser stepped back from them; the first: the fit cannot start"
    ):
        result = fit.minimize(starts=8, seed=0)
    assert result.theta[0] == pytest.approx(0.24, rel=1e-3) and result.n_failed == fit.n_failed > 0
    assert 1 < len(result.starts) < 8
    with pytest.raises(SolveError, match="the fit cannot start"):
        Fit(Dynamics(f), fit.loss, (0.0, 4.0), **given | {"bounds": {"theta": (0.9, 2.0)}}).minimize(starts=3, seed=0)


def test_what_is_refused():
    fit = frequency()
    with pytest.raises(ValueError, match="sampling must be"):
        fit.minimize(starts=3, sampling="grid")
    with pytest.raises(ValueError, match="workers must be a number of threads or an executor, but 0 was given"):
        fit.minimize(starts=3, workers=0)
    with pytest.raises(ValueError, match="starts=3 needs finite bounds"):
        Fit(lotka_volterra(), LeastSquares([1.0], [[1.0, 1.0]]), (0.0, 1.0), u0=[1.0, 1.0], theta=[1.0] * 4).minimize(starts=3)


def test_progress_of_starts(capfd):
    frequency().least_squares(starts=3, seed=0, workers=2, progress=True)
    assert "starts" in capfd.readouterr().err
