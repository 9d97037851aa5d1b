"""Named states and parameters: dicts and structured scalars, laid out as flat vectors and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adjode.checks import float_vector, require_unmasked
from adjode.model.fields import Fields, entry_name
from adjode.status import NotFiniteError


class Layout:
    """How one `u0` or `theta` is laid out in the flat vector that callbacks see.

    A dict, or a pandas Series whose labels are names, is laid out in its own order, each entry a scalar or an array in C order; a
    NumPy structured scalar in the order of its fields. A flat vector is its own layout. Where a `Dynamics` declares names, these
    say how everything is laid out.

    Attributes
    ----------
    fields : Fields or None
        The named parts, in the order in which they lie in the vector; None for a flat vector without names.
    is_declared : bool
        Whether a `Dynamics` has declared them.
    size : int
    """

    def __init__(self, name: str, example: Any, declared: Fields | None = None):
        self.name = name
        self.fields, self.is_declared = declared, declared is not None
        self._form: Any = None  # of what is given back: None for a vector, dict, or a dtype
        example = named(name, example)
        given = None
        if isinstance(example, Mapping):
            self._form = dict
            given = Fields(tuple((key, np.shape(value)) for key, value in example.items()))
        elif is_structured(example):
            if np.ndim(example):
                raise ValueError(f"{name} must be one structured scalar, but an array of shape {np.shape(example)} was given.")
            self._form = _as_floats(example.dtype)
            given = Fields(tuple((field, self._form[field].shape) for field in self._form.names))
        self.fields = self.fields or given
        self.size = self.flatten(name, example).size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple:
        """All that it is: a dict in another order is another layout, unless names are declared."""
        return self.name, self.fields, self.is_declared, self._form, self.size

    @property
    def is_flat(self) -> bool:
        return self._form is None

    @property
    def names(self) -> dict[str, int] | None:
        """The named parts and their sizes, in their order; None for a flat vector."""
        if self.fields is None:
            return None
        return {str(name): part.stop - part.start for name, part in self.fields.places.items()}

    def flatten(self, name: str, value: Any) -> np.ndarray:
        """The flat vector of `value`: by name if it has names, which must then be those of this layout, or as it is."""
        value = named(name, value)
        if not (isinstance(value, Mapping) or is_structured(value)):
            return self._checked(name, value)
        if self.fields is None:
            raise TypeError(f"{name} must be a flat vector like {self.name}, but a {type(value).__name__} was given.")
        if isinstance(value, Mapping):
            self._require_names(name, "entries", list(value))
            parts = value
        else:
            self._require_names(name, "fields", list(value.dtype.names))
            parts = {field: value[field] for field in value.dtype.names}
        for key, shape in self.fields.shapes:
            if np.shape(parts[key]) != shape:
                raise ValueError(f"{name}[{key!r}] must have shape {shape}, but its shape is {np.shape(parts[key])}.")
        return self.fields.joined({key: float_vector(f"{name}[{key!r}]", np.ravel(parts[key])) for key in self.fields.names})

    def _checked(self, name: str, value: Any) -> np.ndarray:
        """A vector without names, as it is."""
        size = getattr(self, "size", None if self.fields is None else self.fields.size)
        try:
            return float_vector(name, value, size)
        except NotFiniteError as error:
            if self.fields is None:
                raise
            values = np.ravel(np.asarray(value, dtype=float))
            k = int(np.argmin(np.isfinite(values)))
            error.args = (f"{name} must be finite, but {self.entry_name(name, k)} is {values[k]}.",)
            raise

    def flatten_rows(self, name: str, value: Mapping | np.ndarray, rows: tuple[int, ...]) -> np.ndarray:
        """The vectors (*rows, size) of a dict of arrays or a structured array."""
        assert self.fields is not None
        for key, shape in self.fields.shapes:
            if np.shape(value[key]) != rows + shape:
                raise ValueError(f"{name}[{key!r}] must have shape {rows + shape}, but its shape is {np.shape(value[key])}.")
            require_unmasked(f"{name}[{key!r}]", value[key])
            if np.asarray(value[key]).dtype.kind not in "fiub":
                raise TypeError(f"{name}[{key!r}] must hold real numbers, but its dtype is {np.asarray(value[key]).dtype}.")
        return self.fields.joined({key: np.asarray(value[key]) for key in self.fields.names}, rows)

    def _require_names(self, name: str, kind: str, given: list) -> None:
        assert self.fields is not None
        known = self.fields.names
        if set(given) == set(known):
            return
        if not self.is_declared:
            raise ValueError(f"{name} must have the {kind} {known}, but it has {given}.")
        missing, unknown = [key for key in known if key not in given], [key for key in given if key not in known]
        parts = [f"lacks {', '.join(map(repr, missing))}"] * bool(missing)
        parts += [f"has {', '.join(map(repr, unknown))}, which the Dynamics does not know"] * bool(unknown)
        raise ValueError(f"{name} {' and '.join(parts)}: its {kind} must be {', '.join(map(repr, known))}.")

    def unflatten(self, flat: np.ndarray) -> Any:
        """Vectors along the last axis of `flat` in the form of the example; a dict has the order of this layout."""
        if self._form is None:
            return flat
        assert self.fields is not None
        parts = self.fields.split(flat)
        if self._form is dict:
            return {key: part[()] for key, part in parts.items()}
        record = np.empty(flat.shape[:-1], dtype=self._form)
        for key, part in parts.items():
            record[key] = part
        return record[()]

    def entry_names(self, name: str | None = None) -> list[str]:
        """A name for each entry of the flat vector: `name[0]`, `name['prey']`, `name['rates'][2]`, ..."""
        return [self.entry_name(name or self.name, k) for k in range(self.size)]

    def entry_name(self, name: str, k: int) -> str:
        return entry_name(name, self.fields, k)


def is_structured(value: Any) -> bool:
    return isinstance(value, (np.void, np.ndarray)) and bool(value.dtype.names)


def named(name: str, value: Any) -> Any:
    """A pandas Series whose labels are names as a dict, everything else as it is."""
    index = getattr(value, "index", None)
    if hasattr(value, "to_dict") and index is not None and all(isinstance(label, str) for label in index):
        if len(set(index)) < len(index):
            raise ValueError(f"{name} has labels more than once: {', '.join(map(repr, index))}.")
        return value.to_dict()
    return value


def _as_floats(dtype: np.dtype) -> np.dtype:
    """The same fields, each of float64."""
    assert dtype.names is not None
    fields = []
    for name in dtype.names:
        base, shape = dtype[name].base, dtype[name].shape
        if base.names:
            raise TypeError(f"structured fields must be numbers, but field {name!r} has fields of its own.")
        if base.kind not in "fiu":
            raise TypeError(f"structured fields must be real numbers, but field {name!r} has dtype {base}.")
        fields.append((name, np.float64, shape))
    return np.dtype(fields)
