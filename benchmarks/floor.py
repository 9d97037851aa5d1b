"""The floor: the same algorithms written out in C (floor.c), built by gcc and called through ctypes.

    python -m benchmarks.floor

in the folder of the repository prints microseconds for one value and gradient, the gradient's error, and the steps of each pass.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.cases import CASES, Case, Gradient, case, gradient_error

SOURCE = Path(__file__).with_name("floor.c")
ALGORITHMS = ("augmented", "quadrature", "discrete", "forward")  # in the order of floor.c
FLAGS = {"-O3": (), "-O3 -ffast-math": ("-ffast-math",)}
NO_GCC = "The floor needs gcc, which is not on the PATH: install it, or leave the floor out."
_STATUS = {1: "no memory, or too many observations", 2: "not finite"}


class FloorError(RuntimeError):
    """There is no gcc, or the compiled code reports a failure."""


class _Input(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.POINTER(ctypes.c_double)) for name in ("u0", "theta", "times", "data")),
        *((name, ctypes.c_double) for name in ("t0", "T", "tol")),
        *((name, ctypes.c_int) for name in ("count", "algorithm")),
    ]


@functools.cache
def _output_type(n: int, m: int) -> type[ctypes.Structure]:
    class Output(ctypes.Structure):
        _fields_ = [
            ("value", ctypes.c_double),
            ("u0_bar", ctypes.c_double * n),
            ("theta_bar", ctypes.c_double * m),
            *((name, ctypes.c_long) for name in ("steps", "steps_back", "n_f", "n_vjp")),
        ]

    return Output


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise FloorError(f"gcc could not build {SOURCE.name}:\n{done.stderr}")


@functools.cache
def library(system: str, flags: str) -> ctypes.CDLL:
    """floor.c, compiled for one system with one of `FLAGS`; once for each process.

    Raises
    ------
    FloorError
        Without gcc, or if it fails.
    """
    gcc = shutil.which("gcc")
    if gcc is None:
        raise FloorError(NO_GCC)
    with tempfile.TemporaryDirectory(prefix="adjode-floor-") as folder:  # what is loaded needs no file any more
        target = Path(folder) / f"{system}_{len(FLAGS[flags])}.so"
        compiled = str(target.with_suffix(".o"))
        # two commands: linked with -ffast-math, a library would switch denormal numbers off for the whole process
        _run(gcc, "-O3", "-march=native", *FLAGS[flags], "-fPIC", f"-D{system.upper()}", "-c", str(SOURCE), "-o", compiled)
        # libmvec has vectors of tanh; gcc calls them with -ffast-math alone
        _run(gcc, "-shared", compiled, "-o", str(target), "-lmvec", "-lm")
        loaded = ctypes.CDLL(str(target))
    loaded.floor_seconds.restype = ctypes.c_double
    return loaded


def _pointer(array: np.ndarray) -> ctypes.Array:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


class Floor:
    """One case, algorithm, tolerance and set of flags.

    Parameters
    ----------
    problem : Case
    algorithm : "augmented", "quadrature", "discrete" or "forward"
    tol : float
        rtol and atol of both passes.
    flags : a key of `FLAGS`
    """

    def __init__(self, problem: Case, algorithm: str, tol: float, flags: str = "-O3"):
        self.library = library(problem.system, flags)
        n, m = problem.u0.size, problem.theta.size
        data = problem.data if problem.data is not None else np.zeros((problem.times.size, n))
        self._times, self._data = np.ascontiguousarray(problem.times), np.ascontiguousarray(data)
        self._input = _Input(
            times=_pointer(self._times),
            data=_pointer(self._data),
            t0=problem.t_span[0],
            T=problem.t_span[1],
            tol=tol,
            count=problem.times.size,
            algorithm=ALGORITHMS.index(algorithm),
        )
        self.output = _output_type(n, m)()

    def _give(self, u0: np.ndarray, theta: np.ndarray) -> None:
        self._given = u0, theta  # ctypes does not keep them alive
        self._input.u0, self._input.theta = _pointer(u0), _pointer(theta)

    def __call__(self, u0: np.ndarray, theta: np.ndarray) -> Gradient:
        """The value and its cotangents (those of "forward" are zero); counts of steps and evaluations are in `output`."""
        self._give(u0, theta)
        status = self.library.floor_gradient(ctypes.byref(self._input), ctypes.byref(self.output))
        if status:
            raise FloorError(f"the floor reports: {_STATUS[status]}")
        return Gradient(self.output.value, np.array(self.output.u0_bar), np.array(self.output.theta_bar))

    def seconds(self, u0: np.ndarray, theta: np.ndarray, repeats: int) -> float:
        """Seconds for one evaluation, the mean of `repeats`, by a loop in C."""
        self._give(u0, theta)
        return self.library.floor_seconds(ctypes.byref(self._input), ctypes.byref(self.output), repeats)


def best_of(seconds: Callable[[int], float], rounds: int = 20, repeats: int = 20) -> float:
    return min(seconds(repeats) for _ in range(rounds))


def main() -> None:
    header = ("case", "algorithm", "flags", "rtol = atol", "us", "error", "steps", "back", "n_f", "n_vjp")
    print(("{:10s} {:11s} {:16s} {:>11s} {:>8s} {:>8s}" + " {:>6s}" * 4).format(*header))
    for name in CASES:
        problem = case(name)
        given = problem.u0, problem.theta
        for flags in FLAGS:
            for algorithm in ALGORITHMS:
                for tol in (1e-6, 1e-8):
                    floor = Floor(problem, algorithm, tol, flags)
                    gradient = floor(*given)
                    error = "" if algorithm == "forward" else f"{gradient_error(name, gradient):.1e}"
                    micro = 1e6 * best_of(lambda repeats, floor=floor, given=given: floor.seconds(*given, repeats))
                    counts = [getattr(floor.output, key) for key in ("steps", "steps_back", "n_f", "n_vjp")]
                    print(
                        f"{name:10s} {algorithm:11s} {flags:16s} {tol:11.0e} {micro:8.1f} {error:>8s}"
                        + "".join(f" {count:6d}" for count in counts)
                    )


if __name__ == "__main__":
    try:
        main()
    except FloorError as problem:
        raise SystemExit(str(problem)) from None
