"""Stops, tables, doses and events as the device has them, compiled for the CPU, and as PTX."""

import os

import numpy as np
import pytest

if os.environ.get("NUMBA_DISABLE_JIT") == "1" or os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("nothing is compiled", allow_module_level=True)
pytest.importorskip("numba_cuda")

from adjode import Dynamics, Table, ensemble_value_and_gradient, solve_ensemble
from adjode.backends.cuda import chunks, device
from tests.cuda import stand_in
from tests.cuda.jumping import CASES, KNOWN, SPAN, inputs, least_squares


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


def test_tables_that_are_too_large_for_a_gpu(monkeypatch):
    stand_in.install(monkeypatch, device, stand_in.launch_on_cpu, stand_in.entry_for_cpu)
    large = Table(np.linspace(0.0, 4.0, 5000), np.zeros(5000))

    def f(t, u, theta, du):
        du[0] = large(t) - theta[0] * u[0]

    with pytest.raises(ValueError, match="tables and arrays in the callbacks are too large for a GPU, which has 60000 bytes"):
        solve_ensemble(Dynamics(f), np.ones((2, 1)), [1.0], SPAN, backend="cuda")
