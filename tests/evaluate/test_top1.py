"""Top-1 through a head; the refitted head against scikit-learn's ridge and a brute-force GCV."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from timm.data import ImageNetInfo

from alignet.evaluate.top1 import UNKNOWN, imagenet_labels, refit_head, top1


def measure(features, labels, weights, bias, **options):
    return top1(features, labels, weights, bias, **({"dataset": "d", "seed": 0, "bootstrap": 50} | options))[
        0
    ]


def test_top1_equals_counting_and_leaves_unknown_images_out():
    generator = np.random.default_rng(0)
    x, weights, bias = generator.normal(size=(50, 8)), generator.normal(size=(8, 5)), generator.normal(size=5)
    labels = generator.integers(5, size=50)
    labels[:4] = UNKNOWN
    score = measure(x, labels, weights, bias, metric="top1_refit", note="said")
    assert score.value == pytest.approx(((x @ weights + bias).argmax(1) == labels)[4:].mean())
    assert (score.metric, score.n, score.chance) == ("top1_refit", 46, 0.2)
    assert score.note == "4 images of no class left out; said"


def test_equal_logits_are_not_correct():
    assert measure(np.zeros((6, 3)), np.zeros(6, int), np.zeros((3, 4)), np.zeros(4)).value == 0


@pytest.mark.parametrize("shape", [(60, 9), (20, 40)])  # more images than features, and fewer
def test_refitted_head_is_ridge_at_the_gcv_minimum(shape):
    generator = np.random.default_rng(1)
    n, p = shape
    x = generator.normal(size=(n, p)) + 3
    y = x[:, :4] @ generator.normal(size=(4, 6)) + 0.5 * generator.normal(size=(n, 6)) + 10
    ridges = np.logspace(-4, 2, 25)
    head = refit_head(x, y, ridges=ridges)
    centred = x - x.mean(0)
    s = np.linalg.svd(centred, compute_uv=False)
    scale = (s[s > 1e-10 * s[0]] ** 2).mean()
    brute = []
    for ridge in ridges * scale:
        hat = centred @ np.linalg.solve(centred.T @ centred + ridge * np.eye(p), centred.T) + 1 / n
        residual = y - hat @ y
        brute.append(n * (residual**2).sum() / (n - np.trace(hat)) ** 2)
    assert head.ridge == pytest.approx(ridges[np.argmin(brute)] * scale)
    oracle = Ridge(alpha=head.ridge).fit(x, y)
    np.testing.assert_allclose(head.weights, oracle.coef_.T, atol=1e-7)
    np.testing.assert_allclose(head.bias, oracle.intercept_, atol=1e-6)


def test_refitting_undoes_a_rotation_of_the_features():
    """A network that only rotated and shifted its features loses the original head but not a refitted one."""
    generator = np.random.default_rng(2)
    x, weights, bias = (
        generator.normal(size=(300, 12)),
        generator.normal(size=(12, 5)),
        generator.normal(size=5),
    )
    labels = (x @ weights + bias).argmax(1)
    turned = x @ np.linalg.qr(generator.normal(size=(12, 12)))[0] + 2
    head = refit_head(turned[:200], x[:200] @ weights + bias)
    assert measure(turned[200:], labels[200:], weights, bias).value < 0.6
    assert measure(turned[200:], labels[200:], head.weights, head.bias).value > 0.97
    wrong = refit_head(turned[:200], generator.permutation(x[:200] @ weights + bias))
    assert measure(turned[200:], labels[200:], wrong.weights, wrong.bias).value < 0.6


def test_refitted_head_survives_constant_columns_and_the_scale_of_features():
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(40, 6)), generator.normal(size=(40, 3))
    plain = refit_head(x, y)
    scaled = refit_head(1000 * np.column_stack([x, np.ones(40)]), y)
    shown = np.column_stack([x, np.ones(40)]) * 1000 @ scaled.weights + scaled.bias
    np.testing.assert_allclose(shown, x @ plain.weights + plain.bias, atol=1e-8)


def test_labels_come_from_the_wordnet_id_of_the_file_name():
    names = ImageNetInfo("imagenet-1k").label_names()
    ids = [
        f"{names[0]}_tench.jpg",
        f"folder/{names[999]}_1.JPEG",
        f"{names[5]}.png",
        "n99999999_none.jpg",
        "cat.jpg",
    ]
    assert imagenet_labels(ids).tolist() == [0, 999, 5, UNKNOWN, UNKNOWN]
    assert names[0] == "n01440764"
    assert names[999] == "n15075141"
    with pytest.raises(
        ValueError, match=r"start with an ImageNet-1k WordNet id such as n02666196_, found 'cat\.jpg'"
    ):
        imagenet_labels(["cat.jpg"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3, int)}, "one label per row"),
        ({"weights": np.zeros((3, 4))}, "transpose the weight of a torch Linear"),
        ({"labels": np.full(5, 3)}, r"class indices in 0\.\.2, found 3\.\.3"),
        ({"labels": np.full(5, UNKNOWN)}, "found none"),
        ({"features": np.full((5, 4), np.nan)}, "finite features"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    given = {
        "features": np.zeros((5, 4)),
        "labels": np.zeros(5, int),
        "weights": np.zeros((4, 3)),
        "bias": np.zeros(3),
    }
    with pytest.raises(ValueError, match=message):
        measure(**(given | change))


def test_a_head_cannot_be_refitted_to_other_images_or_to_constants():
    with pytest.raises(ValueError, match="features and logits of one pool"):
        refit_head(np.zeros((5, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="features that vary"):
        refit_head(np.full((5, 2), 0.3), np.ones((5, 2)))
