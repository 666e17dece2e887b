"""Drawn triplets: every possible one and no other, none twice, with the stated probabilities."""

from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import chisquare

import alignet.teacher.sampling
from alignet.teacher.sampling import (
    InBatch,
    _picker,
    _repeats,
    class_boundary,
    cluster_boundary,
    random_triplets,
)

TINY = np.array([3, 0, 0, 7, 3, 3, 9])  # groups of 3, 2, 1 and 1 images


def sets_of(triplets):
    """The triplets as (pair, odd one): what may not come twice."""
    return [(frozenset(row[:2]), row[2]) for row in np.asarray(triplets).tolist()]


def all_boundary(labels):
    images = range(len(labels))
    return {
        (frozenset((i, j)), k)
        for i, j in combinations(images, 2)
        for k in images
        if labels[i] == labels[j] != labels[k]
    }


def all_random(m, labels):
    return {
        frozenset(c) for c in combinations(range(m), 3) if labels is None or len(set(labels[list(c)])) == 3
    }


@pytest.mark.parametrize("listable", [0, 10_000_000])
@pytest.mark.parametrize("sampler", [cluster_boundary, class_boundary])
def test_all_boundary_triplets_of_a_tiny_pool(monkeypatch, sampler, listable):
    monkeypatch.setattr(alignet.teacher.sampling, "_LISTABLE", listable)
    expected = all_boundary(TINY)
    assert len(expected) == 3 * 4 + 1 * 5
    drawn = sampler(TINY, len(expected), seed=0)
    assert drawn.dtype == np.int64
    assert len(drawn) == len(expected)
    assert set(sets_of(drawn)) == expected
    with pytest.raises(ValueError, match=r"at most 17 triplets.* request for 18"):
        sampler(TINY, 18, seed=0)


@pytest.mark.parametrize("listable", [0, 10_000_000])
@pytest.mark.parametrize("labels", [None, TINY, np.array(list("abcabbd"))])
def test_all_random_triplets_of_a_tiny_pool(monkeypatch, labels, listable):
    monkeypatch.setattr(alignet.teacher.sampling, "_LISTABLE", listable)
    expected = all_random(7, labels)
    drawn = random_triplets(7, len(expected), seed=0, labels=labels)
    assert len(drawn) == len(expected)
    assert {frozenset(row) for row in drawn.tolist()} == expected
    with pytest.raises(ValueError, match=f"at most {len(expected)} triplets"):
        random_triplets(7, len(expected) + 1, seed=0, labels=labels)


def test_string_labels_are_classes():
    names = np.array(["cat", "dog"])[np.arange(40) % 2]
    np.testing.assert_array_equal(
        class_boundary(names, 50, seed=1), class_boundary(np.arange(40) % 2, 50, seed=1)
    )


def samplers():
    labels = np.random.default_rng(0).integers(0, 30, 1000)
    return {
        "cluster": lambda n, seed: cluster_boundary(labels, n, seed),
        "random": lambda n, seed: random_triplets(1000, n, seed),
        "classes": lambda n, seed: random_triplets(1000, n, seed, labels),
    }


@pytest.mark.parametrize("name", ["cluster", "random", "classes"])
def test_seeds_and_repeats(name):
    draw = samplers()[name]
    first = draw(200_000, 0)
    assert first.shape == (200_000, 3)
    assert len(np.unique(np.sort(first, axis=1), axis=0)) == 200_000
    np.testing.assert_array_equal(draw(200_000, 0), first)
    np.testing.assert_array_equal(draw(70_000, 0), first[:70_000])  # the same stream, stopped earlier
    assert (draw(1000, 1) != first[:1000]).mean() > 0.9
    assert first.min() >= 0
    assert first.max() < 1000


def test_threads_do_not_matter(monkeypatch):
    monkeypatch.setattr(alignet.teacher.sampling, "_BLOCK", 1000)
    labels = np.random.default_rng(0).integers(0, 30, 400)
    for draw in (
        lambda threads: cluster_boundary(labels, 100_000, 0, threads),
        lambda threads: random_triplets(400, 100_000, 0, labels, threads),
        lambda threads: random_triplets(400, 100_000, 0, threads=threads),
    ):
        one = draw(1)
        for threads in (2, 5):
            np.testing.assert_array_equal(draw(threads), one)


