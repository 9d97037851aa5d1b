"""Lists and dictionaries that f makes, and comprehensions."""

from __future__ import annotations

import ast
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.expressions import Expressions, Iterable
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Dictionary, Items, Object, Undefined
from adjode.derivation.refusals import Refusal

LONGEST = 64  # list whose elements are read one by one
GROWS = "append", "extend"


def names_of(target: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


class Lists(Expressions):
    """What lists and dictionaries mean, for a reader."""

    loop: Any
    assign: Any
    store: Any

    def value_Tuple(self, node: ast.Tuple) -> tuple:
        return tuple(self.each(node.elts))

    def value_List(self, node: ast.List) -> Items:
        return Items.of(self.each(node.elts), self.nest)

    def each(self, parts: list[ast.expr]) -> list:
        values: list = []
        for part in parts:
            values += self.spread(part) if isinstance(part, ast.Starred) else [self.value(part)]
        return values

    def spread(self, node: ast.Starred, count: int | None = None) -> tuple:
        """What `*values` stands for: `count` entries of an array, if it is not known how many there are."""
        value = self.value(node.value)
        if isinstance(value, tuple):
            return value
        array = self.number_or_array(value)
        known = N.value_of(array.shape[0]) if array.shape else None
        count = count if known is None else int(known)
        if count is None or count > LONGEST:
            raise Refusal("an array whose length is not known is unpacked by *", "write its entries one by one")
        return self.entries(array, range(count))

    def entries(self, array: Node, places: range) -> tuple:
        if len(array.shape) == 1:
            return tuple(self.element(array, (N.const(k),)) for k in places)
        return tuple(self.session.sliced(self, array, (N.const(k),)) for k in places)

    def unpacked(self, value: Any, targets: list[ast.expr]) -> tuple:
        """What each of the targets gets."""
        starred = next((k for k, target in enumerate(targets) if isinstance(target, ast.Starred)), None)
        if isinstance(value, tuple):
            behind = 0 if starred is None else len(targets) - starred - 1
            if len(value) != len(targets) if starred is None else len(value) < len(targets) - 1:
                raise Refusal(f"{len(value)} values are unpacked into {len(targets)} names", "use as many names")
            if starred is None:
                return value
            end = len(value) - behind
            return (*value[:starred], Items.of(value[starred:end], self.nest), *value[end:])
        array = self.number_or_array(value)
        if not array.shape:
            raise Refusal("a number is unpacked", "unpack tuples and arrays")
        if starred is None:
            return self.entries(array, range(len(targets)))
        behind = len(targets) - starred - 1
        part = self.session.sliced(self, array, (("s", N.const(starred), N.const(-behind) if behind else None, None),))
        rest = self.session.allocate(part.shape, self.anchored(self.whole(part)), part.kind)
        self.session.lists.add(rest)
        return (*self.entries(array, range(starred)), rest, *self.entries(array, range(-behind, 0)))

    # --- comprehensions -------------------------------------------------------------------------------------------------------

    def value_ListComp(self, node: ast.ListComp | ast.GeneratorExp) -> Items | Node:
        """A list, its elements one by one if it is known how many there are; else an array of numbers."""
        values = self.comprehended(node.elt, node.generators)
        return values if isinstance(values, Node) else Items.of(values, self.nest)

    value_GeneratorExp = value_ListComp

    def value_DictComp(self, node: ast.DictComp) -> Dictionary:
        pairs = self.comprehended(ast.Tuple([node.key, node.value]), node.generators)
        if isinstance(pairs, Node):
            raise Refusal("a dictionary has no constant length", "use an array")
        return Dictionary({self.constant(key): value for key, value in pairs}, "", self.nest)

    def comprehended(self, element: ast.expr, generators: list[ast.comprehension]) -> list | Node:
        first, *more = generators
        over = self.iterable(first.iter)
        items = over.listed(LONGEST) if isinstance(over, Iterable) else over
        if items is None:
            assert isinstance(over, Iterable)
            return self.filled(element, first, over, bool(more))
        own, values = names_of(first.target), []
        outside = {name: self.env[name] for name in own & self.env.keys()}
        for item in items:
            self.assign(first.target, item)
            if all(map(self.holds, first.ifs)):
                inner = self.comprehended(element, more) if more else [self.anchored(self.value(element))]
                if isinstance(inner, Node):
                    raise Refusal("a comprehension has no constant length", "write a loop that fills an array")
                values += inner
        self.env = {name: value for name, value in self.env.items() if name not in own} | outside
        return values

    def holds(self, test: ast.expr) -> bool:
        value = N.value_of(self.truth(test))
        if value is None:
            raise Refusal(
                "a comprehension leaves out items by a condition that depends on numbers",
                "write `... if condition else 0.0`, or a loop that fills an array",
            )
        return bool(value)

    def filled(self, element: ast.expr, generator: ast.comprehension, over: Iterable, nested: bool) -> Node:
        """A list of numbers whose length is not a constant, as an array."""
        if nested or generator.ifs:
            raise Refusal("a comprehension has no constant length, and a condition", "write a loop that fills an array")
        memory = self.session.allocate((over.count,), None)
        own = names_of(generator.target)
        outside = {name: self.env[name] for name in own & self.env.keys()}

        def build(block: P.Block, kinds: dict[str, str]) -> Any:
            index = N.symbol("i")
            self.assign(generator.target, over.item(index))
            self.put_item(memory, over.place(index), self.value(element))
            return P.For(index, over.start, over.stop, over.step, block, []), {}

        self.loop(set(), build)
        self.env = {name: value for name, value in self.env.items() if name not in own} | outside
        self.session.lists.add(memory)
        return memory

    def put_item(self, memory: Node, place: Node, value: Any) -> None:
        number = self.number_or_array(value)
        if number.shape:
            raise Refusal("a list of arrays has no constant length", "write a loop that fills an array of np.empty((n, k))")
        self.store(memory, (place,), None, number)

    # --- lists and dictionaries that change -------------------------------------------------------------------------------------

    def own(self, name: str) -> Items | Dictionary | None:
        """The list or dictionary that a name stands for, if f made it."""
        value = self.env.get(name)
        return value if isinstance(value, (Items, Dictionary)) else None

    def change(self, name: str, new: Items | Dictionary) -> None:
        """Let a list or dictionary be another from here on."""
        value = self.own(name)
        assert value is not None
        kind = "list" if isinstance(value, Items) else "dictionary"
        if value.nest != self.nest:
            raise Refusal(
                f"the {kind} `{name}` is written into, but was made outside this loop", "fill an array, made by np.empty(n)"
            )
        holders = [one for reader in self.session.readers for key, one in reader.env.items() if (reader, key) != (self, name)]
        if any(_holds(one, value) for one in holders):
            raise Refusal(f"the {kind} `{name}` has a second name, which would change as well", "make a copy of it first")
        self.env[name] = new

    def grow(self, name: str, method: str, values: list) -> Object:
        """`name.append(value)` or `name.extend(values)`."""
        if name in self.growing:
            memory, place = self.growing[name]
            self.put_item(memory, place, values[0])
            return Object(None)
        old = self.own(name)
        more = values if method == "append" else values[0]
        if not isinstance(old, Items) or len(values) != 1 or not isinstance(more, (list, tuple)):
            raise Refusal(f"`{method}` is called on something other than a list", "fill an array, made by np.empty(n)")
        self.change(name, Items.of((*old, *map(self.anchored, more)), old.nest))
        return Object(None)

    def put_into(self, name: str, where: ast.expr, value: Any) -> None:
        """`name[where] = value`, of a list or a dictionary."""
        old, value = self.own(name), self.anchored(value)
        if isinstance(old, Dictionary):
            self.change(name, Dictionary({**old.value, self.constant(self.value(where)): value}, "", old.nest))
            return
        assert old is not None
        place = None if isinstance(where, ast.Slice) else N.value_of(self.integer(where))
        if place is None or not -len(old) <= place < len(old):
            raise Refusal("a list is written into at an index that is not a constant", "make an array of it by np.array(...)")
        items = list(old)
        items[int(place)] = value
        self.change(name, Items.of(items, old.nest))

    # --- dictionaries -----------------------------------------------------------------------------------------------------------

    def value_Dict(self, node: ast.Dict) -> Dictionary:
        pairs: dict = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:  # **other
                other = self.value(value)
                if not isinstance(other, Dictionary):
                    raise Refusal("something other than a dictionary is unpacked by **", "write its items one by one")
                pairs.update(other.value)
            else:
                pairs[self.constant(self.value(key))] = self.anchored(self.value(value))
        return Dictionary(pairs, "", self.nest)

    def constant(self, value: Any) -> Any:
        """A key."""
        if isinstance(value, tuple):
            return tuple(map(self.constant, value))
        key = N.value_of(value) if isinstance(value, Node) else value.value
        if key is None:
            raise Refusal("a key of a dictionary is not a constant", "use an array, and an integer")
        return key

    def item_of(self, dictionary: Dictionary, value: Any) -> Any:
        key = self.constant(value)
        if key not in dictionary.value:
            raise Refusal(f"the dictionary `{dictionary.text}` has no key {key!r}".replace(" ``", ""), "use one of its keys")
        return dictionary.value[key]


def _holds(value: Any, wanted: Any) -> bool:
    """Whether a value is some list or dictionary, or has it inside."""
    if value is wanted:
        return value is not Undefined
    inside = value if isinstance(value, tuple) else value.value.values() if isinstance(value, Dictionary) else ()
    return any(_holds(one, wanted) for one in inside)


def grown_in(body: list[ast.stmt]) -> dict[str, int]:
    """The names that are appended to, and how often."""
    found: dict[str, int] = {}
    for node in (node for statement in body for node in ast.walk(statement)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in GROWS:
            for name in names_of(node.func.value):
                found[name] = found.get(name, 0) + 1
    return found


def appends_once(body: list[ast.stmt], name: str) -> bool:
    """Whether a body appends to a list in every round once, and does nothing else with it."""
    uses = sum(1 for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name) and node.id == name)
    calls = [s.value for s in body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    of_name = [call.func.attr for call in calls if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == name]
    return uses == 1 and of_name == ["append"]
