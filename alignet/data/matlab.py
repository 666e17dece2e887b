"""Numbers from MATLAB's .mat files, structs as names joined by dots. Nothing in a file is ever executed.

Version 5 and older are read by scipy, version 7.3 (an HDF5 file) by h5py. Objects, functions and cells hold no plain
numbers: a file with objects or functions is refused, and so is one whose numbers stand in other files (HDF5's external
and virtual storage); cells and text are passed over.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import signal
import struct
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from alignet.data.npy import MOST_EXPANSION, MOST_UNPACKED

_DEPTH = 6  # of structs within structs
_PACKED = 15  # number of a packed part in files of version 5
_PIECE = 1 << 16  # bytes read at a time
_PATIENCE, _RATE = 60.0, 1e6  # a reader may take so many seconds, and one more for so many bytes


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """Every array of numbers in the file by its name, `struct.field.field` within structs, in MATLAB's axis order.

    Raises ValueError for a file that is missing, damaged, no .mat file, holds objects, or needs h5py where it is not
    installed.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a .mat file, found none; check the path.")
    _check_unpacked(path)
    # on damaged bytes scipy's compiled reader may end the whole process; a child is all that it ends then
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(there, path))
    child.start()
    there.close()
    patience = _PATIENCE + path.stat().st_size / _RATE
    try:
        if not here.poll(patience):
            raise _damaged(path, RuntimeError(f"its reader did not end within {patience:.0f} s"))
        told, packed = json.loads(here.recv_bytes()), here.recv_bytes()
    except EOFError:
        child.join()
        raise _damaged(path, RuntimeError(f"its reader ended with status {child.exitcode}")) from None
    finally:
        child.kill()
        child.join()
    if told["refused"]:
        raise ValueError(told["refused"])
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return {name: arrays[f"arr_{row}"] for row, name in enumerate(told["names"])}


def _send(there: Connection, path: Path) -> None:
    """In the child: send the names and, as an .npz, the arrays, or the words of a refusal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    packed = io.BytesIO()
    told: dict[str, Any] = {"names": [], "refused": ""}
    try:
        arrays = _read(path)
        told["names"] = list(arrays)
        np.savez(packed, *arrays.values())
    except MemoryError:
        told["refused"] = (
            f"{path}: expected numbers that fit into memory twice, found a file of {path.stat().st_size:,} bytes that "
            "does not; save the matrix alone: save('judgments.mat', 'matrix', '-v7')."
        )
    except Exception as error:  # libraries raise nearly anything on damaged bytes
        own = str(error).startswith(f"{path}: expected ")
        told["refused"] = str(error if own else _damaged(path, error))
    there.send_bytes(json.dumps(told).encode())
    there.send_bytes(packed.getvalue())


def _read(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    try:
        found = loadmat(path, struct_as_record=True, squeeze_me=False, chars_as_strings=False)
    except NotImplementedError:  # version 7.3
        return _read_hdf5(path)
    except Exception as error:  # scipy raises nearly anything on damaged bytes
        raise _damaged(path, error) from None
    arrays: dict[str, np.ndarray] = {}
    if "__function_workspace__" in found:
        raise _objects(path, "an object")
    for name, value in found.items():
        if not name.startswith("__"):
            _collect(path, name, value, arrays, _DEPTH)
    return arrays


def _check_unpacked(path: Path) -> None:
    """ValueError for a file of version 5 whose packed parts unpack to more than an archive may."""
    size = path.stat().st_size
    most, total = max(MOST_UNPACKED, MOST_EXPANSION * size), 0
    with open(path, "rb") as handle:
        order = {b"IM": "<", b"MI": ">"}.get(handle.read(128)[126:128])
        while order and len(tag := handle.read(8)) == 8:
            kind, length = struct.unpack(order + "II", tag)
            end = handle.tell() + length
            reader = zlib.decompressobj()
            while (
                kind == _PACKED
                and handle.tell() < end
                and (data := handle.read(min(_PIECE, end - handle.tell())))
            ):
                while data and total <= most:
                    try:
                        total += len(reader.decompress(data, 16 * _PIECE))
                    except zlib.error:  # told by whoever reads it
                        return
                    data = reader.unconsumed_tail
            handle.seek(end)
    if total > most:
        raise _bomb(path, f"more than {most:,}")


def _bomb(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path}: expected numbers of at most {MOST_EXPANSION} times the file's {path.stat().st_size:,} bytes, found "
        f"{found} bytes, as of a decompression bomb; save the matrix alone: save('judgments.mat', 'matrix', '-v7')."
    )


def _collect(path: Path, name: str, value: Any, arrays: dict[str, np.ndarray], depth: int) -> None:
    from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque

    if isinstance(value, (MatlabFunction, MatlabObject, MatlabOpaque)):
        raise _objects(path, name)
    if not isinstance(value, np.ndarray) or depth == 0:
        return
    if value.dtype.names is not None:
        for field in value.dtype.names if value.size == 1 else ():
            _collect(path, f"{name}.{field}", value[field].flat[0], arrays, depth - 1)
    elif value.dtype.kind in "iufb":
        arrays[name] = _without_ones(value)


def _without_ones(value: np.ndarray) -> np.ndarray:
    """The array without axes of length 1, which MATLAB adds to vectors; at least one axis stays."""
    squeezed = np.squeeze(value)
    return squeezed if squeezed.ndim else squeezed[None]


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError:
        raise ValueError(
            f"{path}: expected MATLAB's file format of version 5 or 7, found 7.3, which needs the package h5py; "
            "install it (pip install h5py), or save the file with save(..., '-v7')."
        ) from None
    arrays: dict[str, np.ndarray] = {}
    most, total = max(MOST_UNPACKED, MOST_EXPANSION * path.stat().st_size), 0

    def visit(name: str, item: Any) -> None:
        nonlocal total
        if name.startswith("#"):  # what cells and objects refer to
            return
        kind = item.attrs.get("MATLAB_class", b"")
        kind = kind.decode(errors="replace") if isinstance(kind, bytes) else str(kind)
        if "MATLAB_object_decode" in item.attrs or kind == "function_handle":
            raise _objects(path, name)
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise ValueError(
                f"{path}: expected all numbers within the file, found {name} stored in other files, which are not "
                "opened; save the matrix alone: save('judgments.mat', 'matrix', '-v7')."
            )
        passed_over = kind in ("char", "cell") or "MATLAB_empty" in item.attrs
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iufb" and not passed_over:
            total += item.nbytes
            if total > most:
                raise _bomb(path, f"{total:,} or more")
            arrays[name.replace("/", ".")] = _without_ones(item[()].T)  # HDF5 has MATLAB's axes reversed

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, KeyError, TypeError, MemoryError, AttributeError) as error:
        raise _damaged(path, error) from None
    return arrays


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(
        f"{path}: expected a whole MATLAB file, found something else or damaged data ({reason}); fetch it again."
    )


def _objects(path: Path, name: str) -> ValueError:
    return ValueError(
        f"{path}: expected numbers and structs, found {name} that is a MATLAB object or function, which is not opened; "
        "save the matrix alone: save('judgments.mat', 'matrix', '-v7')."
    )
