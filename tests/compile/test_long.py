"""Long straight-line code compiles in a time that grows with its length, not with the square."""

import time

import numpy as np
import pytest
from llvmlite.binding import parse_assembly

import adjode
from adjode.compile.flags import DISABLED
from benchmarks.compiling import network

pytestmark = pytest.mark.skipif(DISABLED, reason="nothing is compiled")


def with_variables(count):
    """An LLVM function that adds up what it has put into variables, each an array as Numba makes them."""
    text = "define double @f(double %x0) {\nentry:\n"
    text += "\n".join(f"  %v{k} = alloca {{i64, double}}" for k in range(count))
    for k in range(count):
        text += f"\n  %w{k} = insertvalue {{i64, double}} undef, double %x{k}, 1\n  store {{i64, double}} %w{k}, ptr %v{k}"
        text += f"\n  %p{k} = getelementptr {{i64, double}}, ptr %v{k}, i32 0, i32 1\n  %y{k} = load double, ptr %p{k}"
        text += f"\n  %x{k + 1} = fadd double %y{k}, %x0"
    return parse_assembly(f"{text}\n  ret double %x{count}\n}}\n").get_function("f")


@pytest.mark.parametrize("count", [20, 600])
def test_the_variables_of_long_functions_are_dissolved_before_the_passes_that_take_long(count):
    from numba.core.registry import cpu_target

    from adjode.compile import pipeline

    left = []

    class Passes:
        def run(self, function, builder):
            left.append(pipeline._variables(function))

    _, builder = cpu_target.target_context.codegen()._function_pass_manager()
    pipeline._CombiningFirst(Passes()).run(with_variables(count), builder)
    assert left == [20 if count == 20 else 0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["Tsit5", "Kvaerno5"])
def test_a_network_of_500_reactions(method):
    """All but the package's own kernels: derivatives, zeros of the Jacobian, machine code, and a look at what is derived."""
    warm = adjode.Dynamics(network(10)[0])
    adjode.solve(warm, np.ones(4), np.ones(network(10)[2]), (0.0, 0.1), method=method).pullback(np.ones(4))
    f, n, m = network(500, seed=7 if method == "Tsit5" else 8)
    rng = np.random.default_rng(3)
    u0, theta, u_T_bar = rng.uniform(0.5, 1.5, n), rng.uniform(0.1, 1.0, m), rng.normal(size=n)
    tolerances = {"method": method, "rtol": 1e-9, "atol": 1e-9}
    started = time.process_time()
    dynamics = adjode.Dynamics(f)
    bars = adjode.solve(dynamics, u0, theta, (0.0, 0.5), **tolerances).pullback(u_T_bar)
    assert time.process_time() - started < 60.0

    v, w, h = rng.normal(size=n), rng.normal(size=m), 1e-4
    ends = [adjode.solve(dynamics, u0 + s * h * v, theta + s * h * w, (0.0, 0.5), **tolerances).u[-1] for s in (1, -1)]
    expected = u_T_bar @ (ends[0] - ends[1]) / (2.0 * h)
    np.testing.assert_allclose(bars.u0 @ v + bars.theta @ w, expected, rtol=1e-6)
