"""Similarities of triplets from a memory-mapped file of half-precision features, against a gather for each batch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from alignet.data.feature_blocks import float32_rows
from alignet.teacher.labelling import teacher_similarities
from benchmarks.frame import Case, Floor, Side
from benchmarks.units import stored_features, triplets_of

WIDTH = 1152  # features of SigLIP-So400m
POOL = 1_281_167  # images of ImageNet
BATCH = 4096  # triplets that the baselines gather at a time
PAIRS = ((0, 1), (0, 2), (1, 2))
Transform = Callable[[np.ndarray], np.ndarray]


def cases(quick: bool) -> Iterator[Case]:
    """A million triplets of 150,000 images x 1152 halves, raw and through an affine map; ten million of ImageNet."""
    m, n, less = (30_000, 100_000, 8_192) if quick else (150_000, 1_000_000, 65_536)
    with tempfile.TemporaryDirectory() as folder:
        features = stored_features(Path(folder), m, WIDTH)
        triplets = triplets_of(m, n)
        yield from _raw(features, triplets, less, quick)
        yield _through_a_map(features, triplets, less // 8)
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            features = stored_features(Path(folder), POOL, WIDTH)
            yield next(_raw(features, triplets_of(POOL, 10_000_000), less, quick=True))


def _raw(features: np.ndarray, triplets: np.ndarray, less: int, quick: bool) -> Iterator[Case]:
    last: dict[str, np.ndarray] = {}

    def ours() -> None:
        last["ours"] = teacher_similarities(features, triplets)

    def by_numpy() -> None:
        found = []
        for start in range(0, less, BATCH):
            rows = features[triplets[start : start + BATCH]].astype(np.float32)
            found.append(np.stack([(rows[:, i] * rows[:, j]).sum(1) for i, j in PAIRS], 1))
        last["baseline"] = np.concatenate(found)

    def by_torch() -> None:
        found = []
        for start in range(0, less, BATCH):
            rows = torch.from_numpy(features[triplets[start : start + BATCH]]).float()
            found.append(torch.stack([(rows[:, i] * rows[:, j]).sum(1) for i, j in PAIRS], 1))
        last["baseline"] = torch.cat(found).numpy()

    def same() -> dict[str, float]:
        return _agree(last["ours"], last["baseline"], features, triplets)

    def curve() -> dict[str, float]:
        numbers = (10**4, 10**5) if quick else (10**4, 10**5, 10**6, 10**7)
        return same() | {f"seconds for {n:,} triplets": _seconds(features, triplets, n) for n in numbers}

    name = f"{len(triplets):,} triplets, {len(features):,} x {WIDTH} halves in a cached file"
    floor = Floor(
        bytes=3 * WIDTH * 2, text="three rows of halves read; a quarter of memcpy speed is four times that"
    )
    note, threads = f"the baseline answers {less:,}, {BATCH} at a time", torch.get_num_threads()
    yield Case(
        name, "triplet", Side("alignet", ours, len(triplets)), Side("gather, astype, products, numpy", by_numpy, less),
        4, floor, check=curve, note=f"{note}, in one thread, as numpy does; ours has {threads}",
    )  # fmt: skip
    yield Case(
        f"{name}, torch's gather", "triplet", Side("alignet", ours, len(triplets)),
        Side("gather, float(), products, torch", by_torch, less), 1, floor, check=same,
        note=f"{note}, with {threads} threads as ours; no goal was set: "
        "numpy widens halves one by one, which torch does not",
    )  # fmt: skip


def _through_a_map(features: np.ndarray, triplets: np.ndarray, less: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    weight = torch.eye(WIDTH) + 0.01 * torch.randn(WIDTH, WIDTH, generator=generator)
    last: dict[str, np.ndarray] = {}

    def transform(rows: np.ndarray) -> np.ndarray:
        return (torch.from_numpy(rows) @ weight.T).numpy()

    def ours() -> None:
        last["ours"] = teacher_similarities(features, triplets, transform=transform)

    def plain() -> None:
        found = []
        for start in range(0, less, BATCH):
            rows = features[triplets[start : start + BATCH]].astype(np.float32)
            mapped = transform(rows.reshape(-1, WIDTH)).reshape(rows.shape)
            found.append(np.stack([(mapped[:, i] * mapped[:, j]).sum(1) for i, j in PAIRS], 1))
        last["baseline"] = np.concatenate(found)

    m, n = len(features), len(triplets)
    moved = m * WIDTH * (2 + 4) + n * 3 * WIDTH * 4
    floor = Floor(
        moved / n, 2 * m * WIDTH**2 / n, text="every row mapped once, three mapped rows of a triplet read"
    )
    return Case(
        f"{n:,} triplets through an affine map, {m:,} x {WIDTH} halves", "triplet", Side("alignet", ours, n),
        Side("gather, map, products, numpy", plain, less), 4, floor, rounds=3,
        check=lambda: _agree(last["ours"], last["baseline"], features, triplets, transform),
        note=f"the baseline answers {less:,} and maps a row wherever it occurs; ours maps each of {m:,} once. "
        f"The gather and the products have one thread, as numpy's do; the map and ours have {torch.get_num_threads()}",
    )  # fmt: skip


def _agree(
    ours: np.ndarray,
    theirs: np.ndarray,
    features: np.ndarray,
    triplets: np.ndarray,
    transform: Transform | None = None,
) -> dict[str, float]:
    """Both against float64, in parts of the similarities' spread."""
    few = triplets[:2000]
    rows = float32_rows(features[few.ravel()], transform).astype(np.float64).reshape(len(few), 3, -1)
    exact = np.stack([(rows[:, i] * rows[:, j]).sum(1) for i, j in PAIRS], 1)
    errors = {
        "largest error of ours, in standard deviations": float(
            np.abs(ours[: len(few)] - exact).max() / exact.std()
        ),
        "of the baseline": float(np.abs(theirs[: len(few)] - exact).max() / exact.std()),
    }
    assert errors["largest error of ours, in standard deviations"] < 1e-5
    assert np.abs(ours[: len(theirs)] - theirs).max() < 1e-5 * exact.std()
    return errors


def _seconds(features: np.ndarray, triplets: np.ndarray, n: int) -> float:
    wanted = np.tile(triplets, (-(-n // len(triplets)), 1))[:n]
    began = time.perf_counter()
    teacher_similarities(features, wanted)
    return time.perf_counter() - began
