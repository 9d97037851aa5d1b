"""The user's callbacks: accepted in either calling form, compiled once, handed to kernels as addresses.

Every callback reaches a kernel as the same kind of C function: `int32 callback(double t, double *array..., int64 length...)`,
one pointer and one length for each array, returning 0, or 1 if the user's code raised.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numba import njit
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

from adjode.compile.adapters import c_function, call_c_function, guard_inputs, in_place_form
from adjode.compile.cache import keep_bytes, kept_bytes
from adjode.compile.entries import settle_pipeline, undisturbed
from adjode.compile.fingerprint import fingerprint
from adjode.compile.flags import DISABLED, PART, USERS, f8, i8, matrix, vector
from adjode.compile.kinds import KINDS, SHAPES, shape_of, size_of
from adjode.compile.notice import announced
from adjode.compile.signals import uninterrupted
from adjode.derivation.origins import remember
from adjode.model.constants import captured, fingerprint_of, with_current_constants
from adjode.model.field_access import sources_of, with_entries
from adjode.model.fields import Pair, entry_name, fields_of
from adjode.model.messages import compile_message, takes_in_place
from adjode.model.rebuilt import bounds_checked, by_numba, plain
from adjode.model.vectorised import vectorised

_filters = threading.RLock()
_READ = b"read"  # what is kept on disk of a callback that Numba does not compile as it is


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


class Misshapen(Exception):
    """What a callback has returned has the wrong shape; the message is the rest of a sentence."""


class Callback:
    """A callback, compiled on first use. It is one thing, as a function is: copies are itself, and it is pickled as its function.

    Attributes
    ----------
    name : str
        "f", "vjp", ...
    given : function or Dispatcher
        As users gave it.
    fields : pair of Fields or None
        The names of the states and of the parameters.
    source : function
        In plain Python, with entries of vectors in place of fields.
    kind : Kind
    tried : set
        Trial calls that it has passed, see `adjode.api.first_calls`.
    is_slow : bool
        Whether its plain Python source has been seen to take long.
    takes_in_place : bool
        Whether the user's function overwrites its outputs, and does not return them.
    in_place : callable
        The compiled function with the in-place arguments, for other compiled code.
    debug : bool
        Whether every access is checked.
    is_read : bool
        Whether Numba compiles what `adjode.derive` has read in its source, as it does not know all that is in this.
    key : str or None
        A hash of all that it compiles to; None if that cannot be told.
    handle : int
        What kernels take: the address of the C function (with NUMBA_DISABLE_JIT, a Python function).
    """

    def __init__(self, name: str, function: Callable, *, debug: bool = False, fields: Pair = (None, None)):
        self.name = name
        self.given, self.fields = function, fields
        self.debug = debug
        self.kind = KINDS[name]
        self.takes_in_place = takes_in_place(self.kind, function)
        numbers, arguments = len(self.kind.numbers), self.kind.arguments(self.takes_in_place)
        known = [fields_of(array, fields) for array in arguments[numbers:]]
        function = with_entries(self.kind.name, with_current_constants(function), [*[None] * numbers, *known])
        self.function, self.source = function, getattr(function, "py_func", function)
        self.tried: set[tuple] = set()
        self.is_slow = False
        self._compiled: tuple[Any, Any] | None = None
        self._lock = threading.RLock()
        self._fingerprint = fingerprint_of(function, debug)
        # what stands for the callback on disk, beside its name
        self.key = self._fingerprint and f"{self._fingerprint}{'-debug' * debug}"
        self.is_read = False
        self._take(function)

    def _take(self, code: Callable) -> None:
        """Let Numba compile this function."""
        part = USERS if self.debug else USERS | PART
        self._code, self._jitted = code, _jitted(code, self.debug, part)
        self._form: Any = in_place_form(self.kind, self._jitted, self.takes_in_place, njit(**part))
        self.in_place: Any = guard_inputs(self.kind, self._form) if self.debug else self._form
        vars(self).pop("_from_python", None)

    def _read(self) -> bool:
        """Take what is read in the source in the place of the function; False where that is not possible."""
        from adjode.derivation.derived import Derived  # here: whose callbacks compile do not pay for it
        from adjode.derivation.session import READABLE

        arguments = self.kind.arguments(self.takes_in_place)
        if self.is_read or isinstance(self.function, Dispatcher) or not READABLE.issuperset(arguments):
            return False
        try:
            self._take(Derived(self.function, arguments).program)
        except TypeError:
            return False
        self.is_read = True
        return True

    def __reduce__(self):
        return _rebuild, (self.sources, self.name, self.given, self.debug, self.fields)

    @property
    def as_written(self) -> Any:
        """The same as `in_place`, not debug, with nothing vectorised, for other targets to compile."""
        return in_place_form(self.kind, _jitted(self._code, False, USERS, lambda source: source), self.takes_in_place)

    @functools.cached_property
    def _from_python(self) -> Any:
        """The same as `in_place`, for Python to call, which is compiled once more."""
        if DISABLED or self.debug:
            return self.in_place
        return in_place_form(self.kind, _jitted(self._code, False, USERS, _by_numba), self.takes_in_place)

    @property
    def sources(self) -> set[str]:
        """What must be known where it is made again, see `sources_of`."""
        return sources_of(self.given, self.function)

    def __copy__(self) -> Callback:
        return self

    def __deepcopy__(self, memo: Any) -> Callback:
        return self

    @property
    def handle(self) -> Any:
        return (self._compiled or self._compile())[1]

    def _compile(self) -> tuple[Any, Any]:
        with self._lock:  # a second C function would take the place of one whose address is in use
            if self._compiled is None:
                self.check()
                self._compiled = c_function(self.kind, self.in_place, self.key)
            return self._compiled

    def unchanged(self) -> bool:
        """Whether it compiles to what `key` stands for: what is compiled in this process keeps its constants."""
        return bool(self.in_place.signatures) or fingerprint(self.function) == self._fingerprint

    def check(self) -> None:
        """Compile the callback by itself, for its errors, unless it has been compiled before and is on disk."""
        mark = None if DISABLED or not self.key else f"{self.name}.{self.key}.compiles"
        known = None if mark is None else kept_bytes(mark)
        if known is None:
            self.compile()
            if mark is not None:
                keep_bytes(mark, _READ if self.is_read else b"")
        elif known == _READ:
            self._read()

    @uninterrupted()
    def compile(self) -> None:
        """Compile the callback by itself, or what is read in its source; a TypeError that shows the user's line if Numba cannot."""
        if DISABLED:
            return
        settle_pipeline()
        numbers = tuple(i8 if name == "k" else f8 for name in self.kind.numbers)
        vectors = (vector,) * len(self.kind.inputs)
        results = tuple(matrix if len(SHAPES[name]) == 2 else vector for name in self.kind.outputs)
        try:
            with _bounds_checked(self.debug), undisturbed(), announced():
                if self._jitted._can_compile:  # a dispatcher with explicit signatures is taken as it is
                    self._jitted.compile((*numbers, *vectors, *(results if self.takes_in_place else ())))
                if self._form is not self._jitted:
                    self._form.compile((*numbers, *vectors, *(vector,) * len(results)))
        except Exception as error:  # Numba lets errors of all kinds through
            message = compile_message(self.kind, error, self.function, self.takes_in_place, self.fields)
            if not self._read():
                raise TypeError(message) from None
            try:
                self.compile()
            except TypeError:  # it is the user's text that shows what is wrong
                raise TypeError(message) from None

    def __call__(self, *arguments: Any) -> None:
        """Call from Python, in place; what the user's code raises comes through."""
        t, *arrays = arguments
        if DISABLED or self.kind.numbers != ("t",) or not all(map(_is_vector, arrays)) or call_c_function(self.handle, t, arrays):
            self._from_python(*arguments)

    def entry_name(self, array: str, k: int) -> str:
        """What messages call entry k of one of its arrays."""
        return entry_name(array, fields_of(array, self.fields), k)

    def arguments(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The in-place arguments after t: `inputs` by name, and fresh outputs."""
        n, m = inputs["u"].size, inputs["theta"].size
        outputs = [np.zeros(size_of(name, n, m), dtype=inputs["u"].dtype) for name in self.kind.outputs]
        return [*(inputs[name] for name in self.kind.inputs), *outputs]

    def _as_given(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """In-place arguments in the shapes that the user's own function takes them in."""
        (n, m), names = (array.size for array in arrays[:2]), self.kind.arguments(self.takes_in_place)[1:]
        return [array.reshape(shape_of(name, n, m)) for name, array in zip(names, arrays, strict=False)]

    def call_plain(self, t: float, *arrays: np.ndarray) -> None:
        """The same as a call, in plain Python, whose indices NumPy checks, also in jitted functions that it calls."""
        given = self._as_given(arrays)
        if self.takes_in_place:
            self._require_nothing_lost(self.plain(t, *given), arrays)
            return
        inputs = len(self.kind.inputs)
        results, outputs = self.plain(t, *given[:inputs]), arrays[inputs:]
        for name, output, result in zip(self.kind.outputs, outputs, results if len(outputs) > 1 else (results,), strict=True):
            self._require_shape(name, result, *(array.size for array in arrays[:2]))
            output[:] = np.reshape(result, output.size)

    def _require_nothing_lost(self, result: Any, arrays: Sequence[np.ndarray]) -> None:
        """Raise a Misshapen if something is returned, and thus lost, that is not an output, nor the status of C programs."""
        for one in result if isinstance(result, tuple) else (result,):
            is_output = isinstance(one, np.ndarray) and any(np.may_share_memory(one, array) for array in arrays)
            if not (one is None or is_output or isinstance(one, (int, np.integer))):
                outputs, inputs = " and ".join(self.kind.outputs), ", ".join(self.kind.arguments(in_place=False))
                raise Misshapen(
                    f"takes {outputs} to write into, so what it returns is lost: return nothing, or use the form "
                    f"{self.name}({inputs})"
                )

    def _require_shape(self, name: str, result: Any, n: int, m: int) -> None:
        """Raise a Misshapen if what has been returned is nothing that belongs into this output."""
        wanted = shape_of(name, n, m)
        if result is None or np.shape(result) != wanted:
            was = "None" if result is None else f"something of shape {np.shape(result)}"
            raise Misshapen(f"returns {was}, but {name} must have the shape {wanted}")
        if self.kind.name == "guard" and isinstance(result, (bool, np.bool_)):
            raise Misshapen(
                "returns a truth value, but must return a number that passes through zero: u[0] - 1.0 instead of u[0] > 1.0"
            )

    @functools.cached_property
    def plain(self) -> Callable:
        return plain(self.source)

    def reproduce_error(self, t: float, *arrays: np.ndarray) -> Exception | None:
        """The exception that the user's code raises here: from its plain Python source, which has line numbers, if that raises."""
        copies = [[array.copy() for array in arrays] for _ in range(2)]
        for function, given in ((self.plain, self._as_given(copies[0])), (self._from_python, copies[1])):
            try:
                with np.errstate(all="ignore"):
                    function(t, *given)
            except Exception as error:  # whatever the user's code raises
                return error
        return None


def _rebuild(sources: set[str], *given: Any) -> Callback:
    remember(sources)
    return callback(*given)


def callback(name: str, function: Callable, debug: bool = False, fields: Pair = (None, None)) -> Callback:
    """`Callback(name, function)`, compiled once for each function, the names that it uses and the constants that it captures."""
    try:
        return _cached(name, function, debug, fields, captured(function))
    except TypeError:  # no function, or one that cannot be hashed: the constructor says what is wrong
        return Callback(name, function, debug=debug, fields=fields)


@functools.lru_cache(maxsize=128)
def _cached(name: str, function: Callable, debug: bool, fields: Pair, inside: tuple) -> Callback:
    return Callback(name, function, debug=debug, fields=fields)


def _is_vector(array: np.ndarray) -> bool:
    return array.dtype == np.float64 and array.ndim == 1 and array.flags.c_contiguous


def _by_numba(source: Callable) -> Callable:
    return by_numba(vectorised(source))


def _jitted(function: Callable, debug: bool, options: dict[str, Any], change: Callable[[Callable], Callable] = vectorised) -> Any:
    if isinstance(function, Dispatcher) and not debug:
        return function
    source = change(getattr(function, "py_func", function))
    return njit(**options, boundscheck=debug)(bounds_checked(source) if debug else source)
