"""Where networks and people look: scipy and torch as oracles, planted maps, a dot through the crop, the families."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.signal import correlate2d
from scipy.stats import spearmanr

from alignet.evaluate.families.material import Material
from alignet.evaluate.families.where import where as family
from alignet.evaluate.families.where_people import where_people
from alignet.evaluate.where import (
    CLICKME_CEILING,
    WHOLE,
    agreement,
    averaged,
    blurred,
    centre_bias,
    mean_score,
    ranked,
    reduce_channels,
    seen,
    spearman,
    subsample,
    top_share_overlap,
)
from tests.makers.photos import PHOTOS

MAPS = Path(PHOTOS) / "maps" / "maps.npz"
needs_maps = pytest.mark.skipif(
    not (PHOTOS and MAPS.is_file()), reason="no maps of people beside the photographs"
)
GENERATOR = np.random.default_rng(5)


def smooth_maps(n=12, size=32, seed=0):
    """Maps of blobs at random places: float32 (n, size, size), 0..1, with a plateau of 0."""
    places = np.random.default_rng(seed).uniform(0.15, 0.85, (n, 2, 1, 1)) * size
    y, x = np.mgrid[:size, :size] + 0.5
    field = np.exp(-((y - places[:, 0]) ** 2 + (x - places[:, 1]) ** 2) / (2 * (size / 8) ** 2))
    return np.where(field > 0.05, field, 0).astype(np.float32)


def test_reductions_by_hand():
    gradients = np.array([3.0, -5.0, 1.0]).reshape(1, 3, 1, 1)
    found = {how: reduce_channels(gradients, how).item() for how in ("max", "mean", "abs_mean")}
    assert found == {"max": 5.0, "mean": pytest.approx(-1 / 3), "abs_mean": pytest.approx(1 / 3)}
    half = reduce_channels(np.full((1, 3, 2, 2), 0.1, dtype=np.float16), "mean")
    assert half.dtype == np.float64
    assert np.ptp(half) == 0
    with pytest.raises(ValueError, match="expected one of max, mean, abs_mean, found 'sum'"):
        reduce_channels(gradients, "sum")
    with pytest.raises(ValueError, match="expected \\(images, channels, height, width\\)"):
        reduce_channels(gradients[0], "max")


@pytest.mark.parametrize(
    ("shape", "size"), [((64, 64), 224), ((37, 90), 24), ((256, 256), 224), ((5, 7), (9, 4))]
)
def test_the_whole_box_is_torchs_interpolate(shape, size):
    values = GENERATOR.uniform(size=shape)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(seen(values, WHOLE, size), expected, atol=1e-12)


def test_a_box_is_what_coordinates_say_and_what_a_crop_of_whole_pixels_is():
    values = GENERATOR.uniform(size=(40, 60))
    box, size = (0.13, 0.22, 0.81, 0.97), 17
    steps = (np.arange(size) + 0.5) / size
    y = (box[1] + steps * (box[3] - box[1])) * 40 - 0.5
    x = (box[0] + steps * (box[2] - box[0])) * 60 - 0.5
    expected = map_coordinates(values, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(seen(values, box, size), expected, atol=1e-12)
    whole_pixels = seen(values, (10 / 60, 5 / 40, 30 / 60, 25 / 40), 20)
    np.testing.assert_allclose(whole_pixels, values[5:25, 10:30], atol=1e-12)


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.2), (0.5, 0, 0.4, 1), (0, 0, np.nan, 1)]
)
def test_a_box_outside_of_the_map_is_refused(box):
    with pytest.raises(ValueError, match="box: expected 0 <= left < right <= 1"):
        seen(np.ones((4, 4)), box, 4)


def test_plateaus_stay_ties():
    values = np.where(GENERATOR.uniform(size=(8, 8)) > 0.5, np.float32(0.1), np.float32(0.7))
    values[:, 4:] = np.float32(0.3)
    assert len(np.unique(seen(values, WHOLE, 31)[:, 18:])) == 1
    assert len(np.unique(subsample(np.full((30, 30), 0.1), 7))) <= 1 + 1  # shares of pixels may round once


def test_a_drawn_dot_comes_through_resize_and_crop_where_the_image_has_it():
    pixels = np.zeros((300, 400), dtype=np.uint8)
    pixels[140:152, 300:312] = 255  # a dot right of the middle
    short, side = 256, 224  # resize the short side, then the crop in the middle
    wide = round(400 * short / 300)
    picture = Image.fromarray(pixels).resize((wide, short), Image.Resampling.BILINEAR)
    left, top = (wide - side) // 2, (short - side) // 2
    image = np.asarray(picture.crop((left, top, left + side, top + side)), dtype=float)
    box = (left / wide, top / short, (left + side) / wide, (top + side) / short)
    human = seen(pixels.astype(float), box, side)
    y, x = np.mgrid[:side, :side]
    for axis in (y, x):
        assert (axis * human).sum() / human.sum() == pytest.approx(
            (axis * image).sum() / image.sum(), abs=0.25
        )
    not_cropped = seen(pixels.astype(float), WHOLE, side)
    assert abs((x * not_cropped).sum() / not_cropped.sum() - (x * image).sum() / image.sum()) > 5
    assert spearman(human.reshape(1, -1), image.reshape(1, -1))[0] > 0.9


def test_subsample_is_the_mean_over_blocks_and_cuts_nothing_off():
    values = GENERATOR.uniform(size=(3, 32, 48))
    by_hand = np.array(
        [[one[i : i + 16, j : j + 16].mean() for i in (0, 16) for j in (0, 16, 32)] for one in values]
    )
    np.testing.assert_allclose(subsample(values, 16).reshape(3, -1), by_hand)
    assert subsample(values, 1).dtype == np.float64
    odd = GENERATOR.uniform(size=(26, 26))
    assert subsample(odd, 4).shape == (6, 6)
    assert subsample(odd, 4).mean() == pytest.approx(odd.mean())  # all pixels count alike
    fine = np.repeat(np.repeat(odd, 6, 0), 6, 1)  # 156 is a multiple of 6
    np.testing.assert_allclose(averaged(odd, 6, 6), averaged(fine, 6, 6))
    with pytest.raises(ValueError, match="take a smaller factor"):
        subsample(odd, 27)
    with pytest.raises(ValueError, match="a factor of at least 1, found 0"):
        subsample(odd, 0)


def test_the_published_smoothing_by_a_written_out_kernel():
    offsets_x, offsets_y = np.arange(-5, 5), np.arange(4, -6, -1)
    kernel = np.exp(-(offsets_x[None, :] ** 2 + offsets_y[:, None] ** 2) / 200.0)
    kernel /= kernel.sum()
    values = GENERATOR.uniform(size=(64, 64))
    padded = np.pad(values, ((4, 5), (4, 5)))
    np.testing.assert_allclose(blurred(values), correlate2d(padded, kernel, mode="valid"), atol=1e-12)
    assert blurred(GENERATOR.uniform(size=(256, 200))).shape == (64, 64)
    assert np.ptp(blurred(np.full((9, 9), 0.3))) == 0


def test_spearman_is_scipys_with_ties_and_nan_for_constants():
    a, b = GENERATOR.integers(0, 6, (20, 50)).astype(float), GENERATOR.normal(size=(20, 50))
    b[3:6] = np.round(b[3:6])
    a[7] = 2.0
    expected = [spearmanr(x, y).statistic if np.ptp(x) else np.nan for x, y in zip(a, b)]
    np.testing.assert_allclose(spearman(a, b), expected, atol=1e-12)
    with pytest.raises(ValueError, match="two arrays \\(n, k\\) of one shape"):
        spearman(a, b[:, 1:])
    b[4, 2] = np.inf
    with pytest.raises(
        ValueError, match="expected finite values, found others in 1 of 20 maps, first in number 4"
    ):
        spearman(a, b)


def test_overlap_of_the_top_tenth_by_hand():
    a, b = np.arange(20.0)[None], np.arange(20.0)[None].copy()
    b[0, [18, 0]] = b[0, [0, 18]]  # tops: 18, 19 and 17?, 19
    dice, iou = top_share_overlap(a, b)
    first, second = {18, 19}, {0, 19}
    assert dice[0] == 2 * len(first & second) / 4
    assert iou[0] == len(first & second) / len(first | second)
    mostly_zero = np.zeros((1, 20))
    mostly_zero[0, 19] = 1
    assert top_share_overlap(a, mostly_zero)[0][0] == pytest.approx(
        2 / 3
    )  # only what is strictly above counts
    plateau = np.repeat([[0.0, 1.0]], 10, axis=1)
    assert np.isnan(top_share_overlap(a, plateau)).all()  # nothing lies above its 90th percentile


def test_planted_maps_are_found_and_are_lost_when_images_are_shuffled():
    maps = smooth_maps(n=40)
    noisy = maps + GENERATOR.normal(0, 0.05, maps.shape)
    right = agreement(ranked(noisy), ranked(maps))
    wrong = agreement(ranked(noisy), ranked(np.roll(maps, 1, axis=0)))
    assert right.spearman.mean() > 0.6
    assert right.spearman.mean() - wrong.spearman.mean() > 0.4
    assert right.dice.mean() > 0.8 > 0.4 > wrong.dice.mean()
    np.testing.assert_allclose(agreement(ranked(maps**3), ranked(maps)).spearman, 1)
    np.testing.assert_allclose(agreement(ranked(-maps), ranked(maps)).spearman, -1)
    coarse = agreement(ranked(noisy, 4), ranked(maps, 4))
    assert coarse.spearman.mean() > right.spearman.mean()  # noise averages out


def test_the_chance_of_an_overlap_is_that_of_tops_put_anywhere():
    human = np.repeat(smooth_maps(1, 40), 400, axis=0)
    anywhere = agreement(ranked(GENERATOR.normal(size=human.shape)), ranked(human))
    assert anywhere.dice.mean() == pytest.approx(anywhere.dice_chance[0], abs=0.01)
    assert anywhere.iou.mean() == pytest.approx(anywhere.iou_chance[0], abs=0.01)


def test_constant_maps_are_marked_and_left_out_of_the_mean():
    maps = smooth_maps(6)
    model = maps.copy()
    model[1], maps[4] = 0.5, 0
    found = agreement(ranked(model), ranked(maps))
    assert found.constant_model.tolist() == [False, True] + [False] * 4
    assert found.constant_human.tolist() == [False] * 4 + [True, False]
    assert np.isnan(found.spearman[[1, 4]]).all()
    score = mean_score(found.spearman, "where", "x", draws=50, seed=0, divide=0.5)
    assert (score.n, score.value) == (4, pytest.approx(2.0))
    assert mean_score(np.full(3, np.nan), "where", "x", draws=50, seed=0) is None
    alone = mean_score(np.array([0.3]), "where", "x", draws=50, seed=0)
    assert (alone.low, alone.over) == (None, "")
    with pytest.raises(ValueError, match="as many and as large"):
        agreement(ranked(model[1:]), ranked(maps))


def test_the_centre_bias_leaves_the_image_itself_out():
    maps = smooth_maps(9, 16)
    expected = [
        spearmanr(one.ravel(), np.delete(maps, row, 0).mean(0, dtype=np.float64).ravel()).statistic
        for row, one in enumerate(maps)
    ]
    np.testing.assert_allclose(centre_bias(maps), expected, atol=1e-9)
    alone = np.zeros((8, 8, 8))
    alone[np.arange(8), np.arange(8), np.arange(8)] = 1  # no map shares a place with another
    assert (centre_bias(alone) < 0).all()
    with pytest.raises(ValueError, match="expected at least 2 maps, found 1"):
        centre_bias(maps[:1])


# --- the families

OPTIONS = {
    "keys": "", "ceiling": None, "splits": 20, "reductions": ["max", "mean"], "scales": [1, 4], "blur": "none",
}  # fmt: skip
IDS = [f"n0/img{row:02}.jpg" for row in range(10)]


def material(folder, maps_file, setting="original", picture=None):
    return Material(
        dataset="clicks", setting=setting, features={}, files={"maps": maps_file}, nodes={"saliency": folder}, raw={},
        transform=lambda rows: rows, triplets=lambda name, count: np.zeros((0, 3)), picture=picture,
        object_rows=None, bootstrap=100, seed=1,
    )  # fmt: skip


@pytest.fixture
def made(tmp_path):
    """(folder of the saliency artifact, file of maps): two shards; gradients are ten images' maps, seen in a box."""
    maps = smooth_maps(10, 32)
    other = np.roll(maps, 3, axis=0)
    raters = np.stack([maps + GENERATOR.normal(0, 0.02, maps.shape) for _ in range(4)], axis=1).astype(
        np.float32
    )
    np.savez(tmp_path / "maps.npz", ids=np.array(IDS[:9]), clicks=raters[:9], other=other[:9])
    box = np.array([0.1, 0.0, 0.9, 1.0])
    sign = np.array([1, -1, 0.5]).reshape(1, 3, 1, 1)
    labels = np.array([*range(9), -1])
    for number, part in enumerate((range(6), range(6, 10))):
        own = np.stack([seen(maps[row], box, 48) for row in part])
        np.savez(
            tmp_path / f"saliency-{number:05}.npz", gradients=(own[:, None] * sign).astype(np.float32),
            logit=np.ones(len(part), np.float32), top1=np.array(part), label=labels[part],
            box=np.repeat(box[None], len(part), 0), rollout=averaged(own, 6, 6).astype(np.float32),
        )  # fmt: skip
        (tmp_path / f"ids-{number:05}.txt").write_text("".join(f"{IDS[row]}\n" for row in part))
    return tmp_path, tmp_path / "maps.npz"


