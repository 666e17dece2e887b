"""Spearman's rank correlation of two properties of items (triplets), with a bootstrap over the items.

Shape suffixes: n items, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from alignet.evaluate.bootstrap import defined_interval

EXACT, PERMUTATIONS = 7, 10_000  # items up to which all permutations are counted; random ones for more


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho over items, with its bootstrap over items: SD and 95% interval.

    rho is NaN where a side is constant; SD and interval are where it is, or too many draws are. note: how many.
    """

    rho: float
    sd: float
    low: float
    high: float
    n: int
    draws: np.ndarray  # (B,), those that are defined
    note: str = ""

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The interval as a score has it: None where there is none."""
        return (self.low, self.high) if np.isfinite(self.low) else (None, None)


def correlation(
    x: np.ndarray, y: np.ndarray, *, bootstrap: int, seed: int, parts: np.ndarray | None = None
) -> Correlation:
    """Spearman's rho of x and y (n,) where both are finite, and its bootstrap over items.

    parts: (n,) int; where given, items are ranked and resampled within each part, and rho is the mean over parts,
    weighted by their items: for values whose scale differs between parts. bootstrap 0 gives rho alone.
    """
    held = np.isfinite(x) & np.isfinite(y)
    part = np.zeros(len(x), dtype=np.int64) if parts is None else parts
    ranked = [(groups(x[mine]), groups(y[mine])) for mine in _members(part, held)]
    n = sum(len(first) for first, _ in ranked)
    rho = _mean_spearman(ranked, [np.ones(len(first)) for first, _ in ranked])
    if not np.isfinite(rho):
        nan = float("nan")
        return Correlation(nan, nan, nan, nan, n, np.zeros(0))
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(bootstrap):
        sizes = (len(first) for first, _ in ranked)
        times = [np.bincount(generator.integers(size, size=size), minlength=size) for size in sizes]
        found.append(_mean_spearman(ranked, times))
    every = np.array(found, dtype=np.float64)
    draws, nan = every[np.isfinite(every)], float("nan")
    low, high, note = defined_interval(every) if len(every) else (None, None, "")
    if low is None or high is None:
        return Correlation(rho, nan, nan, nan, n, draws, note)
    return Correlation(rho, float(draws.std(ddof=1)) if len(draws) > 1 else nan, low, high, n, draws, note)


def permuted(x: np.ndarray, y: np.ndarray, *, seed: int) -> tuple[float, bool]:
    """Two-sided p of Spearman's rho of x and y (n,) under permutations of y, and whether all n! were counted.

    Up to EXACT items all are, the observed one among them; for more, PERMUTATIONS random ones, and p = (1 + hits) /
    (1 + PERMUTATIONS). Equality counts as a hit, up to rounding. ValueError where n is below 3 or a side is constant.
    """
    first, second = (groups(np.asarray(one, dtype=np.float64)) for one in (x, y))
    one = np.ones(len(first))
    if len(first) != len(second) or len(first) < 3 or not np.isfinite(weighted_spearman(first, second, one)):
        raise ValueError(
            f"rank correlation: expected at least 3 pairs of values that differ, found {len(first)} and {len(second)}; "
            "add items."
        )
    a, b = (_centred_ranks(values) for values in (first, second))
    observed, slack = abs(a @ b), 1e-9
    if len(first) <= EXACT:
        orders = np.array(list(permutations(range(len(first)))))
        return float((np.abs(b[orders] @ a) >= observed - slack).mean()), True
    generator = np.random.default_rng(seed)
    hits = sum(abs(a @ generator.permutation(b)) >= observed - slack for _ in range(PERMUTATIONS))
    return (1 + int(hits)) / (1 + PERMUTATIONS), False


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks less their mean."""
    held = np.bincount(values)
    rank = (np.cumsum(held) - held / 2)[values]
    return rank - rank.mean()


def _members(part: np.ndarray, held: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(held & (part == value)) for value in np.unique(part[held])]


def _mean_spearman(ranked: Sequence[tuple[np.ndarray, np.ndarray]], times: Sequence[np.ndarray]) -> float:
    """Mean over parts of Spearman's rho, by their items; NaN for fewer than 3 items or where a part is constant."""
    n = sum(len(first) for first, _ in ranked)
    if n < 3:
        return float("nan")
    return sum(len(one[0]) / n * weighted_spearman(*one, weights) for one, weights in zip(ranked, times))


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
