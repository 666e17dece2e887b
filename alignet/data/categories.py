"""Superordinate categories of things, of which one thing may have several.

Three forms of a table are read (THINGS and THINGS+ have them all):

  a column      one row for each thing; a cell may hold several categories, separated by commas
  a long table  a row for each thing and category: its rows repeat the thing
  0/1           a column for each category, with 1 where the thing belongs to it; asked for by the column name "0/1"

Whoever needs one category of each thing says by which rule it is chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignet.data.tables import rows_with

ONES = "0/1"
RULES = ("first", "most_specific", "all", "leave_out")
JOINED = " | "  # between the categories of a thing that keeps them all
_ZERO, _ONE = ("0", "0.0"), ("1", "1.0")


def read_categories(
    path: Path, id_column: str, column: str, merge: Mapping[str, str], *, rows_differ: bool
) -> dict[str, tuple[str, ...]]:
    """Thing -> its categories, in the table's order, each once; () where it has none.

    column: of the categories, or "0/1". merge: category -> the larger one that it is part of. Rows without a thing
    are passed over. rows_differ: whether a thing may have rows with other categories, which it then has together.
    ValueError for a missing column, a table in which no column holds 0 and 1 alone, or rows that may not differ.
    """
    pairs = _ones(path, id_column) if column == ONES else _cells(path, id_column, column)
    found: dict[str, tuple[str, ...]] = {}
    for name, several in pairs:
        larger = [merge.get(one, one) for one in several if one]
        before = found.get(name, ())
        if name in found and not rows_differ and before[:1] != tuple(larger[:1]):
            raise ValueError(
                f"{path}: expected one category for each {id_column}, found {', '.join(before) or 'none'} and "
                f"{', '.join(larger) or 'none'} for {name!r}; make the rows agree, or say which counts: "
                f"several={'|'.join(RULES)}."
            )
        if name:
            found[name] = tuple(dict.fromkeys([*before, *larger]))
    return found


def _cells(path: Path, id_column: str, column: str) -> list[tuple[str, list[str]]]:
    return [
        (row[id_column].strip(), [one.strip() for one in row[column].split(",")])
        for row in rows_with(path, id_column, column)
    ]


def _ones(path: Path, id_column: str) -> list[tuple[str, list[str]]]:
    rows = rows_with(path, id_column)
    columns = [
        one for one in rows[0] if one != id_column and all(row[one].strip() in _ZERO + _ONE for row in rows)
    ]
    if not columns:
        raise ValueError(
            f"{path}: expected a column of 0 and 1 for each category, found none among {', '.join(rows[0])[:200]}; "
            f"name the column of the categories instead of {ONES}."
        )
    return [
        (row[id_column].strip(), [one.strip() for one in columns if row[one].strip() in _ONE]) for row in rows
    ]


def one_each(categories: Mapping[str, Sequence[str]], rule: str) -> tuple[dict[str, str], str]:
    """Thing -> one text, '' where it has no category; and how many things the rule decided, in words.

    rule: `first`; `most_specific`, the one with the fewest things, the first among equals; `all`, a text that joins
    them, in alphabetical order; `leave_out`, none.
    """
    if rule not in RULES:
        raise ValueError(f"several: expected one of {', '.join(RULES)}, found {rule!r}.")
    sizes = Counter(one for several in categories.values() for one in several)
    chosen = {}
    for name, several in categories.items():
        if len(several) < 2 or rule == "first":
            chosen[name] = several[0] if several else ""
        elif rule == "most_specific":
            chosen[name] = min(several, key=lambda one: sizes[one])
        else:
            chosen[name] = JOINED.join(sorted(several)) if rule == "all" else ""
    many = sum(len(several) > 1 for several in categories.values())
    words = {
        "first": "of which the first counts",
        "most_specific": "of which the one with the fewest members counts",
        "all": "which all count",
        "leave_out": "and are left out",
    }
    return chosen, f"{many:,} of {len(categories):,} have several categories, {words[rule]}" if many else ""
