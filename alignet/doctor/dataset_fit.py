"""Is this data set of triplets about these images? Labels against a model's own choices, and class folders.

    labels: similarities [s01, s02, s12] of triplets; answers: what somebody else says of them -> Fit

Labels that are about the images agree with any sensible model more often than the same labels with their rows shuffled
and than labels whose file names are all shifted by one image. A shift that somebody made, and columns in another order,
show as the reading of the file that agrees most. Rows are canonical where they are shuffled: the images of a triplet in
the order of their names, since a file that puts the odd one last has its answer in the order of the names.

Shape suffixes: n triplets, m images, p features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from alignet.doctor.choices import dot_products
from alignet.evaluate.bootstrap import interval, mean_draws
from alignet.triplets import PAIRS

NAMES = ("s01", "s02", "s12")  # of the pairs, as PAIRS has them
# order[c]: the pair that column c of the file speaks of; the first is the declared one
ORDERS: tuple[tuple[int, int, int], ...] = tuple((a, b, c) for a, b, c in permutations(range(3)))
SHIFTS = (1, -1)  # images, in the order of their names
FEWEST = 50  # triplets that an answer needs
SURE = 0.25  # of them, for shares: those whose nearest pair is the farthest ahead
_SHUFFLES = 20
_FEWEST_VALUES = 2000  # triplets whose similarities themselves are compared
_DRAWS = 1000  # of the bootstrap
CLEAR = 4.0  # standard errors by which one reading is better than another
_WNID = re.compile(r"n\d{8}(?=[_/])")

Answer = Callable[[np.ndarray], np.ndarray]  # triplets (n, 3) of images -> similarities (n, 3) of their pairs


@dataclass(frozen=True)
class Fit:
    """How well labels agree with somebody's answers. Shares of triplets whose nearest pair is the same."""

    by: str
    n: int
    share: float  # as the file is declared
    low: float  # a 95% bootstrap interval over triplets
    high: float
    shuffled: float  # the same share where each triplet has another one's labels: mean over shuffles
    shifted: float  # and with every name replaced by the next or the one before it, whichever agrees better
    shift: int  # which one: +1 or -1
    order: tuple[int, int, int]  # of the columns, which agrees best
    ordered: float  # share with the columns so
    given: float  # standard errors by which the file as declared agrees beyond the same rows shuffled
    beyond: float  # and the reading that agrees best
    # standard errors by which the best order, or the shift, agrees better than the file as given: 0 of the lesser gain
    gain_of_order: float
    gain_of_shift: float
    values: float | None  # Spearman's rho of the similarities themselves
    values_shuffled: float

    @property
    def belongs(self) -> bool:
        """Whether some reading of the file agrees beyond the same rows shuffled."""
        return self.beyond > CLEAR

    def _better(self, gain: float) -> bool:
        """Clearly better than as declared, or good where that is no better than shuffled rows."""
        return gain > CLEAR or (gain > 0 and self.given <= CLEAR < self.beyond)

    @property
    def better_order(self) -> bool:
        """Whether the columns speak of other pairs than declared, rather than of other images."""
        return self.order != ORDERS[0] and self._better(self.gain_of_order)

    @property
    def better_shift(self) -> bool:
        """Whether the names are shifted by one, rather than the columns of another order."""
        return self._better(self.gain_of_shift)


def by_features(features: np.ndarray) -> Answer:
    """A model's own similarities: cosine of centred features (m, p), by row of an image; NaN rows answer nothing."""
    there = np.isfinite(features).all(1)
    centred = features - features[there].mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)

    return lambda triplets: dot_products(unit, triplets).astype(np.float64)


def by_classes(labels: np.ndarray) -> Answer:
    """1 for the pair of one class, in triplets of images (m,) that show exactly one such pair; NaN for others."""

    def answer(triplets: np.ndarray) -> np.ndarray:
        shown = labels[triplets]
        same = np.stack([shown[:, a] == shown[:, b] for a, b in PAIRS], 1).astype(np.float64)
        same[same.sum(1) != 1] = np.nan
        return same

    return answer


def classes_of(ids: Sequence[str]) -> tuple[np.ndarray, bool] | None:
    """Class numbers (m,) of images whose names hold WordNet ids, or that lie in folders, and whether it was the ids;
    None where they have neither."""
    ids_found = [_WNID.search(one) for one in ids]
    by_id = all(ids_found)
    found = [one[0] if one else name.rpartition("/")[0] for one, name in zip(ids_found, ids, strict=True)]
    names, numbers = np.unique(found, return_inverse=True)
    return (numbers, by_id) if 1 < len(names) < len(ids) else None


