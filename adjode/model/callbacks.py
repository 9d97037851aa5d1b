"""The user's callbacks: accepted in either calling form, compiled once, handed to kernels as addresses.

Every callback reaches a kernel as the same kind of C function: `int32 callback(double t, double *array..., int64 length...)`,
one pointer and one length for each array, returning 0, or 1 if the user's code raised.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numba import njit
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

from adjode.compile.adapters import c_function, guard_inputs, in_place_form
from adjode.compile.cache import keep_bytes, kept_bytes
from adjode.compile.fingerprint import fingerprint
from adjode.compile.flags import DISABLED, f8, matrix, vector
from adjode.compile.kinds import KINDS, SHAPES, shape_of, size_of
from adjode.compile.signals import uninterrupted
from adjode.model.messages import compile_message, takes_in_place
from adjode.status import describe_error

_SMALL = 500  # states and parameters
_filters = threading.RLock()


@contextlib.contextmanager
def unwarned(*errors: type[Warning]) -> Iterator[None]:
    """Without warnings, but for those that are to be errors; one thread at a time, as all threads share the filters of warnings."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in errors:
            warnings.simplefilter("error", kind)
        yield


@contextlib.contextmanager
def _bounds_checked(wanted: bool) -> Iterator[None]:
    """Compile functions that say nothing of it with checks of bounds, if wanted; nothing that another thread compiles."""
    if not wanted:
        yield
        return
    with global_compiler_lock:
        before, config.BOUNDSCHECK = config.BOUNDSCHECK, 1
        try:
            yield
        finally:
            config.BOUNDSCHECK = before