@pytest.mark.parametrize("m", [4, 40, 3_000_000_000])
@pytest.mark.parametrize("threads", [1, 3])
def test_repeats_are_those_of_a_dictionary(m, threads):
    generator = np.random.default_rng(m)
    triplets = generator.integers(0, m, (20_000, 3))
    triplets[5000:9000] = generator.permuted(triplets[:4000], axis=1)  # some again, in another order
    seen, expected = set(), []
    for row, triplet in enumerate(triplets.tolist()):
        if tuple(sorted(triplet)) in seen:
            expected.append(row)
        seen.add(tuple(sorted(triplet)))
    assert sorted(_repeats(triplets, threads).tolist()) == expected


def test_equal_hashes_are_not_taken_for_equal_triplets(monkeypatch):
    triplets = np.array([[0, 1, 2], [3, 4, 5], [2, 1, 0], [3, 4, 6], [5, 3, 4]])
    monkeypatch.setattr(
        alignet.teacher.sampling, "_hashes", lambda rows, threads: np.full(len(rows), 7, dtype=np.uint32)
    )
    assert sorted(_repeats(triplets, 2).tolist()) == [2, 4]


@pytest.mark.parametrize("kinds", [3, 5, 1000, 4097])
def test_a_picker_finds_what_bisection_finds(kinds):
    generator = np.random.default_rng(kinds)
    weight = np.cumsum(generator.integers(0, 5, kinds) ** 6 + (np.arange(kinds) == kinds - 1))
    weight = weight.astype(np.float64)
    u = np.concatenate([generator.random(20_000), np.arange(64) / 64, weight[:-1][:500] / weight[-1]])
    u = u[u < 1]
    np.testing.assert_array_equal(_picker(weight)(u), np.searchsorted(weight, u * weight[-1], side="right"))


def uniform(values, kinds):
    """p-value of the hypothesis that integers below `kinds` are uniform."""
    return chisquare(np.bincount(values, minlength=kinds)).pvalue


