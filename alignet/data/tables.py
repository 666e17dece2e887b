"""Plain CSV tables that say something of each image: its label, its category."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path


def column_for(
    path: Path, ids: Sequence[str], column: str, *, id_column: str = "id", id_prefix: str = ""
) -> list[str]:
    """The text in `column` of the row of each of `ids`, in their order.

    An image's row is the one whose `id_column`, behind `id_prefix`, is its id. ValueError names a missing
    column or the first image without a row.
    """
    rows = _rows(path, id_column, column)
    values = {id_prefix + row[id_column]: row[column] for row in rows if row[id_column]}
    missing = [name for name in ids if name not in values]
    if missing:
        raise ValueError(
            f"{path}: expected a row for every image, found none for {len(missing)} of {len(ids)}, the first "
            f"{missing[0]}; add them, or take them out of the image set."
        )
    return [values[name] for name in ids]


def read_column(path: Path, column: str) -> list[str]:
    """One column of a table, row by row. ValueError when there is no such column."""
    return [row[column] for row in _rows(path, column)]


def _rows(path: Path, *columns: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        found = ", ".join(rows[0]) if rows else "no rows"
        raise ValueError(f"{path}: expected a column {missing[0]}, found {found}")
    return rows
