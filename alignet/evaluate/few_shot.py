"""Few-shot linear probes: how well a logistic regression on k labelled images of each class tells a test set apart.

Frozen features -> drawn training examples -> readout -> accuracy on the whole test part, several times over.
Shape suffixes: n images, p features, k classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alignet.evaluate.bootstrap import LEVEL, Score
from alignet.evaluate.readout import standardisation
from alignet.evaluate.result import Result


def few_shot(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    dataset: str,
    shots: Sequence[int],
    draws: int,
    C: float,
    seed: int,
    few: Literal["stop", "skip"] = "stop",
    max_iter: int = 1000,
    note: str = "",
) -> Result:
    """Mean test accuracy over `draws` class-balanced draws of `shots` training images a class: a score for each number.

    Features are (n, p), labels (n,). Each draw takes its images by (seed, draw) alone, so every model and setting
    learns from the same ones, and those of fewer shots are among those of more. Multinomial logistic regression
    (L2, L-BFGS, float64) on features that are standardised by the mean and deviation of the whole training part,
    whose labels beyond the drawn ones are not looked at: of one or two images a deviation says little. C, the
    inverse L2 strength, is given and not chosen: one image a class leaves nothing to choose it on, and the test
    part has no say. few: whether a class with fewer training images stops the run or is left out, of the test
    part too. The interval is Student's t for the mean over draws, cut to [0, 1]; it holds the chance of which
    images were drawn, not of which are tested. Chance is 1 / classes. Table `few_shot`: a row for each fit.
    """
    check(train_features, train_labels, test_features, test_labels, dataset)
    if not shots or min(shots) < 1 or draws < 1 or not C > 0:
        raise ValueError(
            f"{dataset}: expected shots and draws of at least 1 and C above 0, found {list(shots)}, {draws} and {C}"
        )
    train, test = np.asarray(train_labels), np.asarray(test_labels)
    centre, spread = standardisation(train_features)
    scores, table = [], _Fits([], [], [], [], [])
    for number in sorted(set(shots)):
        kept, left_out = _enough(train, number, few, dataset)
        tested = np.isin(test, kept)
        if not tested.any():
            raise ValueError(f"{dataset}: expected test images of the classes that are left, found none")
        x_test = (test_features[tested] - centre) / spread
        for draw in range(draws):
            rows = draw_examples(train, kept, number, seed=(seed, draw))
            fit = _fit((train_features[rows] - centre) / spread, train[rows], C=C, max_iter=max_iter)
            rate = float((fit.predict(x_test) == test[tested]).mean())
            table.add(number, draw, rate, len(rows), bool(fit.n_iter_.max() < max_iter))
        stopped = draws - sum(table.converged[-draws:])
        images = "1 image" if number == 1 else f"{number} images"
        texts = [
            f"C = {C:g}, {draws} draws of {images} of each of {len(kept)} classes",
            f"{len(left_out)} classes with fewer images left out" if len(left_out) else "",
            f"{stopped} fits NOT CONVERGED after {max_iter} iterations" if stopped else "",
            note,
        ]
        said = "; ".join(text for text in texts if text)
        rates = table.accuracy[-draws:]
        scores.append(_score(f"{dataset} {number}-shot", rates, int(tested.sum()), len(kept), said))
    return Result(scores, {"few_shot": table.columns()})


def _score(dataset: str, rates: Sequence[float], n: int, classes: int, note: str) -> Score:
    low, high = t_interval(rates)
    over = "draws" if len(rates) > 1 else ""
    return Score(
        "few_shot", dataset, float(np.mean(rates)), low, high, n, "images", over, 1 / classes, note=note
    )


@dataclass
class _Fits:
    """The fits as columns of a table."""

    shots: list[int]
    draw: list[int]
    accuracy: list[float]
    examples: list[int]
    converged: list[bool]

    def add(self, shots: int, draw: int, accuracy: float, examples: int, converged: bool) -> None:
        for column, value in zip(
            vars(self).values(), (shots, draw, accuracy, examples, converged), strict=True
        ):
            column.append(value)

    def columns(self) -> dict[str, np.ndarray]:
        return {name: np.array(values) for name, values in vars(self).items()}


def draw_examples(
    labels: np.ndarray, classes: np.ndarray, shots: int, *, seed: tuple[int, ...]
) -> np.ndarray:
    """Rows of `shots` images of each of `classes`, drawn without replacement: int64 (classes * shots,), by class.

    With one seed, the rows of fewer shots are among those of more.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_class]
    starts = np.searchsorted(sorted_labels, classes)
    return (by_class[starts[:, None] + np.arange(shots)]).ravel()


