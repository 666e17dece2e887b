"""Features that know nothing of objects: raw pixels and colour histograms, for rows of the table.

What they answer correctly is what pictures give away by looks alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def raw_pixels(images: Iterable[Image], *, size: int = 32) -> np.ndarray:
    """Every image's pixels at size x size (bicubic, aspect ratio ignored), in [0, 1]: (m, 3 size^2)."""
    from PIL.Image import Resampling

    rows = []
    for image in images:
        small = image.convert("RGB").resize((size, size), Resampling.BICUBIC)
        rows.append(np.asarray(small, dtype=np.float32).ravel() / 255)
    return _stacked(rows)


def colour_histogram(images: Iterable[Image], *, bins: int = 8) -> np.ndarray:
    """Share of each image's pixels in each of bins^3 boxes of RGB space: (m, bins^3), rows sum to 1."""
    if not 1 <= bins <= 64:
        raise ValueError(f"colour histogram: expected 1 to 64 bins per channel, found {bins}")
    rows = []
    for image in images:
        pixels = np.asarray(image.convert("RGB"), dtype=np.int64).reshape(-1, 3) * bins // 256
        box = (pixels[:, 0] * bins + pixels[:, 1]) * bins + pixels[:, 2]
        rows.append(np.bincount(box, minlength=bins**3).astype(np.float32) / len(pixels))
    return _stacked(rows)


def centred(features: np.ndarray) -> np.ndarray:
    """Features (m, p) less their mean over the images, so a dot product compares more than brightness."""
    return (features - features.mean(0, dtype=np.float64)).astype(np.float32)


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    if not rows:
        raise ValueError("baseline features: expected at least one image, found none")
    return np.stack(rows)
