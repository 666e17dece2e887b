"""Perturbations from stored images, without torch: their values and their norms in float64.

Shapes: b images (b, 3, H, W), uint8 (of 255) or floating point in [0, 1].
"""

from __future__ import annotations

import numpy as np


def as_float64(images: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] float64 of stored ones: uint8 counts 255 as 1."""
    return images.astype(np.float64) / (255 if images.dtype == np.uint8 else 1)


def rounded(images: np.ndarray) -> np.ndarray:
    """Stored pixels at the nearest of 256 levels, uint8."""
    return images if images.dtype == np.uint8 else np.round(images * 255).astype(np.uint8)


def exact_norms(images: np.ndarray, attacked: np.ndarray, norm: str) -> np.ndarray:
    """The norm (b,) float64 of the differences of pixels in [0, 1]. norm: "l2" or "linf", over pixels and channels."""
    first, second = as_float64(images), as_float64(attacked)
    difference = np.abs(second - first).reshape(len(first), int(np.prod(first.shape[1:])))
    return np.sqrt((difference**2).sum(1)) if norm == "l2" else difference.max(1, initial=0.0)