def test_marginals_of_cluster_boundary():
    sizes = np.array([1, 1000, 1500, 2500])
    place = np.random.default_rng(0).permutation(5001)  # clusters are not contiguous
    cluster = np.empty(5001, dtype=np.int64)
    cluster[place] = np.repeat([40, 10, 30, 20], sizes)
    rank = np.empty(5001, dtype=np.int64)
    rank[place] = np.concatenate([np.arange(size) for size in sizes])
    drawn = cluster_boundary(cluster, 20_000, seed=0)
    near, same, far = cluster[drawn].T
    assert (near == same).all()
    assert (near != far).all()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert uniform(near // 10 - 1, 3) > 1e-3  # the single image's cluster never gives the pair
    assert chisquare(np.bincount(near // 10 - 1), 20_000 * np.array([1000, 2500, 1500]) / 5000).pvalue < 1e-9
    for value in (10, 20, 30):
        others = np.unique(far[near == value], return_counts=True)[1]
        assert len(others) == 3
        assert chisquare(others).pvalue > 1e-3
        size = sizes[np.flatnonzero(np.array([40, 10, 30, 20]) == value)[0]]
        for column in range(3):
            rows = drawn[cluster[drawn[:, column]] == value, column]
            assert uniform(rank[rows] * 10 // size, 10) > 1e-3
    assert uniform((rank[drawn[:, 0]] < rank[drawn[:, 1]]).astype(int), 2) > 1e-3


def boundary_law(labels):
    """Probability of each (pair, odd one) in one draw, by the definition."""
    sizes = Counter(labels.tolist())
    large = [g for g in sizes if sizes[g] >= 2]
    return {
        (pair, odd): 1
        / len(large)
        / (sizes[labels[min(pair)]] * (sizes[labels[min(pair)]] - 1) / 2)
        / (len(sizes) - 1)
        / sizes[labels[odd]]
        for pair, odd in all_boundary(labels)
    }


def ordered_law(law, n):
    """Probability of each sequence of n draws in which repeats are left out."""
    found = {}
    for sequence in permutations(law, n):
        probability, left = 1.0, 1.0
        for one in sequence:
            probability, left = probability * law[one] / left, left - law[one]
        found[sequence] = probability
    return found


@pytest.mark.parametrize("listable", [0, 10_000_000])
@pytest.mark.parametrize(("labels", "n"), [([0, 0, 1, 1, 2], 2), ([0, 0, 0, 1, 1], 3)])
def test_the_law_of_a_small_pool_is_exact_on_both_ways(monkeypatch, labels, n, listable):
    """Listing all triplets and drawing until enough are new give one distribution, order included."""
    monkeypatch.setattr(alignet.teacher.sampling, "_LISTABLE", listable)
    monkeypatch.setattr(alignet.teacher.sampling, "_BLOCK", 64)
    labels = np.array(labels)
    law = boundary_law(labels)
    assert sum(law.values()) == pytest.approx(1)
    assert max(law.values()) / min(law.values()) == pytest.approx(2)
    assert 4 * n > len(law)  # enough of them that they are listed where that is allowed
    expected = ordered_law(law, n)
    drawn = Counter(tuple(sets_of(cluster_boundary(labels, n, seed))) for seed in range(5000))
    assert set(drawn) <= set(expected)
    counts = [drawn[sequence] for sequence in expected]
    assert chisquare(counts, 5000 * np.array(list(expected.values()))).pvalue > 1e-3
    assert chisquare(counts).pvalue < 1e-6  # so the test can tell the law from a flat one


@pytest.mark.parametrize("listable", [0, 10_000_000])
@pytest.mark.parametrize("labels", [None, np.array([0, 0, 0, 1, 1, 2, 3])])
def test_random_triplets_are_uniform(monkeypatch, labels, listable):
    monkeypatch.setattr(alignet.teacher.sampling, "_LISTABLE", listable)
    monkeypatch.setattr(alignet.teacher.sampling, "_BLOCK", 16)
    possible = sorted(tuple(sorted(c)) for c in all_random(7, labels))
    drawn = np.concatenate([random_triplets(7, 9, seed, labels) for seed in range(600)])
    counts = Counter(tuple(sorted(row)) for row in drawn.tolist())
    assert chisquare([counts[c] for c in possible]).pvalue > 1e-3
    for column in range(3):  # no column belongs to a class or to low rows
        share = np.bincount(drawn[:, column], minlength=7) / len(drawn)
        member = np.array([sum(i in c for c in possible) for i in range(7)]) / len(possible) / 3
        np.testing.assert_allclose(share, member, atol=0.02)


def test_rare_classes_are_reached():
    labels = np.array([0] * 100_000 + list(range(1, 41)))  # one class holds nearly all images
    drawn = random_triplets(len(labels), 50_000, seed=0, labels=labels)
    assert all(len(set(labels[row])) == 3 for row in drawn[:500])
    with_large = (labels[drawn] == 0).any(1).mean()
    assert with_large > 0.999  # 100,000 x C(40, 2) of the possible triplets have it, C(40, 3) do not


def test_rare_triplets_are_listed_or_refused_but_never_waited_for(monkeypatch):
    """Half of the draws take the pair of the small cluster, which has 61 triplets among 5,371."""
    monkeypatch.setattr(alignet.teacher.sampling, "_BLOCK", 256)
    labels = np.repeat([0, 1, 2], [2, 1, 60])
    assert len(all_boundary(labels)) == 61 + 60 * 59 // 2 * 3
    with pytest.raises(ValueError, match="at most 5,371 triplets"):
        cluster_boundary(labels, 5372, seed=0)
    assert set(sets_of(cluster_boundary(labels, 5371, seed=0))) == all_boundary(labels)
    monkeypatch.setattr(alignet.teacher.sampling, "_LISTABLE", 0)
    with pytest.raises(ValueError, match="ask for fewer"):
        cluster_boundary(labels, 5371, seed=0)


@pytest.mark.parametrize("labels", [np.zeros(9, dtype=int), np.arange(9)])
def test_no_boundary_at_all(labels):
    with pytest.raises(ValueError, match="at most 0 triplets"):
        cluster_boundary(labels, 1, seed=0)


def test_unfit_arguments():
    with pytest.raises(ValueError, match="at least one"):
        cluster_boundary(TINY, 0, seed=0)
    with pytest.raises(ValueError, match="at most 0"):
        random_triplets(2, 1, seed=0)
    with pytest.raises(ValueError, match="each of 5 images, found 7"):
        random_triplets(5, 1, seed=0, labels=TINY)
    with pytest.raises(ValueError, match="one label per image"):
        cluster_boundary(np.zeros((3, 3)), 1, seed=0)


# ---- batches


def test_random_batches_are_epochs():
    source = InBatch(50, batch=12, seed=0)
    steps = [source.rows(step) for step in range(8)]
    for epoch in (steps[:4], steps[4:]):
        assert len(set(np.concatenate(epoch).tolist())) == 48
    assert set(np.concatenate(steps[:4])) != set(np.concatenate(steps[4:]))
    fresh = InBatch(50, batch=12, seed=0)
    for step in (7, 2, 5):  # in any order: a step knows its images
        np.testing.assert_array_equal(fresh.rows(step), steps[step])
    assert not np.array_equal(InBatch(50, batch=12, seed=1).rows(0), steps[0])


def test_batches_are_the_callers_own():
    source = InBatch(50, batch=12, seed=0)
    first = source.rows(0)
    first[:] = -1
    assert source.rows(0).min() >= 0


def test_batches_by_clusters():
    sizes = [2, 3, 5, 9, 30]
    assignment = np.random.default_rng(0).permutation(np.repeat([1, 2, 3, 4, 6], sizes))
    source = InBatch(49, batch=9, seed=0, assignment=assignment, clusters=3)
    chosen, images = Counter(), Counter()
    for step in range(3000):
        rows = source.rows(step)
        assert len(set(rows.tolist())) == 9
        groups = assignment[rows].reshape(3, 3)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0].tolist())) == 3
        chosen.update(groups[:, 0].tolist())
        images.update(rows[assignment[rows] == 4].tolist())
    assert set(chosen) == {2, 3, 4, 6}
    # three of four clusters without replacement: each in 3/4 of the steps, less varied than a chi-square
    np.testing.assert_allclose(list(chosen.values()), 2250, atol=150)
    assert chisquare(list(images.values())).pvalue > 1e-3
    again = InBatch(49, batch=9, seed=0, assignment=assignment, clusters=3)
    np.testing.assert_array_equal(again.rows(2999), rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 2}, "batch of 3..10"),
        ({"batch": 11}, "batch of 3..10"),
        ({"batch": 6, "clusters": 2}, "found none"),
        ({"batch": 6, "clusters": 2, "assignment": np.zeros(9)}, "found 9"),
        ({"batch": 7, "clusters": 2, "assignment": np.arange(10) % 3}, "divide"),
        ({"batch": 6, "clusters": -2, "assignment": np.arange(10) % 3}, "divide"),
        ({"batch": 8, "clusters": 2, "assignment": np.arange(10) % 3}, "4 or more images, found 1"),
    ],
)
def test_unfit_batches(options, message):
    with pytest.raises(ValueError, match=message):
        InBatch(10, seed=0, **options)


def test_rounds_leave_no_trace(monkeypatch):
    """However often repeats are searched, the triplets are the first different ones of the same stream."""
    assignment = np.random.default_rng(0).integers(0, 20, 1500)
    found = []
    for rounds in (1, 2, 256):
        monkeypatch.setattr(alignet.teacher.sampling, "_ROUND", rounds)
        found.append((random_triplets(700, 300_000, 3), cluster_boundary(assignment, 300_000, 3)))
    for one in found[1:]:
        for triplets, same in zip(one, found[0], strict=True):
            np.testing.assert_array_equal(triplets, same)
