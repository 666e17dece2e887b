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
DRAWN = 2**18  # values of resamples or permutations that are held at a time


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
    x: np.ndarray, y: np.ndarray, *, bootstrap: int, seed: int, parts: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
) -> Correlation:  # fmt: skip
    """Spearman's rho of x and y (n,) where both are finite, and its bootstrap over items.

    parts: (n,) int; where given, items are ranked and resampled within each part, and rho is the mean over parts,
    weighted by their items: for values whose scale differs between parts. clusters: (n,) int, without parts; items of
    one cluster come and go together when resampled. bootstrap 0 gives rho alone.
    """
    held = np.isfinite(x) & np.isfinite(y)
    part = np.zeros(len(x), dtype=np.int64) if parts is None else parts
    ranked = [(groups(x[mine]), groups(y[mine])) for mine in _members(part, held)]
    n = sum(len(first) for first, _ in ranked)
    rho = float(_mean_spearman(ranked, [np.ones((1, len(first))) for first, _ in ranked])[0])
    if not np.isfinite(rho):
        nan = float("nan")
        return Correlation(nan, nan, nan, nan, n, np.zeros(0))
    generator = np.random.default_rng(seed)
    step, sizes = max(1, DRAWN // n), [len(first) for first, _ in ranked]
    places: np.ndarray | None = None
    if clusters is not None:
        places = groups(clusters[held])
        sizes = [int(places.max()) + 1]
    found = []
    for begin in range(0, bootstrap, step):
        times = _times(generator, sizes, min(step, bootstrap - begin))
        found.append(_mean_spearman(ranked, times if places is None else [times[0][:, places]]))
    every = np.concatenate(found or [np.zeros(0)])
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
    if len(first) != len(second) or len(first) < 3 or not first.any() or not second.any():
        raise ValueError(
            f"rank correlation: expected at least 3 pairs of values that differ, found {len(first)} and {len(second)}; "
            "add items."
        )
    a, b = (_centred_ranks(values) for values in (first, second))
    observed, slack = abs(a @ b), 1e-9
    if len(first) <= EXACT:
        orders = np.array(list(permutations(range(len(first)))))
        return float((np.abs(b[orders] @ a) >= observed - slack).mean()), True
    generator, hits = np.random.default_rng(seed), 0
    step = max(1, DRAWN // len(b))
    for begin in range(0, PERMUTATIONS, step):
        drawn = generator.permuted(np.tile(b, (min(step, PERMUTATIONS - begin), 1)), axis=1)
        hits += int((np.abs(drawn @ a) >= observed - slack).sum())
    return (1 + hits) / (1 + PERMUTATIONS), False


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks less their mean."""
    held = np.bincount(values)
    rank = (np.cumsum(held) - held / 2)[values]
    return rank - rank.mean()


def _members(part: np.ndarray, held: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(held & (part == value)) for value in np.unique(part[held])]


def _times(generator: np.random.Generator, sizes: Sequence[int], draws: int) -> list[np.ndarray]:
    """How often each item of each part (B, size) is in each of so many resamples, which are drawn one after another."""
    if len(sizes) == 1:
        places = [generator.integers(sizes[0], size=(draws, sizes[0]))]
    else:
        every = [[generator.integers(size, size=size) for size in sizes] for _ in range(draws)]
        places = [np.array(part) for part in zip(*every, strict=True)]
    return [
        np.bincount((one + size * np.arange(draws)[:, None]).reshape(-1), minlength=draws * size).reshape(draws, size)
        for one, size in zip(places, sizes, strict=True)
    ]  # fmt: skip


def _mean_spearman(
    ranked: Sequence[tuple[np.ndarray, np.ndarray]], times: Sequence[np.ndarray]
) -> np.ndarray:
    """Mean over parts of Spearman's rho (B,), by their items; NaN for fewer than 3 items or where a part is constant.

    times: of each part (B, n), how often each item occurs.
    """
    n = sum(len(first) for first, _ in ranked)
    if n < 3:
        return np.full(max((len(one) for one in times), default=1), np.nan)
    return np.sum(
        [len(one[0]) / n * weighted_spearman(*one, weights) for one, weights in zip(ranked, times)], axis=0
    )


def groups(values: np.ndarray) -> np.ndarray:
    """Number of each value's group of equal values, in ascending order: int64 (n,)."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def weighted_spearman(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's rho (B,) of the lists in which item i occurs weights[b, i] times; ties have their mean rank.

    first, second: (n,) int64 as of `groups`. NaN where a list is constant.
    """
    a, b = (_weighted_ranks(one, weights) for one in (first, second))
    spread = (weights * a * a).sum(1) * (weights * b * b).sum(1)
    rho = (weights * a * b).sum(1) / np.sqrt(np.where(spread > 0, spread, 1))
    return np.where(spread > 0, rho, np.nan)


def _weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean ranks (B, n) less their weighted mean, of groups (n,) as they occur weights (B, n) times."""
    order = np.argsort(values, kind="stable")
    held = np.add.reduceat(
        weights[:, order], np.searchsorted(values[order], np.arange(values.max() + 1)), axis=1
    )
    rank = (np.cumsum(held, axis=1) - held / 2)[:, values]
    return rank - (rank * weights).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
