"""Distances by relation: planted hierarchies, brute force, invariances, and nothing where nothing was planted."""

from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.metrics import roc_auc_score

from alignet.data.hierarchy import RELATIONS, Levels
from alignet.evaluate.bootstrap import object_counts
from alignet.evaluate.hierarchy import (
    _pair_sums,
    _z_draws,
    distances,
    draw_pairs,
    hierarchy,
    order,
    relative_change,
)
from alignet.evaluate.relations import relations, triplet_relations

OPTIONS = {
    "dataset": "d",
    "distance": "euclidean",
    "pairs": 10**6,
    "categories": 40,
    "seed": 0,
    "bootstrap": 200,
}


def levels_of(superordinates=4, basics=3, classes=2, images=4) -> Levels:
    """A balanced hierarchy, its names telling their place."""
    names = [
        (f"{s}.{b}.{c}", f"{s}.{b}", f"{s}")
        for s in range(superordinates) for b in range(basics) for c in range(classes) for _ in range(images)
    ]  # fmt: skip
    return Levels(*np.array(names).T)


def knows(levels: Levels, p=400, seed=0) -> np.ndarray:
    """Features that know the hierarchy wholly: a part for the class, the basic and the superordinate category."""
    generator = np.random.default_rng(seed)
    parts = [0.05 * generator.normal(size=(len(levels), p))]
    for names, weight in ((levels.subordinate, 1), (levels.basic, 2), (levels.superordinate, 4)):
        unique, code = np.unique(names, return_inverse=True)
        parts.append(weight * generator.normal(size=(len(unique), p))[code])
    return np.sum(parts, 0)


def scores(result):
    return {score.metric: score for score in result.scores}


