"""Identically represented inputs (IRIs): do people, or a perceptual distance, take for alike what a network does?

distances of each IRI to its target, its seed and all targets -> two-alternative forced choice, clustering; answers of
people -> the same, and how often they and a distance choose alike. After Nanda et al., "Do invariances in deep neural
networks align with human perception?" (AAAI 2023).

Shape suffixes: n targets, k IRIs of each (draws of the seed), t triples of targets, a answers, B draws of a bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignet.evaluate.bootstrap import Score, clopper_pearson, interval


@dataclass(frozen=True)
class Distances:
    """One perceptual distance between IRIs and what they are compared with.

    to_target, to_seed: (n, k). to_targets: (n, k, n), to each of the targets. optimised: whether the IRIs were made to
    be far from their targets by this very distance.
    """

    to_target: np.ndarray
    to_seed: np.ndarray
    to_targets: np.ndarray
    optimised: bool = False


def checked_distances(
    to_target: np.ndarray, to_seed: np.ndarray, to_targets: np.ndarray, optimised: bool, name: str
) -> Distances:
    """The same as float64, once their shapes fit, all are finite and at least 0, and (n, k, n) holds (n, k).

    name: of the file, for messages. ValueError otherwise.
    """
    first, seed, every = (np.asarray(one, dtype=np.float64) for one in (to_target, to_seed, to_targets))
    if first.ndim != 2 or seed.shape != first.shape or every.shape != (*first.shape, len(first)):
        raise ValueError(
            f"{name}: expected distances (n, k), (n, k) and (n, k, n), found {first.shape}, {seed.shape} and "
            f"{every.shape}; compute them again."
        )
    for what, one in (("to_target", first), ("to_seed", seed), ("to_targets", every)):
        bad = int((~np.isfinite(one) | (one < 0)).sum())
        if bad:
            raise ValueError(
                f"{name}: expected finite distances of at least 0, found {bad:,} others of {one.size:,} in {what}; "
                "look at the inverted images and at the network of this distance."
            )
    other = int((~np.isclose(own_target(every), first, rtol=1e-4, atol=1e-6)).sum())
    if other:
        raise ValueError(
            f"{name}: expected the same distance to an IRI's own target in to_target and to_targets, found others in "
            f"{other:,} of {first.size:,}; compute them again."
        )
    return Distances(first, seed, every, bool(optimised))


def own_target(to_targets: np.ndarray) -> np.ndarray:
    """Distances (n, k) of IRIs to their own targets out of those to all, (n, k, n)."""
    rows = np.arange(len(to_targets))
    return to_targets[rows, :, rows]


def nearer_target(distances: Distances) -> np.ndarray:
    """Two-alternative forced choice: whether an IRI is nearer to its target than to its seed, strictly: (n, k) bool.

    The published code counts equal distances as right (<=); an IRI that is as far from both is wrong here.
    """
    return distances.to_target < distances.to_seed


def random_matches(distances: Distances) -> np.ndarray:
    """Clustering, over all triples of targets: the share (n, k) of triples in which an IRI is matched to its own.

    A triple is an IRI's own target and two others; the IRI goes to the nearest of the three, and a tie of j counts
    1/j. That is the mean that random triples estimate, without their noise. ValueError below 3 targets.
    """
    n, _ = distances.to_target.shape
    if n < 3:
        raise ValueError(f"clustering: expected at least 3 targets, found {n}; invert more images.")
    own = own_target(distances.to_targets)[:, :, None]
    others = ~np.eye(n, dtype=bool)[:, None, :]
    farther = ((distances.to_targets > own) & others).sum(2).astype(np.float64)
    tied = ((distances.to_targets == own) & others).sum(2).astype(np.float64)
    won = farther * (farther - 1) / 2 + farther * tied / 2 + tied * (tied - 1) / 2 / 3
    return won / ((n - 1) * (n - 2) / 2)


def triple_matches(distances: Distances, triples: np.ndarray) -> np.ndarray:
    """Clustering of given triples: what each of their IRIs counts, (t, 3, k).

    triples: (t, 3) int, three targets, whose IRIs are matched to the nearest of the three; 1 for its own, 1/j where j
    are equally near and its own is among them, else 0.
    """
    rows = distances.to_targets[
        triples[:, :, None], :, triples[:, None, :]
    ]  # (t, 3, 3, k): own, column, draw
    near = rows == rows.min(2, keepdims=True)
    own = near[:, np.arange(3), np.arange(3)]  # (t, 3, k)
    return own / near.sum(2)


def kept_triples(triples: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Triples of images as triples of targets. rows: (m,) the target of each image; -1 leaves its triples out."""
    found = rows[triples]
    return found[(found >= 0).all(1)]


