"""Figures: what is drawn is what was found, on axes that are given or made."""

import functools
import sys

import matplotlib
import numpy as np
import pytest

import adjode
from adjode import Dynamics, Fit, plots
from adjode.losses import FinalState, LeastSquares

matplotlib.use("Agg")
from matplotlib import pyplot

X = np.array([0.0, 0.7, 1.1, 2.0, 3.2, 4.0])
Y = np.column_stack([[1.1, 1.4, 1.9, 2.8, np.nan, 4.8], 3.0 - 0.5 * X])


def lines_f(t, u, theta, du):
    du[0] = theta[0]
    du[1] = -theta[1]


@functools.cache
def fitted(log=False):
    given = {"u0": {"rising": 1.0, "falling": 3.0}, "theta": {"slope": 1.0, "fall": 0.4}, "bounds": {"theta": (0.1, 2.0)}}
    fit = Fit(
        Dynamics(lines_f), LeastSquares(X, Y, sigma=0.2, log=log), (0.0, 4.0), free={"u0": ["rising"], "theta": True}, **given
    )
    return fit, fit.least_squares(starts=1)


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("log", [False, True])
def test_fit(log):
    fit, _ = fitted(log)
    _, given = pyplot.subplots()
    axes = plots.fit(fit, axes=given)
    assert axes is given
    curves = {line.get_label(): line for line in axes.get_lines()}
    band = fit.predict(curves["rising"].get_xdata())
    np.testing.assert_array_equal(curves["rising"].get_ydata(), band.u[:, 0])
    edges = axes.collections[0].get_paths()[0].vertices
    assert edges[:, 1].min() == pytest.approx(band.low[:, 0].min()) and edges[:, 1].max() == pytest.approx(band.high[:, 0].max())
    points = [line for line in axes.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(points[0].get_ydata(), Y[:, 0], rtol=1e-12)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["rising", "falling"]
    alone = plots.fit(fit, components=[1])
    assert alone is not axes and len(alone.collections) == 1


def test_residuals():
    fit, result = fitted()
    axes = plots.residuals(fit)
    drawn = {line.get_label(): line.get_xydata() for line in axes.get_lines() if line.get_marker() == "o"}
    assert len(drawn["rising"]) == 5 and len(drawn["falling"]) == 6
    np.testing.assert_allclose(np.sort(np.concatenate([xy[:, 1] for xy in drawn.values()])), np.sort(result.fun), rtol=1e-9)
    np.testing.assert_allclose(drawn["falling"][:, 0], X)
    assert plots.residuals(fit, fit.x0).get_lines()[1].get_ydata()[0] != drawn["rising"][0, 1]


def test_profiles_and_correlations():
    fit, _ = fitted()
    profile = fit.profile(["theta['slope']", "theta['fall']"])
    panels = plots.profiles(profile)
    assert [panel.get_xlabel() for panel in panels] == profile.names
    curve = panels[0].get_lines()[0]
    np.testing.assert_array_equal(curve.get_ydata(), profile.roots["theta['slope']"] ** 2)
    level = panels[0].get_lines()[1].get_ydata()[0]
    assert level == profile.quantile**2 and curve.get_ydata()[[0, -1]].min() > 0.9 * level
    with pytest.raises(ValueError, match="axes must be 2, one for each panel, but 1 were given"):
        plots.profiles(profile, axes=panels[0])
    found = fit.uncertainty()
    axes = plots.correlations(found)
    np.testing.assert_array_equal(axes.images[0].get_array(), found.correlation)
    assert [text.get_text() for text in axes.get_yticklabels()] == fit.names
    assert axes.texts[1].get_text() == f"{found.correlation[0, 1]:.2f}"


def test_waterfall():
    fit, alone = fitted()
    bounded = {"u0": {"rising": 1.0, "falling": 3.0}, "theta": {"slope": 1.0, "fall": 0.4}, "bounds": {"theta": (0.1, 2.0)}}
    result = Fit(fit.dynamics, fit.loss, (0.0, 4.0), **bounded).fit(starts=4, seed=1)
    drawn = plots.waterfall(result).get_lines()[0].get_ydata()
    np.testing.assert_array_equal(drawn, np.sort(result.starts.losses))
    with pytest.raises(ValueError, match="this fit had one start"):
        plots.waterfall(alone)


def test_adjoint():
    fit, result = fitted()
    solution = adjode.solve(fit.dynamics, result.u0, result.theta, (0.0, 4.0))
    bar = solution.pullback([1.0, 0.0], dense_adjoint=True)
    axes = plots.adjoint(bar, names=["rising", "falling"])
    rising = axes.get_lines()[1]
    assert rising.get_label() == "rising"
    np.testing.assert_allclose(rising.get_ydata(), 1.0)
    with pytest.raises(ValueError, match="pull back with dense_adjoint=True"):
        plots.adjoint(solution.pullback([1.0, 0.0]))


def test_what_is_refused(monkeypatch):
    final = Fit(fitted()[0].dynamics, FinalState([1.0, 0.0]), (0.0, 4.0), u0=[1.0, 3.0], theta=[1.0, 0.4])
    with pytest.raises(TypeError, match="only a LeastSquares loss has data to draw, but this is a fit of a FinalState"):
        plots.fit(final)

    def both(t, u, theta, y):
        y[0] = u[0] + u[1]
        y[1] = u[1]

    observed = Fit(final.dynamics, LeastSquares(X, Y, observe=both), (0.0, 4.0), u0=[1.0, 3.0], theta=[1.0, 0.4])
    with pytest.raises(ValueError, match="the loss compares what `observe` makes of them"):
        plots.fit(observed)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plots need Matplotlib: python -m pip install 'adjode\[plot\]'"):
        plots.correlations(fitted()[0].uncertainty())
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame needs pandas: python -m pip install 'adjode\[tables\]'"):
        fitted()[0].uncertainty().to_frame()


def test_frames():
    fit, _ = fitted()
    found = fit.uncertainty()
    frame = found.to_frame(0.9)
    assert list(frame.index) == fit.names and frame.index.name == "entry"
    np.testing.assert_array_equal(frame[["low", "high"]].to_numpy(), found.intervals(0.9))
    band = fit.predict([1.0, 2.0])
    np.testing.assert_array_equal(band.to_frame()["u[1] high"], band.high[:, 1])
    profile = fit.profile("theta['slope']")
    assert profile.to_frame()["low"].iloc[0] == profile.intervals["theta['slope']"][0]
