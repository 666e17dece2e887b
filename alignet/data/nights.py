"""NIGHTS: which of two pictures people found more like a reference (Fu et al. 2023, DreamSim).

A folder with pictures and data.csv, comma-separated below a header, whose columns count by position where the authors'
own loader counts by position, and by name where it names them:
  0        the item's id
  2        1 where the right picture was chosen, 0 where the left one was
  4, 5, 6  paths of the reference, the left and the right picture, from the folder of data.csv
  votes, split, is_imagenet   how many people were unanimous, train | val | test, True or False
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignet.data.text import open_text

NAMED = ("votes", "split", "is_imagenet")
_LABEL, _REFERENCE, _LEFT, _RIGHT = 2, 4, 5, 6
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Nights:
    """n items that were kept."""

    pictures: list[tuple[str, str, str]]  # reference, left, right: paths from the folder of data.csv
    right_chosen: np.ndarray  # bool (n,)
    note: str  # which items these are

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Rows (n, 3) of reference, left and right among images named by path. ValueError where one is missing."""
        row_of = {name: row for row, name in enumerate(ids)}
        missing = [path for item in self.pictures for path in item if path not in row_of]
        if missing:
            raise ValueError(
                f"NIGHTS: expected every picture of {len(self.pictures):,} items among {len(ids):,} images, found "
                f"{len(set(missing)):,} missing, the first {missing[0]}; the image set must be the folder of data.csv."
            )
        return np.array([[row_of[path] for path in item] for item in self.pictures], dtype=np.int64)


def load_nights(path: Path | str, *, split: str, min_votes: int, is_imagenet: bool | None) -> Nights:
    """The items of a split with at least `min_votes`; of ImageNet's pictures or of others where is_imagenet says so.

    Raises ValueError for a missing column, a line of another length, a value that is none of its column's, and where
    no item is left.
    """
    path = Path(path)
    pictures, chosen, dropped, splits = [], [], 0, set()
    for line, row, named in _rows(path):
        splits.add(named["split"])
        if named["split"] != split or (
            is_imagenet is not None and _flag(path, line, named["is_imagenet"]) != is_imagenet
        ):
            continue
        if _number(path, line, "votes", named["votes"]) < min_votes:
            dropped += 1
            continue
        label = _number(path, line, "the label in column 2", row[_LABEL])
        if label not in (0, 1):
            raise ValueError(
                f"{path}: expected 0 (left) or 1 (right) in column 2 on line {line}, found {row[_LABEL]!r}; the "
                "columns count from 0 by position."
            )
        pictures.append((row[_REFERENCE], row[_LEFT], row[_RIGHT]))
        chosen.append(label == 1)
    if not pictures:
        raise ValueError(
            f"{path}: expected items of the split {split!r} with {min_votes} or more votes, found none; the splits are "
            f"{', '.join(sorted(splits)) or 'none'}, and {dropped:,} items have fewer votes."
        )
    of = {None: "", True: " of ImageNet", False: " of other sources"}[is_imagenet]
    note = f"split {split}{of}, {dropped:,} items with fewer than {min_votes} votes left out"
    return Nights(pictures, np.array(chosen), note)


def _rows(path: Path):
    """(number of the line, fields by position, the named ones) of each item."""
    with open_text(path, "NIGHTS' data.csv") as handle:
        reader = csv.reader(handle)
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in NAMED if name not in header]
        if missing or len(header) <= _RIGHT:
            raise ValueError(
                f"{path}: expected a header with {_RIGHT + 1} or more columns, {', '.join(NAMED)} among them, "
                f"found {', '.join(header)[:200] or 'nothing'}; give the file as NIGHTS has it, separated by commas."
            )
        places = {name: header.index(name) for name in NAMED}
        for row in reader:
            if len(row) != len(header):
                raise ValueError(
                    f"{path}: expected {len(header)} columns on line {reader.line_num}, found {len(row)}; the file "
                    "is truncated or damaged, fetch it again."
                )
            yield reader.line_num, row, {name: row[place].strip() for name, place in places.items()}


def _number(path: Path, line: int, what: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(f"{path}: expected a number as {what} on line {line}, found {text!r}; repair it.")
    return number


def _flag(path: Path, line: int, text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError(
            f"{path}: expected True or False as is_imagenet on line {line}, found {text!r}; repair it."
        )
    return _FLAGS[text.lower()]
