"""Two-alternative choices: which of two pictures is more like a reference, for people and in features (NIGHTS).

Shape suffixes: n items, m images, p features.
"""

from __future__ import annotations

import numpy as np

from alignet.evaluate.bootstrap import Score, mean_draws, share_interval

CHANCE = 0.5
_DECIMALS = 10  # two similarities this close, relative to the larger, are a tie


def two_alternatives(
    features: np.ndarray,
    rows: np.ndarray,
    right_chosen: np.ndarray,
    *,
    dataset: str,
    seed: int,
    bootstrap: int = 1000,
    note: str = "",
) -> list[Score]:
    """Two scores: how often the picture that people chose is the more similar one, by dot product and by cosine.

    features: (m, p) finite. rows: (n, 3) int, rows of the reference, the left and the right picture. right_chosen: (n,)
    bool. A tie counts as wrong and is told. The interval resamples items, whose pictures are their own. There is no
    ceiling: NIGHTS keeps items on which people were unanimous.
    """
    _check(features, rows, right_chosen, dataset)
    x = np.asarray(features, dtype=np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    spaces = {
        "two_alternatives": x,
        "two_alternatives_cosine": np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0),
    }
    scores = []
    for metric, space in spaces.items():
        reference, left, right = (space[column] for column in rows.T)
        to_left, to_right = (reference * left).sum(1), (reference * right).sum(1)
        largest = np.maximum(np.abs(to_left), np.abs(to_right))
        gap = np.round((to_right - to_left) / np.where(largest == 0, 1, largest), _DECIMALS)
        correct = np.where(right_chosen, gap > 0, gap < 0).astype(np.float64)
        ties = int((gap == 0).sum())
        texts = [f"{ties} ties, counted as wrong" if ties else "", note]
        scores.append(
            Score(
                metric,
                dataset,
                float(correct.mean()),
                *share_interval(correct, mean_draws(correct, draws=bootstrap, seed=seed)),
                n=len(rows),
                unit="items",
                over="items",
                chance=CHANCE,
                note="; ".join(text for text in texts if text),
            )
        )
    return scores


def _check(features: np.ndarray, rows: np.ndarray, right_chosen: np.ndarray, dataset: str) -> None:
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(
            f"{dataset}: expected finite features of shape (images, width), found {features.shape} "
            "or NaN; embed the images again."
        )
    if rows.ndim != 2 or rows.shape[1] != 3 or len(rows) == 0 or right_chosen.shape != (len(rows),):
        raise ValueError(
            f"{dataset}: expected rows (n, 3) of reference, left and right, and n choices, found {rows.shape} and "
            f"{right_chosen.shape}"
        )
    if rows.min() < 0 or rows.max() >= len(features):
        raise ValueError(
            f"{dataset}: expected rows in 0..{len(features) - 1}, found {rows.min()}..{rows.max()}"
        )
