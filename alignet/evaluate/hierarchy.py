"""How alignment moves pairs of images apart or together, by how they are related in the conceptual hierarchy.

Between an embedding of the images (before, after) with their levels (alignet.data.hierarchy) and the page's figures.

Change of relative distance (the paper's figures 3D, 3E, 21, 22): a pair's distance over the mean of all pairs, after
minus before; then z-scored over all pairs. Each distance is divided by its own mean first [ours; the paper prints that
it z-scores, since only relative distances mean anything]: z-scores of plain differences would be those of the distances
after, wherever training has enlarged all features. Negative: closer.
The distance is one of DISTANCES: `euclidean` of the features as they are, as the paper's remark on scale implies; or
`angle`, 1 - cosine of features that are centred on the mean of all images [ours]: where alignment gives categories
unequal spread, Euclidean distances say that more than who is whose neighbour.
A change without any order still pulls every pair towards the mean, so that what was near before comes out a little
farther: positive values within a category may be noise, negative ones are not.

Shape suffixes: m images, n pairs, p features, C classes, B draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from alignet.data.hierarchy import RELATIONS, UNKNOWN, Levels
from alignet.evaluate.bootstrap import Score, interval, object_counts
from alignet.evaluate.result import Columns, Result

DISTANCES = ("euclidean", "angle")
_BLOCK = 8192  # pairs whose features are gathered at once
_NOTHING = 1e-6  # standard deviation of relative changes below which only float32 was rounded
_EDGES = np.linspace(-6, 6, 61)  # of the histogram of z; what lies outside counts to the last bins
_RANKED = 40_000  # pairs of each relation behind the interval of the order
_BINS = 2048  # of their ranks


@dataclass(frozen=True)
class Pairs:
    """Pairs of images whose relation is known."""

    first: np.ndarray  # (n,) rows
    second: np.ndarray  # (n,)
    relation: np.ndarray  # (n,) index of RELATIONS
    note: str  # what was left out or sampled


def draw_pairs(levels: Levels, limit: int, seed: int) -> Pairs:
    """All pairs of images of known relation, or those among `limit` random pairs where there are more than so many."""
    m = len(levels)
    if m * (m - 1) // 2 <= limit:
        first, second = np.triu_indices(m, k=1)
        notes = []
    else:
        generator = np.random.default_rng(seed)
        one = generator.integers(m, size=limit)
        other = (one + generator.integers(1, m, size=limit)) % m
        first, second = np.divmod(np.unique(np.minimum(one, other) * m + np.maximum(one, other)), m)
        notes = [f"{len(first):,} pairs drawn at random of {m * (m - 1) // 2:,}"]
    if levels.note:
        notes.append(levels.note)
    relation = levels.relation(first, second)
    known = relation != UNKNOWN
    if not known.all():
        notes.append(f"{int((~known).sum()):,} pairs of unknown relation left out ({levels.unknown()})")
    return Pairs(first[known], second[known], relation[known], "; ".join(notes))


def distances(features: np.ndarray, pairs: Pairs, kind: str) -> np.ndarray:
    """Distances (n,) float64, one of DISTANCES, of pairs of rows of features (m, p), over their mean."""
    if kind not in DISTANCES:
        raise ValueError(f"hierarchy: unknown distance {kind!r}: expected one of {', '.join(DISTANCES)}")
    if kind == "angle":
        features = features - features.mean(0, dtype=np.float64)
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        features = features / np.where(lengths > 0, lengths, np.nan)  # an image at the mean has no angle
    found = np.empty(len(pairs.first))
    for start in range(0, len(found), _BLOCK):
        block = slice(start, start + _BLOCK)
        gap = features[pairs.first[block]].astype(np.float64) - features[pairs.second[block]]
        found[block] = np.einsum("np,np->n", gap, gap)
    found = found / 2 if kind == "angle" else np.sqrt(found)
    mean = found.mean()
    if not np.isfinite(mean) or mean <= 0:
        raise ValueError(f"hierarchy: expected finite features that differ, found a mean distance of {mean}.")
    return found / mean


def relative_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """z-scores (n,) of the change of distances (n,) over their means; zeros where nothing but rounding moved."""
    change = after - before
    spread = change.std()
    return np.zeros(len(change)) if spread < _NOTHING else (change - change.mean()) / spread


def order(distance: np.ndarray, relation: np.ndarray) -> float:
    """Probability that a pair of a nearer relation is closer than one of a farther relation, ties half.

    distance, relation: (n,). The mean over every two relations that occur: 1 where the hierarchy is known wholly,
    0.5 where it plays no part.
    """
    groups = {kind: np.sort(distance[relation == kind]) for kind in np.unique(relation)}
    found = []
    for near, far in combinations(groups, 2):
        below = len(groups[far]) - np.searchsorted(groups[far], groups[near], side="right")
        ties = np.searchsorted(groups[far], groups[near], side="right") - np.searchsorted(
            groups[far], groups[near]
        )
        found.append((below + ties / 2).mean() / len(groups[far]))
    return float(np.mean(found))


def hierarchy(
    features: np.ndarray,
    levels: Levels,
    *,
    dataset: str,
    before: np.ndarray | None,
    distance: str,
    pairs: int,
    categories: int,
    seed: int,
    bootstrap: int,
) -> Result:
    """What the hierarchy says of the distances between images, and of how they changed from `before` (m, p').

    features: (m, p). before: None where the features are the original ones. distance: one of DISTANCES. pairs: how
    many are drawn at most. categories: basic ones, the commonest, in the matrix. Scores: hierarchy_order; with `before`
    a mean z-score hierarchy_<relation> for each relation that occurs. Intervals resample classes: a pair counts as
    often as both its classes were drawn, a pair within a class as often as the class; each draw brings both distances
    to their own mean and the change to its own spread. Tables: relations, and with `before` distribution (histogram of
    z) and matrix (mean z by basic categories).
    """
    drawn = draw_pairs(levels, pairs, seed)
    held = np.unique(drawn.relation)
    if len(held) < 2:
        raise ValueError(
            f"{dataset}: expected pairs of at least two of the relations {', '.join(RELATIONS)}, found "
            f"{', '.join(RELATIONS[kind] for kind in held) or 'none'}; {drawn.note or 'label the images otherwise'}."
        )
    note = _note(drawn, held)
    after = distances(features, drawn, distance)
    units = np.unique(_unit_names(levels), return_inverse=True)[1]
    classes = int(units.max()) + 1
    counts = object_counts(classes, draws=bootstrap, seed=seed)
    draws = _order_draws(after, drawn, units, counts, seed)
    scores = [
        Score("hierarchy_order", dataset, order(after, drawn.relation), *interval(draws), n=len(after), unit="pairs",
              over="classes", chance=0.5, note=note)
    ]  # fmt: skip
    table: dict[str, np.ndarray | list[str]] = {
        "relation": [RELATIONS[kind] for kind in held],
        "pairs": np.array([(drawn.relation == kind).sum() for kind in held]),
        "distance": np.array([after[drawn.relation == kind].mean() for kind in held]),
    }
    if before is None:
        return Result(scores, {"relations": table})
    was = distances(before, drawn, distance)
    z = relative_change(was, after)
    moved = _changes(z, (was, after), drawn, units, counts, dataset, note)
    table |= {
        "distance_before": np.array([was[drawn.relation == kind].mean() for kind in held]),
        "z": np.array([score.value for score in moved]),
        "low": np.array([score.low for score in moved]),
        "high": np.array([score.high for score in moved]),
    }
    tables: dict[str, Columns] = {"relations": table, "distribution": _histogram(z, drawn.relation, held)}
    return Result(scores + moved, tables | {"matrix": _matrix(z, drawn, levels, categories)})


def _changes(
    z: np.ndarray, both: tuple[np.ndarray, np.ndarray], drawn: Pairs, units: np.ndarray, counts: np.ndarray,
    dataset: str, note: str,
) -> list[Score]:  # fmt: skip
    """The mean z of each relation, with its interval over classes. both: distances before and after."""
    draws = _z_draws(*both, drawn, units, counts) if z.any() else {}
    moved = []
    for kind in np.unique(drawn.relation):
        chosen = drawn.relation == kind
        low, high = interval(draws[kind]) if draws else (0.0, 0.0)
        moved.append(
            Score(f"hierarchy_{RELATIONS[kind]}", dataset, float(z[chosen].mean()), low, high, n=int(chosen.sum()),
                  unit="pairs", over="classes", chance=0.0, note=note)
        )  # fmt: skip
    return moved


def _z_draws(
    before: np.ndarray, after: np.ndarray, drawn: Pairs, units: np.ndarray, counts: np.ndarray
) -> dict[int, np.ndarray]:
    """Draws (B,) of each relation's mean z, each with means and spread of its own.

    With fixed ones the intervals would hold what all relations have in common: a draw of classes that moved much.
    """
    columns = np.stack([np.ones(len(before)), before, after, before**2, before * after, after**2])
    sums = {}
    for kind in np.unique(drawn.relation):
        chosen = drawn.relation == kind
        first, second = units[drawn.first[chosen]], units[drawn.second[chosen]]
        sums[kind] = _pair_sums(columns[:, chosen], first, second, counts)
    total = np.sum(list(sums.values()), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        _, was, now, squares, product, others = total / total[0]
        variance = (
            squares / was**2 - 2 * product / (was * now) + others / now**2
        )  # of now / its mean - was / its mean
        spread = np.where(variance > _NOTHING**2, np.sqrt(np.maximum(variance, 0)), np.nan)
        found = {kind: (own[2] / now - own[1] / was) / (own[0] * spread) for kind, own in sums.items()}
    return {kind: draws[np.isfinite(draws)] for kind, draws in found.items()}


def _note(drawn: Pairs, held: np.ndarray) -> str:
    absent = [name for kind, name in enumerate(RELATIONS) if kind not in held]
    lacking = f"no pairs of the relation {', '.join(absent)}" if absent else ""
    return "; ".join(text for text in (lacking, drawn.note) if text)


def _unit_names(levels: Levels) -> np.ndarray:
    """What the interval resamples: classes, and each image without one on its own."""
    own = np.array([f"\0{row}" for row in range(len(levels))])
    return np.where(levels.subordinate == "", own, levels.subordinate.astype(object)).astype(str)


def _pair_sums(values: np.ndarray, first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums (k, B) of values (k, n) of pairs of classes first, second (n,), by counts of classes (B, C)."""
    from scipy.sparse import coo_array

    classes = counts.shape[1]
    weights = counts.T.astype(np.float64)  # (C, B)
    totals = []
    within = first == second
    for each in values:
        own = np.bincount(first[within], weights=each[within], minlength=classes)
        place = (first[~within], second[~within])
        between = coo_array((each[~within], place), shape=(classes, classes)).tocsr()
        totals.append(own @ weights + (weights * (between @ weights)).sum(0))
    return np.array(totals)


def _order_draws(
    distance: np.ndarray, drawn: Pairs, units: np.ndarray, counts: np.ndarray, seed: int
) -> np.ndarray:
    """Draws (B,) of `order`, from the ranks of at most _RANKED pairs of each relation, in _BINS bins."""
    generator = np.random.default_rng([seed, 1])
    rows = np.concatenate(
        [
            generator.permutation(np.flatnonzero(drawn.relation == kind))[:_RANKED]
            for kind in np.unique(drawn.relation)
        ]
    )
    cuts = np.quantile(distance[rows], np.linspace(0, 1, _BINS + 1)[1:-1])
    kinds, kind = np.unique(drawn.relation[rows], return_inverse=True)
    place = kind * _BINS + np.searchsorted(cuts, distance[rows])
    first, second = units[drawn.first[rows]], units[drawn.second[rows]]
    found = []
    for count in counts.astype(np.float64):
        weights = np.where(first == second, count[first], count[first] * count[second])
        held = np.bincount(place, weights=weights, minlength=len(kinds) * _BINS).reshape(len(kinds), _BINS)
        total = held.sum(1)
        if (total > 0).all():  # a draw without pairs of some relation has no order of it
            beyond = total[:, None] - np.cumsum(held, 1) + held / 2
            share = [
                held[near] @ beyond[far] / (total[near] * total[far])
                for near, far in combinations(range(len(kinds)), 2)
            ]
            found.append(np.mean(share))
    return np.array(found)


def _histogram(z: np.ndarray, relation: np.ndarray, held: np.ndarray) -> Columns:
    """The share of each relation's pairs in each bin of z."""
    bins = len(_EDGES) - 1
    place = np.clip(np.searchsorted(_EDGES, z, side="right") - 1, 0, bins - 1)
    share = [np.bincount(place[relation == kind], minlength=bins) / (relation == kind).sum() for kind in held]
    return {
        "relation": [RELATIONS[kind] for kind in held for _ in range(bins)],
        "left": np.tile(_EDGES[:-1], len(held)),
        "right": np.tile(_EDGES[1:], len(held)),
        "share": np.concatenate(share),
    }


def _matrix(z: np.ndarray, drawn: Pairs, levels: Levels, categories: int) -> Columns:
    """Mean z of pairs between the commonest basic categories, those of one superordinate category together."""
    group = _groups(levels)
    names, size = np.unique(levels.basic[np.isin(levels.basic, list(group))], return_counts=True)
    common = names[np.lexsort([names, -size])[:categories]].tolist()
    largest = {one: sum(group[name] == one for name in common) for one in group.values()}
    common.sort(key=lambda name: (-largest[group[name]], group[name], name))
    code = {name: index for index, name in enumerate(common)}
    of_image = np.array([code.get(name, -1) for name in levels.basic])
    a, b = of_image[drawn.first], of_image[drawn.second]
    both = (a >= 0) & (b >= 0)
    place = np.minimum(a[both], b[both]) * len(common) + np.maximum(a[both], b[both])
    pairs = np.bincount(place, minlength=len(common) ** 2)
    sums = np.bincount(place, weights=z[both], minlength=len(common) ** 2)
    held = np.flatnonzero(pairs)
    first, second = np.divmod(held, max(len(common), 1))
    return {
        "first": [common[row] for row in first],
        "second": [common[row] for row in second],
        "first_superordinate": [group[common[row]] for row in first],
        "second_superordinate": [group[common[row]] for row in second],
        "z": sums[held] / pairs[held],
        "pairs": pairs[held],
    }


def _groups(levels: Levels) -> Mapping[str, str]:
    """Superordinate category of each basic one: the commonest of its images, the first by name among equals."""
    known = (levels.basic != "") & (levels.superordinate != "")
    joined, counts = np.unique(
        np.stack([levels.basic[known], levels.superordinate[known]]), axis=1, return_counts=True
    )
    found: dict[str, str] = {}
    for index in np.argsort(-counts, kind="stable"):
        found.setdefault(str(joined[0, index]), str(joined[1, index]))
    return found
