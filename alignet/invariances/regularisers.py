"""What is asked of an inverted image beside its representation: smoothness, robustness, distance from the target.

    R(x) = tv * TV(x) + l_p * |x - 1/2|_p + blur * |x - blurred(x)|^2 - distance(x, target)

tv, l_p and blur are means over pixels and channels, so that a weight means the same at every size. Beside R: steps in
the coefficients of a Fourier transform, and random transformations under which the representation must stay.

Shape suffixes: b images, H and W pixels; pixels (b, 3, H, W) float32 in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from alignet.config import InvertMethod, Transformations
from alignet.invariances.perceptual import Distance

GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue (ITU-R BT.601)


def regulariser(
    method: InvertMethod, pixels: Tensor, distance: Distance | None = None, kept: Sequence[Tensor] = ()
) -> Tensor:
    """R (b,) of each image, without its weight lambda. kept: what the distance keeps of the targets, b rows each."""
    value = pixels.new_zeros(len(pixels))
    if method.tv:
        value = value + method.tv * total_variation(pixels)
    if method.l_p:
        value = value + method.l_p * (pixels - 0.5).abs().pow(method.p).flatten(1).mean(1).pow(1 / method.p)
    if method.blur:
        with torch.no_grad():
            smooth = blurred(pixels, method.sigma)
        value = value + method.blur * (pixels - smooth).square().flatten(1).mean(1)
    if distance is not None:
        value = value - distance.paired(distance.embed(pixels), kept)
    return value


def total_variation(pixels: Tensor) -> Tensor:
    """TV (b,): the sum of absolute differences of each pixel to the ones right of it and below it, over the number of
    pixels and channels."""
    across = (pixels[..., 1:] - pixels[..., :-1]).abs().flatten(1).sum(1)
    down = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().flatten(1).sum(1)
    return (across + down) / pixels[0].numel()


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Images (b, 3, H, W) after a Gaussian of this standard deviation in pixels, cut at three of them; mirrored edges.

    ValueError for an image smaller than the cut.
    """
    reach = math.ceil(3 * sigma)
    channels, high, wide = pixels.shape[1:]
    if min(high, wide) <= reach:
        raise ValueError(
            f"invert.methods.sigma: expected a reach of {reach} pixels to be less than the sides {high} x {wide}, "
            f"found {sigma:g}; take a smaller one"
        )
    places = torch.arange(-reach, reach + 1, device=pixels.device, dtype=pixels.dtype)
    kernel = torch.exp(-places.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    padded = F.pad(pixels, (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel, groups=channels)
    return F.conv2d(rows, kernel.transpose(2, 3), groups=channels)


class Fourier:
    """Images as coefficients of a real Fourier transform over the amplitudes 1/frequency of natural images.

    Steps of one length in all coefficients are then long in low frequencies, where natural images have most of their
    variance, and short in high ones. Colours are as they are.
    """

    def __init__(self, high: int, wide: int, device: torch.device):
        self.shape = (high, wide)
        y = torch.fft.fftfreq(high, device=device)[:, None]
        x = torch.fft.rfftfreq(wide, device=device)[None]
        scale = 1 / (y.square() + x.square()).sqrt().clamp_min(1 / max(high, wide))
        self.scale = scale / scale.square().mean().sqrt()

    def encode(self, pixels: Tensor) -> Tensor:
        """Coefficients (b, 3, H, W // 2 + 1, 2) float32 of images."""
        return torch.view_as_real(torch.fft.rfft2(pixels, norm="ortho") / self.scale)

    def decode(self, coefficients: Tensor) -> Tensor:
        """Images (b, 3, H, W) of coefficients; they may leave [0, 1]."""
        return torch.fft.irfft2(torch.view_as_complex(coefficients) * self.scale, s=self.shape, norm="ortho")


def transformed(pixels: Tensor, settings: Transformations, seeds: Sequence[int]) -> Tensor:
    """Each image moved, scaled, turned and recoloured at random, with gradients; edges are repeated.

    seeds: (b) of the draws, one for each image. Uniform draws: shifts of both axes, the logarithm of the scale, the
    angle; then factors of brightness, contrast (about the image's mean grey) and saturation (about each pixel's grey).
    """
    drawn = torch.stack([torch.rand(7, generator=torch.Generator().manual_seed(one)) for one in seeds])
    drawn = (2 * drawn - 1).to(pixels.device)
    shift = 2 * settings.jitter * drawn[:, :2]
    size = (1 + settings.scale) ** -drawn[:, 2]
    angle = math.radians(settings.rotate) * drawn[:, 3]
    ratio = pixels.shape[2] / pixels.shape[3]
    cosine, sine = size * angle.cos(), size * angle.sin()
    rows = [cosine, -sine * ratio, shift[:, 0], sine / ratio, cosine, shift[:, 1]]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if not settings.colour:
        return moved
    bright, contrast, colourful = (1 + settings.colour * drawn[:, 4:]).T.view(3, -1, 1, 1, 1)
    luma = torch.tensor(GREY, device=pixels.device).view(1, 3, 1, 1)
    moved = moved * bright
    middle = (moved * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    moved = middle + (moved - middle) * contrast
    grey = (moved * luma).sum(1, keepdim=True)
    return (grey + (moved - grey) * colourful).clamp(0, 1)
