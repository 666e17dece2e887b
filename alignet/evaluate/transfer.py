"""A linear probe learned on ImageNet and carried to its other test sets (the paper's figures 4C and 13).

Training features -> one readout -> validation images, V2, ReaL, A, R and C.
Shape suffixes: n images, p features, k classes, B draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alignet.data import imagenet
from alignet.data.imagenet import Corrupted
from alignet.evaluate.bootstrap import Score, mean_draws, share_interval
from alignet.evaluate.linear_classifier import Readout, fit_readout
from alignet.evaluate.result import Result

TITLES = {"val": "ImageNet", "v2": "V2", "a": "A", "r": "R", "c": "C"}  # the names that test sets may have
SUBSETS = ("a", "r")  # sets of some classes, of which only these compete


@dataclass(frozen=True)
class _Measure:
    """What the scores of one evaluation share."""

    dataset: str
    readout: Readout
    note: str
    bootstrap: int
    seed: int

    def score(self, title: str, right: np.ndarray, chance: float, *notes: str) -> Score:
        """Accuracy of right (n,) booleans; the interval resamples images."""
        values = right.astype(np.float64)
        low, high = share_interval(values, mean_draws(values, draws=self.bootstrap, seed=self.seed))
        return self.scored(title, float(values.mean()), low, high, len(values), chance, *notes)

    def scored(
        self, title: str, value: float, low: float, high: float, n: int, chance: float, *notes: str
    ) -> Score:
        text = "; ".join(note for note in (self.note, *notes) if note)
        return Score(
            "transfer", f"{self.dataset} {title}", value, low, high, n, "images", "images", chance, note=text
        )


def transfer(
    train_features: np.ndarray,
    train_ids: Sequence[str],
    tests: Mapping[str, tuple[np.ndarray, Sequence[str]]],
    *,
    dataset: str,
    C: float,
    per_class: int | None,
    seed: int,
    bootstrap: int = 1000,
    real: Sequence[Sequence[int]] | None = None,
) -> Result:
    """Accuracy of one readout of the training images' classes on each of `tests`; a score for each.

    Features are (n, p), ids their images' paths, which name the class (alignet.data.imagenet). Classes are numbered
    in the order of the training images' sorted wnids, as V2's folders and ReaL's labels are. tests: any of TITLES.
    per_class: at most so many training images of each class. real: the labels of ReaL for `val`: a prediction is
    right if it is among an image's labels, and images without one are left out. Of A and R only the classes that the
    set has compete. C: mean over severities of each corruption, then over corruptions, as plain accuracy (not divided
    by AlexNet's error); its interval resamples originals, whose corrupted images come and go together; where a draw
    holds none of a corruption's images at a severity, these are resampled by themselves, and the note counts such
    draws. Table `corruptions`: each corruption at each severity.
    """
    _check_tests(tests, real is not None, dataset)
    wnids = imagenet.wnids(train_ids, f"{dataset}: train")
    classes, labels = np.unique(wnids, return_inverse=True)
    readout = fit_readout(train_features, labels, C=C, per_label=per_class, seed=seed, dataset=dataset)
    note = readout.note
    if len(classes) != imagenet.CLASSES:
        note += f"; {len(classes)} classes in training, not ImageNet's {imagenet.CLASSES:,}: class numbers count these"
    measure = _Measure(dataset, readout, note, bootstrap, seed)
    scores, tables = [], {}
    for name in (one for one in TITLES if one in tests):
        features, ids = tests[name]
        where = f"{dataset}: {name}"
        if len(features) != len(ids) or not len(ids) or not np.isfinite(features).all():
            raise ValueError(
                f"{where}: expected finite features and an id for each row, found others; embed again."
            )
        truth = imagenet.class_numbers(ids, classes.tolist(), where)
        if name == "c":
            score, tables["corruptions"] = _corruptions(
                measure, features, truth, imagenet.corruptions(ids, where)
            )
            scores.append(score)
            continue
        among = np.unique(truth) if name in SUBSETS else np.arange(len(classes))
        predicted = readout.predict(features, among)
        told = f"{len(among)} of {len(classes)} classes compete" if name in SUBSETS else ""
        scores.append(measure.score(TITLES[name], predicted == truth, 1 / len(among), told))
        if name == "val" and real is not None:
            scores.append(_real(measure, predicted, imagenet.validation_rows(ids, len(real), where), real))
    return Result(scores, tables)


def _check_tests(tests: Mapping[str, tuple[np.ndarray, Sequence[str]]], real: bool, dataset: str) -> None:
    strange = sorted(set(tests) - TITLES.keys())
    if strange or not tests:
        raise ValueError(
            f"{dataset}: expected test sets among {', '.join(TITLES)}, found {', '.join(strange) or 'none'}"
        )
    if real and "val" not in tests:
        raise ValueError(f"{dataset}: expected the validation images as val for ReaL, found none; add them.")
    for name, (features, ids) in tests.items():
        if len(features) != len(ids) or not len(ids) or not np.isfinite(features).all():
            raise ValueError(
                f"{dataset}: expected finite features of {name} and an id for each row, found NaN, infinity or "
                f"{len(features)} rows for {len(ids)} ids; embed the images again."
            )


def _real(measure: _Measure, predicted: np.ndarray, rows: np.ndarray, real: Sequence[Sequence[int]]) -> Score:
    kept = [(number, real[row]) for number, row in zip(predicted.tolist(), rows.tolist()) if real[row]]
    if not kept:
        raise ValueError(
            f"{measure.dataset}: expected images with labels in ReaL, found none; check real.json."
        )
    right = np.array([number in labels for number, labels in kept])
    chance = float(np.mean([len(set(labels)) for _, labels in kept])) / len(measure.readout.classes)
    left_out = len(rows) - len(kept)
    return measure.score(
        "ReaL", right, chance, f"{left_out:,} images without a label left out" if left_out else ""
    )


def _corruptions(
    measure: _Measure, features: np.ndarray, truth: np.ndarray, images: Corrupted
) -> tuple[Score, dict[str, np.ndarray]]:
    right = measure.readout.predict(features) == truth
    cells, cell = np.unique(
        np.char.add(np.char.add(images.corruption, "\t"), images.severity.astype(str)), return_inverse=True
    )
    names = np.array([text.partition("\t")[0] for text in cells])
    severities = np.array([int(text.partition("\t")[2]) for text in cells], dtype=np.int64)
    originals, original = np.unique(images.original, return_inverse=True)
    shown = np.zeros((len(originals), len(cells)), dtype=np.float32)
    known = np.zeros_like(shown)
    np.add.at(shown, (original, cell), 1)
    np.add.at(known, (original, cell), right)
    corruptions = np.unique(names)
    equal = np.array([1 / (names == name).sum() for name in names]) / len(corruptions)  # weight of each cell
    accuracy = known.sum(0) / shown.sum(0)
    draws, refilled = _cell_draws(shown, known, measure)
    told = f"in {refilled} of {measure.bootstrap} draws some corruption's images were resampled by themselves"
    score = measure.scored(
        TITLES["c"], float(accuracy @ equal), *share_interval(right, draws @ equal), len(right),
        1 / len(measure.readout.classes),
        f"mean of {len(corruptions)} corruptions at up to {len(np.unique(severities))} severities of "
        f"{len(originals):,} images", told if refilled else "",
    )  # fmt: skip
    order = np.lexsort([severities, names])
    table = {
        "corruption": names[order].tolist(), "severity": severities[order],
        "images": shown.sum(0)[order].astype(np.int64), "accuracy": accuracy[order].astype(np.float64),
    }  # fmt: skip
    return score, table


def _cell_draws(shown: np.ndarray, known: np.ndarray, measure: _Measure) -> tuple[np.ndarray, int]:
    """Accuracy of each cell in each draw of originals (B, cells), and how many draws left some cell without images.

    shown, known: (originals, cells), how many images each original has in each cell, and how many of them are right.
    """
    generator = np.random.default_rng(measure.seed)
    originals = len(shown)
    found, refilled = np.empty((measure.bootstrap, shown.shape[1])), 0
    for accuracy in found:
        drawn = np.bincount(generator.integers(originals, size=originals), minlength=originals)
        counts = drawn.astype(np.float32)
        right, seen = counts @ known, counts @ shown
        for cell in np.flatnonzero(seen == 0):
            rows = np.flatnonzero(shown[:, cell])
            again = rows[generator.integers(len(rows), size=len(rows))]
            right[cell], seen[cell] = known[again, cell].sum(), shown[again, cell].sum()
        refilled += bool((counts @ shown == 0).any())
        accuracy[:] = right / seen
    return found, refilled
