"""A nonlinear map of images to two dimensions, beside the principal components (the paper's figure 20).

PaCMAP in the place of the paper's TriMap: both keep near and far pairs, and PaCMAP repeats itself for a given seed.
Shape suffixes: m images, p features.
"""

from __future__ import annotations

import logging

import numpy as np

FEWEST = 20  # images
_NEIGHBOURS = 10  # of each image, beside half as many pairs of middle and twice as many of large distance


def neighbours(images: int) -> int:
    """How many nearest neighbours of each image PaCMAP keeps: ten, or fewer where its pairs would not suffice."""
    return _NEIGHBOURS if images > 3.5 * _NEIGHBOURS else int(images / 3.5)


def project(features: np.ndarray, seed: int) -> np.ndarray:
    """Coordinates (m, 2) float64, centred; ValueError for fewer than FEWEST images, or without the package."""
    try:
        import pacmap
    except ImportError:
        raise ValueError(
            "projection: expected the package pacmap, found none; install alignet[projection], or leave out "
            "+also=projection."
        ) from None
    x = np.ascontiguousarray(features, dtype=np.float32)
    if len(x) < FEWEST or not np.isfinite(x).all():
        raise ValueError(
            f"projection: expected finite features of {FEWEST} or more images, found shape {x.shape}."
        )
    logging.getLogger("pacmap.pacmap").setLevel(logging.ERROR)  # it warns of every seed that is set
    found = pacmap.PaCMAP(n_components=2, n_neighbors=neighbours(len(x)), random_state=seed).fit_transform(
        x, init="pca"
    )
    return found.astype(np.float64) - found.mean(0)
