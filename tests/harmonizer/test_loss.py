"""The Harmonizer's loss on maps: the pyramid against scipy, and each option by hand."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from alignet.harmonizer.loss import (
    REDUCTIONS,
    important,
    levels_of,
    map_distance,
    pyramid,
    standardised,
    target_logits,
)

KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def maps(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", [16, 17, 32])
def test_the_pyramid_is_scipys_strided_convolution(side):
    held = maps(3, side, side + 4)
    found = pyramid(held, 3)
    expected = held.numpy()
    assert torch.equal(found[0], held)
    for level in found[1:]:
        expected = np.stack([convolve(one, KERNEL, mode="constant")[::2, ::2] for one in expected])
        np.testing.assert_allclose(level.numpy(), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("levels", [0, 5])
def test_a_pyramid_of_no_level_or_too_many_is_refused(levels):
    with pytest.raises(ValueError, match="expected 1 or more levels"):
        pyramid(maps(1, 16, 16), levels)


def test_standardised_has_mean_0_and_deviation_1_and_a_constant_map_is_zeros():
    held = standardised(5 + 3 * maps(4, 9, 9))
    np.testing.assert_allclose(held.mean((1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(held.std((1, 2), correction=0), 1, atol=1e-4)
    constant = torch.full((1, 9, 9), 2.0, dtype=torch.float64, requires_grad=True)
    out = standardised(constant)
    out.square().sum().backward()
    assert (out == 0).all()
    assert torch.isfinite(constant.grad).all()
    assert (important(held) >= 0).all()


def by_hand(mine, theirs, order, norm, levels):
    """The distance of one pair of maps in numpy."""

    def z(one):
        return np.maximum((one - one.mean()) / (one.std() + 1e-5), 0)

    def down(one):
        return [one] + (
            []
            if len(one) <= len(mine) >> (levels - 1)
            else down(convolve(one, KERNEL, mode="constant")[::2, ::2])
        )

    if order == "pyramid_first":
        pairs = [(z(a), z(b)) for a, b in zip(down(mine), down(theirs), strict=True)]
    else:
        a, b = z(mine), z(theirs)
        pairs = list(zip(down(a), down(b / (b.max() + 1e-6) * (a.max() + 1e-6)), strict=True))
    squares = [(a - b) ** 2 for a, b in pairs]
    if norm == "mean_squares":
        return np.mean([one.mean() for one in squares])
    if norm == "sum_squares":
        return sum(one.sum() for one in squares)
    return sum(np.sqrt(one.sum()) for one in squares)


@pytest.mark.parametrize("order", ["pyramid_first", "once"])
@pytest.mark.parametrize("norm", ["mean_squares", "sum_squares", "l2"])
def test_every_order_and_norm_by_hand(order, norm):
    mine, theirs = maps(2, 16, 16) - 0.5, maps(2, 16, 16, seed=1)
    found = map_distance(mine, theirs, order=order, norm=norm, levels=3)
    expected = [by_hand(a, b, order, norm, 3) for a, b in zip(mine.numpy(), theirs.numpy(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_distance_does_not_see_the_scale_of_either_map_and_equal_maps_have_none():
    mine, theirs = maps(2, 16, 16), maps(2, 16, 16, seed=1)
    how = {"order": "pyramid_first", "norm": "mean_squares", "levels": 3}
    near = map_distance(mine, theirs, **how)
    np.testing.assert_allclose(map_distance(100 * mine, 7 * theirs, **how), near, rtol=1e-3)
    np.testing.assert_allclose(map_distance(mine, 2 * mine, **how), 0, atol=1e-6)


def test_once_stretches_peoples_map_without_a_gradient_by_the_maximum():
    mine, theirs = maps(1, 16, 16).requires_grad_(), maps(1, 16, 16, seed=1)
    (first, second), *_ = levels_of(mine, theirs, "once", 1)
    assert second.max().item() == pytest.approx(first.max().item(), rel=1e-5)
    assert not second.requires_grad


def test_what_is_differentiated_and_how_channels_are_reduced():
    logits, targets = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.25, 0.0, 0.75]])
    assert target_logits(logits, targets, "label").item() == pytest.approx(3.25)
    assert target_logits(logits, targets, "sum").item() == 7
    gradient = torch.tensor([3.0, -5.0, 1.0]).view(1, 3, 1, 1)
    found = {name: reduce(gradient).item() for name, reduce in REDUCTIONS.items()}
    assert found == pytest.approx({"mean": -1 / 3, "max": 5.0, "abs_mean": 1 / 3})
