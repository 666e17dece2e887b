"""Drawing triplets, and batches of images, that the teacher will answer.

Triplets come as int64 (n, 3) image rows. The two images of one cluster or class stand in columns 0 and
1 and the third in column 2: the odd one out by construction, until the teacher has answered.

No triplet comes twice, whatever its order. The draws are those of the stated distribution with
repeats left out, so the marginals are exact only while n is small against the number of possible
triplets: the triplets of small clusters run out first.

Everything follows from the seed alone: block b of draws uses the generator (seed, b).

Shape suffixes: m images, n triplets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np

_BLOCK = 1 << 16  # draws per generator
_LISTABLE = 10_000_000  # up to here all possible triplets are listed where most of them are wanted
_FEWEST = 0.02  # share of a round's draws that must be new, else drawing on is given up
_ROUND = 256  # blocks drawn between two searches for repeats, at most

Draw = Callable[[np.random.Generator, int], np.ndarray]  # (generator, size) -> (size, 3) rows
Listed = Callable[
    [], tuple[np.ndarray, np.ndarray]
]  # every possible triplet, and log probability + c of each


@dataclass(frozen=True)
class _Groups:
    """Images sorted by their cluster or class; group g holds order[start[g] : start[g] + size[g]]."""

    order: np.ndarray  # int64 (m,)
    start: np.ndarray  # int64 (groups,)
    size: np.ndarray  # int64 (groups,), all at least 1

    @classmethod
    def of(cls, labels: np.ndarray, what: str) -> _Groups:
        labels = np.asarray(labels)
        if labels.ndim != 1 or len(labels) == 0:
            raise ValueError(f"{what}: expected one label per image, found shape {labels.shape}.")
        _, group, size = np.unique(labels, return_inverse=True, return_counts=True)
        start = np.concatenate([[0], np.cumsum(size)[:-1]])
        return cls(np.argsort(group, kind="stable"), start, size)


def cluster_boundary(assignment: np.ndarray, n: int, seed: int) -> np.ndarray:
    """n triplets across cluster boundaries: two images of one cluster and one of another.

    assignment: (m,) the cluster of each image. A draw: a cluster uniformly among those with at least
    two members, two of its images uniformly without replacement, another cluster uniformly among the
    others that have members, one of its images uniformly. Returns int64 (n, 3), the third image in
    column 2. Raises ValueError where fewer than n such triplets exist.
    """
    return _boundary(_Groups.of(assignment, "cluster_boundary"), n, seed, "cluster_boundary")


def class_boundary(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The same as `cluster_boundary` with class labels (m,), integers or strings, for clusters."""
    return _boundary(_Groups.of(labels, "class_boundary"), n, seed, "class_boundary")


