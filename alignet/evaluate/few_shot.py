"""Few-shot linear probes: how well a logistic regression on k labelled images of each class tells a test set apart.

Frozen features -> drawn training examples -> readout -> accuracy on the whole test part, several times over.
Shape suffixes: n images, p features, k classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alignet.evaluate.bootstrap import LEVEL, Score
from alignet.evaluate.linear_classifier import check_parts, standardisation
from alignet.evaluate.result import Result

_COLUMNS = ("shots", "draw", "accuracy", "examples", "converged")  # of the table


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
    standardize: Literal["feature", "scalar"] = "feature",
    max_iter: int = 1000,
    note: str = "",
) -> Result:
    """Mean test accuracy over `draws` class-balanced draws of `shots` training images a class: a score for each number.

    Features are (n, p), labels (n,). Each draw takes its images by (seed, draw) alone, so every model and setting
    learns from the same ones, and those of fewer shots are among those of more. Multinomial logistic regression
    (L2, L-BFGS, float64) on features that are standardised by the mean and deviation of the whole training part,
    whose labels beyond the drawn ones are not looked at: of one or two images a deviation says little. standardize:
    each `feature` by its own deviation, or all by one, `scalar`, which keeps distances between images as they are. C,
    the inverse L2 strength, is given and not chosen: one image a class leaves nothing to choose it on, and the test
    part has no say. few: whether a class with fewer training images than the largest of `shots` stops the run or is
    left out, of the test part and of fewer shots too. Chance is 1 / classes. Table `few_shot`: a row for each fit.

    The interval is Student's t for the mean over draws, cut to [0, 1]; none where all draws agree. It says what further
    draws from the same training images would give on the same test images. It holds neither the chance of which images
    are in these pools nor of which are tested, and where draws share many of their images, which the note says, it
    is too narrow even for the chance of the training images.
    """
    check_parts(train_features, train_labels, test_features, test_labels, dataset, "classes")
    train, test = np.asarray(train_labels), np.asarray(test_labels)
    parts = _Part(train_features, train, test_features, test, _standard(train_features, standardize))
    return _measure(
        lambda draw: parts, dataset=dataset, shots=shots, draws=draws, C=C, seed=seed, few=few, max_iter=max_iter,
        over="draws of this pool", note=note,
    )  # fmt: skip


def few_shot_split(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    split: float,
    dataset: str,
    shots: Sequence[int],
    draws: int,
    C: float,
    seed: int,
    few: Literal["stop", "skip"] = "stop",
    standardize: Literal["feature", "scalar"] = "feature",
    max_iter: int = 1000,
    note: str = "",
) -> Result:
    """`few_shot` of a set without an official split: the share `split` of each class trains, drawn anew in each draw.

    So the interval also holds the chance of which of these images are tested; not that of which images the set has.
    """

    def part(draw: int) -> _Part:
        train, test = split_rows(known, split, seed=(seed, draw), dataset=dataset)
        standard = _standard(features[train], standardize)
        return _Part(features[train], known[train], features[test], known[test], standard)

    check_parts(features, labels, features, labels, dataset, "classes")
    known = np.asarray(labels)
    told = f"no official split: {split:.0%} of each class, drawn at random in each draw, to train from"
    said = "; ".join(text for text in (told, note) if text)
    return _measure(
        part, dataset=dataset, shots=shots, draws=draws, C=C, seed=seed, few=few, max_iter=max_iter,
        over="splits and draws of this pool", note=said,
    )  # fmt: skip


def _standard(features: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean (p,) and spread (p,) of features (n, p): each feature's own deviation, or one for all."""
    centre, spread = standardisation(features)
    if how == "scalar":
        spread = np.full_like(spread, (features - centre).std() or 1.0)
    elif how != "feature":
        raise ValueError(f"few_shot: expected standardize to be feature or scalar, found {how!r}")
    return centre, spread


@dataclass(frozen=True)
class _Part:
    """What one draw learns from and is tested on, and the centre and spread of the training part."""

    train_features: np.ndarray
    train: np.ndarray
    test_features: np.ndarray
    test: np.ndarray
    standard: tuple[np.ndarray, np.ndarray]


