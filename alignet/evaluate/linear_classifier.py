"""A linear readout of frozen features that is learned on one set and tested on others.

Shape suffixes: n images, p features, k classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

_BLOCK = 8192  # rows of features in float64 at a time


@dataclass(frozen=True)
class Readout:
    """Multinomial logistic regression on standardised features: logits = features @ weights + bias."""

    classes: np.ndarray  # (k,), sorted
    weights: np.ndarray  # (p, k) float64, for features as they come
    bias: np.ndarray  # (k,) float64
    note: str

    def predict(self, features: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
        """Row in `classes` of the largest logit of each of features (n, p), of the rows `among` alone: int64 (n,)."""
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            raise ValueError(
                f"expected features of width {len(self.weights)}, as in training, found {features.shape}"
            )
        rows = np.arange(len(self.classes)) if among is None else np.asarray(among)
        found = np.empty(len(features), dtype=np.int64)
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK].astype(np.float64)
            found[start : start + _BLOCK] = rows[
                (block @ self.weights[:, rows] + self.bias[rows]).argmax(axis=1)
            ]
        return found


def fit_readout(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    C: float,
    per_label: int | None,
    seed: int,
    dataset: str,
    groups: np.ndarray | None = None,
    max_iter: int = 1000,
) -> Readout:
    """Fit to features (n, p) with labels (n,): L2 of inverse strength C, L-BFGS, float64, deterministic.

    per_label: at most so many images of each label, or of each of `groups` (n,), drawn by seed; None takes all.
    Features are standardised by the images that are taken.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    labels = np.asarray(labels)
    if features.ndim != 2 or len(features) == 0 or labels.shape != (len(features),):
        raise ValueError(
            f"{dataset}: expected training features (n, width) and one label per row, found {features.shape} and "
            f"{labels.shape}"
        )
    if len(np.unique(labels)) < 2:
        raise ValueError(f"{dataset}: expected at least two classes to train on, found {np.unique(labels)}")
    if not C > 0 or (per_label is not None and per_label < 1):
        raise ValueError(
            f"{dataset}: expected C above 0 and at least one image a class, found {C} and {per_label}"
        )
    rows = (
        np.arange(len(labels))
        if per_label is None
        else _few(labels if groups is None else groups, per_label, seed)
    )
    x = features[rows].astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(
            f"{dataset}: expected finite training features, found NaN or infinity; embed them again."
        )
    centre, spread = standardisation(x)
    x -= centre
    x /= spread
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told in the note
        model = LogisticRegression(C=C, max_iter=max_iter).fit(x, labels[rows])
    coefficients, intercept = model.coef_, model.intercept_
    if len(coefficients) == 1:  # two classes: one row, of the second
        coefficients, intercept = np.vstack([-coefficients, coefficients]), np.append(-intercept, intercept)
    weights = coefficients.T / spread[:, None]
    text = f"C = {C:g}, {len(rows):,} training images"
    if model.n_iter_.max() >= max_iter:
        text += f", NOT CONVERGED after {max_iter} iterations"
    return Readout(model.classes_, weights, intercept - centre @ weights, text)


def check_parts(
    x: np.ndarray, labels: np.ndarray, x_test: np.ndarray, test_labels: np.ndarray, name: str, what: str
) -> None:
    """ValueError for features and labels of two parts that do not fit: shapes, NaN, what was never learned.

    what: how the labels are called, `labels` or `classes`.
    """
    for part, features, own in (("training", x, labels), ("test", x_test, test_labels)):
        if features.ndim != 2 or len(features) == 0 or np.shape(own) != (len(features),):
            raise ValueError(
                f"{name}: expected {part} features (n, width) and one label per row, found {features.shape} and "
                f"{np.shape(own)}; embed the images again, or mend the table of labels."
            )
        if not np.isfinite(features).all():
            raise ValueError(
                f"{name}: expected finite {part} features, found NaN or infinity; embed the images again."
            )
    if x.shape[1] != x_test.shape[1]:
        raise ValueError(f"{name}: expected features of one width, found {x.shape[1]} and {x_test.shape[1]}")
    known = np.unique(labels)
    if len(known) < 2:
        raise ValueError(
            f"{name}: expected at least two {what} to tell apart, found {len(known)}: {', '.join(map(str, known))}; "
            f"name the folder that holds several {what}, or a column with more."
        )
    strange = np.setdiff1d(test_labels, known)
    if len(strange):
        raise ValueError(
            f"{name}: expected test {what} that occur in training, found {len(strange)} that do not, the first "
            f"{strange[0]!s}; leave those images out."
        )


def standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (p,) float64 of features (n, p), by blocks; a column that is constant has deviation 1."""
    n, block = len(features), 8192
    parts = [features[start : start + block] for start in range(0, n, block)]
    mean = sum(part.sum(0, dtype=np.float64) for part in parts) / n
    variance = sum(((part - mean) ** 2).sum(0) for part in parts) / n
    spread = np.sqrt(variance)
    return mean, np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1e-300), spread, 1.0)


def _few(groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Rows of at most `most` of each group, drawn at random, sorted: int64."""
    order = np.random.default_rng(seed).permutation(len(groups))
    by_group = order[np.argsort(np.asarray(groups)[order], kind="stable")]
    _, starts, counts = np.unique(np.asarray(groups)[by_group], return_index=True, return_counts=True)
    place = np.arange(len(groups)) - np.repeat(starts, counts)
    return np.sort(by_group[place < most])
