"""Precomputed features as a backbone of their own kind: an `.npy` matrix and a list of ids, one per row.

Shape suffixes: m rows (images or objects), p features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignet.data.npy import read_npy
from alignet.data.text import read_text

_NARROW = 1e-6  # of the widest column's spread: what counts as constant
_BLOCK = 1 << 14  # rows checked and converted at a time


class Features(NamedTuple):
    """Feature vectors with the id of each row."""

    values: np.ndarray  # float32 (m, p), finite
    ids: list[str]  # m different ids
    constant: int  # columns that do not vary, or by less than 1e-6 of the widest: they carry rounding only


def load_features(path: Path | str, ids_path: Path | str) -> Features:
    """Features of an `.npy` file (m, p) of float16, float32 or float64, as float32, and the id of each row.

    ids_path: a UTF-8 text file with one id per line, in the order of the rows.
    Raises ValueError unless m and p are at least 1, all values are finite in float32, and there are
    exactly m different ids. Integers are refused: they may be labels or quantised codes.
    """
    path = Path(path)
    raw = read_npy(path, memory_map=True)
    if raw.ndim != 2 or 0 in raw.shape:
        raise ValueError(
            f"{path}: expected features of shape (rows, features), found {raw.shape}; save one row per image."
        )
    if raw.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        raise ValueError(
            f"{path}: expected float16, float32 or float64 features, found {raw.dtype}; "
            "save the real values as float32."
        )
    ids = read_ids(ids_path)
    if len(ids) != len(raw):
        raise ValueError(
            f"{path}: expected a row for each of the {len(ids):,} ids of {ids_path}, found {len(raw):,} "
            "rows; export both from the same run."
        )
    values = np.empty(raw.shape, dtype=np.float32)
    for start in range(0, len(raw), _BLOCK):
        block = values[start : start + _BLOCK]
        with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
            block[:] = raw[start : start + _BLOCK]
        _check_finite(path, block, ids[start:], start)
    spread = values.max(axis=0) - values.min(axis=0)
    constant = int((spread <= _NARROW * spread.max()).sum()) if len(values) > 1 else 0
    return Features(values, ids, constant)


def _check_finite(path: Path, block: np.ndarray, ids: Sequence[str], start: int) -> None:
    bad = ~np.isfinite(block).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        found = "NaN" if np.isnan(block[row]).any() else "a value beyond float32"
        raise ValueError(
            f"{path}: expected finite features, found {found} in row {start + row} (id {ids[row]!r}); "
            "compute that row again or remove it together with its id."
        )


def read_ids(path: Path | str) -> list[str]:
    """The ids of a UTF-8 text file, one per line; ValueError for none, an empty line, or a repeated id."""
    path = Path(path)
    text = read_text(path, "a file with one id per line")
    ids = [line.strip() for line in text.removesuffix("\n").split("\n")]
    for line, name in enumerate(ids, start=1):
        if not name:
            raise ValueError(f"{path}: expected an id on every line, found an empty line {line}; remove it.")
    if len(set(ids)) != len(ids):
        name, count = Counter(ids).most_common(1)[0]
        raise ValueError(
            f"{path}: expected each id once, found {name!r} {count} times; remove the repeated rows."
        )
    return ids


def rows_for(wanted: Sequence[str], have: Sequence[str], name: str = "features") -> np.ndarray:
    """The row of each wanted id among the ids at hand: int64 (len(wanted),).

    Raises ValueError that names the first missing ids and their number, or an id that stands twice.
    """
    row_of = {identity: row for row, identity in enumerate(have)}
    if len(row_of) != len(have):
        doubled = next(identity for row, identity in enumerate(have) if row_of[identity] != row)
        raise ValueError(f"{name}: expected each id once, found {doubled!r} twice; remove one of its rows.")
    missing = [identity for identity in wanted if identity not in row_of]
    if missing:
        few = ", ".join(repr(identity) for identity in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(
            f"{name}: expected a row for each of {len(wanted):,} ids, found none for {len(missing):,} "
            f"({few}), while it holds ids such as {have[0] if len(have) else 'none'!r}; add those rows."
        )
    return np.array([row_of[identity] for identity in wanted], dtype=np.int64)
