"""Linear probe: how well a logistic regression on frozen features tells the fine labels apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignet.evaluate.bootstrap import Score, mean_draws, share_interval
from alignet.evaluate.linear_classifier import check_parts


def linear_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    dataset: str,
    C: float | Sequence[float],
    seed: int,
    folds: int = 3,
    bootstrap: int = 1000,
    max_iter: int = 1000,
    note: str = "",
) -> list[Score]:
    """Test accuracy of multinomial logistic regression (L2, L-BFGS, float64), one score.

    Features (n, p) are standardised by the training part. C: inverse L2 strength, or several, of which
    stratified cross-validation over the training part takes the best (the smallest of equals); the test
    part has no say. Chance is the share of the commonest training label in the test part; the interval
    resamples test images. A fit that stops at max_iter warns and says so in the note. Deterministic.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_parts(train_features, train_labels, test_features, test_labels, dataset, "labels")
    x, x_test = np.asarray(train_features, np.float64), np.asarray(test_features, np.float64)

    def classifier(strength: float):
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=max_iter))

    grid = [float(C)] if isinstance(C, (int, float)) else sorted(float(value) for value in C)
    if not grid or grid[0] <= 0:
        raise ValueError(f"{dataset}: expected C above 0 for the linear probe, found {C}")
    chosen, texts = grid[0], [f"C = {grid[0]:g}"]
    if len(grid) > 1:
        chosen = _cross_validated(classifier, grid, x, train_labels, folds=folds, seed=seed, dataset=dataset)
        texts = [f"C = {chosen:g} by {folds}-fold cross-validation of {len(grid)} values"]
        if chosen in (grid[0], grid[-1]):
            texts.append("at the edge of its grid")
    model = classifier(chosen).fit(x, train_labels)
    if model[-1].n_iter_.max() >= max_iter:
        texts.append(f"NOT CONVERGED after {max_iter} iterations")
    right = (model.predict(x_test) == test_labels).astype(np.float64)
    names, counts = np.unique(train_labels, return_counts=True)
    return [
        Score(
            "linear_probe",
            dataset,
            float(right.mean()),
            *share_interval(right, mean_draws(right, draws=bootstrap, seed=seed)),
            n=len(right),
            unit="images",
            over="images",
            chance=float((np.asarray(test_labels) == names[counts.argmax()]).mean()),
            note="; ".join(text for text in [*texts, f"{len(x):,} training images", note] if text),
        )
    ]


def _cross_validated(classifier, grid, x, labels, *, folds, seed, dataset):
    """The C of the best mean accuracy over stratified folds; `grid` ascends, so the smallest of equals."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    fewest = int(np.unique(labels, return_counts=True)[1].min())
    if fewest < folds:
        raise ValueError(
            f"{dataset}: expected at least {folds} training images of every label to choose C by "
            f"{folds}-fold cross-validation, found {fewest}; give one C instead."
        )
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    means = [cross_val_score(classifier(value), x, labels, cv=parts).mean() for value in grid]
    return grid[int(np.argmax(means))]