def by_metric(result):
    return {(score.metric, score.dataset): score for score in result.scores}


def test_the_family_finds_planted_maps_through_shards_box_and_rollout(made):
    result = family(material(*made), OPTIONS | {"keys": "clicks", "ceiling": "split_half"})
    found = by_metric(result)
    score = found["where", "clicks"]
    assert score.n == 9
    assert score.value > 0.75  # the rest is the plateau of noise in people's maps
    assert score.low <= score.value <= score.high
    assert score.over == score.unit == "images"
    assert "channel maximum of the magnitude" in score.note
    assert "1 of 10 images have no map" in score.note
    assert found["where_4x", "clicks"].value > score.value
    assert found["where_of_ceiling", "clicks"].value == pytest.approx(score.value / score.ceiling)
    assert 0 < score.ceiling < 1
    assert found["rollout", "clicks"].value > 0.8  # ties of the rollout's zeros
    over, centre = found["where_over_centre", "clicks"], found["centre_bias", "clicks"]
    assert over.value == pytest.approx(score.value - centre.value)
    assert over.low > 0
    assert centre.n == 9
    assert found["dice", "clicks"].value > 0.8
    assert found["dice", "clicks"].chance == pytest.approx(0.1, abs=0.02)
    assert (found["accuracy", "clicks"].value, found["accuracy", "clicks"].n) == (1.0, 9)
    table = result.tables["images"]
    assert len(table["id"]) == 9 * 2 * 2
    whole = (np.array(table["reduction"]) == "max") & (np.array(table["scale"]) == 1)
    assert np.mean(table["spearman"][whole]) == pytest.approx(score.value)
    again = family(material(*made), OPTIONS | {"keys": "clicks", "ceiling": "split_half"})
    assert [one.value for one in again.scores] == [one.value for one in result.scores]


