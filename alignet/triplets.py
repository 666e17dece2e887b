"""The one triplet convention, and everything computed from three similarities.

A triplet array is an integer array of shape (n, 3) whose column 2 holds the odd one out, so columns
0 and 1 are the pair that was chosen as most similar. Similarities and probabilities of a triplet are
ordered [s01, s02, s12]; entry 0 belongs to the chosen pair. Loaders convert to this convention.

Shape suffixes: n triplets, m objects, p features.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

PAIRS = ((0, 1), (0, 2), (1, 2))  # the order of similarities; the odd one of pair r is column 2 - r
LOSSES = ("kl", "jsd", "hard")
_TIE = 1e-10  # two similarities this close, relative to the triplet's largest, are a tie
_GATHERED = 1 << 19  # numbers of a column's rows gathered at a time: measured best, they stay in cache


def similarities(features: Tensor, triplets: Tensor) -> Tensor:
    """Dot products of the three pairs of each triplet.

    features: (m, p) float. triplets: (n, 3) int64, rows of `features`.
    Returns (n, 3), ordered [s01, s02, s12]. While the m x m Gram matrix is small it is computed once
    and looked up; otherwise rows are gathered block by block, so n x p is never held.
    """
    m = len(features)
    first, second, third = triplets.unbind(1)
    if m <= 4096:
        gram = (features @ features.T).flatten()  # index_select: three times as fast as gram[...]
        places = (first * m + second, first * m + third, second * m + third)
        return torch.stack([gram.index_select(0, place) for place in places], 1)
    return gathered_similarities(features, triplets)


def gathered_similarities(features: Tensor, triplets: Tensor) -> Tensor:
    """`similarities` by gathering rows, block by block: for triplets that are few beside m^2."""
    blocks = [
        similarities_of(tuple(features.index_select(0, column) for column in block.unbind(1)))
        for block in triplets.split(max(64, _GATHERED // max(1, features.shape[1])))
    ]
    return torch.cat(blocks) if blocks else features.new_zeros((0, 3))


def similarities_of(rows: tuple[Tensor, ...]) -> Tensor:
    """Dot products [s01, s02, s12] (n, 3) of three aligned feature arrays, each (n, p)."""
    first, second, third = rows
    return torch.stack([(first * second).sum(-1), (first * third).sum(-1), (second * third).sum(-1)], -1)


def probabilities(sims: Tensor, tau: float = 1.0) -> Tensor:
    """softmax(sims / tau) over the last axis (3 pairs): the triplet distribution, AligNet eq. 4."""
    return torch.softmax(sims / tau, dim=-1)


def entropy(probs: Tensor) -> Tensor:
    """Shannon entropy of each distribution over the last axis, in nats, within [0, log 3]."""
    return torch.special.entr(probs).sum(-1)


def kl_divergence(target: Tensor, log_q: Tensor) -> Tensor:
    """KL(target || q) in nats per triplet, given target probabilities and log q, both (..., 3).

    The AligNet paper's equations 2 and 5 print `log p` without its weight p; the divergence is meant.
    """
    return (torch.xlogy(target, target) - target * log_q).sum(-1)


def js_divergence(target: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats per triplet, within [0, log 2]; the official code's loss."""
    q = log_q.exp()
    # from logs, as q log q has no finite gradient where q underflows
    log_middle = torch.logaddexp(torch.log(target), log_q) - math.log(2)
    return 0.5 * (kl_divergence(target, log_middle) + (q * (log_q - log_middle)).sum(-1))


def hard_loss(log_q: Tensor, chosen: Tensor | None = None) -> Tensor:
    """-log q of the chosen pair in nats per triplet (eq. 1). `chosen` (...,) defaults to entry 0."""
    if chosen is None:
        return -log_q[..., 0]
    return -log_q.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def triplet_loss(
    teacher: Tensor, student: Tensor, *, kind: str, tau_teacher: float, tau_student: float
) -> Tensor:
    """Loss of the student's similarities against the teacher's, one value (nats) per triplet.

    teacher, student: (..., 3) similarities [s01, s02, s12]. kind: one of LOSSES; `kl` is eq. 5 over
    the three distinct pairs (the paper's line repeats S_ij), `jsd` the official code's choice, `hard`
    the cross-entropy of the teacher's most similar pair.
    """
    log_q = torch.log_softmax(student / tau_student, dim=-1)
    if kind == "hard":
        return hard_loss(log_q, teacher.argmax(-1))
    target = probabilities(teacher, tau_teacher)
    if kind == "kl":
        return kl_divergence(target, log_q)
    if kind == "jsd":
        return js_divergence(target, log_q)
    raise ValueError(f"unknown triplet loss {kind!r}: expected one of {', '.join(LOSSES)}")


