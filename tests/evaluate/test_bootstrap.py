"""The object bootstrap against brute force and against coverage that is known; scores refuse NaN."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import binomtest

from alignet.evaluate.bootstrap import (
    Score,
    clopper_pearson,
    defined_interval,
    interval,
    mean_draws,
    object_counts,
    object_draws,
    share_interval,
)
from alignet.evaluate.nights import two_alternatives
from alignet.evaluate.odd_one_out import odd_one_out
from alignet.evaluate.probe import linear_probe
from alignet.evaluate.top1 import top1


def brute_force(values, units, draws, seed):
    """Weights spelled out: every draw, every triplet, the distinct objects it shows."""
    ids = np.unique(units)
    found = []
    for counts in object_counts(len(ids), draws=draws, seed=seed):
        times = dict(zip(ids.tolist(), counts.tolist()))
        weights = [np.prod([times[unit] for unit in set(row)]) for row in units.tolist()]
        if sum(weights):
            found.append(np.average(values, axis=0, weights=weights))
    return np.array(found).T


@pytest.mark.parametrize("objects", [3, 8])
def test_object_draws_equal_brute_force_also_with_repeated_units(objects):
    generator = np.random.default_rng(objects)
    units = 10 * generator.integers(objects, size=(600, 3))  # over two blocks; repeats within a triplet
    values = generator.random((600, 2))
    expected = brute_force(values, units, draws=50, seed=4)
    np.testing.assert_allclose(object_draws(values, units, draws=50, seed=4), expected, rtol=1e-5)


def test_draws_without_a_triplet_are_left_out():
    draws = object_draws(np.ones((1, 1)), np.array([[0, 1, 2]]), draws=300, seed=0)
    assert 30 < draws.shape[1] < 110  # all three objects occur in 6 of 27 draws
    assert (draws == 1).all()


def test_seed_repeats_and_seeds_differ():
    units, values = np.random.default_rng(0).integers(9, size=(40, 3)), np.arange(40.0)[:, None]
    first = object_draws(values, units, draws=20, seed=1)
    assert np.array_equal(first, object_draws(values, units, draws=20, seed=1))
    assert not np.array_equal(first, object_draws(values, units, draws=20, seed=2))


def test_interval_over_objects_covers_the_population_where_one_over_triplets_does_not():
    """Triplets are answered right with a chance that depends on the objects' own (random) difficulty."""
    covered = {"objects": 0, "triplets": 0}
    worlds = 150
    for world in range(worlds):
        generator = np.random.default_rng([7, world])
        skill = generator.normal(0, 0.08, size=40)
        triplets = generator.random((3000, 40)).argpartition(3, axis=1)[:, :3]
        right = (generator.random(3000) < 0.5 + skill[triplets].sum(1)).astype(float)
        over_objects = interval(object_draws(right[:, None], triplets, draws=200, seed=world)[0])
        over_triplets = interval(mean_draws(right, draws=200, seed=world))
        covered["objects"] += over_objects[0] <= 0.5 <= over_objects[1]
        covered["triplets"] += over_triplets[0] <= 0.5 <= over_triplets[1]
    assert 0.90 <= covered["objects"] / worlds <= 0.99
    assert covered["triplets"] / worlds < 0.6


def test_mean_draws_have_the_standard_error_of_the_mean():
    values = np.random.default_rng(0).normal(size=400)
    draws = mean_draws(values, draws=2000, seed=0)
    assert draws.std() == pytest.approx(values.std() / 20, rel=0.08)
    assert draws.mean() == pytest.approx(values.mean(), abs=0.01)


@pytest.mark.parametrize("right", [np.ones(30), np.zeros(30)])
def test_a_share_of_equal_answers_has_an_exact_interval(right):
    expected = binomtest(int(right.sum()), 30).proportion_ci(0.95, "exact")
    draws = mean_draws(right, draws=100, seed=0)
    assert share_interval(right, draws) == pytest.approx((expected.low, expected.high))
    mixed = np.r_[np.ones(20), np.zeros(10)]
    draws = mean_draws(mixed, draws=100, seed=0)
    assert share_interval(mixed, draws) == interval(draws)
    assert clopper_pearson(3, 20) == pytest.approx(tuple(binomtest(3, 20).proportion_ci(0.95, "exact")))


def test_every_family_of_right_and_wrong_gives_perfect_features_an_interval_with_width():
    x = np.repeat(np.eye(3), 8, 0)
    labels, few = np.repeat(np.arange(3), 8), {"seed": 0, "bootstrap": 20, "dataset": "d"}
    triplets = np.array([[0, 1, 8], [9, 10, 17], [16, 18, 2]] * 5)
    found = [
        *odd_one_out(x, triplets, tau=1.0, **few)[:2], *odd_one_out(x, triplets, tau=1.0, over="triplets", **few)[:2],
        *linear_probe(x, labels, x, labels, C=1.0, **few), *top1(x, labels, np.eye(3), np.zeros(3), **few),
        *two_alternatives(x, triplets[:, [0, 2, 1]], np.ones(15, dtype=bool), **few),
    ]  # fmt: skip
    for score in found:
        assert score.value == score.high == 1, score.metric
        assert score.low == pytest.approx(0.025 ** (1 / score.n)), score.metric


def test_score_survives_json_and_refuses_nan():
    score = Score("top1", "photos", 0.5, 0.4, 0.6, 10, "images", "images", chance=0.001)
    assert Score.from_json(json.loads(json.dumps(asdict(score), allow_nan=False))) == score
    with pytest.raises(ValueError, match="finite value, found nan"):
        Score("top1", "photos", float("nan"), None, None, 10, "images", "")
    with pytest.raises(ValueError, match="a score: expected the keys"):
        Score.from_json({"metric": "top1"})


def test_interval_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one bootstrap draw"):
        interval(np.array([]))


def test_draws_without_a_value_are_told_and_many_of_them_leave_no_interval():
    draws = np.linspace(-1, 1, 100)
    assert defined_interval(draws) == (*interval(draws), "")
    few = np.where(np.arange(100) < 10, np.nan, draws)
    assert defined_interval(few) == (*interval(few[10:]), "10 of 100 draws had no value and were left out")
    many = np.where(np.arange(100) < 11, np.nan, draws)
    assert defined_interval(many) == (None, None, "no interval: 11 of 100 draws had no value")


def test_an_interval_meets_chance_where_it_reaches_down_to_it():
    score = Score("a", "b", 0.4, 0.3, 0.5, 10, "triplets", "objects", chance=1 / 3)
    assert score.meets_chance
    assert not replace(score, low=0.35).meets_chance
    assert not replace(score, chance=None).meets_chance
    assert not replace(score, low=None, high=None).meets_chance
    assert replace(score, low=None, high=None, chance=0.0).meets_chance