def test_with_several_keys_each_has_its_scores_and_shuffled_maps_have_none(made):
    found = by_metric(family(material(*made), OPTIONS | {"keys": "all", "ceiling": "clickme"}))
    assert found["where", "clicks clicks"].value - found["where", "clicks other"].value > 0.4
    assert found["where", "clicks other"].ceiling == CLICKME_CEILING
    assert ".66 in the paper" in found["where", "clicks other"].note
    assert ("accuracy", "clicks") in found
    blurred_too = by_metric(
        family(material(*made), OPTIONS | {"keys": ["other"], "ceiling": 0.5, "blur": "published"})
    )
    assert "smoothed as published" in blurred_too["where", "clicks"].note
    assert "ceiling 0.5: as given" in blurred_too["where", "clicks"].note


def test_pictures_are_of_images_with_maps_and_photographs_are_cropped_to_the_box(made):
    asked = []

    def picture(name):
        asked.append(name)
        pixels = np.zeros((50, 100, 3), dtype=np.uint8)
        pixels[:, 5] = 255  # outside of the box
        pixels[:, 50:52] = 128
        return Image.fromarray(pixels)

    plain = family(material(*made), OPTIONS | {"keys": "clicks"}).tables["pictures"]
    assert len(plain["id"]) == 6
    assert set(plain["image"]) == {b""}
    table = family(
        material(*made, picture=picture), OPTIONS | {"keys": "clicks", "photographs": True}
    ).tables["pictures"]
    assert table["id"] == plain["id"] == asked
    assert IDS[9] not in asked
    for row in range(6):
        human, model = (
            np.asarray(Image.open(io.BytesIO(table[what][row]))).astype(float) for what in ("human", "model")
        )
        assert human.shape == model.shape == (64, 64)
        assert np.corrcoef(human.ravel(), model.ravel())[0, 1] > 0.9
        photo = np.asarray(Image.open(io.BytesIO(table["image"][row])))
        assert photo.shape == (160, 160, 3)
        assert photo.max() < 200
        assert abs(photo[80, :, 0].argmax() - 82) < 3


