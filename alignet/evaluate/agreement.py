"""How far a student answers as its teacher does, for those who have no human choices to ask.

Shape suffixes: n triplets, m images, p features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.odd_one_out import odd_one_out


def asked(
    teacher: np.ndarray, have: Sequence[str], ids: Sequence[str], mapping: Path, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The mapped teacher's similarities (n, 3) of random triplets of `ids`, and the triplets (n, 3), its odd one last.

    teacher: raw features (len(have), p). mapping: npz with W and b. count: n, or all triplets where there are fewer.
    """
    import torch

    from alignet.data.features import rows_for
    from alignet.teacher.affine_map import AffineMap
    from alignet.teacher.labelling import label
    from alignet.teacher.sampling import random_triplets

    known = AffineMap.load_npz(mapping)
    possible = len(ids) * (len(ids) - 1) * (len(ids) - 2) // 6
    drawn = random_triplets(len(ids), min(count, possible), seed)
    used, inverse = np.unique(drawn, return_inverse=True)  # of many images few are asked about
    rows = teacher[rows_for(ids, have, "the teacher's features")[used]].astype(np.float32)
    few = inverse.reshape(drawn.shape)
    triplets, sims = label(rows, few, transform=lambda x: known.apply(torch.from_numpy(x)).numpy())
    return sims, used[triplets]


def answered(folder: Path, ids: Sequence[str], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Similarities and triplets (n, 3) of a `triplets` artifact, as rows of `ids`; a sample of `count` of them."""
    from alignet.data.features import rows_for

    triplets = np.load(folder / "triplets.npy", allow_pickle=False)
    sims = np.load(folder / "similarities.npy", allow_pickle=False)
    if len(triplets) > count:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(triplets))[:count])
        triplets, sims = triplets[chosen], sims[chosen]
    names = (folder / "ids.txt").read_text(encoding="utf-8").splitlines()
    used, inverse = np.unique(triplets, return_inverse=True)
    rows = rows_for([names[row] for row in used], ids, "the evaluated features")
    return sims, rows[inverse.reshape(triplets.shape)]


def agreement(
    features: np.ndarray,
    triplets: np.ndarray,
    sims: np.ndarray,
    *,
    dataset: str,
    bootstrap: int,
    seed: int,
    note: str = "",
) -> list[Score]:
    """Two scores: how often the student's odd one out is the teacher's, and Spearman's rho of their similarities.

    features: (m, p), the student's. triplets: (n, 3) rows of it, the teacher's odd one last; sims: (n, 3), the
    teacher's [s01, s02, s12]. Chance is 1/3; a tie of the student counts as no agreement. The interval resamples
    images. rho is over the 3 n pairs, with no interval, and left out where the student's similarities are all equal.
    """
    from scipy.stats import spearmanr

    used, inverse = np.unique(triplets, return_inverse=True)
    features, triplets = features[used], inverse.reshape(triplets.shape)
    x = features.astype(np.float64)
    pairs = ((0, 1), (0, 2), (1, 2))
    own = np.stack([(x[triplets[:, a]] * x[triplets[:, b]]).sum(1) for a, b in pairs], 1)
    told = np.asarray(sims, np.float64)
    constant = np.ptp(own) == 0 or np.ptp(told) == 0
    if constant:
        note = "; ".join(
            text for text in (note, "all similarities are equal: they correlate with nothing") if text
        )
    first = odd_one_out(
        features,
        triplets,
        dataset=dataset,
        tau="spread",
        seed=seed,
        bootstrap=bootstrap,
        over="images",
        note=note,
    )[0]
    share = replace(first, metric="agreement")
    if constant:
        return [share]
    rho = float(spearmanr(own.ravel(), told.ravel()).statistic)
    return [
        share,
        Score("agreement_rho", dataset, rho, None, None, 3 * len(triplets), "pairs", "", note=note),
    ]
