"""The published form of an AligNet data set: triplets of image files with the teacher's similarities.

  filenames      (n, 3) text     the images of each triplet, the odd one out last
  similarities   (n, 3) floats   [s01, s02, s12]
  indices        (n, 3) ints     rows of somebody's own list of images; not read, since only names tell images apart

Fine-tuning reads such a file instead of drawing triplets, and our own triplets are written as one. Files hold 10^7
triplets, so both ways go block by block.

Shape suffixes: n triplets.
"""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from alignet.data.npy import open_member, open_npz
from alignet.triplets import check_triplets

KEYS = ("filenames", "similarities", "indices")
ODD_ONES = ("last (s01 is the largest)", "in the middle (s02)", "first (s12)")  # by the column of the largest
ORDER_HOLDS = 0.99  # share of the triplets whose s01 must be the largest
_BLOCK = 1 << 16  # triplets read or written at a time


@dataclass(frozen=True)
class Dataset:
    """Triplets of a file in the numbering of the images at hand."""

    triplets: np.ndarray  # int64 (n, 3), rows of `ids`, in the file's order
    similarities: np.ndarray  # float32 (n, 3), [s01, s02, s12]
    holds: float  # share of the file's triplets where s01 is larger than both others: the odd one out is last
    dropped: int  # triplets left out because an image is not here
    matched: str  # how names were found: name | basename | stem


def load_dataset(
    path: Path | str,
    ids: Sequence[str],
    *,
    missing: Literal["stop", "drop"] = "stop",
    order: Literal["odd_last", "as_is"] = "odd_last",
) -> Dataset:
    """Triplets and similarities of an `.npz`, its images found by file name among `ids`.

    A name is an id, or else the last part of an id's path (`n01440764_1.JPEG` of `train/n01440764/n01440764_1.JPEG`),
    or else that without its suffix. The first of the three by which any image is found holds for all. missing: what
    happens to triplets of images that are not here. order: `odd_last` demands that s01 is the largest in at least 99%
    of the triplets, `as_is` takes them in whatever order they are.
    Raises ValueError for damaged files, arrays of other shapes or names, pickled names, similarities that are not
    finite, names that fit two images, and where no triplet is left.
    """
    path, known = Path(path), {"missing": ("stop", "drop"), "order": ("odd_last", "as_is")}
    for name, value in (("missing", missing), ("order", order)):
        if value not in known[name]:
            raise ValueError(f"{name}: expected {' or '.join(known[name])}, found {value!r}.")
    names, codes, similarities = _read(path)
    holds = _check_order(path, similarities, order)
    rows, matched = rows_by_name(path, names, ids)
    lacking = np.flatnonzero(rows < 0)
    kept = (rows[codes] >= 0).all(axis=1) if len(lacking) else np.ones(len(codes), dtype=bool)
    dropped = len(kept) - int(kept.sum())
    if dropped and (missing == "stop" or dropped == len(kept)):
        fix = (
            "missing=drop leaves those triplets out"
            if missing == "stop"
            else "give the images it was made from"
        )
        raise ValueError(
            f"{path}: expected every image among the {len(ids):,} at hand, found none for {len(lacking):,} of "
            f"{len(names):,} names (the first {names[lacking[0]]!r}, while an id at hand is "
            f"{ids[0] if len(ids) else 'none'!r}), in {dropped:,} of {len(kept):,} triplets; {fix}."
        )
    triplets = rows[codes[kept] if dropped else codes]
    check_triplets(triplets, len(ids), str(path))
    return Dataset(triplets, similarities[kept] if dropped else similarities, holds, dropped, matched)