def correct(sims: Tensor) -> Tensor:
    """Whether the chosen pair (entry 0) is strictly the most similar; a tie never counts. (n,) bool."""
    return (sims[..., 0] > sims[..., 1]) & (sims[..., 0] > sims[..., 2])


def near_largest(sims: Tensor) -> Tensor:
    """Which of similarities (3, b) float64 are the largest of their triplet, (3, b) bool: several where they tie.

    Two tie where they differ by at most 1e-10 of the triplet's largest magnitude, so that rounding error cannot break a
    tie. The three pairs come first, so that memory is read in order.
    """
    largest = sims.amax(0)
    return sims >= largest - _TIE * torch.maximum(largest.abs(), sims.amin(0).abs())


def decided(sims: Tensor) -> tuple[Tensor, int]:
    """Whether the chosen pair, entry 0 of similarities (3, b), is largest by `near_largest`; a tie never counts.

    Returns (b,) bool, and how many triplets tie for the largest.
    """
    near = near_largest(sims)
    tied = (near[0] & near[1]) | (near[0] & near[2]) | (near[1] & near[2])
    return near[0] & ~tied, int(tied.sum())


def accuracy(sims: Tensor) -> float:
    """Odd-one-out accuracy of similarities (n, 3) against the convention's answer, within [0, 1]."""
    if sims.shape[0] == 0:
        return math.nan
    return correct(sims).double().mean().item()


def odd_one_last(triplets: Tensor, sims: Tensor) -> tuple[Tensor, Tensor]:
    """Reorder triplets (n, 3) and similarities (n, 3) so the most similar pair comes first.

    Columns 0 and 1 keep their order among themselves. On a tie the first pair of PAIRS wins.
    """
    pair = sims.argmax(-1)
    order = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 2, 0]], device=triplets.device)[pair]
    # similarities after reordering: pair (0,2,1) swaps s01 and s02; (1,2,0) gives s12, s01, s02
    sim_order = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 0, 1]], device=sims.device)[pair]
    return triplets.gather(1, order), sims.gather(1, sim_order)


def all_triplets(m: int) -> Tensor:
    """Every unordered triplet i < j < k of m items: (m(m-1)(m-2)/6, 3) int64, lexicographic."""
    return torch.combinations(torch.arange(m), 3)


def check_triplets(triplets: np.ndarray, objects: int, name: str) -> None:
    """Raise ValueError with what, expected, found and fix unless `triplets` is (n, 3) of distinct ids."""
    if triplets.ndim != 2 or triplets.shape[1] != 3:
        raise ValueError(
            f"{name}: expected triplets of shape (n, 3), found {triplets.shape}; give one row per choice."
        )
    if len(triplets) == 0:
        raise ValueError(
            f"{name}: expected at least one triplet, found none; check the file that was exported."
        )
    if not np.issubdtype(triplets.dtype, np.integer):
        raise ValueError(
            f"{name}: expected integer object indices, found dtype {triplets.dtype}; save them as int32."
        )
    low, high = int(triplets.min()), int(triplets.max())
    if low < 0 or high >= objects:
        fix = "give the object list that these triplets belong to."
        if low == 1 and high == objects:
            fix = "the indices run 1..m, so they look 1-based: set index_base to 1."
        expected = f"expected object indices in 0..{objects - 1}"
        raise ValueError(f"{name}: {expected}, found {low}..{high}; {fix}")
    first, second, third = triplets.T
    repeated = (first == second) | (first == third) | (second == third)
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise ValueError(
            f"{name}: expected three different objects in each triplet, found {int(repeated.sum())} rows "
            f"with a repeated index, the first at row {row}: {triplets[row].tolist()}; remove those rows."
        )
