"""Statements of random callbacks, and whole ones."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from tests.derivation.programs import FORMS, Numbers, Program, Scope, Shape


class Arrays(Numbers):
    """Expressions of whole arrays."""

    def array(self, shape: Shape, depth: int = 2) -> str:
        if depth == 0:
            return self.leaf(shape)
        kind = self.rng.random()
        a = self.array(shape, depth - 1)
        if kind < 0.45:
            b = (
                self.number(1)
                if self.chance(0.3)
                else self.broadcast(shape, depth - 1)
                if self.chance(0.3)
                else self.array(shape, depth - 1)
            )
            return f"({a} {self.rng.choice('+-*')} {b})" if self.chance(0.6) else f"({b} {self.rng.choice('+-*')} {a})"
        if kind < 0.55:
            return self.product(shape, depth - 1) or a
        if kind < 0.62 and len(shape) == 1:
            return self.moved(shape[0], depth - 1)
        if kind < 0.85:
            return self.rng.choice(
                [
                    f"np.sin({a})",
                    f"np.tanh({a})",
                    f"np.exp(-{a} ** 2)",
                    f"{a} ** 2",
                    f"np.sqrt(1.0 + {a} ** 2)",
                    f"(-{a})",
                    f"np.maximum({a}, {self.atom()})",
                    f"np.abs({a})",
                    f"({a} / (2.0 + np.cos({a})))",
                    f"np.where({a} > 0.1, {self.array(shape, 0)}, {self.atom()})",
                ]
            )
        return a

    def moved(self, length: int, depth: int) -> str:
        """The entries of vectors at other places."""
        found = [
            f"np.roll({self.array((length,), depth)}, {self.rng.randint(-8, 8)})",
            f"np.diff({self.array((length + 1,), depth)})",
        ]
        if length > 1:
            first = self.rng.randint(1, length - 1)
            parts = f"{self.array((first,), depth)}, {self.array((length - first,), depth)}"
            found.append(f"np.concatenate(({parts}))")
        return self.rng.choice(found)

    def leaf(self, shape: Shape) -> str:
        """An array of this shape that exists, or part of one, or one made of a number."""
        found = []
        for name, own in self.scope.arrays.items():
            found += [name] * 4 if own == shape else []
            found += self.slices(name, own[0], shape[0]) if len(own) == len(shape) == 1 and own[0] > shape[0] else []
            found += self.views(name, own, shape)
        if len(shape) == 1 and shape[0] <= 6:
            found.append(f"w{shape[0]}")
        if not found or self.chance(0.08):
            return f"np.full({shape if len(shape) > 1 else shape[0]}, {self.number(1)})"
        return self.rng.choice(found)

    def slices(self, name: str, own: int, length: int) -> list[str]:
        start = self.rng.randint(0, own - length)
        found = [f"{name}[{start}:{start + length}]"] * 2 + [f"{name}[:{length}]"]
        found += [f"{name}[{own - length}:]"] if length > 1 else []
        return found + ([f"{name}[:{2 * length - 1}:2]"] if length > 1 and 2 * (length - 1) < own else [])

    def views(self, name: str, own: Shape, shape: Shape) -> list[str]:
        """Rows and columns of matrices, and vectors as matrices."""
        found = []
        if len(own) == 2 and len(shape) == 1 and own[1] == shape[0]:
            found += [f"{name}[{self.index(own[0])}]", f"{name}[{self.index(own[0])}, :]"]
        if len(own) == 2 and len(shape) == 1 and own[0] == shape[0]:
            found.append(f"{name}[:, {self.index(own[1])}]")
        if own == shape[::-1] and len(shape) == 2:
            found += [f"{name}.T"] * 2
        if len(own) == 1 and len(shape) == 2 and own[0] >= shape[0] * shape[1]:
            found.append(f"{name}[:{shape[0] * shape[1]}].reshape({shape[0]}, {shape[1]})")
        return found

    def broadcast(self, shape: Shape, depth: int) -> str:
        if len(shape) == 1:
            return self.array((1,), 0)
        first, second = shape
        return self.rng.choice(
            [self.array((second,), depth), f"{self.array((first,), 0)}[:, None]", f"{self.array((first,), 0)}[:, np.newaxis]"]
        )

    def product(self, shape: Shape, depth: int) -> str | None:
        matrices = [(name, own) for name, own in self.scope.arrays.items() if len(own) == 2]
        if len(shape) == 2:
            inner = self.rng.randint(1, 3)
            if self.chance(0.3):
                return f"np.outer({self.array((shape[0],), depth)}, {self.array((shape[1],), depth)})"
            return f"({self.array((shape[0], inner), depth)} @ {self.array((inner, shape[1]), depth)})"
        for name, own in self.rng.sample(matrices, len(matrices)):
            if own[0] == shape[0]:
                return (
                    f"np.dot({name}, {self.array((own[1],), depth)})"
                    if self.chance(0.5)
                    else f"({name} @ {self.array((own[1],), depth)})"
                )
            if own[1] == shape[0]:
                return self.rng.choice(
                    [f"({self.array((own[0],), depth)} @ {name})", f"{name}.sum(0)", f"({name}.T @ {self.array((own[0],), depth)})"]
                )
        return None

    def reduced(self) -> str:
        """A number from arrays."""
        length = self.rng.randint(1, self.n)
        a, b = self.array((length,), 1), self.array((length,), 1)
        return self.rng.choice(
            [f"np.dot({a}, {b})", f"({a} @ {b})", f"np.sum({a})", f"({a}).sum()", f"np.mean({a})", f"({a}).dot({b})"]
        )


class Statements(Arrays):
    """`size` is how many statements a body has at most."""

    def body(self, size: int, depth: int) -> None:
        """Statements in a block; at least one."""
        for _ in range(self.rng.randint(1, size)):
            self.rng.choices(
                [
                    self.assign,
                    self.change,
                    self.store,
                    self.local,
                    self.view,
                    self.whole,
                    self.loop,
                    self.branch,
                    self.rounds,
                    self.integer,
                    self.reduce,
                    self.called_helper,
                    self.over,
                ],
                [4, 2, 4, 1.5, 1, 2, 3 if depth else 0, 1.5 if depth else 0, 0.5 if depth else 0, 1, 1, 1, 0.7 if depth else 0],
            )[0](depth)

    def assign(self, depth: int) -> None:
        if self.chance(0.15) and len(self.scope.floats) > 1:
            a, b = self.rng.sample(self.scope.floats, 2)
            self.line(f"{a}, {b} = {self.rng.choice([f'{b}, {a}', f'{b}, math.sin({a} + {self.number(1)})'])}")
        elif self.chance(0.3) and self.scope.floats:
            name = self.rng.choice(self.scope.floats)
            text = self.number(2)
            self.line(f"{name} = {self.rng.choice([text, f'math.tanh({name} + {text})', f'0.5 * {name} + {text}'])}")
        else:
            name, text = self.fresh("x"), self.number()
            self.line(f"{name} = {text}")
            self.scope.floats.append(name)

    def change(self, depth: int) -> None:
        if self.scope.floats:
            name = self.rng.choice(self.scope.floats)
            op = self.rng.choice(["+=", "+=", "-=", "*=", "/="])
            amount = f"math.cos({self.number(1)})" if op == "*=" else self.positive(1) if op == "/=" else self.number(2)
            self.line(f"{name} {op} {amount}")

    def store(self, depth: int) -> None:
        if self.scope.writable:
            place = self.entry(self.rng.choice(sorted(self.scope.writable)))
            op = self.rng.choice(["="] * 3 + ["+="] * 3 + ["-=", "*="])
            self.line(f"{place} {op} {f'math.cos({self.number(1)})' if op == '*=' else self.number(2)}")

    def shape(self) -> Shape:
        return (self.rng.randint(1, 6),) if self.chance(0.7) else (self.rng.randint(1, 3), self.rng.randint(1, 3))

    def local(self, depth: int) -> None:
        """An array of its own."""
        shape, name = self.shape(), self.fresh("a")
        form = self.rng.choice(["zeros", "empty", "whole", "whole", "copy", "list"])
        whole = self.array(shape)
        text = shape if len(shape) > 1 else self.length(shape[0])
        if form == "empty" and len(shape) == 1:
            self.line(f"{name} = np.empty({text})")
            self.fill(name, shape[0])
        elif form == "list" and len(shape) == 1:
            self.line(f"{name} = np.array([{', '.join(self.number(1) for _ in range(shape[0]))}])")
        elif form == "copy":
            self.line(f"{name} = ({whole}).copy()")
        elif form == "zeros":
            self.line(f"{name} = np.zeros({text})")
        else:
            self.line(f"{name} = {whole} * 1.5")
        self.scope.arrays[name] = shape
        self.scope.writable.add(name)

    def fill(self, name: str, length: int) -> None:
        """Every entry of a new array."""
        form = self.rng.random()
        if form < 0.5:
            i = self.fresh("i")
            with self.block(f"for {i} in range({self.length(length)}):"):
                self.scope.integers[i] = (0, length - 1)
                if self.chance(0.5):
                    self.body(2, 1)
                self.line(f"{name}[{i}] = {self.number(2)}")
        elif form < 0.75:
            texts = [self.number(2) for _ in range(length)]
            for k, text in self.rng.sample(list(enumerate(texts)), length):
                self.line(f"{name}[{k}] = {text}")
        else:
            self.line(f"{name}[:] = {self.rng.choice([self.array((length,)), '0.0', self.number(1)])}")

    def view(self, depth: int) -> None:
        """A second name for part of an array."""
        name = self.fresh("p")
        base = self.rng.choice(list(self.scope.arrays))
        own = self.scope.arrays[base]
        if len(own) == 2:
            text, shape = f"{base}[{self.index(own[0])}]", own[1:]
        elif own[0] >= 4 and self.chance(0.4):
            text, shape = f"{base}[:4].reshape(2, 2)", (2, 2)
        elif own[0] > 1:
            start = self.rng.randrange(own[0] - 1)
            text, shape = f"{base}[{start}:]", (own[0] - start,)
        else:
            return
        self.line(f"{name} = {text}")
        self.scope.arrays[name] = shape
        if base in self.scope.writable:
            self.scope.writable.add(name)

    def whole(self, depth: int) -> None:
        if not self.scope.writable:
            return
        name = self.rng.choice(sorted(self.scope.writable))
        shape = self.scope.arrays[name]
        place, part = f"{name}[:]", shape
        if len(shape) == 1 and shape[0] > 1 and self.chance(0.4):
            start = self.rng.randrange(shape[0] - 1)
            place, part = f"{name}[{start}:]", (shape[0] - start,)
        elif self.chance(0.3):
            place = name
        op = self.rng.choice(["=", "+=", "-=", "*="]) if place != name else self.rng.choice(["+=", "-=", "*="])
        value = self.number(1) if self.chance(0.2) else self.array(part)
        self.line(f"{place} {op} {f'np.cos({value})' if op == '*=' else value}")

    def reduce(self, depth: int) -> None:
        name, text = self.fresh("s"), self.reduced()
        self.line(f"{name} = {text}")
        self.scope.floats.append(name)

    def integer(self, depth: int) -> None:
        if self.scope.integers:
            name = self.rng.choice(list(self.scope.integers))
            low, high = self.scope.integers[name]
            k = self.fresh("k")
            if low >= 0 and self.chance(0.6):
                length = self.rng.randint(1, 6)
                self.line(f"{k} = {self.rng.choice([f'({name} + 1) % {length}', f'min({name}, {length - 1})'])}")
                self.scope.integers[k] = (0, length - 1)
            else:
                self.line(f"{k} = {name} - 1 if {name} > {low} else {high}")
                self.scope.integers[k] = (low, high)

    def called_helper(self, depth: int) -> None:
        if not self.array_helpers:
            return
        kind, name = self.rng.choice(self.array_helpers)
        if kind == "pair":
            a, b = self.fresh("x"), self.fresh("x")
            self.line(f"{a}, {b} = {name}({self.number(1)}, {self.number(1)})")
            self.scope.floats += [a, b]
        elif kind == "made":
            array, length = self.fresh("a"), self.rng.randint(1, 6)
            self.line(f"{array} = {name}({self.array((length,), 1)})")
            self.scope.arrays[array] = (length,)
            self.scope.writable.add(array)
        else:
            outs = [out for out in sorted(self.scope.writable) if len(self.scope.arrays[out]) == 1]
            if outs:
                out = self.rng.choice(outs)
                self.line(f"{name}({self.array((self.scope.arrays[out][0],), self.rng.randint(0, 1))}, {out})")

    def over(self, depth: int) -> None:
        """A loop over entries."""
        vectors = [name for name, shape in self.scope.arrays.items() if len(shape) == 1]
        a, b = self.rng.choice(vectors), self.rng.choice(vectors)
        e, e2, i = self.fresh("e"), self.fresh("e"), self.fresh("i")
        lengths = self.scope.arrays[a][0], self.scope.arrays[b][0]
        header, count, floats = self.rng.choice(
            [
                (f"for {e} in {a}:", 0, [e]),
                (f"for {i}, {e} in enumerate({a}):", lengths[0], [e]),
                (f"for {e}, {e2} in zip({a}, {b}):", 0, [e, e2]),
            ]
        )
        with self.block(header):
            self.scope.floats += floats
            if count:
                self.scope.integers[i] = (0, count - 1)
            held = self.scope.writable
            self.scope.writable = set()  # what is looped over stays as it is
            self.body(2, 0)
            self.scope.writable = held

    def loop(self, depth: int) -> None:
        count = self.rng.choice([1, 2, 3, self.n, self.n, self.m])
        i = self.fresh("i")
        start, step = self.rng.choice([0, 0, 0, 1]), self.rng.choice([1] * 6 + [2, -1])
        if step == -1:
            header, bounds = f"range({count} - 1, -1, -1)", (0, count - 1)
        elif start or step > 1:
            header, bounds = f"range({start}, {self.length(count)}{', 2' if step > 1 else ''})", (start, max(count - 1, start))
        else:
            header, bounds = f"range({self.length(count)})", (0, count - 1)
        inner = [(name, high) for name, (low, high) in self.scope.integers.items() if low >= 0]
        if inner and self.chance(0.2):
            name, high = self.rng.choice(inner)
            header, bounds = f"range({name})", (0, max(high - 1, 0))
        if not self.scope.floats or self.chance(0.4):
            name = self.fresh("s")
            self.line(f"{name} = {self.rng.choice(['0.0', '0', '1.0', self.atom()])}")
            self.scope.floats.append(name)
        with self.block(f"for {i} in {header}:"):
            self.scope.integers[i] = bounds
            self.body(3, depth - 1)
            if self.chance(0.1):
                with self.block(f"if {self.condition(1)}:"):
                    self.line("continue")
                self.body(1, 0)

    def branch(self, depth: int) -> None:
        with self.block(f"if {self.condition()}:"):
            self.body(2, depth - 1)
        if self.chance(0.6):
            if self.chance(0.2):
                with self.block(f"elif {self.condition()}:"):
                    self.body(2, depth - 1)
            with self.block("else:"):
                self.body(2, depth - 1)

    def rounds(self, depth: int) -> None:
        name, count = self.fresh("r"), self.rng.randint(1, 4)
        self.line(f"{name} = 0")
        with self.block(f"while {name} < {count}:"):
            self.scope.integers[name] = (0, count - 1)
            self.body(2, depth - 1)
            self.line(f"{name} += {self.rng.choice([1, 1, 2])}")


class Generator(Statements):
    """Whole programs."""

    def helper(self) -> None:
        """A function of numbers."""
        name, count = self.fresh("helper"), self.rng.randint(1, 2)
        arguments = ["p", "q"][:count]
        self.line("@jit")
        with self.block(f"def {name}({', '.join(arguments)}):"):
            self.scope = Scope(floats=list(arguments))
            for _ in range(self.rng.randint(0, 2)):
                self.rng.choice([self.assign, self.change])(0)
            if self.chance(0.3):
                with self.block(f"if {self.condition()}:"):
                    self.line(f"return {self.number(2)}")
            self.line(f"return math.tanh({self.number(2)})")
        self.line("")
        self.helpers.append((name, count))

    def array_helper(self) -> None:
        """A function that writes into an array, or makes one, or returns two numbers."""
        kind = self.rng.choice(["into", "made", "pair"])
        name = self.fresh(kind)
        self.line("@jit")
        with self.block(f"def {name}({'x, out' if kind == 'into' else 'x' if kind == 'made' else 'p, q'}):"):
            self.scope = Scope(floats=["p", "q"] if kind == "pair" else ["v"])
            if kind == "pair":
                self.line(f"return math.tanh({self.number(2)}), math.sin({self.number(2)})")
            else:
                if kind == "made":
                    self.line("out = np.empty(x.size)")
                with self.block("for i in range(x.size):"):
                    self.line("v = x[i]")
                    self.line(f"out[i] = math.tanh({self.number(2)})")
                if kind == "made":
                    self.line("return out")
        self.line("")
        self.array_helpers.append((kind, name))

    def program(self, seed: int) -> Program:
        for _ in range(self.rng.choice([0, 0, 1, 2])):
            self.helper()
        for _ in range(self.rng.choice([0, 0, 1, 2])):
            self.array_helper()
        form = self.rng.choice([*FORMS[:1] * 3, *FORMS])
        self.line("@jit")
        with self.block("def f(t, u, theta, du):" if form == "in place" else "def f(t, u, theta):"):
            self.scope = Scope(floats=["t"], arrays={"u": (self.n,), "theta": (self.m,)})
            self.body(self.rng.choice([1, 2, 4]), 2)
            {"in place": self.in_place, "returning": self.returning, "number": self.number_returned}[form]()
        text = "\n".join(self.lines) + "\n"
        if self.chance(0.1):  # a closure
            text = f"def made(k0):\n{textwrap.indent(text, '    ')}\n    return f\n\n\nf = made(0.6)\n"
        return Program(seed, text, form, self.n, self.m, self.space)

    def in_place(self) -> None:
        self.finished("du")

    def finished(self, name: str) -> None:
        """All entries of an array of the states, and what is done to it behind that."""
        self.fill(name, self.n)
        self.scope.arrays[name] = (self.n,)
        self.scope.writable.add(name)
        if self.chance(0.6):
            self.body(self.rng.choice([1, 3]), 2)

    def returning(self) -> None:
        form = self.rng.random()
        if form < 0.3:
            self.line(f"return {self.array((self.n,))} * 1.0")
        elif form < 0.5:
            self.line(f"return np.array([{', '.join(self.number(2) for _ in range(self.n))}])")
        else:
            self.line(f"out = np.{self.rng.choice(['empty(n)', 'zeros(n)', 'empty_like(u)'])}")
            self.finished("out")
            self.line("return out")

    def number_returned(self) -> None:
        self.line(f"return 1.0 * {self.number()} + {self.reduced()}")


def generate(seed: int) -> Program:
    generator = Generator(seed)
    return generator.program(seed)


Check = Callable[[Program], str | None]
