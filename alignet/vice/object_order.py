"""In which order the rows of a published embedding stand: the usual two are held against choices, never guessed.

The two are of data.object_order: embeddings of SPoSE follow the table, VICE's published final_embedding.npy the sorted
names of photographs.

Shape suffixes: n triplets, m objects, d dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alignet.data.object_order import SORTED_FILES, TABLE, by_sorted_files
from alignet.triplets import correct, similarities

CLEAR = 3.0  # standard errors by which choices must speak for an order


def sorted_rows(names: Sequence[str]) -> np.ndarray:
    """Where each object of the table stands among the sorted names of photographs: int64 (m,)."""
    return np.argsort(by_sorted_files(names))


@dataclass(frozen=True)
class Comparison:
    """How many of n choices about objects that two orders place differently each of them foretells."""

    moved: int  # objects
    n: int
    first: int
    second: int
    z: float  # of the choices that one order alone foretells: above 0 for the second, in standard errors

    def said(self, first: str, second: str) -> str:
        """Both shares in words. first, second: the orders' names."""
        if not self.n:
            return f"{self.moved} objects stand elsewhere in the order {second}, and no choice is about them"
        return (
            f"of {self.n:,} choices about the {self.moved} objects that the orders {first} and {second} place "
            f"differently, {first} foretells {self.first / self.n:.1%}, {second} {self.second / self.n:.1%}"
        )


def compare_readings(x: np.ndarray, first: np.ndarray, second: np.ndarray, moved: int) -> Comparison:
    """How well features (m, p) foretell the same choices as rows `first` and as rows `second`, both (n, 3)."""
    about = (first != second).any(1)
    features = torch.from_numpy(x.astype(np.float64))
    right = [
        correct(similarities(features, torch.from_numpy(reading[about]))).numpy()
        for reading in (first, second)
    ]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    z = (only[1] - only[0]) / np.sqrt(sum(only)) if sum(only) else 0.0
    return Comparison(moved, int(about.sum()), int(right[0].sum()), int(right[1].sum()), float(z))


def in_table_order(
    loc: np.ndarray,
    names: Sequence[str],
    order: str | None,
    numbered: np.ndarray | None,
    triplets: np.ndarray | None,
    what: str,
) -> tuple[np.ndarray, str]:
    """Which row of an embedding (m, d) belongs to each object of the table: int64 (m,); and what is to be said of it.

    order: what was said of the rows: table, sorted_files, a table of names, or None for the table's. numbered: of
    data.object_order.numbering, for that order. triplets: choices (n, 3) to hold the usual orders against, or None.
    ValueError where the choices speak clearly for an order that was not said.
    """
    usual = {TABLE: np.arange(len(names)), SORTED_FILES: sorted_rows(names)}
    chosen = usual[TABLE] if numbered is None else np.argsort(numbered)
    moved = np.flatnonzero(usual[SORTED_FILES] != usual[TABLE])
    first = ", ".join(names[row] for row in moved[:4])
    if triplets is None:
        if order is not None or not len(moved):
            return chosen, ""
        return chosen, (
            f"{what}: rows are taken in the order of the object table; {len(moved)} objects ({first}, ...) stand "
            "elsewhere in the order of sorted file names, which VICE's published embeddings have: set "
            "vice.published_order to table, sorted_files or a table of names"
        )
    said = ""
    for other, rows in usual.items():
        away = np.flatnonzero(rows != chosen)
        if not len(away):
            continue
        found = compare_readings(np.maximum(loc, 0), chosen[triplets], rows[triplets], len(away))
        text = found.said(order or TABLE, other)
        if found.z > CLEAR:
            raise ValueError(
                f"{what}: expected rows in the order {order or TABLE}, found that people's choices speak for the "
                f"other: {text} ({', '.join(names[row] for row in away[:4])}, ...); set vice.published_order={other}."
            )
        said += f"{'; ' if said else f'{what}: '}{text}"
    return chosen, said
