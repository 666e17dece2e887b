"""Top-1 accuracy through a linear head: the network's original one, or one refitted to its logits.

What alignment costs shows through the original head; how much of that is only a rotated feature space
shows through a head that is refitted, without labels, to the original network's logits on the pool.
Shape suffixes: n images, p features, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignet.data.wordnet import wordnet_id
from alignet.evaluate.bootstrap import Score, mean_draws, share_interval

UNKNOWN = -1  # label of an image that belongs to none of the head's classes
RIDGES = tuple(float(value) for value in np.logspace(-6, 3, 37))  # times the mean squared singular value


def top1(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    *,
    dataset: str,
    seed: int,
    bootstrap: int = 1000,
    metric: str = "top1",
    note: str = "",
) -> list[Score]:
    """Share of images whose own class alone has the largest logit, one score.

    features: (n, p). labels: (n,) int class indices; images labelled UNKNOWN are left out and counted in
    the note. weights: (p, c), the transpose of a torch Linear's; bias: (c,). `metric` names the score,
    for example top1_refit. The interval resamples images.
    """
    labels = np.asarray(labels)
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ValueError(
            f"{dataset}: expected features (n, width) and one label per row, found {features.shape} and "
            f"{labels.shape}"
        )
    if weights.shape != (features.shape[1], len(bias)):
        raise ValueError(
            f"{dataset}: expected head weights of shape {(features.shape[1], len(bias))}, one row per "
            f"feature, found {weights.shape}; transpose the weight of a torch Linear."
        )
    if not np.isfinite(features).all():
        raise ValueError(f"{dataset}: expected finite features, found NaN or infinity")
    known = labels != UNKNOWN
    if not known.any() or labels.max() >= len(bias) or labels.min() < UNKNOWN:
        raise ValueError(
            f"{dataset}: expected class indices in 0..{len(bias) - 1}, found "
            f"{'none' if not known.any() else f'{labels.min()}..{labels.max()}'}"
        )
    logits = features[known].astype(np.float64) @ weights + bias
    rows, own = np.arange(len(logits)), labels[known]
    mine = logits[rows, own]
    logits[rows, own] = -np.inf
    right = (mine > logits.max(1)).astype(np.float64)
    left_out = int((~known).sum())
    texts = [f"{left_out} images of no class left out" if left_out else "", note]
    return [
        Score(
            metric,
            dataset,
            float(right.mean()),
            *share_interval(right, mean_draws(right, draws=bootstrap, seed=seed)),
            n=len(right),
            unit="images",
            over="images",
            chance=1 / len(bias),
            note="; ".join(text for text in texts if text),
        )
    ]


@dataclass(frozen=True)
class Head:
    """A linear head, logits = features @ weights + bias, and how its ridge penalty came out."""

    weights: np.ndarray  # (p, c) float64
    bias: np.ndarray  # (c,) float64
    ridge: float  # penalty on ||weights||^2 beside the summed squared error
    degrees: float  # effective degrees of freedom, the intercept included
    note: str


def refit_head(
    pool_features: np.ndarray, original_logits: np.ndarray, *, ridges: Sequence[float] = RIDGES
) -> Head:
    """Ridge regression from the new features on the pool to the original network's logits there.

    pool_features: (n, p). original_logits: (n, c). The intercept is not penalised. `ridges`: candidates,
    in units of the centred features' mean squared singular value, so rescaling the features changes
    nothing; generalised cross-validation n ||(I - H) Y||^2 / (n - tr H)^2 chooses (Golub et al. 1979).
    """
    x, y = np.asarray(pool_features, np.float64), np.asarray(original_logits, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 3:
        raise ValueError(
            f"refitted head: expected features and logits of one pool, found {x.shape}, {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("refitted head: expected finite features and logits, found NaN or infinity")
    mean_x, mean_y = x.mean(0), y.mean(0)
    u, s, vt = np.linalg.svd(x - mean_x, full_matrices=False)
    if s[0] <= 1e-12 * np.linalg.norm(x):
        raise ValueError("refitted head: expected features that vary over the pool, found a constant.")
    kept = s > 1e-10 * s[0]
    u, s, vt = u[:, kept], s[kept], vt[kept]
    projected = u.T @ (y - mean_y)  # (r, c)
    energy = (projected**2).sum(1)
    outside = max(((y - mean_y) ** 2).sum() - energy.sum(), 0.0)  # what no linear head reaches
    candidates = np.asarray(ridges) * (s**2).mean()
    found = [_gcv(s, energy, outside, len(x), ridge) for ridge in candidates]
    best = int(np.argmin(found))
    ridge = float(candidates[best])
    weights = vt.T @ ((s / (s**2 + ridge))[:, None] * projected)
    degrees = 1 + float((s**2 / (s**2 + ridge)).sum())
    note = f"ridge {ridge:.3g} by generalised cross-validation, {degrees:.0f} of {len(x)} degrees of freedom"
    if best in (0, len(candidates) - 1) and len(candidates) > 1:
        note += ", at the edge of its grid"
    return Head(weights, mean_y - mean_x @ weights, ridge, degrees, note)


def _gcv(s: np.ndarray, energy: np.ndarray, outside: float, n: int, ridge: float) -> float:
    shrink = ridge / (s**2 + ridge)  # of the residual in each singular direction
    left = n - 1 - (1 - shrink).sum()  # n - tr H, the intercept included
    return float(n * ((shrink**2 * energy).sum() + outside) / left**2) if left > 1e-9 else float("inf")


def imagenet_labels(ids: Sequence[str]) -> np.ndarray:
    """ImageNet-1k class index (n,) int64 of each file, by the WordNet id its name starts with.

    ids: file names such as "n02666196_abacus.jpg" (folders before it are ignored). A name without a
    WordNet id, or with one outside the 1,000 classes, gives UNKNOWN; if all do, a ValueError.
    """
    from timm.data import ImageNetInfo

    index = {wnid: number for number, wnid in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    labels = []
    for name in ids:
        labels.append(index.get(wordnet_id(name), UNKNOWN))
    if all(label == UNKNOWN for label in labels):
        raise ValueError(
            f"expected file names that start with an ImageNet-1k WordNet id such as n02666196_, found "
            f"{ids[0] if len(ids) else 'no files'!r}; ImageNet top-1 needs them."
        )
    return np.array(labels, dtype=np.int64)