def fit(similarities: np.ndarray, triplets: np.ndarray, images: int, answer: Answer, by: str) -> Fit | None:
    """The agreement of labels (n, 3), the surest first, with answers; None where fewer than FEWEST are answered.

    What is decided rests on every triplet's products of labels and answers, each less its triplet's mean: sure labels
    weigh more, since of three images that have nothing in common any two may be nearest. Shares are of the surest.
    """
    said = answer(triplets)
    known = np.isfinite(said).all(1)
    if known.sum() < FEWEST:
        return None
    labels, rows, said = similarities[known].astype(np.float64), triplets[known], said[known]
    given, orders = _product(labels, said), {order: _reordered(labels, order) for order in ORDERS}
    order = max(ORDERS, key=lambda one: float(_product(orders[one], said).mean()))
    moved = {shift: answer((rows + shift) % images) for shift in SHIFTS}
    gains = {shift: _product(labels, one) - given for shift, one in moved.items()}
    shift = max(SHIFTS, key=lambda one: _errors(gains[one], rows))
    by_order = _product(orders[order], said) - given
    by_shift = float(np.nanmean(gains[shift])) > float(by_order.mean())
    readings = [(labels, said), (orders[order], said), (labels, moved[shift])]
    beyond = [_beyond(one, rows, other) for one, other in readings]
    sure = slice(max(FEWEST, round(SURE * len(labels))))
    right, there = _right(labels[sure], said[sure]), np.isfinite(moved[shift][sure]).all(1)
    values, values_shuffled = _values(labels, said)
    return Fit(
        by=by, n=len(right), share=float(right.mean()), **_between(right),
        shuffled=float(np.mean([_right(one, said[sure]).mean() for one in _shuffles(labels[sure], rows[sure])])),
        shifted=float(_right(labels[sure][there], moved[shift][sure][there]).mean()) if there.any() else 0.0,
        shift=shift, order=order, ordered=float(_right(orders[order][sure], said[sure]).mean()),
        given=beyond[0], beyond=max(beyond),
        gain_of_order=0.0 if by_shift else _errors(by_order, rows),
        gain_of_shift=_errors(gains[shift], rows) if by_shift else 0.0,
        values=values, values_shuffled=values_shuffled,
    )  # fmt: skip


def _between(right: np.ndarray) -> dict[str, float]:
    low, high = interval(mean_draws(right, draws=_DRAWS, seed=0))
    return {"low": float(low), "high": float(high)}


def _product(labels: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Covariance of labels and answers within each triplet (n,); NaN where there is no answer."""
    return ((labels - labels.mean(1, keepdims=True)) * (said - said.mean(1, keepdims=True))).sum(1)


def _errors(gain: np.ndarray, rows: np.ndarray) -> float:
    """A mean over triplets (n, 3) in standard errors; 0 of fewer than FEWEST. NaN is left out.

    Triplets that share an image are not independent. The variance of the sum is that over all pairs of triplets which
    share one: counted by images, less those counted twice by pairs of images, plus those taken off too often (Cameron,
    Gelbach and Miller 2011, equation 2.12).
    """
    there = np.isfinite(gain)
    gain, rows = gain[there], np.sort(rows[there], axis=1).astype(np.int64)
    if len(gain) < FEWEST:
        return 0.0
    away, images = gain - gain.mean(), int(rows.max()) + 1
    by_image = np.bincount(rows.ravel(), np.repeat(away, 3))
    codes = np.concatenate([rows[:, a] * images + rows[:, b] for a, b in PAIRS])
    by_pair = np.bincount(np.unique(codes, return_inverse=True)[1], np.tile(away, 3))
    # a triplet may come twice
    by_set = np.bincount(np.unique(rows, axis=0, return_inverse=True)[1].ravel(), away)
    variance = max(
        float((by_image**2).sum() - (by_pair**2).sum() + (by_set**2).sum()), float((by_set**2).sum())
    )
    return float(gain.sum()) / np.sqrt(variance) if variance else 0.0


def _beyond(labels: np.ndarray, rows: np.ndarray, said: np.ndarray) -> float:
    """By how many standard errors labels agree more than with their rows shuffled."""
    there = np.isfinite(said).all(1)
    labels, rows, said = labels[there], rows[there], said[there]
    if len(labels) < FEWEST:
        return 0.0
    by_chance = np.mean([_product(one, said) for one in _shuffles(labels, rows)], axis=0)
    return _errors(_product(labels, said) - by_chance, rows)


def _right(labels: np.ndarray, said: np.ndarray) -> np.ndarray:
    """1 where the pair of the largest label is that of the largest answer; a share where answers are tied."""
    top = said == said.max(1, keepdims=True)
    chosen = labels == labels.max(1, keepdims=True)
    return (top & chosen).sum(1) / (top.sum(1) * chosen.sum(1))


def _reordered(labels: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Similarities [s01, s02, s12] of a file whose column c speaks of the pair order[c]."""
    found = np.empty_like(labels)
    found[:, list(order)] = labels
    return found


def _shuffles(labels: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Labels (n, 3) where each triplet has those of another one, its images in the order of their names."""
    columns = rows.argsort(1)
    # pair of the sorted images -> pair of the file: columns 0 + 1, 0 + 2, 1 + 2
    places = np.stack([columns[:, a] + columns[:, b] - 1 for a, b in PAIRS], 1)
    labels, draw = np.take_along_axis(labels, places, 1), np.random.default_rng(0)
    for _ in range(_SHUFFLES):
        back = np.empty_like(labels)
        np.put_along_axis(back, places, labels[draw.permutation(len(labels))], 1)
        yield back


def _values(labels: np.ndarray, said: np.ndarray) -> tuple[float | None, float]:
    """Spearman's rho between labels and answers, each triplet's largest; and the largest with shuffled rows."""
    from scipy.stats import rankdata

    if len(np.unique(said)) < 3 or len(labels) < _FEWEST_VALUES:
        # classes say which pair, and not how near it is; of few triplets nothing can be said
        return None, 0.0
    one, other = (rankdata(values[np.arange(len(labels)), labels.argmax(1)]) for values in (labels, said))
    draw = np.random.default_rng(0)

    def rho(values: np.ndarray) -> float:
        return float(np.nan_to_num(np.corrcoef(values, other)[0, 1]))

    return rho(one), max(abs(rho(draw.permutation(one))) for _ in range(_SHUFFLES))


def ties(similarities: np.ndarray) -> float:
    """The share of triplets without one nearest pair."""
    largest = similarities == similarities.max(1, keepdims=True)
    return float((largest.sum(1) > 1).mean())
