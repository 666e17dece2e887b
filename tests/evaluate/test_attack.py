"""Sizes of perturbations by closed forms, statsmodels and brute force; tests of networks by counting every split."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import permutation_test
from statsmodels.duration.survfunc import SurvfuncRight

from alignet.attacks.stored import exact_norms
from alignet.evaluate.attack import (
    censored,
    group_test,
    holm,
    magnitude,
    median,
    paired_test,
    root_mean_square,
    survival,
    survives,
)


def some(seed, n=60, high=2.0):
    """Norms of which some are not broken and some are equal."""
    drawn = np.round(np.random.default_rng(seed).exponential(1.0, n), 2) + 0.01
    return censored(drawn, drawn <= high, high)


def test_exact_norms_of_stored_images_by_hand():
    image = np.zeros((2, 3, 4, 5), np.uint8)
    attacked = image.astype(np.float32)
    attacked[0, 1, 2, 3], attacked[0, 0, 0, 0], attacked[1] = 0.3, -0.4, 0.5
    np.testing.assert_allclose(exact_norms(image, attacked, "l2"), [0.5, 0.5 * np.sqrt(60)], rtol=1e-6)
    np.testing.assert_allclose(exact_norms(image, attacked, "linf"), [0.4, 0.5], rtol=1e-6)
    one_level = image.copy()
    one_level[0, 0, 0, 0] = 1
    assert exact_norms(image, one_level, "linf").tolist() == [1 / 255, 0]
    assert root_mean_square(exact_norms(image, attacked, "l2"), (3, 4, 5))[1] == pytest.approx(0.5)


def test_magnitude_is_that_of_the_mean_or_the_largest_of_channels():
    image = np.full((1, 3, 2, 2), 51, np.uint8)  # 0.2
    attacked = np.full((1, 3, 2, 2), 0.2)
    attacked[0, :, 0, 0] = [0.5, 0.2, -0.1]  # changes of .3, 0 and -.3 cancel
    attacked[0, :, 1, 1] = [0.1, 0.1, 0.1]
    np.testing.assert_allclose(magnitude(image, attacked, "mean")[0], [[0, 0], [0, 0.1]], atol=1e-12)
    np.testing.assert_allclose(magnitude(image, attacked, "max")[0], [[0.3, 0], [0, 0.1]], atol=1e-12)
    with pytest.raises(ValueError, match="expected one of mean, max, found 'abs_mean'"):
        magnitude(image, attacked, "abs_mean")
    with pytest.raises(ValueError, match="of one shape"):
        magnitude(image, attacked[:, :, 1:], "max")


def test_survival_is_that_of_statsmodels():
    norms = some(2)
    found = survival(norms, draws=20, seed=0)
    theirs = SurvfuncRight(norms.norm, norms.broken.astype(int))
    at = dict(zip(found.eps, found.share))
    for eps, share in zip(theirs.surv_times, theirs.surv_prob):
        if eps < norms.high:
            assert at[eps] == pytest.approx(share)
    assert (found.eps[0], found.share[0], found.eps[-1]) == (0, 1, norms.high)
    assert found.share[-1] == pytest.approx((~norms.broken).mean())
    assert (np.diff(found.share) <= 0).all()
    assert ((found.low <= found.share) & (found.share <= found.high)).all()
    assert found.low[0] < 1  # Clopper and Pearson, where no resampling can vary


def test_survival_at_few_points_is_still_that_curve():
    norms = some(3, 500)
    few = survival(norms, draws=5, seed=0, points=20)
    assert len(few.eps) <= 22
    np.testing.assert_allclose(few.share, [survives(norms, eps).mean() for eps in few.eps])


def test_the_restricted_mean_is_the_area_under_the_curve_and_unbroken_images_count_as_high():
    norms = some(4)
    curve = survival(norms, draws=2, seed=0, points=1000)
    assert norms.norm.mean() == pytest.approx((np.diff(curve.eps) * curve.share[:-1]).sum())
    assert censored(np.array([1.0, 0.0]), np.array([True, False]), 3.0).norm.mean() == 2.0


def test_an_interval_covers_the_truth_as_often_as_it_says():
    generator, hits = np.random.default_rng(1), 0
    for seed in range(100):
        drawn = generator.exponential(1.0, 80)
        curve = survival(censored(drawn, drawn <= 1.0, 1.0), draws=200, seed=seed)
        hits += curve.low[-1] <= np.exp(-1) <= curve.high[-1]
    assert 88 <= hits <= 100


def test_the_median_is_infinite_where_half_are_unbroken():
    broken = np.array([True, True, False, False])
    assert median(censored(np.arange(1.0, 5), broken, 4.5), draws=50, seed=0)[0] == np.inf
    broken[2] = True
    assert median(censored(np.arange(1.0, 5), broken, 4.5), draws=50, seed=0)[0] == 2.5
    whole = some(5, 400, 20)
    value, low, high = median(whole, draws=200, seed=0)
    assert low < value < high
    assert value == np.median(whole.norm)


def test_norms_are_checked():
    with pytest.raises(ValueError, match=r"found 0\.0 in number 1"):
        censored(np.array([1, 0.0]), np.array([True, True]), 2.0)
    with pytest.raises(ValueError, match="a finite largest norm above 0"):
        censored(np.ones(2), np.ones(2, bool), np.inf)
    norms = censored(np.array([1, 2 + 1e-7]), np.array([True, True]), 2.0)
    assert norms.norm.tolist() == [1, 2]  # float32 projections overshoot
    assert survives(norms, 1.0).tolist() == [False, True]
    with pytest.raises(ValueError, match=r"from 0 to 2, the largest that was searched, found 2\.5"):
        survives(norms, 2.5)
    with pytest.raises(ValueError, match="at least one image that was attacked"):
        survival(norms.take(np.zeros(0, int)), draws=2, seed=0)


def test_two_networks_on_the_same_images_are_told_apart_unless_images_are_shuffled():
    generator = np.random.default_rng(6)
    difficulty = generator.exponential(1.0, 200)
    a, b = difficulty, difficulty + generator.normal(0.05, 0.1, 200)
    b[:5] = np.nan
    mean, p, n = paired_test(a, b, seed=0)
    assert (mean, n) == (pytest.approx((b - a)[5:].mean()), 195)
    assert p < 0.001
    assert paired_test(a, np.roll(b, 50), seed=0)[1] > 0.05
    with pytest.raises(ValueError, match="compare networks that were attacked on the same images"):
        paired_test(a[:5], b[:5], seed=0)


@pytest.mark.parametrize(("first", "second"), [(2, 3), (4, 4), (3, 7)])
def test_groups_are_tested_by_every_split(first, second):
    generator = np.random.default_rng(7)
    a, b = generator.normal(0.5, 1, first), generator.normal(size=second)
    found = group_test(a, b, seed=0)

    def apart(x, y):
        return abs(x.mean() - y.mean())

    both = np.concatenate([a, b])
    splits = list(combinations(range(first + second), first))
    hits = [apart(both[list(one)], np.delete(both, list(one))) >= apart(a, b) - 1e-12 for one in splits]
    assert found.exact
    assert found.p == pytest.approx(np.mean(hits))
    theirs = permutation_test((a, b), apart, n_resamples=np.inf, alternative="greater")
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.difference == pytest.approx(a.mean() - b.mean())


def test_groups_too_small_for_any_answer_say_so_and_one_network_is_refused():
    far = group_test([10.0, 11.0], [0.0, 1.0, 2.0], seed=0)
    assert far.p == far.least == 0.1
    assert far.note == "of 2 and 3 networks no p below 0.1 is possible"
    assert group_test([10.0, 11, 12, 13], [0.0, 1, 2, 3], seed=0).p == pytest.approx(2 / 70)
    with pytest.raises(ValueError, match="at least 2 networks in each, with finite values, found 1 and 3"):
        group_test([1.0], [1.0, 2.0, 3.0], seed=0)


def test_many_networks_are_tested_by_random_splits():
    generator = np.random.default_rng(8)
    same, other = generator.normal(size=30), generator.normal(size=40)
    assert group_test(same + 1, other, seed=0).p < 0.001
    chance = group_test(same, other, seed=0)
    assert not chance.exact
    exact = permutation_test(
        (same, other), lambda x, y: abs(x.mean() - y.mean()), n_resamples=5000, alternative="greater", rng=1
    ).pvalue
    assert chance.p == pytest.approx(exact, abs=0.03)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
