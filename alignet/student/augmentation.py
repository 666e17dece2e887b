"""Random changes to the images of a step: mirrored, cropped, recoloured; on the device, normalised before.

Every draw is one of the whole batch's, so processes that share a batch draw what one process would have drawn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def augment(
    images: Tensor,
    flip: float,
    crop: float,
    generator: torch.Generator,
    among: tuple[int, slice | Tensor] | None = None,
) -> Tensor:
    """Mirror each image with probability `flip`, and cut and resize a random part of its area in [crop, 1].

    images: (b, channels, H, W). The part's aspect ratio is drawn from [3/4, 4/3] (log-uniformly) as far as it fits.
    among: (n, rows), where these images are `rows` (a slice or their numbers) of a batch of n, whose draws they get.
    """
    if flip == 0 and crop == 1:
        return images
    draws = _draws(5, len(images), generator, among)
    area = crop + (1 - crop) * draws[0]
    ratio = torch.exp((2 * draws[1] - 1) * math.log(4 / 3)) if crop < 1 else torch.ones(len(images))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = 1 - 2 * (draws[4] < flip).float()
    theta = torch.zeros((len(images), 2, 3))
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * draws[2] - 1) * (1 - width), (2 * draws[3] - 1) * (1 - height)
    grid = nn.functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def recolour(
    images: Tensor,
    colour: float,
    grey: float,
    generator: torch.Generator,
    among: tuple[int, slice] | None = None,
) -> Tensor:
    """Change saturation, contrast and brightness of each image at random, and make a share `grey` of them grey.

    images: (b, 3, H, W), normalised. colour: saturation and contrast are multiplied by a factor within 1 +- colour,
    each about the mean that it leaves alone, and brightness moves by up to colour / 2 units of the normalised scale.
    among: see `augment`.
    """
    if colour == 0 and grey == 0:
        return images
    draws = _draws(4, len(images), generator, among)[..., None, None, None].to(images.device)
    saturation, contrast, shift = (
        1 + colour * (2 * draws[0] - 1),
        1 + colour * (2 * draws[1] - 1),
        draws[2] - 0.5,
    )
    saturation = saturation * (draws[3] >= grey)
    shade = images.mean(1, keepdim=True)
    images = shade + (images - shade) * saturation
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + (images - middle) * contrast + colour * shift


def _draws(
    count: int, images: int, generator: torch.Generator, among: tuple[int, slice | Tensor] | None
) -> Tensor:
    """Uniform numbers (count, images): those that the whole batch draws, restricted to these images."""
    total, rows = among or (images, slice(0, images))
    return torch.rand((count, total), generator=generator)[:, rows]
