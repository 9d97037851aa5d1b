"""The counts and the table of the benchmark, which need no GPU."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from adjode.tableaus import tableau
from benchmarks import cuda_ensemble
from benchmarks.cuda_ensemble import Row, Work, count_step, count_work, main


def test_the_operations_of_a_step():
    """Euler's method by hand: u + h K has one product for the sum, whose transpose has one too, and the stage is computed again."""
    n = 3
    ahead, behind = count_step(tableau("Euler"), n)
    norm = 10 * n + 2 * n * int(np.count_nonzero(tableau("Euler").E))
    assert ahead == 2 * n * 2 + norm
    assert behind == 2 * n + 2 * n  # the state after the step was kept


def test_the_work_of_trajectories():
    stats = SimpleNamespace(n_f=np.array([61, 61]), n_steps=np.array([9, 10]), n_rejected=np.array([1, 0]))
    method = tableau("Tsit5")
    forward = count_work(method, 3, 3, stats, 8, gradient=False)
    assert forward.bytes == 2 * (3 + 3 + 3) * 8 and forward.flops > 122 * cuda_ensemble.F_FLOPS
    gradient = count_work(method, 3, 3, stats, 8, gradient=True)
    assert gradient.bytes - forward.bytes == (2 * (9 + 10 + 2) * 4 + 2 * 3) * 8  # written and read once, and theta's cotangent
    assert gradient.flops > forward.flops + 19 * 6 * cuda_ensemble.VJP_FLOPS
    tenfold = count_work(method, 3, 3, stats, 8, gradient=True, scale=10.0)
    assert (tenfold.bytes, tenfold.flops) == (10.0 * gradient.bytes, 10.0 * gradient.flops)
    assert Work(8.0, 30.0).floor(4.0, 10.0) == 3.0 and Work(8.0, 10.0).floor(4.0, 10.0) == 2.0


def test_a_row():
    cells = Row("gradient", "float64", 10**6, 1e-3, 5e-3, 0.4).cells
    assert cells == ["gradient", "float64", "1e+06", "1", "5", "400", "5", "80"]
    assert Row("gradient", "float64", 10**6, 1e-3).cells[4:] == [""] * 4


def test_without_a_gpu_it_says_so_and_prints_the_floors(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cuda_ensemble, "why_not", lambda: "there is no GPU.")
    monkeypatch.setattr(cuda_ensemble, "_COUNTED", 20)
    main(["--sizes", "1000", "--output", str(tmp_path)])
    assert capsys.readouterr().out.startswith("Nothing is measured, and the floors are those of H200: there is no GPU.")
    result = json.loads((tmp_path / "cuda.json").read_text())
    assert not result["measured"] and len(result["rows"]) == 4
    assert all(row["floor"] > 0.0 and row["seconds"] is None for row in result["rows"])
    assert (tmp_path / "cuda.md").read_text().count("\n") == 6
    with pytest.raises(SystemExit):
        main(["--device", "abacus"])
