"""Reading arrays from `.npy` and `.npz` files, with an error that says what is wrong with the file. No pickle.

An archive is never unpacked to disk. Its directory is checked before anything is unpacked into memory: names that lead
out of it, links, a name twice, and sizes that no file of numbers reaches (a decompression bomb) are refused.
"""

from __future__ import annotations

import lzma
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

# what zipfile, zlib and numpy's reader of headers raise on damaged bytes (RuntimeError: an encrypted archive)
_BROKEN = (
    ValueError, OverflowError, SyntaxError, TokenError, EOFError, OSError, RuntimeError, NotImplementedError,
    KeyError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip

# An archive may unpack to so many bytes, or to so many times its own size, whichever is more. Deflate reaches 1032
# times on zeros alone; file names of the AligNet data set, padded with zeros, stay below 50.
MOST_UNPACKED = 1 << 28
MOST_EXPANSION = 200
_END = 22  # bytes of a zip's last record, without its comment


def read_npy(path: Path | str, *, memory_map: bool = False) -> np.ndarray:
    """The array of an `.npy` file; with memory_map, a read-only view of the file.

    Raises ValueError for a missing, truncated or overlong file, for one that is no `.npy`, and for
    arrays of Python objects, which would have to be unpickled.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected an .npy file, found none; check the path.")
    shape, dtype, start = _header(path)
    size = math.prod(shape)
    if dtype.hasobject:
        raise ValueError(
            f"{path}: expected numbers, found an array of Python objects (dtype {dtype}), which is a pickle "
            "and is not opened; save it again with a numeric dtype."
        )
    _check_plain(path, "", dtype)
    expected, found = start + size * dtype.itemsize, path.stat().st_size
    if expected != found:
        raise ValueError(
            f"{path}: expected {expected:,} bytes for shape {shape} of {dtype}, found {found:,}; "
            "the file is truncated or damaged, fetch it again."
        )
    # an empty array cannot be memory-mapped
    return np.load(path, mmap_mode="r" if memory_map and size else None, allow_pickle=False)


def read_npz(path: Path | str) -> dict[str, np.ndarray]:
    """Every array of an `.npz` file, by its name.

    Raises ValueError for a missing or damaged file, for one that is no `.npz`, and for arrays of Python
    objects, which would have to be unpickled.
    """
    path = Path(path)
    arrays = {}
    with open_npz(path) as archive:
        for name in archive.namelist():
            with open_member(path, archive, name) as member:
                arrays[name.removesuffix(".npy")] = member.read()
    return arrays


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of an .npz by their names; the others are not read. ValueError for one that is missing or damaged."""
    found = {}
    with open_npz(path) as archive:
        there = archive.namelist()
        for name in names:
            if f"{name}.npy" not in there:
                raise ValueError(f"{path}: expected an array {name!r}, found none; compute the file again.")
            with open_member(path, archive, f"{name}.npy") as member:
                found[name] = member.read()
    return found


@contextmanager
def open_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip archive that an `.npz` file is; ValueError where it is missing, damaged or something else."""
    if not path.is_file():
        raise ValueError(f"{path}: expected an .npz file, found none; check the path.")
    try:
        archive = zipfile.ZipFile(path)
    except _BROKEN as error:
        raise ValueError(
            f"{path}: expected an .npz archive, found something else or a truncated file ({str(error)[:200]}); "
            "fetch it again, or save it with numpy.savez."
        ) from None
    with archive:
        _check_directory(path, archive)
        yield archive


def _check_directory(path: Path, archive: zipfile.ZipFile) -> None:
    """ValueError for members that are no plain files below the archive, a name twice, or a decompression bomb."""
    members, seen = archive.infolist(), set[str]()
    with open(path, "rb") as handle:  # its last record counts the members, which zipfile does not compare
        handle.seek(-_END - len(archive.comment), os.SEEK_END)
        (count,) = struct.unpack("<10xH10x", handle.read(_END))
    if count not in (len(members), 0xFFFF):
        raise ValueError(
            f"{path}: expected {count:,} arrays, as its last record says, found {len(members):,}; fetch it again."
        )
    for member in members:
        name = member.filename
        kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where no Unix wrote it
        if (
            name.startswith("/")
            or ".." in name.replace("\\", "/").split("/")
            or kind not in (0, stat.S_IFREG)
        ):
            raise ValueError(
                f"{path}: expected plain arrays below the archive, found {name[:80]!r}, a link or a name that leads "
                "out; save it with numpy.savez."
            )
        if name in seen:
            raise ValueError(
                f"{path}: expected each array once, found {name[:80]!r} twice; save it with numpy.savez."
            )
        seen.add(name)
    size, unpacked = path.stat().st_size, sum(member.file_size for member in members)
    if unpacked > max(MOST_UNPACKED, MOST_EXPANSION * size):
        raise ValueError(
            f"{path}: expected arrays of at most {MOST_EXPANSION} times the file's {size:,} bytes, found {unpacked:,} "
            "bytes in its directory, as of a decompression bomb; save it with numpy.savez, which does not compress."
        )


@dataclass
class Member:
    """One array of an `.npz` file, open for reading from its first row on."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    _fortran: bool
    _handle: IO[bytes]

    def read(self) -> np.ndarray:
        """All of it."""
        flat = self._take(math.prod(self.shape)).copy()  # writable
        if self._handle.read(1):
            raise _damaged(self.path, self.name, "bytes beyond its end")
        return flat.reshape(self.shape[::-1]).T if self._fortran else flat.reshape(self.shape)

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """The array in pieces of at most `rows` rows, so that a large one need not fit into memory."""
        if self._fortran:  # stored column by column: there are no rows to read one after the other
            whole = self.read()
            yield from (whole[start : start + rows] for start in range(0, len(whole), rows))
            return
        for start in range(0, self.shape[0], rows):
            shape = (min(rows, self.shape[0] - start), *self.shape[1:])
            yield self._take(math.prod(shape)).reshape(shape)
        if self._handle.read(1):
            raise _damaged(self.path, self.name, "bytes beyond its end")

    def _take(self, count: int) -> np.ndarray:
        wanted = count * self.dtype.itemsize
        try:
            data = self._handle.read(wanted)
        except _BROKEN as error:
            raise _damaged(self.path, self.name, str(error)) from None
        if len(data) != wanted:
            raise _damaged(self.path, self.name, f"{len(data):,} of {wanted:,} bytes")
        return np.frombuffer(data, dtype=self.dtype, count=count)


@contextmanager
def open_member(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[Member]:
    """The array behind a name of `archive.namelist()`, its header read and its dtype checked."""
    if not name.endswith(".npy"):
        raise ValueError(f"{path}: expected arrays only, found a member {name!r}; save it with numpy.savez.")
    key = name.removesuffix(".npy")
    try:
        handle = archive.open(name)
        shape, fortran, dtype = _read_header(handle)
        size, there = math.prod(shape) * dtype.itemsize, archive.getinfo(name).file_size
    except _BROKEN as error:
        raise _damaged(path, key, str(error)) from None
    with handle:
        if dtype.hasobject:
            raise ValueError(
                f"{path}: expected numbers or text as {key!r}, found an array of Python objects, which is a "
                "pickle and is not opened; save it again with a plain dtype, such as array.astype('U') for text."
            )
        _check_plain(path, key, dtype)
        if size > there:
            raise _damaged(path, key, f"{there:,} bytes for shape {shape} of {dtype}")
        yield Member(path, key, shape, dtype, fortran, handle)


def _check_plain(path: Path, key: str, dtype: np.dtype) -> None:
    if dtype.subdtype is not None or not dtype.itemsize:
        where = f" as {key!r}" if key else ""
        raise ValueError(
            f"{path}: expected plain numbers or text{where}, found dtype {str(dtype)[:80]}; save each column as an "
            "array of its own."
        )


def _damaged(path: Path, key: str, found: str) -> ValueError:
    return ValueError(
        f"{path}: expected a whole array {key!r}, found damaged or truncated data ({found[:200]}); fetch it again."
    )


def _read_header(handle: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(handle)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(handle)
    whole = all(type(length) is int and length >= 0 for length in shape)
    if not whole or math.prod(length or 1 for length in shape) * max(dtype.itemsize, 1) >= 2**62:
        raise ValueError(f"shape {str(shape)[:80]} of {str(dtype)[:80]}")
    return shape, fortran, dtype


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    with open(path, "rb") as handle:
        try:
            shape, _, dtype = _read_header(handle)
        except _BROKEN as error:
            raise ValueError(
                f"{path}: expected an .npy array, found something else or a damaged header ({str(error)[:200]}); "
                "save it with numpy.save."
            ) from None
        return shape, dtype, handle.tell()
