"""The drawing of distinct triplets of images against python's `random`."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from alignet.pipeline.torch_setup import keep_freed_memory
from alignet.teacher.sampling import cluster_boundary, random_triplets
from benchmarks.frame import Case, Floor, Side

THREADS = 2


def cases(quick: bool) -> Iterator[Case]:
    """Ten million triplets over 1.28 million images, with the memory settings that every stage has."""
    keep_freed_memory()
    yield from _sampling(*((128_000, 500_000, 20_000) if quick else (1_280_000, 10_000_000, 200_000)))


def _sampling(m: int, n: int, less: int) -> Iterator[Case]:
    assignment = np.random.default_rng(0).integers(0, 500, m)
    members = [np.flatnonzero(assignment == cluster).tolist() for cluster in range(500)]
    last: dict = {}

    def plain() -> None:
        source, seen = random.Random(0), set()
        while len(seen) < less:
            seen.add(tuple(sorted(source.sample(range(m), 3))))
        last["plain"] = seen

    def plain_across() -> None:
        source, seen = random.Random(0), set()
        while len(seen) < less:
            near, far = source.sample(members, 2)
            seen.add(tuple(sorted([*source.sample(near, 2), source.choice(far)])))
        last["plain"] = seen

    def distinct(triplets: np.ndarray, across: bool) -> dict[str, float]:
        assert triplets.shape == (n, 3)
        low, middle, high = np.sort(triplets, axis=1).T
        assert low.min() >= 0
        assert high.max() < m
        assert (low < middle).all()
        assert (middle < high).all()
        sets = (low * m + middle) * m + high  # below 2^63 up to two million images
        assert len(np.unique(sets)) == n
        near, also, far = assignment[triplets].T
        assert not across or ((near == also) & (near != far)).all()
        assert len(last["plain"]) == less
        theirs = np.array(list(last["plain"]))
        # both uniform over images: the mean row is (m - 1) / 2, its standard error m / sqrt(36 less)
        for mean in (triplets[:less].mean(), theirs.mean()):
            assert abs(mean - (m - 1) / 2) < 5 * m / (36 * less) ** 0.5
        return {}

    floor = Floor(bytes=24, text="three int64 written")
    for name, across, baseline, run in (
        (
            "uniform", False, Side("random.sample and a set", plain, less),
            lambda: random_triplets(m, n, 0, threads=THREADS),
        ),
        (
            "across 500 clusters", True, Side("random.sample, random.choice and a set", plain_across, less),
            lambda: cluster_boundary(assignment, n, 0, THREADS),
        ),
    ):  # fmt: skip

        def ours(run=run) -> None:
            last["ours"] = run()

        yield Case(
            f"{n:,} distinct triplets of {m:,} images, {name}", "triplet", Side("alignet", ours, n), baseline, 30,
            floor, check=lambda across=across: distinct(last["ours"], across),
            note=f"the baseline draws {less:,}, in one thread, as Python does; ours has {THREADS}",
        )  # fmt: skip