# ---- scores


def image_share(
    values: np.ndarray, metric: str, dataset: str, *, draws: int, seed: int, chance: float | None = None,
    kept: np.ndarray | None = None, note: str = "",
) -> Score | None:  # fmt: skip
    """The mean over IRIs of what each counts in [0, 1], with its interval over images.

    values: (n, k). kept: (n, k) bool, the IRIs that count, or all. None where none does. n of the score is the number
    of images; all IRIs of an image come and go together.
    """
    held = np.ones(values.shape, dtype=bool) if kept is None else kept
    weights = held.sum(1).astype(np.float64)
    return _ratio(
        np.where(held, values, 0).sum(1), weights, metric, dataset, draws, seed, chance, int((weights > 0).sum()),
        "images", note,
    )  # fmt: skip


def answer_share(
    values: np.ndarray, images: np.ndarray, metric: str, dataset: str, *, draws: int, seed: int,
    chance: float | None = None, note: str = "",
) -> Score | None:  # fmt: skip
    """The mean over answers (a,) of what each counts in [0, 1], with its interval over images. images: (a,) int."""
    sums, weights = _by_image(values, images)
    return _ratio(sums, weights, metric, dataset, draws, seed, chance, len(values), "answers", note)


def triple_share(
    values: np.ndarray, triples: np.ndarray, metric: str, dataset: str, *, draws: int, seed: int,
    chance: float | None = None, note: str = "",
) -> Score | None:  # fmt: skip
    """The mean over the IRIs of given triples of what each counts, (t, 3, k) in [0, 1], with its interval over images.

    triples: (t, 3) int. An image that many triples show is one image: what its IRIs count in all of them comes and goes
    together, and so does n, the number of images.
    """
    images = np.repeat(triples.reshape(-1), values.shape[2])
    sums, weights = _by_image(values.reshape(-1), images)
    return _ratio(sums, weights, metric, dataset, draws, seed, chance, len(sums), "images", note)


def _by_image(values: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values (a,) and their numbers, float64, of each image that is there."""
    _, place = np.unique(images, return_inverse=True)
    return np.bincount(place, weights=values), np.bincount(place).astype(np.float64)


def _ratio(
    sums: np.ndarray, weights: np.ndarray, metric: str, dataset: str, draws: int, seed: int, chance: float | None,
    n: int, unit: str, note: str,
) -> Score | None:  # fmt: skip
    """sum of sums / sum of weights, both (images,); resamples images with a weight."""
    sums, weights = sums[weights > 0], weights[weights > 0]
    if not len(sums):
        return None
    value = float(sums.sum() / weights.sum())
    generator = np.random.default_rng(seed)
    chosen = (generator.integers(len(sums), size=len(sums)) for _ in range(draws))
    low, high = interval(np.array([sums[rows].sum() / weights[rows].sum() for rows in chosen]))
    if low == high:  # no resampling can vary
        low, high = clopper_pearson(round(value * len(sums)), len(sums))
    return Score(metric, dataset, value, low, high, n, unit, "images", chance, note=note)


def median_score(
    values: np.ndarray, metric: str, dataset: str, *, draws: int, seed: int, note: str = ""
) -> Score:
    """The median over all IRIs (n, k), with its interval over images; none for a single image."""
    n, generator = len(values), np.random.default_rng(seed)
    low: float | None = None
    high: float | None = None
    if n > 1:
        found = [np.median(values[generator.integers(n, size=n)]) for _ in range(draws)]
        low, high = interval(np.array(found))
    return Score(
        metric,
        dataset,
        float(np.median(values)),
        low,
        high,
        n,
        "images",
        "images" if n > 1 else "",
        note=note,
    )


def choice_among(distances: Distances, image: int, draw: int, options: np.ndarray, chosen: int) -> float:
    """How far a distance chooses as somebody did: 1/j where `chosen` is among the j nearest of the options, else 0.

    image, chosen: rows of targets. options: (o,) rows of the targets that were shown.
    """
    row = distances.to_targets[image, draw, options]
    near = options[row == row.min()]
    return float(chosen in near) / len(near)
