"""Triplets on which a model changed its mind between two sets of features: towards people's answer, or away from it.

Which of them are shown is left to chance: a seeded draw among all of a kind. Shape suffixes: n triplets, m images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DIRECTIONS = ("towards", "against")
NO_ANSWER = -1  # two similarities are equal, so that no image is the odd one out


@dataclass(frozen=True)
class Changes:
    """What changed, and the triplets that were drawn to be shown.

    towards, against: how many of `n` triplets changed towards people's answer and away from it. drawn: direction ->
    rows of the triplets (k,), ascending; places: direction -> (k, 3) int, in what order the images of each are shown:
    place j shows column places[:, j].
    """

    n: int
    towards: int
    against: int
    before: np.ndarray  # (n,) column of the odd one before, or NO_ANSWER; people's is column 2
    after: np.ndarray
    drawn: dict[str, np.ndarray]
    places: dict[str, np.ndarray]


def changes(
    before: np.ndarray,
    after: np.ndarray,
    triplets: np.ndarray,
    *,
    count: int,
    seed: int,
    name: str = "examples",
) -> Changes:
    """Compare the odd ones out by dot product in features before (m, p) and after (m, p') with people's.

    triplets: (n, 3) rows of both, people's odd one last. count: at most so many are drawn of each direction, all of
    them equally likely. ValueError where the features are not of the same images or count is below 1.
    """
    from alignet.triplets import check_triplets

    if before.ndim != 2 or after.ndim != 2 or len(before) != len(after):
        raise ValueError(
            f"{name}: expected features of the same images before and after, found shapes {before.shape} and "
            f"{after.shape}"
        )
    if count < 1:
        raise ValueError(f"{name}: expected options.count of at least 1 example, found {count}")
    check_triplets(triplets, len(before), name)
    first, second = odd_ones(before, triplets, name), odd_ones(after, triplets, name)
    changed = {"towards": (first != 2) & (second == 2), "against": (first == 2) & (second != 2)}
    generator = np.random.default_rng(seed)
    drawn, places = {}, {}
    for direction in DIRECTIONS:
        rows = np.flatnonzero(changed[direction])
        drawn[direction] = np.sort(generator.choice(rows, size=min(count, len(rows)), replace=False))
        orders = [generator.permutation(3) for _ in drawn[direction]]
        places[direction] = np.array(orders, dtype=np.int64).reshape(-1, 3)
    return Changes(
        len(triplets),
        int(changed["towards"].sum()),
        int(changed["against"].sum()),
        first,
        second,
        drawn,
        places,
    )


def odd_ones(features: np.ndarray, triplets: np.ndarray, name: str = "features") -> np.ndarray:
    """The column (n,) int64 of the image outside of the most similar pair, NO_ANSWER at a tie for the largest."""
    import torch

    from alignet.triplets import similarities

    if not np.isfinite(features).all():
        raise ValueError(f"{name}: expected finite features, found NaN or infinity; embed the images again.")
    index = torch.from_numpy(np.ascontiguousarray(triplets, dtype=np.int64))
    sims = similarities(torch.from_numpy(np.asarray(features, dtype=np.float64)), index)  # [01, 02, 12]
    largest = sims.abs().amax(1, keepdim=True)  # rounding error breaks no tie, as in evaluate.odd_one_out
    sims = torch.round(sims / torch.where(largest == 0, 1.0, largest), decimals=10)
    top = sims.amax(1, keepdim=True)
    answer = torch.tensor([2, 1, 0])[sims.argmax(1)]
    answer[(sims == top).sum(1) > 1] = NO_ANSWER
    return answer.numpy()
