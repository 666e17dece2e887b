"""Measures of identically represented inputs: against brute force, planted distances, ties, and what is refused."""

from itertools import combinations

import numpy as np
import pytest

from alignet.data.judgements import hard_triples
from alignet.evaluate.bootstrap import clopper_pearson
from alignet.evaluate.invariance import (
    Distances,
    answer_share,
    checked_distances,
    choice_among,
    image_share,
    kept_triples,
    median_score,
    nearer_target,
    own_target,
    random_matches,
    triple_matches,
    triple_share,
)

SHARED = {"draws": 100, "seed": 0}


def distances(to_targets: np.ndarray, to_seed: np.ndarray | float = 0.5) -> Distances:
    own = own_target(to_targets)
    return Distances(own, np.broadcast_to(to_seed, own.shape), to_targets)


def by_hand(row: np.ndarray, triple: tuple[int, ...], own: int) -> float:
    """What an IRI with distances `row` (n,) to all targets counts in a triple."""
    near = [one for one in triple if row[one] == min(row[other] for other in triple)]
    return 1 / len(near) if own in near else 0.0


@pytest.fixture
def coarse() -> np.ndarray:
    """Distances (8, 2, 8) of few values, so that many are tied."""
    return np.random.default_rng(0).integers(0, 4, (8, 2, 8)).astype(np.float64)


def test_2afc_is_strict():
    far = np.array([[[0.1, 1.0], [0.5, 1.0]], [[1.0, 0.6], [1.0, 0.2]]])
    assert nearer_target(distances(far)).tolist() == [[True, False], [False, True]]


def test_clustering_over_all_triples_is_that_of_every_triple(coarse):
    found = random_matches(distances(coarse))
    for own in range(8):
        for draw in range(2):
            triples = [one for one in combinations(range(8), 3) if own in one]
            hand = np.mean([by_hand(coarse[own, draw], one, own) for one in triples])
            assert found[own, draw] == pytest.approx(hand)


def test_random_triples_estimate_the_same(coarse):
    generator = np.random.default_rng(1)
    triples = np.array([generator.permutation(8)[:3] for _ in range(20_000)])
    drawn = triple_matches(distances(coarse), triples).mean()
    assert drawn == pytest.approx(random_matches(distances(coarse)).mean(), abs=0.01)


def test_given_triples_by_hand(coarse):
    triples = np.array([[0, 3, 5], [6, 1, 2]])
    found = triple_matches(distances(coarse), triples)
    assert found.shape == (2, 3, 2)
    for place, triple in enumerate(triples):
        for row, own in enumerate(triple):
            for draw in range(2):
                assert found[place, row, draw] == by_hand(coarse[own, draw], tuple(triple), own)


def test_what_keeps_everything_scores_1_and_what_keeps_nothing_a_third():
    n = 6
    everything = np.repeat((1 - np.eye(n))[:, None], 2, 1)
    nothing = np.full((n, 2, n), 0.7)  # as far from every target: all ties
    one_image = np.broadcast_to(np.linspace(0.1, 0.9, n), (n, 2, n)).copy()  # the same IRI for all targets
    for far, two, match in ((everything, 1, 1), (nothing, 0, 1 / 3), (one_image, None, 1 / 3)):
        assert random_matches(distances(far)).mean() == pytest.approx(match)
        if two is not None:
            assert nearer_target(distances(far)).mean() == two
    tied = triple_matches(distances(nothing), np.array([[0, 1, 2]]))
    assert tied == pytest.approx(1 / 3)
    pair = everything.copy()
    pair[0, :, 1] = 0  # its own target and another are equally near
    assert triple_matches(distances(pair), np.array([[0, 1, 2]]))[0, 0].tolist() == [0.5, 0.5]


