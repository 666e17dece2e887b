"""Projected gradient descent (Madry et al., 2018) at a given norm, which each image has of its own.

Shapes: (b, 3, H, W) pixels in [0, 1], eps (b,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alignet.attacks.perturbation import each, margin_gradient, norms, project, steepest
from alignet.backbones.gradients import Classifier


def pgd(
    classify: Classifier,
    images: Tensor,
    labels: Tensor,
    eps: Tensor,
    *,
    norm: str = "l2",
    steps: int = 10,
    step: float = 0.25,
    proportional: bool = True,
    surface: str = "ball",
    start: Tensor | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Images (b, 3, H, W) after `steps` steps that raise the cross-entropy of labels (b,) int64.

    Each step goes step * eps (proportional) or step along the steepest direction of the norm, then onto the ball or
    sphere of norm eps (b,) around the images, then into [0, 1]. The cut to [0, 1] comes last, so that a perturbation on
    the sphere can end shorter than eps. start: perturbations to begin with, else none. first: the gradient at the start
    where it is known already, as (b, 3, H, W) with the sign of rising cross-entropy.
    """
    return ascend(
        lambda pixels: -margin_gradient(classify, pixels, labels, "cross_entropy").gradient, images, eps, norm=norm,
        steps=steps, step=step, proportional=proportional, surface=surface, start=start, first=first,
    )  # fmt: skip


def ascend(
    gradient: Callable[[Tensor], Tensor],
    images: Tensor,
    eps: Tensor,
    *,
    norm: str,
    steps: int,
    step: float,
    proportional: bool = True,
    surface: str = "ball",
    start: Tensor | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Images (b, 3, H, W) after `steps` steps that raise a function of them, as `pgd` takes them.

    gradient: of the function by pixels (b, 3, H, W), of which the direction or the signs count; where it is zero, an
    image stays where it is.
    """
    perturbation = torch.zeros_like(images) if start is None else start
    lengths = step * eps if proportional else torch.full_like(eps, step)
    for number in range(steps):
        if number == 0 and first is not None:
            rising = first
        else:
            rising = gradient(images + perturbation)
        moved = perturbation + each(lengths) * steepest(rising, norm)
        perturbation = (images + project(moved, eps, norm, surface)).clamp(0, 1) - images
    return (images + perturbation).clamp(0, 1)


def random_start(images: Tensor, eps: Tensor, norm: str, generator: torch.Generator) -> Tensor:
    """Perturbations drawn uniformly from the ball of norm eps (b,), cut so that images stay within [0, 1].

    generator: of the images' device.
    """
    shape, device = images.shape, images.device
    if norm == "linf":
        drawn = (2 * torch.rand(shape, generator=generator, device=device) - 1) * each(eps)
    else:
        direction = torch.randn(shape, generator=generator, device=device)
        radius = torch.rand(len(images), generator=generator, device=device) ** (1 / images[0].numel())
        drawn = direction * each(radius * eps / norms(direction, "l2"))
    return (images + drawn).clamp(0, 1) - images
