"""Norms of perturbations, projections onto balls and spheres, and the margin that an attack must turn.

Shapes: b images, (b, 3, H, W) pixels in [0, 1]. norm: "l2" or "linf", over all pixels and channels of an image, in the
units of pixels in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alignet.backbones.gradients import Classifier

MARGIN = 1e-4  # logits by which our own attack has another class lead: float32 rounding differs with the batch by 1e-5
_TINY = 1e-30


class Margins(NamedTuple):
    """Of each image: the label's logit less the largest other one (b,), and its gradient by pixels (b, 3, H, W)."""

    margin: Tensor
    gradient: Tensor


def norms(perturbation: Tensor, norm: str) -> Tensor:
    """The norm (b,) of each of (b, 3, H, W)."""
    return torch.linalg.vector_norm(perturbation.flatten(1), ord=2 if norm == "l2" else torch.inf, dim=1)


def each(values: Tensor) -> Tensor:
    """(b,) as (b, 1, 1, 1), to multiply images with."""
    return values.view(-1, 1, 1, 1)


def unit(direction: Tensor) -> Tensor:
    """(b, 3, H, W) at l2 norm 1; zero stays zero."""
    return direction / each(norms(direction, "l2").clamp_min(_TINY))


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The step of norm 1 that raises a linear function of this gradient most."""
    return unit(gradient) if norm == "l2" else gradient.sign()


def without_direction(gradient: Tensor) -> Tensor:
    """Whether a gradient (b, 3, H, W) leads nowhere, (b,) bool: it is 0, or a value of it is not finite."""
    return ~(torch.isfinite(gradient).flatten(1).all(1) & (norms(gradient, "l2") > 0))


def project(perturbation: Tensor, eps: Tensor, norm: str, surface: str = "ball") -> Tensor:
    """The nearest perturbation of norm at most eps (b,), or with surface "sphere" of norm eps in l2.

    On the sphere of l-inf: scaled, which is the usual reading of "norm equals eps" there.
    """
    if surface == "ball" and norm == "linf":
        return torch.maximum(torch.minimum(perturbation, each(eps)), -each(eps))
    length = norms(perturbation, norm).clamp_min(_TINY)
    scale = eps / length
    return perturbation * each(scale if surface == "sphere" else scale.clamp_max(1.0))


def lead(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's logit less the largest other one, (b,): below 0 where the answer is another."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return logits.gather(1, labels[:, None])[:, 0] - others.amax(1)


def broken(margin: Tensor, by: float = 0.0) -> Tensor:
    """Whether another class leads, by more than `by` logits, (b,) bool; NaN is no success."""
    return margin < -by


@torch.no_grad()
def margins(classify: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """The margin (b,) of each image, without gradients."""
    return lead(classify(images), labels)


def margin_gradient(classify: Classifier, images: Tensor, labels: Tensor, loss: str = "margin") -> Margins:
    """The margin and a gradient: of the margin, or along that of minus the cross-entropy (loss "cross_entropy").

    The latter is of the label's logit less the log of the sum of all other classes' exponentials. The cross-entropy
    rises where this falls, so their gradients have one direction; but this one does not vanish in float32 where the
    network is sure. Whoever uses it takes its direction or its signs.
    """
    pixels = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = classify(pixels)
        margin = lead(logits, labels)
        value = margin
        if loss == "cross_entropy":
            others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
            value = logits.gather(1, labels[:, None])[:, 0] - others
        (gradient,) = torch.autograd.grad(value.sum(), pixels)
    return Margins(margin.detach(), gradient)
