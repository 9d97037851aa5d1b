"""The device's code compiled for the CPU, the same copies of the kernels, frames and lanes: the numbers of the CPU's own passes."""

import os

import numpy as np
import pytest

if os.environ.get("NUMBA_DISABLE_JIT") == "1":
    pytest.skip("nothing is compiled", allow_module_level=True)
pytest.importorskip("numba_cuda")

from adjode import Dynamics, ensemble_value_and_gradient
from adjode.backends.cuda import chunks, device
from adjode.losses import FinalState, LeastSquares
from benchmarks.problems import lv_dynamics
from tests.cuda import stand_in
from tests.problems.named import predators_f, predators_vjp
from tests.problems.systems import LV_THETA, LV_U0

SPAN, N = (0.0, 3.0), 9
MANY = LeastSquares(np.linspace(0.0, 3.0, 40), np.random.default_rng(2).uniform(0.5, 3.0, (40, 2)))


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    stand_in.install(monkeypatch, device, stand_in.launch_on_cpu, stand_in.entry_for_cpu)
    monkeypatch.setattr(chunks, "_FIRST_CAPACITY", 8)


@pytest.mark.parametrize(
    ("loss", "adjoint", "dtype", "agreement"),
    [(FinalState([1.0, -2.0]), "discrete", np.float64, 1e-9), (MANY, "interpolating", np.float32, 3e-3)],
    ids=["float64", "float32"],
)
def test_the_numbers_of_the_cpu(loss, adjoint, dtype, agreement):
    """In single precision to its rounding, in double to what another order of sums and products does to the steps' sizes."""
    rng = np.random.default_rng(0)
    u0, theta = LV_U0 + rng.uniform(-0.3, 0.3, (N, 2)), LV_THETA * rng.uniform(0.8, 1.2, (N, 4))
    u0[4, 0] = np.nan
    options = {"adjoint": adjoint, "rtol": 1e-5, "atol": 1e-5, "on_failure": "nan"}
    as_there = options | ({"on_inaccurate": "warn"} if adjoint == "discrete" else {})  # a GPU does not solve again
    expected = ensemble_value_and_gradient(lv_dynamics(), loss, SPAN, **as_there)(u0, theta)
    value, bar = ensemble_value_and_gradient(lv_dynamics(), loss, SPAN, backend="cuda", dtype=dtype, **options)(u0, theta)
    assert bar.u0.dtype == dtype and np.isnan(value[4]) and np.isfinite(np.delete(value, 4)).all()
    np.testing.assert_allclose(value, expected[0], rtol=agreement)
    for name in ("u0", "theta"):
        mine, theirs = getattr(bar, name), getattr(expected[1], name)
        np.testing.assert_allclose(mine, theirs, atol=agreement * np.nanmax(abs(theirs)))
    assert abs(bar.stats.n_steps - expected[1].stats.n_steps).max() <= 1 + 4 * (dtype == np.float32)


def test_fields():
    """Numbers and vectors by name."""
    dynamics = Dynamics(predators_f, predators_vjp, states=("prey", "predators"), parameters=(("rates", 2), "death"))
    u0 = {"predators": np.full(N, 0.4), "prey": np.linspace(0.5, 1.5, N)}
    theta = {"death": np.full(N, 0.7), "rates": np.full((N, 2), [0.9, 0.5])}
    options = {"rtol": 1e-5, "atol": 1e-5, "on_inaccurate": "warn"}
    expected = ensemble_value_and_gradient(dynamics, FinalState([1.0, -2.0]), SPAN, **options)(u0, theta)
    value, bar = ensemble_value_and_gradient(dynamics, FinalState([1.0, -2.0]), SPAN, backend="cuda", **options)(u0, theta)
    np.testing.assert_allclose(value, expected[0], rtol=1e-9)
    np.testing.assert_allclose(bar.theta["rates"], expected[1].theta["rates"], rtol=1e-8)
    np.testing.assert_allclose(bar.u0["prey"], expected[1].u0["prey"], rtol=1e-8)
