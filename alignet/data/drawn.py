"""Which images of a set are taken where not all are."""

from __future__ import annotations

import numpy as np


def drawn(labels: np.ndarray, count: int, seed: int, any_answer: bool) -> np.ndarray:
    """Rows (m,) int64, rising, of at most `count` images with a known class (or any, with any_answer); 0 takes all.

    Those of a smaller count are among those of a larger one, so that attacks of both can be compared.
    """
    rows = np.arange(len(labels)) if any_answer else np.flatnonzero(labels >= 0)
    return rows if not count else np.sort(np.random.default_rng(seed).permutation(rows)[:count])
