"""The orders in which files number the objects: the object table's, that of sorted file names, or another table's.

THINGS exists in two: as its table things_concepts.tsv lists the objects, and as Python sorts the names of their
photographs, `<uniqueID>.jpg`. 21 of its 1,854 objects differ (camera, camera1, camera2 and the like).

Shape suffix: m objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from alignet.data.concepts import load_concepts
from alignet.data.tables import read_rows
from alignet.data.text import read_text

TABLE, SORTED_FILES = "table", "sorted_files"


def by_sorted_files(names: Sequence[str]) -> np.ndarray:
    """The table's row of each number that a file of the order sorted_files gives: int64 (m,)."""
    return np.array(sorted(range(len(names)), key=lambda row: f"{names[row]}.jpg"), dtype=np.int64)


def by_names(names: Sequence[str], order: Sequence[str], what: str) -> np.ndarray:
    """The table's row of each object of another list: int64 (m,). ValueError unless both hold the same objects.

    names: unique ids, in the table's order. order: the same ones as the file numbers them. what: for the message.
    """
    row = {name: index for index, name in enumerate(names)}
    strange = [name for name in order if name not in row]
    if strange or len(set(order)) != len(order) or len(order) != len(names):
        found = f"{len(order):,} rows, {len(set(order)):,} different"
        raise ValueError(
            f"{what}: expected each of the {len(names):,} objects of the table once, found {found}"
            f"{f', {strange[0]!r} among them, which the table does not have' if strange else ''}; give the same "
            "objects."
        )
    return np.array([row[name] for name in order], dtype=np.int64)


def numbering(order: str, objects: Path, other: Path | None = None) -> np.ndarray:
    """The object table's row of each number in a file of some order: int64 (m,).

    objects: the table that defines the rows. other: where the order is neither of the two, a table with a column
    unique_id (or uniqueID), a row for each object; or a text file with a name, or a photograph's path, on each
    line. ValueError where the two hold different objects.
    """
    names = [one.unique_id for one in load_concepts(objects)]
    if order == TABLE:
        return np.arange(len(names))
    if other is None:
        return by_sorted_files(names)
    if other.suffix == ".txt":
        known = set(names)
        lines = read_text(other, "names of objects, a line each").split("\n")
        return by_names(names, [_object(line, known) for line in lines if line], str(other))
    rows = read_rows(other, ("unique_id",))
    column = next((name for name in ("unique_id", "uniqueID") if rows and name in rows[0]), None)
    if column is None:
        raise ValueError(
            f"{other}: expected a column unique_id, found {', '.join(rows[0])[:200] if rows else 'no rows'}; name "
            "it so."
        )
    return by_names(names, [row[column] for row in rows], str(other))


def _object(line: str, known: set[str]) -> str:
    """The object that a line names: as it stands, as a file's name without its suffix, or as a file's folder."""
    path = PurePosixPath(line)
    return next((name for name in (line, path.stem, path.parent.name) if name in known), line)
