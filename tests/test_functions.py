"""tanh and its like to a few units in the last place, as vector instructions; matrices in vectors; networks in both tiers."""

import math
import os
import platform
import re
import subprocess
import sys

import llvmlite.binding
import mpmath
import numba
import numpy as np
import pytest

from adjode import Dynamics, check_vjp, kernels, solve
from adjode.compile.fingerprint import fingerprint
from adjode.functions import OF_NUMBERS
from tests import ROOT


def loop_over(function):
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


PYTHON = {name: loop_over(getattr(kernels, name)) for name in OF_NUMBERS}
LOOPS = {name: numba.njit(error_model="numpy")(loop) for name, loop in PYTHON.items()}
INLINED = ("tanh", "exp")  # the others are calls of forms for vectors


def values(name, x):
    out = np.empty_like(x)
    LOOPS[name](x, out)
    return out


# --- accuracy --------------------------------------------------------------------------------------------------------------
def worst_error(name, x):
    """In units in the last place of the true value."""
    with mpmath.workprec(120):
        true = [getattr(mpmath, name)(mpmath.mpf(v)) for v in x.tolist()]
        spacing = np.spacing(np.abs([float(v) for v in true]))
        return max(float(abs(got - v) / s) for got, v, s in zip(values(name, x).tolist(), true, spacing.tolist(), strict=True))


def around(points):
    """The numbers nearest to each point, on both sides."""
    points = np.asarray(points, dtype=float)
    return np.concatenate([points + k * np.spacing(points) for k in range(-20, 21)])


HALF_LOG_2 = 0.5 * np.log(2.0)
TANH_ARGUMENTS = {
    "dense near 0": (lambda rng: np.exp(rng.uniform(np.log(1e-20), 0.0, 16001)), 1.75),
    "small": (lambda rng: rng.uniform(-0.625, 0.625, 16001), 1.0),
    "middle": (lambda rng: rng.uniform(0.625, 1.5, 20001), 1.9),
    "large": (lambda rng: rng.uniform(-22.0, 22.0, 16001), 1.9),
    "where the formula changes": (lambda rng: around([0.625, 20.0, -0.625]), 1.9),
    "where k changes": (lambda rng: around((np.arange(1, 57) + 0.5) * HALF_LOG_2), 1.9),
    "where tanh becomes 1": (lambda rng: rng.uniform(18.0, 20.0, 4001), 1.0),
}
EXP_ARGUMENTS = {
    "dense near 0": (lambda rng: np.exp(rng.uniform(np.log(1e-20), 0.0, 8001)) * rng.choice([-1.0, 1.0], 8001), 1.1),
    "first interval": (lambda rng: rng.uniform(-HALF_LOG_2, HALF_LOG_2, 16001), 1.1),
    "all": (lambda rng: rng.uniform(-708.0, 709.78, 20001), 1.1),
    "where k changes": (lambda rng: around((np.arange(-1000, 1000, 37) + 0.5) * 2 * HALF_LOG_2), 1.1),
    "subnormal results": (lambda rng: rng.uniform(-745.2, -708.0, 8001), 1.1),
    "the last before infinity": (lambda rng: 709.782712893384 - np.exp(rng.uniform(-30.0, 0.0, 4001)), 1.1),
}


@pytest.mark.jitted
@pytest.mark.parametrize("case", TANH_ARGUMENTS)
def test_error_of_tanh(case):
    make, bound = TANH_ARGUMENTS[case]
    assert worst_error("tanh", make(np.random.default_rng(3))) < bound


@pytest.mark.jitted
@pytest.mark.parametrize("case", EXP_ARGUMENTS)
def test_error_of_exp(case):
    make, bound = EXP_ARGUMENTS[case]
    assert worst_error("exp", make(np.random.default_rng(4))) < bound


