"""The table of concepts: one row for each object that people judged, in the order of its index.

A CSV file with a header, UTF-8, at least these columns (others are ignored):
  index      0-based, the number that triplets use; every number from 0 to m-1 exactly once
  unique_id  the concept's name, different for each
  category   superordinate category; empty where there is none
  photo      file name of the concept's photograph; empty where there is none
  split      which part of the study the concept belongs to, such as train, tune, report, unseen

Or the table of THINGS itself, things_concepts.tsv: tab-separated, its rows in the order of the indices, with a column
uniqueID. Its photographs are named <uniqueID>.jpg.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alignet.data.text import open_text, separator_of

COLUMNS = ("index", "unique_id", "category", "photo", "split")
_DIGITS = 9  # of an index: a billion concepts


@dataclass(frozen=True)
class Concept:
    """One row of the table; `category` and `photo` are empty where there is none."""

    index: int
    unique_id: str
    category: str
    photo: str
    split: str


def load_concepts(path: Path | str) -> tuple[Concept, ...]:
    """The concepts of a CSV file, sorted by index, so that concept i stands at position i.

    Raises ValueError for a missing column, a short row, an index that is no number, repeated or left
    out, and for a unique_id or a photo that two concepts share.
    """
    path = Path(path)
    with open_text(path, "a table of concepts") as handle:
        things = path.suffix.lower() == ".tsv"
        separator = "\t" if things else separator_of(handle.readline(), COLUMNS)
        handle.seek(0)
        reader = csv.DictReader(handle, delimiter=separator)
        concepts = list((_things_rows if things else _rows)(path, reader))
    if not concepts:
        raise ValueError(f"{path}: expected at least one concept, found none; check the export.")
    for column in ("index", "unique_id", "photo"):
        _check_distinct(path, column, [getattr(concept, column) for concept in concepts])
    concepts.sort(key=lambda concept: concept.index)
    for position, concept in enumerate(concepts):
        if concept.index != position:
            raise ValueError(
                f"{path}: expected every index from 0 to {len(concepts) - 1}, found none for {position} "
                f"(the next is {concept.index}); number the concepts without gaps from 0."
            )
    return tuple(concepts)


def _rows(path: Path, reader: csv.DictReader) -> Iterable[Concept]:
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, found no {', '.join(missing)} "
            f"among {', '.join(reader.fieldnames or ())[:200] or 'none'}; add them, empty if need be."
        )
    for row in reader:
        values = {column: (row[column] or "").strip() for column in COLUMNS}
        if None in row.values() or None in row:
            raise ValueError(
                f"{path}: expected {len(reader.fieldnames or ())} values on line {reader.line_num}, found "
                f"another number; quote values that contain commas."
            )
        if not values["index"].isascii() or not values["index"].isdigit() or len(values["index"]) > _DIGITS:
            raise ValueError(
                f"{path}: expected a whole number from 0 as index on line {reader.line_num}, "
                f"found {values['index'][:40]!r}; number the concepts from 0."
            )
        if not values["unique_id"] or not values["split"]:
            raise ValueError(
                f"{path}: expected a unique_id and a split on line {reader.line_num}, found "
                f"{values['unique_id']!r} and {values['split']!r}; fill them in."
            )
        yield Concept(index=int(values.pop("index")), **values)


def _things_rows(path: Path, reader: csv.DictReader) -> Iterable[Concept]:
    if "uniqueID" not in (reader.fieldnames or ()):
        raise ValueError(
            f"{path}: expected a column uniqueID, as things_concepts.tsv has, found "
            f"{', '.join(reader.fieldnames or ())[:200] or 'none'}; give that, or a .csv with {', '.join(COLUMNS)}."
        )
    for index, row in enumerate(reader):
        name = (row["uniqueID"] or "").strip()
        if not name:
            raise ValueError(
                f"{path}: expected a uniqueID on line {reader.line_num}, found none; fetch it again."
            )
        yield Concept(index=index, unique_id=name, category="", photo=f"{name}.jpg", split="all")


def _check_distinct(path: Path, column: str, values: list[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value != "" and value in seen:
            raise ValueError(f"{path}: expected each {column} once, found {value!r} twice; remove one row.")
        seen.add(value)
