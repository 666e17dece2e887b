"""A fast attack for the smallest perturbation, in l2 or l-inf.

As DDN (Rony et al., 2019) it parts direction from length: the direction turns along the gradient, the length shrinks
after a success and grows after a failure. What makes it fast: the gradient is in turn that of the cross-entropy, which
sees all other classes, and that of the margin, which leads straight to the nearest, and at the end the margin's alone;
the length changes by large factors first and small ones last; until the first success it doubles. On EfficientNet-Lite0
20 steps find shorter perturbations than DDN's 50 (docs/decisions.md).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from alignet.attacks.perturbation import (
    MARGIN,
    broken,
    each,
    margin_gradient,
    margins,
    norms,
    project,
    steepest,
    unit,
    without_direction,
)
from alignet.backbones.gradients import Classifier

TURN = (1.0, 0.3)  # weight of the gradient beside the direction so far, first and last step [ours]
CHANGE = (
    0.4,
    0.01,
)  # by how much the length shrinks or grows, first and last step [ours, chosen on 16 photographs]
MIXED = 0.6  # part of the steps in which the two gradients take turns [ours]
POLISH = 4  # bisections of the length at the end, forward passes alone
FIRST = {"l2": 8e-4, "linf": 2e-3}  # first length: l2 by pixel value (0.3 at 224 x 224), l-inf itself [ours]


class Found(NamedTuple):
    """The nearest images that are answered otherwise (b, 3, H, W), whether there are (b,), and where gradients were
    zero or not finite in some step (b,)."""

    images: Tensor
    broken: Tensor
    no_gradient: Tensor


def minimum_norm(
    classify: Classifier, images: Tensor, labels: Tensor, *, norm: str = "l2", steps: int = 20, high: float = math.inf
) -> Found:  # fmt: skip
    """Look for the smallest perturbation that lets another class lead.

    images: (b, 3, H, W) float32 in [0, 1]. labels: (b,) int64, the answers to change. steps: forward and backward
    passes. high: the largest norm that is tried. Images whose gradient is 0 or not finite leave the batch.
    """
    search = _Search(images, norm, high)
    for step in range(steps):
        if not len(search.rows):
            break
        done = step / max(steps - 1, 1)
        loss = "margin" if step % 2 or done > MIXED else "cross_entropy"
        search.step(classify, labels, done, loss)
    search.last(classify, labels)
    best = _polished(classify, images, search.best, labels, search.length < math.inf)
    return Found(best, search.length < math.inf, search.no_gradient)


class _Search:
    """The images of a batch in their search; `rows` are those that still take part."""

    def __init__(self, images: Tensor, norm: str, high: float):
        count, self.norm, self.high, self.clean = len(images), norm, high, images
        first = FIRST[norm] * (math.sqrt(images[0].numel()) if norm == "l2" and count else 1)
        self.rows = torch.arange(count, device=images.device)
        self.perturbation = torch.zeros_like(images)
        self.eps = images.new_full((count,), min(first, high))
        self.best, self.length = images.clone(), images.new_full((count,), math.inf)
        self.no_gradient = torch.zeros(count, dtype=torch.bool, device=images.device)

    def _record(self, images: Tensor, margin: Tensor, rows: Tensor) -> Tensor:
        """Keep what is answered otherwise and nearer than before; returns which are answered otherwise."""
        turned, length = broken(margin, MARGIN), norms(images - self.clean[rows], self.norm)
        nearer = turned & (length < self.length[rows])
        self.best[rows[nearer]], self.length[rows[nearer]] = images[nearer], length[nearer]
        return turned

    def step(self, classify: Classifier, labels: Tensor, done: float, loss: str) -> None:
        """One forward and backward pass. done: from 0 in the first to 1 in the last. loss: as of margin_gradient."""
        rows, clean = self.rows, self.clean[self.rows]
        cosine = (1 + math.cos(math.pi * done)) / 2
        turn, change = (last + (first - last) * cosine for first, last in (TURN, CHANGE))
        images = (clean + self.perturbation[rows]).clamp(0, 1)
        margin, gradient = margin_gradient(classify, images, labels[rows], loss)
        turned = self._record(images, margin, rows)
        flat = without_direction(gradient)
        self.no_gradient[rows[flat]] = True
        best, eps = self.length[rows], self.eps[rows]
        if done > 0:
            shorter = torch.minimum(eps, best) * (1 - change)
            longer = torch.where(best < math.inf, eps * (1 + change), eps * 2).clamp_max(self.high)
            eps = torch.where(turned, shorter, torch.minimum(longer, best * (1 - CHANGE[1] / 2)))
        so_far = images - clean
        if self.norm == "l2":
            direction = unit(so_far) - turn * unit(gradient)
            moved = project(direction, eps, "l2", "sphere")
        else:
            moved = project(so_far - turn * each(eps) * steepest(gradient, "linf"), eps, "linf")
        kept = ~flat
        self.rows, self.eps[rows] = rows[kept], eps
        self.perturbation[self.rows] = moved[kept]

    def last(self, classify: Classifier, labels: Tensor) -> None:
        """Look at where the last step went."""
        if len(self.rows):
            images = (self.clean[self.rows] + self.perturbation[self.rows]).clamp(0, 1)
            self._record(images, margins(classify, images, labels[self.rows]), self.rows)


def _polished(classify: Classifier, clean: Tensor, best: Tensor, labels: Tensor, found: Tensor) -> Tensor:
    """Shorten along the line to the original, by bisection of the last tenth."""
    rows = found.nonzero()[:, 0]
    best = best.clone()
    if not len(rows):
        return best
    low, high = torch.full_like(clean[rows, 0, 0, 0], 0.9), torch.ones_like(clean[rows, 0, 0, 0])
    whole = best[rows] - clean[rows]
    for _ in range(POLISH):
        middle = (low + high) / 2
        images = (clean[rows] + each(middle) * whole).clamp(0, 1)
        turned = broken(margins(classify, images, labels[rows]), MARGIN)
        best[rows[turned]] = images[turned]
        low, high = torch.where(turned, low, middle), torch.where(turned, middle, high)
    return best
