"""Ensembles on a GPU: values and gradients of Lorenz systems, how far above the floor, and beside diffrax under vmap.

    python -m benchmarks.cuda_ensemble --output docs/measured

checks gradients on fresh random inputs against the CPU, then times forward passes and gradients by CUDA events after a warm-up,
with inputs and outputs on the GPU, and prints a table. Without a GPU it says so, and prints the floors alone.

The floor is the larger of two times: that of the bytes kept of the steps, written once and read once, at the bandwidth of the GPU's
memory, and that of the floating-point operations at its peak rate. Both are counted from the steps that the trajectories take.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import adjode
from adjode.ensembles.engine import Engine
from adjode.tableaus import Tableau, tableau
from benchmarks.problems import LORENZ_LOSS, LORENZ_SPAN, lorenz_dynamics, lorenz_ensemble
from benchmarks.report import table

METHOD, TOLERANCE = "Tsit5", 1e-6
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
F_FLOPS, VJP_FLOPS = 8, 21  # of the Lorenz system's f and vjp, negations left out
# Bytes a second of device memory, as measured by copies on such machines, and peak operations a second in double and single
# precision, from NVIDIA's data sheets (no tensor cores).
PEAKS = {"H200": (4.3e12, 34e12, 67e12), "H100": (3.0e12, 34e12, 67e12)}
_COUNTED = 1000  # trajectories from which the work is counted
_REPEATS = 10


@dataclass
class Work:
    """What a run over N trajectories must move and compute."""

    bytes: float
    flops: float

    def floor(self, bandwidth: float, peak: float) -> float:
        """Seconds."""
        return max(self.bytes / bandwidth, self.flops / peak)


@dataclass
class Row:
    """One line of the table; times in seconds, None where nothing was measured."""

    what: str
    dtype: str
    N: int
    floor: float
    seconds: float | None = None
    diffrax: float | None = None

    @property
    def cells(self) -> list[str]:
        ratio = None if self.seconds is None else self.seconds / self.floor
        ahead = None if self.seconds is None or self.diffrax is None else self.diffrax / self.seconds
        return [
            self.what,
            self.dtype,
            f"{self.N:.0e}",
            *(_number(value) for value in self._milliseconds),
            _number(ratio),
            _number(ahead),
        ]

    @property
    def _milliseconds(self) -> list[float | None]:
        return [None if value is None else 1e3 * value for value in (self.floor, self.seconds, self.diffrax)]


COLUMNS = ["what", "dtype", "trajectories", "floor, ms", "adjode, ms", "diffrax, ms", "adjode / floor", "diffrax / adjode"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def count_step(method: Tableau, n: int) -> tuple[int, int]:
    """Operations of one attempted step and of its transpose with the stages computed again, but for those of the callbacks.

    A sum over stages takes two operations for each coefficient that is not zero, and scaling and adding it two more; the error norm
    about ten for each state; the transpose of a sum as many as the sum, and each cotangent of a stage is added twice.
    """
    s = method.stages
    stages = [int(np.count_nonzero(method.A[i])) for i in range(1, s + 1)]
    sums = sum(2 * n * (entries + 1) for entries in stages)
    norm = 2 * n * int(np.count_nonzero(method.E)) + 10 * n
    again = sums - 2 * n * (stages[-1] + 1)  # all but the state after the step, which was kept
    return sums + norm, again + sum(2 * n * entries for entries in stages) + 2 * n * s


def count_work(method: Tableau, n: int, m: int, stats: Any, itemsize: int, gradient: bool, scale: float = 1.0) -> Work:
    """The work of trajectories with these `stats` (n_f, n_steps, n_rejected), times `scale`."""
    N, s = len(stats.n_f), method.stages
    n_f, steps, attempts = (float(np.sum(each)) for each in (stats.n_f, stats.n_steps, stats.n_steps + stats.n_rejected))
    ahead, behind = count_step(method, n)
    flops, moved = n_f * F_FLOPS + attempts * ahead, N * (n + m + n) * itemsize
    if gradient:
        flops += steps * (behind + s * (F_FLOPS + VJP_FLOPS + m))
        moved += (2 * (steps + N) * (n + 1) + N * m) * itemsize
    return Work(scale * moved, scale * flops)


def inputs(N: int, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Lorenz systems with rho spread over [0, 21], each a little away from the next by chance."""
    rng = np.random.default_rng(seed)
    u0, theta = lorenz_ensemble(N)
    return u0 + rng.uniform(-0.1, 0.1, u0.shape), theta * rng.uniform(0.95, 1.05, theta.shape)


def options_for(dtype: str) -> dict[str, Any]:
    tolerance = TOLERANCE if dtype == "float64" else 1e-4
    return {"method": METHOD, "rtol": tolerance, "atol": tolerance}


def floors(sizes: Sequence[int], peaks: tuple[float, float, float]) -> list[Row]:
    """The rows of the table without times, from work counted on the CPU."""
    rows, method = [], tableau(METHOD)
    u0, theta = inputs(_COUNTED, seed=0)
    for column, dtype in enumerate(("float64", "float32")):
        evaluate = adjode.ensemble_value_and_gradient(lorenz_dynamics(), LORENZ_LOSS, LORENZ_SPAN, **options_for(dtype))
        stats = evaluate(u0, theta)[1].stats
        for what in ("forward", "gradient"):
            for N in sizes:
                arguments = stats, np.dtype(dtype).itemsize, what == "gradient"
                work = count_work(method, u0.shape[1], theta.shape[1], *arguments, scale=N / _COUNTED)
                rows.append(Row(what, dtype, N, work.floor(peaks[0], peaks[1 + column])))
    return rows