def near_multiples(rng):
    """Numbers next to multiples of pi / 2, where most of what is reduced cancels."""
    k = np.concatenate([np.arange(1, 4000), rng.integers(4000, 667_000, 20_000)])
    with mpmath.workprec(200):
        return np.array([float(int(one) * mpmath.pi / 2) for one in k])


TURNS = {
    "dense near 0": lambda rng: np.exp(rng.uniform(np.log(1e-300), 0.0, 8001)) * rng.choice([-1.0, 1.0], 8001),
    "first turns": lambda rng: rng.uniform(-7.0, 7.0, 16001),
    "all that is reduced here": lambda rng: rng.uniform(-(2.0**20), 2.0**20, 16001),
    "near multiples of pi / 2": near_multiples,
    "where the C library takes over": lambda rng: around([2.0**20, -(2.0**20)]),
    "huge": lambda rng: np.exp(rng.uniform(np.log(1e6), 709.0, 8000)),
    "small and huge, side by side": lambda rng: np.where(
        rng.random(8000) < 0.1, 10.0 ** rng.uniform(7, 300, 8000), rng.normal(size=8000)
    ),
}
LOGARITHMS = {
    "around 1": lambda rng: 1.0 + rng.choice([-1.0, 1.0], 16001) * np.exp(rng.uniform(np.log(1e-16), np.log(0.4), 16001)),
    "all": lambda rng: np.exp(rng.uniform(-708.0, 709.0, 16001)),
    "subnormal": lambda rng: np.exp(rng.uniform(-744.0, -708.0, 8001)),
    "where the formula changes": lambda rng: around(np.sqrt(2.0) * 2.0 ** np.arange(-30, 30)),
    "next to 1": lambda rng: around([1.0]),
    "powers of 2": lambda rng: 2.0 ** np.arange(-1074.0, 1024.0),
}


@pytest.mark.jitted
@pytest.mark.parametrize("case", TURNS)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_error_of_sine_and_cosine(name, case):
    assert worst_error(name, TURNS[case](np.random.default_rng(5))) < 1.0


@pytest.mark.jitted
@pytest.mark.parametrize("case", LOGARITHMS)
def test_error_of_log(case):
    assert worst_error("log", LOGARITHMS[case](np.random.default_rng(6))) < 1.0


@pytest.mark.jitted
@pytest.mark.parametrize("name", ["sin", "cos", "log"])
def test_numbers_left_over_are_those_of_the_c_library(name):
    for size in (1, 2, 3, 9, 40):
        x = np.random.default_rng(size).uniform(0.01, 5.0, size)
        of_c = [getattr(math, name)(one) for one in x]
        np.testing.assert_allclose(values(name, x), of_c, rtol=2.3e-16)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, where nothing is compiled
def test_special_arguments_of_sine_cosine_and_log():
    for size in (1, 16):  # called and in vectors
        given = np.repeat([[0.0], [-0.0], [5e-324], [-1e-310], [np.inf], [-np.inf], [np.nan]], size, axis=1)
        sines, cosines = (np.array([values(name, row) for row in given]) for name in ("sin", "cos"))
        assert np.array_equal(sines[:4], given[:4]) and np.signbit(sines[:4, 0]).tolist() == [False, True, False, True]
        assert np.array_equal(cosines[:4], np.ones((4, size)))
        assert np.isnan(sines[4:]).all() and np.isnan(cosines[4:]).all()
        given = np.repeat([[0.0], [-0.0], [np.inf], [1.0], [-5e-324], [-1.0], [-np.inf], [np.nan]], size, axis=1)
        logs = np.array([values("log", row) for row in given])
        assert np.array_equal(logs[:4], np.repeat([[-np.inf], [-np.inf], [np.inf], [0.0]], size, axis=1))
        assert np.isnan(logs[4:]).all()