class Callback:
    """A callback, compiled on first use. It is one thing, as a function is: copies are itself, and it is pickled as its function.

    Attributes
    ----------
    name : str
        "f", "vjp", ...
    in_place : callable
        The compiled function with the in-place arguments, for use from Python and from other compiled code.
    debug : bool
        Whether every access is checked.
    key : str or None
        A hash of all that it compiles to; None if that cannot be told.
    handle : int
        What kernels take: the address of the C function (with NUMBA_DISABLE_JIT, a Python function).
    """

    def __init__(self, name: str, function: Callable, *, debug: bool = False):
        self.name = name
        self.given = function
        self.source = getattr(function, "py_func", function)
        self.debug = debug
        self._kind = KINDS[name]
        self._takes_in_place = takes_in_place(self._kind, function)
        self._sizes_seen: set[tuple[int, int]] = set()
        self._compiled: tuple[Any, Any] | None = None
        self._lock = threading.RLock()
        self._fingerprint = fingerprint_of(function, debug)
        # what stands for the callback on disk, beside its name
        self.key = self._fingerprint and f"{self._fingerprint}{'-debug' * debug}"
        self._jitted = _jitted(function, debug)
        self._form: Any = in_place_form(self._kind, self._jitted, self._takes_in_place)
        self.in_place: Any = guard_inputs(self._kind, self._form) if debug else self._form

    def __reduce__(self):
        return callback, (self.name, self.given, self.debug)

    def __copy__(self) -> Callback:
        return self

    def __deepcopy__(self, memo: Any) -> Callback:
        return self

    @property
    def handle(self) -> Any:
        with self._lock:  # a second C function would take the place of one whose address is in use
            if self._compiled is None:
                self.check()
                self._compiled = c_function(self._kind, self.in_place, self.key)
            return self._compiled[1]

    def unchanged(self) -> bool:
        """Whether it compiles to what `key` stands for: what is compiled in this process keeps its constants."""
        return bool(self.in_place.signatures) or fingerprint(self.given) == self._fingerprint

    def check(self) -> None:
        """Compile the callback by itself, for its errors, unless it has been compiled before and is on disk."""
        mark = None if DISABLED or not self.key else f"{self.name}.{self.key}.compiles"
        if mark is None or kept_bytes(mark) is None:
            self.compile()
            if mark is not None:
                keep_bytes(mark, b"")

    @uninterrupted()
    def compile(self) -> None:
        """Compile the callback by itself; a TypeError that shows the user's line if Numba cannot."""
        if DISABLED:
            return
        vectors = (vector,) * len(self._kind.inputs)
        results = tuple(matrix if len(SHAPES[name]) == 2 else vector for name in self._kind.outputs)
        try:
            with _bounds_checked(self.debug):
                if self._jitted._can_compile:  # a dispatcher with explicit signatures is taken as it is
                    self._jitted.compile((f8, *vectors, *(results if self._takes_in_place else ())))
                if self._form is not self._jitted:
                    self._form.compile((f8, *vectors, *(vector,) * len(results)))
        except Exception as error:  # Numba lets errors of all kinds through
            raise TypeError(compile_message(self._kind, error, self.given, self._takes_in_place)) from None

    def __call__(self, t: float, *arrays: np.ndarray) -> None:
        """Call from Python, in place; what the user's code raises comes through."""
        self.in_place(t, *arrays)

    def arguments(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The in-place arguments after t: `inputs` by name, and fresh outputs."""
        n, m = inputs["u"].size, inputs["theta"].size
        outputs = [np.zeros(size_of(name, n, m), dtype=inputs["u"].dtype) for name in self._kind.outputs]
        return [*(inputs[name] for name in self._kind.inputs), *outputs]

    def _as_given(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Copies of in-place arguments as the user's own function takes them."""
        (n, m), names = (array.size for array in arrays[:2]), self._kind.arguments(self._takes_in_place)[1:]
        return [array.copy().reshape(shape_of(name, n, m)) for name, array in zip(names, arrays, strict=False)]

    def require_inside(self, t: float, u: np.ndarray, theta: np.ndarray) -> None:
        """Raise a ValueError if the callback leaves arrays of these sizes, found by one call of its plain Python source.

        Compiled code would read or write past the end without a word. Done once for each pair of sizes, and only for small ones,
        where the call costs next to nothing; `debug=True` checks every access.
        """
        sizes = (u.size, theta.size)
        if self.debug or sizes in self._sizes_seen or sum(sizes) > _SMALL:
            return
        inputs = self._as_given(self.arguments({"u": u, "theta": theta, "lam": np.ones_like(u)}))
        try:
            with np.errstate(all="ignore"), unwarned():
                self.source(t, *inputs)
        except IndexError as error:
            raise ValueError(
                f"{self.name} leaves its arrays where u has {u.size} entries and theta {theta.size} ({describe_error(error)}): "
                f"check the lengths of u0 and theta."
            ) from error
        except Exception:  # what only compiled code can do, or an error that the solve will report
            pass
        self._sizes_seen.add(sizes)

    def reproduce_error(self, t: float, *arrays: np.ndarray) -> Exception | None:
        """The exception that the user's code raises here: from its plain Python source, which has line numbers, if that raises."""
        for function, given in ((self.source, self._as_given(arrays)), (self.in_place, [array.copy() for array in arrays])):
            try:
                with np.errstate(all="ignore"):
                    function(t, *given)
            except Exception as error:  # whatever the user's code raises
                return error
        return None


_fingerprints: weakref.WeakKeyDictionary[Dispatcher, str | None] = weakref.WeakKeyDictionary()


def fingerprint_of(function: Callable, debug: bool = False) -> str | None:
    """The fingerprint of a function; of a jitted one that which it had when it was first seen, since it keeps its constants."""
    if debug or not isinstance(function, Dispatcher):  # it will be compiled anew
        return fingerprint(function)
    if function not in _fingerprints:
        _fingerprints[function] = fingerprint(function)
    return _fingerprints[function]


def callback(name: str, function: Callable, debug: bool = False) -> Callback:
    """`Callback(name, function)`, compiled once for each function and the constants that it captures."""
    try:
        return _cached(name, function, debug, _captured(function))
    except TypeError:  # no function, or one that cannot be hashed: the constructor says what is wrong
        return Callback(name, function, debug=debug)


@functools.lru_cache(maxsize=128)
def _cached(name: str, function: Callable, debug: bool, captured: tuple) -> Callback:
    return Callback(name, function, debug=debug)


def _captured(function: Callable) -> tuple:
    """What the globals and closure variables of a plain function hold now: Numba compiles them in as constants."""
    if isinstance(function, Dispatcher):
        return ()  # compiled with what they held then
    inside = inspect.getclosurevars(function)
    values = {**inside.globals, **inside.nonlocals}
    return tuple((name, _constant(value)) for name, value in sorted(values.items()))


def _constant(value: Any) -> Any:
    """Something that changes when the constant does, or its type."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, hashlib.blake2b(value.tobytes()).digest()
    if isinstance(value, (bool, int, float, complex, str)):
        return type(value), repr(value)  # 1 == 1.0 == True, but they compile to other code
    return _Itself(value)


class _Itself:
    """Equal to the same object alone, which it keeps alive so that no other can have its identity."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _jitted(function: Callable, debug: bool) -> Any:
    if isinstance(function, Dispatcher) and not debug:
        return function
    return njit(getattr(function, "py_func", function), error_model="numpy", nogil=True, boundscheck=debug)
