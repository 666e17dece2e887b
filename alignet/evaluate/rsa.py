"""Representational similarity analysis: features against any square matrix of judged similarities.

The paper's choice (its section A.2): Pearson kernel, Spearman rank correlation of the upper triangles.
Shape suffixes: m objects, p features, q = m (m - 1) / 2 pairs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alignet.evaluate.bootstrap import Score, interval, object_counts
from alignet.progress import progress

KINDS = ("similarity", "dissimilarity")


def rsa(
    features: np.ndarray,
    similarity: np.ndarray,
    *,
    dataset: str,
    seed: int,
    bootstrap: int = 1000,
    permutations: int = 1000,
    ceiling: float | None = None,
    note: str = "",
) -> list[Score]:
    """Spearman correlation of the features' Pearson kernel with a similarity matrix, and its p-value.

    features: (m, p), one row per row of `similarity` (m, m), which load_matrix or as_similarity gives.
    The interval resamples objects: a pair counts as often as both its objects were drawn, and the pair
    of an object with its own copy is dropped. The p-value is one-sided (larger correlation) over
    `permutations` relabellings of the objects, (1 + hits) / (1 + permutations).
    """
    if similarity.shape != (len(features), len(features)):
        raise ValueError(
            f"{dataset}: expected a matrix of shape {(len(features), len(features))}, one row per row of "
            f"features, found {similarity.shape}; embed the matrix's own objects, in its order."
        )
    judged = as_similarity(similarity, "similarity", dataset)
    kernel = pearson_kernel(features, dataset)
    upper = np.triu_indices(len(features), k=1)
    x, y = kernel[upper], judged[upper]
    for what, values in (("the features' kernel", x), ("the matrix", y)):
        if np.ptp(values) == 0:
            raise ValueError(f"{dataset}: expected varying similarities, found all equal in {what}.")
    rho = spearman(x, y)
    draws = _bootstrap(x, y, len(features), draws=bootstrap, seed=seed, dataset=dataset)
    p = permutation_p(kernel, judged, permutations=permutations, seed=seed)
    texts = [f"p = {p:.4f}, {permutations} permutations of the objects", note]
    if len(draws) < bootstrap:
        texts.append(f"{bootstrap - len(draws)} of {bootstrap} draws were constant and left out")
    n = len(x)
    return [
        Score(
            "rsa_spearman",
            dataset,
            rho,
            *interval(draws),
            n=n,
            unit="pairs",
            over="objects",
            chance=0.0,
            ceiling=ceiling,
            note="; ".join(text for text in texts if text),
        ),
        Score("rsa_p", dataset, p, None, None, n, "pairs", "", note=note),
    ]


def pearson_kernel(features: np.ndarray, name: str = "features") -> np.ndarray:
    """Correlation (m, m) float64, within [-1, 1], between the rows of features (m, p)."""
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 3 or x.shape[1] < 2:
        raise ValueError(f"{name}: expected features of 3 or more objects x 2 or more, found {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: expected finite features, found NaN or infinity; embed the images again.")
    centred = x - x.mean(1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    constant = np.flatnonzero(lengths[:, 0] <= 1e-12 * np.linalg.norm(x, axis=1))
    if len(constant):
        raise ValueError(
            f"{name}: expected features that vary within each row, found {len(constant)} constant rows, the "
            f"first {constant[0]}: their correlation is undefined; leave those objects out."
        )
    unit = centred / lengths
    return unit @ unit.T


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman rank correlation of x and y (q,), ties at their mean rank, within [-1, 1]."""
    return float(_weighted_spearman(_Groups(x), _Groups(y), np.ones(len(x))))


def permutation_p(kernel: np.ndarray, judged: np.ndarray, *, permutations: int, seed: int) -> float:
    """One-sided p-value of the Spearman correlation of two (m, m) matrices, relabelling the objects."""
    m = len(kernel)
    upper = np.triu_indices(m, k=1)
    x, y = (_standard_ranks(matrix, upper) for matrix in (kernel, judged))
    observed = (x * y).sum()
    generator = np.random.default_rng([seed, 1])
    hits = 0
    for _ in range(permutations):
        order = generator.permutation(m)
        hits += (x * y[np.ix_(order, order)]).sum() >= observed - 1e-9
    return (1 + int(hits)) / (1 + permutations)