def test_unfit_input_is_refused(made, tmp_path):
    folder, maps = made
    with pytest.raises(ValueError, match="expected the maps of single raters for ceiling=split_half"):
        family(material(folder, maps), OPTIONS | {"keys": "other", "ceiling": "split_half"})
    with pytest.raises(ValueError, match=r"options\.blur: expected one of none, published, found 'some'"):
        family(material(folder, maps), OPTIONS | {"keys": "other", "blur": "some"})
    with pytest.raises(ValueError, match="expected a ceiling above 0"):
        family(material(folder, maps), OPTIONS | {"keys": "other", "ceiling": 0})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"expected saliency-NNNNN\.npz"):
        family(material(empty, maps), OPTIONS | {"keys": "other"})
    np.savez(tmp_path / "flat.npz", ids=np.array(IDS), map=np.ones((10, 8, 8), np.float32))
    with pytest.raises(ValueError, match="found constant ones only: 10 of people and 0 of the network"):
        family(material(folder, tmp_path / "flat.npz"), OPTIONS)
    (folder / "ids-00001.txt").write_text("one\n")
    with pytest.raises(ValueError, match="expected as many ids as gradients, found 1 and 4"):
        family(material(folder, maps), OPTIONS | {"keys": "other"})


def test_people_alone_have_a_centre_bias_a_ceiling_and_pairs_of_keys(made):
    folder, maps = made
    options = OPTIONS | {"keys": "all", "ceiling": "clickme"}
    result = family(material(folder, maps, setting="data"), options)
    assert result.scores == where_people(material(folder, maps), options).scores
    found = by_metric(result)
    assert found["centre_bias", "clicks other"].n == 9
    assert found["centre_bias", "clicks other"].ceiling == CLICKME_CEILING
    assert found["split_half", "clicks clicks"].value > 0.5
    assert ("split_half", "clicks other") not in found
    table = result.tables["between"]
    assert (table["a"], table["b"], table["n"]) == (["clicks"], ["other"], [9])
    assert table["low"][0] <= table["value"][0] <= table["high"][0]


@needs_maps
def test_real_maps_have_the_centre_bias_that_was_measured():
    found = material(None, MAPS, setting="data")
    result = family(found, OPTIONS | {"keys": "all"})
    scores = by_metric(result)
    assert scores["centre_bias", "clicks patch_ratings"].n == 17
    assert scores["centre_bias", "clicks patch_ratings"].value == pytest.approx(0.377, abs=0.005)
    with np.load(MAPS) as maps:
        patches = maps["patch_ratings"].astype(np.float32)
    coarse = centre_bias(averaged(patches, 14, 14)).mean()
    assert coarse == pytest.approx(0.40, abs=0.01)  # as measured elsewhere, on a grid of 14 x 14
    cropped = centre_bias(
        np.stack([seen(one, (0.0625, 0.0625, 0.9375, 0.9375), 64) for one in patches])
    ).mean()
    assert cropped < 0.2  # most of it is the border, which a network with a central crop does not see
    assert len(result.tables["between"]["a"]) == 21
    assert (np.array(result.tables["between"]["value"]) < 1).all()
