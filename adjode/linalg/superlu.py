"""SciPy's SuperLU inside kernels: a Python function behind an address, which takes the GIL."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from adjode.compile.flags import DISABLED
from adjode.compile.watch import keep_raised

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
        arguments = ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
        self._function = ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)(self._run_at)
        self.routines = np.array([ctypes.cast(self._function, ctypes.c_void_p).value], dtype=np.int64)

    def _run_at(self, verb: int, is_complex: int, A: int, b: int) -> int:
        try:
            kind = np.dtype(complex if is_complex else float)
            sizes = self._pattern.nnz, self._pattern.shape[0]
            buffers = [(ctypes.c_byte * (size * kind.itemsize)).from_address(at) for size, at in zip(sizes, (A, b), strict=True)]
            return self._run(verb, is_complex, *(np.frombuffer(buffer, dtype=kind) for buffer in buffers))
        except BaseException as error:  # nothing may leave a C function: ctypes would print it, and return FAILED
            keep_raised(error)
            return FAILED

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


if DISABLED:

    def call_solver(address, verb, is_complex, A, b):
        return address(verb, int(is_complex), A, b)

else:

    @intrinsic
    def call_solver(typingctx, address, verb, is_complex, A, b):
        """Call `SuperLU`'s C function with the pointers of two vectors."""

        def codegen(context, builder, sig, args):
            integer, byte = ir.IntType(64), ir.IntType(8).as_pointer()
            given = [context.cast(builder, args[k], sig.args[k], types.int64) for k in (1, 2)]
            for kind, value in zip(sig.args[3:], args[3:], strict=True):
                given.append(builder.bitcast(context.make_array(kind)(context, builder, value).data, byte))
            c_type = ir.FunctionType(integer, [integer, integer, byte, byte])
            return builder.call(builder.inttoptr(args[0], c_type.as_pointer()), given)

        return types.int64(types.int64, verb, is_complex, A, b), codegen
