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

from alignet.data.feature_blocks import BLOCK, Stacked, Transform, blocks, float32_rows
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.progress import progress

LARGEST = 1e15  # of a feature: squares of thousands of such can be summed in float32


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
    features: np.ndarray | Stacked,
    *,
    k: int,
    seed: int,
    iterations: int = 25,
    redo: int = 1,
    threads: int | None = None,
    transform: Transform | None = None,
    sample: int | None = None,
) -> Clusters:
    """faiss k-means with Euclidean distance of the rows of `features` (m, p), any float dtype, memory-mapped or not.

    transform: None, or a map of float32 rows to the space that is clustered. sample: where there are more rows, so
    many of them, drawn without replacement, place the centroids; faiss itself takes 256 for each. All rows are then
    assigned, block by block: only the sample is held, in float32.
    Starts from k rows drawn at random; `redo` starts are tried and the one of least inertia is kept.
    Empty clusters are refilled by splitting large ones, so equal rows may leave a cluster without
    members at the end. threads: of faiss, None for its own number; it may change the last bits.
    Raises ValueError for k outside 1..m, k above `sample`, and for values that are not finite, be it as float32 or only
    after the map.
    """
    training = _training(features, transform, sample, seed)
    return _fit(training, features, transform, k, seed, iterations, redo, threads)


def _fit(
    training: np.ndarray,
    features: np.ndarray | Stacked,
    transform: Transform | None,
    k: int,
    seed: int,
    iterations: int,
    redo: int,
    threads: int | None,
) -> Clusters:
    """Centroids of the rows `training` (float32), and what they make of all features."""
    import faiss

    if not 1 <= k <= len(training):
        of = "the images" if len(training) == len(features) else "the images that place the centroids"
        raise ValueError(f"clusters: expected k within 1..{len(training)} ({of}), found {k}; lower k.")
    with _faiss_threads(threads):
        kmeans = faiss.Kmeans(
            training.shape[1],
            k,
            niter=iterations,
            nredo=redo,
            seed=seed,
            min_points_per_centroid=1,  # only a warning of faiss's
            max_points_per_centroid=len(training),  # they are a sample already
        )
        kmeans.train(training)
        centroids = np.asarray(kmeans.centroids, dtype=np.float32).reshape(k, training.shape[1])
        assignment, total = np.empty(len(features), dtype=np.int64), 0.0
        for start, rows in blocks(features, transform):
            _check_rows(rows, start)
            here = slice(start, start + len(rows))
            assignment[here] = kmeans.index.search(rows, 1)[1][:, 0]
            total += inertia(rows, centroids, assignment[here])
    return Clusters(centroids, assignment, total)


def _training(
    features: np.ndarray | Stacked, transform: Transform | None, sample: int | None, seed: int
) -> np.ndarray:
    """The rows that place the centroids, float32: all of them, or those that faiss itself would draw."""
    import faiss

    _check_finite(features)
    m = len(features)
    if sample is None or sample >= m:
        drawn = np.arange(m)
        if transform is None and isinstance(features, np.ndarray) and features.dtype == np.float32:
            return np.ascontiguousarray(features)
    else:
        drawn = np.empty(m, dtype=np.int32)
        faiss.rand_perm(faiss.swig_ptr(drawn), m, seed)  # type: ignore[attr-defined]
        drawn = drawn[:sample]
    # read in the order of the file, put down in the order drawn, on which the initial centroids depend
    place = np.argsort(drawn, kind="stable")
    width = float32_rows(features[:1], transform).shape[1]
    training = np.empty((len(drawn), width), dtype=np.float32)
    for start in range(0, len(drawn), BLOCK):
        here = place[start : start + BLOCK]
        training[here] = float32_rows(features[drawn[here].astype(np.int64)], transform)
        _check_rows(training[here], drawn[here])
    return training


def inertia(features: np.ndarray, centroids: np.ndarray, assignment: np.ndarray) -> float:
    """Sum of squared Euclidean distances of rows (m, p) to their centroids (k, p), to a relative 1e-6.

    Computed from differences, since faiss's expansion |x|^2 - 2 x.c + |c|^2 cancels near zero.
    """
    total = 0.0
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        difference = features[rows] - centroids[assignment[rows]]
        total += float(np.vecdot(difference, difference).sum(dtype=np.float64))
    return total


def elbow(
    features: np.ndarray | Stacked,
    *,
    grid: Sequence[int],
    seed: int,
    iterations: int = 25,
    redo: int = 1,
    threads: int | None = None,
    transform: Transform | None = None,
    sample: int | None = None,
    checkpoints: Checkpoints | None = None,
) -> Elbow:
    """The number of clusters in `grid` at the elbow of the inertia curve, and that curve.

    One fit per k, all from the same seed and the same sample; see `elbow_of` for the criterion and `fit_clusters`
    for the fits. With `checkpoints` an interrupted run continues after the last k that was saved.
    """
    _check_grid(grid)
    found = checkpoints.latest() if checkpoints else None
    curve: list[float] = list(found[2]["inertia"]) if found else []
    training = _training(features, transform, sample, seed)
    with progress("elbow", len(grid), "fits", done=len(curve)) as advance:
        for k in grid[len(curve) :]:
            fitted = _fit(training, features, transform, k, seed, iterations, redo, threads)
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


def _check_finite(features: np.ndarray | Stacked) -> None:
    """ValueError unless features are a finite matrix, read block by block."""
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"clusters: expected features of shape (images, features), found {features.shape}.")
    for start in range(0, len(features), BLOCK):
        _check_rows(features[start : start + BLOCK], start)


def _check_rows(rows: np.ndarray, at: int | np.ndarray) -> None:
    """ValueError unless rows are finite and their squares have a sum; at: the number of the first, or of all."""
    bad = ~np.isfinite(rows).all(axis=1)
    largest = float(np.abs(rows).max()) if rows.size and not bad.any() else 0.0
    if (
        LARGEST < largest <= np.finfo(np.float32).max
    ):  # beyond that, float32 makes it infinite, which is found later
        raise ValueError(
            f"clusters: expected features of at most {LARGEST:g}, whose squared distances float32 can hold, found "
            f"{largest:.3g}; scale them, or compute them again."
        )
    if bad.any():
        first = int(np.argmax(bad))
        row = at + first if isinstance(at, int) else at[first]
        raise ValueError(
            f"clusters: expected finite features, as float32 and after the map, found NaN or infinity in row {row}; "
            "compute it again."
        )


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