def split_rows(labels: np.ndarray, share: float, *, seed: int, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """A set without an official split: rows for training, a share of each class drawn at random, and rows to test on.

    Both parts get at least one image of each class; a class with a single image is a ValueError.
    """
    if not 0 < share < 1:
        raise ValueError(f"{dataset}: expected options.split inside (0, 1), found {share}")
    names, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"{dataset}: expected at least 2 images of every class to split, found {counts.min()} of "
            f"{names[counts.argmin()]}; take the class out, or give train and test apart."
        )
    generator = np.random.default_rng([seed, 7])
    train = []
    for name, count in zip(names, counts, strict=True):
        taken = min(max(round(share * count), 1), count - 1)
        train.append(generator.permutation(np.flatnonzero(labels == name))[:taken])
    rows = np.sort(np.concatenate(train))
    return rows, np.setdiff1d(np.arange(len(labels)), rows)


def t_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Student's t interval at LEVEL for the mean of shares, cut to [0, 1]; (None, None) of a single value."""
    from scipy.stats import t

    if len(values) < 2:
        return None, None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    width = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return max(mean - width, 0.0), min(mean + width, 1.0)


def _enough(labels: np.ndarray, shots: int, few: str, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Classes with at least `shots` training images, and the others."""
    if few not in ("stop", "skip"):
        raise ValueError(f"{dataset}: expected options.few stop or skip, found {few!r}")
    names, counts = np.unique(labels, return_counts=True)
    short = names[counts < shots]
    if len(short) and few == "stop":
        raise ValueError(
            f"{dataset}: expected at least {shots} training images of every class, found {counts.min()} of "
            f"{names[counts.argmin()]} ({len(short)} of {len(names)} classes have too few); ask for fewer shots, or "
            f"set options.few=skip to leave such classes out."
        )
    kept = names[counts >= shots]
    if len(kept) < 2:
        raise ValueError(
            f"{dataset}: expected two classes with {shots} training images, found {len(kept)}; ask for fewer shots."
        )
    return kept, short


def _fit(x: np.ndarray, labels: np.ndarray, *, C: float, max_iter: int):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told in the score's note
        warnings.filterwarnings(
            "ignore", "The number of unique classes"
        )  # one image a class is what is asked for
        return LogisticRegression(C=C, max_iter=max_iter).fit(x, labels)


def check(x: np.ndarray, labels: np.ndarray, x_test: np.ndarray, test_labels: np.ndarray, name: str) -> None:
    """ValueError for features and labels of two parts that do not fit: shapes, NaN, classes that were never learned."""
    for part, features, classes in (("training", x, labels), ("test", x_test, test_labels)):
        if features.ndim != 2 or len(features) == 0 or np.shape(classes) != (len(features),):
            raise ValueError(
                f"{name}: expected {part} features (n, width) and one label per row, found {features.shape} and "
                f"{np.shape(classes)}; embed the images again, or mend the table of labels."
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
            f"{name}: expected at least two classes to tell apart, found {len(known)}: {', '.join(map(str, known))}; "
            "name the folder that holds the folders of classes."
        )
    strange = np.setdiff1d(test_labels, known)
    if len(strange):
        raise ValueError(
            f"{name}: expected test classes that occur in training, found {len(strange)} that do not, the first "
            f"{strange[0]!s}; leave those images out."
        )
