"""Drawing triplets, and batches of images, that the teacher will answer.

Triplets come as int64 (n, 3) image rows. The two images of one cluster or class stand in columns 0 and
1 and the third in column 2: the odd one out by construction, until the teacher has answered.

No triplet comes twice, whatever its order. The draws are those of the stated distribution with
repeats left out, so the marginals are exact only while n is small against the number of possible
triplets: the triplets of small clusters run out first.

Everything follows from the seed alone, on any number of threads: block b of draws uses the generator (seed, b).

Shape suffixes: m images, n triplets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

_BLOCK = 1 << 16  # draws per generator
_LISTABLE = 10_000_000  # up to here all possible triplets are listed where most of them are wanted
_FEWEST = 0.02  # share of a round's draws that must be new, else drawing on is given up
# Blocks drawn before repeats are first searched, at most. Later rounds may double what there is: as each search goes
# through all of it, rounds of one size would cost n^2, and these together cost about two of the last.
_ROUND = 256
_ODD = np.uint64(
    0x9E3779B97F4A7C15
)  # 2^64 / golden ratio: multiplying by it spreads keys over the upper bits

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
        order = np.argsort(labels, kind="stable")
        ordered = labels[order]
        start = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        return cls(order, start, np.diff(start, append=len(labels)))


def cluster_boundary(assignment: np.ndarray, n: int, seed: int, threads: int = 1) -> np.ndarray:
    """n triplets across cluster boundaries: two images of one cluster and one of another.

    assignment: (m,) the cluster of each image. A draw: a cluster uniformly among those with at least
    two members, two of its images uniformly without replacement, another cluster uniformly among the
    others that have members, one of its images uniformly. Returns int64 (n, 3), the third image in
    column 2. threads: that draw. Raises ValueError where fewer than n such triplets exist.
    """
    return _boundary(_Groups.of(assignment, "cluster_boundary"), n, seed, "cluster_boundary", threads)


def class_boundary(labels: np.ndarray, n: int, seed: int, threads: int = 1) -> np.ndarray:
    """The same as `cluster_boundary` with class labels (m,), integers or strings, for clusters."""
    return _boundary(_Groups.of(labels, "class_boundary"), n, seed, "class_boundary", threads)


def random_triplets(
    m: int, n: int, seed: int, labels: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """n triplets uniformly among those of three different images, and of three classes given labels.

    labels: (m,) integers or strings; None where there are none, and then two or three images of a
    triplet may be of one class: the caller must say so. Without repeats the draw is exactly uniform.
    threads: that draw. Returns int64 (n, 3). Raises ValueError where fewer than n such triplets exist.
    """
    if labels is not None and len(labels) != m:
        raise ValueError(f"random: expected a label for each of {m} images, found {len(labels)}.")
    groups = _Groups.of(np.arange(m) if labels is None else labels, "random")
    possible = math.comb(m, 3) if labels is None else _elementary_symmetric_3(groups.size.tolist())
    kind = "images" if labels is None else f"images in {len(groups.size)} classes"
    _check_number(n, possible, "random", f"{m} {kind}")
    # Classes in a row: the middle one of three has `before` images on its left and `after` on its right.
    before = groups.start
    after = m - before - groups.size
    pick = _picker(np.cumsum(groups.size * before.astype(np.float64) * after))

    def draw(generator: np.random.Generator, size: int) -> np.ndarray:
        middle = pick(generator.random(size))
        if labels is None:  # each image is a class of its own
            rows = [generator.integers(0, middle), middle, m - 1 - generator.integers(0, m - 1 - middle)]
            return generator.permuted(np.stack(rows, 1), axis=1)
        left = generator.integers(0, before[middle])
        inside = before[middle] + generator.integers(0, groups.size[middle])
        right = m - 1 - generator.integers(0, after[middle])
        return generator.permuted(groups.order[np.stack([left, inside, right], 1)], axis=1)

    def listed() -> tuple[np.ndarray, np.ndarray]:
        triplets = np.random.default_rng([seed, 0, 2]).permuted(_all_random(groups), axis=1)
        return triplets, np.zeros(len(triplets))

    return _sample(draw, listed, n, possible, seed, "random", threads)


def _picker(weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What finds np.searchsorted(weight, u * weight[-1], side="right") for arrays of u within [0, 1).

    weight: cumulative. A table says where each of so many equal shares of the whole begins; from there it is a few
    entries, where bisection would miss the cache at nearly each of its halvings.
    """
    shares = 1 << (len(weight).bit_length() - 1)
    begins = np.searchsorted(weight, np.arange(shares) / shares * weight[-1], side="right")

    def pick(u: np.ndarray) -> np.ndarray:
        target = u * weight[-1]
        found = begins[(u * shares).astype(np.int64)]
        late = np.flatnonzero(weight[found] <= target)
        for _ in range(4):
            found[late] += 1
            late = late[weight[found[late]] <= target[late]]
        found[late] = np.searchsorted(weight, target[late], side="right")
        return found

    return pick


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


