"""RSA against scipy and brute force on five objects; invariances, matrices that are refused."""

import itertools

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import rankdata, spearmanr

from alignet.data.judgements import as_similarity
from alignet.evaluate.bootstrap import object_counts
from alignet.evaluate.rsa import (
    _bootstrap,
    kept_together,
    pearson_kernel,
    permutation_p,
    rsa,
    rsa_mean,
    spearman,
)


def symmetric(m, seed, levels=0):
    """A random symmetric matrix; with `levels`, of that many values, so that ties abound."""
    generator = np.random.default_rng(seed)
    values = (
        generator.integers(levels, size=(m, m)).astype(float) if levels else generator.normal(size=(m, m))
    )
    return np.triu(values, 1) + np.triu(values, 1).T


def test_spearman_equals_scipy_with_and_without_ties():
    generator = np.random.default_rng(0)
    for levels in (4, 10**9):
        x, y = generator.integers(levels, size=(2, 300)).astype(float)
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_whole_score_equals_brute_force_on_five_objects():
    x, judged = np.random.default_rng(1).normal(size=(5, 7)), symmetric(5, 2)
    pairs = list(itertools.combinations(range(5), 2))
    a = rankdata([np.corrcoef(x[i], x[j])[0, 1] for i, j in pairs])
    b = rankdata([judged[i, j] for i, j in pairs])
    expected = 1 - 6 * ((a - b) ** 2).sum() / (10 * 99)  # the formula for ranks without ties
    score, p = rsa(x, judged, dataset="five", seed=0, bootstrap=200, permutations=50)
    assert score.value == pytest.approx(expected, abs=1e-12)
    assert (score.n, score.unit, score.over, score.chance) == (10, "pairs", "objects", 0.0)
    assert p.value == permutation_p(pearson_kernel(x), judged, permutations=50, seed=0)


def test_kernel_is_numpys_and_ignores_scale_and_shift_of_each_row():
    x = np.random.default_rng(2).normal(size=(6, 9))
    np.testing.assert_allclose(pearson_kernel(x), np.corrcoef(x), atol=1e-12)
    moved = x * np.arange(1, 7)[:, None] + np.arange(6)[:, None]
    np.testing.assert_allclose(pearson_kernel(moved), pearson_kernel(x), atol=1e-12)


def test_bootstrap_draws_equal_scipy_on_the_resampled_list():
    m, judged, kernel = 9, symmetric(9, 3, levels=4), symmetric(9, 4)
    upper = np.triu_indices(m, k=1)
    draws = _bootstrap(kernel[upper], judged[upper], m, draws=30, seed=5, dataset="d")
    for count, found in zip(object_counts(m, draws=30, seed=5), draws):
        drawn = np.repeat(np.arange(m), count)
        pairs = [(i, j) for i, j in itertools.combinations(drawn, 2) if i != j]  # no object with its copy
        expected = spearmanr(*np.array([(kernel[pair], judged[pair]) for pair in pairs]).T).statistic
        assert found == pytest.approx(expected, abs=1e-10)


def test_planted_structure_is_found_and_vanishes_when_objects_are_shuffled():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 20))
    judged = pearson_kernel(x) + 0.5 * symmetric(40, 1) * pearson_kernel(x).std()
    (score, p) = rsa(x, judged, dataset="planted", seed=0, bootstrap=200, permutations=199)
    assert score.value > 0.8
    assert score.low < score.value < score.high
    assert p.value == 1 / 200
    wrong, p = rsa(x[generator.permutation(40)], judged, dataset="x", seed=0, bootstrap=200, permutations=199)
    assert abs(wrong.value) < 0.15
    assert p.value > 0.02


def test_p_values_are_uniform_without_an_effect():
    values = [
        permutation_p(symmetric(8, 2 * i), symmetric(8, 2 * i + 1), permutations=49, seed=i)
        for i in range(200)
    ]
    assert 0.4 < np.mean(values) < 0.6
    assert 0.01 < np.mean(np.array(values) <= 0.1) < 0.18


def test_a_relabelling_that_does_as_well_is_a_hit():
    """Of three objects' six orders only the unchanged one reaches a correlation of 1: p is near 1/6."""
    matrix = symmetric(3, 0)
    assert permutation_p(matrix, 2 * matrix, permutations=999, seed=0) == pytest.approx(1 / 6, abs=0.04)


