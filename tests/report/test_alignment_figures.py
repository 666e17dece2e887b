"""The pictures: the same bytes twice, projections against numpy, and what the caption says."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from alignet.report.alignment_figures import (
    CurvePoint,
    alignment_curve,
    concept_means,
    concepts_before_and_after,
    neighbour_share,
    project,
    signs_as,
)

CATEGORIES = [name for name in ("animal", "tool", "", "food") for _ in range(5)]


def features(seed, spread=1.0):
    centres = np.repeat(np.random.default_rng(9).normal(size=(4, 12)), 5, axis=0)
    return centres + spread * np.random.default_rng(seed).normal(size=(20, 12))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_picture_has_the_same_bytes_on_every_run_whatever_the_users_settings(tmp_path):
    import matplotlib

    text = concepts_before_and_after(features(0, 2), features(1, 0.2), CATEGORIES, tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 23, "axes.facecolor": "red", "figure.dpi": 33}):
        concepts_before_and_after(features(0, 2), features(1, 0.2), CATEGORIES, tmp_path / "b.png")
    assert digest(tmp_path / "a.png") == digest(tmp_path / "b.png")
    concepts_before_and_after(features(0, 2), features(2, 0.2), CATEGORIES, tmp_path / "c.png")
    assert digest(tmp_path / "a.png") != digest(tmp_path / "c.png")
    image = Image.open(tmp_path / "a.png")
    assert image.info.keys() <= {"dpi"}  # no time, no version
    assert image.width == 1664
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]
    assert "n = 20 concepts" in text
    assert "3 in all; known for 15 concepts, the other 5 in light grey" in text


def test_caption_names_the_limit_of_the_colours(tmp_path):
    many = [f"kind {number % 10}" for number in range(20)]
    text = concepts_before_and_after(features(0), features(1), many, tmp_path / "a.png", caption="Synthetic.")
    assert text.startswith("Synthetic. n = 20")
    assert "10 in all, the 8 commonest named" in text
    assert "grey" not in text


def test_projection_is_the_eigendecomposition_of_the_covariance():
    x = features(0)
    found = project(x)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    np.testing.assert_allclose(found.explained, values[:-3:-1] / values.sum())
    np.testing.assert_allclose(np.abs(found.points), np.abs((x - x.mean(0)) @ vectors[:, :-3:-1]), atol=1e-9)
    np.testing.assert_allclose(project(x + 7).points, found.points, atol=1e-9)


def test_axes_are_flipped_never_rotated():
    left, right = project(features(0)), project(features(3))
    flipped = signs_as(left, right)
    assert ((left.points * flipped.points).sum(0) >= 0).all()
    np.testing.assert_array_equal(np.abs(flipped.points), np.abs(right.points))


def test_neighbour_share_counts_known_categories_only():
    x = np.array([[0.0], [1.0], [10.0], [11.0], [0.1]])
    assert neighbour_share(x, ["a", "a", "b", "b", ""]) == (1.0, 4)
    assert neighbour_share(x, ["a", "b", "a", "b", ""]) == (0.0, 4)


def test_concept_means_average_images_by_name():
    means, names = concept_means(np.array([[1.0, 2], [3, 4], [10, 10]], "float16"), ["b", "b", "a"])
    assert names == ["a", "b"]
    assert means.tolist() == [[10, 10], [2, 3]]
    with pytest.raises(ValueError, match="one concept per row"):
        concept_means(np.zeros((3, 2)), ["a"])


def test_curve_is_drawn_the_same_twice(tmp_path):
    points = [CurvePoint(pull, rate, 0.5, 0.1 * pull) for pull in (1, 3) for rate in (1e-4, 3e-4)]
    for name in ("a.png", "b.png"):
        alignment_curve(
            points,
            tmp_path / name,
            original=(0.38, 0.79),
            shipped=points[0],
            targets=(0.5, 0.5),
            ceiling=0.65,
        )
    assert digest(tmp_path / "a.png") == digest(tmp_path / "b.png")
    alignment_curve(points, tmp_path / "c.png", original=(0.38, 0.79))
    assert digest(tmp_path / "a.png") != digest(tmp_path / "c.png")


@pytest.mark.parametrize(
    ("before", "categories", "message"),
    [
        (features(0)[:4], CATEGORIES, "same concepts before and after"),
        (features(0), CATEGORIES[:3], "same concepts before and after"),
        (np.full((20, 12), 0.1), CATEGORIES, "concepts that differ"),
        (np.full((20, 12), np.nan), CATEGORIES, "expected finite features"),
        (features(0), [""] * 20, "at least two concepts with a category"),
    ],
)
def test_wrong_pictures_are_refused(tmp_path, before, categories, message):
    with pytest.raises(ValueError, match=message):
        concepts_before_and_after(before, features(1), categories, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_curve_needs_points_and_a_shipped_one_among_them(tmp_path):
    with pytest.raises(ValueError, match="at least one point"):
        alignment_curve([], tmp_path / "a.png", original=(0.3, 0.7))
    with pytest.raises(ValueError, match="among the points"):
        alignment_curve(
            [CurvePoint(1, 1, 0.5, 0.5)],
            tmp_path / "a.png",
            original=(0.3, 0.7),
            shipped=CurvePoint(2, 1, 0.5, 0.5),
        )


def test_importing_the_module_imports_no_matplotlib():
    code = "import sys, alignet.report.alignment_figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
