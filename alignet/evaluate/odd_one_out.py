"""Odd-one-out accuracy of features on human (or simulated) triplets, beside its triplet entropy.

Shape suffixes: n triplets, m rows of features, p features.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from alignet.evaluate.bootstrap import Score, interval, mean_draws, object_draws, share_interval
from alignet.triplets import PAIRS, check_triplets, decided, entropy, gathered_similarities

_T = TypeVar("_T")
CHANCE = 1 / 3
_MOST_ROWS = 20_000  # whose Gram matrix is held: 3.2 GB
_BLOCK = 1 << 15  # triplets measured at a time: what is computed of them stays in cache
_GRAM_ROWS = 128  # of the Gram matrix at a time, from the diagonal on: half of the operations, and large products still


def odd_one_out(
    features: np.ndarray,
    triplets: np.ndarray,
    *,
    dataset: str,
    tau: float | str,
    seed: int,
    bootstrap: int = 1000,
    probabilities: np.ndarray | None = None,
    ceiling: float | None = None,
    ceiling_note: str = "",
    units: np.ndarray | None = None,
    over: str = "objects",
    note: str = "",
) -> list[Score]:
    """Four scores on triplets: accuracy by dot product (decides) and by cosine, mean entropy, ties.

    features: (m, p) finite. triplets: (n, 3) int, the odd one last. tau: temperature of the entropy, or "spread": the
    standard deviation of the triplets' similarities, at which spaces of different scale compare.
    probabilities: (n, 3) exact P of the pairs [01, 02, 12], whose mean maximum is the exact noise
    ceiling; otherwise `ceiling` may give one within (0, 1], and `ceiling_note` say where it is from. units: (m,)
    ids of what the interval resamples, by default each row (see bootstrap.object_draws); `over` names it. With over
    `triplets` the triplets themselves are resampled: where each object is in few of them. `note` is appended to the
    notes. Entropy is in nats, within [0, ln 3]. A tie for the largest similarity counts as wrong. bootstrap: draws
    behind each interval; 0 for none.
    """
    columns_of = _checked_columns(triplets, len(features), dataset)
    x = _as_float64(features, dataset)
    ceiling, exact = _ceiling(probabilities, ceiling, len(triplets), dataset)
    ceiling_note = exact or ceiling_note
    if not (tau == "spread" or (not isinstance(tau, str) and tau > 0)):
        raise ValueError(f"{dataset}: expected tau above 0, or spread, for the triplet entropy, found {tau}")
    dots = _dot_columns(x, columns_of)
    at = spread(dots) if isinstance(tau, str) else tau
    lengths = torch.linalg.vector_norm(x, dim=1)
    columns, ties, ties_cosine = _measured(dots, columns_of, lengths, at)
    rows = np.arange(len(features)) if units is None else np.asarray(units)
    if rows.shape != (len(features),):
        raise ValueError(f"{dataset}: expected one unit per row {(len(features),)}, found {rows.shape}")
    if not bootstrap:
        draws, over = np.empty((3, 0)), ""
    elif over == "triplets":
        draws = np.stack([mean_draws(column, draws=bootstrap, seed=seed) for column in columns])
    else:
        draws = object_draws(columns.T, rows[triplets], draws=bootstrap, seed=seed)
    empty = bootstrap - draws.shape[1]
    shared = [f"{empty} of {bootstrap} draws held no triplet" if empty else "", note]
    zero = int((lengths == 0).sum())
    notes = {
        "odd_one_out": [ceiling_note, _said(ties)],
        "odd_one_out_cosine": [ceiling_note, _said(ties_cosine), f"{zero} zero vectors" if zero else ""],
        "triplet_entropy": [_entropy_note(tau, probabilities)],
    }
    scores = []
    for column, (metric, texts) in enumerate(notes.items()):
        accuracy = metric != "triplet_entropy"
        scores.append(
            Score(
                metric,
                dataset,
                float(columns[column].mean()),
                *_interval(columns[column], draws[column], accuracy, bootstrap),
                n=len(triplets),
                unit="triplets",
                over=over,
                chance=CHANCE if accuracy else None,
                ceiling=ceiling if accuracy else None,
                note="; ".join(text for text in texts + shared if text),
            )
        )
    return [
        *scores,
        Score("ties", dataset, float(ties), None, None, len(triplets), "triplets", "", note=note),
    ]


def _interval(
    values: np.ndarray, draws: np.ndarray, share: bool, bootstrap: int
) -> tuple[float | None, float | None]:
    if not bootstrap:
        return None, None
    return share_interval(values, draws) if share else interval(draws)


def dot_products(features: torch.Tensor, triplets: np.ndarray) -> torch.Tensor:
    """Similarities [s01, s02, s12] (n, 3) float64 of triplets (n, 3) over features (m, p) float64.

    Where there are many triplets to a row, the Gram matrix is computed once and looked up; else rows are gathered block
    by block. n x p is never held.
    """
    return _dot_columns(features, _columns(triplets)).T.contiguous()


def _dot_columns(features: torch.Tensor, triplets: torch.Tensor) -> torch.Tensor:
    """`dot_products` as (3, n), of triplets (3, n) int32: whatever is computed of each runs along memory."""
    m, n = len(features), triplets.shape[1]
    if m <= 4096 or (m <= _MOST_ROWS and m * m <= 16 * n):
        dots = torch.empty((3, n), dtype=torch.float64)
        gram = _upper_gram(features).flatten()

        def look_up(own: slice) -> None:
            for pair, (one, other) in enumerate(PAIRS):
                first, second = triplets[one, own], triplets[other, own]
                place = torch.minimum(first, second).mul_(m).add_(torch.maximum(first, second))
                torch.index_select(gram, 0, place, out=dots[pair, own])  # three times as fast as gram[place]

        _of_blocks(look_up, n)
        return dots
    return gathered_similarities(features, triplets.T.long()).T.contiguous()


def _upper_gram(features: torch.Tensor) -> torch.Tensor:
    """Dot products (m, m) of all rows; only the upper triangle, with the diagonal, is what it should be."""
    gram = torch.empty((len(features), len(features)), dtype=features.dtype)
    for start in range(0, len(features), _GRAM_ROWS):
        own = slice(start, start + _GRAM_ROWS)
        gram[own, start:] = features[own] @ features[start:].T
    return gram


def _columns(triplets: np.ndarray) -> torch.Tensor:
    """Triplets (b, 3) of rows that there are as (3, b) int32, each column contiguous."""
    return torch.from_numpy(np.ascontiguousarray(triplets.T, dtype=np.int32))


def _checked_columns(triplets: np.ndarray, objects: int, dataset: str) -> torch.Tensor:
    """`_columns`; ValueError as of `check_triplets`, which is asked for its words where a block is not right."""
    if triplets.shape[1:] != (3,) or len(triplets) == 0 or triplets.dtype.kind not in "iu":
        check_triplets(triplets, objects, dataset)
    columns = np.empty((3, len(triplets)), dtype=np.int32)

    def right(own: slice) -> bool:
        rows = triplets[own]
        if rows.min() < 0 or rows.max() >= objects:
            return False
        columns[:, own] = rows.T
        first, second, third = columns[:, own]
        return not ((first == second) | (first == third) | (second == third)).any()

    if not all(_of_blocks(right, len(triplets))):
        check_triplets(triplets, objects, dataset)
    return torch.from_numpy(columns)


def _of_blocks(work: Callable[[slice], _T], n: int) -> list[_T]:
    """What `work` gives of each block of n triplets. As many threads as PyTorch has take whole blocks, each with one
    thread of PyTorch's own; results do not depend on their number."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, (slice(at, min(at + _BLOCK, n)) for at in range(0, n, _BLOCK))))
    finally:
        torch.set_num_threads(threads)  # threads that begin later take it from the last that was set


