"""The Harmonizer's loss on maps: people's map against the network's saliency, at the levels of a Gaussian pyramid.

    gradient (b, 3, H, W) -> channels reduced -> saliency -+
    people's map (b, H, W) --------------------------------+-> pyramid, standardised, positive part -> distance

Paper and published code part in the order of these, in the norm, and elsewhere; each is an option, and the presets
`paper` and `code` of conf/harmonizer say which is which (docs/science.md).

Shape suffixes: b images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-5  # beside a standard deviation, so that a constant map gives zeros
_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda gradient: gradient.mean(1),  # signed
    "max": lambda gradient: gradient.abs().amax(1),
    "abs_mean": lambda gradient: gradient.mean(1).abs(),
}


def pyramid(maps: Tensor, levels: int) -> list[Tensor]:
    """The Gaussian pyramid of maps (b, H, W): `levels` of them, the full size first, each half as large as the last.

    The kernel is the 5 x 5 binomial one over 256; every second pixel from the first is kept. Beyond the edge stands
    zero, as in the published code: a map with a constant added is another map. ValueError where the last level would
    have no more than one pixel each way.
    """
    if levels < 1 or min(maps.shape[1:]) >> (levels - 1) < 2:
        raise ValueError(
            f"pyramid: expected 1 or more levels, the last of at least 2 pixels each way, found {levels} levels of "
            f"maps of {maps.shape[2]} x {maps.shape[1]}; lower harmonize.settings.levels."
        )
    row = torch.tensor(_BINOMIAL, dtype=maps.dtype, device=maps.device) / 16
    found = [maps]
    for _ in range(levels - 1):
        image = found[-1][:, None]
        image = F.conv2d(image, row.view(1, 1, 5, 1), stride=(2, 1), padding=(2, 0))
        image = F.conv2d(image, row.view(1, 1, 1, 5), stride=(1, 2), padding=(0, 2))
        found.append(image[:, 0])
    return found


def standardised(maps: Tensor) -> Tensor:
    """z(map): each of (b, H, W) minus its mean, by its standard deviation (over all pixels) plus 1e-5."""
    centred = maps - maps.mean((1, 2), keepdim=True)
    # sqrt has no derivative at 0, where a constant map is
    deviation = centred.square().mean((1, 2), keepdim=True).clamp_min(1e-24).sqrt()
    return centred / (deviation + EPSILON)


def important(maps: Tensor) -> Tensor:
    """z(map)+: the positive part of the standardised map."""
    return standardised(maps).relu()


def levels_of(saliency: Tensor, people: Tensor, order: str, levels: int) -> list[tuple[Tensor, Tensor]]:
    """The pairs (saliency, people's) that are compared, a pair a level, each (b, h, w).

    order: pyramid_first, eq. 1 of the paper: z and the positive part at every level | once, the published code: z and
    the positive part at full size, people's map stretched to the saliency's maximum, then the pyramid.
    """
    if order == "pyramid_first":
        pairs = zip(pyramid(saliency, levels), pyramid(people, levels), strict=True)
        return [(important(mine), important(theirs)) for mine, theirs in pairs]
    mine, theirs = important(saliency), important(people)
    largest = mine.detach().amax((1, 2), keepdim=True) + 1e-6
    theirs = theirs / (theirs.amax((1, 2), keepdim=True) + 1e-6) * largest
    return list(zip(pyramid(mine, levels), pyramid(theirs, levels), strict=True))


def map_distance(saliency: Tensor, people: Tensor, *, order: str, norm: str, levels: int) -> Tensor:
    """The distance (b,) of each image's saliency from people's map, both (b, H, W).

    norm: mean_squares, over pixels, and the mean over levels | sum_squares: ||.||^2 | l2: ||.||, both summed over
    levels.
    """
    pairs = levels_of(saliency, people, order, levels)
    each = [(mine - theirs).flatten(1) for mine, theirs in pairs]
    if norm == "mean_squares":
        return torch.stack([one.square().mean(1) for one in each]).mean(0)
    if norm == "sum_squares":
        return torch.stack([one.square().sum(1) for one in each]).sum(0)
    return torch.stack([one.square().sum(1).clamp_min(1e-24).sqrt() for one in each]).sum(0)


def target_logits(logits: Tensor, targets: Tensor, scalar: str) -> Tensor:
    """What is differentiated by the pixels, (b,): the labels' weighted logits, or the sum of all.

    logits (b, c); targets (b, c): a 1 at the label, with mixup the weights of two labels. scalar: label | sum, the
    gradient of the whole vector f(x), as the paper prints it.
    """
    return (logits * targets).sum(1) if scalar == "label" else logits.sum(1)