def load_matrix(path: str | Path, kind: str) -> np.ndarray:
    """Similarities (m, m) float64 from a square .npy, or a .csv of numbers without header or labels.

    kind: `similarity`, or `dissimilarity`, which is negated. The diagonal is never used.
    """
    path = Path(path)
    if path.suffix == ".npy":
        matrix = np.load(path, allow_pickle=False)
    elif path.suffix == ".csv":
        try:
            matrix = np.loadtxt(path, delimiter=",", ndmin=2)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{path}: expected rows of comma-separated numbers alone, found {reason}; remove the header "
                "and the labels."
            ) from None
    else:
        raise ValueError(f"{path}: expected a .npy or .csv matrix, found {path.suffix or 'no suffix'!r}")
    return as_similarity(matrix, kind, str(path))


def as_similarity(matrix: np.ndarray, kind: str, name: str) -> np.ndarray:
    """The matrix (m, m) as float64 similarities, or a ValueError that says what is wrong with it."""
    if kind not in KINDS:
        raise ValueError(f"{name}: unknown kind of matrix {kind!r}: expected one of {', '.join(KINDS)}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name}: expected a square matrix, found shape {matrix.shape}")
    if len(matrix) < 3:
        raise ValueError(f"{name}: expected at least 3 objects, found {len(matrix)}")
    if matrix.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected real numbers, found dtype {matrix.dtype}; save it as float32.")
    values = np.asarray(matrix, dtype=np.float64).copy()
    np.fill_diagonal(values, 0)  # never used, and often NaN or empty in published matrices
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"{name}: expected finite numbers, found {len(bad)} NaN or infinite entries, the first at row "
            f"{bad[0][0]}, column {bad[0][1]}; leave out objects with missing pairs."
        )
    gap = np.abs(values - values.T)
    if gap.max() > 1e-5 * max(np.abs(values).max(), 1e-30):
        row, column = np.unravel_index(gap.argmax(), gap.shape)
        raise ValueError(
            f"{name}: expected a symmetric matrix, found {values[row, column]:.6g} at row {row}, column "
            f"{column} but {values[column, row]:.6g} mirrored; average it with its transpose."
        )
    return values if kind == "similarity" else -values


class _Groups:
    """The order of values (q,), worked out once: index of each value's group of equal values."""

    def __init__(self, values: np.ndarray) -> None:
        unique, self.index = np.unique(values, return_inverse=True)
        self.count = len(unique)

    def ranks(self, weights: np.ndarray) -> np.ndarray:
        """Mean ranks (q,) where value i occurs weights[i] times."""
        held = np.bincount(self.index, weights=weights, minlength=self.count)
        return (np.cumsum(held) - held / 2 + 0.5)[self.index]


def _weighted_spearman(x: _Groups, y: _Groups, weights: np.ndarray) -> float:
    """Spearman's rho of the list in which pair i occurs weights[i] times; NaN if either is constant."""
    total = weights.sum()
    if total == 0:
        return float("nan")
    a, b = x.ranks(weights), y.ranks(weights)
    a -= (a @ weights) / total
    b -= (b @ weights) / total
    weighted = a * weights
    spread = (weighted @ a) * ((b * weights) @ b)
    return float((weighted @ b) / np.sqrt(spread)) if spread > 0 else float("nan")


def _bootstrap(
    x: np.ndarray, y: np.ndarray, objects: int, *, draws: int, seed: int, dataset: str
) -> np.ndarray:
    counts = object_counts(objects, draws=draws, seed=seed).astype(np.float64)
    first, second = np.triu_indices(objects, k=1)
    groups = _Groups(x), _Groups(y)
    found = []
    with progress(f"rsa {dataset}", draws, "draws") as advance:
        for count in counts:
            found.append(_weighted_spearman(*groups, count[first] * count[second]))
            advance()
    values = np.array(found)
    return values[np.isfinite(values)]


def _standard_ranks(matrix: np.ndarray, upper: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Ranks of the upper triangle, centred and of unit norm, as a symmetric (m, m) with zero diagonal."""
    values = matrix[upper]
    ranks = _Groups(values).ranks(np.ones(len(values)))
    ranks -= ranks.mean()
    square = np.zeros_like(matrix)
    square[upper] = ranks / np.linalg.norm(ranks)
    return square + square.T
