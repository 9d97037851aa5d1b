"""Vector forms of functions of the C library, for LLVM to take where it vectorises a loop.

Numba turns `math.sin` into a call of the C library, and a loop with such a call is not vectorised, unless the call has the
attribute "vector-function-abi-variant", which names functions that do the same for several numbers at once (LLVM's language
reference, "Call Site Attributes"). These are made here. Where a loop is not vectorised, and for numbers left over behind the last
whole vector, it is the C library that is called.

The forms have no branches, but for arguments so large that they are handed to the C library. Their coefficients and reductions are
those of fdlibm (Sun Microsystems, 1993): k_sin.c, k_cos.c, e_rem_pio2.c, e_log.c.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from llvmlite.ir.instructions import CallInstrAttributes
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDTHS = (2, 4, 8)
_DOUBLE, _BITS = ir.DoubleType(), ir.IntType(64)
_SIGN = -(2**63)
_ROUND = 1.5 * 2.0**52  # x + _ROUND rounds x to an integer, which is left in the lowest bits of the sum


class Lanes:
    """Numbers, integers of 64 bits or truth values, one in each lane of a vector; its operators append instructions."""

    def __init__(self, builder: ir.IRBuilder, value: Any):
        self.builder, self.value = builder, value

    def constant(self, number: float) -> Lanes:
        return Lanes(self.builder, ir.Constant(self.value.type, [number] * self.value.type.count))

    def _same(self, other: Any) -> Any:
        return other.value if isinstance(other, Lanes) else self.constant(other).value

    def _made(self, of_numbers: str, of_integers: str, other: Any, *, swapped: bool = False) -> Lanes:
        pair = (self._same(other), self.value) if swapped else (self.value, self._same(other))
        if self.value.type.element == _DOUBLE:
            # contraction to fused multiply-adds is the one liberty taken; reordered, the arithmetic below would be wrong
            return Lanes(self.builder, getattr(self.builder, of_numbers)(*pair, flags=("contract",)))
        return Lanes(self.builder, getattr(self.builder, of_integers)(*pair))

    def __add__(self, other: Any) -> Lanes:
        return self._made("fadd", "add", other)

    def __sub__(self, other: Any) -> Lanes:
        return self._made("fsub", "sub", other)

    def __mul__(self, other: Any) -> Lanes:
        return self._made("fmul", "mul", other)

    def __rsub__(self, other: Any) -> Lanes:
        return self._made("fsub", "sub", other, swapped=True)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Any) -> Lanes:
        return self._made("fdiv", "sdiv", other)

    def __and__(self, other: Any) -> Lanes:
        return Lanes(self.builder, self.builder.and_(self.value, self._same(other)))

    def __or__(self, other: Any) -> Lanes:
        return Lanes(self.builder, self.builder.or_(self.value, self._same(other)))

    def __xor__(self, other: Any) -> Lanes:
        return Lanes(self.builder, self.builder.xor(self.value, self._same(other)))

    def __lshift__(self, other: Any) -> Lanes:
        return Lanes(self.builder, self.builder.shl(self.value, self._same(other)))

    def __rshift__(self, other: Any) -> Lanes:
        return Lanes(self.builder, self.builder.lshr(self.value, self._same(other)))

    def compared(self, operator: str, other: float) -> Lanes:
        """Truth values; of numbers false where there is NaN."""
        compare = self.builder.fcmp_ordered if self.value.type.element == _DOUBLE else self.builder.icmp_signed
        return Lanes(self.builder, compare(operator, self.value, self._same(other)))

    def chosen(self, one: Any, other: Any) -> Lanes:
        """`one` where this is true, else `other`, which may be a number."""
        return Lanes(self.builder, self.builder.select(self.value, one.value, one._same(other)))

    def bits(self) -> Lanes:
        return Lanes(self.builder, self.builder.bitcast(self.value, ir.VectorType(_BITS, self.value.type.count)))

    def number(self) -> Lanes:
        """The numbers of these bits."""
        return Lanes(self.builder, self.builder.bitcast(self.value, ir.VectorType(_DOUBLE, self.value.type.count)))


# --- sine and cosine --------------------------------------------------------------------------------------------------------

_FAR = 2.0**20  # above that k has too many bits
# pi / 2, in 33 bits each, so that their products with k are exact, and the rest
_PI_1, _PI_2, _PI_3 = (float.fromhex(one) for one in ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2ep-69"))
_PI_4 = float.fromhex("0x1.b839a252049c1p-104")
_S1, _S2, _S3 = -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04
_S4, _S5, _S6 = 2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10
_C1, _C2, _C3 = 4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05
_C4, _C5, _C6 = -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11


def _difference(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    """a - b, rounded, and what it has lost by that (Knuth)."""
    s = a - b
    other = s - a
    return s, (a - (s - other)) - (b + other)


def _reduced(x: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """x - k pi / 2 in two parts, |.| <= pi / 4 but for rounding, and an integer whose last bits are those of k; 0 <= x <= _FAR."""
    rounded = x * (2.0 / math.pi) + _ROUND
    k = rounded - _ROUND
    r, lost = _difference(x - k * _PI_1, k * _PI_2)
    r, more = _difference(r, k * _PI_3)
    low = (more - k * _PI_4) + lost
    y = r + low
    return y, (r - y) + low, rounded.bits()


def _turned(x: Lanes, low: Lanes, k: Lanes) -> Lanes:
    """sin(x + low + k pi / 2)."""
    z = x * x
    v = z * x
    sine = x - ((z * (0.5 * low - v * (_S2 + z * (_S3 + z * (_S4 + z * (_S5 + z * _S6))))) - low) - v * _S1)
    half = 0.5 * z
    w = 1.0 - half
    r = z * (_C1 + z * (_C2 + z * (_C3 + z * (_C4 + z * (_C5 + z * _C6)))))
    cosine = w + (((1.0 - w) - half) + (z * r - x * low))
    value = (k & 1).compared("==", 0).chosen(sine, cosine)
    return (value.bits() ^ ((k & 2) << 62)).number()


def _size(x: Lanes) -> Lanes:
    return (x.bits() & ~_SIGN).number()


def _sin(x: Lanes) -> Lanes:
    return (_turned(*_reduced(_size(x))).bits() ^ (x.bits() & _SIGN)).number()


def _cos(x: Lanes) -> Lanes:
    y, low, k = _reduced(_size(x))
    return _turned(y, low, k + 1)


# --- logarithm --------------------------------------------------------------------------------------------------------------

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_L1, _L2, _L3, _L4 = 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01
_L5, _L6, _L7 = 1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01
_SMALLEST = 2.0**-1022
_ROOT = 0x3FE6A09E << 32  # the bits of sqrt(1 / 2), to where they are needed
_ONE = 0x3FF << 52


def _log(x: Lanes) -> Lanes:
    """log(2^k (1 + f)) = k ln 2 + log(1 + f), with 1 + f between sqrt(1 / 2) and sqrt(2)."""
    is_subnormal = x.compared("<", _SMALLEST)
    bits = is_subnormal.chosen(x * 2.0**54, x).bits() + (_ONE - _ROOT)
    exponent = (bits >> 52) | (0x433 << 52)  # as the last bits of 2^52
    k = exponent.number() - is_subnormal.chosen(x.constant(2.0**52 + 1023.0 + 54.0), 2.0**52 + 1023.0)
    f = ((bits & (2**52 - 1)) + _ROOT).number() - 1.0
    s = f / (f + 2.0)
    z = s * s
    w = z * z
    r = w * (_L2 + w * (_L4 + w * _L6)) + z * (_L1 + w * (_L3 + w * (_L5 + w * _L7)))
    half = 0.5 * f * f
    y = k * _LN2_HIGH - ((half - (s * (half + r) + k * _LN2_LOW)) - f)
    y = x.compared("<", math.inf).chosen(y, x)
    return x.compared(">", 0.0).chosen(y, x.compared("==", 0.0).chosen(x.constant(-math.inf), math.nan))


# --- calls ------------------------------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """How a function is calculated in lanes, and beyond which size of x the C library is called."""

    rule: Callable[[Lanes], Lanes]
    far: float | None


_FORMS = {"sin": _Form(_sin, _FAR), "cos": _Form(_cos, _FAR), "log": _Form(_log, None)}


def _scalar(module: ir.Module, name: str) -> ir.Function:
    """The function of the C library."""
    return cgutils.get_or_insert_function(module, ir.FunctionType(_DOUBLE, [_DOUBLE]), name)


def _symbol(name: str, width: int) -> str:
    return f"adjode.{name}.{width}"


def _define(module: ir.Module, name: str, width: int) -> None:
    """Define the form for vectors of some width, with a mask of the lanes that count, unless the module has it."""
    if _symbol(name, width) in module.globals:
        return
    vector, form = ir.VectorType(_DOUBLE, width), _FORMS[name]
    function = ir.Function(module, ir.FunctionType(vector, [vector, ir.VectorType(ir.IntType(1), width)]), _symbol(name, width))
    function.linkage = "weak_odr"  # nothing calls it before loops are vectorised, and yet it is kept
    function.attributes.add("nounwind")
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    given, mask = (Lanes(builder, argument) for argument in function.args)
    x = mask.chosen(given, 1.0)
    y = form.rule(x)
    if form.far is not None:
        is_far = _size(x).compared(">", form.far).value
        near = builder.icmp_unsigned("==", builder.bitcast(is_far, ir.IntType(width)), ir.Constant(ir.IntType(width), 0))
        ready = y.value
        with builder.if_then(builder.not_(near), likely=False):
            called = ready
            for lane in range(width):
                one = builder.call(_scalar(module, name), [builder.extract_element(x.value, ir.Constant(_BITS, lane))])
                called = builder.insert_element(called, one, ir.Constant(_BITS, lane))
            builder.ret(builder.select(is_far, called, ready))
    builder.ret(y.value)


class _Attributes(CallInstrAttributes):
    """Attributes of a call that depends on nothing but its argument, and has vector forms."""

    def __init__(self, name: str):
        forms = (f"_ZGV_LLVM_M{width}v_{name}({_symbol(name, width)})" for width in WIDTHS)
        words = ("nounwind", "readnone", "willreturn", f'"vector-function-abi-variant"="{",".join(forms)}"')
        self._known = frozenset(words)
        super().__init__(words)


def _called(name: str) -> Callable:
    @intrinsic
    def call(typingctx, x):
        def codegen(context, builder, sig, args):
            for width in WIDTHS:
                _define(builder.module, name, width)
            result = builder.call(_scalar(builder.module, name), args)
            result.attributes = _Attributes(name)
            return result

        return types.float64(types.float64), codegen

    return call


sin, cos, log = map(_called, ("sin", "cos", "log"))
