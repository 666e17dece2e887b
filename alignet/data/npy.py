"""Reading one array from an `.npy` file, with an error that says what is wrong with the file. No pickle."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np


def read_npy(path: Path | str, *, memory_map: bool = False) -> np.ndarray:
    """The array of an `.npy` file; with memory_map, a read-only view of the file.

    Raises ValueError for a missing, truncated or overlong file, for one that is no `.npy`, and for
    arrays of Python objects, which would have to be unpickled.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected an .npy file, found none; check the path.")
    shape, dtype, start = _header(path)
    size = math.prod(int(length) for length in shape)
    if dtype.hasobject:
        raise ValueError(
            f"{path}: expected numbers, found an array of Python objects (dtype {dtype}), which is a pickle "
            "and is not opened; save it again with a numeric dtype."
        )
    expected, found = start + size * dtype.itemsize, path.stat().st_size
    if expected != found:
        raise ValueError(
            f"{path}: expected {expected:,} bytes for shape {shape} of {dtype}, found {found:,}; "
            "the file is truncated or damaged, fetch it again."
        )
    # an empty array cannot be memory-mapped
    return np.load(path, mmap_mode="r" if memory_map and size else None, allow_pickle=False)


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    with open(path, "rb") as handle:
        try:
            version = np.lib.format.read_magic(handle)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
            elif version == (2, 0):
                shape, _, dtype = np.lib.format.read_array_header_2_0(handle)
            else:
                raise ValueError(f"format version {version}")
        except ValueError as error:
            raise ValueError(
                f"{path}: expected an .npy array, found something else or a damaged header ({error}); "
                "save it with numpy.save."
            ) from None
        return shape, dtype, handle.tell()
