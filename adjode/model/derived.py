"""What is derived from a user's f, once for each function and the constants that it captures."""

from __future__ import annotations

import functools
from collections.abc import Callable

from adjode.derivation import derive
from adjode.derivation.derived import Derived
from adjode.model.callbacks import captured


def derived(function: Callable) -> Derived:
    """The derivatives of `function`; the same ones for the same function, so that each is compiled once."""
    try:
        return _cached(function, captured(function))
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return derive(function)


@functools.lru_cache(maxsize=128)
def _cached(function: Callable, captured: tuple) -> Derived:
    return derive(function)