def _boundary(groups: _Groups, n: int, seed: int, what: str, threads: int) -> np.ndarray:
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

    return _sample(draw, lambda: _all_boundary(groups, pairs), n, possible, seed, what, threads)


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


def _sample(
    draw: Draw, listed: Listed, n: int, possible: int, seed: int, what: str, threads: int
) -> np.ndarray:
    """n different triplets: by drawing, or from the list of all where drawing would wait for the last.

    Both ways have one law, order included: the largest n of log probability + Gumbel noise are
    distributed as repeated draws whose repeats are left out.
    """
    triplets = np.empty((0, 3), dtype=np.int64)
    if possible > _LISTABLE or 4 * n <= possible:
        triplets = _distinct(draw, n, seed, threads)
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


def _distinct(draw: Draw, n: int, seed: int, threads: int) -> np.ndarray:
    """The first n different triplets of the stream of blocks; fewer where new ones have become rare."""
    kept, drawn, acceptance = np.empty((0, 3), dtype=np.int64), 0, 1.0
    while len(kept) < n and acceptance >= _FEWEST:
        rounds = min(int((n - len(kept)) / acceptance * 1.01) // _BLOCK + 1, max(_ROUND, drawn))
        new = np.empty((rounds * _BLOCK, 3), dtype=np.int64)

        def fill(block: int, new: np.ndarray = new, drawn: int = drawn) -> None:
            generator = np.random.default_rng([seed, drawn + block])
            new[block * _BLOCK : (block + 1) * _BLOCK] = draw(generator, _BLOCK)

        _on_threads(fill, range(rounds), threads)
        before, drawn = len(kept), drawn + rounds
        kept = np.concatenate([kept, new]) if before else new
        repeats = _repeats(kept, threads)
        kept = np.delete(kept, repeats, axis=0) if len(repeats) else kept
        acceptance = (len(kept) - before) / (rounds * _BLOCK)
    return kept[:n]


def _repeats(triplets: np.ndarray, threads: int) -> np.ndarray:
    """Rows, in no order, whose set of three images occurred in an earlier row.

    Hashes of 32 bits are sorted first: few of them coincide where few triplets do, and only those rows are compared.
    """
    hashes, shared = _hashes(triplets, threads), []

    def search(part: int) -> None:
        low, high = (part * 2**32 // threads, (part + 1) * 2**32 // threads - 1)
        values = np.sort(hashes[(hashes >= low) & (hashes <= high)] if threads > 1 else hashes)
        shared.append(values[1:][values[1:] == values[:-1]])

    _on_threads(search, range(threads), threads)
    repeated = np.concatenate(shared)
    if not len(repeated):
        return np.empty(0, dtype=np.int64)
    near = np.zeros(1 << 20, dtype=bool)  # by upper bits alone: a table that fits the cache
    near[repeated >> 12] = True
    suspects = np.flatnonzero(near[hashes >> 12])
    suspects = suspects[np.isin(hashes[suspects], repeated)]  # where many repeat, most upper bits are marked
    low, middle, high = np.sort(triplets[suspects], axis=1).T
    order = np.lexsort((high, middle, low))  # stable, so of equal sets the earliest comes first
    same = [column[order[1:]] == column[order[:-1]] for column in (low, middle, high)]
    return suspects[order[1:][same[0] & same[1] & same[2]]]


def _hashes(triplets: np.ndarray, threads: int) -> np.ndarray:
    """A uint32 for each triplet (n,), equal for the same three images in any order."""
    found = np.empty(len(triplets), dtype=np.uint32)

    def fill(start: int) -> None:
        first, second, third = triplets[start : start + _BLOCK].T
        least, most = np.minimum(first, second), np.maximum(first, second)
        low, high = np.minimum(least, third), np.maximum(most, third)
        middle = np.maximum(least, np.minimum(most, third))
        key = (low.astype(np.uint64) * _ODD + middle.astype(np.uint64)) * _ODD + high.astype(np.uint64)
        found[start : start + _BLOCK] = (key * _ODD) >> np.uint64(32)

    _on_threads(fill, range(0, len(triplets), _BLOCK), threads)
    return found


def _on_threads(run: Callable[[int], None], over: Iterable[int], threads: int) -> None:
    """Call `run` with each number: numpy leaves the interpreter to others while it computes."""
    if threads == 1:
        for number in over:
            run(number)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(run, over):
            pass


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
