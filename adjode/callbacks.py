"""The user's callbacks: accepted in either calling form, compiled once, handed to kernels as addresses.

Every callback reaches a kernel as the same kind of C function: `int32 callback(double t, double *array..., int64 length...)`,
one pointer and one length for each array, returning 0, or 1 if the user's code raised.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import linecache
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import config
from numba.core.dispatcher import Dispatcher

from adjode.disk import keep_bytes, kept_bytes
from adjode.fingerprint import fingerprint
from adjode.jit import DISABLED, code_address, entry, f8, i8, linked, matrix, vector, view
from adjode.status import describe_error

_SMALL = 500  # states and parameters


@dataclass(frozen=True)
class Kind:
    """One kind of callback: its arguments in place and out of place."""

    inputs: tuple[str, ...]  # the arrays it reads
    outputs: tuple[str, ...]  # the arrays it overwrites

    @property
    def arrays(self) -> int:
        return len(self.inputs) + len(self.outputs)

    @property
    def in_place(self) -> str:
        return ", ".join(("t", *self.inputs, *self.outputs))

    @property
    def out_of_place(self) -> str:
        return ", ".join(("t", *self.inputs))


KINDS = {
    "f": Kind(("u", "theta"), ("du",)),
    "vjp": Kind(("u", "theta", "lam"), ("u_bar", "theta_bar")),
    "vjp_u": Kind(("u", "theta", "lam"), ("u_bar",)),
    "jac": Kind(("u", "theta"), ("J",)),
    "g": Kind(("u", "theta"), ("value",)),
    "g_vjp": Kind(("u", "theta"), ("u_bar", "theta_bar")),
}


class Callback:
    """A callback, compiled on first use.

    Attributes
    ----------
    name : str
        "f", "vjp", ...
    in_place : callable
        The compiled function with the in-place arguments, for use from Python and from other compiled code.
    debug : bool
        Whether every access is checked.
    handle : int
        What kernels take: the address of the C function (with NUMBA_DISABLE_JIT, a Python function).
    """

    def __init__(self, name: str, function: Callable, *, debug: bool = False):
        self.name = name
        self.given = function
        self.source = getattr(function, "py_func", function)
        self.debug = debug
        self._takes_in_place = _takes_in_place(name, function)
        self._sizes_seen: set[tuple[int, int]] = set()
        kind = KINDS[name]
        self._jitted = _jitted(function, debug)
        if name == "jac":
            self._form: Any = _jac_form(self._jitted, self._takes_in_place)
        else:
            self._form = self._jitted if self._takes_in_place else _in_place_form(name, self._jitted)
        self.in_place: Any = _guard_inputs(self._form, len(kind.inputs)) if debug else self._form

    @functools.cached_property
    def _c_function(self) -> tuple[Any, Any]:
        self.check()
        return _c_function(self.in_place, self.name, self._key)

    @property
    def handle(self) -> Any:
        return self._c_function[1]

    @functools.cached_property
    def _key(self) -> str | None:
        """What stands for the callback on disk, beside its name."""
        key = fingerprint(self.given)
        return key and f"{key}{'-debug' * self.debug}"

    def check(self) -> None:
        """Compile the callback by itself, for its errors, unless it has been compiled before and is on disk."""
        mark = None if DISABLED or not self._key else f"{self.name}.{self._key}.compiles"
        if mark is None or kept_bytes(mark) is None:
            self.compile()
            if mark is not None:
                keep_bytes(mark, b"")

    def compile(self) -> None:
        """Compile the callback by itself; a TypeError that shows the user's line if Numba cannot."""
        if DISABLED:
            return
        kind = KINDS[self.name]
        inputs, outputs = len(kind.inputs), len(kind.outputs)
        bounds_checked, config.BOUNDSCHECK = config.BOUNDSCHECK, 1 if self.debug else config.BOUNDSCHECK
        try:
            if self._jitted._can_compile:  # a dispatcher with explicit signatures is taken as it is
                results = (matrix if self.name == "jac" else vector,) * (outputs if self._takes_in_place else 0)
                self._jitted.compile((f8, *(vector,) * inputs, *results))
            if self._form is not self._jitted:
                self._form.compile((f8, *(vector,) * (inputs + outputs)))
        except Exception as error:  # Numba lets errors of all kinds through
            raise TypeError(_compile_message(self.name, error, self.given, self._takes_in_place)) from None
        finally:
            config.BOUNDSCHECK = bounds_checked

    def __call__(self, t: float, *arrays: np.ndarray) -> None:
        """Call from Python, in place; what the user's code raises comes through."""
        self.in_place(t, *arrays)

    def arguments(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The in-place arguments after t: `inputs` by name, and fresh outputs."""
        n, kind = inputs["u"].size, KINDS[self.name]
        sizes = {"du": n, "u_bar": n, "theta_bar": inputs["theta"].size, "value": 1, "J": n * n}
        outputs = [np.zeros(sizes[name], dtype=inputs["u"].dtype) for name in kind.outputs]
        return [*(inputs[name] for name in kind.inputs), *outputs]

    def _as_given(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Copies of in-place arguments as the user's own function takes them."""
        taken = [array.copy() for array in arrays[: count_arguments(self.name, self.source, describe(self.name)) - 1]]
        if self.name == "jac" and self._takes_in_place:
            taken[-1] = taken[-1].reshape(arrays[0].size, -1)
        return taken

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
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
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
    """Something that changes when the constant does."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, hashlib.blake2b(value.tobytes()).digest()
    return value if isinstance(value, (bool, int, float, complex, str)) else (type(value).__name__, id(value), repr(value)[:200])


def describe(name: str) -> str:
    return f"{name}({KINDS[name].in_place}) or {name}({KINDS[name].out_of_place})"


def count_arguments(name: str, function: Callable, form: str) -> int:
    """How many positional arguments `function` takes; a TypeError that names its right `form` if it is no such function."""
    python = getattr(function, "py_func", function)
    if not callable(python):
        raise TypeError(f"{name} must be a function {form}, but a {type(function).__name__} was given.")
    try:
        parameters = inspect.signature(python).parameters.values()
    except ValueError:
        raise TypeError(f"{name} must be a Python or @njit function {form}; {python!r} has no signature.") from None
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.KEYWORD_ONLY) for p in parameters):
        raise TypeError(f"{name} must take plain positional arguments: {form}.")
    return len(parameters)


def _takes_in_place(name: str, function: Callable) -> bool:
    if callable(function) and not (inspect.isfunction(function) or isinstance(function, Dispatcher)):
        kind_given = type(function).__name__
        raise TypeError(f"{name} must be a plain Python or @njit function {describe(name)}, but a {kind_given} was given.")
    kind, count = KINDS[name], count_arguments(name, function, describe(name))
    if count == 1 + len(kind.inputs) + len(kind.outputs):
        return name != "g"
    if count == 1 + len(kind.inputs):
        return False
    raise TypeError(f"{name} takes {count} arguments, but it must be {describe(name)}.")


def _jitted(function: Callable, debug: bool) -> Any:
    if isinstance(function, Dispatcher) and not debug:
        return function
    return njit(getattr(function, "py_func", function), error_model="numpy", nogil=True, boundscheck=debug)


def _compile_message(name: str, error: Exception, function: Callable, in_place: bool) -> str:
    """Numba's report cut down to the reason and the user's line."""
    python = getattr(function, "py_func", function)
    location = getattr(error, "loc", None)
    file = getattr(location, "filename", None) or python.__code__.co_filename
    line = getattr(location, "line", None)
    if line is None or file == __file__:
        file, line = python.__code__.co_filename, python.__code__.co_firstlineno
    shape = "a two-dimensional float64 array" if name == "jac" else "one-dimensional float64 arrays"
    advice = "" if in_place else f" It must return {', '.join(KINDS[name].outputs)} as {shape}."
    source = linecache.getline(file, line).strip()
    shown = f": `{source}`" if source else ""
    return f"Numba cannot compile {name}: {reason_of(str(error))} ({file}, line {line}{shown}).{advice}"


def reason_of(report: str) -> str:
    """The sentence of Numba's report that says most."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", report)
    specific = re.search(r"^\s*TypingError: (.+)$", text, re.MULTILINE)
    call = re.search(r"^\s*>>> (.+)$", text, re.MULTILINE)
    if call:
        return f"no implementation of {call[1].strip()}" + (f" ({specific[1].rstrip('.')})" if specific else "")
    lines = (line.strip() for line in text.splitlines())
    return next((line.rstrip(".: ") for line in lines if line and not line.startswith("Failed in")), "no reason given")


# --- adapters -------------------------------------------------------------------------------------------------------


@njit(error_model="numpy", nogil=True)
def _fill(target, values):
    if len(values) != target.size:
        raise ValueError("the array returned has the wrong length")
    for i in range(target.size):
        target[i] = values[i]


def _in_place_form(name: str, function: Callable) -> Callable:
    """Wrap the out-of-place form of a callback into its in-place form."""
    if name == "g":

        def form(t, u, theta, value):
            value[0] = function(t, u, theta)
    elif name == "f":

        def form(t, u, theta, du):
            _fill(du, function(t, u, theta))
    elif name == "vjp":

        def form(t, u, theta, lam, u_bar, theta_bar):
            u_part, theta_part = function(t, u, theta, lam)
            _fill(u_bar, u_part)
            _fill(theta_bar, theta_part)
    elif name == "vjp_u":

        def form(t, u, theta, lam, u_bar):
            _fill(u_bar, function(t, u, theta, lam))
    else:

        def form(t, u, theta, u_bar, theta_bar):
            u_part, theta_part = function(t, u, theta)
            _fill(u_bar, u_part)
            _fill(theta_bar, theta_part)

    return njit(form, error_model="numpy", nogil=True)


def _jac_form(function: Callable, in_place: bool) -> Callable:
    """Either form of a jac as one whose J is a vector, as every output of a callback is."""
    if in_place:

        def form(t, u, theta, J):
            function(t, u, theta, J.reshape((u.size, u.size)))
    else:

        def form(t, u, theta, J):
            values = function(t, u, theta)
            if values.shape != (u.size, u.size):
                raise ValueError("the matrix returned has the wrong shape")
            J.reshape((u.size, u.size))[:] = values

    return njit(form, error_model="numpy", nogil=True)


@njit(error_model="numpy", nogil=True)
def _unchanged(array, copy):
    for i in range(array.size):
        if array[i] != copy[i]:
            array[:] = copy
            raise ValueError("the callback changed one of its input arrays")


def _guard_inputs(function: Callable, inputs: int) -> Callable:
    """For debug mode: raise if the callback writes into an array that it should only read."""

    def guarded(t, *arrays):
        copies = [np.copy(array) for array in arrays[:inputs]]
        function(t, *arrays)
        for k in range(inputs):
            _unchanged(arrays[k], copies[k])

    return njit(guarded, error_model="numpy", nogil=True)


def guard(function: Callable, arrays: int) -> Any:
    """A function of t and so many arrays, for entries to link in, that returns 1 if the user's `function` raises, and else 0."""
    if arrays == 3:

        @linked
        def guarded(t, a, b, c):
            try:
                function(t, a, b, c)
            except Exception:
                return 1
            return 0
    elif arrays == 4:

        @linked
        def guarded(t, a, b, c, d):
            try:
                function(t, a, b, c, d)
            except Exception:
                return 1
            return 0
    else:

        @linked
        def guarded(t, a, b, c, d, e):
            try:
                function(t, a, b, c, d, e)
            except Exception:
                return 1
            return 0

    return guarded


_pointer = types.CPointer(f8)


def _c_function(function: Callable, name: str, key: str | None) -> tuple[Any, Any]:
    """The C function that kernels call, as (object to keep alive, address); kept on disk under `key`."""
    arrays = KINDS[name].arrays
    if DISABLED:

        def call(t, *views):
            try:
                function(t, *views)
            except Exception:
                return 1
            return 0

        return call, call

    guarded = guard(function, arrays)
    if arrays == 3:

        def adapter(t, a, b, c, na, nb, nc):
            return np.int32(guarded(t, view(a, na), view(b, nb), view(c, nc)))
    elif arrays == 4:

        def adapter(t, a, b, c, d, na, nb, nc, nd):
            return np.int32(guarded(t, view(a, na), view(b, nb), view(c, nc), view(d, nd)))
    else:

        def adapter(t, a, b, c, d, e, na, nb, nc, nd, ne):
            return np.int32(guarded(t, view(a, na), view(b, nb), view(c, nc), view(d, nd), view(e, ne)))

    compiled = entry(adapter, (f8, *(_pointer,) * arrays, *(i8,) * arrays), f"callback_{name}", key, wrapped=False)
    return compiled, code_address(compiled)
