"""Functions to call inside `f` and `vjp`: tanh, exp, sin, cos and log that vectorise, and views of a vector as matrices.

Numba turns `math.tanh` into a call of the C library, one number at a time. A loop such as `for i in range(n): a[i] = tanh(z[i])` is
compiled to the vector instructions of the machine with the functions here, whatever flags the caller is compiled with: tanh and exp
have no branches and call nothing; sin, cos and log are those of the C library, with forms for several numbers at once, see
`adjode.compile.vectors`. Called from plain Python, each does what NumPy does.

For products of matrices Numba's own `np.dot(A, B, out)` calls the BLAS that SciPy brings, on views and transposed views alike and
without a copy; nothing is added to it here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, imputils
from numba.extending import intrinsic, overload

from adjode.compile import vectors
from adjode.compile.versions import counts_references

__all__ = ["as_matrix", "cos", "exp", "exp_into", "log", "sin", "tanh", "tanh_into"]

OF_NUMBERS = ("tanh", "exp", "sin", "cos", "log")  # those here that NumPy and `math` have by the same names

# Contraction to fused multiply-adds is the one liberty taken; reordered, the arithmetic below would be wrong. Stated here, the
# flags hold also where the caller is compiled with fastmath=True.
INLINED = {"error_model": "numpy", "nogil": True, "forceinline": True, "fastmath": {"contract"}, **counts_references(False)}
_inlined = njit(**INLINED, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent of one number.

    Parameters
    ----------
    x : float

    Returns
    -------
    float
        The error is below 2 units in the last place (ulp), and below 1 where |x| < 0.625. The result is exact at zeros of either
        sign, at subnormal numbers and at infinities; NaN gives NaN. Complex numbers use NumPy's function.

    Notes
    -----
    Below 0.625 a rational function, from S. L. Moshier's Cephes library (tanh.c). Above 1 - 2 / (exp(2 |x|) + 1), with
    exp(2 v) = (1 + tanh v) / (1 - tanh v) by the same rational function. Both take one division, and a selection in place of a
    branch.
    """
    return np.tanh(x)


def exp(x: Any) -> Any:
    """Exponential of one number.

    Parameters
    ----------
    x : float

    Returns
    -------
    float
        The error is below 1.1 units in the last place (ulp), or of the spacing of subnormal numbers if the result is one. The
        result is inf above 709.78 and 0 below -745.13; NaN gives NaN. Complex numbers use NumPy's function.

    Notes
    -----
    exp(x) = 2^k exp(r) with r = x - k ln 2, |r| <= ln(2) / 2 (Cody and Waite's reduction), and Taylor's series for exp(r).
    """
    return np.exp(x)


def sin(x: Any) -> Any:
    """Sine of one number, in radians.

    Parameters
    ----------
    x : float

    Returns
    -------
    float
        The error is below 1 unit in the last place (ulp) in loops that are vectorised, and otherwise that of the C library. NaN and
        infinities give NaN. Complex numbers use NumPy's function.

    Notes
    -----
    Polynomials and Cody and Waite's reduction by pi / 2, from fdlibm (k_sin.c, k_cos.c, e_rem_pio2.c). Numbers beyond 2^20 are
    passed to the C library.
    """
    return np.sin(x)


def cos(x: Any) -> Any:
    """Cosine of one number, in radians; see `sin`.

    Parameters
    ----------
    x : float

    Returns
    -------
    float
    """
    return np.cos(x)


def log(x: Any) -> Any:
    """Natural logarithm of one number.

    Parameters
    ----------
    x : float

    Returns
    -------
    float
        The error is below 1 unit in the last place (ulp) in loops that are vectorised, and otherwise that of the C library. Zeros
        give -inf, inf gives inf, and negative numbers and NaN give NaN. Complex numbers use NumPy's function.

    Notes
    -----
    The reduction to [sqrt(1/2), sqrt(2)] and the series in f / (2 + f) are those of fdlibm (e_log.c).
    """
    return np.log(x)


def tanh_into(x: np.ndarray, out: np.ndarray) -> None:
    """Overwrite `out` with the hyperbolic tangents of `x`.

    Parameters
    ----------
    x, out : C-contiguous arrays of the same shape
        They may be one array, but must not overlap otherwise.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    if x.size != out.size:
        raise ValueError("tanh_into: x and out have different sizes")
    np.tanh(x, out)


def exp_into(x: np.ndarray, out: np.ndarray) -> None:
    """Overwrite `out` with the exponentials of `x`.

    Parameters
    ----------
    x, out : C-contiguous arrays of the same shape
        They may be one array, but must not overlap otherwise.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    if x.size != out.size:
        raise ValueError("exp_into: x and out have different sizes")
    np.exp(x, out)


def as_matrix(x: np.ndarray, start: int, rows: int, columns: int) -> np.ndarray:
    """The `rows * columns` entries of a vector from `start` on, as a matrix, row after row. A view: nothing is copied.

    Parameters
    ----------
    x : (n,) array
        Such as `u`, `theta`, or `theta_bar` to write into.
    start, rows, columns : int

    Returns
    -------
    (rows, columns) array

    Raises
    ------
    ValueError
        If the matrix would extend beyond `x`.
    """
    if start < 0 or rows < 0 or columns < 0 or start + rows * columns > x.size:
        raise ValueError("as_matrix: the matrix extends beyond the vector")
    return x[start : start + rows * columns].reshape(rows, columns)


# --- compiled forms -------------------------------------------------------------------------------------------------------

