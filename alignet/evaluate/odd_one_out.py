"""Odd-one-out accuracy of features on human (or simulated) triplets, beside its triplet entropy.

Shape suffixes: n triplets, m rows of features, p features.
"""

from __future__ import annotations

import numpy as np
import torch

from alignet.evaluate.bootstrap import Score, interval, object_draws
from alignet.triplets import check_triplets, correct, entropy, similarities
from alignet.triplets import probabilities as triplet_probabilities

CHANCE = 1 / 3
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
    units: np.ndarray | None = None,
    over: str = "objects",
    note: str = "",
) -> list[Score]:
    """Four scores on triplets: accuracy by dot product (decides) and by cosine, mean entropy, ties.

    features: (m, p) finite. triplets: (n, 3) int, the odd one last. tau: temperature of the entropy, or "spread": the
    standard deviation of the triplets' similarities, at which spaces of different scale compare.
    probabilities: (n, 3) exact P of the pairs [01, 02, 12], whose mean maximum is the exact noise
    ceiling; otherwise `ceiling` may give one within (0, 1]. units: (m,) ids of what the interval
    resamples, by default each row (see bootstrap.object_draws); `over` names it. `note` is appended to
    the notes. Entropy is in nats, within [0, ln 3]. A tie for the largest similarity counts as wrong.
    """
    x = _checked(features, triplets, dataset)
    ceiling, ceiling_note = _ceiling(probabilities, ceiling, len(triplets), dataset)
    if not (tau == "spread" or (not isinstance(tau, str) and tau > 0)):
        raise ValueError(f"{dataset}: expected tau above 0, or spread, for the triplet entropy, found {tau}")
    index = torch.from_numpy(np.ascontiguousarray(triplets, dtype=np.int64))
    lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    dots, cosines = similarities(x, index), similarities(x / lengths.clamp_min(1e-300), index)
    right, right_cosine = _strictly(dots), _strictly(cosines)
    at = max(dots.std().item(), 1e-300) if isinstance(tau, str) else tau
    nats = entropy(triplet_probabilities(dots, at))
    values = torch.stack([right.double(), right_cosine.double(), nats], 1).numpy()
    rows = np.arange(len(features)) if units is None else np.asarray(units)
    if rows.shape != (len(features),):
        raise ValueError(f"{dataset}: expected one unit per row {(len(features),)}, found {rows.shape}")
    draws = object_draws(values, rows[triplets], draws=bootstrap, seed=seed)
    empty = bootstrap - draws.shape[1]
    shared = [f"{empty} of {bootstrap} draws held no triplet" if empty else "", note]
    zero = int((lengths == 0).sum())
    notes = {
        "odd_one_out": [ceiling_note, _said(_tied(dots))],
        "odd_one_out_cosine": [ceiling_note, _said(_tied(cosines)), f"{zero} zero vectors" if zero else ""],
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
                *interval(draws[column]),
                n=len(triplets),
                unit="triplets",
                over=over,
                chance=CHANCE if accuracy else None,
                ceiling=ceiling if accuracy else None,
                note="; ".join(text for text in texts + shared if text),
            )
        )
    ties = float(_tied(dots))
    return [*scores, Score("ties", dataset, ties, None, None, len(triplets), "triplets", "", note=note)]


def _entropy_note(tau: float | str, exact: np.ndarray | None) -> str:
    said = "the standard deviation of the row's own similarities" if isinstance(tau, str) else f"{tau:g}"
    text = f"tau = {said}; at most ln 3 = 1.099"
    if exact is None:
        return text
    own = entropy(torch.as_tensor(exact, dtype=torch.float64)).mean().item()
    return f"{text}; the exact distributions have {own:.3f}"


def _said(ties: int) -> str:
    return f"{ties} ties, counted as wrong" if ties else ""


def _checked(features: np.ndarray, triplets: np.ndarray, dataset: str) -> torch.Tensor:
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
    if exact.shape != (n, 3) or not np.allclose(exact.sum(1), 1, atol=1e-4) or exact.min() < 0:
        raise ValueError(
            f"{dataset}: expected probabilities of shape {(n, 3)}, at least 0, whose rows sum to 1, "
            f"found shape {exact.shape}, smallest {exact.min() if exact.size else 'none'}."
        )
    return float(exact.max(1).mean()), "ceiling exact"


def _rounded(sims: torch.Tensor) -> torch.Tensor:
    """Similarities (n, 3) relative to each triplet's largest, so that rounding error cannot break a tie."""
    largest = sims.abs().amax(1, keepdim=True)
    return torch.round(sims / torch.where(largest == 0, 1.0, largest), decimals=_DECIMALS)


def _strictly(sims: torch.Tensor) -> torch.Tensor:
    return correct(_rounded(sims))


def _tied(sims: torch.Tensor) -> int:
    rounded = _rounded(sims)
    return int(((rounded == rounded.amax(1, keepdim=True)).sum(1) > 1).sum())
