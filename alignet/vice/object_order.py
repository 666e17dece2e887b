"""In which of two usual orders the rows of a published embedding stand: found from choices, never guessed in silence.

The two are of data.object_order: embeddings of SPoSE follow the table, VICE's published final_embedding.npy the sorted
names of photographs.

Shape suffixes: n triplets, m objects, d dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alignet.data.object_order import by_sorted_files
from alignet.triplets import correct, similarities

CLEAR = 3.0  # standard errors by which choices must speak for an order


def sorted_rows(names: Sequence[str]) -> np.ndarray:
    """Where each object of the table stands among the sorted names of photographs: int64 (m,)."""
    return np.argsort(by_sorted_files(names))


@dataclass(frozen=True)
class Comparison:
    """How many of n choices about objects that the two orders place differently each of them foretells."""

    moved: int  # objects
    n: int
    table: int
    files: int
    z: float  # of the choices that one order alone foretells: above 0 for sorted files, in standard errors

    @property
    def said(self) -> str:
        """Both shares in words."""
        if not self.n:
            return (
                f"{self.moved} objects stand elsewhere among sorted file names, and no choice is about them"
            )
        return (
            f"of {self.n:,} choices about the {self.moved} objects that the two orders place differently, the table's "
            f"foretells {self.table / self.n:.1%}, that of sorted file names {self.files / self.n:.1%}"
        )


def compare(loc: np.ndarray, rows: np.ndarray, triplets: np.ndarray) -> Comparison:
    """Both readings of an embedding (m, d), on choices (n, 3) with the odd one last. rows: of `sorted_rows`."""
    moved = int((rows != np.arange(len(rows))).sum())
    return compare_readings(np.maximum(loc, 0), triplets, rows[triplets], moved)


def compare_readings(x: np.ndarray, table: np.ndarray, files: np.ndarray, moved: int) -> Comparison:
    """How well features (m, p) foretell the same choices as rows `table` and as rows `files`, both (n, 3)."""
    about = (table != files).any(1)
    features = torch.from_numpy(x.astype(np.float64))
    right = [
        correct(similarities(features, torch.from_numpy(reading[about]))).numpy()
        for reading in (table, files)
    ]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    z = (only[1] - only[0]) / np.sqrt(sum(only)) if sum(only) else 0.0
    return Comparison(moved, int(about.sum()), int(right[0].sum()), int(right[1].sum()), float(z))


def in_table_order(
    loc: np.ndarray, names: Sequence[str], order: str | None, triplets: np.ndarray | None, what: str
) -> tuple[np.ndarray, str]:
    """Which row of an embedding (m, d) belongs to each object of the table: int64 (m,); and what is to be said of it.

    order: table or sorted_files, or None for the table's. triplets: choices (n, 3) to hold both against, or None.
    ValueError where the choices speak clearly for the order that was not said.
    """
    rows, table = sorted_rows(names), np.arange(len(names))
    moved = np.flatnonzero(rows != table)
    chosen = rows if order == "sorted_files" else table
    if not len(moved):
        return table, ""
    first = ", ".join(names[row] for row in moved[:4])
    if triplets is None:
        if order is not None:
            return chosen, ""
        return chosen, (
            f"{what}: rows are taken in the order of the object table; {len(moved)} objects ({first}, ...) stand "
            "elsewhere in the order of sorted file names, which VICE's published embeddings have: set "
            "vice.published_order to table or sorted_files"
        )
    found = compare(loc, rows, triplets)
    against = -found.z if order == "sorted_files" else found.z
    if against > CLEAR:
        other = "table" if order == "sorted_files" else "sorted_files"
        raise ValueError(
            f"{what}: expected rows in the order {order or 'table'}, found that people's choices speak for the other: "
            f"{found.said} ({first}, ...); set vice.published_order={other}."
        )
    return chosen, f"{what}: {found.said}"
