"""Representational similarity analysis: features against any square matrix of judged similarities.

The paper's choice (its section A.2): Pearson kernel, Spearman rank correlation of the upper triangles.
Shape suffixes: m objects, p features, q = m (m - 1) / 2 pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from alignet.data.judgements import as_similarity
from alignet.evaluate.bootstrap import Score, defined_interval, object_counts
from alignet.runtime.progress import progress


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

    features: (m, p), one row per row of `similarity` (m, m), which data.judgements or as_similarity gives.
    The interval resamples objects: a pair counts as often as both its objects were drawn, and the pair
    of an object with its own copy is dropped. The p-value is one-sided (larger correlation) over
    `permutations` relabellings of the objects, (1 + hits) / (1 + permutations).
    """
    compared = _compared(features, similarity, dataset)
    p = permutation_p(compared.kernel, compared.judged, permutations=permutations, seed=seed)
    draws = _bootstrap(compared.x, compared.y, len(features), draws=bootstrap, seed=seed, dataset=dataset)
    n = len(compared.x)
    low, high, lost = defined_interval(draws)
    said = _said(p, permutations, note, lost)
    return [
        Score(
            "rsa_spearman", dataset, spearman(compared.x, compared.y), low, high, n=n, unit="pairs",
            over="objects" if low is not None else "", chance=0.0, ceiling=ceiling, note=said,
        ),
        Score("rsa_p", dataset, p, None, None, n, "pairs", "", note=note),
    ]  # fmt: skip


def rsa_mean(
    sets: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    dataset: str,
    seed: int,
    bootstrap: int = 1000,
    permutations: int = 1000,
    notes: Mapping[str, str] | None = None,
) -> list[Score]:
    """What `rsa` says of each of several sets of objects, and the mean of their correlations.

    sets: name -> (features (m, p), similarity (m, m)). A set's scores have the data set "<dataset> <name>", those of
    the mean `dataset`. The sets share no object, so each is resampled and relabelled by itself, and the means are taken
    draw by draw: the interval is of the mean over these sets, not over others of their kind. n counts pairs.
    """
    if len(sets) < 2:
        raise ValueError(f"{dataset}: expected two or more sets of judgments to average, found {len(sets)}")
    scores: list[Score] = []
    rhos: list[float] = []
    draws: list[np.ndarray] = []
    nulls: list[np.ndarray] = []
    n = 0
    for number, (name, (features, similarity)) in enumerate(sets.items()):
        own = f"{dataset} {name}"
        at = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        compared = _compared(features, similarity, own)
        observed, null = _permuted(compared.kernel, compared.judged, permutations=permutations, seed=at)
        drawn = _bootstrap(compared.x, compared.y, len(features), draws=bootstrap, seed=at, dataset=own)
        rho, p, note = spearman(compared.x, compared.y), _p(observed, null), (notes or {}).get(name, "")
        shared = {"n": len(compared.x), "unit": "pairs"}
        low, high, lost = defined_interval(drawn)
        scores += [
            Score("rsa_spearman", own, rho, low, high, over="objects" if low is not None else "", chance=0.0,
                  note=_said(p, permutations, note, lost), **shared),  # type: ignore[arg-type]
            Score("rsa_p", own, p, None, None, over="", note=note, **shared),  # type: ignore[arg-type]
        ]  # fmt: skip
        rhos.append(rho)
        draws.append(drawn)
        nulls.append(np.append(observed, null))
        n += len(compared.x)
    mean, null = np.mean(draws, 0), np.mean(nulls, 0)
    low, high, lost = defined_interval(mean)
    p, note = _p(null[0], null[1:]), f"mean of {len(sets)} sets: {', '.join(sets)}"
    return [
        *scores,
        Score("rsa_spearman", dataset, float(np.mean(rhos)), low, high, n=n, unit="pairs",
              over="objects" if low is not None else "", chance=0.0, note=_said(p, permutations, note, lost)),
        Score("rsa_p", dataset, p, None, None, n, "pairs", "", note=note),
    ]  # fmt: skip


