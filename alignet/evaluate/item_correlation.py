"""Spearman's rank correlation of two properties of items (triplets), with a bootstrap over the items.

Shape suffixes: n items, B draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignet.evaluate.bootstrap import interval


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho over items, with its bootstrap over items: SD and 95% interval. NaN where a side is constant."""

    rho: float
    sd: float
    low: float
    high: float
    n: int
    draws: np.ndarray  # (B,), those that are defined


def correlation(x: np.ndarray, y: np.ndarray, *, bootstrap: int, seed: int) -> Correlation:
    """Spearman's rho of x and y (n,) where both are finite, and its bootstrap over items."""
    held = np.isfinite(x) & np.isfinite(y)
    x, y = x[held], y[held]
    n = len(x)
    nan = float("nan")
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(nan, nan, nan, nan, n, np.zeros(0))
    first, second = groups(x), groups(y)
    rho = weighted_spearman(first, second, np.ones(n))
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(bootstrap):
        times = np.bincount(generator.integers(n, size=n), minlength=n)
        found.append(weighted_spearman(first, second, times))
    draws = np.array(found)[np.isfinite(found)]
    low, high = interval(draws)
    return Correlation(rho, float(draws.std(ddof=1)) if len(draws) > 1 else nan, low, high, n, draws)


def groups(values: np.ndarray) -> np.ndarray:
    """Number of each value's group of equal values, in ascending order: int64 (n,)."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def weighted_spearman(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Spearman's rho of the list in which item i occurs weights[i] times; ties have their mean rank."""
    ranks = []
    for groups in (first, second):
        held = np.bincount(groups, weights=weights)
        rank = (np.cumsum(held) - held / 2)[groups]
        ranks.append(rank - (rank @ weights) / weights.sum())
    a, b = ranks
    spread = ((a * weights) @ a) * ((b * weights) @ b)
    return float((a * weights) @ b / np.sqrt(spread)) if spread > 0 else float("nan")