def test_a_student_built_to_know_the_hierarchy_scores_one_and_random_features_a_half():
    levels = levels_of()
    known = scores(hierarchy(knows(levels), levels, before=None, **OPTIONS))["hierarchy_order"]
    assert known.value == 1
    assert known.low > 0.999
    noise = np.random.default_rng(1).normal(size=(len(levels), 50))
    for distance in ("euclidean", "angle"):
        score = scores(hierarchy(noise, levels, before=None, **OPTIONS | {"distance": distance}))[
            "hierarchy_order"
        ]
        assert score.low < 0.5 < score.high
        assert (score.chance, score.unit, score.over, score.n) == (0.5, "pairs", "classes", 96 * 95 // 2)


@pytest.mark.parametrize("distance", ["euclidean", "angle"])
def test_images_moved_towards_their_categories_change_in_the_order_of_relations(distance):
    levels = levels_of()
    before = np.random.default_rng(2).normal(size=(len(levels), 60))
    after = before + 0.15 * knows(levels, p=60)
    found = scores(hierarchy(after, levels, before=before, **OPTIONS | {"distance": distance}))
    z = [found[f"hierarchy_{kind}"] for kind in RELATIONS]
    assert [score.value for score in z] == sorted(score.value for score in z)
    assert z[0].high < z[2].low
    assert z[2].high < 0 < z[3].low
    assert sum(score.value * score.n for score in z) == pytest.approx(0, abs=1e-6)  # z-scored over all pairs
    wrong = np.random.default_rng(3).permutation(len(levels))
    mixed = scores(hierarchy(after, levels.pick(wrong), before=before, **OPTIONS | {"distance": distance}))
    assert abs(mixed["hierarchy_order"].value - 0.5) < 0.03
    for kind in RELATIONS:
        assert mixed[f"hierarchy_{kind}"].low < 0 < mixed[f"hierarchy_{kind}"].high


def test_a_change_without_order_in_features_without_order_is_zero():
    levels = levels_of()
    before, moved = np.random.default_rng(4).normal(size=(2, len(levels), 60))
    found = scores(hierarchy(before + moved, levels, before=before, **OPTIONS))
    for kind in RELATIONS:
        score = found[f"hierarchy_{kind}"]
        assert score.low < 0 < score.high
        assert abs(score.value) < 0.15


@pytest.mark.parametrize("factor", [2.0, 1000.0])
@pytest.mark.parametrize("distance", ["euclidean", "angle"])
def test_the_scale_of_all_features_changes_nothing(factor, distance):
    levels = levels_of()
    before = knows(levels, p=40).astype(np.float32)
    after = (before + np.random.default_rng(5).normal(size=before.shape)).astype(np.float32)
    options = OPTIONS | {"distance": distance}
    plain, scaled = (
        scores(hierarchy(x, levels, before=before, **options)) for x in (after, np.float32(factor) * after)
    )
    for name, score in plain.items():
        assert scaled[name].value == pytest.approx(score.value, abs=1e-5)
    # scaling alone is no change at all, also where float32 rounds it
    for name, score in scores(
        hierarchy(np.float32(factor) * before, levels, before=before, **options)
    ).items():
        if name != "hierarchy_order":
            assert score.value == 0


def test_a_rotation_is_no_change():
    levels = levels_of()
    before = knows(levels, p=40)
    turn = np.linalg.qr(np.random.default_rng(6).normal(size=(40, 40)))[0]
    found = hierarchy(before @ turn, levels, before=before, **OPTIONS)
    assert all(score.value == 0 for score in found.scores if score.metric != "hierarchy_order")


def test_distances_are_scipys_over_their_mean():
    levels = levels_of(2, 2, 2, 2)
    x = np.random.default_rng(7).normal(size=(len(levels), 5)).astype(np.float32)
    pairs = draw_pairs(levels, 10**6, 0)
    expected = pdist(x.astype(np.float64))
    np.testing.assert_allclose(distances(x, pairs, "euclidean"), expected / expected.mean(), rtol=1e-12)
    expected = pdist(x - x.mean(0, dtype=np.float64), "cosine")
    np.testing.assert_allclose(distances(x, pairs, "angle"), expected / expected.mean(), rtol=1e-10)


def test_order_is_the_mean_of_scikit_learns_areas_with_ties():
    generator = np.random.default_rng(8)
    distance, relation = generator.integers(20, size=300).astype(float), generator.integers(4, size=300)
    expected = []
    for near, far in combinations(range(4), 2):
        chosen = (relation == near) | (relation == far)
        expected.append(roc_auc_score(relation[chosen] == far, distance[chosen]))
    assert order(distance, relation) == pytest.approx(np.mean(expected), abs=1e-12)


def test_sums_of_draws_equal_brute_force_over_resampled_classes():
    generator = np.random.default_rng(9)
    values, (first, second) = generator.normal(size=(2, 40)), generator.integers(6, size=(2, 40))
    counts = object_counts(6, draws=20, seed=1)
    for found, count in zip(_pair_sums(values, first, second, counts).T, counts):
        weights = np.array([count[a] if a == b else count[a] * count[b] for a, b in zip(first, second)])
        assert found == pytest.approx(values @ weights, abs=1e-12)


def test_a_draw_is_the_analysis_of_the_pairs_that_it_holds():
    """Pairs repeated as often as a draw holds them, each distance over its mean, z-scored anew."""
    levels = levels_of(2, 2, 2, 3)
    x, y = np.random.default_rng(12).normal(size=(2, len(levels), 8))
    pairs = draw_pairs(levels, 10**6, 0)
    was, now = (distances(one, pairs, "euclidean") for one in (x, y))
    units = np.unique(levels.subordinate, return_inverse=True)[1]
    counts = object_counts(8, draws=12, seed=2)
    counts = counts[(counts > 0).sum(1) > 4]
    draws = _z_draws(was, now, pairs, units, counts)
    first, second = units[pairs.first], units[pairs.second]
    for draw, count in enumerate(counts):
        times = np.where(first == second, count[first], count[first] * count[second])
        a, b, kind = (np.repeat(values, times) for values in (was, now, pairs.relation))
        z = relative_change(a / a.mean(), b / b.mean())
        for relation in range(4):
            if len(draws[relation]) == len(counts):
                assert draws[relation][draw] == pytest.approx(z[kind == relation].mean(), abs=1e-9)
    assert all(len(draws[relation]) == len(counts) for relation in (0, 3))


def test_intervals_hold_the_mean_over_worlds_of_other_classes():
    """Classes that tighten each by its own share: the truth is the mean over worlds, of which nine in ten hold it.

    Half the width of an interval is at most 1.6 times what the values spread by; with z of the whole set it is 4.8
    times as much for the relation `across`.
    """
    centres, found = np.random.default_rng(99).normal(size=(4, 10)), {}
    superordinate = np.arange(24) % 4
    for seed in range(60):
        generator = np.random.default_rng(seed)
        classes = centres[superordinate] + generator.normal(size=(24, 10))
        before = np.repeat(classes, 4, axis=0) + 0.7 * generator.normal(size=(96, 10))
        pull = np.repeat(generator.uniform(0, 0.6, size=24), 4)[:, None]
        after = (
            before + pull * (np.repeat(classes, 4, axis=0) - before) + 0.3 * generator.normal(size=(96, 10))
        )
        names = np.repeat([f"c{one}" for one in range(24)], 4)
        levels = Levels(names, names, np.repeat([f"s{one}" for one in superordinate], 4))
        options = OPTIONS | {"bootstrap": 120, "seed": seed}
        for score in hierarchy(after, levels, before=before, **options).scores[1:]:
            found.setdefault(score.metric, []).append((score.value, score.low, score.high))
    for values, low, high in (np.array(rows).T for rows in found.values()):
        assert np.mean((low <= values.mean()) & (values.mean() <= high)) >= 0.87
        assert np.mean(high - low) / 3.92 < 1.6 * values.std()


def test_the_matrix_holds_mean_changes_and_groups_categories():
    levels = levels_of(3, 2, 1, 3)
    before, after = np.random.default_rng(10).normal(size=(2, len(levels), 8))
    matrix = hierarchy(after, levels, before=before, **OPTIONS).tables["matrix"]
    pairs = draw_pairs(levels, 10**6, 0)
    z = relative_change(*(distances(x, pairs, "euclidean") for x in (before, after)))
    assert len(matrix["z"]) == 6 * 7 // 2
    for a, b, s, value, n in zip(
        matrix["first"], matrix["second"], matrix["first_superordinate"], matrix["z"], matrix["pairs"]
    ):
        one, other = levels.basic[pairs.first], levels.basic[pairs.second]
        chosen = ((one == a) & (other == b)) | ((one == b) & (other == a))
        assert value == pytest.approx(z[chosen].mean(), abs=1e-12)
        assert n == chosen.sum()
        assert s == a[0]
    few = hierarchy(after, levels, before=before, **OPTIONS | {"categories": 2}).tables["matrix"]
    assert set(few["first"]) | set(few["second"]) == {"0.0", "0.1"}


def test_large_sets_are_sampled_by_seed_and_say_so():
    levels = levels_of()
    one, again, other = (draw_pairs(levels, 1000, seed) for seed in (0, 0, 1))
    assert 800 < len(one.first) <= 1000
    assert (one.first < one.second).all()
    assert "drawn at random of 4,560" in one.note
    np.testing.assert_array_equal(one.first, again.first)
    assert not np.array_equal(one.first[:50], other.first[:50])
    share = np.bincount(one.relation) / len(one.relation)
    np.testing.assert_allclose(share, np.bincount(draw_pairs(levels, 10**6, 0).relation) / 4560, atol=0.05)


def test_levels_without_pairs_and_unknown_images_are_said_and_not_failed():
    levels = levels_of(3, 2, 1, 1)
    levels.superordinate[0] = ""
    x = np.random.default_rng(11).normal(size=(2, len(levels), 8))
    result = hierarchy(x[0], levels, before=x[1], **OPTIONS)
    found = scores(result)
    assert set(found) == {"hierarchy_order", "hierarchy_superordinate", "hierarchy_across"}
    note = found["hierarchy_order"].note
    assert "no pairs of the relation subordinate, basic" in note
    assert "5 pairs of unknown relation left out (of 6 images 1 have no superordinate category)" in note


def test_input_that_says_nothing_is_refused():
    levels = levels_of(1, 1, 1, 6)
    with pytest.raises(
        ValueError, match=r"expected pairs of at least two of the relations.*found subordinate"
    ):
        hierarchy(np.eye(6), levels, before=None, **OPTIONS)
    levels = levels_of(2, 2, 1, 2)
    with pytest.raises(ValueError, match="expected finite features that differ, found a mean distance of 0"):
        hierarchy(np.ones((8, 3)), levels, before=None, **OPTIONS)
    broken = np.eye(8)
    broken[3, 3] = np.nan
    with pytest.raises(
        ValueError, match="expected finite features that differ, found a mean distance of nan"
    ):
        hierarchy(broken, levels, before=None, **OPTIONS)
    with pytest.raises(ValueError, match="unknown distance 'dot': expected one of euclidean, angle"):
        hierarchy(np.eye(8), levels, before=None, **OPTIONS | {"distance": "dot"})


def test_triplets_fall_over_relations_as_listed():
    levels = levels_of(
        2, 2, 2, 2
    )  # images 0, 1 of one class, 2, 3 of the basic's other, 4 to 7 the other basic
    triplets = np.array([[0, 1, 2], [0, 1, 8], [0, 2, 4], [0, 4, 9], [0, 8, 1], [4, 6, 0]])
    pair, odd = triplet_relations(triplets, levels)
    assert pair.tolist() == [0, 0, 1, 2, 3, 1]
    assert odd.tolist() == [1, 3, 2, 3, 0, 2]
    result = relations({"drawn": triplets}, levels, dataset="d", bootstrap=100, seed=0)
    assert result.scores[0].value == pytest.approx(5 / 6)
    table = result.tables["relations"]
    assert sum(table["share"]) == pytest.approx(1)
    share = {(p, o): s for p, o, s in zip(table["pair"], table["odd_one"], table["share"])}
    assert share["basic", "superordinate"] == pytest.approx(2 / 6)
    levels.superordinate[8] = ""
    score = relations({"drawn": triplets}, levels, dataset="d", bootstrap=100, seed=0).scores[0]
    assert (score.n, score.note) == (4, "2 of 6 triplets have an unknown relation")
    nobody = Levels(*(np.full(16, "") for _ in range(3)))
    with pytest.raises(
        ValueError, match="expected triplets of images with known categories, found none among 6"
    ):
        relations({"drawn": triplets}, nobody, dataset="d", bootstrap=100, seed=0)


def test_clusters_that_are_categories_draw_triplets_of_nearer_pairs_and_shuffled_ones_do_not():
    from alignet.teacher.sampling import cluster_boundary, random_triplets

    levels = levels_of()
    basic = np.unique(levels.basic, return_inverse=True)[1]
    drawn = {
        "cluster_boundary": cluster_boundary(basic, 800, 0),
        "shuffled": cluster_boundary(np.random.default_rng(0).permutation(basic), 800, 0),
        "random": random_triplets(len(levels), 800, 0),
    }
    found = scores(relations(drawn, levels, dataset="d", bootstrap=200, seed=0))
    assert found["relations_nearer_cluster_boundary"].value == 1
    low, high = (getattr(found["relations_nearer_random"], end) for end in ("low", "high"))
    assert low - 0.05 < found["relations_nearer_shuffled"].value < high + 0.05 < 0.5
