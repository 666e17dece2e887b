"""Masked recognition: scrambled phases, contiguous nested masks, pictures, and curves by hand."""

import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from alignet.evaluate import masking
from alignet.evaluate.bootstrap import interval
from alignet.evaluate.masking import (
    area,
    at_shares,
    curve,
    distance,
    fill_order,
    flood_fill,
    intact,
    levels,
    luminance,
    members,
    phase_scrambled,
    pixel_counts,
    stimuli,
    stimulus,
)
from tests.makers.importance import SIDE, blob, hill, rng


def picture(seed=0, side=SIDE):
    return rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


# ---- scrambled phases ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 32), (31, 20), (16, 17, 3)])
def test_scrambling_keeps_the_amplitude_spectrum_and_the_mean_and_is_real(shape):
    image = rng(1).uniform(0, 255, shape)
    found = phase_scrambled(image, rng(2))
    assert found.shape == shape
    assert found.dtype == np.float64
    before, after = (np.fft.fft2(one, axes=(0, 1)) for one in (image, found))
    assert np.abs(after) == pytest.approx(np.abs(before), rel=1e-9, abs=1e-7)
    assert after[0, 0] == pytest.approx(before[0, 0])
    assert found.mean((0, 1)) == pytest.approx(image.mean((0, 1)))
    assert np.abs(found - image).mean() > 20


def test_added_phases_are_shared_by_channels_and_uniform():
    image = rng(1).uniform(0, 255, (64, 64, 3))
    spectra = (np.fft.fft2(one, axes=(0, 1)) for one in (phase_scrambled(image, rng(2)), image))
    turn = np.angle(next(spectra) / next(spectra))
    away = np.angle(np.exp(1j * (turn - turn[..., :1])))  # differences between channels, around the circle
    assert np.abs(away).max() < 1e-6
    upper = turn[1:32, :, 0].ravel()  # the other half mirrors it
    assert stats.kstest((upper + np.pi) / (2 * np.pi), "uniform").pvalue > 0.01
    assert np.corrcoef(upper[:-1], upper[1:])[0, 1] == pytest.approx(0, abs=0.1)


