"""The source of a model: f, the initial state, what is observed, and events, as Python that can be read and differentiated."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from adjode.petab.formulas import TIME, binary, guarded, name, names, number, simplified, substitute, text, total
from adjode.petab.laws import laws
from adjode.petab.sbml import Model

_MANY = 100  # reactions: from here on, rate laws of one form are a loop over tables

INITIAL = "initial_{}"  # the input that says where a state starts


class Source:
    """Text of functions of a model whose `inputs` are the entries of theta.

    Parameters
    ----------
    model : Model
    inputs : list of str
        Constants of the model, placeholders, and `initial_X` where the start of a state X is given from outside.
    """

    def __init__(self, model: Model, inputs: Iterable[str]):
        self.model = model
        self.inputs = {identifier: k for k, identifier in enumerate(inputs)}
        self.places = {state: k for k, state in enumerate(model.states)}
        self._fixed: dict[str, ast.expr] = {}

    # --- what names mean -------------------------------------------------------------------------

    def fixed(self, identifier: str) -> ast.expr | None:
        """What a constant is, in numbers and inputs; None for what is none."""
        if identifier in self.inputs or identifier not in self.model.constants:
            return None
        if identifier not in self._fixed:
            self._fixed[identifier] = self.at_start(self.model.constants[identifier], (identifier,))
        value = self._fixed[identifier]
        if text(value) == "math.nan":
            raise ValueError(f"{identifier} has no value, neither in the model nor in the tables.")
        return value

    def at_start(self, expression: ast.expr, seen: tuple[str, ...] = ()) -> ast.expr:
        """An expression in inputs alone, as it is at the start."""

        def meaning(identifier: str) -> ast.expr | None:
            if identifier == TIME:
                return number(0.0)
            if identifier in seen:
                raise ValueError(f"the initial assignment of {identifier} depends on itself.")
            if identifier in self.inputs:
                return None
            return self.at_start(self._start(identifier), (*seen, identifier))

        return substitute(expression, meaning)

    def _start(self, identifier: str) -> ast.expr:
        given = INITIAL.format(identifier)
        if given in self.inputs:
            return name(given)
        for meanings in (self.model.initial, self.model.constants, self.model.rules, self.model.rates):
            if identifier in meanings:
                return meanings[identifier]
        raise ValueError(f"{identifier} is neither in the model nor in the tables.")

    def plain(self, expression: ast.expr) -> ast.expr:
        """An expression with numbers in place of constants that are numbers."""

        def meaning(identifier: str) -> ast.expr | None:
            value = self.fixed(identifier)
            return value if value is not None and not names(value) else None

        return simplified(substitute(expression, meaning))

    def resolved(self, expression: ast.expr) -> ast.expr:
        """An expression in states, inputs and time alone."""

        def meaning(identifier: str) -> ast.expr | None:
            definition = self._definition(identifier)
            return None if definition is None else self.resolved(definition)

        return self.plain(substitute(expression, meaning))

    def start(self) -> str:
        """The function that writes the initial states."""
        found = {f"u[{k}]": self.at_start(name(state)) for k, state in enumerate(self.model.states)}
        other = {target: value for target, value in found.items() if text(value) != "0.0"}
        for target, value in other.items():
            if text(value) == "math.nan":
                raise ValueError(f"{self.model.states[int(target[2:-1])]} has no initial value.")
        return self.function("start(theta, u)", {"u[:]": number(0.0), **other}, "The states at the start.")

    def _definition(self, identifier: str) -> ast.expr | None:
        """What is calculated; None for states, inputs and time."""
        if identifier in self.inputs or identifier in self.places or identifier == TIME:
            return None
        fixed = self.fixed(identifier)
        if fixed is not None:
            return fixed
        found = self.model.rules.get(identifier, self.model.rates.get(identifier))
        if found is None:
            raise ValueError(f"{identifier} is neither in the model nor in the tables.")
        return found

    # --- text ------------------------------------------------------------------------------------

    def needed(self, expressions: Iterable[ast.expr]) -> tuple[list[str], dict[str, ast.expr]]:
        """The states, inputs and time that expressions read, and what is calculated for them, in order."""
        leaves: dict[str, None] = {}
        calculated: dict[str, ast.expr] = {}

        def visit(expression: ast.expr) -> None:
            for identifier in names(expression):
                if identifier in leaves or identifier in calculated:
                    continue
                definition = self._definition(identifier)
                if definition is None:
                    leaves[identifier] = None
                    continue
                definition = self.plain(definition)
                visit(definition)
                calculated[identifier] = definition

        for expression in expressions:
            visit(expression)
        return list(leaves), calculated

    def _varies(self, expression: ast.expr) -> bool:
        return any(one in self.places or one == TIME for one in names(self.resolved(expression)))

    def _leaves(self, leaves: Iterable[str]) -> list[str]:
        found = set(leaves)
        lines = [f"{state} = u[{k}]" for state, k in self.places.items() if state in found]
        lines += [f"{given} = theta[{k}]" for given, k in self.inputs.items() if given in found]
        return lines + ([f"{TIME} = t"] if TIME in found else [])

    def function(self, head: str, targets: Mapping[str, ast.expr], about: str, *, partial: bool = False) -> str:
        """A function that writes targets, `y[0]` for instance; one named `return` is returned.

        With `partial` it may be called where some of them have no value: they and their slopes do no harm there.
        """
        plain = {target: self.plain(expression) for target, expression in targets.items()}
        leaves, calculated = self.needed(plain.values())
        if partial:
            plain, calculated = ({key: guarded(one, self._varies) for key, one in part.items()} for part in (plain, calculated))
        lines = [*self._leaves(leaves), *(f"{identifier} = {text(value)}" for identifier, value in calculated.items())]
        lines += [f"return {text(value)}" if target == "return" else f"{target} = {text(value)}" for target, value in plain.items()]
        return _function(head, about, lines)

    def f(self) -> str:
        about = "The derivatives of the states, by the rates of the reactions."
        model, head = self.model, "f(t, u, theta, du)"
        if len(model.rates) > _MANY:
            return self._compact(head, about)
        targets = {f"du[{k}]": self._derivative(state) for k, state in enumerate(model.states)}
        return self.function(head, targets, about)

    def _derivative(self, state: str) -> ast.expr:
        if state in self.model.rate_rules:
            return self.model.rate_rules[state]
        row = self.model.stoichiometry.get(state, {})
        amounts = total((value, name(reaction)) for reaction, value in row.items() if value)
        volume = self.model.volumes.get(state)
        if volume is None or text(self.plain(name(volume))) == "1.0" or text(amounts) == "0.0":
            return amounts
        return binary(amounts, ast.Div, name(volume))

    def _compact(self, head: str, about: str) -> str:
        """With a loop over tables for each form of rate law, and one over the stoichiometry."""
        model = self.model
        tables, loops, single = laws({key: self.plain(rate) for key, rate in model.rates.items()}, self.kind)
        rest = {state: self.plain(rule) for state, rule in model.rate_rules.items()}
        shared = [identifier for identifier in self._shared() if identifier in loops.reads]
        leaves, calculated = self.needed([*single.values(), *rest.values(), *map(name, shared)])
        lines = [*self._leaves(leaves), *(f"{identifier} = {text(value)}" for identifier, value in calculated.items())]
        if shared:
            lines += [f"w = np.empty({len(self._shared())})"]
            lines += [f"w[{k}] = {identifier}" for k, identifier in enumerate(self._shared()) if identifier in shared]
        lines += [f"v = np.empty({len(model.rates)})", *loops.lines]
        place = {reaction: k for k, reaction in enumerate(model.rates)}
        lines += [f"v[{place[reaction]}] = {text(rate)}" for reaction, rate in single.items()]
        stoichiometry, sums = self._stoichiometry(place)
        lines += [*sums, *(f"du[{self.places[state]}] = {text(rule)}" for state, rule in rest.items())]
        return "\n".join([*tables, *stoichiometry, "", "", _function(head, about, lines)])

    def _shared(self) -> list[str]:
        """What is neither state nor input nor number, and the same for all reactions."""
        constants = [key for key in self.model.constants if key not in self.inputs and names(self.model.constants[key])]
        return [*self.model.rules, *constants, TIME]

    def kind(self, identifier: str) -> tuple[str, int]:
        """The array that a quantity is an entry of, for a loop, and where."""
        if identifier in self.places:
            return "u", self.places[identifier]
        if identifier in self.inputs:
            return "theta", self.inputs[identifier]
        return "w", self._shared().index(identifier)

    def _stoichiometry(self, place: Mapping[str, int]) -> tuple[list[str], list[str]]:
        rows, columns, values, divided = [], [], [], []
        for state, row in self.model.stoichiometry.items():
            if state in self.model.rate_rules:
                continue
            volume = self.plain(name(self.model.volumes[state])) if state in self.model.volumes else number(1.0)
            by = 1.0 if names(volume) else float(ast.literal_eval(volume))
            if names(volume):
                divided.append(f"du[{self.places[state]}] /= {text(volume)}")
            for reaction, value in row.items():
                rows.append(self.places[state])
                columns.append(place[reaction])
                values.append(value / by)
        tables = [array("ROWS", rows), array("COLUMNS", columns), array("STOICHIOMETRY", values)]
        lines = ["du[:] = 0.0", f"for i in range({len(rows)}):", "    du[ROWS[i]] += STOICHIOMETRY[i] * v[COLUMNS[i]]"]
        return tables, [*lines, *divided]


def _function(head: str, about: str, lines: list[str]) -> str:
    return "\n".join([f"def {head}:", f'    """{about}"""', *(f"    {line}" for line in lines), ""])


def array(title: str, values: list) -> str:
    """An assignment of an array, in lines that can be read."""
    shown = [repr(value) for value in values]
    lines = [", ".join(shown[k : k + 16]) for k in range(0, len(shown), 16)]
    return f"{title} = np.array([\n    " + ",\n    ".join(lines) + "])"