def random_triplets(m: int, n: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    """n triplets uniformly among those of three different images, and of three classes given labels.

    labels: (m,) integers or strings; None where there are none, and then two or three images of a
    triplet may be of one class: the caller must say so. Without repeats the draw is exactly uniform.
    Returns int64 (n, 3). Raises ValueError where fewer than n such triplets exist.
    """
    if labels is not None and len(labels) != m:
        raise ValueError(f"random: expected a label for each of {m} images, found {len(labels)}.")
    groups = _Groups.of(np.arange(m) if labels is None else labels, "random")
    possible = _elementary_symmetric_3([int(members) for members in groups.size])
    kind = "images" if labels is None else f"images in {len(groups.size)} classes"
    _check_number(n, possible, "random", f"{m} {kind}")
    # Classes in a row: the middle one of three has `before` images on its left and `after` on its right.
    before = groups.start
    after = m - before - groups.size
    weight = np.cumsum(groups.size * before.astype(np.float64) * after)

    def draw(generator: np.random.Generator, size: int) -> np.ndarray:
        middle = np.searchsorted(weight, generator.random(size) * weight[-1], side="right")
        left = generator.integers(0, before[middle])
        inside = before[middle] + generator.integers(0, groups.size[middle])
        right = m - 1 - generator.integers(0, after[middle])
        return generator.permuted(groups.order[np.stack([left, inside, right], 1)], axis=1)

    def listed() -> tuple[np.ndarray, np.ndarray]:
        triplets = np.random.default_rng([seed, 0, 2]).permuted(_all_random(groups), axis=1)
        return triplets, np.zeros(len(triplets))

    return _sample(draw, listed, n, possible, seed, "random")


def _all_random(groups: _Groups) -> np.ndarray:
    """Every set of three images of three groups, (possible, 3)."""
    m, listed = len(groups.order), []
    for start, size in zip(groups.start, groups.size):
        left, inside, right = np.arange(start), np.arange(start, start + size), np.arange(start + size, m)
        grid = np.meshgrid(left, inside, right, indexing="ij")
        listed.append(np.stack([axis.ravel() for axis in grid], 1))
    return groups.order[np.concatenate(listed)]


class InBatch:
    """The images of each training step, all of whose triplets are then answered.

    clusters = 0: an epoch is a permutation of the m images, cut into m // batch steps; its last
    m % batch images sit out that epoch. Otherwise `clusters` different clusters are drawn uniformly
    among those with at least batch / clusters members, then that many images of each without
    replacement, cluster after cluster. A step's images follow from (seed, step) alone.
    Raises ValueError for a batch outside 3..m, one the clusters do not divide, or too few large clusters.
    """

    def __init__(
        self, m: int, *, batch: int, seed: int, assignment: np.ndarray | None = None, clusters: int = 0
    ):
        """assignment: (m,) the cluster of each image, needed where clusters > 0."""
        if not 3 <= batch <= m:
            raise ValueError(f"in_batch: expected a batch of 3..{m} (the images), found {batch}; change it.")
        self.m, self.batch, self.seed, self.clusters = m, batch, seed, clusters
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)  # the last permutation, to save time
        if clusters:
            self._groups, self._large = self._large_clusters(assignment)

    def _large_clusters(self, assignment: np.ndarray | None) -> tuple[_Groups, np.ndarray]:
        if assignment is None or len(assignment) != self.m:
            found = "none" if assignment is None else f"{len(assignment)}"
            raise ValueError(f"in_batch: expected a cluster for each of {self.m} images, found {found}.")
        if self.clusters < 0 or self.batch % self.clusters:
            expected = f"expected a batch that {self.clusters} clusters divide"
            raise ValueError(f"in_batch: {expected}, found {self.batch}; change either.")
        each = self.batch // self.clusters
        groups = _Groups.of(assignment, "in_batch")
        large = np.flatnonzero(groups.size >= each)
        if len(large) < self.clusters:
            raise ValueError(
                f"in_batch: expected at least {self.clusters} clusters of {each} or more images, "
                f"found {len(large)}; take fewer clusters or a smaller batch."
            )
        return groups, large

    def rows(self, step: int) -> np.ndarray:
        """The images of step 0, 1, 2, ...: int64 (batch,) different rows."""
        if self.clusters:
            return self._by_clusters(step)
        epoch, part = divmod(step, self.m // self.batch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(self.m)
        return self._order[part * self.batch : (part + 1) * self.batch].copy()

    def _by_clusters(self, step: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, 1, step])
        groups, each = self._groups, self.batch // self.clusters
        chosen = generator.choice(self._large, size=self.clusters, replace=False)
        members = [
            groups.start[g] + generator.choice(groups.size[g], size=each, replace=False) for g in chosen
        ]
        return groups.order[np.concatenate(members)]