def test_scrambling_repeats_by_its_seed_and_equal_channels_stay_equal():
    grey = np.repeat(rng(1).uniform(0, 1, (20, 20, 1)), 3, 2)
    first, again, other = (phase_scrambled(grey, rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert np.ptp(first, axis=2) == pytest.approx(0, abs=1e-12)
    assert first[..., 0] == pytest.approx(phase_scrambled(grey[..., 0], rng(3)))


# ---- the flood fill ------------------------------------------------------------------------------


def test_every_pixel_once_the_important_first_from_the_most_important():
    importance = hill()
    order = fill_order(importance, rng())
    assert order.dtype == np.int64
    assert len({tuple(pixel) for pixel in order.tolist()}) == SIDE * SIDE
    assert tuple(order[0]) == np.unravel_index(importance.argmax(), importance.shape)
    values = importance[tuple(order.T)]
    whole = int((importance > 0).sum())
    assert (values[:whole] > 0).all()
    assert (values[whole:] == 0).all()
    assert np.array_equal(order, fill_order(importance, rng()))
    assert not np.array_equal(order, fill_order(importance, rng(1)))
    assert np.array_equal(
        fill_order(7.5 * importance, rng())[:whole], order[:whole]
    )  # the scale does not matter


@pytest.mark.parametrize("temperature", [0.02, 0.25, 1.0, np.inf])
@pytest.mark.parametrize("importance", [hill(), rng(5).uniform(0.01, 1, (SIDE, SIDE)) ** 9])
def test_masks_have_exact_counts_are_contiguous_and_nested(importance, temperature):
    counts = [1, 2, 17, 200, int((importance > 0).sum())]
    masks = [flood_fill(importance, count, rng(3), temperature=temperature) for count in counts]
    assert [int(mask.sum()) for mask in masks] == counts
    assert all(ndimage.label(mask)[1] == 1 for mask in masks)  # by 4 neighbours
    assert all((small <= large).all() for small, large in itertools.pairwise(masks))


def test_the_next_pixel_is_drawn_in_proportion_to_its_rate():
    importance = np.array([[0.0, 0.4, 0.0], [0.2, 1.0, 0.6], [0.0, 0.8, 0.0]])
    seconds, thirds = np.zeros((3, 3)), np.zeros((3, 3))
    for seed in range(4000):
        order = fill_order(importance, rng(seed), temperature=1.0)
        seconds[tuple(order[1])] += 1
        if tuple(order[1]) == (2, 1):
            thirds[tuple(order[2])] += 1
    expected = np.where(importance == 1, 0, importance)
    assert seconds / seconds.sum() == pytest.approx(expected / expected.sum(), abs=0.03)
    expected[2, 1] = 0  # what is left is drawn anew, in proportion
    assert thirds / thirds.sum() == pytest.approx(expected / expected.sum(), abs=0.05)


def test_the_fill_is_biased_towards_importance_the_more_the_colder():
    importance, count = hill(), 150
    best = np.sort(importance.ravel())[::-1][:count].mean()

    def mean(temperature):
        return np.mean(
            [
                importance[flood_fill(importance, count, rng(s), temperature=temperature)].mean()
                for s in range(8)
            ]
        )

    rates = [mean(temperature) / best for temperature in (np.inf, 1.0, 0.25, 0.05)]
    assert rates == sorted(rates)
    assert rates[0] < 0.88
    assert rates[2] > 0.9
    assert rates[3] <= 1


def test_it_grows_along_a_ridge_and_not_evenly():
    ridge = np.maximum(np.exp(-((np.mgrid[:SIDE, :SIDE][0] - 24.0) ** 2) / 8), 1e-3) * (1 + blob(24, 24, 3))
    rows, columns = np.nonzero(flood_fill(ridge, 150, rng()))
    assert columns.std() > 2.5 * rows.std()


def test_islands_are_filled_one_after_the_other_by_their_peaks():
    importance = np.zeros((20, 20))
    importance[2:5, 2:5], importance[10:14, 10:14], importance[17, 3] = 0.5, 0.9, 0.7
    importance[11, 11] = 1.0
    order = fill_order(importance, rng())
    labels = ndimage.label(importance > 0)[0]
    seen = labels[tuple(order[: 16 + 1 + 9].T)]
    assert seen.tolist() == [labels[10, 10]] * 16 + [labels[17, 3]] + [labels[2, 2]] * 9
    assert ndimage.label(flood_fill(importance, 400, rng()))[1] == 1
    later = flood_fill(importance, 60, rng())  # pixels of importance 0 grow from what is there
    assert ndimage.label(later)[1] == 3
    corner = np.eye(6)  # touching corners are no neighbours
    assert ndimage.label(flood_fill(corner, 3, rng()))[1] == 3


def test_a_wide_range_of_importance_does_no_harm():
    importance = np.full((30, 30), 1e-300)
    importance[:, :10] = rng().uniform(0.5, 1, (30, 10))
    importance[:, 20:] = rng().uniform(1e3, 1e200, (30, 10))
    order = fill_order(importance, rng(), temperature=0.05)
    assert len(order) == 900
    assert all(ndimage.label(flood_fill(importance, count, rng()))[1] == 1 for count in (50, 400, 700))


def test_equal_peaks_are_drawn_at_random():
    assert len({tuple(fill_order(np.ones((8, 8)), rng(seed), count=1)[0]) for seed in range(60)}) > 30


# ---- pictures ------------------------------------------------------------------------------------


def test_levels_are_log_spaced_and_counts_are_theirs():
    assert levels(5, 0.01) == pytest.approx([0.01, 0.1**1.5, 0.1, 0.1**0.5, 1])
    assert np.diff(np.log(levels())) == pytest.approx(np.log(100) / 9)
    assert pixel_counts(levels(3), 250).tolist() == [2, 25, 250]
    assert pixel_counts(np.array([0.001]), 10).tolist() == [1]


def test_revealed_pixels_are_the_images_own_at_their_place_on_the_scrambled_image():
    image, importance = picture(), hill()
    found = stimuli(image, importance, [40], rng(1), grey=False, centred=False)[0]
    mask = flood_fill(importance, 40, rng(1))
    assert (found[mask] == image[mask]).all()
    generator = rng(1)
    fill_order(importance, generator)
    behind = np.clip(np.rint(phase_scrambled(image, generator)), 0, 255).astype(np.uint8)
    assert (found[~mask] == behind[~mask]).all()


def test_the_box_around_the_revealed_pixels_is_moved_to_the_middle():
    image, importance = np.full((SIDE, SIDE, 3), 255, np.uint8), np.roll(hill(), (14, -15), (0, 1))
    whole = int((importance > 0).sum())
    for count in (1, 30, 200, whole):
        mask = flood_fill(importance, count, rng(2))
        shown = stimuli(image, importance, [count], rng(2), background="grey")[0][..., 0] == 255
        assert shown.sum() == count
        for axis in (0, 1):
            places = np.flatnonzero(shown.any(1 - axis))
            before, after = places[0], SIDE - 1 - places[-1]
            assert after - before in (0, 1)
        height, width = (np.ptp(np.nonzero(mask)[axis]) + 1 for axis in (0, 1))
        rows, columns = np.nonzero(shown)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (height, width)  # moved, and nothing else


def test_pictures_of_one_call_are_nested_and_share_their_background():
    image, importance = picture(), hill()
    small, large = stimuli(image, importance, [30, 300], rng(4), centred=False)
    mask = flood_fill(importance, 300, rng(4))
    assert (small[~mask] == large[~mask]).all()
    assert np.ptp(small, axis=2).max() == 0  # grey
    assert np.array_equal(stimulus(image, importance, 0.1, rng(4), equal_pixels=300, centred=False), small)
    plain = stimuli(image, importance, [30], rng(4), centred=False, background="grey")[0]
    assert (plain[~flood_fill(importance, 30, rng(4))] == 128).all()


def test_a_share_is_of_the_maps_own_pixels_or_of_an_equal_number():
    image, importance = np.full((SIDE, SIDE, 3), 255, np.uint8), hill()
    whole = int((importance > 0).sum())

    def shown(share, **options):
        return int(
            (stimulus(image, importance, share, rng(), background="grey", **options) == 255).all(2).sum()
        )

    assert shown(1) == whole
    assert shown(0.25) == round(0.25 * whole)
    assert shown(0.25, equal_pixels=80) == 20


def test_grey_is_the_luminance_of_601():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    assert luminance(colours)[0] == pytest.approx([0.299 * 255, 0.587 * 255, 0.114 * 255, 255])
    image = picture()
    pillow = np.asarray(Image.fromarray(image).convert("L")).astype(int)
    assert np.abs(intact(image)[..., 1].astype(int) - pillow).max() <= 1
    assert intact(image, grey=False) is image


def test_each_pixel_of_a_large_map_waits_once(monkeypatch):
    waited, push = [], masking.heapq.heappush
    monkeypatch.setattr(
        masking.heapq, "heappush", lambda heap, item: (waited.append(item[2]), push(heap, item))
    )
    fill_order(blob(90, 120, 50, 256), rng())
    assert 0 < len(waited) == len(set(waited)) < 256**2


# ---- curves --------------------------------------------------------------------------------------


def test_a_curve_by_hand_and_its_bootstrap_by_a_loop():
    right = np.array([[0, 1, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 1]], dtype=bool)
    whole = np.array([1, 1, 1, 0, 1], dtype=bool)
    found = curve(right, whole, bootstrap=300, seed=3)
    assert found.n == 5
    assert found.intact == 0.8
    assert found.accuracy == pytest.approx([0.2, 0.6, 0.8])
    assert found.normalised == pytest.approx([0.25, 0.75, 1.0])
    generator, draws = rng(3), []
    for _ in range(300):
        rows = generator.integers(5, size=5)
        draws.append(right[rows].mean(0) / whole[rows].mean() if whole[rows].any() else [np.nan] * 3)
    kept = np.array(draws)[np.isfinite(draws).all(1)]
    for level in (0, 1):
        assert (found.low[level], found.high[level]) == pytest.approx(interval(kept[:, level]))
    assert np.isnan(
        [found.low[2], found.high[2]]
    ).all()  # right exactly where the whole image is: all draws are 1


def test_intervals_hold_the_truth_as_often_as_they_say():
    hits, generator = 0, rng(8)
    for seed in range(150):
        whole = generator.uniform(size=120) < 0.9
        right = (generator.uniform(size=(120, 1)) < 0.6) & (
            whole[:, None] | (generator.uniform(size=(120, 1)) < 0.2)
        )
        truth = 0.6 * (0.9 + 0.1 * 0.2) / 0.9
        found = curve(right, whole, bootstrap=200, seed=seed)
        hits += found.low[0] <= truth <= found.high[0]
    assert 0.88 <= hits / 150 <= 0.995


def test_areas_and_distances_by_hand():
    shares = np.array([0.01, 0.1, 1.0])
    assert area(np.ones(3), shares) == pytest.approx(1)
    assert area(np.array([0, 1, 1]), shares) == pytest.approx(0.75)
    assert area(np.array([[0, 0, 0], [1, 0, 1]]), np.array([0.01, 0.5, 1.0])) == pytest.approx([0, 0.5])
    found = distance(np.array([0.5, 0.5, 1.0]), np.array([0.3, 0.7, 1.0]), shares)
    assert found.mean == pytest.approx(0.4 / 3)
    # 0.2 falls to -0.2 in the first half: two triangles of half its width; then to 0
    assert found.area == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    same = distance(np.ones((4, 3)), np.ones(3), shares)
    assert same.mean.tolist() == same.area.tolist() == [0] * 4
    fine = np.geomspace(0.01, 1, 20001)
    one, other = rng(1).uniform(0, 1, (2, 3))
    gap = np.abs(np.interp(np.log(fine), np.log(shares), one - other))
    assert distance(one, other, shares).area == pytest.approx(gap.mean(), rel=1e-3)
    assert at_shares(shares, np.array([0.0, 1.0, 0.5]), np.array([0.1**1.5, 1.0])) == pytest.approx(
        [0.5, 0.5]
    )


def test_animals_are_numbers_and_ranges():
    assert np.flatnonzero(members([5, [0, 2]], 7)).tolist() == [0, 1, 2, 5]
    assert members([[0, 397]], 1000).sum() == 398


# ---- the planted answer --------------------------------------------------------------------------


def planted(maps, seed=0, n=80):
    """Accuracy by level of a classifier that needs a third of what is important to an object, in the pixels' sum."""
    generator, counts = rng(seed), [8, 24, 72, 216, 600]
    right = np.zeros((n, len(counts)), dtype=bool)
    for row in range(n):
        y, x = generator.uniform(12, SIDE - 12, 2)
        evidence = blob(y, x, 5)
        importance = evidence if maps == "own" else blob(*generator.uniform(4, SIDE - 4, 2), 5)
        order = fill_order(importance, generator)
        for level, count in enumerate(counts):
            seen = evidence[tuple(order[:count].T)].sum() / evidence.sum()
            right[row, level] = generator.uniform() < 0.5 + 0.5 * (1 - np.exp(-4 * seen))
    return curve(right, np.ones(n, dtype=bool), bootstrap=50).normalised, np.array(counts) / counts[-1]


def test_a_planted_observer_rises_and_is_flatter_with_maps_of_other_images():
    own, shares = planted("own")
    shuffled, _ = planted("shuffled")
    assert own[-1] > own[0] + 0.25
    assert own[2] > shuffled[2] + 0.1
    assert area(own, shares) > area(shuffled, shares) + 0.08


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fill_order(np.zeros((4, 4)), rng()), "not 0 everywhere, found 0 to 0"),
        (lambda: fill_order(np.array([[1.0, -1.0]]), rng()), "at least 0"),
        (lambda: fill_order(np.array([[1.0, np.nan]]), rng()), "NaN or infinity"),
        (lambda: fill_order(np.ones(4), rng()), r"map \(H, W\)"),
        (lambda: fill_order(np.ones((2, 2)), rng(), temperature=0), "temperature above 0"),
        (lambda: flood_fill(np.ones((2, 2)), 5, rng()), "reveal 1 to 4 pixels of 2 x 2, found 5"),
        (lambda: flood_fill(np.ones((2, 2)), 0, rng()), "found 0"),
        (lambda: phase_scrambled(np.ones((4, 4, 4)), rng()), r"\(H, W\) or \(H, W, 3\)"),
        (lambda: phase_scrambled(np.full((4, 4), np.inf), rng()), "finite pixels"),
        (lambda: stimulus(picture(), hill(), 0.0, rng()), r"share in \(0, 1\]"),
        (lambda: stimulus(picture().astype(float), hill(), 0.5, rng()), "of uint8"),
        (lambda: stimulus(picture(), np.ones((4, 4)), 0.5, rng()), "of the image's size"),
        (lambda: stimulus(picture(), hill(), 0.5, rng(), background="black"), "phase or grey"),
        (lambda: levels(1), "at least 2 levels"),
        (lambda: levels(5, 1.0), "inside"),
        (lambda: members([[3, 1]], 5), "smaller number first"),
        (lambda: members([5], 5), "within 0 to 4"),
        (lambda: members([[1, 2, 3]], 5), "class numbers or"),
        (lambda: members([[0, 4]], 5), "found all"),
        (lambda: members([], 5), "found none"),
        (lambda: curve(np.ones((3, 2)), np.zeros(3)), "none; check the classes"),
        (lambda: curve(np.ones((3, 2)), np.ones(4)), "for each whole image"),
        (lambda: area(np.ones(2), np.array([1.0, 0.1])), "ascending shares"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
