"""Random callbacks of the subset that `adjode.derive` reads, each from a seed."""

from __future__ import annotations

import itertools
import linecache
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Shape = tuple[int, ...]
FORMS = ("in place", "returning", "number")


@dataclass
class Program:
    """A text that defines `f`, and the constants that it reads."""

    seed: int
    text: str
    form: str
    n: int
    m: int
    space: dict[str, Any] = field(default_factory=dict)

    def function(self, **changes: Any) -> Callable:
        """f, with other things under some of the names that it uses: `jit` decorates all functions."""
        file = f"<program {self.seed}, {abs(hash(self.text))}>"
        linecache.cache[file] = len(self.text), None, self.text.splitlines(keepends=True), file
        names = {"math": math, "np": np, "jit": lambda function: function, **self.space, **changes}
        exec(compile(self.text, file, "exec"), names)
        return names["f"]


@dataclass
class Scope:
    """What may be used: names of floats, bounds of integers, shapes of arrays, and those that may be written into."""

    floats: list[str] = field(default_factory=list)
    integers: dict[str, tuple[int, int]] = field(default_factory=dict)
    arrays: dict[str, Shape] = field(default_factory=dict)
    writable: set[str] = field(default_factory=set)

    def copy(self) -> Scope:
        return Scope(list(self.floats), dict(self.integers), dict(self.arrays), set(self.writable))


