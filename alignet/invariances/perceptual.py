"""How far apart two images are: by their pixels, or by what a network makes of them.

pixels (b, 3, H, W) in [0, 1] -> what is kept of an image, `embed` -> distances, `paired` or of all pairs, `between`

A distance by a network's layers is that of LPIPS (Zhang et al., 2018): at each position of a layer the channels are
brought to length 1, squared differences are weighted and summed over channels, averaged over positions, and summed over
layers.

Shape suffixes: b, n, m images, c channels, f numbers kept of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

EPS = 1e-10  # added to lengths, as in the package lpips
PIECE = 4096  # numbers of an image that are summed in float32; such sums are added in float64


class Distance(Protocol):
    """A distance of images with pixels in [0, 1]."""

    name: str

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances (b,) float32, at least 0, of pixels (b, 3, H, W) float32 in [0, 1], with gradients by both."""
        ...

    def embed(self, pixels: Tensor) -> list[Tensor]:
        """What is kept of images (b, 3, H, W) so that pairs are cheap: tensors (b, f), float32."""
        ...

    def paired(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Distances (b,) float32 of two embeddings of b images each, row by row, with gradients by both."""
        ...

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Distances (n, m) float32 of two embeddings, of n and of m images. A pair's does not depend on the others."""
        ...


class Pixels:
    """The root mean square difference of pixels, in [0, 1]. It needs no network."""

    def __init__(self, name: str = "pixels"):
        self.name = name

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See `Distance`; the gradient of equal images is 0."""
        return self.paired(self.embed(first), self.embed(second))

    def embed(self, pixels: Tensor) -> list[Tensor]:
        """See `Distance`."""
        return [pixels.flatten(1) / math.sqrt(pixels[0].numel())]

    def paired(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """See `Distance`."""
        squared = _paired(a, b)
        equal = squared == 0
        return torch.where(equal, 0, torch.where(equal, 1, squared).sqrt())

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """See `Distance`."""
        return squared_distances(a, b).sqrt().to(torch.float32)


def _paired(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    pairs = zip(a, b, strict=True)
    return torch.stack([(one - other).square().sum(1) for one, other in pairs]).sum(0)


def squared_distances(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Squared Euclidean distances (n, m) float64 of rows (n, f) and (m, f), summed over the tensors of a list.

    From differences, never from norms and products: equal rows are at 0, and equal pairs at equal distances.
    """
    total = torch.zeros(len(a[0]), len(b[0]), dtype=torch.float64, device=a[0].device)
    for first, second in zip(a, b, strict=True):
        for one, other in zip(first.split(PIECE, 1), second.split(PIECE, 1), strict=True):
            plain = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
            total += plain.to(torch.float64).square()
    return total


class LayerDistance:
    """The distance of LPIPS over maps of a network: squared, so that it is no metric in the sense of geometry."""

    def __init__(
        self, name: str, maps: Callable[[Tensor], Sequence[Tensor]], weights: Sequence[Tensor] | None = None
    ):  # fmt: skip
        """maps: pixels (b, 3, H, W) in [0, 1] -> maps (b, c, positions), a tensor for each layer. weights: of each
        layer's channels (c,), at least 0; None weighs all by 1. ValueError for weights below 0 or not finite."""
        self.name, self._maps, self._weights = name, maps, weights
        for number, one in enumerate(weights or ()):
            if not (torch.isfinite(one).all() and (one >= 0).all()):
                raise ValueError(
                    f"perceptual distance {name}: expected channel weights that are finite and at least 0, found "
                    f"others in layer {number}; take the file anew."
                )

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See `Distance`."""
        return self.paired(self.embed(first), self.embed(second))

    def embed(self, pixels: Tensor) -> list[Tensor]:
        """See `Distance`: for each layer its directions, scaled so that squared differences add up to its distance."""
        made = []
        for number, one in enumerate(self._maps(pixels)):
            squared = one.square().sum(1, keepdim=True)
            silent = squared == 0  # LPIPS has no gradient there (0 / 0)
            length = torch.where(silent, 1, squared).sqrt()
            directions = torch.where(silent, 0, one / (length + EPS)) / math.sqrt(one.shape[2])
            if self._weights is not None:
                directions = directions * self._weights[number].sqrt()[:, None]
            made.append(directions.flatten(1))
        return made

    def paired(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """See `Distance`."""
        return _paired(a, b)

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """See `Distance`."""
        return squared_distances(a, b).to(torch.float32)
