"""SciPy's SuperLU inside kernels: a Python function behind an address, which takes the GIL."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from adjode.compile.entries import code_address
from adjode.compile.flags import DISABLED
from adjode.compile.watch import c_callback, keep_raised

FACTOR, SOLVE, SOLVE_TRANSPOSED = range(3)
FAILED, DONE = range(2)


class SuperLU:
    """The factors of matrices with one pattern, the last real and the last complex one, and the function that makes and uses them.

    Attributes
    ----------
    factors : list of two
        The last real and the last complex ones, or None.
    routines : (1,) array
        Its address (with NUMBA_DISABLE_JIT, the Python function), for `call_solver`. Keep this object as long as it is in use.
    """

    def __init__(self, pattern: Any):
        self._pattern = pattern
        self.factors: list[Any] = [None, None]
        if DISABLED:
            self.routines = np.array([self._run], dtype=object)
            return
        me = weakref.proxy(self)  # else the factors would wait for the collector of cycles
        self._function = c_callback(lambda given: me._run_at(given), _failed)
        self.routines = np.array([code_address(self._function)], dtype=np.int64)

    def _run_at(self, given: int) -> int:
        """`_run` of what lies at an address: the two numbers, and the addresses of the two vectors."""
        verb, is_complex, *at = (ctypes.c_int64 * 4).from_address(given)
        kind = np.dtype(complex if is_complex else float)
        sizes = self._pattern.nnz, self._pattern.shape[0]
        buffers = [(ctypes.c_byte * (size * kind.itemsize)).from_address(address) for size, address in zip(sizes, at, strict=True)]
        return self._run(verb, is_complex, *(np.frombuffer(buffer, dtype=kind) for buffer in buffers))

    def _run(self, verb: int, is_complex: int, A: np.ndarray, b: np.ndarray) -> int:
        """DONE, or FAILED if the matrix is singular or not finite."""
        from scipy import sparse
        from scipy.sparse.linalg import splu

        pattern = self._pattern
        if verb == FACTOR:
            if not np.isfinite(A[: pattern.nnz]).all():
                return FAILED
            matrix = sparse.csc_array((A[: pattern.nnz].copy(), pattern.indices, pattern.indptr), shape=pattern.shape)
            try:
                self.factors[is_complex] = splu(matrix)
            except RuntimeError:
                return FAILED
            return DONE
        b[:] = self.factors[is_complex].solve(b.copy(), "T" if verb == SOLVE_TRANSPOSED else "N")
        return DONE


def _failed(error: BaseException) -> int:
    keep_raised(error)
    return FAILED


if DISABLED:

    def call_solver(address, verb, is_complex, A, b):
        return address(verb, int(is_complex), A, b)

else:

    @intrinsic
    def call_solver(typingctx, address, verb, is_complex, A, b):
        """Call `SuperLU`'s C function with the address of all this: two numbers, and the addresses of two vectors."""

        def codegen(context, builder, sig, args):
            integer = ir.IntType(64)
            given = [context.cast(builder, args[k], sig.args[k], types.int64) for k in (1, 2)]
            for kind, value in zip(sig.args[3:], args[3:], strict=True):
                given.append(builder.ptrtoint(context.make_array(kind)(context, builder, value).data, integer))
            place = cgutils.alloca_once_value(builder, cgutils.pack_array(builder, given))
            function = builder.inttoptr(args[0], ir.FunctionType(integer, [integer]).as_pointer())
            return builder.call(function, [builder.ptrtoint(place, integer)])

        return types.int64(types.int64, verb, is_complex, A, b), codegen
