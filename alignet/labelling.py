"""The teacher's answers to drawn triplets: similarities in its mapped or raw space, odd one out last.

Shape suffixes: m images, p features, n triplets.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from alignet.checkpoints import Checkpoints
from alignet.progress import progress
from alignet.triplets import (
    check_triplets,
    entropy,
    odd_one_last,
    probabilities,
    similarities,
    similarities_of,
)

Transform = Callable[[np.ndarray], np.ndarray]  # float32 (rows, p) -> (rows, q), row by row
_ROWS = 1 << 14  # rows mapped at a time
_GRAM = 4096  # up to here all similarities are computed at once and looked up


def label(
    features: np.ndarray,
    triplets: np.ndarray,
    *,
    transform: Transform | None = None,
    block: int = 1 << 14,
    hold_bytes: int = 8 << 30,
    checkpoints: Checkpoints | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Triplets reordered so the teacher's odd one out is last, and their similarities.

    Takes the arguments of `teacher_similarities`. Returns int64 (n, 3) and float32 (n, 3), ordered
    [s01, s02, s12], so that entry 0 is the largest; on a tie the first pair of (01, 02, 12) wins.
    """
    sims = teacher_similarities(
        features,
        triplets,
        transform=transform,
        block=block,
        hold_bytes=hold_bytes,
        checkpoints=checkpoints,
    )
    reordered = np.empty(triplets.shape, dtype=np.int64)
    for start in range(0, len(triplets), block):
        rows = slice(start, start + block)
        answered = odd_one_last(
            torch.from_numpy(triplets[rows].astype(np.int64)), torch.from_numpy(sims[rows])
        )
        reordered[rows], sims[rows] = answered[0].numpy(), answered[1].numpy()
    return reordered, sims


def teacher_similarities(
    features: np.ndarray,
    triplets: np.ndarray,
    *,
    transform: Transform | None = None,
    block: int = 1 << 14,
    hold_bytes: int = 8 << 30,
    checkpoints: Checkpoints | None = None,
) -> np.ndarray:
    """Dot products [s01, s02, s12] of given triplets in the space transform(features): float32 (n, 3).

    features: (m, p) float16 or float32, in memory or memory-mapped. triplets: (n, 3) rows of it.
    transform: None for the raw space, or a function of float32 rows such as an affine map's `apply`.
    block: triplets answered at a time. hold_bytes: up to here the mapped features are computed once
    and held in memory (m x q x 4 bytes); above, each block maps the rows it needs, which computes a
    row again in every block it occurs in. Which way was taken may change the last bits.
    With `checkpoints` an interrupted run continues at its last saved block, to the same bytes.
    Raises ValueError for triplets outside the rows and similarities that are not finite.
    """
    check_triplets(triplets, len(features), "triplets to label")
    one = _mapped(features[:1], transform)
    space = _hold(features, transform, one.shape[1]) if len(features) * one.nbytes <= hold_bytes else None
    if space is not None and len(space) <= _GRAM:
        found = similarities(space, torch.from_numpy(triplets.astype(np.int64))).numpy()
        _check_finite(found, triplets, 0)
        return found
    return _by_block(features, triplets, transform, space, block, checkpoints)


def _by_block(
    features: np.ndarray,
    triplets: np.ndarray,
    transform: Transform | None,
    space: Tensor | None,
    block: int,
    checkpoints: Checkpoints | None,
) -> np.ndarray:
    sims, done = np.empty((len(triplets), 3), dtype=np.float32), 0
    latest = checkpoints.latest() if checkpoints else None
    if latest:
        # only whole blocks are resumed, so that a block always holds the same triplets
        done = latest[0] // block * block
        sims[:done] = latest[1]["sims"][:done].numpy()
    with progress("labelling", len(triplets), "triplets", done=done) as advance:
        for start in range(done, len(triplets), block):
            wanted = triplets[start : start + block].astype(np.int64)
            rows, local = np.unique(wanted, return_inverse=True) if space is None else (None, wanted)
            mapped = torch.from_numpy(_mapped(features[rows], transform)) if space is None else space
            first, second, third = torch.from_numpy(local.reshape(-1, 3)).unbind(1)
            found = similarities_of((mapped[first], mapped[second], mapped[third])).numpy()
            _check_finite(found, wanted, start)
            sims[start : start + block] = found
            advance(len(wanted))
            if checkpoints and checkpoints.due():
                end = start + len(wanted)
                checkpoints.save(end, {"sims": torch.from_numpy(sims[:end])}, {})
    return sims


