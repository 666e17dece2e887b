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
_BLOCK = 256  # triplets weighted at once: block x draws float32 stays within a core's cache


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
    the dependence between triplets that share an object, which a bootstrap over triplets ignores. Where
    few triplets cover the objects the interval is conservative: it resamples each triplet's own noise up
    to eight times. Draws that hold no triplet are left out, so B may be less than `draws`.
    """
    ids, inverse = np.unique(units, return_inverse=True)
    objects = inverse.reshape(units.shape)
    second = np.where(objects[:, 1] == objects[:, 0], len(ids), objects[:, 1])  # row len(ids) counts 1
    repeated = (objects[:, 2] == objects[:, 0]) | (objects[:, 2] == objects[:, 1])
    columns = (objects[:, 0], second, np.where(repeated, len(ids), objects[:, 2]))
    counts = object_counts(len(ids), draws=draws, seed=seed)
    table = np.ones((len(ids) + 1, draws), dtype=np.float32)
    table[:-1] = counts.T  # (objects + 1, B), a row contiguous: rows are what is gathered below
    statistics = np.column_stack([values, np.ones(len(values))]).astype(np.float32).T.copy()  # (k + 1, n)
    sums = np.zeros((len(statistics), draws))
    for start in range(0, len(values), _BLOCK):
        block = slice(start, start + _BLOCK)
        weights = table.take(columns[0][block], axis=0)
        weights *= table.take(columns[1][block], axis=0)
        weights *= table.take(columns[2][block], axis=0)
        sums += statistics[:, block] @ weights
    held = sums[-1] > 0
    return sums[:-1, held] / sums[-1, held]


def object_counts(objects: int, *, draws: int, seed: int) -> np.ndarray:
    """How often each object occurs in each draw of `objects` objects with replacement: (B, objects)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(objects, np.full(objects, 1 / objects), size=draws)
