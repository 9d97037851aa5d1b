"""The bootstrap of hare and lynx, in a small size: it runs, and its fits are minima."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT

EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture
def bootstrap(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(EXAMPLES)
    import bootstrap

    return bootstrap


def test_the_fits_are_those_of_fit(bootstrap):
    """Each beside SciPy's L-BFGS-B, one by one; one of them from a start where the first steps go too far."""
    import adjode

    model = bootstrap.hare_lynx
    dynamics = adjode.Dynamics(model.lotka_volterra, model.lotka_volterra_vjp)
    x, covariance = bootstrap.fit_once(dynamics)
    counts = bootstrap.draw_counts(dynamics, x, 3, np.random.default_rng(1))
    starts = np.tile(x, (3, 1))
    starts[1] += 0.3 * np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
    losses = bootstrap.Losses(dynamics, counts)
    fits, value, left = bootstrap.minimize_all(losses, starts, 20.0 * covariance)
    assert left == 0
    for k in range(3):
        z = np.exp(x)
        loss = adjode.losses.LeastSquares(bootstrap.T_OBS, counts[k], sigma=bootstrap.SIGMA, log=True)
        blocks = {"free": ("u0", "theta"), "log": ("u0", "theta")}
        fit = adjode.Fit(dynamics, loss, bootstrap.T_SPAN, u0=z[:2], theta=z[2:], **blocks, **bootstrap.TOLERANCES)
        result = fit.minimize(tol=1e-12)
        assert value[k] == pytest.approx(result.fun, rel=1e-6)
        np.testing.assert_allclose(fits[k], result.x, atol=1e-3)


def test_example_runs(tmp_path):
    command = [sys.executable, EXAMPLES / "bootstrap.py", "-N", "400", "--portable"]
    here = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, env=here)
    assert done.returncode == 0, done.stderr
    assert "; 0 not done, 0 solves failed" in done.stdout
    assert float(re.search(r"mean loss (\S+);", done.stdout)[1]) == pytest.approx(18.0, abs=1.0)  # chi squared / 2, 36 degrees
    lines = re.findall(r"^(?:hare|lynx|a|b|c|d) .*\.\. .*$", done.stdout, re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        spread, linear = map(float, line.split()[-2:])
        assert spread == pytest.approx(linear, rel=0.2)
    assert Path(re.search(r"figure: (.+)", done.stdout)[1]).exists()
