"""Stops, tables, doses and events as the device has them, compiled for the CPU, and as PTX."""

import os

import numpy as np
import pytest

if os.environ.get("NUMBA_DISABLE_JIT") == "1" or os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("nothing is compiled", allow_module_level=True)
pytest.importorskip("numba_cuda")

from adjode import Doses, Dynamics, Status, Table, ensemble_value_and_gradient, solve_ensemble
from adjode.backends.cuda import chunks, device
from tests.cuda import stand_in
from tests.cuda.jumping import CASES, KNOWN, SPAN, inputs, least_squares


def _absorbed(t, u, theta, du):
    du[0] = -theta[0] * u[0]
    du[1] = theta[0] * u[0] - theta[1] * u[1]


_eliminated = Dynamics(_absorbed)


@pytest.mark.parametrize(
    ("name", "adjoint", "dtype", "agreement"),
    [
        ("tables", "interpolating", np.float32, 1e-2),
        ("events and doses", "discrete", np.float32, 1e-2),
    ],
)
def test_the_numbers_of_the_cpu(name, adjoint, dtype, agreement, monkeypatch):
    stand_in.install(monkeypatch, device, stand_in.launch_on_cpu, stand_in.entry_for_cpu)
    monkeypatch.setattr(chunks, "_FIRST_CAPACITY", 8)
    options = {"adjoint": adjoint, "rtol": 1e-5, "atol": 1e-5, **CASES[name][1]}
    as_there = options | ({"on_inaccurate": "warn"} if adjoint == "discrete" else {})
    expected = ensemble_value_and_gradient(KNOWN[name], least_squares(), SPAN, **as_there)(*inputs())
    value, bar = ensemble_value_and_gradient(KNOWN[name], least_squares(), SPAN, backend="cuda", dtype=dtype, **options)(*inputs())
    assert bar.u0.dtype == dtype
    np.testing.assert_allclose(value, expected[0], rtol=agreement)
    for block in ("u0", "theta"):
        mine, theirs = getattr(bar, block), getattr(expected[1], block)
        np.testing.assert_allclose(mine, theirs, atol=agreement * abs(theirs).max())


def test_doses_in_steady_state(monkeypatch):
    """Steady states are found on the host, trajectories from there are the GPU's; where nothing is eliminated there is none."""
    stand_in.install(monkeypatch, device, stand_in.launch_on_cpu, stand_in.entry_for_cpu)
    regimen = Doses(0.0, "theta[2]", 0, lag=0.3, every=1.5, steady_state=True)
    options = {"doses": regimen, "rtol": 1e-8, "atol": 1e-8, "adjoint": "discrete"}
    u0, theta = np.zeros((4, 2)), np.array([1.5, 0.6, 2.0]) * np.linspace(0.8, 1.2, 4)[:, None]
    theta[2, 1] = 0.0
    found, expected = (
        ensemble_value_and_gradient(_eliminated, least_squares(), SPAN, on_failure="nan", **options, **where)(u0, theta)
        for where in ({"backend": "cuda"}, {})
    )
    assert found[1].stats.status.tolist() == expected[1].stats.status.tolist() == [0, 0, Status.NEWTON_FAILED, 0]
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1].theta, expected[1].theta, rtol=1e-6)
    assert abs(expected[1].theta[[0, 1, 3]]).min() > 1e-2
    many = solve_ensemble(_eliminated, u0, theta, SPAN, backend="cuda", t_eval=[0.5, 2.0, 3.5], doses=regimen, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(many.u_eval[:, 0], many.u_eval[:, 1], rtol=1e-6)
    np.testing.assert_allclose(many.u_eval[:, 0], many.u_eval[:, 2], rtol=1e-6)
    assert many.status.tolist() == [0, 0, Status.NEWTON_FAILED, 0]


def test_tables_that_are_too_large_for_a_gpu(monkeypatch):
    stand_in.install(monkeypatch, device, stand_in.launch_on_cpu, stand_in.entry_for_cpu)
    large = Table(np.linspace(0.0, 4.0, 5000), np.zeros(5000))

    def f(t, u, theta, du):
        du[0] = large(t) - theta[0] * u[0]

    with pytest.raises(ValueError, match="tables and arrays in the callbacks are too large for a GPU, which has 60000 bytes"):
        solve_ensemble(Dynamics(f), np.ones((2, 1)), [1.0], SPAN, backend="cuda")
