"""The teacher's features of the pool, as far as the student's own classifier can tell them [ours].

A teacher describes each pool image by one vector, and much of it is of no use to a student that sees a few
hundred images: what a single vector says beyond its neighbours is learned by heart and carried over to nothing.
So each vector is replaced by what ridge regression over the whole pool predicts of it from what the student's
classifier, as it was pretrained, takes the image for. A later affine map commutes with that.

Shape suffixes: m images, p student features, c classes, t teacher features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Smoothed:
    """features: (m, t) float32. penalty: the chosen one. explained: share of the features' variance that
    leave-one-out prediction explains at the chosen penalty; negative where it is worse than their mean."""

    features: np.ndarray
    penalty: float
    explained: float


def class_expectations(features: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The mean of the classes' own weight vectors under the classifier's probabilities, (m, p) float64.

    features: (m, p), what the classifier reads. weights: (p, c). bias: (c,).
    """
    weights = np.asarray(weights, dtype=np.float64)
    logits = np.asarray(features, dtype=np.float64) @ weights + np.asarray(bias, dtype=np.float64)
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    return probabilities @ weights.T


def smooth(predictors: np.ndarray, features: np.ndarray, penalties: Sequence[float]) -> Smoothed:
    """Ridge regression of `features` (m, t) on `predictors` (m, p), evaluated at the same images.

    penalties: candidates, in units of the predictors' total variance, the sum of squares of the centred
    predictors over m; the mean is never penalised. The one with the least leave-one-out error is taken.
    """
    from sklearn.linear_model import RidgeCV

    if len(predictors) != len(features) or len(features) < 3:
        raise ValueError(
            f"smoothing: expected 3 or more rows, as many of each, found {len(predictors)} and {len(features)}"
        )
    x, y = np.asarray(predictors, dtype=np.float64), np.asarray(features, dtype=np.float64)
    unit = ((x - x.mean(0)) ** 2).sum() / len(x)
    spread = ((y - y.mean(0)) ** 2).mean()
    if unit == 0 or spread == 0:
        raise ValueError("smoothing: expected features that differ between images, found all of them equal.")
    ridge = RidgeCV(alphas=[penalty * unit for penalty in penalties]).fit(x, y)
    return Smoothed(
        ridge.predict(x).astype(np.float32), float(ridge.alpha_ / unit), float(1 + ridge.best_score_ / spread)
    )
