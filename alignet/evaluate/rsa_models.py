"""How alike the similarity structures of models are (the paper's figure 3A).

A setting keeps a compact RSM: the upper triangle of the Pearson kernel over a few images that are the same in every
setting. The page correlates any two of them, within a student and between students.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from alignet.evaluate.rsa import pearson_kernel, spearman


def shared_rows(ids: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Rows of at most `count` images, the same ones whatever the order of `ids`; sorted by id. int64 (<= count,)."""
    by_name = np.argsort(np.asarray(ids, dtype=str), kind="stable")
    chosen = np.random.default_rng(seed).permutation(len(by_name))[:count]
    return by_name[np.sort(chosen)]


def compact_rsm(features: np.ndarray, name: str = "features") -> np.ndarray:
    """Upper triangle (m (m - 1) / 2,) float32 of the Pearson correlations between rows of features (m, p)."""
    kernel = pearson_kernel(features, name)
    return kernel[np.triu_indices(len(kernel), k=1)].astype(np.float32)


def between_models(rsms: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> tuple[list[str], np.ndarray]:
    """Spearman correlations (k, k) float64 of compact RSMs, and their names in order.

    rsms: name -> (ids of its images, upper triangle). ValueError where two are of different images.
    """
    names = list(rsms)
    if not names:
        raise ValueError("RSA between models: expected at least one RSM, found none")
    wanted = list(rsms[names[0]][0])
    for name, (ids, _) in rsms.items():
        if list(ids) != wanted:
            raise ValueError(
                f"RSA between models: expected the {len(wanted)} images of {names[0]} in {name}, found {len(ids)} of "
                "which some are others; evaluate both on one image set with one seed."
            )
    matrix = np.eye(len(names))
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            matrix[i, j] = matrix[j, i] = spearman(rsms[one][1], rsms[other][1])
    return names, matrix
