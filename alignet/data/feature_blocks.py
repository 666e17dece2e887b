"""Feature matrices that are larger than memory: shards as one array, and their rows as float32, mapped or not.

Stands between the shards that `embed` writes and what reads them block by block: k-means and labelling.

Shape suffixes: m images, p features, q features after a map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

Transform = Callable[[np.ndarray], np.ndarray]  # float32 (rows, p) -> (rows, q), row by row
BLOCK = 1 << 12  # rows read at a time


class Stacked:
    """Arrays (m_i, p) of one dtype, one below another, of which a slice or a list of rows is read like an array's."""

    def __init__(self, parts: Sequence[np.ndarray]):
        """parts: at least one, such as memory-mapped shards. ValueError where widths or dtypes differ."""
        kinds = {(part.shape[1:], part.dtype) for part in parts}
        if len(kinds) != 1 or parts[0].ndim != 2:
            raise ValueError(
                f"stacked: expected matrices of one width and dtype, found {sorted(map(str, kinds)) or 'none'}; "
                "compute the shards again."
            )
        self.parts = list(parts)
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self.ends[-1]), parts[0].shape[1])
        self.ndim, self.dtype = 2, parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """A copy of a slice, or of int rows in any order, (rows, p)."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        found = np.empty((len(rows), self.shape[1]), dtype=self.dtype)
        part_of = np.searchsorted(self.ends, rows, side="right")
        for part in np.unique(part_of):
            here = np.flatnonzero(part_of == part)
            found[here] = self.parts[part][rows[here] - (self.ends[part] - len(self.parts[part]))]
        return found


def float32_rows(rows: np.ndarray, transform: Transform | None = None) -> np.ndarray:
    """Rows (n, p) of any float dtype as C-contiguous float32 (n, q), through the map if there is one."""
    if rows.dtype == np.float16:  # torch converts halves many at a time, numpy one by one
        rows = torch.from_numpy(np.array(rows)).float().numpy()
    values = np.ascontiguousarray(rows, dtype=np.float32)
    if transform is not None and not values.flags.writeable:  # torch warns about views of read-only memory
        values = values.copy()
    return values if transform is None else np.ascontiguousarray(transform(values), dtype=np.float32)


def blocks(
    features: np.ndarray | Stacked, transform: Transform | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, float32 (rows, q)) of each block of features (m, p), in order."""
    for start in range(0, len(features), BLOCK):
        yield start, float32_rows(features[start : start + BLOCK], transform)
