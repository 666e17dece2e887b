"""Linsley et al. (2023): the smallest norm at which a few steps of PGD change the answer, by bisection.

Two searches: Algorithm 1 as printed, bisection of [low, high] until it is narrower than `threshold`; and that of the
published code, which tries `high`, then 1, then bisects [low, 1] to .01 or [1, high] to .1. What is computed is what a
loop over single images would compute, with two thirds of its passes (3 steps, 10 norms): the gradient at the original
is the same for every norm that is tried, so it is computed once, and the last attack is not run twice. It is less than
half of the work only beside a loop that computes gradients by weights as well.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alignet.attacks.minimum_norm import Found
from alignet.attacks.perturbation import broken, margin_gradient, margins, without_direction
from alignet.attacks.pgd import pgd
from alignet.backbones.gradients import Classifier
from alignet.config.attack import COARSE, FINE, SPLIT, PgdSearch


def pgd_search(
    classify: Classifier, images: Tensor, labels: Tensor, *, norm: str, steps: int, high: float, search: PgdSearch
) -> Found:  # fmt: skip
    """Bisect the norm of PGD for each image. Images are (b, 3, H, W) float32 in [0, 1], labels (b,) int64.

    search.keep "midpoint": the attack at the last midpoint, as printed, which may have failed; "bound": the attack at
    the smallest norm that succeeded.
    """
    rising = -margin_gradient(classify, images, labels, "cross_entropy").gradient
    flat = without_direction(rising)
    last, best = images.clone(), images.clone()
    last_turned, best_turned = torch.zeros_like(flat), torch.zeros_like(flat)

    def tried(rows: Tensor, eps: Tensor) -> Tensor:
        """Whether PGD at these norms changes the answers of the images `rows`."""
        attacked = pgd(
            classify, images[rows], labels[rows], eps, norm=norm, steps=steps, step=search.step,
            proportional=search.proportional, surface=search.surface, first=rising[rows],
        )  # fmt: skip
        turned = broken(margins(classify, attacked, labels[rows]))
        last[rows], last_turned[rows] = attacked, turned
        best[rows[turned]], best_turned[rows[turned]] = attacked[turned], True
        return turned

    rows = (~flat).nonzero()[:, 0]
    low, high_of = images.new_full((len(images),), search.low), images.new_full((len(images),), high)
    width = images.new_full((len(images),), search.threshold)
    if search.stages == 2 and len(rows):
        rows = rows[tried(rows, high_of[rows])]
        if len(rows):
            middle = torch.full_like(low, min(SPLIT, high))
            within = tried(rows, middle[rows])
            high_of[rows[within]], low[rows[~within]] = min(SPLIT, high), min(SPLIT, high)
            width[rows[within]], width[rows[~within]] = FINE, COARSE
    while len(rows := rows[(high_of - low)[rows] >= width[rows]]):
        middle = low[rows] + (high_of[rows] - low[rows]) / 2
        turned = tried(rows, middle)
        high_of[rows[turned]], low[rows[~turned]] = middle[turned], middle[~turned]
    if search.keep == "midpoint":
        return Found(last, last_turned, flat)
    return Found(best, best_turned, flat)


def bisections(search: PgdSearch, high: float) -> int:
    """How often PGD runs for an image that is broken."""
    if search.stages == 2:
        return 2 + math.ceil(math.log2(max((SPLIT - search.low) / FINE, (high - SPLIT) / COARSE)))
    return math.ceil(math.log2((high - search.low) / search.threshold))