def _mapped(rows: np.ndarray, transform: Transform | None) -> np.ndarray:
    values = np.ascontiguousarray(rows, dtype=np.float32)
    if transform is not None:
        values = np.ascontiguousarray(transform(values), dtype=np.float32)
    return values


def _hold(features: np.ndarray, transform: Transform | None, width: int) -> Tensor:
    if transform is None and features.dtype == np.float32:
        # torch warns about views of read-only memory
        return torch.from_numpy(
            np.ascontiguousarray(features if features.flags.writeable else features.copy())
        )
    space = np.empty((len(features), width), dtype=np.float32)
    for start in range(0, len(features), _ROWS):
        space[start : start + _ROWS] = _mapped(features[start : start + _ROWS], transform)
    return torch.from_numpy(space)


def _check_finite(sims: np.ndarray, triplets: np.ndarray, start: int) -> None:
    bad = ~np.isfinite(sims).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"labelling: expected finite similarities, found {sims[row].tolist()} for triplet {start + row} "
            f"(images {triplets[row].tolist()}); check the features and the map for NaN and overflow."
        )


def label_entropy(sims: np.ndarray, tau: float) -> float:
    """Mean Shannon entropy in nats of softmax(sims / tau) over triplets (n, 3), within [0, log 3]."""
    if not tau > 0:
        raise ValueError(f"label_entropy: expected a temperature above 0, found {tau}.")
    if len(sims) == 0:
        raise ValueError("label_entropy: expected at least one triplet, found none.")
    total = 0.0
    for start in range(0, len(sims), 1 << 18):
        rows = torch.from_numpy(np.asarray(sims[start : start + (1 << 18)], dtype=np.float64))
        total += float(entropy(probabilities(rows, tau)).sum())
    return total / len(sims)


def temperature_for_entropy(sims: np.ndarray, target: float) -> float:
    """The temperature at which labels softmax(sims / tau) have mean entropy `target` nats.

    The mean entropy grows with tau from near 0 to log 3, so bisection on log tau finds the only answer,
    here to a relative 1e-7 in tau. Raises ValueError for a target outside (0, log 3) and for one that
    no temperature reaches, as when most triplets are exact ties.
    """
    if not 0 < target < math.log(3):
        raise ValueError(f"entropy: expected a target between 0 and {math.log(3):.4f} nats, found {target}.")
    spread = float(np.abs(np.asarray(sims, dtype=np.float64) - np.mean(sims, axis=1, keepdims=True)).mean())
    if not (math.isfinite(spread) and spread > 0):
        raise ValueError("entropy: expected similarities that differ, found equal or infinite ones.")
    low, high = math.log(spread) - 14, math.log(spread) + 14
    lowest, highest = label_entropy(sims, math.exp(low)), label_entropy(sims, math.exp(high))
    if not lowest < target < highest:
        raise ValueError(
            f"entropy: expected a target between {lowest:.4f} and {highest:.4f} nats, which these "
            f"similarities reach, found {target}; some triplets are exact ties."
        )
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if label_entropy(sims, math.exp(middle)) < target else (low, middle)
    return math.exp((low + high) / 2)


def disagreement(sims_a: np.ndarray, sims_b: np.ndarray) -> float:
    """Fraction of triplets for which two teachers choose different odd ones out, within [0, 1].

    Both (n, 3), for the same triplets in the same order of columns: `teacher_similarities` of both, not
    what `label` returns, where each teacher's own choice has been put first. On a tie the first
    pair of (01, 02, 12) is the choice, as in `label`.
    """
    if sims_a.shape != sims_b.shape or sims_a.ndim != 2 or sims_a.shape[1] != 3 or len(sims_a) == 0:
        raise ValueError(
            f"disagreement: expected two arrays of one shape (n, 3), found {sims_a.shape} and {sims_b.shape}."
        )
    return float(np.mean(sims_a.argmax(axis=1) != sims_b.argmax(axis=1)))
