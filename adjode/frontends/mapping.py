"""What u0 and theta of an experiment are made of: numbers, parameters of the fit by their names, and functions of these."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from adjode.derivation.derived import Derived
from adjode.model.field_access import with_entries
from adjode.model.fields import Fields
from adjode.model.layout import Layout, is_structured
from adjode.model.layout import named as as_dict
from adjode.model.names import entries_read


class Function:
    """A function of the parameters of a fit, p, or of an experiment's theta, or of both, with its derivatives from its source.

    Its arguments are called that; a further one is overwritten with the result, which is returned otherwise.
    """

    def __init__(self, label: str, function: Callable, fields: dict[str, Fields | None]):
        self.label, python = label, getattr(function, "py_func", function)
        arguments = list(inspect.signature(python).parameters)
        self.reads = [name for name in arguments if name in fields]
        outputs = arguments[len(self.reads) :]
        if arguments[: len(self.reads)] != self.reads or not self.reads or len(outputs) > 1:
            allowed = " or ".join(fields)
            raise TypeError(
                f"{label} must be a function whose arguments are called {allowed}, plus an array that it overwrites if it "
                f"returns nothing, but it is {python.__name__}({', '.join(arguments)})."
            )
        given = [*(fields[name] for name in self.reads), *[None] * len(outputs)]
        self.function = with_entries(label, function, given)
        self._in_place = bool(outputs)
        roles = ["u", "theta"][: len(self.reads)]
        self._derived = Derived(self.function, (*roles, *["y"] * len(outputs)))
        self._vjp = self._derived.vjp_u if len(roles) == 1 else self._derived.vjp
        self._returns_number = False

    def uses(self, argument: str) -> set[int] | None:
        """Which entries of an argument it reads; None where its source does not tell."""
        if argument not in self.reads:
            return set()
        return entries_read(getattr(self.function, "py_func", self.function), self.reads.index(argument))

    def varies(self, inputs: dict[str, np.ndarray]) -> bool:
        """Whether it depends on entries that vary."""
        read = {name: self.uses(name) for name in self.reads}
        return any(np.any(inputs[name] if one is None else inputs[name][list(one)]) for name, one in read.items())

    def __call__(self, values: dict[str, np.ndarray], size: int | None) -> np.ndarray:
        """The result, of this size where it is overwritten."""
        inputs = [values[name].copy() for name in self.reads]
        if self._in_place:
            if size is None:
                raise TypeError(
                    f"{self.label} overwrites its result, whose size is not known: give states= to Dynamics, or return it."
                )
            result = np.full(size, np.nan)
            self.function(*inputs, result)
            return result
        result = np.asarray(self.function(*inputs), dtype=float)
        self._returns_number = result.ndim == 0
        return np.atleast_1d(result)

    def pull_back(self, values: dict[str, np.ndarray], bar: np.ndarray) -> dict[str, np.ndarray]:
        """The cotangents of what it reads that a cotangent of its result is; it has been called before."""
        inputs = [values[name].copy() for name in self.reads]
        bars = [np.full_like(one, np.nan) for one in inputs]
        self._vjp(*inputs, *([] if self._returns_number else [bar.copy()]), *bars)
        scale = bar[0] if self._returns_number else 1.0
        return {name: scale * found for name, found in zip(self.reads, bars, strict=True)}

    def curve(self, values: dict[str, np.ndarray], bar: np.ndarray, dots: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """How what `pull_back` gives for the same cotangent changes along tangents of what it reads."""
        inputs, moved = ([given[name].copy() for name in self.reads] for given in (values, dots))
        bars = [np.full_like(one, np.nan) for one in inputs]
        lam, lam_dot = ([], []) if self._returns_number else ([bar.copy()], [np.zeros_like(bar)])
        self._derived.vjp_dot(*inputs, *lam, *moved, *lam_dot, *bars)
        scale = bar[0] if self._returns_number else 1.0
        return {name: scale * found for name, found in zip(self.reads, bars, strict=True)}

    def require_second_order(self) -> None:
        """Raise a TypeError if it cannot be differentiated twice."""
        try:
            self._derived.vjp_dot  # noqa: B018  (so that what is refused is refused here)
        except TypeError as error:
            raise TypeError(f"second derivatives of the function for {self.label} cannot be derived: {error}") from None


class Block:
    """u0 or theta of an experiment, as a function of the parameters of a fit, p, and for u0 of theta.

    Parameters
    ----------
    name : {"u0", "theta"}
    given : dict, vector or function
        Of numbers, names of parameters, and functions.
    declared : Fields or None
        Those that a `Dynamics` declares.
    parameters : Fields
        The names of the parameters.
    theta : Fields, optional
        Of theta, which functions then may read too.
    """

    def __init__(self, name: str, given: Any, declared: Fields | None, parameters: Fields, *theta: Fields | None):
        self.name, self._declared = name, declared
        self._fields: dict[str, Fields | None] = {"p": parameters}
        if theta:
            self._fields["theta"] = theta[0]
        self._whole: Function | None = None
        self._at: list[int] = []  # the entries that are parameters,
        self._of: list[int] = []  # and which
        self._functions: list[tuple[int, Function]] = []
        self._numbers = np.zeros(0)
        self.layout: Layout | None = None
        if callable(given):
            self._whole = Function(name, given, self._fields)
            self._size = None if declared is None else declared.size
        else:
            self._read(given, declared)

    def _read(self, given: Any, declared: Fields | None) -> None:
        given = as_dict(self.name, given)
        if is_structured(given):
            given = {field: given[field] for field in given.dtype.names}
        if isinstance(given, Mapping):
            parts = {name: np.asarray(value, dtype=object) for name, value in given.items()}
            self.layout = Layout(self.name, {name: np.zeros(part.shape) for name, part in parts.items()}, declared)
            assert self.layout.fields is not None
            pieces = [np.ravel(parts[name]) for name in self.layout.fields.names]
            entries = np.concatenate(pieces) if pieces else np.zeros(0, dtype=object)
        else:
            entries = np.ravel(np.asarray(given, dtype=object))
            self.layout = Layout(self.name, np.zeros(entries.size), declared)
        self._size, self._numbers = entries.size, np.zeros(entries.size)
        for k, entry in enumerate(entries):
            self._read_entry(k, entry)

    def _read_entry(self, k: int, entry: Any) -> None:
        assert self.layout is not None
        label, known = self.layout.entry_name(self.name, k), self._fields["p"]
        assert known is not None
        if isinstance(entry, str):
            if entry not in known.names:
                raise ValueError(f"{label} is the parameter {entry!r}, which is not among {', '.join(known.names)}.")
            self._at.append(k)
            self._of.append(known.names.index(entry))
        elif callable(entry):
            self._functions.append((k, Function(label, entry, self._fields)))
        else:
            try:
                self._numbers[k] = entry
            except (TypeError, ValueError):
                raise TypeError(f"{label} must be a number, the name of a parameter, or a function, not {entry!r}.") from None

    def uses(self, argument: str, size: int) -> set[int]:
        """Which entries of p or theta it may depend on."""
        named = set(self._of) if argument == "p" else set()
        functions = [function for _, function in self._functions] + ([] if self._whole is None else [self._whole])
        read = [function.uses(argument) for function in functions]
        return named.union(*(set(range(size)) if one is None else one for one in read))

    @property
    def has_functions(self) -> bool:
        return bool(self._functions) or self._whole is not None

    def varying(self, *inputs: np.ndarray) -> np.ndarray:
        """Which entries depend on those entries of p, and of theta, that vary."""
        assert self.layout is not None
        varies = dict(zip(self._fields, inputs, strict=True))
        found = np.zeros(self.layout.size, dtype=bool)
        found[self._at] = varies["p"][self._of]
        for k, function in self._functions:
            found[k] = function.varies(varies)
        if self._whole is not None:
            found[:] = self._whole.varies(varies)
        return found

    def __call__(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """The flat vector; `values` are p, and theta where functions may read it."""
        if self._whole is not None:
            found = self._whole(values, self._size)
            if self.layout is None:
                self.layout, self._size = Layout(self.name, np.zeros(found.size), self._declared), found.size
            return self.layout.flatten(self.name, found)
        found = self._numbers.copy()
        found[self._at] = values["p"][self._of]
        for k, function in self._functions:
            result = function(values, 1)
            if result.size != 1:
                raise ValueError(f"{function.label} must be a number, but the function gives {result.size}.")
            found[k] = result[0]
        return found

    def pull_back(self, values: dict[str, np.ndarray], bar: np.ndarray) -> dict[str, np.ndarray]:
        """The cotangents of p, and of theta, that a cotangent of the vector is; it has been called at these values."""
        total = self._summed(values, bar, lambda function, one: function.pull_back(values, one))
        np.add.at(total["p"], self._of, bar[self._at])
        return total

    def curve(self, values: dict[str, np.ndarray], bar: np.ndarray, dots: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """How what `pull_back` gives for the same cotangent changes along tangents of p, and of theta."""
        return self._summed(values, bar, lambda function, one: function.curve(values, one, dots))

    def _summed(
        self, values: dict[str, np.ndarray], bar: np.ndarray, of: Callable[[Function, np.ndarray], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """The sum of what `of(function, cotangent)` gives, for all functions whose cotangents are not zero."""
        total = {name: np.zeros_like(value) for name, value in values.items()}
        parts = [of(function, bar[k : k + 1]) for k, function in self._functions if bar[k] != 0.0]
        if self._whole is not None:
            parts.append(of(self._whole, bar))
        for part in parts:
            for name, found in part.items():
                total[name] += found
        return total

    def require_second_order(self) -> None:
        """Raise a TypeError if a function among its entries cannot be differentiated twice."""
        for function in (*(one for _, one in self._functions), *([] if self._whole is None else [self._whole])):
            function.require_second_order()
