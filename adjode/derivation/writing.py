"""From a program to text, as a person would write it."""

from __future__ import annotations

import keyword
import math
import re
from typing import Any

import numpy as np

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.dependence import apart
from adjode.derivation.nodes import Node
from adjode.derivation.placing import Placing, Scope, is_named
from adjode.derivation.refusals import Refusal
from adjode.derivation.wording import Wording

_RESERVED = {"np", "math", "range", "len", "reversed", "min", "max", "abs", "int", "float", "bool", "round", "pow"} | set(
    keyword.kwlist
)


class Writer:
    """Writes one function.

    Parameters
    ----------
    space : dict
        The names that the text may use; those that it needs besides are added.
    hints : dict of str
        What nodes are called.
    """

    def __init__(self, space: dict[str, Any], hints: dict[Node, str]):
        self.space, self.hints = space, hints
        self.lines: list[str] = []
        self.names: dict[Any, str] = {}
        self.shows: dict[Node, set[Node]] = {}  # the parts of memory that stand in the place of a symbol
        self.inlined: set[Node] = set()  # whose text stands where they are used, and makes an array of its own
        self.kinds: dict[str, tuple] = {}
        self.taken: list[set[str]] = [set(space) | _RESERVED]
        self.wording = Wording(self)

    def function(self, name: str, arguments: dict[str, Node], block: P.Block, returned: Node | None = None) -> str:
        self.placing = Placing(block, self.hints, returned)
        self.done: dict[Scope, set[Node]] = {}
        for argument, symbol in arguments.items():
            self.names[symbol] = argument
            self.taken[0].add(argument)
        for symbol, hint in self.hints.items():
            if hint in self.space and symbol.op == "sym" and symbol not in self.names and self._is_table(symbol, hint):
                self.names[symbol] = hint
        self.lines.append(f"def {name}({', '.join(arguments)}):")
        self.block(block, 1)
        if returned is not None:
            self._ends([returned], block, 1)
            self.line(1, f"return {self.text(returned)}")
        elif len(self.lines) == 1:
            self.line(1, "pass")
        return "\n".join(self.lines) + "\n"

    def _is_table(self, symbol: Node, hint: str) -> bool:
        return isinstance(self.space[hint], np.ndarray) and bool(symbol.shape)

    # --- names ------------------------------------------------------------------------------------------------------------------

    def module(self, name: str) -> str:
        """What the text calls a module."""
        module = {"np": np, "math": math}[name]
        if self.space.setdefault(name, module) is not module:
            raise Refusal(f"`{name}` is not the module {module.__name__}", "use this name for the module alone")
        return name

    def numpy(self) -> str:
        return self.module("np")

    def name(self, node: Any, hint: str | None = None) -> str:
        """A name for what is defined here."""
        hint = hint or self.hints.get(node) or "v"
        kind = (node.kind, len(node.shape))
        candidate, k = hint, 1
        while any(candidate in taken for taken in self.taken) or self.kinds.get(candidate, kind) != kind or candidate in self.space:
            k += 1
            candidate = f"{hint}_{k}" if hint != "v" else f"v{k}"
        # an array that is made in a branch may be read in the same branch on the way back
        self.taken[0 if kind[1] else -1].add(candidate)
        self.kinds[candidate] = kind
        self.names[node] = candidate
        return candidate

    # --- blocks -----------------------------------------------------------------------------------------------------------------

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def text(self, node: Node, level: int = 0) -> str:
        return self.wording.text(node, level)

    def block(self, block: P.Block, depth: int, ends: list[Node] | None = None) -> None:
        scope = self.placing.scopes[block]
        self.scope = scope
        self.done[scope] = set()
        for k, statement in enumerate(block.statements):
            for later in _stores_from(block.statements, k):  # what is stored is calculated before anything is
                self.prepare_statement(later, depth)
            getattr(self, f"_{type(statement).__name__.lower()}")(statement, depth, block.statements[k + 1 :])
            self.scope = scope

    def prepare_statement(self, statement: P.Statement, depth: int) -> None:
        """Write down what a statement needs, also inside of it, and what belongs here."""
        todo = [(statement, self.scope)]
        for one, scope in todo:
            nodes = list(one.uses)
            if isinstance(one, (P.For, P.While)):
                inside = self.placing.scopes[one.body]
                for node in nodes:
                    self.prepare(node, scope, depth)
                todo += [(s, inside) for s in one.body.statements]
                for node in [c.next for c in one.carried] + ([one.condition] if isinstance(one, P.While) else []):
                    self.prepare(node, inside, depth)
                continue
            for node in nodes:
                self.prepare(node, scope, depth)
            if isinstance(one, P.If):
                for side, ends in one.sides:
                    inside = self.placing.scopes[side]
                    todo += [(s, inside) for s in side.statements]
                    for node in ends:
                        self.prepare(node, inside, depth)

    def prepare(self, node: Node, scope: Scope, depth: int) -> None:
        """Write down the named expressions of this block that a node contains which is needed in a scope inside."""
        if node.op in ("sym", "const", "named"):
            return
        place = self.placing.place_of(node, scope) or scope
        if place is self.scope:
            if node in self.done[place]:
                return
            self.done[place].add(node)
        elif place not in self._inside_of_here(place):
            return
        for arg in node.nodes:
            self.prepare(arg, place, depth)
        if place is self.scope and self.is_named(node, place):
            value = self.wording.expression(node, 0)
            self.line(depth, f"{self.name_of(node, place)} = {value}")

    def _inside_of_here(self, place: Scope) -> list[Scope]:
        chain = list(place.chain())
        return chain if self.scope in chain else []

    def name_of(self, node: Node, place: Scope) -> str:
        hint = self.hints.get(node) or (self._entry(node) if node.op == "load" else None)
        name = self.name(node, hint)
        del self.names[node]
        self.names[node, place] = name
        return name

    def _entry(self, node: Node) -> str | None:
        """`lam_i` for `lam[i]`, and for `lam[2 * n + i]`."""
        indices, base = " ".join(self.text(i) for i in node.args[1:]), self.names.get(node.args[0])
        whole, words = re.sub(r"\W+", "", indices), re.findall(r"\b[A-Za-z]\w*", indices)
        place = whole if len(whole) < 8 else words[-1] if words else None
        return None if place is None or base is None or not base.isidentifier() else f"{base}_{place}"

    def is_named(self, node: Node, place: Scope) -> bool:
        key = (node, place)
        return is_named(node, self.placing.count.get(key, 0), key in self.placing.inner, node in self.hints, place.is_loop)

    # --- statements ---------------------------------------------------------------------------------------------------------------

    def _let(self, statement: P.Let, depth: int, rest: list) -> None:
        value = self.text(statement.value)
        once = self.placing.symbol_uses.get(statement.symbol, 0) == 1
        if once and rest and any(node is statement.symbol for node in rest[0].uses) and not rest[0].blocks:
            self.names[statement.symbol] = value
            if statement.value.op not in ("sym", *N.VIEWS):
                self.inlined.add(statement.symbol)
            self.shows[statement.symbol] = self.shown_by(statement.value)
        else:
            self.line(depth, f"{self.name(statement.symbol)} = {value}")

    def _read(self, statement: P.Read, depth: int, rest: list) -> None:
        text = self.wording.place(statement.array, statement.indices)
        if not statement.indices or (self.placing.symbol_uses.get(statement.symbol, 0) == 1 and _is_used_at_once(statement, rest)):
            self.names[statement.symbol] = text
            self.shows[statement.symbol] = {statement.array}
        else:
            self.line(depth, f"{self.name(statement.symbol)} = {text}")

    def _alloc(self, statement: P.Alloc, depth: int, rest: list) -> None:
        symbol, fill, np_ = statement.symbol, statement.fill, self.numpy()
        if fill is not None and fill.shape:
            exists = (fill.op in ("sym", *N.VIEWS) or self._has_name(fill)) and fill not in self.inlined
            text = f"{self.text(fill, 9)}.copy()" if exists else self.text(fill)
            self.line(depth, f"{self.name(symbol)} = {text}")
            return
        shape = self.wording.several(symbol.shape)
        dtype = ", np.int64" if statement.dtype == "i" else ", np.bool_" if statement.dtype == "b" else ""
        dtype = dtype.replace("np", np_)
        if fill is None:
            made = f"{np_}.empty({shape}{dtype})"
        elif N.is_zero(fill):
            made = f"{np_}.zeros({shape}{dtype})"
        else:
            made = f"{np_}.full({shape}, {self.text(fill)})"
        self.line(depth, f"{self.name(symbol)} = {made}")

    def _store(self, statement: P.Store, depth: int, rest: list) -> None:
        place = self.wording.place(statement.array, statement.indices, store=True)
        value, sign = statement.value, ""
        if value.op == "spread" and not self._has_name(value):
            value = value.args[0]
        if not statement.indices and value.op == "dot" and not statement.adds and value.shape and self._takes_product(statement):
            target = self.wording.place(statement.array, ())
            self.line(depth, f"{self.numpy()}.dot({self.text(value.args[0])}, {self.text(value.args[1])}, {target})")
            return
        if statement.adds:
            sign = "+"
            if value.op == "neg" and not self._has_name(value):
                value, sign = value.args[0], "-"
            whole = self.wording.place(statement.array, statement.indices)
            if whole.isidentifier() and value.shape:  # compiles in a third of the time of `x[:] += y`
                name = f"{self.numpy()}.{'add' if sign == '+' else 'subtract'}"
                self.line(depth, f"{name}({whole}, {self.text(value)}, {whole})")
                return
        self.line(depth, f"{place} {sign}= {self.text(value)}")

    def _takes_product(self, statement: P.Store) -> bool:
        """Whether `np.dot` can write into an array: it lies in one piece, and is no factor."""
        target = statement.array
        factors = [array for array in self.shown_by(statement.value) if N.root(array) is N.root(target)]
        return N.is_contiguous(target) and all(apart(array, target) for array in factors)

    def shown_by(self, value: Node) -> set[Node]:
        """The memory that the text of an expression reads, or parts of it."""
        if value.op == "sym" or (value.op in N.VIEWS and N.root(value).op == "sym"):
            return self.shows.get(N.root(value), {value})
        return set().union(*map(self.shown_by, value.nodes))

    def _has_name(self, node: Node) -> bool:
        return self.wording.named(node) is not None

    def _if(self, statement: P.If, depth: int, rest: list) -> None:
        names = [self._result_name(statement, r, depth) for r in statement.results]
        condition = self.text(statement.condition, 1)
        sides = []
        for block, ends in statement.sides:
            start = len(self.lines)
            self.taken.append(set())
            self.block(block, depth + 1)
            self._ends(ends, block, depth + 1)
            self._assign_all(list(zip(names, ends, strict=True)), depth + 1)
            self.taken.pop()
            sides.append(self.lines[start:])
            del self.lines[start:]
        for r, name in zip(statement.results, names, strict=True):
            self.names[r.symbol] = name
        then, other = sides
        single = (
            [side for side in sides if len(side) == 1 and side[0].strip().startswith(f"{names[0]} = ")] if len(names) == 1 else []
        )
        if len(single) == 2:
            a, b = (side[0].strip().split(" = ", 1)[1] for side in sides)
            if " if " not in a + b:
                self.line(depth, f"{names[0]} = {a} if {condition} else {b}")
                return
        if not then and other:
            self.line(depth, f"if {self.text(N.negated(statement.condition))}:")
            self.lines += other
        elif then:
            self.line(depth, f"if {condition}:")
            self.lines += then
            if other:
                self.line(depth, "else:")
                self.lines += other

    def _ends(self, ends: list[Node], block: P.Block, depth: int) -> None:
        """Write down the named expressions that the values at the end of a block need."""
        self.scope = self.placing.scopes[block]
        for end in ends:
            self.prepare(end, self.scope, depth)

    def _result_name(self, statement: P.If, result: P.Result, depth: int) -> str:
        """The variable that a branch decides: that which one side leaves as it was, where nobody else needs it."""
        for kept in (result.other, result.then):
            if kept.op == "sym" and self._is_own(kept):
                if self.placing.is_used_only(kept, (result, statement.then), (result, statement.other)):
                    return self.names[kept]
        for kept, changed in ((result.other, result.then), (result.then, result.other)):
            if changed.op in ("add", "sub") and changed.args[0] is kept and kept.op == "const":
                name = self.name(result.symbol)
                self.line(depth, f"{name} = {self.text(kept)}")
                return name
        return self.name(result.symbol)

    def _assign_all(self, pairs: list[tuple[str, Node]], depth: int) -> None:
        """`name = value` for all pairs at once."""
        changes = [(name, value) for name, value in pairs if self.text(value) != name]
        texts = [(name, self._change(name, value)) for name, value in changes]
        if any(_mentions(self.text(value), name) for k, (name, _) in enumerate(changes) for _, value in changes[k + 1 :]):
            left, right = ", ".join(name for name, _ in changes), ", ".join(self.text(value) for _, value in changes)
            self.line(depth, f"{left} = {right}")
            return
        for _, text in texts:
            self.line(depth, text)

    def _change(self, name: str, value: Node) -> str:
        if value.op in ("add", "sub") and not self._has_name(value) and not value.shape:
            sign = "+" if value.op == "add" else "-"
            first, second = value.args
            if self.text(first) == name:
                return f"{name} {sign}= {self.text(second)}"
            if sign == "+" and self.text(second) == name:
                return f"{name} += {self.text(first)}"
        return f"{name} = {self.text(value)}"

    def _for(self, statement: P.For, depth: int, rest: list) -> None:
        header = self.wording.range(statement)
        names = self._start(statement, depth)
        self.taken.append(set())
        self.line(depth, f"for {self.name(statement.index, self.hints.get(statement.index, 'i'))} in {header}:")
        self._body(statement, names, depth)

    def _while(self, statement: P.While, depth: int, rest: list) -> None:
        names = self._start(statement, depth)
        self.taken.append(set())
        self.line(depth, f"while {self.text(statement.condition)}:")
        self._body(statement, names, depth)

    def _start(self, statement: P.For | P.While, depth: int) -> list[str]:
        names = []
        for c in statement.carried:
            start = c.start
            slot = statement, statement.uses.index(start, 0 if isinstance(statement, P.While) else 3)
            if start.op == "sym" and self._is_own(start) and self.placing.is_used_only(start, slot):
                name = self.names[start]
            else:
                value = self.text(start)
                name = self.name(c.phi)
                self.line(depth, f"{name} = {value}" if not start.shape else f"{name} = {value}.copy()")
            names.append(name)
            self.names[c.phi] = self.names[c.after] = name
        return names

    def _is_own(self, symbol: Node) -> bool:
        return symbol in self.names and self.names[symbol].isidentifier() and symbol in self.scope.binds and not symbol.shape

    def _body(self, statement: P.For | P.While, names: list[str], depth: int) -> None:
        before = len(self.lines)
        self.block(statement.body, depth + 1)
        self._ends([c.next for c in statement.carried], statement.body, depth + 1)
        self._assign_all(list(zip(names, (c.next for c in statement.carried), strict=True)), depth + 1)
        if len(self.lines) == before:
            self.line(depth + 1, "pass")
        self.taken.pop()
        for c, name in zip(statement.carried, names, strict=True):
            self.names[c.phi] = self.names[c.after] = name


def _stores_from(statements: list[P.Statement], k: int) -> list[P.Statement]:
    """A statement, and if it stores on the way back what follows and does as well."""
    end = k + 1
    if isinstance(statements[k], P.Store) and statements[k].late and (k == 0 or not isinstance(statements[k - 1], P.Store)):
        while end < len(statements) and isinstance(statements[end], P.Store):
            end += 1
    return statements[k:end]


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def _is_used_at_once(statement: P.Read, rest: list[P.Statement]) -> bool:
    """Whether the one use of what is read comes before anything is written."""
    for later in rest:
        if any(statement.symbol in node.deps for node in later.uses) and not later.blocks:
            return True
        if later.blocks or (isinstance(later, P.Store) and N.root(later.array) is N.root(statement.array)):
            return False
    return False
