"""LAPACK and BLAS inside kernels, by the addresses of the routines that SciPy brings.

Addresses differ from process to process, so kernels take them from the frame, and nothing on disk contains one. The routines want
columns first, so they factor the transpose of a matrix in C order: what they call a solve is a transposed one, and the other way
round.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

from adjode.compile.flags import DISABLED

PLAIN, TRANSPOSED = ord("N"), ord("T")
FACTOR, SOLVE, FACTOR_COMPLEX, SOLVE_COMPLEX = range(4)  # entries of ROUTINES


@functools.cache
def routines(factor: str, solve: str) -> np.ndarray:
    """Addresses of a pair of routines, real and complex (4,): `routines("getrf", "getrs")`; zeros if kernels are plain Python."""
    if DISABLED:
        return np.zeros(4, dtype=np.int64)
    names = [kind + name for kind in "dz" for name in (factor, solve)]
    return np.array([get_cython_function_address("scipy.linalg.cython_lapack", name) for name in names], dtype=np.int64)


@functools.cache
def products() -> np.ndarray:
    """Addresses of the matrix products, real and complex (2,); zeros if kernels are plain Python."""
    if DISABLED:
        return np.zeros(2, dtype=np.int64)
    return np.array([get_cython_function_address("scipy.linalg.cython_blas", kind + "gemm") for kind in "dz"], dtype=np.int64)


if DISABLED:

    def call_fortran(address, arguments):
        raise NotImplementedError("kernels as plain Python call no LAPACK")

else:

    @intrinsic
    def call_fortran(typingctx, address, arguments):
        """Call a routine whose last argument is `info`, and return that; integers go as pointers to 32 bits, arrays as pointers.

        A routine of the BLAS has no such argument and leaves it alone: then the result is 0.
        """

        def codegen(context, builder, sig, args):
            byte, short = ir.IntType(8).as_pointer(), ir.IntType(32)
            given = []
            for k, kind in enumerate(sig.args[1].types):
                value = builder.extract_value(args[1], k)
                if isinstance(kind, types.Array):
                    value = context.make_array(kind)(context, builder, value).data
                else:
                    value = cgutils.alloca_once_value(builder, context.cast(builder, value, kind, types.int32))
                given.append(builder.bitcast(value, byte))
            info = cgutils.alloca_once_value(builder, ir.Constant(short, 0))
            routine = ir.FunctionType(ir.VoidType(), [byte] * (len(given) + 1))
            builder.call(builder.inttoptr(args[0], routine.as_pointer()), [*given, builder.bitcast(info, byte)])
            return builder.sext(builder.load(info), ir.IntType(64))

        return types.int64(types.int64, arguments), codegen