class Writer:
    """Lines at a depth, and fresh names."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.lines: list[str] = []
        self.depth = 0
        self.counts: dict[str, Iterator[int]] = {}
        self.scope = Scope()

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def fresh(self, stem: str) -> str:
        return f"{stem}{next(self.counts.setdefault(stem, itertools.count(1)))}"

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        """What a block defines is unknown behind it."""
        self.line(header)
        outer, self.scope = self.scope, self.scope.copy()
        self.depth += 1
        before = len(self.lines)
        yield
        if len(self.lines) == before:
            self.line("pass")
        self.depth -= 1
        self.scope = outer


class Numbers(Writer):
    """Expressions of numbers, whose values stay moderate."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.n, self.m = self.rng.randint(2, 6), self.rng.randint(2, 4)  # not 1: what is broadcast must be told from the text
        values = np.random.default_rng(seed)
        self.space: dict[str, Any] = {"n": self.n, "k0": 0.75, "order": 2}
        for length in range(1, 7):
            self.space[f"w{length}"] = values.uniform(-1.0, 1.0, length)
            self.space[f"to{length}"] = values.integers(0, length, 7)
        self.helpers: list[tuple[str, int]] = []
        self.array_helpers: list[tuple[str, str]] = []

    # --- integers ----------------------------------------------------------------------------------------------------

    def length(self, value: int) -> str:
        texts = [str(value)] * 2 + (["n", "u.size", "len(u)", "u.shape[0]"] if value == self.n and "u" in self.scope.arrays else [])
        return self.rng.choice(texts)

    def index(self, length: int) -> str:
        """An index into an axis."""
        found = [*self.of_one(length), *self.of_two(length)]
        if not found or self.chance(0.15):
            return str(self.rng.choice([self.rng.randrange(length)] * 5 + [-1]))
        return self.rng.choice(found)

    def of_one(self, length: int) -> list[str]:
        found = []
        for name, (low, high) in self.scope.integers.items():
            if low >= 0 and high < length:
                found += [name] * 5 + [f"{self.length(length)} - 1 - {name}", f"{name} // 2"]
            if low >= 1 and high - 1 < length:
                found += [f"{name} - 1"] * 2
            if low >= 0 and high + 1 < length:
                found += [f"{name} + 1"] * 2
            if low >= 0 and 2 * high + 1 < length:
                found += [f"2 * {name}", f"2 * {name} + 1"]
            if low >= 0:
                found.append(f"({name} + {self.rng.randint(0, 3)}) % {self.length(length)}")
            if low >= 0 and high < 7:
                found += [f"to{length}[{name}]"] * 2
        return found

    def of_two(self, length: int) -> list[str]:
        found = []
        for (a, (low, high)), (b, (low_b, high_b)) in itertools.permutations(self.scope.integers.items(), 2):
            if min(low, low_b) >= 0 and high * (high_b + 1) + high_b < length and high_b >= 1:
                found += [f"{a} * {high_b + 1} + {b}"] * 2
            elif min(low, low_b) >= 0 and high + high_b < length:
                found.append(f"{a} + {b}")
        return found

    def entry(self, name: str) -> str:
        return f"{name}[{', '.join(self.index(length) for length in self.scope.arrays[name])}]"

    # --- floats ----------------------------------------------------------------------------------------------------

    def atom(self) -> str:
        arrays = list(self.scope.arrays)
        kind = self.rng.random()
        if kind < 0.35 and self.scope.floats:
            return self.rng.choice(self.scope.floats)
        if kind < 0.85 and arrays:
            return self.entry(self.rng.choice(arrays))
        if kind < 0.9:
            return self.entry_of_table()
        if kind < 0.93 and self.scope.integers:
            return self.rng.choice(list(self.scope.integers))
        return self.rng.choice(["0.5", "1.25", "2", "0.1", "k0", "-0.3", "1e-1"])

    def entry_of_table(self) -> str:
        length = self.rng.randint(1, 6)
        return f"w{length}[{self.index(length)}]"

    def number(self, depth: int = 3) -> str:
        """An expression that can stand anywhere."""
        if depth == 0 or self.chance(0.15):
            return self.atom()
        kind = self.rng.random()
        if kind < 0.5:
            return f"({self.number(depth - 1)} {self.rng.choice('++-**')} {self.number(depth - 1)})"
        if kind < 0.58:
            return f"({self.number(depth - 1)} / {self.positive(depth - 1)})"
        if kind < 0.64:
            return f"(-{self.number(depth - 1)})"
        if kind < 0.70:
            return f"({self.number(depth - 1)} if {self.condition(depth - 1)} else {self.number(depth - 1)})"
        if kind < 0.76 and self.helpers:
            name, count = self.rng.choice(self.helpers)
            return f"{name}({', '.join(self.number(depth - 1) for _ in range(count))})"
        if kind < 0.84:
            return self.power(depth - 1)
        return self.called(depth - 1)

    def positive(self, depth: int) -> str:
        """Between about 0.3 and 10."""
        x = self.number(depth)
        return self.rng.choice(
            [f"(1.5 + math.sin({x}))", f"(0.5 + {x} ** 2)", f"math.exp(0.3 * math.sin({x}))", f"(0.3 + abs({x}))"]
        )

    def power(self, depth: int) -> str:
        exponents = ["2", "3", "2.0", "order", "1.5", "-1", "0.5", "k0", "1", "0"]
        if self.chance(0.3):
            return f"{self.positive(depth)} ** {self.rng.choice([*exponents, f'(0.5 * math.sin({self.number(depth)}))'])}"
        if self.chance(0.2):
            return f"math.pow({self.positive(depth)}, {self.rng.choice([*exponents[:-3], self.atom()])})"
        return f"math.sin({self.number(depth)}) ** {self.rng.choice(exponents[:4])}"

    def called(self, depth: int) -> str:
        x, y = self.number(depth), self.number(depth)
        module = self.rng.choice(["math", "np"])
        inverse = {"math": "a", "np": "arc"}[module]
        return self.rng.choice(
            [
                f"{module}.sin({x})",
                f"{module}.cos({x})",
                f"{module}.tanh({x})",
                f"{module}.exp(-{x} ** 2)",
                f"{module}.exp(0.5 * {module}.cos({x}))",
                f"{module}.log(1.0 + {x} ** 2)",
                f"{module}.log1p({self.positive(depth)})",
                f"{module}.sqrt({self.positive(depth)})",
                f"{module}.{inverse}tan({x})",
                f"{module}.{inverse}sinh({x})",
                f"{module}.{inverse}sin(0.9 * {module}.sin({x}))",
                f"{module}.{inverse}tan2({x}, {self.positive(depth)})",
                f"{module}.hypot({x}, {self.positive(depth)})",
                f"{module}.cosh({module}.sin({x}))",
                f"{module}.expm1({module}.tanh({x}))",
                f"abs({x})",
                f"min({x}, {y})",
                f"max({x}, {y})",
                f"max({x}, 0.0)",
                f"min({x}, {y}, {self.atom()})",
                f"np.maximum({x}, {y})",
                f"np.abs({x})",
                f"float({self.atom()})",
                f"np.sign({x}) * {y}",
            ]
        )

    def condition(self, depth: int = 1) -> str:
        kind = self.rng.random()
        if kind < 0.3 and self.scope.integers:
            name = self.rng.choice(list(self.scope.integers))
            return self.rng.choice([f"{name} > 0", f"{name} % 2 == 0", f"{name} != {self.rng.randint(0, 3)}", f"{name} < n - 1"])
        if kind < 0.4 and depth:
            return f"({self.condition(0)} {self.rng.choice(['and', 'or'])} {self.condition(0)})"
        if kind < 0.45:
            return f"not {self.number(depth)} > {self.atom()}"
        if kind < 0.5:
            return f"-0.5 < {self.number(depth)} <= {self.atom()}"
        return f"{self.number(depth)} {self.rng.choice(['<', '>', '<=', '>='])} {self.atom()}"
