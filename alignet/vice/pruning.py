"""Which dimensions of a VICE posterior carry weight, and in which order."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def p_values(loc: Tensor, scale: Tensor) -> Tensor:
    """Posterior mass at or below zero of each entry N(loc, scale^2), within [0, 1]; shapes (m, d)."""
    # erfc rather than the normal cdf, which torch computes as 1 + erf: that loses the far tail
    return 0.5 * torch.erfc(loc.double() / (scale.double() * math.sqrt(2)))


def benjamini_hochberg(p: Tensor, alpha: float) -> Tensor:
    """Which hypotheses are rejected at false discovery rate `alpha`, for each column of p (m, d).

    In a column the r smallest p-values are rejected, r the largest rank with p_(r) <= alpha * r / m.
    Returns (m, d) bool.
    """
    m = len(p)
    ordered = p.sort(0).values
    ranks = torch.arange(1, m + 1, dtype=p.dtype, device=p.device).unsqueeze(1)
    passed = ordered <= alpha * ranks / m
    count = (passed * ranks).amax(0).long()  # the largest rank that passed, 0 where none did
    threshold = ordered.gather(0, (count - 1).clamp_min(0).unsqueeze(0))
    return (p <= threshold) & (count > 0)


def kept_dimensions(loc: Tensor, scale: Tensor, *, k: int, alpha: float) -> Tensor:
    """Dimensions in which more than `k` objects are significantly above zero: (kept,) int64.

    loc, scale: (m, d). Benjamini-Hochberg across the objects of each dimension, as in the VICE paper.
    Sorted by the L1 norm of loc, descending; equal norms keep their order.
    """
    counts = benjamini_hochberg(p_values(loc, scale), alpha).sum(0)
    kept = torch.nonzero(counts > k).squeeze(1)
    order = loc[:, kept].abs().sum(0).sort(descending=True, stable=True).indices
    return kept[order]
