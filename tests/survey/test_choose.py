"""Which triplets a survey asks: no repetition, criteria against brute force, and what they are good for."""

import math

import numpy as np
import pytest
import torch

from alignet.survey.choose import active_triplets, random_triplets, scores, spread_out
from alignet.triplets import all_triplets


def codes(rows):
    return [tuple(row) for row in np.asarray(rows).tolist()]


@pytest.mark.parametrize(("m", "count"), [(6, 20), (6, 7), (40, 300), (2000, 50)])
def test_random_triplets_are_different_ascending_and_not_asked_before(m, count):
    rows = random_triplets(m, count, seed=1)
    assert rows.shape == (count, 3)
    assert rows.dtype == np.int64
    assert (np.diff(rows, axis=1) > 0).all()
    assert len(set(codes(rows))) == count
    assert codes(rows) == codes(random_triplets(m, count, seed=1))
    if count < math.comb(m, 3):
        assert codes(rows) != codes(random_triplets(m, count, seed=2))
        before = rows[:, [2, 0, 1]]
        more = random_triplets(m, min(count, math.comb(m, 3) - count), seed=1, exclude=before)
        assert not set(codes(more)) & set(codes(rows))


def test_random_triplets_are_uniform():
    counts = np.zeros(20)
    for seed in range(600):
        for row in codes(random_triplets(6, 5, seed=seed)):
            counts[codes(all_triplets(6)).index(row)] += 1
    expected = 600 * 5 / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi squared, 19 degrees, p = 0.001


def test_too_many_are_refused_with_what_there_is():
    with pytest.raises(
        ValueError, match=r"expected 1\.\.15 \(6 objects have 20 triplets, 5 were asked before\), found 16"
    ):
        random_triplets(6, 16, seed=0, exclude=random_triplets(6, 5, seed=0))


def posterior(m=7, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(m, d, generator=generator) * 1.5, 0.05 + 0.5 * torch.rand(m, d, generator=generator)


def by_hand(loc, scale, triplets, samples, seed):
    """All three criteria with loops, in float64."""
    generator = torch.Generator().manual_seed(seed)
    grams, found = [], {"entropy": [], "information": [], "rank": []}
    for _ in range(samples):
        draw = (loc + scale * torch.randn(loc.shape, generator=generator)).clamp(min=0).double().numpy()
        grams.append(draw @ draw.T)
    pairs = [(i, j) for i in range(len(loc)) for j in range(i + 1, len(loc))]
    ranks = np.array([np.argsort(np.argsort([gram[pair] for pair in pairs])) / len(pairs) for gram in grams])
    for i, j, k in triplets.tolist():
        logits = np.array([[gram[i, j], gram[i, k], gram[j, k]] for gram in grams])
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        mean = probs.mean(0)
        found["entropy"].append(-(mean * np.log(mean)).sum())
        found["information"].append(
            (probs * np.log(probs / mean)).sum(1).mean()
        )  # mean KL to the mean answer
        explained = 0.0
        for column in range(len(pairs)):
            given = [np.average(ranks[:, column], weights=probs[:, answer]) for answer in range(3)]
            explained += np.average((np.array(given) - ranks[:, column].mean()) ** 2, weights=mean)
        found["rank"].append(explained)
    return found


def test_every_criterion_is_what_its_definition_says():
    loc, scale = posterior()
    triplets = all_triplets(7)
    expected = by_hand(loc, scale, triplets, 40, seed=3)
    for criterion, values in expected.items():
        got = scores(loc, scale, triplets, criterion=criterion, samples=40, seed=3)
        np.testing.assert_allclose(got.numpy(), values, rtol=2e-3, atol=2e-5)


def test_entropy_alone_asks_what_people_disagree_on_and_the_others_what_is_not_known():
    """Objects 0-2 are known to be alike, 3-5 vary in the posterior: asking about 0-2 teaches nothing."""
    loc = torch.tensor([[1.0], [1.0], [1.0], [1.5], [1.5], [1.5]])
    scale = torch.tensor([[1e-4]] * 3 + [[1.5]] * 3)
    triplets = torch.tensor([[0, 1, 2], [3, 4, 5]])
    arguments = {"samples": 200, "seed": 0}
    unsure = scores(loc, scale, triplets, criterion="entropy", **arguments)
    assert unsure[0] >= unsure[1]
    for criterion in ("information", "rank"):
        value = scores(loc, scale, triplets, criterion=criterion, **arguments)
        assert value[1] > 20 * value[0]


def test_a_pair_is_asked_about_so_often_at_most_until_nothing_else_is_left():
    loc, scale = posterior(m=12)
    arguments = {"criterion": "information", "samples": 20, "candidates": 10_000, "seed": 0}
    rows = active_triplets(loc, scale, 12, per_pair=1, **arguments)
    pairs = [pair for i, j, k in codes(rows) for pair in ((i, j), (i, k), (j, k))]
    assert len(set(pairs)) == len(pairs) == 36
    every = active_triplets(loc, scale, 220, per_pair=1, **arguments)
    assert sorted(codes(every)) == sorted(codes(all_triplets(12)))
    rest = active_triplets(loc, scale, 30, per_pair=2, exclude=every[:150], **arguments)
    assert not set(codes(rest)) & set(codes(every[:150]))
    unlimited = active_triplets(loc, scale, 12, per_pair=99, **arguments)
    value = scores(loc, scale, all_triplets(12), criterion="information", samples=20, seed=0)
    best = all_triplets(12)[value.argsort(descending=True)[:12]]
    assert sorted(codes(unlimited)) == sorted(codes(best))


def test_spreading_out_takes_the_first_that_fit():
    rows = np.array([[0, 1, 2], [0, 1, 3], [2, 3, 4], [0, 3, 4], [1, 2, 4], [0, 2, 3]])
    first = spread_out(rows, 2, objects=5, per_pair=1)
    assert codes(first) == [(0, 1, 2), (2, 3, 4)]
    assert codes(spread_out(rows, 3, objects=5, per_pair=1)) == [*codes(first), (0, 1, 3)]
    assert len(spread_out(rows, 6, objects=5, per_pair=1)) == 6


def test_seeds_repeat_and_candidates_limit():
    loc, scale = posterior(m=30)
    arguments = {"criterion": "rank", "samples": 10, "candidates": 100, "per_pair": 2}
    first = active_triplets(loc, scale, 40, seed=1, **arguments)
    assert codes(first) == codes(active_triplets(loc, scale, 40, seed=1, **arguments))
    assert codes(first) != codes(active_triplets(loc, scale, 40, seed=2, **arguments))
    assert set(codes(first)) <= set(codes(random_triplets(30, 100, seed=1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": "bald"}, "expected one of rank, information, entropy, found 'bald'"),
        ({"samples": 1}, "survey.samples: expected at least 2"),
        ({"scale": torch.zeros(7, 3)}, "survey.posterior: expected finite loc and positive scale"),
        ({"loc": torch.full((7, 3), torch.nan)}, "survey.posterior: expected finite loc and positive scale"),
    ],
)
def test_a_posterior_that_is_none_is_refused(change, message):
    loc, scale = posterior()
    arguments = {"loc": loc, "scale": scale, "criterion": "rank", "samples": 5, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        scores(triplets=all_triplets(7), **arguments)
