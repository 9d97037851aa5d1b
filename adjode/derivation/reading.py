"""From the source of a function to a program: statements. `expressions` has the other half of the reader."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.expressions import Iterable
from adjode.derivation.indexing import unsliced
from adjode.derivation.lists import LONGEST, Lists, appends_once, grown_in, names_of
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Items, Local, Object, Raises, Undefined
from adjode.derivation.refusals import Refusal, Refused
from adjode.derivation.sources import Source, assigned, bound_by

_COPIES = 256  # of a body of loops, one inside of another, that are read round by round
_FEW = 16  # rounds, which may be read so for the sake of arrays that change their shapes


class Reader(Lists):
    """Reads one function, and those that it calls into the same program."""

    def __init__(self, source: Source, session: Any, env: dict[str, Any]):
        super().__init__(source, session, env)
        self.loops = 0
        for name, value in env.items():
            self.hint(name, value)

    def body(self, statements: list[ast.stmt]) -> Any:
        """What the statements return, or None."""
        result = None
        for statement in statements:
            result = self.at(statement, self.statement)
        return result

    def statement(self, statement: ast.stmt) -> Any:
        reader = getattr(self, f"read_{type(statement).__name__}", None)
        if reader is None:
            name = type(statement).__name__.lower()
            raise Refusal(f"a `{name}` statement cannot be differentiated", "keep to assignments, loops and branches")
        return reader(statement)

    # --- assignments ----------------------------------------------------------------------------------------------------

    def read_Assign(self, statement: ast.Assign) -> None:
        value = self.anchored(self.value(statement.value))
        for target in statement.targets:
            self.assign(target, value, fresh=not isinstance(statement.value, ast.Name))

    def read_AnnAssign(self, statement: ast.AnnAssign) -> None:
        if statement.value is not None:
            self.assign(statement.target, self.anchored(self.value(statement.value)))

    def read_AugAssign(self, statement: ast.AugAssign) -> None:
        target, amount = statement.target, self.value(statement.value)
        if isinstance(target, ast.Name):
            before = self.value(ast.copy_location(ast.Name(target.id, ast.Load()), target))
            if isinstance(before, Node) and before.shape and N.root(before) in self.session.memory:
                self.store(before, (), statement.op, amount)
            elif isinstance(before, Node) and before.shape and self.is_shared(target.id, before):
                raise Refusal(f"`{target.id}` has a second name, which would change as well", "make a copy of it first")
            elif isinstance(before, Items):
                self.change(target.id, Items.of(self.anchored(self.binary(statement.op, before, amount)), before.nest))
            else:
                self.env[target.id] = self.anchored(self.binary(statement.op, before, amount))
                self.hint(target.id, self.env[target.id])
            return
        if not isinstance(target, ast.Subscript):
            raise Refusal("an attribute is assigned to", "use a local variable")
        if isinstance(target.value, ast.Name) and self.own(target.value.id) is not None:
            before = self.value(ast.copy_location(ast.Subscript(target.value, target.slice, ast.Load()), target))
            self.put_into(target.value.id, target.slice, self.binary(statement.op, before, amount))
            return
        array, indices = self.place(target)
        self.store(array, indices, statement.op, amount)

    def assign(self, target: ast.expr, value: Any, fresh: bool = True) -> None:
        if isinstance(target, ast.Name):
            if isinstance(value, Node) and value.shape and target.id in self.source.addressed:
                value = self.session.addressable(self, value)
            self.env[target.id] = value
            self.hint(target.id, value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for part, item in zip(target.elts, self.unpacked(value, target.elts), strict=True):
                self.assign(part.value if isinstance(part, ast.Starred) else part, item)
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and self.own(target.value.id) is not None:
            self.put_into(target.value.id, target.slice, value)
        elif isinstance(target, ast.Subscript):
            array, indices = self.place(target)
            self.store(array, indices, None, value)
        else:
            raise Refusal("an attribute is assigned to", "use a local variable")

    def store(self, array: Node, indices: tuple, op: ast.operator | None, value: Any) -> None:
        """`array[indices] op= value`."""
        if indices and indices[0].shape:
            self.put(array, indices[0], op, self.number_or_array(value))
            return
        array, indices = unsliced(array, indices) if indices else (array, indices)
        base = N.root(array)
        if base not in self.session.memory:
            name = self.session.hints.get(base, "an input")
            raise Refusal(f"`{name}` is written into, but is an input or a constant", "write into an array of your own")
        value = self.whole(self.number_or_array(value))
        contents = self.contents.setdefault(base, {}) if base is array else {}
        constant = tuple(map(N.value_of, indices))
        exact = base is array and None not in constant and all(c >= 0 for c in constant) and bool(indices)
        if op is not None and exact and constant in contents:
            value, op = self.binary(op, contents[constant], value), None
        elif op is not None and not isinstance(op, (ast.Add, ast.Sub)):
            before = self.element(array, indices) if indices or not array.shape else self.read_whole(array)
            value, op = self.binary(op, before, value), None
        elif isinstance(op, ast.Sub):
            value = N.neg(value)
        value = _as_stored(value, array.kind)
        if exact:  # what is known of the entry may be wanted later
            value = self.anchored(value)
        statement = P.Store(array, indices, value, adds=op is not None)
        if exact:
            self.forget_store(base, constant)
            self.last_stores[base, constant] = (self.block, statement)
            contents[constant] = value
            if op is not None:
                del contents[constant]
                del self.last_stores[base, constant]
        else:
            self.contents[base] = {}
            self.forget_stores(base)
        self.block.add(statement)

    def forget_store(self, base: Node, constant: tuple) -> None:
        """A value that is written over is not written at all, if nothing can have read it."""
        block, statement = self.last_stores.pop((base, constant), (None, None))
        if block is self.block and statement is not None and constant in self.contents.get(base, {}):
            block.statements.remove(statement)

    def read_FunctionDef(self, statement: ast.FunctionDef) -> None:
        self.env[statement.name] = self.local_function(statement.name, statement)

    def value_Lambda(self, node: ast.Lambda) -> Object:
        return self.local_function("lambda", node)

    def local_function(self, name: str, tree: ast.FunctionDef | ast.Lambda) -> Object:
        source = Source(name, self.source.file, tree, self.source.outside, self.source.lines)
        defaults = {argument: self.value(node) for argument, node in source.defaults.items()}
        return Object(Local(source, defaults, self), name)

    # --- branches -------------------------------------------------------------------------------------------------------

    def read_If(self, statement: ast.If) -> Any:
        condition = self.truth(statement.test)
        value = N.value_of(condition)
        if value is not None:
            return self.body(statement.body if value else statement.orelse)
        return self.branch(condition, lambda: self.body(statement.body), lambda: self.body(statement.orelse))

    # --- loops ----------------------------------------------------------------------------------------------------------

    def read_For(self, statement: ast.For) -> None:
        over = self.iterable(statement.iter)
        items = over.listed(LONGEST) if isinstance(over, Iterable) else over
        grown = set(grown_in(statement.body)) & self.env.keys()
        if isinstance(over, Iterable) and not (grown and items is not None) and self.read_once(statement, over, items, grown):
            return
        assert items is not None
        self.session.copies *= max(len(items), 1)
        for item in items:
            self.assign(statement.target, item)
            self.loops += 1
            self.body(statement.body)
            self.loops -= 1
        self.session.copies //= max(len(items), 1)

    def read_once(self, statement: ast.For, over: Iterable, items: tuple | None, grown: set[str]) -> bool:
        """Read a loop once for all rounds; False if that cannot be, but it can be read round by round."""
        targets = names_of(statement.target)
        names = assigned(statement.body) - targets
        can_repeat = items is not None and self.session.copies * len(items) <= _COPIES
        strict = items is not None and can_repeat and len(items) <= _FEW
        state = self.session.state(self)
        arrays = self.grow_arrays(statement.body, grown, over)
        try:
            self.loop(names, lambda block, kinds: self.for_body(statement, over, names, block, kinds, arrays), strict)
        except (Refusal, Refused):
            if not can_repeat:
                raise
            self.session.go_back(self, state)
            return False
        self.env.update(dict.fromkeys(targets, Undefined), **arrays)
        self.session.lists.update(arrays.values())
        return True

    def grow_arrays(self, body: list[ast.stmt], grown: set[str], over: Iterable) -> dict[str, Node]:
        """Arrays in the place of empty lists that a loop appends to, in each of a number of rounds that is not a constant."""
        arrays = {}
        for name in sorted(grown):
            if self.own(name) != () or not appends_once(body, name):
                raise Refusal(
                    f"the list `{name}` grows in a loop whose length is not constant", "fill an array, made by np.empty(n)"
                )
            self.change(name, Items.of((), self.nest))
            arrays[name] = self.session.allocate((over.count,), None)
            self.env[name] = Undefined
        return arrays

    def for_body(
        self, statement: ast.For, over: Iterable, names: set[str], block: P.Block, kinds: dict[str, str], arrays: dict[str, Node]
    ) -> Any:
        index, growing = N.symbol("i"), self.growing
        self.growing = growing | {name: (array, over.place(index)) for name, array in arrays.items()}
        phis = self.phis(names, bound_by(statement.body), kinds)
        self.assign(statement.target, over.item(index))
        self.body(statement.body)
        self.growing = growing
        return P.For(index, over.start, over.stop, over.step, block, []), phis

    def read_While(self, statement: ast.While) -> None:
        names = assigned(statement.body)
        if any(isinstance(node, ast.NamedExpr) for node in ast.walk(statement.test)):
            raise Refusal("the condition of this loop assigns", "assign in its body, and before it")

        if self._needs_statements(statement, names):
            self._read_rotated(statement)
            return

        def build(block: P.Block, kinds: dict[str, str]) -> Any:
            phis = self.phis(names, bound_by(statement.body), kinds)
            condition = self.truth(statement.test)
            self.body(statement.body)
            return P.While(condition, block, []), phis

        self.loop(names, build)

    def _needs_statements(self, statement: ast.While, names: set[str]) -> bool:
        """Whether the condition of a loop is no mere expression: it reads what the loop writes, or reads in some rounds only."""
        found = False

        def build(block: P.Block, kinds: dict[str, str]) -> Any:
            nonlocal found
            self.phis(names, bound_by(statement.body), kinds)
            self.truth(statement.test)
            found = bool(block.statements)
            return P.While(N.const(False), P.Block(), []), {}

        before, outer = dict(self.env), self.block
        known = self.contents, self.last_stores
        self.block = P.Block()
        self.loop(names, build)
        self.block, self.env = outer, before
        self.contents, self.last_stores = known
        return found

    def _read_rotated(self, statement: ast.While) -> None:
        """`while test: body` as `goes_on = test`, and `while goes_on: body; goes_on = test`."""
        name = next(n for n in itertools.chain(["goes_on"], (f"goes_on_{k}" for k in itertools.count(2))) if self._is_free(n))
        again = ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], statement.test), statement)
        self.read_Assign(again)
        self.read_While(ast.copy_location(ast.While(ast.Name(name, ast.Load()), [*statement.body, again], []), statement))

    def _is_free(self, name: str) -> bool:
        return name not in self.env and name not in self.source.local

    def phis(self, names: set[str], bound: set[str], kinds: dict[str, str]) -> dict[str, Node]:
        """For each number that the loop changes, its symbol in the loop, which takes its place."""
        phis = {}
        for name in sorted(names):
            before = self.env.get(name, Undefined)
            if name not in bound and isinstance(before, Node) and before.shape and N.root(before) in self.session.memory:
                continue  # `name += ...` writes into it
            if isinstance(before, Node):
                self.env[name] = phis[name] = N.symbol(kinds.get(name, before.kind), before.shape)
                self.hint(name, phis[name])
            else:
                self.env[name] = Undefined
        return phis

    def loop(self, names: set[str], build: Callable[[P.Block, dict[str, str]], Any], strict: bool = False) -> None:
        """Read a loop; again, where a number starts as an integer and turns out to be a float.

        If it is strict, arrays must be known to keep their shapes.
        """
        kinds: dict[str, str] = {}
        outer, before = self.block, dict(self.env)
        while True:
            self.contents, self.last_stores = {}, {}
            self.block, self.env = P.Block(), dict(before)
            with self.inner_scope():
                self.loops += 1
                self.session.nest.append(object())
                statement, phis = build(self.block, kinds)
                self.session.nest.pop()
                self.loops -= 1
                ends = {name: self.anchored(self.whole_value(self.env[name])) for name in phis}
            changed = {n: "f" for n, end in ends.items() if isinstance(end, Node) and end.kind == "f" != phis[n].kind}
            if not changed:
                break
            kinds.update(changed)
        self.contents, self.last_stores = {}, {}
        kept = {name: value for name, value in self.env.items() if name not in phis and value is before.get(name)}
        self.block, self.env = outer, {**before, **dict.fromkeys(names, Undefined), **kept}
        for name, phi in phis.items():
            start, end = self.whole_value(before[name]), ends[name]
            if end is Undefined:
                continue
            if not isinstance(end, Node) or len(end.shape) != len(phi.shape):
                raise Refusal(
                    f"`{name}` is sometimes a number and sometimes something else", "start it as an array, or use two names"
                )
            if strict and end.shape != phi.shape:
                raise Refusal(f"`{name}` changes its shape in this loop", "use two names")
            start, end = (N.as_float(start), N.as_float(end)) if phi.kind == "f" else (start, end)
            self.env[name] = after = N.symbol(phi.kind, phi.shape)
            self.hint(name, after)
            statement.carried.append(P.Carried(phi, start, end, after))
        outer.add(statement)

    # --- the rest -------------------------------------------------------------------------------------------------------

    def read_Return(self, statement: ast.Return) -> Any:
        return None if statement.value is None else self.anchored(self.value(statement.value))

    def read_Expr(self, statement: ast.Expr) -> None:
        if not isinstance(statement.value, ast.Constant):  # a docstring
            self.value(statement.value)

    def read_Pass(self, statement: ast.Pass) -> None:
        pass

    def read_Continue(self, statement: ast.Continue) -> None:
        pass

    def read_Assert(self, statement: ast.Assert) -> None:
        pass  # f itself has passed it

    def read_Raise(self, statement: ast.Raise) -> Any:
        return Raises  # where f raises nobody asks for its derivative


def _as_stored(value: Node, kind: str) -> Node:
    """What an array of this kind has when a value is written into it."""
    if kind == "f" or value.kind != "f":
        return N.as_float(value) if kind == "f" else value
    if value.shape:
        raise Refusal("floats are written into an array of integers", "make that an array of floats")
    known, convert = N.value_of(value), int if kind == "i" else bool
    return N.call(convert.__name__, convert.__name__, value, kind=kind) if known is None else N.const(convert(known))
