"""What is known while functions are read into one program: names, arrays, scopes."""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.calling import Calling
from adjode.derivation.expressions import Expressions
from adjode.derivation.known import ATTRIBUTES
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Dictionary, Object, Record, Undefined
from adjode.derivation.reading import Reader
from adjode.derivation.refusals import Refusal, Refused
from adjode.derivation.sources import Source, source_of


def array_symbol(kind: str = "f", rank: int = 1) -> Node:
    """A symbol for an array of unknown lengths."""
    array = N.symbol(kind)
    array.shape = tuple(N.make("size", (array, axis), "i") for axis in range(rank))
    return array


class Session(Calling):
    """Attributes are those of `program.Function`, and what a reader needs besides."""

    def __init__(self, name: str):
        self.name = name
        self.block = P.Block()
        self.hints: dict[Node, str] = {}
        self.space: dict[str, Any] = {}
        self.memory: set[Node] = set()
        self.inputs: set[Node] = set()
        self.constants: dict[int, tuple[Any, Node]] = {}  # global arrays
        self.copied: dict[Node, Node] = {}  # arrays of integers outside, as floats
        self.tuples: dict[tuple, Node | None] = {}  # constants, as arrays
        self.aliases: set[Node] = set()  # symbols that are memory as it was when it was read
        self.contents: dict[Node, dict[tuple, Node]] = {}  # what is known of entries of memory
        self.last_stores: dict[tuple, Any] = {}
        self.scopes: list[set[Node]] = [set()]
        self.readers: list[Reader] = []  # of the functions that are being read, one called by another
        self.nest: list[object] = []  # the loops around that are read once for all rounds
        self.copies = 1  # how often what is read now is read in all, for loops that are read round by round
        self.lists: set[Node] = set()  # memory that is a list of Python's

    def state(self, reader: Reader) -> tuple:
        """What `go_back` needs to go on as if nothing had been read since."""
        known = {array: dict(entries) for array, entries in self.contents.items()}
        lengths = len(self.block.statements), len(self.scopes), len(self.readers), len(self.nest)
        return self.block, dict(reader.env), known, dict(self.last_stores), reader.loops, dict(reader.growing), self.copies, lengths

    def go_back(self, reader: Reader, state: tuple) -> None:
        self.block, reader.env, self.contents, self.last_stores, reader.loops, reader.growing, self.copies, lengths = state
        stacks: tuple[list, ...] = self.block.statements, self.scopes, self.readers, self.nest
        for stack, length in zip(stacks, lengths, strict=True):
            del stack[length:]

    def error(self, refusal: Refusal, where: str) -> Refused:
        return Refused(f"{self.name} cannot be differentiated: {refusal.what} ({where}); {refusal.instead}.")

    # --- names ------------------------------------------------------------------------------------------------------------

    def bound(self, name: str, value: Any) -> str:
        """A name of the derived text for a value: this one, unless it stands for another value already."""
        candidate, k = name, 1
        while self.space.setdefault(candidate, value) is not value:
            k += 1
            candidate = f"{name}_{k}"
        return candidate

    def outside(self, source: Source, name: str) -> Any:
        """A global or captured name, or a builtin."""
        if name in source.outside:
            return self.known(name, source.outside[name])
        if hasattr(builtins, name):
            return Object(getattr(builtins, name), name)
        raise Refusal(f"`{name}` is not defined", "define it before the derivative is asked for")

    def known(self, name: str, value: Any) -> Any:
        """A constant of Python's as a value, called by `name` in the text."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool):
            return N.const(value)
        if isinstance(value, (int, float)):
            return N.named(self.bound(name, value), value) if name.isidentifier() else N.const(value)
        if isinstance(value, np.ndarray):
            return self.table(name, value)
        if isinstance(value, (tuple, list)):
            items = tuple(self.known("", item) for item in value)
            return Record.of(value._fields, items) if hasattr(value, "_fields") else items
        if isinstance(value, dict):
            return Dictionary({key: self.known(_joined(name, key), item) for key, item in value.items()}, name, (None,))
        return Object(value, name)

    def table(self, name: str, value: np.ndarray) -> Any:
        name = name if name.isidentifier() else "table"
        if value.dtype.kind not in "fiub":
            raise Refusal(f"`{name}` is an array of {value.dtype}", "use arrays of floats or integers")
        if id(value) not in self.constants:
            symbol = N.symbol("f" if value.dtype.kind == "f" else "i", tuple(map(N.const, value.shape)))
            self.constants[id(value)] = value, symbol
            self.hints[symbol] = self.bound(name, value)
        return self.constants[id(value)][1]

    def floats(self, array: Node) -> Node:
        """An array of integers as one of floats, which products of matrices must have."""
        if array.kind == "f" or not array.shape:
            return array
        if array.op == "T":
            return N.transpose(self.floats(array.args[0]))
        value = self.table_at(array)
        if value is None:
            return N.mul(N.ONE, array)
        if array not in self.copied:
            self.copied[array] = self.table(self.bound(self.hints[array], copy := value.astype(float)), copy)
        return self.copied[array]

    def table_at(self, symbol: Node) -> np.ndarray | None:
        """The array outside that a symbol is, if it is one."""
        return next((value for value, known in self.constants.values() if known is symbol), None)

    def table_of(self, values: tuple) -> Node | None:
        """The array of constants that a tuple is; None if they are no constants, or if the lengths of its rows differ."""
        if values not in self.tuples:
            numbers = self.numbers(values)
            try:
                array = None if numbers is None else np.array(numbers)
            except ValueError:
                array = None
            self.tuples[values] = None if array is None else self.table(self.bound("table", array), array)
        return self.tuples[values]

    def numbers(self, value: Any) -> Any:
        """A constant, or a list of lists of constants; None if something in it is none."""
        if isinstance(value, tuple):
            items = [self.numbers(item) for item in value]
            return None if any(item is None for item in items) else items
        return N.value_of(value) if isinstance(value, Node) else None

    def attribute(self, reader: Expressions, value: Any, name: str) -> Any:
        if isinstance(value, Object):
            if isinstance(value.value, np.ufunc) and name == "outer":
                return Object(value.value.outer, f"{value.text}.outer")
            if not isinstance(value.value, (types.ModuleType, type)) and name in getattr(value.value, "__dict__", {}):
                return self.known(_joined(value.text, name), getattr(value.value, name))
            if not isinstance(value.value, types.ModuleType):
                raise Refusal(f"an attribute `{name}` of `{value.text}` is read", "put the number into a variable of its own")
            found = getattr(value.value, name)
            if isinstance(found, (int, float)) and not isinstance(found, bool):
                return self.dotted(value, name, found)
            return Object(found, f"{value.text}.{name}")
        if isinstance(value, Record) and name in value.names:
            return value[value.names.index(name)]
        array = reader.number_or_array(value)
        if name in ATTRIBUTES:
            return ATTRIBUTES[name](reader, array)
        raise Refusal(f"an attribute `{name}` of an array is read", "use .size, .shape, .T, .ndim or a method that is known")

    def dotted(self, module: Object, name: str, found: Any) -> Node:
        """`math.pi`."""
        self.bound(module.text.split(".")[0], module.value)
        return N.named(f"{module.text}.{name}", found)

    # --- arrays -----------------------------------------------------------------------------------------------------------

    def allocate(self, shape: tuple[Node, ...], fill: Node | None, kind: str = "f") -> Node:
        """New memory."""
        symbol = N.symbol(kind, shape)
        self.memory.add(symbol)
        self.block.add(P.Alloc(symbol, fill, kind))
        self.contents[symbol] = {}
        return symbol

    def is_addressable(self, array: Node) -> bool:
        base = N.root(array)
        return base in self.memory or base in self.inputs or any(base is known for _, known in self.constants.values())

    def addressable(self, reader: Expressions, array: Node) -> Node:
        """The array, in memory where it is the result of a calculation: its entries have addresses."""
        if self.is_addressable(array):
            return array
        memory = self.allocate(array.shape, reader.anchored(array), array.kind)
        self.hint_as(array, memory)
        for name, value in reader.env.items():
            if value is array and array.op == "sym":  # what is no symbol may be equal by chance
                reader.env[name] = memory
        return memory

    def hint_as(self, old: Node, new: Node) -> None:
        if old in self.hints:
            self.hints[new] = self.hints[old]

    def packed(self, reader: Any, values: tuple, kind: str | None = None) -> Node:
        """`np.array(values)`, of this kind."""
        rows = [self.packed(reader, v, kind) if isinstance(v, tuple) else reader.number_or_array(v) for v in values]
        if not rows:
            return self.allocate((N.I0,), None)
        shape = rows[0].shape
        kind = kind or ("f" if any(row.kind == "f" for row in rows) else "i")
        memory = self.allocate((N.const(len(rows)), *shape), None, kind)
        for k, row in enumerate(rows):
            where = (N.const(k),)
            if not shape:
                reader.store(memory, where, None, row)
            else:
                reader.store(self.sliced(reader, memory, where), (), None, reader.whole(row))
        return memory

    def sliced(self, reader: Expressions, array: Node, spec: tuple) -> Node:
        array = self.addressable(reader, array)
        axes = sum(1 for item in spec if item != "new")
        spec = (*spec, *[("s", None, None, None)] * (len(array.shape) - axes))
        while spec and spec[-1] == ("s", None, None, None) and len(spec) > 0 and all(s != "new" for s in spec):
            spec = spec[:-1]
        if not spec:
            return array
        if any(isinstance(item, Node) and item.shape for item in spec):
            raise Refusal("an array is indexed by an array", "write a loop over the indices")
        part = N.make("slice", (array, *spec), array.kind)
        if not part.shape:
            part.shape = self.lengths(array, spec, part)
        return part

    def lengths(self, array: Node, spec: tuple, part: Node) -> tuple[Node, ...]:
        lengths, axis = [], 0
        for item in spec:
            if item == "new":
                lengths.append(N.I1)
                continue
            if isinstance(item, tuple):
                lengths.append(_slice_length(array.shape[axis], item) or N.make("size", (part, len(lengths)), "i"))
            axis += 1
        return (*lengths, *array.shape[axis:])


def _joined(name: str, key: Any) -> str:
    """What an item of a dictionary is called."""
    joined = f"{name}_{key}"
    return joined if joined.isidentifier() else ""


def _slice_length(length: Node, item: tuple) -> Node | None:
    """The length of a slice, if it can be told."""
    _, start, stop, step = item
    if step is not None and N.value_of(step) != 1:
        return None
    ends = []
    for end, default in ((start, N.I0), (stop, length)):
        if end is None:
            ends.append(default)
            continue
        value = N.value_of(end)
        ends.append(N.add(length, end) if value is not None and value < 0 else end)
    return N.sub(ends[1], ends[0])


RESULTS = "du", "y"  # what a callback may write into
_NUMBERS = "k", "t", "d"
READABLE = {*_NUMBERS, "u", "theta", *RESULTS}  # what arguments of functions that are read may be


def read_function(function: Callable, names: tuple[str, ...]) -> P.Function:
    """The program of a callback whose arguments are called `names`: its result is written into du or y, or returned.

    Raises
    ------
    TypeError
        If something in it has no derivative here: the message says what, where, and what to write instead.
    """
    python = getattr(function, "py_func", function)
    session = Session(getattr(python, "__name__", "f"))
    try:
        source = source_of(function)
        given = source.arguments
    except Refusal as refusal:
        raise TypeError(f"{session.name} cannot be differentiated: {refusal.what}; {refusal.instead}.") from None
    known: dict[str, Node] = {}
    for name in names:
        known[name] = N.symbol("i" if name == "k" else "f") if name in _NUMBERS else array_symbol()
        if name == "du":  # as many entries as in u
            known[name] = N.symbol("f", known["u"].shape)
    symbols = list(known.values())
    env = dict(zip(given, symbols, strict=True))
    result = next((known[name] for name in RESULTS if name in known), None)
    session.inputs = {s for s in symbols if s.shape and s is not result}
    if result is not None:
        session.memory.add(result)
    reader = Reader(source, session, dict(env))
    session.readers.append(reader)
    for name, own in zip(names, symbols, strict=True):
        session.hints[own] = name
    returned = reader.body(source.body)
    if result is None:
        result = _returned(reader, session, returned, source)
    return P.Function(
        session.name,
        dict(zip(names, symbols, strict=True)),
        result,
        session.block,
        session.hints,
        session.space,
        session.memory,
        {symbol: value for value, symbol in session.constants.values()},
    )


def _returned(reader: Reader, session: Session, returned: Any, source: Source) -> Node:
    if returned is None or isinstance(returned, Object) or returned is Undefined:
        raise session.error(Refusal("nothing is returned", "return it, or take it as the last argument"), source.line(source.tree))
    value = reader.number_or_array(returned)
    if value in session.memory or not value.shape:
        return value
    result = session.allocate(value.shape, None)
    session.block.add(P.Store(result, (), reader.whole(value)))
    session.hints[result] = RESULTS[0]
    return result
