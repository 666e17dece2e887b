"""How far people agree with each other on what is important in an image: split-half reliability of importance maps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from alignet.runtime.progress import progress


def split_half(
    raters: Sequence[np.ndarray], splits: int, seed: int, *, corrected: bool = False
) -> tuple[float, np.ndarray]:
    """The ceiling, and the reliability of each image's map: float64 (n,), NaN where it cannot be known.

    raters: for each of n images the maps of its raters, float (r, h, w); r may differ. An image's reliability is
    Spearman's correlation over pixels between the mean maps of two halves of its raters, averaged over `splits` random
    halvings, or over all where there are no more of them (r = 2: one, 3 and 4: three, 5 and 6: ten). Of an odd number
    one half has one rater more. The ceiling is the mean over images with at least two raters. A halving of which one
    half has the same value everywhere is left out. corrected: step up by Spearman-Brown, 2 c / (1 + c), from half of
    the raters to all, image by image. An image's result depends on its place among the images and the seed alone.
    Raises ValueError where no image has two raters whose maps vary.
    """
    if splits < 1:
        raise ValueError(f"splits: expected at least 1, found {splits}.")
    found = np.full(len(raters), np.nan)
    with progress("split halves", len(raters), "images") as advance:
        for row, maps in enumerate(raters):
            if len(maps) > 1:
                found[row] = _reliability(np.asarray(maps), splits, np.random.default_rng([seed, row]))
            advance()
    if corrected:
        found = np.where(found > -1, 2 * found / np.where(found > -1, 1 + found, 1), np.nan)
    known = found[~np.isnan(found)]
    if not len(known):
        most = max((len(maps) for maps in raters), default=0)
        raise ValueError(
            f"split_half: expected images with at least two raters whose maps vary, found {len(raters):,} images with "
            "at "
            f"most {most} raters; give maps by rater, (raters, h, w)."
        )
    return float(known.mean()), found


def _reliability(maps: np.ndarray, splits: int, generator: np.random.Generator) -> float:
    """Mean correlation of the halves of one image's maps (r, h, w)."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    scores = []
    for half in _halves(len(flat), splits, generator):
        other = np.setdiff1d(np.arange(len(flat)), half)
        score = _spearman(flat[half].mean(axis=0), flat[other].mean(axis=0))
        if not math.isnan(score):
            scores.append(score)
    return float(np.mean(scores)) if scores else math.nan


def _halves(raters: int, splits: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Indices of one half of the raters: each halving once where there are no more than `splits`, else at random."""
    size = raters // 2
    if math.comb(raters, size) // (2 if raters % 2 == 0 else 1) <= splits:
        for half in combinations(range(raters), size):
            if raters % 2 or 0 in half:  # of two equal halves, the one with the first rater
                yield list(half)
        return
    for _ in range(splits):
        yield generator.permutation(raters)[:size].tolist()


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(first), rankdata(second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1)
    return float(ranks[0] @ ranks[1] / norms.prod()) if norms.all() else math.nan