def _boundary(groups: _Groups, n: int, seed: int, what: str) -> np.ndarray:
    m, size = len(groups.order), groups.size
    pairs = np.flatnonzero(size >= 2)  # groups that can give the two similar images
    possible = sum(int(c) * (int(c) - 1) // 2 * (m - int(c)) for c in size)
    _check_number(n, possible, what, f"{m} images in {len(size)} groups, {len(pairs)} of two or more")

    def draw(generator: np.random.Generator, number: int) -> np.ndarray:
        near = pairs[generator.integers(0, len(pairs), size=number)]
        first = generator.integers(0, size[near])
        second = generator.integers(0, size[near] - 1)
        second += second >= first  # skips the first, so any other member is equally likely
        far = generator.integers(0, len(size) - 1, size=number)
        far += far >= near
        third = generator.integers(0, size[far])
        start = groups.start
        return groups.order[np.stack([start[near] + first, start[near] + second, start[far] + third], 1)]

    return _sample(draw, lambda: _all_boundary(groups, pairs), n, possible, seed, what)


def _all_boundary(groups: _Groups, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every possible triplet, with the log of its probability in one draw up to a constant."""
    triplets, logs = [], []
    for near in pairs:
        members = groups.order[groups.start[near] : groups.start[near] + groups.size[near]]
        i, j = np.triu_indices(len(members), 1)
        inside = np.zeros(len(groups.order), dtype=bool)
        inside[groups.start[near] : groups.start[near] + groups.size[near]] = True
        others = groups.order[~inside]
        log_far = -np.log(np.repeat(groups.size, groups.size)[~inside])
        pair = np.stack([members[i], members[j]], 1)
        triplets.append(
            np.concatenate([np.repeat(pair, len(others), 0), np.tile(others, len(pair))[:, None]], 1)
        )
        logs.append(np.tile(log_far, len(pair)) - np.log(len(pair)))
    return np.concatenate(triplets), np.concatenate(logs)


def _sample(draw: Draw, listed: Listed, n: int, possible: int, seed: int, what: str) -> np.ndarray:
    """n different triplets: by drawing, or from the list of all where drawing would wait for the last.

    Both ways have one law, order included: the largest n of log probability + Gumbel noise are
    distributed as repeated draws whose repeats are left out.
    """
    triplets = np.empty((0, 3), dtype=np.int64)
    if possible > _LISTABLE or 4 * n <= possible:
        triplets = _distinct(draw, n, seed)
    if len(triplets) < n and possible <= _LISTABLE:
        triplets, logs = listed()
        noise = np.random.default_rng([seed, 0, 1]).gumbel(size=len(triplets))
        triplets = triplets[np.argsort(-(logs + noise), kind="stable")[:n]]
    if len(triplets) < n:
        raise ValueError(
            f"{what}: expected {n:,} different triplets, found {len(triplets):,} before fewer than "
            f"{_FEWEST:.0%} of the draws were new (the rest are of rarely drawn groups); ask for fewer."
        )
    return triplets


def _distinct(draw: Draw, n: int, seed: int) -> np.ndarray:
    """The first n different triplets of the stream of blocks; fewer where new ones have become rare."""
    kept = np.empty((0, 3), dtype=np.int64)
    blocks = count()
    acceptance = 1.0
    while len(kept) < n and acceptance >= _FEWEST:
        rounds = min(int((n - len(kept)) / acceptance * 1.01) // _BLOCK + 1, _ROUND)
        new = [draw(np.random.default_rng([seed, next(blocks)]), _BLOCK) for _ in range(rounds)]
        before = len(kept)
        kept = np.concatenate([kept, *new])
        kept = kept[_first_of_each(kept)]
        acceptance = (len(kept) - before) / (rounds * _BLOCK)
    return kept[:n]


def _first_of_each(triplets: np.ndarray) -> np.ndarray:
    """Mask (n,) of the rows whose set of three images did not occur in an earlier row."""
    low, middle, high = np.sort(triplets, axis=1).T
    pair = low * (int(triplets.max(initial=0)) + 1) + middle  # fits int64 for up to 3e9 images
    order = np.lexsort((high, pair))  # stable, so of equal sets the earliest comes first
    pair, high = pair[order], high[order]
    first = np.ones(len(triplets), dtype=bool)
    first[order[1:]] = (pair[1:] != pair[:-1]) | (high[1:] != high[:-1])
    return first


def _check_number(n: int, possible: int, what: str, of: str) -> None:
    if n < 1:
        raise ValueError(f"{what}: expected at least one triplet to draw, found {n}; raise the number.")
    if n > possible:
        raise ValueError(
            f"{what}: expected at most {possible:,} triplets, all that exist for {of}, "
            f"found a request for {n:,}; lower the number."
        )


def _elementary_symmetric_3(sizes: list[int]) -> int:
    """Sum of products of three different entries: the ways to pick one image of each of three classes."""
    one = two = three = 0
    for members in sizes:
        one, two, three = one + members, two + members * one, three + members * two
    return three
