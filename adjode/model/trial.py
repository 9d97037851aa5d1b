"""Trial calls: what a slip in a callback leaves behind, noticed before a solve, or after the first one.

Compiled code reads and writes past the end of an array without a word, and an output that is never written holds what an earlier
call left. A trial call shows both. The plain Python source raises IndexError, also in the helpers that it calls and for arrays that
it captures. The compiled function is called three times, on arrays that lie inside of larger ones, with other numbers in outputs
and around all arrays each time: what changes with these is a slip.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from adjode.compile.adapters import call_c_function
from adjode.compile.flags import DISABLED
from adjode.compile.kinds import size_of
from adjode.model.callbacks import Callback, Misshapen, unwarned
from adjode.status import describe_error

PLACES = 24  # along a span
_PAD, _PAD_BEHIND_PLAIN = 4096, 64  # entries around arrays; fewer where plain Python has found no index beyond the end
_LARGEST = 10**6  # entries of an output
SMALL = 500  # states and parameters up to which plain Python is quick, whatever f does
_QUICK = 50e-6  # seconds that a compiled call may take for its plain Python source to be called
_SECONDS = 0.02  # of this thread, for calls of plain Python in all
_SLOW = 0.005  # seconds of a call of plain Python, after which it is tried no further
_HELD, _HELD_NEXT = 1.75, -0.625  # what outputs hold before
_OF_THE_SOLVER = "u", "lam"  # inputs that hold what a pass goes on with
_ADVICE = "check the lengths of u0 and theta"


def padded(values: np.ndarray, dtype: type = np.float64, *, by: int = _PAD) -> np.ndarray:
    """A copy that lies between NaNs, so that a read past its ends shows, and so does a write (see `overrun`)."""
    buffer: np.ndarray = np.full(values.size + 2 * by, np.nan, dtype=dtype)
    buffer[by : by + values.size] = values
    return buffer[by : by + values.size]


def overrun(array: np.ndarray) -> bool:
    """Whether something was written just outside of an array made by `padded`."""
    return bool((~np.isnan(_around(array))).any())


def _around(array: np.ndarray) -> np.ndarray:
    buffer = array.base
    assert buffer is not None
    by = (buffer.size - array.size) // 2
    return np.concatenate((buffer[:by], buffer[by + array.size :]))


class Slip(NamedTuple):
    """What is wrong: the rest of a sentence, and whether the callback reads or writes where it must not."""

    text: str
    trespasses: bool = False


class Trial:
    """Trial calls of one callback for one pair of sizes.

    Parameters
    ----------
    callback : Callback
    compiled : bool
        Whether kernels call it through its handle; if not, it is tried in plain Python alone.
    ignored : tuple of str
        Outputs that nobody reads.
    of : Callback, optional
        What it is the derivative of. Entries of theta that this does not depend on need not be written: they stay zero.
    """

    def __init__(self, callback: Callback, *, compiled: bool, ignored: tuple[str, ...] = (), of: Callback | None = None):
        self.callback, self.kind, self.ignored = callback, callback.kind, ignored
        self._of = None if of is None else Trial(of, compiled=compiled)
        self.compiled = compiled and not DISABLED
        self._seconds = _SECONDS

    def slip(self, t: float, u: np.ndarray, theta: np.ndarray, *, wholly: bool = True) -> Slip | None:
        """What is wrong with a call here, if something is noticed; whether it trespasses alone unless it is to be tried wholly."""
        inputs, sizes = self._inputs(u, theta), [size_of(name, u.size, theta.size) for name in self.kind.outputs]
        if max(sizes) > _LARGEST:
            return None
        if self.callback.is_read and (misread := self._misread(t, inputs, sizes)) is not None:
            return misread
        quick = u.size + theta.size <= SMALL or (self.compiled and self._compiled_seconds(t, inputs, sizes) < _QUICK)
        if quick and self.is_late:
            return None
        if quick and not self.callback.debug:
            started = time.thread_time()
            slip = self._plain_slip(t, inputs, sizes)
            taken = time.thread_time() - started
            self._seconds -= taken
            self.callback.is_slow |= taken > _SLOW
            if slip is not None or not wholly:
                return slip
        return self._leftover(t, inputs, sizes, _PAD_BEHIND_PLAIN if quick else _PAD) if self.compiled or quick else None

    def _misread(self, t: float, inputs: list[np.ndarray], sizes: list[int]) -> Slip | None:
        """Whether what has been read in its source gives other numbers than Python; as often as there is time for."""
        if self.is_late or DISABLED:
            return None
        started = time.thread_time()
        right, read = ([*(array.copy() for array in inputs), *map(np.zeros, sizes)] for _ in range(2))
        try:
            self._call_plain(t, right)
            self.callback(t, *read)
        except Exception:  # an error that the solve will report
            return None
        finally:
            self._seconds -= time.thread_time() - started
        for name, expected, given in zip(self.kind.outputs, right[len(inputs) :], read[len(inputs) :], strict=True):
            close = 1e-6 * np.abs(expected) + 1e-9 * np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
            off = (np.abs(given - expected) > close) | (np.isfinite(given) != np.isfinite(expected))
            if off.any():
                k = int(off.argmax())
                entry = self.callback.entry_name(name, k)
                return Slip(
                    f"is not read as Python runs it: {entry} is {expected[k]:g}, but was read as {given[k]:g}: write it in terms "
                    "that Numba knows"
                )
        return None

    @property
    def is_late(self) -> bool:
        """Whether plain Python has taken its time, so that it will not be called again, nor compiled code in its stead."""
        return self._seconds <= 0.0

    def slope(self, t: float, u: np.ndarray, theta: np.ndarray) -> np.ndarray | None:
        """What f gives here; None if it raises, or gives what is not finite."""
        output = np.zeros(size_of(self.kind.outputs[0], u.size, theta.size))
        arrays = [padded(array, by=_PAD_BEHIND_PLAIN) for array in (*self._inputs(u, theta), output)]
        return arrays[-1] if self._call(t, arrays) and np.isfinite(arrays[-1]).all() else None

    def _inputs(self, u: np.ndarray, theta: np.ndarray) -> list[np.ndarray]:
        given = {"u": u, "theta": theta, "lam": np.ones_like(u), "v": np.ones_like(u), "w": np.ones_like(theta)}
        return [given[name] for name in self.kind.inputs]

    def _plain_slip(self, t: float, inputs: list[np.ndarray], sizes: list[int]) -> Slip | None:
        """Whether the plain Python source leaves an array, or changes what it should read."""
        arrays = [*(array.copy() for array in inputs), *map(np.zeros, sizes)]
        try:
            self._call_plain(t, arrays)
        except IndexError as error:
            return Slip(
                f"indexes an array out of bounds {_where(*inputs[:2])} ({describe_error(error)}): {_ADVICE}", trespasses=True
            )
        except Misshapen as error:
            return Slip(str(error))
        except Exception:  # what only compiled code can do, or an error that the solve will report
            return None
        return self._changed_input(arrays, inputs)

    def _changed_input(self, arrays: list[np.ndarray], before: list[np.ndarray]) -> Slip | None:
        for name, array, given in zip(self.kind.inputs, arrays, before, strict=False):
            changed = array != given
            kept = name in _OF_THE_SOLVER or self.kind.of in (
                "event",
                "events",
            )  # f may note things in parameters that it alone reads
            if kept and changed.any():
                where = self.callback.entry_name(name, int(changed.argmax()))
                return Slip(f"changes its input {where}, but must not change its inputs", trespasses=True)
        return None

    def _call_plain(self, t: float, arrays: list[np.ndarray]) -> None:
        with np.errstate(all="ignore"), unwarned():
            self.callback.call_plain(t, *arrays)

    def _call(self, t: float, arrays: list[np.ndarray]) -> bool:
        """Whether it comes back."""
        if not self.compiled:
            try:
                self._call_plain(t, arrays)
            except Exception:  # as above
                return False
            return True
        return call_c_function(self.callback.handle, t, arrays) == 0

    def _compiled_seconds(self, t: float, inputs: list[np.ndarray], sizes: list[int]) -> float:
        arrays, times = [*map(padded, inputs), *(padded(np.zeros(size)) for size in sizes)], []
        for _ in range(2):  # the first call is slower
            started = time.thread_time()
            self._call(t, arrays)
            times.append(time.thread_time() - started)
        return min(times)

    def _leftover(self, t: float, inputs: list[np.ndarray], sizes: list[int], pad: int) -> Slip | None:
        names, count = self.kind.arrays, len(inputs)
        given = [*inputs, *map(np.zeros, sizes)]
        arrays, results = [padded(array, by=pad) for array in given], []
        for held, around in ((_HELD, np.nan), (_HELD_NEXT, np.nan), (_HELD, 3.5)):
            for k, array in enumerate(arrays):
                _refill(array, given[k] if k < count else held, around)
            if not self._call(t, arrays):
                return None
            for name, array in zip(names, arrays, strict=True):
                if not _all_are(_around(array), around):
                    where = _where(*inputs[:2])
                    return Slip(f"writes outside {name}, which has {array.size} entries, {where}: {_ADVICE}", trespasses=True)
            if (slip := self._changed_input(arrays, given)) is not None:
                return slip
            results.append([array.copy() for array in arrays[count:]])
        for name, *values in zip(self.kind.outputs, *results, strict=True):
            if name not in self.ignored and (slip := self._compared(name, values, (t, inputs[0], inputs[1]))) is not None:
                return slip
        return None

    def _compared(self, name: str, values: list[np.ndarray], place: tuple[float, np.ndarray, np.ndarray]) -> Slip | None:
        """What is wrong with an output, from the values that three calls left, the second with another content before, the third
        with other numbers around the arrays."""
        first, other, beside = values
        where = _where(*place[1:])
        unwritten = (first == _HELD) & (other == _HELD_NEXT)
        if unwritten.any() and name == "theta_bar" and not self._depends_on(unwritten, *place):
            other = np.where(unwritten, first, other)
        elif unwritten.any():
            advice = f"write every entry, as `{name}[:] = ...` does"
            if False in self.kind.forms:
                advice += f", or use the form {self.kind.name}({', '.join(self.kind.arguments(False))}) and return them"
            return Slip(f"does not write {self.callback.entry_name(name, int(unwritten.argmax()))} {where}: {advice}")
        stale = ~_same(first, other)
        if stale.any():
            entry = self.callback.entry_name(name, int(stale.argmax()))
            return Slip(f"makes {entry} depend on what the array held before, but must overwrite it")
        if not _same(first, beside).all():
            return Slip(f"reads an array out of bounds {where}: {_ADVICE}", trespasses=True)
        return None

    def _depends_on(self, entries: np.ndarray, t: float, u: np.ndarray, theta: np.ndarray) -> bool:
        """Whether what it is the derivative of does, as far as a small change shows, which leaves the whole parts of numbers."""
        if self._of is None:
            return True
        moved = np.where(entries, theta * (1.0 + 1e-6) + 1e-9 * (theta == 0.0), theta)
        before, after = self._of.slope(t, u, theta), self._of.slope(t, u, moved)
        return before is None or after is None or not np.array_equal(before, after)


def _where(u: np.ndarray, theta: np.ndarray) -> str:
    return f"where u has {u.size} entries and theta {theta.size}"


def _refill(array: np.ndarray, values: np.ndarray | float, around: float) -> None:
    assert array.base is not None
    array.base[:] = around
    array[:] = values


def _all_are(values: np.ndarray, value: float) -> bool:
    return bool(np.isnan(values).all() if math.isnan(value) else (values == value).all())


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two are equal but for rounding, which sums in another order leave."""
    return np.isclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)


def walk(f: Trial, t0: float, T: float, u: np.ndarray, theta: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Times from t0 to T, close at first, and rough states there: where a solution might go, at one evaluation of f each.

    Each component takes Euler steps that are damped so that none changes it by more than its own size: u' = -k u then takes steps
    of the implicit Euler method, and u' = k u at most doubles. It ends where f raises or is not finite.
    """
    u, size, t = u.copy(), np.maximum(np.abs(u), np.max(np.abs(u), initial=0.0) * 1e-3), t0
    size[size == 0.0] = 1.0
    for k in range(1, PLACES + 1):
        slope = f.slope(t, u, theta)
        if slope is None:
            return
        later = t0 + (T - t0) * (k / PLACES) ** 2
        size = np.maximum(size, np.abs(u))
        with np.errstate(over="ignore", invalid="ignore"):
            change = (later - t) * slope
            u = u + change / (1.0 + np.abs(change) / size)
        t = later
        yield t, u
