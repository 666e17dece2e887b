"""Scalar functions that LLVM turns into vector instructions: exp, log, random bits, normal numbers.

`compiled` builds the loops of VICE from them. Calls into the C library would keep a loop from being vectorised, so
these are polynomials in float32. Errors are stated beside each and held by tests.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

f4, i4, u4, u8 = np.float32, np.int32, np.uint32, np.uint64

# Sums may be reordered into lanes and multiply-adds fused; NaN and infinity keep their meaning. Division by zero gives
# infinity: the check that Python wants is a branch in each pass of a loop.
FAST = {"reassoc", "contract", "arcp", "nsz"}
compiled = njit(fastmath=FAST, error_model="numpy", nogil=True)
inlined = njit(fastmath=FAST, error_model="numpy", nogil=True, inline="always")


@inlined
def exp(x):
    """e^x float32 to 2e-7 of the value for |x| <= 87; beyond that, e^87 or e^-87.

    x = k ln 2 + r with |r| <= ln 2 / 2: a polynomial of degree 6 in r (Cephes, expf), and 2^k by its bits.
    """
    x = min(max(x, f4(-87.0)), f4(87.0))
    k = np.floor(x * f4(1.4426950408889634) + f4(0.5))
    r = x - k * f4(0.693359375)
    r = r - k * f4(-2.12194440e-4)
    p = f4(1.9875691500e-4)
    p = p * r + f4(1.3981999507e-3)
    p = p * r + f4(8.3334519073e-3)
    p = p * r + f4(4.1665795894e-2)
    p = p * r + f4(1.6666665459e-1)
    p = p * r + f4(5.0000001201e-1)
    return (p * r * r + r + f4(1.0)) * i4((i4(k) + i4(127)) << i4(23)).view(f4)


@inlined
def log(x):
    """ln x float32 of a normal positive x, to 2e-7 of the value or 1e-7 near 1.

    x = 2^k (1 + r) with 1 + r within [sqrt(1/2), sqrt(2)]: a polynomial of degree 9 in r (Cephes, logf).
    """
    bits = f4(x).view(i4)
    k = (bits - i4(0x3F3504F3)) >> i4(23)
    r = i4(bits - (k << i4(23))).view(f4) - f4(1.0)
    p = f4(7.0376836292e-2)
    p = p * r - f4(1.1514610310e-1)
    p = p * r + f4(1.1676998740e-1)
    p = p * r - f4(1.2420140846e-1)
    p = p * r + f4(1.4249322787e-1)
    p = p * r - f4(1.6668057665e-1)
    p = p * r + f4(2.0000714765e-1)
    p = p * r - f4(2.4999993993e-1)
    p = p * r + f4(3.3333331174e-1)
    square = r * r
    return r + (square * r * p - f4(0.5) * square + f4(k) * f4(-2.12194440e-4)) + f4(k) * f4(0.693359375)


@inlined
def random_bits(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 (Salmon et al. 2011): four random uint32 of a counter (four uint32) and a key (two)."""
    for _ in range(10):
        first, second = u8(c0) * u8(0xD2511F53), u8(c2) * u8(0xCD9E8D57)
        c0, c2 = u4(second >> u8(32)) ^ c1 ^ k0, u4(first >> u8(32)) ^ c3 ^ k1
        c1, c3 = u4(second), u4(first)
        k0, k1 = u4(k0 + u4(0x9E3779B9)), u4(k1 + u4(0xBB67AE85))
    return c0, c1, c2, c3


@inlined
def two_normals(a, b):
    """Two independent standard normal float32 of two random uint32, by Box and Muller; at most 5.8 from 0.

    The radius has 2^23 values. The angle is b / 2^32 of a turn: its nearest quarter turn, and what is left over, whose
    sine and cosine are polynomials (Cephes, sinf and cosf).
    """
    uniform = f4(i4(a >> u4(9))) * f4(2.0**-23) + f4(2.0**-24)  # inside (0, 1)
    radius = np.sqrt(f4(-2.0) * log(uniform))
    quarters = (i4(b) + i4(0x20000000)) >> i4(30)
    t = f4(i4(b) - (quarters << i4(30))) * f4(2 * math.pi / 2**32)  # within 1/8 of a turn
    z = t * t
    sine = ((f4(-1.9515295891e-4) * z + f4(8.3321608736e-3)) * z - f4(1.6666654611e-1)) * z * t + t
    cosine = (f4(2.443315711809948e-5) * z - f4(1.388731625493765e-3)) * z + f4(4.166664568298827e-2)
    cosine = cosine * z * z - f4(0.5) * z + f4(1.0)
    odd = (quarters & i4(1)) != 0
    x, y = (sine, cosine) if odd else (cosine, sine)
    x = -x if ((quarters + i4(1)) & i4(2)) != 0 else x
    y = -y if (quarters & i4(2)) != 0 else y
    return radius * x, radius * y
