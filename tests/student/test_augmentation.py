"""Random changes of images: mirrored, cropped, recoloured within their bounds."""

from __future__ import annotations

import torch

from alignet.student.augmentation import augment, recolour


def test_augmentation_mirrors_and_crops_within_the_image() -> None:
    ramp = torch.linspace(0, 1, 16).expand(40, 3, 16, 16).contiguous()
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(augment(ramp, 0.0, 1.0, draw), ramp)
    torch.testing.assert_close(augment(ramp, 1.0, 1.0, draw), ramp.flip(-1), rtol=0, atol=1e-5)
    mirrored = augment(ramp, 0.5, 1.0, draw)[:, 0, 0, 0] > 0.5
    assert 5 < mirrored.sum() < 35
    cropped = augment(ramp, 0.0, 0.25, draw)
    ranges = cropped[:, 0, 8, -1] - cropped[:, 0, 8, 0]  # of the ramp's 1: the width of the part
    assert 0.4 < ranges.min() < 0.7
    assert cropped.min() >= 0
    assert cropped.max() <= 1


def test_colours_change_within_their_bounds_and_grey_images_are_grey() -> None:
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randn((200, 3, 6, 6), generator=draw)
    assert torch.equal(recolour(pictures, 0.0, 0.0, draw), pictures)
    grey = recolour(pictures, 0.0, 0.3, draw)
    flat = (grey - grey.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-6
    assert 30 < flat.sum() < 90
    torch.testing.assert_close(grey.mean(1), pictures.mean(1))  # the shade of every pixel stays
    torch.testing.assert_close(grey[~flat], pictures[~flat])
    strong = recolour(pictures, 0.4, 0.0, draw)
    moved = strong.mean((1, 2, 3)) - pictures.mean((1, 2, 3))
    assert 0.1 < moved.abs().max() <= 0.2 + 1e-5
    # what is left of the differences between channels: saturation times contrast, each within 0.6..1.4
    spread = lambda x: (x - x.mean(1, keepdim=True)).std((1, 2, 3))  # noqa: E731
    factors = spread(strong) / spread(pictures)
    assert 0.36 - 1e-5 <= factors.min() < 0.6
    assert 1.4 < factors.max() <= 1.96 + 1e-5
