"""Human triplets from files, converted to the one convention: int64 (n, 3), 0-based, odd one out last.

A file says neither where its indices start nor which column holds the odd one out, and public loaders
of the same file disagree, so both are explicit arguments.

Shape suffixes: n triplets, m objects.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from alignet.data.npy import read_npy
from alignet.data.text import no_utf8
from alignet.data.things import read_table
from alignet.triplets import check_triplets

# for each position of the odd one out, the order of columns that puts it last
COLUMNS = {"last": [0, 1, 2], "first": [1, 2, 0], "middle": [0, 2, 1]}
TABLES = (".csv", ".tsv")
SUFFIXES = (".npy", ".txt", *TABLES)
OddOne = Literal["last", "first", "middle", "choice"]


def load_triplets(
    path: Path | str,
    *,
    objects: int,
    index_base: int,
    odd_one: OddOne,
    where: Mapping[str, Sequence[int | str]] | None = None,
) -> np.ndarray:
    """Odd-one-out choices of a file as int64 (n, 3) with the odd one out in column 2.

    path: `.npy` or `.txt` (numbers separated by blanks or commas, as numpy.savetxt writes them), or a table
    `.csv` or `.tsv` with the columns of THINGS (see alignet.data.things).
    objects: m, the number of objects that the indices refer to. index_base: the index of the first
    object in the file, 0 or 1. odd_one: the column of the odd one out in the file; for a table `choice`,
    whose column of that name says it. where: the rows of a table that count, column -> values.
    Raises ValueError for a file of unknown type, and for anything but n >= 1 rows of three different
    integers within index_base..index_base+m-1. Nothing is repaired.
    """
    path = Path(path)
    _check_options(path, index_base, odd_one, where or {})
    suffix = path.suffix.lower()
    if suffix in TABLES:
        raw, order = read_table(path, where or {}), COLUMNS["last"]
    else:
        raw, order = (read_npy(path) if suffix == ".npy" else _read_text(path)), COLUMNS[odd_one]
        _check_columns(path, raw)
        _check_dtype(path, raw)
    if raw.size and index_base and raw.min() == 0:
        raise ValueError(
            f"{path}: expected indices from 1 (index_base is 1), found 0; they look 0-based: "
            "set index_base to 0."
        )
    triplets = raw.astype(np.int64) - index_base
    check_triplets(triplets, objects, f"{path} (index_base {index_base})" if index_base else str(path))
    return np.ascontiguousarray(triplets[:, order])


def save_triplets(path: Path | str, triplets: np.ndarray) -> None:
    """Write triplets (n, 3) as VICE reads them: 0-based, odd one out last; `.npy` (int64) or `.txt`."""
    path = Path(path)
    check_triplets(triplets, np.iinfo(np.int64).max, str(path))
    if path.suffix not in (".npy", ".txt"):
        raise ValueError(f"{path}: expected a name that ends in .npy or .txt, found {path.suffix!r}.")
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "wb") as handle:
        if path.suffix == ".npy":
            np.save(handle, triplets.astype(np.int64))
        else:
            np.savetxt(handle, triplets, fmt="%d")
    os.replace(temporary, path)


def _check_options(path: Path, index_base: int, odd_one: str, where: Mapping[str, object]) -> None:
    if index_base not in (0, 1):
        raise ValueError(f"index_base: expected 0 or 1, found {index_base!r}; say where the indices start.")
    if odd_one not in (*COLUMNS, "choice"):
        raise ValueError(f"odd_one: expected one of {', '.join((*COLUMNS, 'choice'))}, found {odd_one!r}.")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path}: expected a triplet file of type {', '.join(SUFFIXES)}, found "
            f"{path.suffix or 'no suffix'}; convert it with numpy.save."
        )
    table = path.suffix.lower() in TABLES
    if table != (odd_one == "choice"):
        kind, fix = ("a table", "set odd_one to choice") if table else ("an array", "name a column's place")
        raise ValueError(
            f"{path}: expected odd_one to be {'choice' if table else 'last, first or middle'} for {kind}, found "
            f"{odd_one!r}; {fix}."
        )
    if where and not table:
        raise ValueError(
            f"{path}: expected no `where` for an array, found {', '.join(where)}; only a table has columns."
        )
    if not path.is_file():
        raise ValueError(f"{path}: expected a triplet file, found none; check the path.")


def _read_text(path: Path) -> np.ndarray:
    """The numbers of a text file, integers if all of them are whole."""
    try:
        with open(path, encoding="utf-8-sig") as handle:
            separator = "," if "," in handle.readline() else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input contained no data")
            raw = np.loadtxt(
                path, dtype=np.float64, delimiter=separator, comments=None, encoding="utf-8-sig", ndmin=2
            )
    except UnicodeDecodeError as error:
        raise no_utf8(path, "rows of three whole numbers", error) from None
    except ValueError as error:
        reason = str(error).replace("\n", " ")
        raise ValueError(
            f"{path}: expected rows of three whole numbers, found something else or a truncated row "
            f"({reason}); fetch the file again, or save the triplets with numpy.save."
        ) from None
    exact = np.abs(raw) < 2**53  # false for NaN too
    if exact.all() and (raw == np.rint(raw)).all():
        return raw.astype(np.int64)
    bad = raw[~(exact & (raw == np.rint(raw)))]
    raise ValueError(
        f"{path}: expected integer object indices, found {bad[0]}; they are not whole numbers, so this is no "
        "file of object indices."
    )


def _check_columns(path: Path, raw: np.ndarray) -> None:
    if raw.ndim == 2 and raw.shape[1] > 3:
        more = raw.shape[1] - 3
        raise ValueError(
            f"{path}: expected three columns, the objects of a triplet, found {raw.shape[1]}: {more} too many (a "
            "participant, a time?); save the three alone (array[:, :3]), or a table .csv whose header names all: "
            "image1,image2,image3,choice and, say, participant (odd_one=choice)."
        )


def _check_dtype(path: Path, raw: np.ndarray) -> None:
    if np.issubdtype(raw.dtype, np.integer):
        return
    fix = "give a file of object indices."
    if np.issubdtype(raw.dtype, np.floating) and raw.size:
        whole = bool(np.all(raw == np.rint(raw)))  # NaN is not equal to itself, infinity is refused below
        if whole and np.isfinite(raw).all():
            fix = "they are whole numbers, so save them again as array.astype('int32')."
        else:
            fix = "they are not whole numbers, so this is no file of object indices."
    raise ValueError(f"{path}: expected integer object indices, found dtype {raw.dtype}; {fix}")


@dataclass(frozen=True)
class Restricted:
    """Triplets that lie wholly among the wanted objects, and what was left out."""

    triplets: np.ndarray  # int64 (kept, 3), in the new numbering
    kept: np.ndarray  # bool (n,): which of the given triplets these are
    dropped: int  # triplets with at least one object that has no row
    missing: np.ndarray  # int64, ascending: objects of the given triplets that have no row


def rows_of_objects(object_ids: Sequence[str], row_ids: Sequence[str]) -> np.ndarray:
    """For each object, the row that carries its id, or -1 where there is none: int64 (m,).

    Raises ValueError where two rows carry one id. Rows of no object are ignored.
    """
    row_of = {name: row for row, name in enumerate(row_ids)}
    if len(row_of) != len(row_ids):
        doubled = next(name for row, name in enumerate(row_ids) if row_of[name] != row)
        raise ValueError(f"row ids: expected each id once, found {doubled!r} twice; remove one of its rows.")
    return np.array([row_of.get(name, -1) for name in object_ids], dtype=np.int64)


def restrict(triplets: np.ndarray, rows: np.ndarray) -> Restricted:
    """Keep the triplets whose three objects all have a row, renumbered to those rows.

    triplets: (n, 3) objects. rows: (m,) int, the row of each object or -1, as from `rows_of_objects`.
    The order of triplets and of columns is kept; none may be left, which the caller can see.
    """
    mapped = rows[triplets]
    kept = (mapped >= 0).all(axis=1)
    missing = np.unique(triplets[mapped < 0])
    return Restricted(mapped[kept].astype(np.int64), kept, int((~kept).sum()), missing)


def relabel(triplets: np.ndarray, rows: np.ndarray, name: str = "triplets") -> np.ndarray:
    """The same as `restrict`, but raises ValueError if any triplet has an object without a row."""
    result = restrict(triplets, rows)
    if result.dropped:
        few = ", ".join(str(index) for index in result.missing[:5])
        raise ValueError(
            f"{name}: expected a row for every object, found {len(result.missing)} objects without one "
            f"({few}{', ...' if len(result.missing) > 5 else ''}) in {result.dropped:,} of {len(triplets):,} "
            "triplets; add their rows, or leave those triplets out."
        )
    return result.triplets
