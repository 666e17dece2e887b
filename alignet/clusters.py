"""K-means clusters of image features, and the elbow criterion for their number.

Stands between the teacher's features and the drawing of triplets across cluster boundaries.

Shape suffixes: m images, p features, k clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from alignet.checkpoints import Checkpoints
from alignet.progress import progress

_BLOCK = 1 << 14  # rows whose distances are summed at a time


@dataclass(frozen=True)
class Clusters:
    """A partition of m images."""

    centroids: np.ndarray  # float32 (k, p)
    assignment: np.ndarray  # int64 (m,), the nearest centroid; a cluster may be empty
    inertia: float  # sum over images of the squared Euclidean distance to their centroid


@dataclass(frozen=True)
class Elbow:
    """The chosen number of clusters and the curve it was read from."""

    k: int
    grid: tuple[int, ...]
    inertia: tuple[float, ...]


def fit_clusters(
    features: np.ndarray,
    *,
    k: int,
    seed: int,
    iterations: int = 25,
    redo: int = 1,
    threads: int | None = None,
) -> Clusters:
    """faiss k-means with Euclidean distance on all rows of `features` (m, p), any float dtype.

    Starts from k rows drawn at random; `redo` starts are tried and the one of least inertia is kept.
    Empty clusters are refilled by splitting large ones, so equal rows may leave a cluster without
    members at the end. threads: of faiss, None for its own number; it may change the last bits.
    Raises ValueError for k outside 1..m and for values that are not finite.
    """
    import faiss

    rows = _finite_rows(features)
    if not 1 <= k <= len(rows):
        raise ValueError(f"clusters: expected k within 1..{len(rows)} (the images), found {k}; lower k.")
    with _faiss_threads(threads):
        kmeans = faiss.Kmeans(
            rows.shape[1],
            k,
            niter=iterations,
            nredo=redo,
            seed=seed,
            min_points_per_centroid=1,  # only a warning of faiss's
            max_points_per_centroid=len(rows),  # faiss would fit on a sample of 256 k rows
        )
        kmeans.train(rows)
        assignment = kmeans.index.search(rows, 1)[1][:, 0].astype(np.int64)
    centroids = np.asarray(kmeans.centroids, dtype=np.float32).reshape(k, rows.shape[1])
    return Clusters(centroids, assignment, inertia(rows, centroids, assignment))


def inertia(features: np.ndarray, centroids: np.ndarray, assignment: np.ndarray) -> float:
    """Sum of squared Euclidean distances of rows (m, p) to their centroids (k, p), in float64.

    Computed from differences, since faiss's expansion |x|^2 - 2 x.c + |c|^2 cancels near zero.
    """
    total = 0.0
    for start in range(0, len(features), _BLOCK):
        rows = slice(start, start + _BLOCK)
        difference = features[rows].astype(np.float64) - centroids[assignment[rows]]
        total += float(np.einsum("mp,mp->", difference, difference))
    return total


def elbow(
    features: np.ndarray,
    *,
    grid: Sequence[int],
    seed: int,
    iterations: int = 25,
    redo: int = 1,
    threads: int | None = None,
    checkpoints: Checkpoints | None = None,
) -> Elbow:
    """The number of clusters in `grid` at the elbow of the inertia curve, and that curve.

    One fit per k, all from the same seed; see `elbow_of` for the criterion and `fit_clusters` for
    the fits. With `checkpoints` an interrupted run continues after the last k that was saved.
    """
    _check_grid(grid)
    found = checkpoints.latest() if checkpoints else None
    curve: list[float] = list(found[2]["inertia"]) if found else []
    rows = _finite_rows(features)
    with progress("elbow", len(grid), "fits", done=len(curve)) as advance:
        for k in grid[len(curve) :]:
            fitted = fit_clusters(rows, k=k, seed=seed, iterations=iterations, redo=redo, threads=threads)
            curve.append(fitted.inertia)
            advance(note=f"k={k}: inertia {fitted.inertia:.4g}")
            if checkpoints and checkpoints.due():
                checkpoints.save(len(curve), {}, {"inertia": curve})
    return Elbow(elbow_of(grid, curve), tuple(grid), tuple(curve))


def elbow_of(grid: Sequence[int], curve: Sequence[float]) -> int:
    """The k of `grid` whose point of the inertia curve lies farthest below the curve's chord.

    The chord joins the first and the last point. Both axes are scaled to [0, 1] between those two,
    so the distance is (1 - x - y)/sqrt(2) and its largest value does not depend on units. Among
    equals the smallest k wins. The result depends on the ends of the grid, as this criterion does.
    Raises ValueError for fewer than three increasing k, and where no point lies below the chord.
    """
    _check_grid(grid)
    if len(curve) != len(grid):
        raise ValueError(f"elbow: expected {len(grid)} inertias, one per k, found {len(curve)}.")
    x = (np.asarray(grid, dtype=np.float64) - grid[0]) / (grid[-1] - grid[0])
    y = np.asarray(curve, dtype=np.float64)
    fall = y[0] - y[-1]
    below = 1 - x - (y - y[-1]) / fall if fall > 0 else np.zeros_like(y)
    if below.max() <= 1e-9:  # a straight line, up to rounding
        raise ValueError(
            f"elbow: expected an inertia curve that bends below its chord, found none over k {list(grid)} "
            f"(inertia {y[0]:.4g} to {y[-1]:.4g}); widen the grid, or fix k."
        )
    return int(grid[int(np.argmax(below))])


def _check_grid(grid: Sequence[int]) -> None:
    if len(grid) < 3 or any(later <= earlier for earlier, later in pairwise(grid)):
        raise ValueError(f"elbow: expected at least three increasing k, found {list(grid)}; change the grid.")


def _finite_rows(features: np.ndarray) -> np.ndarray:
    """The features as C-contiguous float32 (m, p), which faiss needs; ValueError if not finite."""
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"clusters: expected features of shape (images, features), found {features.shape}.")
    rows = np.ascontiguousarray(features, dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        bad = ~np.isfinite(rows[start : start + _BLOCK]).all(axis=1)
        if bad.any():
            row = start + int(np.argmax(bad))
            raise ValueError(
                f"clusters: expected finite features, found NaN or infinity in row {row}; compute it again."
            )
    return rows


@contextmanager
def _faiss_threads(threads: int | None) -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
