"""Rank correlation over items: its resamples and permutations against scipy's and by brute force."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import permutation_test, rankdata, spearmanr

from alignet.evaluate.item_correlation import correlation, permuted


@pytest.mark.parametrize("seed", range(6))
def test_few_items_are_permuted_in_every_way(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(4, 7))
    x, y = generator.integers(0, 5, (2, n)) + np.eye(2, n)[:, ::-1]  # ties
    rho = abs(spearmanr(x, y)[0])
    every = [abs(spearmanr(x, y[list(order)])[0]) >= rho - 1e-9 for order in permutations(range(n))]
    p, exact = permuted(x, y, seed=0)
    assert exact
    assert p == pytest.approx(np.mean(every))


def test_many_items_agree_with_scipy():
    generator = np.random.default_rng(1)
    x, noise = generator.normal(size=(2, 20))
    for y in (noise, x + 2 * noise):
        p, exact = permuted(x, y, seed=0)
        theirs = permutation_test(
            (y,),
            lambda one: spearmanr(x, one)[0],
            permutation_type="pairings",
            n_resamples=5000,
            random_state=0,
        )
        assert not exact
        assert p == pytest.approx(theirs.pvalue, abs=0.03)
    assert permuted(x, x + 0.01 * noise, seed=0)[0] == 1 / 10_001


def test_a_constant_side_is_refused():
    with pytest.raises(ValueError, match="expected at least 3 pairs of values that differ"):
        permuted(np.arange(5), np.ones(5), seed=0)
    with pytest.raises(ValueError, match="found 2 and 2"):
        permuted(np.arange(2), np.arange(2), seed=0)


def by_loops(x, y, draws, seed, parts):
    """Spearman's rho of each resample by scipy, drawn one after another: means over parts by their items."""
    generator, found = np.random.default_rng(seed), []
    members = [np.flatnonzero(parts == one) for one in np.unique(parts)]
    for _ in range(draws):
        places = [mine[generator.integers(len(mine), size=len(mine))] for mine in members]
        rhos = [
            spearmanr(x[one], y[one])[0] if np.ptp(x[one]) and np.ptp(y[one]) else np.nan for one in places
        ]
        found.append(sum(len(one) / len(x) * rho for one, rho in zip(places, rhos, strict=True)))
    return np.array(found)


@pytest.mark.parametrize(("n", "count"), [(5, 1), (30, 1), (30, 3)])
def test_resamples_are_those_of_scipy_one_by_one(n, count, monkeypatch):
    """Also where few are held at a time."""
    generator = np.random.default_rng(n + count)
    x, y = generator.integers(0, 4, (2, n)).astype(float)  # ties, and resamples that are constant
    parts = np.arange(n) % count
    monkeypatch.setattr("alignet.evaluate.item_correlation.DRAWN", 7 * n)
    found = correlation(x, y, bootstrap=40, seed=3, parts=parts)
    expected = by_loops(x, y, 40, 3, parts)
    defined = expected[np.isfinite(expected)]
    np.testing.assert_allclose(found.draws, defined, atol=1e-12)
    assert (len(defined) < 40) == (n == 5)
    assert correlation(x, y, bootstrap=0, seed=3).draws.size == 0
    monkeypatch.undo()
    whole = correlation(x, y, bootstrap=40, seed=3, parts=parts)
    np.testing.assert_array_equal(whole.draws, found.draws)


def test_drawn_permutations_are_those_one_by_one(monkeypatch):
    x, y = np.random.default_rng(2).normal(size=(2, 9))
    generator, rho = np.random.default_rng(4), spearmanr(x, y)[0]
    ranks = rankdata(y)
    hits = sum(abs(np.corrcoef(rankdata(x), generator.permutation(ranks))[0, 1]) >= abs(rho) - 1e-9
               for _ in range(2000))  # fmt: skip
    monkeypatch.setattr("alignet.evaluate.item_correlation.PERMUTATIONS", 2000)
    monkeypatch.setattr("alignet.evaluate.item_correlation.DRAWN", 7000)
    assert permuted(x, y, seed=4) == ((1 + hits) / 2001, False)


def test_items_of_a_cluster_come_and_go_together():
    """Each item twice says no more than once where both are one cluster, and seems to where they are not."""
    x, y = np.random.default_rng(5).normal(size=(2, 25))
    once = correlation(x, y, bootstrap=300, seed=1)
    both = {"x": np.repeat(x, 2), "y": np.repeat(y, 2), "bootstrap": 300, "seed": 1}
    found = correlation(**both, clusters=np.repeat(np.arange(25), 2))
    assert found.rho == pytest.approx(once.rho)
    np.testing.assert_allclose(found.draws, once.draws, atol=1e-12)
    apart = correlation(**both)
    assert apart.high - apart.low < 0.85 * (found.high - found.low)
    gaps = both["x"].copy()
    gaps[:10] = np.nan  # what is left out takes its cluster with it
    left = correlation(gaps, both["y"], bootstrap=300, seed=1, clusters=np.repeat(np.arange(25), 2))
    np.testing.assert_allclose(left.draws, correlation(x[5:], y[5:], bootstrap=300, seed=1).draws, atol=1e-12)
