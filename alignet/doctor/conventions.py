"""What a file of triplets does not say and choices show: the order of the objects, and whether one is a reference.

Shape suffixes: n triplets, m objects, p features.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from alignet.config import TripletsSet
from alignet.data.object_order import SORTED_FILES, TABLE, by_sorted_files
from alignet.doctor.choices import dot_products, human_sets, known_features
from alignet.doctor.findings import Finding, fault, ok, warning
from alignet.doctor.sources import Sources
from alignet.vice.object_order import CLEAR, Comparison, compare_readings

_FEWEST = 100  # triplets
_ERRORS = 5.0  # standard errors by which one object of the pair differs from the other
_DIFFERENCE = 0.03  # and at least so much


def check_order(sources: Sources) -> Iterator[Finding]:
    """Do the choices fit objects in the order of sorted file names better than in that of the table?"""
    names = sources.unique_ids()
    if names is None:
        return
    order = by_sorted_files(names)
    moved = np.flatnonzero(order != np.arange(len(order)))
    for name in human_sets(sources) if len(moved) else ():
        one, triplets = sources.config.data.sets[name], sources.read(name)
        if not isinstance(one, TripletsSet) or one.order not in (None, TABLE, SORTED_FILES):
            continue
        if triplets is None or triplets.max() >= len(order):
            continue
        numbers = np.argsort(order)[triplets] if one.order == SORTED_FILES else triplets  # as in the file
        found = _best(sources, numbers, order, len(moved))
        if found is not None:
            some = ", ".join(names[row] for row in moved[:4])
            yield _judged(name, one.order or TABLE, *found, some)


def _best(
    sources: Sources, numbers: np.ndarray, order: np.ndarray, moved: int
) -> tuple[Comparison, str] | None:
    """Both readings of a file's numbers (n, 3) by the features that say most; None without any."""
    found = []
    for features, rows, by in known_features(sources):
        if len(rows) != len(order):
            continue
        readings = [rows[numbers], rows[order[numbers]]]
        there = (readings[0] >= 0).all(1) & (readings[1] >= 0).all(1)
        found.append((compare_readings(features, readings[0][there], readings[1][there], moved), by))
    return max(found, key=lambda one: abs(one[0].z), default=None)


def _judged(name: str, declared: str, found: Comparison, by: str, some: str) -> Finding:
    about, said = (
        f"data.sets.{name}",
        f"order {declared}: by {by}, {found.said(TABLE, SORTED_FILES)} ({some}, ...)",
    )
    if (found.z if declared == TABLE else -found.z) <= CLEAR:
        return ok(about, said)
    other = SORTED_FILES if declared == TABLE else TABLE
    fix = f"Set {about}.order={other}"
    if by.startswith("the embedding"):
        fix += f", or, if it is the embedding that numbers them otherwise, vice.published_order={other}"
    return fault(about, said, fix)


def check_reference(sources: Sources) -> Iterator[Finding]:
    """Are the choices of another task, (reference, chosen, other): which of two is more like the first?"""
    for name in human_sets(sources):
        one, triplets = sources.config.data.sets[name], sources.read(name)
        if not isinstance(one, TripletsSet) or triplets is None:
            continue
        for features, rows, by in known_features(sources):
            placed = rows[triplets] if triplets.max() < len(rows) else np.empty((0, 3), dtype=np.int64)
            placed = placed[(placed >= 0).all(1)]
            if len(placed) >= _FEWEST:
                yield _reading(name, features, placed, by)
                break


def _reading(name: str, features: np.ndarray, placed: np.ndarray, by: str) -> Finding:
    """Of an odd-one-out choice both objects of the pair are alike; a reference is compared with both others."""
    sims = dot_products(features, placed)
    excess, error = asymmetry(sims, placed)
    reference, chosen = (0, 1) if excess >= 0 else (1, 0)
    nearer = float((sims[:, 0] > sims[:, 1 + reference]).mean())
    odd = float((sims.argmax(1) == 0).mean())
    about = f"data.sets.{name}"
    said = (
        f"by {by}, read as odd one out {odd:.1%} are right (guessing 33.3%), read as which of two is nearer to the "
        f"{('first', 'second')[reference]} object {nearer:.1%} (guessing 50.0%)"
    )
    if abs(excess) < max(_ERRORS * error, _DIFFERENCE):
        return ok(about, f"{said}; the two objects of a pair are alike in them")
    columns = ["reference", "chosen", "other"] if chosen else ["chosen", "reference", "other"]
    return warning(
        about, f"{said}; the objects of a pair are not alike, as in ({', '.join(columns)})",
        "If the question was which of two is more like a third, these are no odd-one-out choices: see the formats",
    )  # fmt: skip


def asymmetry(sims: np.ndarray, triplets: np.ndarray) -> tuple[float, float]:
    """By how much more often the pair beats (first, odd one) than (second, odd one), and its standard error.

    sims: [01, 02, 12] of triplets (n, 3). Above 0 the first object is a reference, below it the second; 0 where the
    pair has no order. What comes from the order of the indices alone (pairs that ascend, features that drift with
    the index) is taken off.
    """
    gap = _gap(sims)
    ranks = triplets.argsort(1).argsort(1)
    by_rank = np.empty_like(sims)  # [low middle, low high, middle high]
    for pair, (one, other) in enumerate(((0, 1), (0, 2), (1, 2))):
        place = ranks[:, [one, other]].sum(1) - 1  # ranks 0+1, 0+2, 1+2
        by_rank[np.arange(len(sims)), place] = sims[:, pair]
    expected = 0.0
    for order in permutations(range(3)):
        share = float((ranks == order).all(1).mean())
        places = [order[one] + order[other] - 1 for one, other in ((0, 1), (0, 2), (1, 2))]
        expected += share * float(_gap(by_rank[:, places]).mean())
    return float(gap.mean()) - expected, float(gap.std() / np.sqrt(len(gap)))


def _gap(sims: np.ndarray) -> np.ndarray:
    return (sims[:, 0] > sims[:, 1]).astype(np.float64) - (sims[:, 0] > sims[:, 2])