def _read(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The different names in the order of their appearance, the triplets as numbers of names, the similarities."""
    with open_npz(path) as archive:
        there = [name.removesuffix(".npy") for name in archive.namelist()]
        lacking = [key for key in KEYS[:2] if key not in there]
        if lacking:
            raise ValueError(
                f"{path}: expected arrays {' and '.join(KEYS[:2])}, found {', '.join(there) or 'none'}; give an npz "
                "of the AligNet data set."
            )
        number: dict[str | bytes, int] = {}
        with open_member(path, archive, "filenames.npy") as member:
            _check_shape(path, "filenames", member.shape, member.dtype, "US", "text; save array.astype('U')")
            codes, start = np.empty(member.shape, np.int32), 0
            for block in member.blocks(_BLOCK):
                flat = [number.setdefault(name, len(number)) for name in block.ravel().tolist()]
                codes[start : start + len(block)] = np.array(flat, np.int32).reshape(-1, 3)
                start += len(block)
        with open_member(path, archive, "similarities.npy") as member:
            _check_shape(path, "similarities", member.shape, member.dtype, "f", "floats; save float32")
            similarities, start = np.empty(member.shape, np.float32), 0
            for block in member.blocks(_BLOCK):
                with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
                    similarities[start : start + len(block)] = block
                start += len(block)
    if len(codes) != len(similarities):
        raise ValueError(
            f"{path}: expected as many similarities as filenames, found {len(similarities):,} and {len(codes):,}; "
            "write both from the same triplets."
        )
    bad = np.flatnonzero(~np.isfinite(similarities).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{path}: expected finite similarities, found NaN or infinity in {len(bad):,} triplets, the first "
            f"{bad[0]}; fetch the file again."
        )
    return _texts(path, number), codes, similarities


def _texts(path: Path, number: dict[str | bytes, int]) -> list[str]:
    try:
        return [name.decode("utf-8") if isinstance(name, bytes) else name for name in number]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected file names in UTF-8, found other bytes (0x{error.object[error.start]:02x}); write the "
            "names again as text."
        ) from None


def _check_shape(
    path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype, kinds: str, expected: str
) -> None:
    if len(shape) != 2 or shape[1] != 3 or not shape[0]:
        raise ValueError(
            f"{path}: expected {key} of shape (n, 3), a row for each triplet, found {shape}; write one row each."
        )
    if dtype.kind not in kinds:
        what, fix = expected.split("; ")
        raise ValueError(f"{path}: expected {key} as {what}, found dtype {dtype}; {fix}.")


def _check_order(path: Path, similarities: np.ndarray, order: str) -> float:
    """The share of triplets whose s01 is the largest; ValueError where `order` demands more."""
    largest = [
        float((similarities[:, [column]] > np.delete(similarities, column, axis=1)).all(axis=1).mean())
        for column in range(3)
    ]
    if order == "odd_last" and largest[0] < ORDER_HOLDS:
        best = int(np.argmax(largest))
        smallest = float((similarities[:, [0]] < similarities[:, 1:]).all(axis=1).mean())
        hint = ""
        if best and largest[best] >= ORDER_HOLDS:
            hint = f"; the odd one out stands {ODD_ONES[best]} in {largest[best]:.1%}: reorder the columns"
        elif smallest >= ORDER_HOLDS:
            hint = f"; s01 is the smallest in {smallest:.1%}, so these look like distances: change their sign"
        raise ValueError(
            f"{path}: expected the odd one out last, so that s01 is the largest in at least {ORDER_HOLDS:.0%} of the "
            f"triplets, found it in {largest[0]:.1%}{hint}, or set order=as_is to take them as they are."
        )
    return largest[0]


def rows_by_name(path: Path, names: Sequence[str], ids: Sequence[str]) -> tuple[np.ndarray, str]:
    """The row of each name among `ids`, -1 where it has none: int64 (names,); and by what it was found.

    `path` is named in errors. name | basename | stem, as load_dataset says.
    """
    for matched, part in (("name", str), ("basename", _basename), ("stem", _stem)):
        keys = [part(name) for name in names]
        row_of = {part(identity): row for row, identity in enumerate(ids)}
        rows = np.array([row_of.get(key, -1) for key in keys], dtype=np.int64)
        if (rows >= 0).any():
            _check_distinct(path, f"{matched} of two images at hand", [part(name) for name in ids], set(keys))
            _check_distinct(path, f"{matched} of two names in the file", keys, row_of.keys())
            return rows, matched
    return np.full(len(names), -1, dtype=np.int64), "name"


def _check_distinct(path: Path, what: str, keys: Sequence[str], wanted: object) -> None:
    twice = [key for key, count in Counter(keys).items() if count > 1 and key in wanted]  # type: ignore[operator]
    if twice:
        raise ValueError(
            f"{path}: expected file names that tell images apart, found {twice[0]!r} as the {what}; give names with "
            "their folders, as the ids have them."
        )


def _basename(name: str) -> str:
    return name.rpartition("/")[2]


def _stem(name: str) -> str:
    base = _basename(name)
    return base.rpartition(".")[0] or base


def save_dataset(
    path: Path | str, filenames: Sequence[str], triplets: np.ndarray, similarities: np.ndarray
) -> None:
    """Write triplets (n, 3) int, rows of `filenames`, and similarities (n, 3) as a compressed `.npz` of that form.

    `indices` are the rows of `filenames`. similarities are stored as float32; equal content gives equal bytes.
    """
    path = Path(path)
    check_triplets(triplets, len(filenames), str(path))
    if similarities.shape != triplets.shape or not np.isfinite(similarities).all():
        raise ValueError(
            f"{path}: expected finite similarities of shape {triplets.shape}, found {similarities.shape}"
            f"{'' if np.isfinite(similarities).all() else ' with NaN or infinity'}; label the triplets again."
        )
    texts = np.array(filenames, dtype=np.str_)
    temporary = path.with_name(f"{path.name}.tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        _write(archive, "filenames", texts, triplets)
        _write(archive, "similarities", None, similarities.astype(np.float32))
        _write(archive, "indices", None, triplets.astype(np.int64))
    os.replace(temporary, path)


def _write(archive: zipfile.ZipFile, key: str, texts: np.ndarray | None, values: np.ndarray) -> None:
    """One array, block by block; with `texts`, the text behind each value, of which there are too many to hold."""
    dtype = values.dtype if texts is None else texts.dtype
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": values.shape}
    with archive.open(f"{key}.npy", "w", force_zip64=True) as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            handle.write(np.ascontiguousarray(block if texts is None else texts[block]).tobytes())