def test_dissimilarity_is_negated_and_monotone_changes_do_nothing():
    x, judged = np.random.default_rng(3).normal(size=(8, 5)), symmetric(8, 6)
    options = {"dataset": "d", "seed": 0, "bootstrap": 20, "permutations": 20}
    value = rsa(x, judged, **options)[0].value
    assert rsa(x, as_similarity(-judged, "dissimilarity", "d"), **options)[0].value == pytest.approx(value)
    assert rsa(x, np.exp(judged), **options)[0].value == pytest.approx(value)
    assert rsa(x, as_similarity(judged, "dissimilarity", "d"), **options)[0].value == pytest.approx(-value)


def test_a_nan_diagonal_is_fine_as_it_is_never_used():
    matrix = symmetric(4, 0)
    np.fill_diagonal(matrix, np.nan)
    assert np.isfinite(as_similarity(matrix, "similarity", "m")).all()


@pytest.mark.parametrize(
    ("matrix", "kind", "message"),
    [
        (np.zeros((3, 4)), "similarity", "square matrix"),
        (np.zeros((2, 2)), "similarity", "at least 3 objects"),
        (np.arange(9.0).reshape(3, 3), "similarity", "symmetric matrix, found 2 at row 0, column 2 but 6"),
        (np.full((3, 3), np.nan), "similarity", "6 NaN or infinite entries, the first at row 0, column 1"),
        (np.zeros((3, 3)), "distance", "unknown kind of matrix 'distance'"),
        (np.zeros((3, 3), dtype=bool), "similarity", "real numbers"),
    ],
)
def test_wrong_matrices_are_refused(matrix, kind, message):
    with pytest.raises(ValueError, match=message):
        as_similarity(matrix, kind, "m")


def test_degenerate_features_are_refused():
    options = {"dataset": "d", "seed": 0, "bootstrap": 5, "permutations": 5}
    x = np.random.default_rng(0).normal(size=(5, 4))
    with pytest.raises(ValueError, match="1 constant rows, the first 2"):
        rsa(np.where(np.arange(5)[:, None] == 2, 0.1, x), symmetric(5, 0), **options)
    with pytest.raises(ValueError, match="all equal in the matrix"):
        rsa(x, np.ones((5, 5)), **options)
    with pytest.raises(ValueError, match="one row per row of features"):
        rsa(x, symmetric(4, 0), **options)
    with pytest.raises(ValueError, match="finite features"):
        rsa(np.full((5, 4), np.inf), symmetric(5, 0), **options)


def test_spearman_and_p_agree_with_scipys_permutation_test():
    """scipy permutes one list where we relabel objects; of independent pairs both come to the same p."""
    from scipy.stats import permutation_test

    x, judged = np.random.default_rng(4).normal(size=(7, 5)), symmetric(7, 8)
    kernel, upper = pearson_kernel(x), np.triu_indices(7, k=1)

    def statistic(order):
        order = order.astype(int)
        return spearmanr(kernel[upper], judged[np.ix_(order, order)][upper]).statistic

    expected = permutation_test(
        (np.arange(7.0),), statistic, permutation_type="pairings", n_resamples=np.inf, alternative="greater"
    )
    score, p = rsa(x, judged, dataset="d", seed=0, bootstrap=10, permutations=3000)
    assert score.value == pytest.approx(expected.statistic, abs=1e-12)
    assert p.value == pytest.approx(expected.pvalue, abs=0.03)


def test_rsatoolbox_says_the_same_of_correlation_distances():
    rsatoolbox = pytest.importorskip("rsatoolbox")
    generator = np.random.default_rng(5)
    x, other = generator.normal(size=(12, 9)), generator.normal(size=(12, 30))
    rdms = [
        rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(rows), method="correlation") for rows in (x, other)
    ]
    expected = rsatoolbox.rdm.compare(*rdms, method="spearman")[0, 0]
    judged = as_similarity(rdms[1].get_matrices()[0], "dissimilarity", "d")
    assert rsa(x, judged, dataset="d", seed=0, bootstrap=10, permutations=10)[0].value == pytest.approx(
        expected, abs=1e-10
    )


