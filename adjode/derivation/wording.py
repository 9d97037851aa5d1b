"""How expressions read."""

from __future__ import annotations

from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.nodes import Node

# how strongly operations bind
_TERNARY, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(10)


class Wording:
    """Texts of nodes, for a writer, which knows their names."""

    def __init__(self, writer: Any):
        self.writer = writer

    def named(self, node: Node) -> str | None:
        """The name of a node, if it has one here."""
        names = self.writer.names
        if node in names:
            return names[node]
        place = self.writer.placing.place_of(node, self.writer.scope)
        return None if place is None else names.get((node, place))

    def text(self, node: Node, level: int = 0) -> str:
        name = self.named(node)
        return self.expression(node, level) if name is None else name

    def expression(self, node: Node, level: int = 0) -> str:
        """The text of an operation, in parentheses where it binds less than what is around."""
        text, binds = getattr(self, f"_{node.op}")(node)
        return f"({text})" if binds < level else text

    def several(self, items: tuple[Node, ...]) -> str:
        texts = [self.text(item) for item in items]
        return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"

    def place(self, array: Node, indices: tuple[Node, ...], store: bool = False) -> str:
        """`array[indices]`."""
        if indices and array.op == "slice" and all(isinstance(item, Node) for item in array.args[1:]) and self.named(array) is None:
            return self.place(array.args[0], (*array.args[1:], *indices))
        text = self.text(array, _ATOM)
        if indices:
            return f"{text}[{', '.join(self.text(i) for i in indices)}]"
        if store and array.op == "slice" and self.named(array) is None and any(not isinstance(i, Node) for i in array.args[1:]):
            return text
        return f"{text}[:]" if store else text

    def range(self, loop: P.For) -> str:
        start, stop, step = (loop.start, loop.stop, loop.step) if not loop.backwards else turned(loop)
        texts = [self.text(end) for end in (start, stop, step)]
        if texts[2] != "1":
            return f"range({', '.join(texts)})"
        return f"range({texts[1]})" if texts[0] == "0" else f"range({texts[0]}, {texts[1]})"

    # --- each operation: its text, and how strongly it binds -----------------------------------------------------------------

    def _const(self, node: Node) -> tuple[str, int]:
        value = node.args[0]
        text = repr(value)
        if isinstance(value, float) and text in ("inf", "-inf", "nan"):
            text = f"{self.writer.numpy()}.{text}" if text[0] != "-" else f"-{self.writer.numpy()}.inf"
        return text, _SIGN if text.startswith("-") else _ATOM

    def _named(self, node: Node) -> tuple[str, int]:
        return node.args[0], _ATOM

    def _sym(self, node: Node) -> tuple[str, int]:
        return self.writer.name(node), _ATOM

    def _load(self, node: Node) -> tuple[str, int]:
        return self.place(node.args[0], node.args[1:]), _ATOM

    def _size(self, node: Node) -> tuple[str, int]:
        array, axis = node.args
        text = self.text(array, _ATOM)
        return (f"{text}.size" if len(array.shape) == 1 else f"{text}.shape[{axis}]"), _ATOM

    def _trips(self, node: Node) -> tuple[str, int]:
        ends = [N.value_of(end) for end in node.args]
        if None not in ends:
            return str(len(range(*ends))), _ATOM
        start, stop, step = (self.text(end) for end in node.args)
        return f"len(range({start}, {stop}" + (f", {step}))" if step != "1" else "))"), _ATOM

    def _add(self, node: Node) -> tuple[str, int]:
        a, b = node.args
        right = self.text(b, _SUM)
        if right.startswith("-"):
            return f"{self.text(a, _SUM)} - {right[1:]}", _SUM
        return f"{self.text(a, _SUM)} + {right}", _SUM

    def _sub(self, node: Node) -> tuple[str, int]:
        return f"{self.text(node.args[0], _SUM)} - {self.text(node.args[1], _PRODUCT)}", _SUM

    def _neg(self, node: Node) -> tuple[str, int]:
        return f"-{self.text(node.args[0], _PRODUCT)}", _SUM

    def _mul(self, node: Node) -> tuple[str, int]:
        a, b = node.args
        plain = b.op == "mul" and self.named(b) is None and not _has_division(b) and node.kind == "f"
        return f"{self.text(a, _PRODUCT)} * {self.text(b, _PRODUCT if plain else _SIGN)}", _PRODUCT

    def _div(self, node: Node) -> tuple[str, int]:
        return f"{self.text(node.args[0], _PRODUCT)} / {self.text(node.args[1], _SIGN)}", _PRODUCT

    def _floordiv(self, node: Node) -> tuple[str, int]:
        return f"{self.text(node.args[0], _PRODUCT)} // {self.text(node.args[1], _SIGN)}", _PRODUCT

    def _mod(self, node: Node) -> tuple[str, int]:
        return f"{self.text(node.args[0], _PRODUCT)} % {self.text(node.args[1], _SIGN)}", _PRODUCT

    def _pow(self, node: Node) -> tuple[str, int]:
        base = self.text(node.args[0], _ATOM)
        return f"{base} ** {self.text(node.args[1], _ATOM)}", _POWER

    def _call(self, node: Node) -> tuple[str, int]:
        _, text, *args = node.args
        first = text.split(".")[0]
        if first in ("np", "math") and "." in text:
            self.writer.module(first)
        return f"{text}({', '.join(self.text(arg) for arg in args)})", _ATOM

    def _taught(self, node: Node) -> tuple[str, int]:
        return f"{node.args[0]}({', '.join(self.text(arg) for arg in node.args[2:])})", _ATOM

    def _item(self, node: Node) -> tuple[str, int]:
        return f"{self.text(node.args[0], _ATOM)}[{node.args[1]}]", _ATOM

    def _compare(self, node: Node) -> tuple[str, int]:
        op, a, b = node.args
        return f"{self.text(a, _SUM)} {op} {self.text(b, _SUM)}", _COMPARE

    def _and(self, node: Node) -> tuple[str, int]:
        return f"{self.text(node.args[0], _AND)} and {self.text(node.args[1], _AND)}", _AND

    def _or(self, node: Node) -> tuple[str, int]:
        return f"{self.text(node.args[0], _OR)} or {self.text(node.args[1], _OR)}", _OR

    def _not(self, node: Node) -> tuple[str, int]:
        inside = node.args[0]
        if inside.op == "compare" and inside.args[0] in _OPPOSITE and self.named(inside) is None:
            op, a, b = inside.args
            return f"{self.text(a, _SUM)} {_OPPOSITE[op]} {self.text(b, _SUM)}", _COMPARE
        return f"not {self.text(inside, _NOT)}", _NOT

    def _where(self, node: Node) -> tuple[str, int]:
        condition, a, b = node.args
        if node.shape:
            return f"{self.writer.numpy()}.where({', '.join(self.text(x) for x in node.args)})", _ATOM
        return f"{self.text(a, _OR)} if {self.text(condition, _OR)} else {self.text(b, _OR)}", _TERNARY

    def _slice(self, node: Node) -> tuple[str, int]:
        array, *spec = node.args
        return f"{self.text(array, _ATOM)}[{', '.join(map(self._axis, spec))}]", _ATOM

    def _axis(self, item: Any) -> str:
        if isinstance(item, Node):
            return self.text(item)
        if item == "new":
            return f"{self.writer.numpy()}.newaxis"
        start, stop, step = ("" if end is None else self.text(end) for end in item[1:])
        return f"{start}:{stop}" + (f":{step}" if step else "")

    def _T(self, node: Node) -> tuple[str, int]:
        return f"{self.text(node.args[0], _ATOM)}.T", _ATOM

    def _reshape(self, node: Node) -> tuple[str, int]:
        return f"{self.text(node.args[0], _ATOM)}.reshape({self.several(node.args[1:])})", _ATOM

    def _matrix(self, node: Node) -> tuple[str, int]:
        array, function, *where = node.args
        return f"{function}({self.text(array)}, {', '.join(map(self.text, where))})", _ATOM

    def _dot(self, node: Node) -> tuple[str, int]:
        return f"{self.writer.numpy()}.dot({self.text(node.args[0])}, {self.text(node.args[1])})", _ATOM

    def _solve(self, node: Node) -> tuple[str, int]:
        return f"{self.writer.numpy()}.linalg.solve({', '.join(map(self.text, node.args))})", _ATOM

    def _outer(self, node: Node) -> tuple[str, int]:
        return f"{self.writer.numpy()}.outer({self.text(node.args[0])}, {self.text(node.args[1])})", _ATOM

    def _sum(self, node: Node) -> tuple[str, int]:
        array, axis = node.args
        text = self.text(array, _ATOM)
        return (f"{text}.sum()" if axis is None else f"{text}.sum({axis})"), _ATOM

    def _spread(self, node: Node) -> tuple[str, int]:
        bar, like = node.args
        np_ = self.writer.numpy()
        if not bar.shape:
            return f"{np_}.full({self.text(like, _ATOM)}.shape, {self.text(bar)})", _ATOM
        return f"{self.text(bar, _PRODUCT)} * {np_}.ones({self.text(like, _ATOM)}.shape)", _PRODUCT


def _has_division(node: Node) -> bool:
    """Whether a product contains a quotient, so that the order of its factors shows."""
    return node.op in ("div", "floordiv", "mod") or (node.op == "mul" and any(map(_has_division, node.args)))


_OPPOSITE = {"==": "!=", "!=": "=="}


def turned(loop: P.For) -> tuple[Node, Node, Node]:
    """The range that runs through a loop's indices the other way."""
    step = N.value_of(loop.step)
    if abs(step) == 1:
        last = N.sub(loop.stop, loop.step)
    else:
        trips = N.make("trips", (loop.start, loop.stop, loop.step), "i")
        last = N.add(loop.start, N.mul(N.sub(trips, N.I1), loop.step))
    return last, N.sub(loop.start, loop.step), N.const(-step)