def spread(dots: torch.Tensor) -> float:
    """The standard deviation of the triplets' similarities, a temperature at which spaces of any scale compare."""
    # by numpy, whose sums do not depend on the number of threads
    return max(float(dots.numpy().std(ddof=1)), 1e-300)


def _measured(
    dots: torch.Tensor, triplets: torch.Tensor, lengths: torch.Tensor, tau: float
) -> tuple[np.ndarray, int, int]:
    """Right by dot product, right by cosine and entropy at tau (3, n) float64; how many tie by each."""
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    values = torch.empty_like(dots)

    def measure(own: slice) -> tuple[int, int]:
        sims, scale = dots[:, own], [inverse.index_select(0, column) for column in triplets[:, own]]
        values[0, own], ties = decided(sims)
        values[2, own] = _entropy((sims - sims.amax(0)).div_(tau))
        cosines = torch.empty_like(sims)
        for pair, (one, other) in enumerate(PAIRS):
            torch.mul(sims[pair], scale[one], out=cosines[pair]).mul_(scale[other])
        values[1, own], ties_cosine = decided(cosines)
        return ties, ties_cosine

    tied = _of_blocks(measure, dots.shape[1])
    return values.numpy(), sum(ties for ties, _ in tied), sum(ties for _, ties in tied)


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy (b,) in nats of softmax of logits (3, b) whose largest is 0: ln Z - sum of p times logit.

    Changes the logits.
    """
    logits.clamp_min_(-1000.0)  # e^-1000 is 0, and 0 times infinity is NaN
    weights = logits.exp()
    total = weights.sum(0)
    return total.log() - weights.mul_(logits).sum(0) / total


def _entropy_note(tau: float | str, exact: np.ndarray | None) -> str:
    said = "the standard deviation of the row's own similarities" if isinstance(tau, str) else f"{tau:g}"
    text = f"tau = {said}; at most ln 3 = 1.099"
    if exact is None:
        return text
    own = entropy(torch.as_tensor(exact, dtype=torch.float64)).mean().item()
    return f"{text}; the exact distributions have {own:.3f}"


def _said(ties: int) -> str:
    return f"{ties} ties, counted as wrong" if ties else ""


def checked_features(features: np.ndarray, triplets: np.ndarray, dataset: str) -> torch.Tensor:
    """The features (m, p) as float64; ValueError unless they are finite and `triplets` are rows of them."""
    check_triplets(triplets, len(features), dataset)
    return _as_float64(features, dataset)


def _as_float64(features: np.ndarray, dataset: str) -> torch.Tensor:
    if features.ndim != 2:
        raise ValueError(f"{dataset}: expected features of shape (objects, width), found {features.shape}")
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise ValueError(
            f"{dataset}: expected finite features, found NaN or infinity in {len(bad)} of {len(features)} "
            f"rows, the first {bad[0]}; embed those images again."
        )
    return torch.from_numpy(np.asarray(features, dtype=np.float64))


def _ceiling(exact: np.ndarray | None, given: float | None, n: int, dataset: str) -> tuple[float | None, str]:
    if exact is None:
        if given is not None and not 0 < given <= 1:
            raise ValueError(f"{dataset}: expected a ceiling within (0, 1], found {given}")
        return given, ""
    if given is not None:
        raise ValueError(f"{dataset}: expected exact probabilities or a ceiling, found both; give one.")
    checked_probabilities(exact, n, dataset)
    return float(exact.max(1).mean()), "ceiling exact"


def checked_probabilities(exact: np.ndarray, n: int, dataset: str) -> None:
    """ValueError unless `exact` holds a distribution over three answers for each of n triplets."""
    if exact.shape != (n, 3) or not np.allclose(exact.sum(1), 1, atol=1e-4) or exact.min() < 0:
        raise ValueError(
            f"{dataset}: expected probabilities of shape {(n, 3)}, at least 0, whose rows sum to 1, "
            f"found shape {exact.shape}, smallest {exact.min() if exact.size else 'none'}."
        )
