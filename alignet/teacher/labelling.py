"""The teacher's answers to drawn triplets: similarities in its mapped or raw space, odd one out last.

Stands between the drawing of triplets and fine-tuning. Rows are read where they lie, such as in a memory-mapped file:
no array of triplets x features is ever held.

Shape suffixes: m images, p features, q features after the map, n triplets.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from alignet.data.feature_blocks import BLOCK, Stacked, Transform, float32_rows
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.progress import progress
from alignet.triplets import check_triplets, entropy, odd_one_last, probabilities, similarities

_GRAM = 4096  # images up to which all similarities are computed at once and looked up
_PIECE = 1 << 12  # triplets that a thread answers at a time


def label(
    features: np.ndarray | Stacked,
    triplets: np.ndarray,
    *,
    transform: Transform | None = None,
    block: int = 1 << 16,
    hold_bytes: int = 8 << 30,
    scratch: Path | None = None,
    threads: int | None = None,
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
        scratch=scratch,
        threads=threads,
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
    features: np.ndarray | Stacked,
    triplets: np.ndarray,
    *,
    transform: Transform | None = None,
    block: int = 1 << 16,
    hold_bytes: int = 8 << 30,
    scratch: Path | None = None,
    threads: int | None = None,
    checkpoints: Checkpoints | None = None,
) -> np.ndarray:
    """Dot products [s01, s02, s12] of given triplets in the space transform(features): float32 (n, 3).

    features: (m, p) float16 or float32, in memory or memory-mapped. triplets: (n, 3) rows of it.
    transform: None for the raw space, or a function of float32 rows such as an affine map's `apply`.
    One array without a map is read where it lies. What is mapped (float32), and shards, are first brought into one
    array: in memory, or, where that would take more than `hold_bytes` and a folder `scratch` is given, in a file
    there that is gone afterwards. block: triplets answered between two chances to save.
    threads: None for as many as torch has. Neither they, `block`, `hold_bytes` nor a resumed run change the result.
    Products of float16 rows are exact to float32: halves are widened, multiplied and summed as such.
    Raises ValueError for triplets outside the rows and similarities that are not finite.
    """
    check_triplets(triplets, len(features), "triplets to label")
    if transform is None and features.dtype not in (np.float16, np.float32):
        transform = np.asarray  # of float32 rows
    space = features
    if transform is not None or isinstance(features, Stacked):
        space = _in_one_array(features, transform, hold_bytes, scratch)
    assert isinstance(space, np.ndarray)
    if len(space) <= _GRAM:
        held = torch.from_numpy(np.array(space, dtype=np.float32))
        found = similarities(held, torch.from_numpy(triplets.astype(np.int64))).numpy()
        _check_finite(found, triplets, 0)
        return found
    return _by_block(
        np.ascontiguousarray(space), triplets, block, threads or torch.get_num_threads(), checkpoints
    )


def _in_one_array(
    features: np.ndarray | Stacked, transform: Transform | None, hold_bytes: int, scratch: Path | None
) -> np.ndarray:
    """The features, mapped if there is a map, as one array in memory or in a file without a name."""
    one = features[:1] if transform is None else float32_rows(features[:1], transform)
    shape = (len(features), one.shape[1])
    parts = (
        features[start : start + BLOCK]
        if transform is None
        else float32_rows(features[start : start + BLOCK], transform)
        for start in range(0, len(features), BLOCK)
    )
    if scratch is None or len(features) * one.nbytes <= hold_bytes:
        space = np.empty(shape, dtype=one.dtype)
        for number, part in enumerate(parts):
            space[number * BLOCK : number * BLOCK + len(part)] = part
        return space
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / "space.tmp"
    with open(path, "wb") as handle:  # not through the map: a full disk is then an error and no signal
        for part in parts:
            handle.write(np.ascontiguousarray(part).data)
    space = np.memmap(path, dtype=one.dtype, mode="r", shape=shape)
    path.unlink()  # its bytes stay until the map is closed, and nothing is left if the process ends
    return space


def _by_block(
    space: np.ndarray, triplets: np.ndarray, block: int, threads: int, checkpoints: Checkpoints | None
) -> np.ndarray:
    # here, since a Gram matrix needs none of what numba takes to load
    from alignet.teacher.triplet_kernels import fill_similarities

    sims, done = np.empty((len(triplets), 3), dtype=np.float32), 0
    latest = checkpoints.latest() if checkpoints else None
    if latest:
        done, sims[: latest[0]] = latest[0], latest[1]["sims"].numpy()
    with (
        progress("labelling", len(triplets), "triplets", done=done) as advance,
        ThreadPoolExecutor(threads) as pool,
    ):
        for start in range(done, len(triplets), block):
            wanted = np.ascontiguousarray(triplets[start : start + block], dtype=np.int64)
            found = sims[start : start + block]
            pieces = [slice(first, first + _PIECE) for first in range(0, len(wanted), _PIECE)]
            for waiting in [
                pool.submit(fill_similarities, space, wanted[rows], found[rows]) for rows in pieces
            ]:
                waiting.result()
            _check_finite(found, wanted, start)
            advance(len(wanted))
            if checkpoints and checkpoints.due():
                end = start + len(wanted)
                checkpoints.save(end, {"sims": torch.from_numpy(sims[:end])}, {})
    return sims


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