# --- on a GPU -------------------------------------------------------------------------------------------------------------------


def check_against_cpu(dtype: str) -> float:
    """The largest difference of the gradients of fresh random trajectories, relative to the largest entry; raises if too large."""
    u0, theta = inputs(_COUNTED)
    problem = lorenz_dynamics(), LORENZ_LOSS, LORENZ_SPAN
    _, there = adjode.ensemble_value_and_gradient(*problem, backend="cuda", dtype=dtype, **options_for(dtype))(u0, theta)
    as_there = options_for(dtype) | {"on_inaccurate": "warn"}  # a GPU does not solve again with shorter steps
    _, here = adjode.ensemble_value_and_gradient(*problem, **as_there)(u0, theta)
    difference = max(np.abs(getattr(there, name) - getattr(here, name)).max() for name in ("u0", "theta"))
    difference /= max(np.abs(here.u0).max(), np.abs(here.theta).max())
    if not difference < 100.0 * options_for(dtype)["rtol"]:
        raise AssertionError(f"gradients in {dtype} differ from the CPU's by {difference:.2e}")
    return float(difference)


def gpu_seconds(task: Callable[[], Any]) -> float:
    """The least time of several runs, between events on the GPU."""
    from numba import cuda

    least = np.inf
    task()  # compiles, and takes memory
    for _ in range(_REPEATS):
        start, end = cuda.event(), cuda.event()
        start.record()
        task()
        end.record()
        end.synchronize()
        least = min(least, start.elapsed_time(end) / 1e3)
    return float(least)


def adjode_task(row: Row) -> Callable[[], Any]:
    from numba import cuda

    u0, theta = (cuda.to_device(block.astype(row.dtype)) for block in inputs(row.N, seed=0))
    options = {"backend": "cuda", "dtype": row.dtype, **options_for(row.dtype)}
    if row.what == "forward":
        return lambda: adjode.solve_ensemble(lorenz_dynamics(), u0, theta, LORENZ_SPAN, **options)
    evaluate = adjode.ensemble_value_and_gradient(lorenz_dynamics(), LORENZ_LOSS, LORENZ_SPAN, **options)
    return lambda: evaluate(u0, theta)


def diffrax_task(row: Row) -> Callable[[], Any] | None:
    """The same by diffrax under vmap; None without JAX on a GPU."""
    try:
        import diffrax
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    if jax.default_backend() != "gpu":
        return None
    jax.config.update("jax_enable_x64", row.dtype == "float64")
    tolerance = options_for(row.dtype)["rtol"]

    def f(t, u, theta):
        return jnp.stack([theta[0] * (u[1] - u[0]), u[0] * (theta[1] - u[2]) - u[1], u[0] * u[1] - theta[2] * u[2]])

    def final(u0, theta):
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        term, (t0, T) = diffrax.ODETerm(f), LORENZ_SPAN
        return diffrax.diffeqsolve(term, diffrax.Tsit5(), t0, T, None, u0, theta, stepsize_controller=controller).ys[-1, 0]

    one = final if row.what == "forward" else jax.value_and_grad(final, argnums=(0, 1))
    run = jax.jit(jax.vmap(one))
    u0, theta = (jnp.asarray(block, dtype=row.dtype) for block in inputs(row.N, seed=0))
    return lambda: jax.block_until_ready(run(u0, theta))


def measure(rows: list[Row]) -> None:
    for row in rows:
        row.seconds = gpu_seconds(adjode_task(row))
        task = diffrax_task(row)
        row.diffrax = None if task is None else gpu_seconds(task)


def why_not() -> str:
    """Why nothing can be measured; empty if it can be."""
    try:
        Engine("cuda", None, None, 1, False).solver(lorenz_dynamics(), np.zeros(0), {})
    except (ImportError, RuntimeError) as error:
        return str(error)
    return ""


def device_name() -> str:
    from numba import cuda

    name = cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a folder for cuda.json and cuda.md")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--device", default="H200", help="whose floors to print where there is no GPU: " + ", ".join(PEAKS))
    given = parser.parse_args(arguments)
    missing = why_not()
    name = given.device if missing else device_name()
    peaks = next((peaks for part, peaks in PEAKS.items() if part in name), None)
    if peaks is None:
        parser.error(f"the peaks of {name} are not known: add them to PEAKS, which has {', '.join(PEAKS)}.")
    rows, differences = floors(given.sizes, peaks), {}
    if missing:
        print(f"Nothing is measured, and the floors are those of {name}: {missing}\n")
    else:
        differences = {dtype: check_against_cpu(dtype) for dtype in ("float64", "float32")}
        print(f"{name}; gradients differ from the CPU's by {differences}\n")
        measure(rows)
    text = table(COLUMNS, [row.cells for row in rows])
    print(text)
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "cuda.md").write_text(text)
        result = {"device": name, "measured": not missing, "differences": differences, "rows": [asdict(row) for row in rows]}
        (given.output / "cuda.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