_LOG2_E = 1.0 / math.log(2.0)
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")  # 32 bits: its product with k is exact
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_ROUND = 1.5 * 2.0**52  # x + _ROUND rounds x to an integer, which is left in the lowest bits of the sum
_SIGN = -(2**63)
# tanh(v) = v + v^3 P(v^2) / Q(v^2) for |v| <= 0.625, from Moshier's Cephes library (tanh.c)
_P0, _P1, _P2 = -1.61468768441708447952e3, -9.92877231001918586564e1, -9.64399179425052238628e-1
_Q0, _Q1, _Q2 = 4.84406305325125486048e3, 2.23548839060100448583e3, 1.12811678491632931402e2  # and z^3
# 1/2!, ..., 1/13!: the rest of the series is 1.2e-17 of expm1(r), a tenth of its rounding error
_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13 = (1.0 / math.factorial(k) for k in range(2, 14))


@intrinsic
def _bits(typingctx, x):
    """The bits of a float64 as an int64."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def _float(typingctx, bits):
    """The float64 of these bits."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@_inlined
def _power_of_two(k):
    """2^k, for an integer k in -1022..1023 that has been rounded by adding _ROUND."""
    return _float((_bits(k) + 1023) << 52)


@_inlined
def _expm1_tail(r):
    """exp(r) - 1 - r for |r| <= ln(2) / 2."""
    low = _C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))
    high = _C8 + r * (_C9 + r * (_C10 + r * (_C11 + r * (_C12 + r * _C13))))
    z = r * r
    return z * (low + (z * z * z) * high)


@_inlined
def _tanh(x):
    a = _float(_bits(x) & ~_SIGN)
    a = 20.0 if a > 20.0 else a  # where tanh is 1; NaN stays
    small = a < 0.625

    # a = v + k ln(2) / 2, and tanh(v) = v + w / q
    rounded = a * (2.0 * _LOG2_E) + _ROUND
    k = 0.0 if small else rounded - _ROUND
    v = (a - k * (0.5 * _LN2_HIGH)) - k * (0.5 * _LN2_LOW)
    z = v * v
    q = ((z + _Q2) * z + _Q1) * z + _Q0
    w = v * (z * ((_P2 * z + _P1) * z + _P0))

    # exp(2 v) = (q + b) / (q - b) and exp(2 a) = 2^k exp(2 v) make of 1 - 2 / (exp(2 a) + 1) one quotient
    b = v * q + w
    minus, plus = q - b, q + b
    numerator = w if small else -2.0 * minus
    denominator = q if small else _power_of_two(rounded) * plus + minus
    y = (v if small else 1.0) + numerator / denominator
    return _float(_bits(y) | (_bits(x) & _SIGN))


@_inlined
def _exp(x):
    x = 710.0 if x > 710.0 else x  # NaN stays
    x = -746.0 if x < -746.0 else x
    rounded = x * _LOG2_E + _ROUND
    k = rounded - _ROUND
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    # 2^k in two factors: neither overflows, and a subnormal result is rounded once
    half = 0.5 * k + _ROUND
    rest = (k - (half - _ROUND)) + _ROUND
    return (_power_of_two(half) * (1.0 + (r + _expm1_tail(r)))) * _power_of_two(rest)


def _overload_scalar(function, compiled, numpy_function):
    @overload(function, jit_options=INLINED)
    def choose(x):
        if isinstance(x, (types.Float, types.Integer)):
            return lambda x: compiled(float(x))
        if isinstance(x, types.Complex):
            return lambda x: numpy_function(x)


def _overload_array(function, scalar):
    @overload(function, jit_options={"error_model": "numpy", "nogil": True})
    def choose(x, out):
        def loop(x, out):
            if x.size != out.size:
                raise ValueError("x and out have different sizes")
            source, target = x.reshape(x.size), out.reshape(out.size)
            # A loop from one array to another is vectorised only for arrays that do not overlap, a loop over one array always
            if x.ctypes.data != out.ctypes.data:
                target[:] = source
            for i in range(target.size):
                target[i] = scalar(target[i])

        return loop


for _function, _compiled in ((tanh, _tanh), (exp, _exp), (sin, vectors.sin), (cos, vectors.cos), (log, vectors.log)):
    _overload_scalar(_function, _compiled, getattr(np, _function.__name__))
_overload_array(tanh_into, tanh)
_overload_array(exp_into, exp)


@intrinsic
def _matrix(typingctx, x, start, rows, columns):
    """`as_matrix`, unchecked: a slice that is reshaped would call a C function, which costs more than what is read of it."""
    result = x.copy(ndim=2)

    def codegen(context, builder, sig, args):
        from numba.np.arrayobj import populate_array  # which takes longer to import than all of this package

        (_, start, rows, columns), source = args, context.make_array(sig.args[0])(context, builder, args[0])
        stride = cgutils.unpack_tuple(builder, source.strides)[0]
        data = cgutils.pointer_add(builder, source.data, builder.mul(start, stride), return_type=source.data.type)
        matrix = context.make_array(result)(context, builder)
        populate_array(
            matrix,
            data=data,
            shape=[rows, columns],
            strides=[builder.mul(columns, stride), stride],
            itemsize=source.itemsize,
            meminfo=source.meminfo,
            parent=source.parent,
        )
        return imputils.impl_ret_borrowed(context, builder, result, matrix._getvalue())

    return result(x, types.intp, types.intp, types.intp), codegen


@overload(as_matrix, jit_options={"error_model": "numpy", "nogil": True})
def _as_matrix(x, start, rows, columns):
    def view(x, start, rows, columns):
        if start < 0 or rows < 0 or columns < 0 or start + rows * columns > x.size:
            raise ValueError("as_matrix: the matrix extends beyond the vector")
        return _matrix(x, start, rows, columns)

    return view
