"""Explicit Runge-Kutta steps: the stages, their weighted sums, the error norm, the dense output, and the transpose of a step."""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.fours import load, plus, side_by_side, store
from adjode.compile.tiers import unrolled
from adjode.compile.views import row
from adjode.status import CALLBACK_RAISED, SUCCESS
from adjode.steppers.stepper import Stepper

# Below this many components the sum over stages is the inner loop; above, the components are (they vectorise).
_FEW = 6


@kernel
def _next_used(W, i, j, count):
    """The first stage from j on whose weight in row i is not zero, or one behind the last."""
    while j < count and W[i, j] == 0.0:
        j += 1
    return j


def _make_add(onto: bool) -> Callable:
    @kernel
    def add(out, base, h, W, i, K, a, count):
        """out = base + h sum_j W[i, j] K[j] for the next stages from a on, up to four; where to go on. With `onto` out is the base.

        Sums of long vectors take as long as reading and writing what is summed up.
        """
        b = _next_used(W, i, a + 1, count)
        c = _next_used(W, i, b + 1, count)
        d = _next_used(W, i, c + 1, count)
        p, x = h * W[i, a], row(K, a)
        if b >= count:
            for k in range(out.size):
                out[k] = (out[k] if onto else base[k]) + p * x[k]
            return b
        q, y = h * W[i, b], row(K, b)
        if d >= count:
            for k in range(out.size):
                out[k] = ((out[k] if onto else base[k]) + p * x[k]) + q * y[k]
            return c
        r, z, s, w = h * W[i, c], row(K, c), h * W[i, d], row(K, d)
        for k in range(out.size):
            out[k] = ((((out[k] if onto else base[k]) + p * x[k]) + q * y[k]) + r * z[k]) + s * w[k]
        return _next_used(W, i, d + 1, count)

    return add


_add_to_base, _add_onto = _make_add(False), _make_add(True)


def make_combine(unroll: bool) -> Callable:
    """The sum over stages. Where their number is constant, their loop vanishes, and one pass over the components is best."""

    @kernel
    def combine(out, base, h, W, i, K, count):
        """out = base + h sum_{j < count} W[i, j] K[j]; a base of None is zero."""
        if unroll or out.size < _FEW:
            for k in range(out.size):
                total = 0.0
                for j in range(count):
                    if W[i, j] != 0.0:
                        total += W[i, j] * K[j, k]
                out[k] = h * total if base is None else base[k] + h * total
            return
        j = _next_used(W, i, 0, count)
        if base is None or j >= count:
            for k in range(out.size):
                out[k] = 0.0 if base is None else base[k]
        else:
            j = _add_to_base(out, base, h, W, i, K, j, count)
        while j < count:
            j = _add_onto(out, out, h, W, i, K, j, count)

    return combine


combine_loops, combine_unrolled = make_combine(False), make_combine(True)


@kernel
def combine_fours(out, base, h, W, i, K, count):
    """The same for a multiple of four components, four at a time."""
    for k in range(0, out.size, 4):
        total = side_by_side(0.0, 0.0, 0.0, 0.0)
        for j in range(count):
            if W[i, j] != 0.0:
                total = plus(total, W[i, j], load(row(K, j), k))
        store(out, k, plus(load(base, k), h, total))


@kernel
def interpolate(out, u, coefficients, x):
    """out = u + sum_p coefficients[p] x**(p+1), by Horner's rule."""
    degree = coefficients.shape[0]
    for k in range(out.size):
        total = 0.0
        for p in range(degree - 1, -1, -1):
            total = coefficients[p, k] + x * total
        out[k] = u[k] + x * total


@kernel
def _about_start(out):
    """Coefficients of powers of x from those of powers of x - 1/2, by Horner's scheme: rounding stays at the size of the latter."""
    degree = out.shape[0]
    for first in range(degree - 1):
        for p in range(degree - 2, first - 1, -1):
            for k in range(out.shape[1]):
                out[p, k] -= 0.5 * out[p + 1, k]


def make_interpolant(combine: Callable) -> Callable:
    @kernel
    def interpolant(frame, h, K, out):
        """out[p] = h sum_i P[i, p] K[i], the coefficient of x**(p+1)."""
        PT = slots.PT(frame)
        for p in range(PT.shape[0]):
            combine(row(out, p), None, h, PT, p, K, PT.shape[1])
        if slots.SETTING(frame)[slots.CENTRED] == 1:
            _about_start(out)

    return interpolant


class ExplicitStepper(Stepper):
    """The kernels of explicit Runge-Kutta steps of one tier; `inner_stages` are those before the last, `last_stages` others.

    Parameters
    ----------
    derivative : kernel
        `derivative(frame, t, y, dy, q) -> status`.
    stages : (s, top), optional
        For the fused tier: the index of the last stage of the step, and of its dense output, as constants.
    """

    def __init__(self, derivative: Callable, stages: tuple[int, int] | None = None):
        super().__init__()
        self.combine = combine = combine_loops if stages is None else combine_unrolled
        stage = _make_stage(derivative, combine)
        self.error_norm = _make_error_norm(combine)
        self.take = _make_take(unrolled(stage, stages and range(1, stages[0] + 1)))
        further = unrolled(stage, stages and range(stages[0] + 1, stages[1] + 1))
        self.dense_output = _make_dense_output(further, make_interpolant(combine))
        self.inner_stages = unrolled(stage, stages and range(1, stages[0]))
        self.last_stages = unrolled(stage, stages and range(stages[0], stages[1] + 1))


