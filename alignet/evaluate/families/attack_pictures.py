"""Attacked images as small pictures: the image, people's map, where it was changed, how, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignet.evaluate.families.where import grey, jpeg

PICTURES = 4  # images that are shown, of those that were broken
SIDE = 128  # pixels a side at most; larger images are averaged down
_COLUMNS = ("image", "human", "magnitude", "perturbation", "attacked")


class Pictures:
    """The images that were drawn, filled in as shards are read. photographs: whether images themselves are kept."""

    def __init__(self, ids: Sequence[str], shown: np.ndarray, seed: int, *, photographs: bool):
        """Draw PICTURES of the images `shown` (n,) bool, the first in one random order of all n.

        That order depends on the seed and n alone, so that networks that are broken on the same images show the same.
        """
        order = np.random.default_rng(seed).permutation(len(ids))
        self.drawn = [ids[place] for place in order[shown[order]][:PICTURES]]
        self.photographs = photographs
        self.found: dict[str, dict[str, Any]] = {}

    def add(self, name: str, image: np.ndarray, attacked: np.ndarray, human: np.ndarray | None, where: np.ndarray,
            norm: float, spearman: float) -> None:  # fmt: skip
        """Keep an image (3, H, W) in [0, 1], if it was drawn; human and where: maps (H, W)."""
        if name not in self.drawn:
            return
        change, scale = signed(attacked - image)
        self.found[name] = {
            "image": small_jpeg(image) if self.photographs else b"", "human": b"" if human is None else grey(human),
            "magnitude": grey(where), "perturbation": change,
            "attacked": small_jpeg(attacked) if self.photographs else b"", "scale": scale, "norm": norm,
            "spearman": spearman,
        }  # fmt: skip

    def table(self) -> dict[str, Any]:
        """The table `pictures`: id, norm, spearman, scale, and the pictures as JPEG bytes."""
        rows = [self.found[one] for one in self.drawn]
        columns: dict[str, Any] = {"id": self.drawn}
        for name in ("norm", "spearman", "scale"):
            columns[name] = np.array([row[name] for row in rows], dtype=np.float64)
        return columns | {name: [row[name] for row in rows] for name in _COLUMNS}


def signed(change: np.ndarray) -> tuple[bytes, float]:
    """A perturbation (3, H, W) with its signs as JPEG, grey where nothing changes, and the factor it was raised by.

    Raised so that its 99.5th percentile reaches black or white, the factor cut to two digits; what is beyond is cut.
    """
    small = _small(change)
    reach = float(np.quantile(np.abs(small), 0.995)) or float(np.abs(small).max())
    scale = float(f"{0.5 / reach:.2g}") if reach > 0 else 1.0
    return _as_jpeg(0.5 + scale * small), scale


def small_jpeg(image: np.ndarray) -> bytes:
    """An image (3, H, W) in [0, 1] as JPEG, its sides averaged down to SIDE pixels at most."""
    return _as_jpeg(_small(image))


def _small(image: np.ndarray) -> np.ndarray:
    """An image (3, H, W) with sides of at most SIDE pixels, averaged down."""
    from alignet.evaluate.where import averaged

    height, width = (min(SIDE, side) for side in image.shape[1:])
    return averaged(image, height, width)


def _as_jpeg(image: np.ndarray) -> bytes:
    return jpeg((255 * image.clip(0, 1)).round().astype(np.uint8).transpose(1, 2, 0))
