"""The space of representations: principal components, the variance they explain, and a compact RSM.

Between an embedding and the page's figures of what a space looks like before and after alignment (the paper's figures
1D, 3A, 18, 19). Shape suffixes: m images, p features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.evaluate.rsa_models import compact_rsm, shared_rows

COMPONENTS = 4  # drawn: 1-2 and 3-4
EXPLAINED = 32  # components whose share of the variance is kept
_BLOCK = 4096  # rows taken to float64 at once


def principal_components(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (m, count) float64 on the first principal components, and the variances of all (min(m, p),).

    features: (m, p), centred here and not scaled. Each component points to its largest coordinate's side. Variances
    are sums of squares over m - 1, largest first. Works on p x p or m x m, whichever is smaller.
    """
    x = np.asarray(features)
    if x.ndim != 2 or len(x) < 3 or min(x.shape) < count or not np.isfinite(x).all():
        raise ValueError(
            f"principal components: expected finite features of {max(3, count)} or more images x {count} or more, "
            f"found {x.shape}{'' if x.ndim != 2 or np.isfinite(x).all() else ' with NaN or infinity'}."
        )
    mean = x.mean(0, dtype=np.float64)
    if len(x) < x.shape[1]:
        centred = x - mean
        values, vectors = np.linalg.eigh(centred @ centred.T)
        points = vectors[:, ::-1][:, :count] * np.sqrt(np.maximum(values[::-1][:count], 0))
    else:
        scatter = np.zeros((x.shape[1], x.shape[1]))
        for start in range(0, len(x), _BLOCK):
            block = x[start : start + _BLOCK] - mean
            scatter += block.T @ block
        values, vectors = np.linalg.eigh(scatter)
        axes = vectors[:, ::-1][:, :count]
        points = np.concatenate([(x[at : at + _BLOCK] - mean) @ axes for at in range(0, len(x), _BLOCK)])
    variances = np.maximum(values[::-1], 0) / (len(x) - 1)
    if variances[0] <= 1e-12 * np.square(mean).sum():
        raise ValueError("principal components: expected images that differ, found all of them equal.")
    largest = points[np.abs(points).argmax(0), np.arange(count)]
    return points * np.where(largest < 0, -1, 1), variances


def space(
    features: np.ndarray, ids: Sequence[str], categories: Sequence[str], *, dataset: str, seed: int, points: int,
    images: int,
) -> Result:  # fmt: skip
    """Principal components of features (m, p), with the categories (m texts, '' unknown) that colour the images.

    points: images drawn at most; the components are those of all. images: of the compact RSM, at most. Score:
    participation_ratio, (sum of variances)^2 / sum of their squares: about how many dimensions the images fill.
    Tables: points, explained, rsm (upper triangle), rsm_images.
    """
    coordinates, variances = principal_components(features, min(COMPONENTS, *features.shape))
    kept = variances[:EXPLAINED]
    ratio = float(variances.sum() ** 2 / np.square(variances).sum())
    drawn, few = shared_rows(ids, points, seed), shared_rows(ids, images, seed)
    shown = {f"pc{number + 1}": coordinates[drawn, number] for number in range(coordinates.shape[1])}
    return Result(
        [Score("participation_ratio", dataset, ratio, None, None, len(features), "images", "")],
        {
            "points": {"id": [ids[row] for row in drawn], "category": [categories[row] for row in drawn]}
            | shown,
            "explained": {"component": np.arange(1, len(kept) + 1), "share": kept / variances.sum()},
            "rsm": {"similarity": compact_rsm(features[few], dataset)},
            "rsm_images": {"id": [ids[row] for row in few]},
        },
    )
