"""Odd-one-out accuracy of features on human (or simulated) triplets, beside its triplet entropy.

Shape suffixes: n triplets, m rows of features, p features.
"""

from __future__ import annotations

import numpy as np
import torch

from alignet.evaluate.bootstrap import Score, interval, mean_draws, object_draws, share_interval
from alignet.triplets import PAIRS, check_triplets, correct, entropy, similarities_of
from alignet.triplets import probabilities as triplet_probabilities

CHANCE = 1 / 3
_MOST_ROWS = 20_000  # whose Gram matrix is held: 3.2 GB
_BLOCK = 1 << 18  # triplets measured at a time
_GATHERED = 1 << 24  # numbers of rows of features that are gathered at a time
_DECIMALS = 10  # two similarities this close (relative to the triplet's largest) are a tie


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
    notes. Entropy is in nats, within [0, ln 3]. A tie for the largest similarity counts as wrong.
    """
    x = checked_features(features, triplets, dataset)
    ceiling, exact = _ceiling(probabilities, ceiling, len(triplets), dataset)
    ceiling_note = exact or ceiling_note
    if not (tau == "spread" or (not isinstance(tau, str) and tau > 0)):
        raise ValueError(f"{dataset}: expected tau above 0, or spread, for the triplet entropy, found {tau}")
    dots = dot_products(x, triplets)
    at = spread(dots) if isinstance(tau, str) else tau
    lengths = torch.linalg.vector_norm(x, dim=1)
    values, ties, ties_cosine = _measured(dots, triplets, lengths, at)
    rows = np.arange(len(features)) if units is None else np.asarray(units)
    if rows.shape != (len(features),):
        raise ValueError(f"{dataset}: expected one unit per row {(len(features),)}, found {rows.shape}")
    if over == "triplets":
        draws = np.stack([mean_draws(column, draws=bootstrap, seed=seed) for column in values.T])
    else:
        draws = object_draws(values, rows[triplets], draws=bootstrap, seed=seed)
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
                float(values[:, column].mean()),
                *(share_interval(values[:, column], draws[column]) if accuracy else interval(draws[column])),
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


def dot_products(features: torch.Tensor, triplets: np.ndarray) -> torch.Tensor:
    """Similarities [s01, s02, s12] (n, 3) float64 of triplets (n, 3) over features (m, p) float64.

    Where there are many triplets to a row, the Gram matrix is computed once and looked up; else rows are gathered block
    by block. n x p is never held.
    """
    m, width = features.shape
    dots = torch.empty((len(triplets), 3), dtype=torch.float64)
    if m <= 4096 or (m <= _MOST_ROWS and m * m <= 16 * len(triplets)):
        gram = (features @ features.T).flatten()
        for start in range(0, len(triplets), _BLOCK):
            block = torch.from_numpy(triplets[start : start + _BLOCK].astype(np.int64))
            for pair, (one, other) in enumerate(PAIRS):
                dots[start : start + _BLOCK, pair] = gram[block[:, one] * m + block[:, other]]
        return dots
    step = max(1, _GATHERED // (3 * width))
    for start in range(0, len(triplets), step):
        block = torch.from_numpy(triplets[start : start + step].astype(np.int64))
        dots[start : start + step] = similarities_of(features[block].unbind(1))
    return dots


def spread(dots: torch.Tensor) -> float:
    """The standard deviation of the triplets' similarities, a temperature at which spaces of any scale compare."""
    return max(dots.std().item(), 1e-300)


def _measured(
    dots: torch.Tensor, triplets: np.ndarray, lengths: torch.Tensor, tau: float
) -> tuple[np.ndarray, int, int]:
    """Right by dot product, right by cosine and entropy at tau (n, 3) float64; ties of both, block by block."""
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    values, ties, ties_cosine = torch.empty_like(dots), 0, 0
    for start in range(0, len(dots), _BLOCK):
        own = slice(start, start + _BLOCK)
        scale = inverse[torch.from_numpy(triplets[own].astype(np.int64))]
        cosines = dots[own] * torch.stack([scale[:, one] * scale[:, other] for one, other in PAIRS], 1)
        by_dot, by_cosine = rounded(dots[own]), rounded(cosines)
        values[own, 0], values[own, 1] = correct(by_dot).double(), correct(by_cosine).double()
        values[own, 2] = entropy(triplet_probabilities(dots[own], tau))
        ties, ties_cosine = ties + _tied(by_dot), ties_cosine + _tied(by_cosine)
    return values.numpy(), ties, ties_cosine


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
    if features.ndim != 2:
        raise ValueError(f"{dataset}: expected features of shape (objects, width), found {features.shape}")
    check_triplets(triplets, len(features), dataset)
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


def rounded(sims: torch.Tensor) -> torch.Tensor:
    """Similarities (n, 3) relative to each triplet's largest, so that rounding error cannot break a tie."""
    largest = sims.abs().amax(1, keepdim=True)
    return torch.round(sims / torch.where(largest == 0, 1.0, largest), decimals=_DECIMALS)


def _tied(rounded: torch.Tensor) -> int:
    return int(((rounded == rounded.amax(1, keepdim=True)).sum(1) > 1).sum())