def test_special_arguments():
    tiny = np.array([5e-324, -5e-324, 1e-310, 2.3e-308, -1e-200, 1e-9])
    assert np.array_equal(values("tanh", tiny), tiny)
    assert np.array_equal(values("exp", tiny[:-1]), np.ones(5))
    zeros = values("tanh", np.array([0.0, -0.0]))
    assert np.array_equal(zeros, [0.0, 0.0]) and np.signbit(zeros).tolist() == [False, True]
    far = np.array([np.inf, 1e308, 20.0, -np.inf, -1e308, -20.0])
    assert np.array_equal(values("tanh", far), [1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    with np.errstate(over="ignore", under="ignore"):
        ends = values("exp", np.array([np.inf, 1e308, 709.79, -np.inf, -1e308, -745.2, 0.0, -0.0]))
    assert np.array_equal(ends, [np.inf, np.inf, np.inf, 0.0, 0.0, 0.0, 1.0, 1.0])
    for name in INLINED:
        assert np.isnan(values(name, np.array([np.nan, -np.nan]))).all()


def test_tanh_is_odd():
    x = np.random.default_rng(5).normal(size=1001) * 3.0
    assert np.array_equal(values("tanh", -x), -values("tanh", x))


@pytest.mark.jitted
def test_the_callers_flags_change_nothing():
    x = np.abs(np.random.default_rng(6).normal(size=1001)) * 3.0
    for name, loop in PYTHON.items():
        for options in ({"fastmath": True}, {"error_model": "python"}, {"boundscheck": True}):
            compiled, out = numba.njit(**options)(loop), np.empty_like(x)
            compiled(x, out)
            np.testing.assert_allclose(out, values(name, x), rtol=2.3e-16)
            for special in (np.nan, np.inf, -0.0):
                compiled(np.array([special]), out[:1])
                assert str(out[0]) == str(values(name, np.array([special]))[0])


@pytest.mark.parametrize(("function", "numpy"), [(getattr(kernels, name), getattr(np, name)) for name in PYTHON])
def test_other_arguments_than_floats(function, numpy):
    apply = numba.njit(lambda x: function(x))
    assert apply(2) == pytest.approx(numpy(2.0), rel=1e-15)
    assert apply(0.3 + 0.2j) == pytest.approx(numpy(0.3 + 0.2j), rel=1e-15)
    assert function(0.3) == numpy(0.3)  # from plain Python


# --- vector instructions -------------------------------------------------------------------------------------------------
def wide_registers():
    features = llvmlite.binding.get_host_cpu_features()
    return platform.machine() in ("x86_64", "AMD64") and features.get("avx2", False)


@pytest.mark.jitted
@pytest.mark.skipif(not wide_registers(), reason="no AVX2")
@pytest.mark.parametrize("name", LOOPS)
def test_loops_are_vectorised(name):
    values(name, np.zeros(3))
    (assembly,) = LOOPS[name].inspect_asm().values()
    packed = re.findall(r"\bv(?:mul|fn?madd\d+)pd\b.*%[yz]mm", assembly)
    assert len(packed) > 5
    if name not in INLINED:
        assert re.search(rf"(\bcall\S*\s+|\$)adjode\.{name}\.[48]\b", assembly)
        return  # what is called is not inlined
    assert (re.search(r"\bvdivpd\b.*%[yz]mm", assembly) is not None) == (name == "tanh")
    assert not re.search(r"\b(call|jmp)\S*\s+\S*(tanh|exp)\S*\s*$", assembly, re.MULTILINE)


# --- arrays ----------------------------------------------------------------------------------------------------------------
@numba.njit
def into(x, out):
    kernels.tanh_into(x, out)


@numba.njit
def exp_in_place(x):
    kernels.exp_into(x, x)


@pytest.mark.parametrize("shape", [(0,), (1,), (17,), (3, 5), (2, 0)])
def test_array_forms(shape):
    x = np.random.default_rng(7).normal(size=shape)
    out = np.full(shape, np.nan)
    into(x, out)
    np.testing.assert_allclose(out, np.tanh(x), rtol=5e-16)
    true = np.exp(x)
    exp_in_place(x)
    np.testing.assert_allclose(x, true, rtol=5e-16)


def test_array_forms_refuse_other_sizes():
    for call in (into, kernels.tanh_into, kernels.exp_into):
        with pytest.raises(ValueError, match="different sizes"):
            call(np.zeros(3), np.zeros(4))


@numba.njit
def viewed(x, start, rows, columns):
    return kernels.as_matrix(x, start, rows, columns)


@numba.njit
def view_that_outlives_its_vector(n):
    matrix = kernels.as_matrix(np.ones(n * n), 0, n, n)
    np.zeros(n * n)
    return matrix


@pytest.mark.parametrize("function", [viewed, kernels.as_matrix])
def test_as_matrix(function):
    x = np.arange(20.0)
    matrix = function(x, 3, 2, 5)
    assert np.array_equal(matrix, np.arange(3.0, 13.0).reshape(2, 5)) and np.shares_memory(matrix, x)
    assert function(x, 20, 0, 7).shape == (0, 7) and function(x, 2, 3, 0).shape == (3, 0)
    assert function(x, 0, 4, 5).size == 20
    for start, rows, columns in ((11, 2, 5), (-1, 2, 2), (0, -2, -2), (21, 0, 0)):
        with pytest.raises(ValueError, match="extends beyond the vector"):
            function(x, start, rows, columns)
    assert view_that_outlives_its_vector(100).sum() == 1e4


# --- products of matrices, the way docs/networks.md writes them ------------------------------------------------------------
@numba.njit
def product(A, B, out):
    np.dot(A, B, out)


@numba.njit
def product_of_transposed(A, B, out):
    np.dot(A.T, B.T, out)


@pytest.mark.parametrize("m", [0, 1, 3, 64])
@pytest.mark.parametrize("k", [0, 1, 7])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_products_of_views(m, k, n):
    rng = np.random.default_rng(8)
    x = rng.normal(size=m * k + k * n)
    out = np.full(m * n + 2, np.nan)
    A, B = x[: m * k].reshape(m, k), x[m * k :].reshape(k, n)
    product(viewed(x, 0, m, k), viewed(x, m * k, k, n), viewed(out, 1, m, n))
    np.testing.assert_allclose(out[1:-1].reshape(m, n), A @ B, atol=1e-14)
    product_of_transposed(viewed(x, 0, k, m), viewed(x, m * k, n, k), viewed(out, 1, m, n))
    np.testing.assert_allclose(out[1:-1].reshape(m, n), x[: m * k].reshape(k, m).T @ x[m * k :].reshape(n, k).T, atol=1e-14)
    assert np.isnan(out[[0, -1]]).all()


# --- a network in both tiers -------------------------------------------------------------------------------------------------
NETWORK = """
import numpy as np
from adjode.functions import as_matrix, exp, tanh, tanh_into

WIDTH = 5


def f(t, u, theta, du):
    rows = u.size // 2
    a = np.empty((rows, WIDTH))
    np.dot(as_matrix(u, 0, rows, 2), as_matrix(theta, 0, WIDTH, 2).T, a)
    tanh_into(a, a)
    np.dot(a, as_matrix(theta, 2 * WIDTH, 2, WIDTH).T, as_matrix(du, 0, rows, 2))
    for i in range(u.size):
        du[i] *= exp(-u[i] * u[i])


def vjp(t, u, theta, lam, u_bar, theta_bar):
    rows = u.size // 2
    U, W1, W2 = as_matrix(u, 0, rows, 2), as_matrix(theta, 0, WIDTH, 2), as_matrix(theta, 2 * WIDTH, 2, WIDTH)
    a, a_bar = np.empty((rows, WIDTH)), np.empty((rows, WIDTH))
    out, out_bar = np.empty((rows, 2)), np.empty((rows, 2))
    np.dot(U, W1.T, a)
    tanh_into(a, a)
    np.dot(a, W2.T, out)
    for i in range(u.size):
        damping = exp(-u[i] * u[i])
        u_bar[i] = -2.0 * u[i] * damping * out[i // 2, i % 2] * lam[i]
        out_bar[i // 2, i % 2] = damping * lam[i]
    np.dot(out_bar.T, a, as_matrix(theta_bar, 2 * WIDTH, 2, WIDTH))
    np.dot(out_bar, W2, a_bar)
    for i in range(rows):
        for j in range(WIDTH):
            a_bar[i, j] *= 1.0 - a[i, j] * a[i, j]
    np.dot(a_bar.T, U, as_matrix(theta_bar, 0, WIDTH, 2))
    np.dot(a_bar, W1, out)
    for i in range(u.size):
        u_bar[i] += out[i // 2, i % 2]


rng = np.random.default_rng(9)
u0, theta = rng.normal(size=6), rng.normal(size=4 * WIDTH)
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The functions and inputs of NETWORK, as a module of their own."""
    path = tmp_path_factory.mktemp("network") / "network.py"
    path.write_text(NETWORK)
    namespace = {"__name__": "network"}
    exec(compile(NETWORK, str(path), "exec"), namespace)
    return namespace


@pytest.mark.slow
def test_a_network_is_differentiated_rightly_in_both_tiers(network):
    f, vjp, u0, theta = (network[name] for name in ("f", "vjp", "u0", "theta"))
    portable = Dynamics(f, vjp)
    check_vjp(portable, u0, theta).raise_if_wrong()
    bars = []
    for dynamics in (portable, Dynamics(f, vjp, fused=True)):
        solution = solve(dynamics, u0, theta, (0.0, 1.0), step=0.05)
        bars.append(solution.pullback(np.ones(6)))
    np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=1e-11)
    np.testing.assert_allclose(bars[0].u0, bars[1].u0, rtol=1e-11)


@pytest.mark.slow
def test_a_network_in_debug_mode(network):
    dynamics = Dynamics(network["f"], network["vjp"], debug=True)
    bar = solve(dynamics, network["u0"], network["theta"], (0.0, 0.1)).pullback(np.ones(6))
    assert np.isfinite(bar.theta).all()


def test_callbacks_with_kernels_can_be_kept_on_disk(network):
    key = fingerprint(network["f"], network["vjp"])
    assert key is not None and key == fingerprint(network["f"], network["vjp"])


SCRIPT = """
import collections, sys
from numba.core import event

compiled = collections.Counter()

class Count(event.Listener):
    def on_start(self, e):
        compiled[e.data["dispatcher"].py_func.__module__.split(".")[0]] += 1
    def on_end(self, e):
        pass

event.register("numba:compile", Count())
import adjode
from network import f, vjp, u0, theta

solution = adjode.solve(adjode.Dynamics(f, vjp, fused=sys.argv[1] == "fused"), u0, theta, (0.0, 1.0))
bar = solution.pullback(u0, wrt=("u0", "theta"))  # dL/dT would call f through its address, in either tier
print(sum(compiled.values()), compiled["network"], repr(float(bar.theta[3])))
"""


@pytest.mark.jitted
@pytest.mark.slow
@pytest.mark.parametrize("tier", ["portable", "fused"])
def test_a_second_process_reads_the_disk_cache(tier, tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "script.py").write_text(SCRIPT)

    def run():
        paths = os.pathsep.join([str(ROOT), str(tmp_path)])
        variables = {
            **os.environ,
            "PYTHONPATH": paths,
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "ADJODE_PRECOMPILED": str(tmp_path),
        }
        command = [sys.executable, tmp_path / "script.py", tier]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        everything, callbacks, value = done.stdout.split()
        return int(everything), int(callbacks), float(value)

    first, second = run(), run()
    assert first[1] > 0 and second[2] == first[2]
    assert second[0] == 0  # nothing is compiled, and the address of the BLAS is found all the same