def planted_sets(noise):
    """Three sets of 12 objects, whose judgments are the features' kernel and noise."""
    generator = np.random.default_rng(9)
    sets = {}
    for number, name in enumerate(("animals", "fruits", "vehicles")):
        x = generator.normal(size=(12, 8))
        sets[name] = (x, pearson_kernel(x) + noise * symmetric(12, number))
    return sets


def test_the_mean_of_sets_is_the_mean_of_each_by_itself():
    sets = planted_sets(0.5)
    scores = rsa_mean(sets, dataset="fine", seed=3, bootstrap=300, permutations=199)
    rho = {score.dataset: score for score in scores if score.metric == "rsa_spearman"}
    p = {score.dataset: score.value for score in scores if score.metric == "rsa_p"}
    assert list(rho) == ["fine animals", "fine fruits", "fine vehicles", "fine"]
    for name, (x, judged) in sets.items():
        alone = rsa(x, judged, dataset="x", seed=0, bootstrap=300, permutations=199)[0]
        assert rho[f"fine {name}"].value == pytest.approx(alone.value, abs=1e-12)
    assert rho["fine"].value == pytest.approx(np.mean([rho[f"fine {name}"].value for name in sets]))
    assert rho["fine"].n == 3 * 66
    assert rho["fine"].low < rho["fine"].value < rho["fine"].high
    widths = [rho[f"fine {name}"].high - rho[f"fine {name}"].low for name in sets]
    assert rho["fine"].high - rho["fine"].low < np.mean(widths)  # three sets resampled by themselves
    assert p["fine"] == 1 / 200
    assert "mean of 3 sets: animals, fruits, vehicles" in rho["fine"].note


def test_the_mean_of_sets_vanishes_when_their_objects_are_shuffled():
    generator = np.random.default_rng(0)
    sets = {name: (x[generator.permutation(12)], judged) for name, (x, judged) in planted_sets(0.1).items()}
    score, p = rsa_mean(sets, dataset="fine", seed=0, bootstrap=100, permutations=199)[-2:]
    assert score.low < 0 < score.high
    assert p.value > 0.05
    with pytest.raises(ValueError, match="two or more sets of judgments to average, found 1"):
        rsa_mean({"one": sets["animals"]}, dataset="fine", seed=0)
    with pytest.raises(ValueError, match="fine two: expected a matrix of shape"):
        rsa_mean({"one": sets["animals"], "two": (np.eye(4), np.eye(5))}, dataset="fine", seed=0)


def test_shares_of_pairs_kept_together_against_counting_by_hand():
    rng = np.random.default_rng(3)
    triplets = np.array([rng.permutation(6)[:3] for _ in range(400)])
    matrix, fewest = kept_together(triplets, 6, "d")
    shown = [row for row in triplets.tolist() if {1, 4} <= set(row)]
    assert matrix[1, 4] == matrix[4, 1] == np.mean([set(row[:2]) == {1, 4} for row in shown])
    assert fewest <= len(shown)
    assert not matrix.diagonal().any()
    with pytest.raises(ValueError, match="1 that were never shown together; give more choices"):
        kept_together(np.array([row for row in triplets if not {1, 4} <= set(row.tolist())]), 6, "d")


def test_shares_of_choices_come_near_the_similarity_that_they_were_drawn_from():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 3))
    triplets = np.array([rng.permutation(12)[:3] for _ in range(20000)])
    sims = np.stack([(x[triplets[:, a]] * x[triplets[:, b]]).sum(1) for a, b in ((0, 1), (0, 2), (1, 2))], 1)
    odd = (rng.random((len(sims), 1)) > softmax(sims, 1).cumsum(1)[:, :2]).sum(1)
    chosen = np.take_along_axis(triplets, np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])[odd], 1)
    upper = np.triu_indices(12, 1)
    assert spearmanr(kept_together(chosen, 12, "d")[0][upper], (x @ x.T)[upper]).statistic > 0.9
    shuffled = kept_together(rng.permuted(chosen, axis=1), 12, "d")[0]
    assert abs(spearmanr(shuffled[upper], (x @ x.T)[upper]).statistic) < 0.4
