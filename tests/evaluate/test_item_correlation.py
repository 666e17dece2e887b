"""Rank correlation over items: its permutation test against scipy's and by brute force."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import permutation_test, spearmanr

from alignet.evaluate.item_correlation import permuted


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
