"""Raw pixels and colour histograms against hand counts."""

import numpy as np
import pytest
from PIL import Image

from alignet.evaluate.baselines import centred, colour_histogram, raw_pixels


def flat(colour, size=(20, 12), mode="RGB"):
    return Image.new(mode, size, colour)


def test_raw_pixels_of_flat_images_are_their_colour():
    features = raw_pixels([flat((255, 0, 51)), flat(128, mode="L")], size=4)
    assert features.shape == (2, 48)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[0].reshape(-1, 3), np.tile([1, 0, 0.2], (16, 1)), atol=1e-6)
    np.testing.assert_allclose(features[1], 128 / 255, atol=1e-6)


def test_histogram_counts_every_pixel_once_in_its_box():
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = (255, 255, 255), (0, 127, 128)
    found = colour_histogram([Image.fromarray(pixels)], bins=2)[0]
    assert found.tolist() == [0.5, 0.25, 0, 0, 0, 0, 0, 0.25]  # boxes by red, green, blue
    assert colour_histogram([flat((9, 80, 200))]).sum() == 1


def test_centred_features_have_no_mean():
    features = raw_pixels([flat((i, 2 * i, 9)) for i in range(5)], size=2)
    np.testing.assert_allclose(centred(features).mean(0), 0, atol=1e-7)


def test_no_images_and_wrong_bins_are_errors():
    with pytest.raises(ValueError, match="at least one image"):
        raw_pixels([])
    with pytest.raises(ValueError, match="1 to 64 bins"):
        colour_histogram([flat(0)], bins=0)
