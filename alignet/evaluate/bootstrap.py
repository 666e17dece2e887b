"""A measured number with its interval, and the two bootstraps that the intervals come from.

Shape suffixes: n measurements (triplets, images), k statistics, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

LEVEL = 0.95  # of every interval
MOST_LOST = 0.1  # of the draws: where more are undefined, those that are left say nothing of the rest
_BLOCK, _DRAWS = (
    512,
    128,
)  # triplets and draws weighted at once: their float32 product stays in a core's cache


@dataclass(frozen=True)
class Score:
    """One metric on one data set, with all that is needed to read it."""

    metric: str
    dataset: str
    value: float
    low: float | None  # 95% interval; None where nothing was resampled (a count, a p-value)
    high: float | None
    n: int  # measurements behind the value
    unit: str  # of n: triplets, pairs, images
    over: str  # what the interval resamples: objects, images, or "" without an interval
    chance: float | None = None
    ceiling: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "chance", "ceiling"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"{self.metric} on {self.dataset}: expected a finite {name}, found {number}; "
                    "check the features for NaN and the data set for too few objects."
                )

    @property
    def meets_chance(self) -> bool:
        """Whether the interval reaches down to chance or below; False where chance is not known.

        Without an interval a correlation may be chance, since too many of its draws had no value; a share may not.
        """
        if self.chance is None:
            return False
        return self.chance == 0 if self.low is None else self.low <= self.chance

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> Score:
        """The inverse of dataclasses.asdict; an unknown or missing key is a ValueError."""
        known = [field.name for field in fields(cls)]
        if sorted(entries) != sorted(known):
            raise ValueError(f"a score: expected the keys {', '.join(known)}, found {', '.join(entries)}")
        return cls(**entries)


def interval(draws: np.ndarray) -> tuple[float, float]:
    """Percentile interval (low, high) at LEVEL of the bootstrap draws (B,)."""
    if len(draws) == 0:
        raise ValueError("expected at least one bootstrap draw, found none; set bootstrap to 1000.")
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def defined_interval(draws: np.ndarray) -> tuple[float | None, float | None, str]:
    """Interval of the draws (B,) that are defined, and what is to be said of the others; "" where there are none.

    A draw is NaN where a correlation of constants was asked for. Where more than MOST_LOST of them are, there is no
    interval: those that are left are the draws with much spread, and their interval may not even hold the estimate.
    """
    lost = int((~np.isfinite(draws)).sum())
    if lost > MOST_LOST * len(draws):
        return None, None, f"no interval: {lost:,} of {len(draws):,} draws had no value"
    said = f"{lost:,} of {len(draws):,} draws had no value and were left out" if lost else ""
    return *interval(draws[np.isfinite(draws)]), said


def share_interval(right: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """Interval (low, high) of the share of right answers: percentiles of its draws (B,), unless they are all the same.

    right: (n,) of 0 and 1. Where every answer is right, or every one wrong, no resampling can vary, and the interval is
    Clopper and Pearson's (1934), which takes the n answers as independent: 30 of 30 give [0.884, 1].
    """
    low, high = interval(draws)
    return (low, high) if low < high else clopper_pearson(round(float(np.sum(right))), len(right))


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """Exact interval (low, high) at LEVEL of a share of which k of n independent answers are right."""
    from scipy.stats import beta

    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    return low, float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0


def mean_draws(values: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """Bootstrap draws (B,) of the mean of values (n,), resampling the n measurements themselves."""
    generator = np.random.default_rng(seed)
    n = len(values)
    return np.array([values[generator.integers(n, size=n)].mean() for _ in range(draws)])


def object_draws(values: np.ndarray, units: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """Bootstrap draws (k, B) of the means of values over triplets, resampling OBJECTS.

    values: (n, k) per triplet. units: (n, 3) integer ids of the objects that each triplet shows. A draw
    takes as many objects as occur, with replacement, and weighs a triplet by the product of the
    multiplicities of its distinct objects (two images of one object come and go together). That keeps
    the dependence between triplets that share an object, which a bootstrap over triplets ignores.

    The interval is conservative: three multiplicities give a weight of variance 2^3 - 1 = 7, so each triplet's own
    noise counts sevenfold. Where that noise is all there is, as where each object is in few triplets, the interval is
    sqrt(7) = 2.6 times too wide (measured: 2.6 for 600 triplets, of 200, 600 or 1,800 objects). Where objects differ it
    comes right with more triplets to each: with differences of SD 0.08 in accuracy 1.7 to 2 times too wide at 10 to 15
    triplets an object, 1.2 to 1.5 at 45 to 75, 0.8 to 1.1 above 200 (the less where there are 40 objects). Draws that
    hold no triplet are left out, so B may be less than `draws`.
    """
    objects, number = renumbered(units)
    counts = object_counts(number, draws=draws, seed=seed)
    every = np.column_stack([values.astype(np.float32), np.ones(len(values), dtype=np.float32)])
    sums = object_sums(every, objects, counts)
    held = sums[-1] > 0
    return sums[:-1, held] / sums[-1, held]


def renumbered(units: np.ndarray) -> tuple[np.ndarray, int]:
    """The integer ids of any shape as numbers from 0, in their order and without gaps; and how many ids occur."""
    if units.size and units.min() >= 0 and units.max() < 4 * units.size:  # millions of rows in a moment
        occurs = np.zeros(int(units.max()) + 1, dtype=bool)
        occurs[units] = True
        return (np.cumsum(occurs) - 1)[units], int(occurs.sum())
    ids, inverse = np.unique(units, return_inverse=True)
    return inverse.reshape(units.shape), len(ids)


def object_sums(values: np.ndarray, objects: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums (k, B) float64 of values (n, k) over triplets, each weighed as `object_draws` says.

    objects: (n, 3) int, the number of each object shown. counts: (B, objects), how often each draw holds it. Weights
    and products are float32, which is exact for whole numbers; memory does not grow with n times the draws.
    """
    none = counts.shape[1]  # the number of an object that every draw holds once
    second = np.where(objects[:, 1] == objects[:, 0], none, objects[:, 1])
    repeated = (objects[:, 2] == objects[:, 0]) | (objects[:, 2] == objects[:, 1])
    columns = (objects[:, 0], second, np.where(repeated, none, objects[:, 2]))
    statistics = np.ascontiguousarray(np.asarray(values, dtype=np.float32).T)  # (k, n)
    sums = np.zeros((len(statistics), len(counts)))
    for start in range(0, len(counts), _DRAWS):
        few = counts[start : start + _DRAWS].T  # (objects, draws): rows are what is gathered below
        table = np.ones((none + 1, few.shape[1]), dtype=np.float32)
        table[:-1] = few
        sums[:, start : start + _DRAWS] = _weighted_sums(statistics, columns, table)
    return sums


def _weighted_sums(statistics: np.ndarray, columns: tuple[np.ndarray, ...], table: np.ndarray) -> np.ndarray:
    """Sums (k, draws) over triplets of statistics (k, n) times the product of the rows of `table` they name."""
    sums = np.zeros((len(statistics), table.shape[1]))
    weights, factor = np.empty((2, _BLOCK, table.shape[1]), dtype=np.float32)
    for start in range(0, statistics.shape[1], _BLOCK):
        stop = min(start + _BLOCK, statistics.shape[1])
        held, other = weights[: stop - start], factor[: stop - start]
        table.take(columns[0][start:stop], axis=0, out=held, mode="clip")  # "raise" would copy
        for column in columns[1:]:
            table.take(column[start:stop], axis=0, out=other, mode="clip")
            held *= other
        sums += statistics[:, start:stop] @ held
    return sums


def object_counts(objects: int, *, draws: int, seed: int) -> np.ndarray:
    """How often each object occurs in each draw of `objects` objects with replacement: (B, objects)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(objects, np.full(objects, 1 / objects), size=draws)