def test_hard_triples_are_the_most_similar_and_ties_are_drawn():
    similarity = np.array([[9, 5, 4, 1], [5, 9, 0, 2], [4, 0, 9, 3], [1, 2, 3, 9.0]])
    assert hard_triples(similarity, 0).tolist() == [[0, 1, 2], [1, 0, 3], [2, 0, 3], [3, 2, 1]]
    equal = np.ones((12, 12))
    first, again, other = (hard_triples(equal, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    for found in (first, other):
        assert all(len(set(row)) == 3 for row in found.tolist())
        assert found[:, 0].tolist() == list(range(12))
    assert kept_triples(np.array([[0, 1, 2], [1, 2, 3]]), np.array([4, 5, 6, -1])).tolist() == [[4, 5, 6]]
    with pytest.raises(ValueError, match="at least 3 images"):
        hard_triples(np.ones((2, 2)), 0)
    with pytest.raises(ValueError, match="finite similarities"):
        hard_triples(np.where(np.eye(4, k=1), np.nan, 1.0), 0)


def test_a_distance_chooses_among_what_was_shown(coarse):
    far = np.array([[[1.0, 0.2, 0.2, 0.1]], *[[[1.0] * 4]] * 3])
    one = distances(far)
    assert choice_among(one, 0, 0, np.array([0, 1, 3]), 3) == 1
    assert choice_among(one, 0, 0, np.array([0, 1, 2]), 1) == 0.5
    assert choice_among(one, 0, 0, np.array([0, 1, 2]), 0) == 0


def test_intervals_resample_images():
    values = np.array([[1.0, 1.0]] * 20 + [[0.0, 0.0]] * 20)
    score = image_share(values, "two", "iris", chance=0.5, **SHARED)
    assert (score.value, score.n, score.unit, score.chance) == (0.5, 40, "images", 0.5)
    assert 0.25 < score.low < 0.42 < 0.58 < score.high < 0.75  # SD .079 of 40 images, .056 of 80 IRIs
    kept = np.zeros((40, 2), bool)
    kept[:5, 0] = True
    alone = image_share(values, "two", "iris", kept=kept, **SHARED)
    assert (alone.value, alone.n) == (1, 5)
    assert (alone.low, alone.high) == clopper_pearson(5, 5)
    assert image_share(values, "two", "iris", kept=np.zeros((40, 2), bool), **SHARED) is None
    answers = answer_share(np.array([1.0, 1, 0]), np.array([7, 7, 3]), "two_people", "iris", **SHARED)
    assert (answers.value, answers.n, answers.unit) == (pytest.approx(2 / 3), 3, "answers")
    assert median_score(values + 1, "error", "iris", **SHARED).value == 1.5
    assert median_score(values[:1], "error", "iris", **SHARED).low is None


def test_an_image_of_many_triples_is_one_image():
    generator = np.random.default_rng(0)
    triples = np.stack([generator.permutation(12)[:3] for _ in range(30)])
    of_image = generator.random(12) < 0.5
    values = np.repeat(of_image[triples][:, :, None], 2, 2).astype(float)
    one = triple_share(values, triples, "match_hard", "iris", **SHARED)
    again = triple_share(np.tile(values, (9, 1, 1)), np.tile(triples, (9, 1)), "match_hard", "iris", **SHARED)
    assert (one.n, one.unit, one.over) == (len(np.unique(triples)), "images", "images")
    assert one.value == pytest.approx(values.mean())
    assert (again.value, again.low, again.high) == pytest.approx((one.value, one.low, one.high))
    # two images that stand in every triple are two, however many triples there are
    hubs = np.array([[0, 1, row] for row in range(2, 42)])
    values = np.repeat((hubs == 0)[:, :, None], 2, 2).astype(float)
    wide = triple_share(values, hubs, "match_hard", "iris", **SHARED)
    assert wide.value == pytest.approx(1 / 3)
    assert wide.low == 0
    assert wide.high > 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own, seed, every: (own, seed[:, :1], every), r"expected distances \(n, k\)"),
        (lambda own, seed, every: (own, np.where(seed > 0, np.nan, seed), every), "in to_seed"),
        (lambda own, seed, every: (own, seed, np.where(every == every.max(), np.inf, every)), "in to_targets"),
        (lambda own, seed, every: (-own, seed, every), "in to_target"),
        (lambda own, seed, every: (own + 1, seed, every), "the same distance to an IRI's own target"),
    ],
)  # fmt: skip
def test_distances_that_are_none_are_refused(coarse, change, said):
    own, seed = own_target(coarse), np.full((8, 2), 0.3)
    assert checked_distances(own, seed, coarse, False, "d.npz").optimised is False
    with pytest.raises(ValueError, match=f"d.npz: .*{said}"):
        checked_distances(*change(own, seed, coarse), False, "d.npz")


def test_two_targets_cannot_be_clustered():
    with pytest.raises(ValueError, match="at least 3 targets, found 2"):
        random_matches(distances(np.ones((2, 1, 2))))