@dataclass(frozen=True)
class _Compared:
    """Two matrices (m, m) of similarities, and their upper triangles (q,)."""

    kernel: np.ndarray
    judged: np.ndarray
    x: np.ndarray
    y: np.ndarray


def _compared(features: np.ndarray, similarity: np.ndarray, dataset: str) -> _Compared:
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
    return _Compared(kernel, judged, x, y)


def _said(p: float, permutations: int, note: str, lost: str) -> str:
    texts = [f"p = {p:.4f}, {permutations} permutations of the objects", note, lost]
    return "; ".join(text for text in texts if text)


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
    return _p(*_permuted(kernel, judged, permutations=permutations, seed=seed))


def _permuted(
    kernel: np.ndarray, judged: np.ndarray, *, permutations: int, seed: int
) -> tuple[float, np.ndarray]:
    """Spearman correlation of two (m, m) matrices, and those (permutations,) with the objects of one relabelled."""
    m = len(kernel)
    upper = np.triu_indices(m, k=1)
    x, y = (_standard_ranks(matrix, upper) for matrix in (kernel, judged))
    generator = np.random.default_rng([seed, 1])
    null = np.empty(permutations)
    for row in range(permutations):
        order = generator.permutation(m)
        null[row] = (x * y[np.ix_(order, order)]).sum() / 2  # each pair stands in both triangles
    return float((x * y).sum() / 2), null


def _p(observed: float, null: np.ndarray) -> float:
    """Share of the relabellings, the unchanged one among them, that do as well."""
    return (1 + int((null >= observed - 1e-9).sum())) / (1 + len(null))


def kept_together(triplets: np.ndarray, objects: int, name: str) -> tuple[np.ndarray, int]:
    """How often people kept two objects together, of all triplets that showed both: (m, m) within [0, 1], 0 diagonal.

    triplets: (n, 3) int, the odd one last. Also the least number of triplets that a pair was shown in. This is the
    similarity that Hebart et al. (2020) take from choices directly. ValueError where a pair was never shown.
    """
    shown, kept = np.zeros((objects, objects)), np.zeros((objects, objects))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        np.add.at(shown, (triplets[:, a], triplets[:, b]), 1)
    np.add.at(kept, (triplets[:, 0], triplets[:, 1]), 1)
    shown, kept = shown + shown.T, kept + kept.T
    upper = np.triu_indices(objects, 1)
    fewest = int(shown[upper].min()) if len(upper[0]) else 0
    if fewest == 0:
        never = int((shown[upper] == 0).sum())
        raise ValueError(
            f"{name}: expected every pair of {objects} objects in some triplet, found {never:,} that were never shown "
            "together; give more choices or fewer objects, or compare with what VICE recovers (nodes.vice)."
        )
    np.fill_diagonal(shown, 1)
    return kept / shown, fewest


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
    """Spearman's rho (B,) of pairs x, y (q,) in each draw of the objects; NaN where a draw is constant."""
    counts = object_counts(objects, draws=draws, seed=seed).astype(np.float64)
    first, second = np.triu_indices(objects, k=1)
    groups = _Groups(x), _Groups(y)
    found = []
    with progress(f"rsa {dataset}", draws, "draws") as advance:
        for count in counts:
            found.append(_weighted_spearman(*groups, count[first] * count[second]))
            advance()
    return np.array(found)


def _standard_ranks(matrix: np.ndarray, upper: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Ranks of the upper triangle, centred and of unit norm, as a symmetric (m, m) with zero diagonal."""
    values = matrix[upper]
    ranks = _Groups(values).ranks(np.ones(len(values)))
    ranks -= ranks.mean()
    square = np.zeros_like(matrix)
    square[upper] = ranks / np.linalg.norm(ranks)
    return square + square.T
