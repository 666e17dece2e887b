"""Plain tables that say something of each image: its label, its category.

A header, then a row for each image; separated by what the header shows: comma, tab or semicolon.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from alignet.data.text import open_text, separator_of

T = TypeVar("T")


def column_for(
    path: Path, ids: Sequence[str], column: str, *, id_column: str = "id", id_prefix: str = ""
) -> list[str]:
    """The text in `column` of the row of each of `ids`, in their order.

    An image's row is the one whose `id_column`, behind `id_prefix`, is its id. ValueError names a missing
    column, an id with two rows, or the first image without a row.
    """
    values: dict[str, str] = {}
    for row in rows_with(path, id_column, column):
        name = id_prefix + row[id_column]
        if row[id_column] and name in values:
            raise ValueError(
                f"{path}: expected one row for each {id_column}, found two of {row[id_column]!r}; take one of them out."
            )
        if row[id_column]:
            values[name] = row[column]
    return for_each(path, values, ids)


def for_each(path: Path, values: Mapping[str, T], ids: Sequence[str]) -> list[T]:
    """The value of each of `ids`, in their order. ValueError names the first image without one. path: of the table."""
    missing = [name for name in ids if name not in values]
    if missing:
        raise ValueError(
            f"{path}: expected a row for every image, found none for {len(missing)} of {len(ids)}, the first "
            f"{missing[0]}; add them, or take them out of the image set."
        )
    return [values[name] for name in ids]


def read_column(path: Path, column: str) -> list[str]:
    """One column of a table, row by row. ValueError when there is no such column."""
    return [row[column] for row in rows_with(path, column)]


def rows_with(path: Path, *columns: str) -> list[dict[str, str]]:
    """Every row by the names of the columns, of which these must be there; none where there are no rows."""
    rows = read_rows(path, columns)
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        found = ", ".join(rows[0])[:200] if rows else "no rows"
        raise ValueError(f"{path}: expected a column {missing[0]}, found {found}; name one that is there.")
    return rows


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Every row by the names of the columns. ValueError unless all are as long as the header.

    columns: some that should be there, by which the separator is told where several characters could be it.
    """
    with open_text(path, "a table with a header") as handle:
        first = handle.readline()
        handle.seek(0)
        reader = csv.reader(handle, delimiter=separator_of(first, columns))
        lines = [(reader.line_num, line) for line in reader if line]
    header = lines[0][1] if lines else []
    for name in columns:
        if header.count(name) > 1:
            raise ValueError(f"{path}: expected each column once, found {name!r} twice; rename one.")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise ValueError(
                f"{path}: expected {len(header)} cells in every row, as in the header, found {len(line)} in line "
                f"{number}; mend it, with quotes around text that has commas."
            )
    return [dict(zip(header, line, strict=True)) for _, line in lines[1:]]
