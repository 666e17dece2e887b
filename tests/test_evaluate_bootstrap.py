"""The object bootstrap against brute force and against coverage that is known; scores refuse NaN."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from alignet.evaluate.bootstrap import (
    Score,
    defined_interval,
    interval,
    mean_draws,
    object_counts,
    object_draws,
)


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
