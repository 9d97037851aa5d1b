"""Named states and parameters: dicts and structured scalars, laid out as flat vectors and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adjode.checks import float_vector


def unstructured(array: np.ndarray) -> np.ndarray:
    """The numbers of a structured array, with an axis more."""
    from numpy.lib import recfunctions  # which takes NumPy's masked arrays with it

    return recfunctions.structured_to_unstructured(array, dtype=np.float64)


class Layout:
    """How one `u0` or `theta` is laid out in the flat vector that callbacks see.

    A dict, or a pandas Series whose labels are names, is laid out in its own order, each entry a scalar or an array in C order; a
    NumPy structured scalar in the order of its fields. A flat vector is its own layout.
    """

    def __init__(self, name: str, example: Any):
        self.name = name
        self.shapes: dict[str, tuple[int, ...]] | None = None
        self.dtype: np.dtype | None = None
        example = _named(example)
        if isinstance(example, Mapping):
            self.shapes = {key: np.shape(value) for key, value in example.items()}
        elif isinstance(example, (np.void, np.ndarray)) and example.dtype.names:
            if np.ndim(example):
                raise ValueError(f"{name} must be one structured scalar, but an array of shape {np.shape(example)} was given.")
            self.dtype = _as_floats(example.dtype)
        self.size = self.flatten(name, example).size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self._form == other._form

    def __hash__(self) -> int:
        return hash(self._form)

    @property
    def _form(self) -> tuple:
        """All that it is: a dict in another order is another layout."""
        return self.name, None if self.shapes is None else tuple(self.shapes.items()), self.dtype, self.size

    @property
    def is_flat(self) -> bool:
        return self.shapes is None and self.dtype is None

    @property
    def names(self) -> dict[str, int] | None:
        """The named parts and their sizes, in their order; None for a flat vector."""
        if self.shapes is not None:
            return {str(key): int(np.prod(shape)) for key, shape in self.shapes.items()}
        if self.dtype is not None:
            return {field: int(np.prod(self.dtype[field].shape)) for field in self.dtype.names or ()}
        return None

    def flatten(self, name: str, value: Any) -> np.ndarray:
        """The flat vector of `value`, which must have this layout (a flat vector of the right length also passes)."""
        value = _named(value)
        if self.shapes is not None and isinstance(value, Mapping):
            return self._flatten_dict(name, value)
        if self.dtype is not None and isinstance(value, (np.void, np.ndarray)) and value.dtype.names:
            if value.dtype.names != self.dtype.names:
                raise ValueError(f"{name} must have the fields {self.dtype.names}, but it has {value.dtype.names}.")
            return float_vector(name, np.ravel(unstructured(np.asarray(value)[()])))
        if isinstance(value, Mapping) or (isinstance(value, (np.void, np.ndarray)) and value.dtype.names):
            raise TypeError(f"{name} must be a flat vector like {self.name}, but a {type(value).__name__} was given.")
        return float_vector(name, value, getattr(self, "size", None))

    def _flatten_dict(self, name: str, value: Mapping) -> np.ndarray:
        assert self.shapes is not None
        if set(value) != set(self.shapes):
            raise ValueError(f"{name} must have the entries {list(self.shapes)}, but it has {list(value)}.")
        parts = [np.zeros(0)]
        for key, shape in self.shapes.items():
            if np.shape(value[key]) != shape:
                raise ValueError(f"{name}[{key!r}] must have shape {shape}, but its shape is {np.shape(value[key])}.")
            parts.append(float_vector(f"{name}[{key!r}]", np.ravel(value[key])))
        return np.concatenate(parts)

    def unflatten(self, flat: np.ndarray) -> Any:
        """`flat` in the form of the example."""
        if self.shapes is not None:
            named, start = {}, 0
            for key, shape in self.shapes.items():
                size = int(np.prod(shape))
                named[key] = flat[start : start + size].reshape(shape)[()]
                start += size
            return named
        if self.dtype is not None:
            from numpy.lib import recfunctions

            return recfunctions.unstructured_to_structured(flat[None], self.dtype)[0]
        return flat

    def entry_names(self) -> list[str]:
        """A name for each entry of the flat vector: `name[0]`, `name['prey']`, `name['rates'][2]`, ..."""
        if self.shapes is not None:
            names = []
            for key, shape in self.shapes.items():
                label = f"{self.name}[{key!r}]"
                names += [label] if shape == () else [f"{label}[{', '.join(map(str, i))}]" for i in np.ndindex(*shape)]
            return names
        if self.dtype is not None and all(self.dtype[field].shape == () for field in self.dtype.names or ()):
            return [f"{self.name}[{field!r}]" for field in self.dtype.names or ()]
        return [f"{self.name}[{i}]" for i in range(self.size)]


def _named(value: Any) -> Any:
    """A pandas Series whose labels are names as a dict, everything else as it is."""
    index = getattr(value, "index", None)
    if hasattr(value, "to_dict") and index is not None and all(isinstance(label, str) for label in index):
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
