"""The derivatives of single operations: what each argument gains from the cotangent of the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from adjode.derivation import nodes as N
from adjode.derivation.library import STEPS, sibling
from adjode.derivation.nodes import Node
from adjode.derivation.refusals import Refusal

Pushed = Iterator[tuple[Node, Node]]


def pushed(node: Node, bar: Node, value: Callable[[Node], Node]) -> Pushed:
    """Pairs of an argument and what its cotangent gains; `value(node)` is how a value is had again."""
    for arg, gain in gains(node, bar, value):
        yield arg, gain if node.op in _ARRAYS else gathered(gain, arg)


def gains(node: Node, bar: Node, value: Callable[[Node], Node]) -> Pushed:
    """The same, where an argument that is broadcast gains once for each entry of the result."""
    if node.op == "call":
        key, text, *args = node.args
        yield from _call(key, text, node, args, bar, value)
    elif node.op in _RULES:
        yield from _RULES[node.op](node, bar, value)
    elif node.kind == "f":
        raise Refusal(f"an operation `{node.op}` has no rule", "write it in another way")


def _mul(node: Node, bar: Node, value: Callable) -> Pushed:
    a, b = node.args
    if a is b:
        yield a, N.mul(N.mul(N.const(2.0), a), bar)
        return
    yield a, N.mul(bar, b)
    yield b, N.mul(bar, a)


def _div(node: Node, bar: Node, value: Callable) -> Pushed:
    a, b = node.args
    if not b.deps:
        yield a, N.div(bar, b)
    elif not N.value_of(a):  # not a number, or zero
        inverse = N.div(N.ONE, b)
        each = N.mul(bar, inverse)
        yield a, each
        yield b, N.neg(N.mul(N.mul(each, a), inverse))
    else:
        y = value(node)
        yield b, N.neg(N.div(N.mul(N.mul(bar, y), y), a))


def _pow(node: Node, bar: Node, value: Callable) -> Pushed:
    a, b = node.args
    p = N.value_of(b)
    if p == 2:
        yield a, N.mul(N.mul(N.const(2.0), a), bar)
    elif b.op == "const":
        gain = N.mul(N.mul(N.as_float(b), N.power(a, N.const(p - 1))), bar)
        yield a, _guarded(bar, a, gain) if 0 < p < 1 else gain
    else:
        yield a, N.mul(N.mul(b, N.power(a, N.sub(b, N.ONE if b.kind == "f" else N.I1))), bar)
    if b.kind == "f" and b.op != "const":
        # 0 ** p does not change with p: 0 * log(0) is 0
        log = N.call("log", "math.log" if not node.shape else "np.log", N.where(N.compare("!=", a, N.ZERO), a, N.ONE))
        yield b, N.mul(N.mul(value(node), log), bar)


def _where(node: Node, bar: Node, value: Callable) -> Pushed:
    condition, a, b = node.args
    yield a, N.where(condition, bar, N.ZERO)
    yield b, N.where(condition, N.ZERO, bar)


def _mod(node: Node, bar: Node, value: Callable) -> Pushed:
    a, b = node.args
    yield a, bar
    yield b, N.neg(N.mul(N.whole("floordiv", a, b), bar))


def _spread_sum(node: Node, bar: Node, value: Callable) -> Pushed:
    array, axis = node.args
    if axis:
        spec: list = [("s", None, None, None)] * len(bar.shape)
        spec.insert(axis, "new")
        bar = N.make("slice", (bar, *spec), "f", (*bar.shape[:axis], N.I1, *bar.shape[axis:]))
    yield array, spread(bar, array)


def spread(bar: Node, like: Node) -> Node:
    """`bar`, the same for each entry along the axes that `like` has besides."""
    return make_spread(bar, like)


def make_spread(bar: Node, like: Node) -> Node:
    return N.make("spread", (bar, like), "f", like.shape)


def _spread(node: Node, bar: Node, value: Callable) -> Pushed:
    yield node.args[0], gathered(bar, node.args[0])


def _dot(node: Node, bar: Node, value: Callable) -> Pushed:
    a, b = node.args
    if len(a.shape) == 1 and len(b.shape) == 1:
        yield a, N.mul(bar, b)
        yield b, N.mul(bar, a)
    elif len(b.shape) == 1:
        yield a, N.outer(bar, b)
        yield b, N.dot(N.transpose(a), bar)
    elif len(a.shape) == 1:
        yield a, N.dot(b, bar)
        yield b, N.outer(a, bar)
    else:
        yield a, N.dot(bar, N.transpose(b))
        yield b, N.dot(N.transpose(a), bar)


def _solve(node: Node, bar: Node, value: Callable) -> Pushed:
    a, b = node.args
    y, b_bar = value(node), N.solve(N.transpose(a), bar)
    yield b, b_bar
    yield a, N.neg(N.outer(b_bar, y) if len(b.shape) == 1 else N.dot(b_bar, N.transpose(y)))


def _outer(node: Node, bar: Node, value: Callable) -> Pushed:
    a, b = node.args
    yield a, N.dot(bar, b)
    yield b, N.dot(N.transpose(bar), a)


def _T(node: Node, bar: Node, value: Callable) -> Pushed:
    yield node.args[0], N.transpose(bar)


def _taught(node: Node, bar: Node, value: Callable) -> Pushed:
    name, (vjp, jvp), *args = node.args
    if vjp is not None:
        gains = N.make("taught", (vjp, (None, None), *args, bar), "f")
        for k, arg in enumerate(args):
            yield arg, gains if len(args) == 1 else N.make("item", (gains, k), "f")
    elif jvp is not None:
        for k, arg in enumerate(args):
            units = [N.ONE if j == k else N.ZERO for j in range(len(args))]
            yield arg, N.mul(bar, N.make("taught", (jvp, (None, None), *args, *units), "f"))
    else:
        raise Refusal(f"the derivative of `{name}` is not known", "use its function where it has been taught a rule of its own")


def _both(node: Node, bar: Node, value: Callable) -> Pushed:
    yield node.args[0], bar
    yield node.args[1], bar if node.op == "add" else N.neg(bar)


_ARRAYS = {"dot", "solve", "outer", "T", "sum", "spread"}
_RULES: dict[str, Callable[[Node, Node, Callable], Pushed]] = {
    "add": _both,
    "sub": _both,
    "neg": lambda node, bar, value: iter([(node.args[0], N.neg(bar))]),
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "where": _where,
    "mod": _mod,
    "floordiv": lambda node, bar, value: iter(()),
    "sum": _spread_sum,
    "spread": _spread,
    "dot": _dot,
    "solve": _solve,
    "outer": _outer,
    "taught": _taught,
    "T": _T,
}


def gathered(bar: Node, arg: Node) -> Node:
    """The cotangent of an argument that was broadcast: sums over the axes that it does not have."""
    if not arg.shape:
        return N.total(bar) if bar.shape else bar
    while len(bar.shape) > len(arg.shape):
        bar = N.total(bar, 0)
    for axis, (length, own) in enumerate(zip(bar.shape, arg.shape, strict=True)):
        if N.value_of(own) == 1 and N.value_of(length) != 1:
            if len(bar.shape) == 1:
                return make_spread(N.total(bar), arg)
            summed = N.total(bar, axis)
            spec: list = [("s", None, None, None)] * len(summed.shape)
            spec.insert(axis, "new")
            bar = N.make("slice", (summed, *spec), "f", (*bar.shape[:axis], N.I1, *bar.shape[axis + 1 :]))
    return bar


# --- functions of the library -------------------------------------------------------------------------------------------------


def _call(key: str, text: str, node: Node, args: list[Node], bar: Node, value: Callable) -> Pushed:
    if key in STEPS:
        return
    if key not in CALLS:
        raise Refusal(
            f"the derivative of `{text}` is not known",
            "write it with other functions, or declare its derivative with adjode.derivative",
        )

    def f(name: str, *arguments: Node) -> Node:
        return N.call(name, sibling("np." if node.shape else text, name), *arguments)

    yield from zip(args, CALLS[key](bar, value(node), f, *args), strict=True)


def _c(number: float) -> Node:
    return N.const(number)


def _square(x: Node) -> Node:
    return N.mul(x, x)


def _over(bar: Node, x: Node) -> Node:
    return N.div(bar, x)


def _over_root(bar: Node, x: Node, y: Node) -> Node:
    """`bar / y` with y = sqrt(x), where x / y is y."""
    less = _replaced(bar, x, y)
    return _guarded(bar, x, N.div(bar, y)) if less is None else less


def _guarded(bar: Node, x: Node, gain: Node) -> Node:
    """A gain that is infinite at x = 0.

    Where x is a state or a parameter that is right, unless nothing is handed on. Where it is calculated, as the square of a length
    is, the derivative of what it is calculated from is zero.
    """
    return N.where(N.compare("!=", bar if x.op in ("sym", "load") else x, N.ZERO), gain, N.ZERO)


def _replaced(product: Node, x: Node, y: Node) -> Node | None:
    """A product in which one factor x has become y; None if there is none."""
    if product is x:
        return y
    if product.op == "neg":
        inside = _replaced(product.args[0], x, y)
        return None if inside is None else N.neg(inside)
    if product.op == "mul" and not product.shape:
        a, b = product.args
        for one, other in ((a, b), (b, a)):
            inside = _replaced(one, x, y)
            if inside is not None:
                return N.mul(inside, other)
    return None


def _max(bar: Node, y: Node, f: Callable, a: Node, b: Node) -> tuple[Node, Node]:
    larger = N.compare(">=", a, b)
    return N.where(larger, bar, N.ZERO), N.where(larger, N.ZERO, bar)


def _min(bar: Node, y: Node, f: Callable, a: Node, b: Node) -> tuple[Node, Node]:
    smaller = N.compare("<=", a, b)
    return N.where(smaller, bar, N.ZERO), N.where(smaller, N.ZERO, bar)


def _atan2(bar: Node, y: Node, f: Callable, a: Node, b: Node) -> tuple[Node, Node]:
    each = N.div(bar, N.add(_square(a), _square(b)))
    return N.mul(each, b), N.neg(N.mul(each, a))


def _hypot(bar: Node, y: Node, f: Callable, a: Node, b: Node) -> tuple[Node, Node]:
    each = N.where(N.compare("!=", y, N.ZERO), N.div(bar, y), N.ZERO)
    return N.mul(each, a), N.mul(each, b)


def _copysign(bar: Node, y: Node, f: Callable, a: Node, b: Node) -> tuple[Node, Node]:
    same = N.compare("==", y, a)
    return N.where(same, bar, N.neg(bar)), N.ZERO


# bar, the value y, other functions of the library by name, the arguments -> a gain for each argument
CALLS: dict[str, Callable] = {
    "sin": lambda bar, y, f, x: (N.mul(f("cos", x), bar),),
    "cos": lambda bar, y, f, x: (N.neg(N.mul(f("sin", x), bar)),),
    "tan": lambda bar, y, f, x: (N.mul(N.add(N.ONE, _square(y)), bar),),
    "exp": lambda bar, y, f, x: (N.mul(bar, y),),
    "exp2": lambda bar, y, f, x: (N.mul(_c(math.log(2.0)), N.mul(y, bar)),),
    "expm1": lambda bar, y, f, x: (N.mul(N.add(y, N.ONE), bar),),
    "log": lambda bar, y, f, x: (_over(bar, x),),
    "log2": lambda bar, y, f, x: (_over(bar, N.mul(_c(math.log(2.0)), x)),),
    "log10": lambda bar, y, f, x: (_over(bar, N.mul(_c(math.log(10.0)), x)),),
    "log1p": lambda bar, y, f, x: (_over(bar, N.add(N.ONE, x)),),
    "sqrt": lambda bar, y, f, x: (N.mul(_c(0.5), _over_root(bar, x, y)),),
    "cbrt": lambda bar, y, f, x: (_over(bar, N.mul(_c(3.0), _square(y))),),
    "tanh": lambda bar, y, f, x: (N.mul(bar, N.sub(N.ONE, _square(y))),),
    "sinh": lambda bar, y, f, x: (N.mul(f("cosh", x), bar),),
    "cosh": lambda bar, y, f, x: (N.mul(f("sinh", x), bar),),
    "asin": lambda bar, y, f, x: (_over(bar, f("sqrt", N.sub(N.ONE, _square(x)))),),
    "acos": lambda bar, y, f, x: (N.neg(_over(bar, f("sqrt", N.sub(N.ONE, _square(x))))),),
    "atan": lambda bar, y, f, x: (_over(bar, N.add(N.ONE, _square(x))),),
    "asinh": lambda bar, y, f, x: (_over(bar, f("sqrt", N.add(_square(x), N.ONE))),),
    "acosh": lambda bar, y, f, x: (_over(bar, f("sqrt", N.sub(_square(x), N.ONE))),),
    "atanh": lambda bar, y, f, x: (_over(bar, N.sub(N.ONE, _square(x))),),
    "erf": lambda bar, y, f, x: (N.mul(N.mul(_c(2.0 / math.sqrt(math.pi)), f("exp", N.neg(_square(x)))), bar),),
    "erfc": lambda bar, y, f, x: (N.neg(N.mul(N.mul(_c(2.0 / math.sqrt(math.pi)), f("exp", N.neg(_square(x)))), bar)),),
    "deg2rad": lambda bar, y, f, x: (N.mul(_c(math.pi / 180.0), bar),),
    "radians": lambda bar, y, f, x: (N.mul(_c(math.pi / 180.0), bar),),
    "rad2deg": lambda bar, y, f, x: (N.mul(_c(180.0 / math.pi), bar),),
    "degrees": lambda bar, y, f, x: (N.mul(_c(180.0 / math.pi), bar),),
    "float": lambda bar, y, f, x: (bar,),
    "abs": lambda bar, y, f, x: (N.mul(bar, N.call("sign", "np.sign", x)),),
    "max": _max,
    "min": _min,
    "atan2": _atan2,
    "hypot": _hypot,
    "copysign": _copysign,
    "logaddexp": lambda bar, y, f, a, b: (N.mul(f("exp", N.sub(a, y)), bar), N.mul(f("exp", N.sub(b, y)), bar)),
    "fmod": lambda bar, y, f, a, b: (bar, N.neg(N.mul(f("trunc", N.div(a, b)), bar))),
}