def _measure(
    part: Callable[[int], _Part], *, dataset: str, shots: Sequence[int], draws: int, C: float, seed: int, few: str,
    max_iter: int, over: str, note: str,
) -> Result:  # fmt: skip
    """The scores of each number of shots. part: of each draw; all have the same classes as often."""
    if not shots or min(shots) < 1 or draws < 1 or not C > 0:
        raise ValueError(
            f"{dataset}: expected shots and draws of at least 1 and C above 0, found {list(shots)}, {draws} and {C}"
        )
    kept, left_out, fewest = _enough(part(0).train, max(shots), few, dataset)
    numbers = sorted(set(shots))
    rows: list[tuple[int, int, float, int, bool]] = []
    tested = 0
    for draw in range(draws):
        one = part(draw)
        centre, spread = one.standard
        own = np.isin(one.test, kept)
        tested = int(own.sum())
        if not tested:
            raise ValueError(f"{dataset}: expected test images of the classes that are left, found none")
        x_test = (one.test_features[own] - centre) / spread
        for number in numbers:
            drawn = draw_examples(one.train, kept, number, seed=(seed, draw))
            x = (one.train_features[drawn] - centre) / spread
            span = _span(x)
            fit = _fit(x @ span, one.train[drawn], C=C, max_iter=max_iter)
            rate = float((fit.predict(x_test @ span) == one.test[own]).mean())
            rows.append((number, draw, rate, len(drawn), bool(fit.n_iter_.max() < max_iter)))
    rows.sort()
    table = {name: np.array(values) for name, values in zip(_COLUMNS, zip(*rows, strict=True), strict=True)}
    scores = []
    for number in numbers:
        rates, converged = (table[name][table["shots"] == number] for name in ("accuracy", "converged"))
        images = "1 image" if number == 1 else f"{number} images"
        texts = [
            f"C = {C:g}, {draws} draws of {images} of each of {len(kept)} classes",
            f"draws share images: a class has as few as {fewest}"
            if draws * number > fewest / 3 and draws > 1
            else "",
            f"{left_out} classes with fewer images left out" if left_out else "",
            f"{int((~converged).sum())} fits NOT CONVERGED after {max_iter} iterations"
            if not converged.all()
            else "",
            "no interval: all draws agree" if len(rates) > 1 and np.ptp(rates) == 0 else "",
            note,
        ]
        said = "; ".join(text for text in texts if text)
        low, high = t_interval(rates)
        scores.append(
            Score("few_shot", f"{dataset} {number}-shot", float(rates.mean()), low, high, tested, "images",
                  "" if low is None else over, 1 / len(kept), note=said)
        )  # fmt: skip
    return Result(scores, {"few_shot": table})


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


def split_rows(
    labels: np.ndarray, share: float, *, seed: tuple[int, ...], dataset: str
) -> tuple[np.ndarray, np.ndarray]:
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
    generator = np.random.default_rng([*seed, 7])
    train = []
    for name, count in zip(names, counts, strict=True):
        taken = min(max(round(share * count), 1), count - 1)
        train.append(generator.permutation(np.flatnonzero(labels == name))[:taken])
    rows = np.sort(np.concatenate(train))
    return rows, np.setdiff1d(np.arange(len(labels)), rows)


def t_interval(values: Sequence[float] | np.ndarray) -> tuple[float | None, float | None]:
    """Student's t interval at LEVEL for the mean of shares, cut to [0, 1]; (None, None) where all are equal."""
    from scipy.stats import t

    if np.ptp(values) == 0:
        return None, None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    width = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return max(mean - width, 0.0), min(mean + width, 1.0)


def _enough(labels: np.ndarray, shots: int, few: str, dataset: str) -> tuple[np.ndarray, int, int]:
    """Classes with at least `shots` training images, the number of the others, and the images of the smallest kept."""
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
    return kept, len(short), int(counts[counts >= shots].min())


def _span(x: np.ndarray) -> np.ndarray:
    """Orthonormal directions (p, q) that hold the rows of x (n, p), q the smaller of n and p.

    The L2 penalty leaves the readout no weight outside of the training images' span, so what is fitted within it is the
    same, with as many numbers for each class as there are images where these are fewer than features.
    """
    return np.linalg.qr(x.T)[0] if len(x) < x.shape[1] else np.eye(x.shape[1])


def _fit(x: np.ndarray, labels: np.ndarray, *, C: float, max_iter: int):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told in the score's note
        warnings.filterwarnings(
            "ignore", "The number of unique classes"
        )  # one image a class is what is asked for
        return LogisticRegression(C=C, max_iter=max_iter).fit(x, labels)
