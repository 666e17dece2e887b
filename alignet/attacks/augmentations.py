"""Random changes of images before a network trains on them, by torchvision, each image with a generator of its own.

What an image becomes follows from its seed alone: batches and processes do not matter.

Shapes: b images, (b, 3, H, W) pixels in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from alignet.config import Augmentation

_RATIO = math.log(4 / 3)  # of a crop's sides, either way
_KERNEL = 0.1  # of a blur, as a share of the side (Chen et al., 2020)


def augmented(images: Tensor, how: Augmentation, seeds: Sequence[int]) -> Tensor:
    """Images (b, 3, H, W) float32 in [0, 1], each changed at random from its own seed; the same shape and range."""
    if not len(images):
        return images
    return torch.stack([_changed(image, how, seed) for image, seed in zip(images, seeds, strict=True)])


def _changed(image: Tensor, how: Augmentation, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(
        16, generator=generator
    ).tolist()  # one for each use: none depends on whether another is needed
    order = torch.randperm(4, generator=generator).tolist()
    high, wide = image.shape[1:]
    if how.crop < 1:
        area = how.crop + (1 - how.crop) * draws[0]
        ratio = math.exp(_RATIO * (2 * draws[1] - 1))
        h, w = (
            max(1, round(side * min(1.0, math.sqrt(part))))
            for side, part in ((high, area / ratio), (wide, area * ratio))
        )
        top, left = int(draws[2] * (high - h + 1)), int(draws[3] * (wide - w + 1))
        image = F.resized_crop(image, top, left, h, w, [high, wide], antialias=True)
    if how.shift:
        down, right = round(how.shift * high), round(how.shift * wide)
        top, left = int(draws[4] * (2 * down + 1)), int(draws[5] * (2 * right + 1))
        image = F.crop(F.pad(image, [right, down]), top, left, high, wide)
    if draws[6] < how.flip:
        image = F.horizontal_flip(image)
    if how.rotation:
        angle = how.rotation * (2 * draws[7] - 1)
        image = F.rotate(image, angle, interpolation=InterpolationMode.BILINEAR)
    if draws[8] < how.jittered:
        image = _jittered(image, how.jitter, order, draws[9:13])
    if draws[13] < how.grey:
        image = F.rgb_to_grayscale(image, 3)
    if draws[14] < how.blur:
        sigma = how.sigma[0] + (how.sigma[1] - how.sigma[0]) * draws[15]
        kernel = [max(3, int(_KERNEL * side)) | 1 for side in (wide, high)]  # in torchvision's order
        image = F.gaussian_blur(image, kernel, [sigma])
    return image.clamp(0, 1)


def _jittered(image: Tensor, jitter: Sequence[float], order: Sequence[int], draws: Sequence[float]) -> Tensor:
    """Brightness, contrast, saturation and hue changed, in a given order, by draws (4) within [0, 1)."""
    for which in order:
        drawn = jitter[which] * (2 * draws[which] - 1)
        if not jitter[which]:
            continue
        if which == 0:
            image = F.adjust_brightness(image, 1 + drawn)
        elif which == 1:
            image = F.adjust_contrast(image, 1 + drawn)
        elif which == 2:
            image = F.adjust_saturation(image, 1 + drawn)
        else:
            image = F.adjust_hue(image, drawn)
    return image
