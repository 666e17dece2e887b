"""Random changes of images: each part by itself against plain arithmetic, the draws of a place, and bounds."""

from dataclasses import replace

import pytest
import torch

from alignet.attacks.augmentations import augmented
from alignet.config import Augmentation

NONE = Augmentation(
    crop=1.0, shift=0.0, flip=0.0, rotation=0.0, jitter=(0.0, 0.0, 0.0, 0.0), jittered=0.0, grey=0.0, blur=0.0,
    sigma=(0.1, 2.0),
)  # fmt: skip
USUAL = replace(NONE, shift=0.125, flip=0.5, rotation=2.0, jitter=(0.25, 0.25, 0.25, 0.0), jittered=1.0)
STRONG = replace(NONE, crop=0.08, flip=0.5, jitter=(0.8, 0.8, 0.8, 0.2), jittered=0.8, grey=0.2, blur=0.5)


def images(count=200, side=16):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def changed(how, count=200, seeds=None):
    return augmented(images(count), how, range(count) if seeds is None else seeds)


def test_none_changes_nothing_and_no_images_are_no_images():
    assert torch.equal(changed(NONE), images())
    assert augmented(images()[:0], STRONG, []).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("how", [USUAL, STRONG])
def test_an_image_follows_from_its_seed_alone_and_stays_within_0_and_1(how):
    whole = changed(how, 60)
    assert torch.equal(augmented(images(60)[20:30], how, range(20, 30)), whole[20:30])
    assert not torch.equal(changed(how, 60, range(1, 61)), whole)
    assert whole.shape == (60, 3, 16, 16)
    assert whole.dtype == torch.float32
    assert 0 <= whole.min() <= whole.max() <= 1
    assert (whole - images(60)).abs().flatten(1).amax(1).min() > 0.01


def test_mirrored_images_are_as_many_as_asked_for():
    found, plain = changed(replace(NONE, flip=0.3)), images()
    mirrored = (found == plain.flip(3)).flatten(1).all(1)
    assert ((found == plain).flatten(1).all(1) ^ mirrored).all()
    assert mirrored.float().mean() == pytest.approx(0.3, abs=0.1)


def test_shifted_images_keep_their_pixels_and_every_shift_occurs():
    plain, seen = images(300, 8), set()
    found = augmented(plain, replace(NONE, shift=0.25), range(300))
    for image, one in zip(plain, found, strict=True):
        padded = torch.zeros(3, 12, 12)
        padded[:, 2:10, 2:10] = image
        places = [
            (y, x) for y in range(5) for x in range(5) if torch.equal(padded[:, y : y + 8, x : x + 8], one)
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 25


def test_grey_brightness_and_hue_are_plain_arithmetic():
    plain = images()
    grey = changed(replace(NONE, grey=1.0))
    luma = (plain * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(grey, luma.expand_as(plain), atol=1e-5, rtol=1e-5)
    brighter = changed(replace(NONE, jitter=(0.4, 0.0, 0.0, 0.0), jittered=1.0)) * 1.0
    inside = (brighter > 0) & (brighter < 1)
    factors = torch.where(inside, brighter / plain, torch.nan).flatten(1)
    low, high = factors.nan_to_num(9).amin(1), factors.nan_to_num(-9).amax(1)
    assert (high - low).max() < 1e-3  # one factor for an image
    assert 0.6 <= low.min() < 0.65
    assert 1.35 < high.max() <= 1.4
    assert (changed(replace(NONE, jitter=(0.4, 0.0, 0.0, 0.0), jittered=0.5)) == plain).flatten(1).all(
        1
    ).float().mean() == pytest.approx(0.5, abs=0.15)
    # hue keeps the largest and the smallest of the three channels
    turned = changed(replace(NONE, jitter=(0.0, 0.0, 0.0, 0.5), jittered=1.0))
    torch.testing.assert_close(turned.amax(1), plain.amax(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned.amin(1), plain.amin(1), atol=1e-4, rtol=0)
    assert (turned - plain).abs().max() > 0.3


def test_saturation_leaves_the_luma_and_contrast_the_mean():
    plain = 0.5 + 0.1 * (images() - 0.5)
    luma = torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)
    dull = augmented(plain, replace(NONE, jitter=(0.0, 0.0, 0.8, 0.0), jittered=1.0), range(200))
    torch.testing.assert_close((dull * luma).sum(1), (plain * luma).sum(1), atol=1e-3, rtol=0)
    flat = augmented(plain, replace(NONE, jitter=(0.0, 0.8, 0.0, 0.0), jittered=1.0), range(200))
    torch.testing.assert_close((flat * luma).sum((1, 2, 3)), (plain * luma).sum((1, 2, 3)), atol=0.1, rtol=0)
    assert (flat.std((1, 2, 3)) / plain.std((1, 2, 3))).max() > 1.5


def test_a_blur_keeps_the_mean_and_takes_the_detail_and_a_rotation_turns():
    plain = images(50, 32)
    blurred = augmented(plain, replace(NONE, blur=1.0, sigma=(2.0, 2.0)), range(50))
    torch.testing.assert_close(blurred.mean((1, 2, 3)), plain.mean((1, 2, 3)), atol=0.01, rtol=0)
    assert (blurred.std((1, 2, 3)) < 0.6 * plain.std((1, 2, 3))).all()
    bar = torch.zeros(40, 3, 33, 33)
    bar[:, :, 16] = 1
    turned = augmented(bar, replace(NONE, rotation=30.0), range(40))
    torch.testing.assert_close(turned[:, 0, 16, 16], torch.ones(40))
    rise = torch.stack([one[0, :, 28].argmax() - one[0, :, 4].argmax() for one in turned]).float()
    slope = (rise / 24).abs()
    assert slope.max() <= 0.65  # tan 30
    assert slope.max() > 0.4


def test_a_blur_reaches_a_tenth_of_each_side():
    """From one bright pixel, in an image that is wider than high: 3 pixels of 16 down, and 7 of 64 across."""
    dot = torch.zeros(1, 3, 16, 64)
    dot[:, :, 8, 32] = 1
    lit = augmented(dot, replace(NONE, blur=1.0, sigma=(2.0, 2.0)), [0])[0, 0] > 0
    assert lit.any(1).nonzero()[:, 0].tolist() == [7, 8, 9]
    assert lit.any(0).nonzero()[:, 0].tolist() == [*range(29, 36)]


def test_a_crop_of_a_ramp_is_a_ramp_over_its_part():
    ramp = torch.linspace(0, 1, 64).expand(100, 3, 64, 64).contiguous()
    found = augmented(ramp, replace(NONE, crop=0.25), range(100))
    width = found[:, 0, 32, -1] - found[:, 0, 32, 0]
    assert (width > 0.35).all()
    assert (width < 1.01).all()
    assert width.min() < 0.6
    assert found[:, 0, 32, 0].max() > 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 0.0}, "robust.augmentations.crop"),
        ({"flip": 1.5}, "robust.augmentations.flip"),
        ({"jitter": (0.1, 0.1)}, "robust.augmentations.jitter"),
        ({"jitter": (0.1, 0.1, 0.1, 0.6)}, "robust.augmentations.jitter"),
        ({"sigma": (2.0, 1.0)}, "robust.augmentations.sigma"),
        ({"rotation": -1.0}, "robust.augmentations.rotation"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(NONE, **change)
