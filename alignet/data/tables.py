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
    column, an id with two rows, or the first image without a row.
    """
    values: dict[str, str] = {}
    for row in _rows(path, id_column, column):
        name = id_prefix + row[id_column]
        if row[id_column] and name in values:
            raise ValueError(
                f"{path}: expected one row for each {id_column}, found two of {row[id_column]!r}; take one of them out."
            )
        if row[id_column]:
            values[name] = row[column]
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
    """Every row by the names of the columns. ValueError unless all are as long as the header."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            lines = [(reader.line_num, line) for line in reader if line]
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a table with a header, found no file; check the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path}: expected a table as text in UTF-8, found other bytes ({error}); save it as CSV in UTF-8."
        ) from None
    header = lines[0][1] if lines else []
    missing = [name for name in columns if len(lines) < 2 or name not in header]
    if missing:
        found = ", ".join(header) if len(lines) > 1 else "no rows"
        raise ValueError(f"{path}: expected a column {missing[0]}, found {found}")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise ValueError(
                f"{path}: expected {len(header)} cells in every row, as in the header, found {len(line)} in line "
                f"{number}; mend it, with quotes around text that has commas."
            )
    return [dict(zip(header, line, strict=True)) for _, line in lines[1:]]
