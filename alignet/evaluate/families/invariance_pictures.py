"""Inverted images as small pictures: the target, the seed, and what each method came to from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignet.evaluate.families.attack_pictures import small_jpeg

PICTURES = 4  # targets that are shown, of each its first IRI
_COLUMNS = ("target", "seed", "inverted")


class Pictures:
    """The targets that were drawn, filled in as shards are read."""

    def __init__(self, ids: Sequence[str], seed: int):
        """Draw PICTURES of n targets by the seed, so that rows of the same images show the same."""
        order = np.random.default_rng(seed).permutation(len(ids))
        self.drawn = [ids[place] for place in order[:PICTURES]]
        self.found: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, node: str, names: Sequence[str], shard: Mapping[str, np.ndarray]) -> None:
        """Keep those of a shard of the stage invert that were drawn."""
        rows = [row for row, name in enumerate(names) if name in self.drawn]
        if not rows:
            return
        image, seed, inverted = (shard[name] for name in ("image", "seed", "inverted8"))
        for row in rows:
            target = image[row] / 255.0 if image.dtype == np.uint8 else image[row]
            self.found[names[row], node] = {
                "target": small_jpeg(target), "seed": small_jpeg(seed[row, 0] / 255.0),
                "inverted": small_jpeg(inverted[row, 0] / 255.0), "error8": float(shard["error8"][row, 0]),
            }  # fmt: skip

    def table(self, nodes: Sequence[str]) -> dict[str, Any]:
        """The table `pictures`: id, node, target, seed and inverted (JPEG bytes), error8."""
        keys = [(name, node) for name in self.drawn for node in nodes if (name, node) in self.found]
        columns: dict[str, Any] = {"id": [name for name, _ in keys], "node": [node for _, node in keys]}
        columns |= {what: [self.found[key][what] for key in keys] for what in _COLUMNS}
        return columns | {"error8": np.array([self.found[key]["error8"] for key in keys], dtype=np.float64)}
