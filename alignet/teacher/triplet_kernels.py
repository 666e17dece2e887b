"""Dot products of rows that are read where they lie, halves as they are: loops that numba compiles for labelling.

A row of float16 is widened in registers, so that nothing but the three rows of a triplet passes through memory, once.
Compiling takes about a second for each type of rows, once a process; nothing compiled is kept on disk.

Shape suffixes: m images, p features, n triplets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Sums may be reordered into lanes and multiply-adds fused; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz"}


@intrinsic
def _widened(context: Any, bits: Any) -> Any:
    """The float32 of a half that is given by its bits, uint16: an instruction of the processor, exact."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), code


@intrinsic
def _soon(context: Any, address: Any) -> Any:
    """Tell the processor that the 64 bytes around an address will be read; nothing happens where there are none."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        # a read, into the second cache, of data
        builder.call(prefetch, [builder.inttoptr(arguments[0], pointer), number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(types.uintp), code


@njit(inline="always")
def _itself(value):
    return value


def _compiled(read: Any) -> Callable[[np.ndarray, np.ndarray, np.ndarray], None]:
    @njit(fastmath=_FAST, error_model="numpy", nogil=True)
    def fill(space, triplets, sims):
        start, width = space.ctypes.data, space.strides[0]
        for n in range(len(triplets)):
            for column in range(3 if n + 1 < len(triplets) else 0):  # the next triplet's rows lie anywhere
                row = start + triplets[n + 1, column] * width
                for byte in range(0, width, 64):
                    _soon(np.uintp(row + byte))  # type: ignore[call-arg]
            x, y, z = space[triplets[n, 0]], space[triplets[n, 1]], space[triplets[n, 2]]
            xy, xz, yz = np.float32(0), np.float32(0), np.float32(0)
            for j in range(space.shape[1]):
                a, b, c = read(x[j]), read(y[j]), read(z[j])
                xy += a * b
                xz += a * c
                yz += b * c
            sims[n, 0], sims[n, 1], sims[n, 2] = xy, xz, yz

    return fill


_of_halves, _of_floats = _compiled(_widened), _compiled(_itself)


def fill_similarities(space: np.ndarray, triplets: np.ndarray, sims: np.ndarray) -> None:
    """sims (n, 3) float32 becomes the dot products [s01, s02, s12] of rows of `space`, summed in float32.

    space: (m, p) float16 or float32, C-contiguous, memory-mapped or not. triplets: int64 (n, 3) rows of it, which are
    not checked. Other threads go on meanwhile.
    """
    if space.dtype == np.float16:
        _of_halves(space.view(np.uint16), triplets, sims)
    else:
        _of_floats(space, triplets, sims)
