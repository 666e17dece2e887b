"""How triplets fall over the relations of the conceptual hierarchy (the paper's figures 3B, 3C).

Between drawn or answered triplets with the levels of their images (alignet.data.hierarchy) and the page. A triplet has
two relations: of its pair, columns 0 and 1, and of the odd one to the pair, which is the nearer of its two.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alignet.data.hierarchy import RELATIONS, UNKNOWN, Levels
from alignet.evaluate.bootstrap import Score, mean_draws, share_interval
from alignet.evaluate.result import Result


def triplet_relations(triplets: np.ndarray, levels: Levels) -> tuple[np.ndarray, np.ndarray]:
    """Relation of the pair and of the odd one to it, int8 (n,) each; UNKNOWN where any of the three cannot be told."""
    pair, left, right = (
        levels.relation(triplets[:, one], triplets[:, other]) for one, other in ((0, 1), (0, 2), (1, 2))
    )
    known = (pair != UNKNOWN) & (left != UNKNOWN) & (right != UNKNOWN)
    return np.where(known, pair, UNKNOWN), np.where(known, np.minimum(left, right), UNKNOWN)


def relations(
    samplings: Mapping[str, np.ndarray], levels: Levels, *, dataset: str, bootstrap: int, seed: int
) -> Result:
    """The share of each sampling's triplets (n, 3) in which the pair is more closely related than the odd one to it.

    Scores: relations_nearer_<sampling>, over triplets whose three relations are known. Table relations: the share of
    these by sampling, relation of the pair and relation of the odd one. ValueError where no relation is known.
    """
    scores, rows = [], []
    for sampling, triplets in samplings.items():
        pair, odd = triplet_relations(triplets, levels)
        known = pair != UNKNOWN
        if not known.any():
            raise ValueError(
                f"{dataset}: expected triplets of images with known categories, found none among {len(triplets):,} "
                f"({sampling}; {levels.unknown()}); give labels and a hierarchy that know the pool."
            )
        nearer = (pair < odd)[known].astype(np.float64)
        left_out = int((~known).sum())
        unknown = f"{left_out:,} of {len(triplets):,} triplets have an unknown relation" if left_out else ""
        note = "; ".join(text for text in (unknown, levels.note) if text)
        scores.append(
            Score(f"relations_nearer_{sampling}", dataset, float(nearer.mean()),
                  *share_interval(nearer, mean_draws(nearer, draws=bootstrap, seed=seed)), n=len(nearer),
                  unit="triplets", over="triplets", note=note)
        )  # fmt: skip
        counts = np.bincount(pair[known] * len(RELATIONS) + odd[known], minlength=len(RELATIONS) ** 2)
        rows += [
            (sampling, RELATIONS[code // len(RELATIONS)], RELATIONS[code % len(RELATIONS)], count)
            for code, count in enumerate(counts.tolist())
        ]
    names, pairs, odds, triplets_each = zip(*rows)
    triplets_of = {sampling: sum(row[3] for row in rows if row[0] == sampling) for sampling in samplings}
    share = np.array([count / triplets_of[name] for name, count in zip(names, triplets_each)])
    return Result(
        scores,
        {
            "relations": {
                "sampling": list(names),
                "pair": list(pairs),
                "odd_one": list(odds),
                "triplets": np.array(triplets_each),
                "share": share,
            }
        },
    )
