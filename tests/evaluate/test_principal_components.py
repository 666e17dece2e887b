"""Principal components against scikit-learn, RSA between models against scipy, the projection, and what is refused."""

import builtins

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.decomposition import PCA

from alignet.evaluate.principal_components import principal_components, space
from alignet.evaluate.projection import project
from alignet.evaluate.rsa_models import between_models, compact_rsm, shared_rows

OPTIONS = {"dataset": "d", "seed": 0, "points": 50, "images": 30}


@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (40, 40)])
def test_components_and_variances_are_scikit_learns(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32) * np.linspace(1, 3, shape[1])
    points, variances = principal_components(x, 4)
    known = PCA(svd_solver="full").fit(x.astype(np.float64))
    expected = known.transform(x)[:, :4]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(variances, known.explained_variance_, atol=1e-8)
    assert (points[np.abs(points).argmax(0), range(4)] > 0).all()


def test_scale_and_shift_turn_nothing_and_the_ratio_counts_dimensions():
    x = np.random.default_rng(1).normal(size=(4000, 12))
    ids = [f"{row:04d}" for row in range(len(x))]
    ratio = space(x, ids, [""] * len(x), **OPTIONS).scores[0]
    assert (ratio.metric, ratio.n) == ("participation_ratio", 4000)
    assert ratio.value == pytest.approx(12, abs=0.1)  # as many equal dimensions as there are
    flat = x * np.array([1, 1, 1] + [0] * 9)
    assert space(flat + 7, ids, [""] * len(x), **OPTIONS).scores[0].value == pytest.approx(3, abs=0.01)
    (points, _), (moved, _) = (principal_components(each, 4) for each in (x, 1000 * x + 5))
    np.testing.assert_allclose(moved, 1000 * points, atol=1e-6)


def test_tables_hold_the_same_images_for_any_order_of_rows_and_other_ones_for_another_seed():
    x = np.random.default_rng(2).normal(size=(80, 9))
    ids, names = [f"i{row}" for row in range(80)], [f"c{row % 3}" for row in range(80)]
    one = space(x, ids, names, **OPTIONS).tables
    assert [len(table["id"]) for table in (one["points"], one["rsm_images"])] == [50, 30]
    assert len(one["rsm"]["similarity"]) == 30 * 29 // 2
    assert len(one["explained"]["share"]) == 9
    assert np.sum(one["explained"]["share"]) == pytest.approx(1)
    turned = np.random.default_rng(3).permutation(80)
    other = space(x[turned], [ids[row] for row in turned], [names[row] for row in turned], **OPTIONS).tables
    assert one["points"]["id"] == other["points"]["id"]
    assert one["points"]["category"] == other["points"]["category"]
    np.testing.assert_allclose(one["points"]["pc3"], other["points"]["pc3"], atol=1e-9)
    np.testing.assert_allclose(one["rsm"]["similarity"], other["rsm"]["similarity"], atol=1e-6)
    assert space(x, ids, names, **OPTIONS | {"seed": 1}).tables["points"]["id"] != one["points"]["id"]


def test_few_features_have_few_components():
    points = space(
        np.random.default_rng(4).normal(size=(30, 2)), [str(n) for n in range(30)], [""] * 30, **OPTIONS
    )
    assert list(points.tables["points"]) == ["id", "category", "pc1", "pc2"]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((9, 5)), "expected images that differ"),
        (np.full((9, 5), np.nan), "with NaN or infinity"),
        (np.eye(2, 5), r"3 or more images|4 or more images"),
        (np.ones(9), "found"),
    ],
)
def test_features_without_components_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        principal_components(x, 4)


def test_similarities_between_models_are_numpys_and_scipys():
    generator = np.random.default_rng(5)
    ids = [f"i{n}" for n in range(25)]
    features = {"a": generator.normal(size=(25, 40)), "c": generator.normal(size=(25, 7))}
    features["b"] = features["a"] @ np.linalg.qr(generator.normal(size=(40, 40)))[0] + 0.1 * generator.normal(
        size=(25, 40)
    )
    upper = np.triu_indices(25, k=1)
    rsms = {name: (ids, compact_rsm(x)) for name, x in features.items()}
    np.testing.assert_allclose(rsms["c"][1], np.corrcoef(features["c"])[upper], atol=1e-6)
    names, matrix = between_models(rsms)
    assert names == ["a", "c", "b"]
    expected = spearmanr(np.stack([rsms[name][1] for name in names]), axis=1).statistic
    np.testing.assert_allclose(matrix, expected, atol=1e-12)
    assert matrix[0, 2] > 0.9  # a rotation keeps the structure, up to each row's mean
    assert abs(matrix[0, 1]) < 0.3


def test_models_of_other_images_are_not_compared():
    rsm = compact_rsm(np.random.default_rng(6).normal(size=(4, 5)))
    with pytest.raises(ValueError, match="expected the 4 images of a in b, found 4 of which some are others"):
        between_models({"a": (list("wxyz"), rsm), "b": (list("wxyv"), rsm)})
    with pytest.raises(ValueError, match="expected at least one RSM"):
        between_models({})


def test_shared_rows_are_at_most_all_and_sorted_by_name():
    ids = ["c", "a", "b"]
    assert [ids[row] for row in shared_rows(ids, 10, 0)] == ["a", "b", "c"]
    assert len(shared_rows(ids, 2, 0)) == 2


def test_the_projection_repeats_itself_and_keeps_planted_groups_together():
    generator = np.random.default_rng(7)
    code = np.arange(90) % 3
    x = (8 * generator.normal(size=(3, 30))[code] + generator.normal(size=(90, 30))).astype(np.float32)
    one, again, other = (project(x, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.shape == (90, 2)
    np.testing.assert_allclose(one.mean(0), 0, atol=1e-6)
    gap = np.linalg.norm(one[:, None] - one[None], axis=2) + np.diag(np.full(90, np.inf))
    assert (code[gap.argmin(1)] == code).all()


def test_the_projection_says_what_it_lacks(monkeypatch):
    with pytest.raises(ValueError, match=r"finite features of 20 or more images, found shape \(5, 3\)"):
        project(np.ones((5, 3)), 0)
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pacmap":
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"expected the package pacmap.*install alignet\[projection\]"):
        project(np.ones((30, 3)), 0)