def _make_stage(derivative: Callable, combine: Callable) -> Callable:
    @kernel
    def stage(frame, t, h, t_last, V, i):
        """State of stage i into V[i], its slope into K[i]; stage `last` is taken at t_last exactly."""
        K, q = slots.K(frame), slots.Q(frame)
        t_i = t_last if i == slots.SETTING(frame)[slots.LAST_STAGE] else t + slots.C(frame)[i] * h
        target = row(V, i)
        combine(target, slots.Y(frame), h, slots.A(frame), i, K, i)
        q_row = slots.Q_ROWS(frame)[i]
        if derivative(frame, t_i, target, row(K, i), row(q, q_row)) == 0:
            return SUCCESS
        slots.CLOCK(frame)[slots.T_TRIED] = t_i
        return CALLBACK_RAISED

    return stage


def _make_take(stages_of_step: Callable) -> Callable:
    @kernel
    def take(frame, t, h, t_new, V):
        last = slots.SETTING(frame)[slots.LAST_STAGE]
        slots.COUNT(frame)[slots.DERIVATIVES] += last
        return stages_of_step(frame, t, h, t_new, V, 1, last)

    return take


def _make_dense_output(further_stages: Callable, interpolant: Callable) -> Callable:
    @kernel
    def dense_output(frame, t, h, t_new, V, out):
        setting = slots.SETTING(frame)
        last, top = setting[slots.LAST_STAGE], setting[slots.TOP]
        if top > last:
            slots.COUNT(frame)[slots.DERIVATIVES] += top - last
            if further_stages(frame, t, h, t_new, V, last + 1, top) != 0:
                return CALLBACK_RAISED
        interpolant(frame, h, slots.K(frame), out)
        return SUCCESS

    return dense_output


@exact_kernel
def scaled_squares(frame, error, y_new, rtol):
    """Sum of squares of error / (atol + rtol max(|y|, |y_new|)); NaN if the new state is not finite."""
    y, atol, total = slots.Y(frame), slots.ATOL(frame), 0.0
    for k in range(error.size):
        before, after = abs(y[k]), abs(y_new[k])
        scale = atol[k] + rtol * (after if after > before else before)
        if not (scale < math.inf and after < math.inf):
            return math.nan
        if error[k] != 0.0:
            ratio = error[k] / scale
            total += ratio * ratio
    return total


def _make_error_norm(combine: Callable) -> Callable:
    @exact_kernel
    def error_norm(frame, h, count, rtol, y_new, first, second, size):
        """Scaled norm of the step's error estimates; NaN if the new state is not finite.

        Root mean square of error / (atol + rtol max(|y|, |y_new|)) for a method with one estimate. With two, E. Hairer's blend
        |e5|^2 / sqrt(|e5|^2 + 0.01 |e3|^2) (Solving ODEs I, II.10).
        """
        E, K, error = slots.E(frame), slots.K(frame), slots.ERROR(frame)
        for r in range(E.shape[0]):
            combine(error, None, h, E, r, K, count)
            total = scaled_squares(frame, error, y_new, rtol)
            if math.isnan(total):
                return total
            if r == 0:
                first += total
            else:
                second += total
        size += error.size
        if not first > 0.0:  # also when there are no components at all
            return first
        if E.shape[0] == 1:
            return math.sqrt(first / size)
        return first / math.sqrt((first + 0.01 * second) * size)

    return error_norm


def make_transposed_stages(pull: Callable, stages: tuple[int, int] | None = None) -> tuple[Callable, Callable]:
    """The transpose of the stages.

    `pull(frame, t, u, w, u_bar, stage) -> status` gives u_bar = (df/du)^T w and keeps (df/dtheta)^T w.

    Two loops `(frame, t, h, t_new, V, first, last)`, over the stages of the step from s down to 1 and, to come before it, over the
    further ones of its dense output. Together they pull the cotangents of the state after the step (in LAM) and of K[1..] back to y
    and K[0]: they add to Y_BAR and K_BAR[0].
    """

    @kernel
    def transposed_stage(frame, t, h, t_new, V, i):
        """Stage i was f at V[i] = y + h sum_{j<i} A[i, j] K[j], which for the last stage is the state after the step."""
        A, K_bar = slots.A(frame), slots.K_BAR(frame)
        stage_bar, y_bar, lam = slots.STAGE_BAR(frame), slots.Y_BAR(frame), slots.LAM(frame)
        last = i == slots.SETTING(frame)[slots.LAST_STAGE]
        t_i = t_new if last else t + slots.C(frame)[i] * h
        if pull(frame, t_i, row(V, i), row(K_bar, i), stage_bar, i) != 0:
            return 1
        if last:
            for k in range(lam.size):
                stage_bar[k] += lam[k]
        for k in range(y_bar.size):
            y_bar[k] += stage_bar[k]
        for j in range(i):
            weight = h * A[i, j]
            if weight != 0.0:
                for k in range(y_bar.size):
                    K_bar[j, k] += weight * stage_bar[k]
        return 0

    if stages is None:
        loop = unrolled(transposed_stage, None, down=True)
        return loop, loop
    s, top = stages
    return unrolled(transposed_stage, range(s, 0, -1)), unrolled(transposed_stage, range(top, s, -1))
