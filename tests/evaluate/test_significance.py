"""Tests between methods: a published example, statsmodels against sums of squares, sign-flips by brute force."""

import itertools

import numpy as np
import pytest
from scipy import stats

from alignet.evaluate.significance import anova, improvement, paired_permutation

# Duration of headaches of nine people in five weeks, before and after relaxation training; D. C. Howell, Statistical
# Methods for Psychology, chapter 14: F(4, 32) = 85.04.
HEADACHES = np.array([
    [21, 22, 8, 6, 6], [20, 19, 10, 4, 4], [17, 15, 5, 4, 5], [25, 30, 13, 12, 17], [30, 27, 13, 8, 6],
    [19, 27, 8, 7, 4], [26, 16, 5, 2, 5], [17, 18, 8, 1, 5], [26, 24, 14, 8, 9],
])  # fmt: skip


def test_anova_of_a_published_example():
    methods = {
        f"week {week}": {("student", f"person {row}"): float(value) for row, value in enumerate(column)}
        for week, column in enumerate(HEADACHES.T)
    }
    (effect,) = anova(methods)
    assert (effect.name, effect.effect_df, effect.error_df) == ("method", 4, 32)
    assert pytest.approx(85.04, abs=0.005) == effect.F
    assert effect.p < 1e-6


def cells(values, datasets=None):
    """values (models, datasets) as cells."""
    return {
        (f"model {m}", f"data {d}"): float(values[m, d])
        for m in range(len(values))
        for d in range(values.shape[1])
    }


def test_anova_of_two_factors_equals_sums_of_squares():
    """With two levels of each factor, F is the square of the paired t of the matching contrast."""
    y = np.random.default_rng(0).normal(size=(2, 2, 7))  # method, model, data set
    effects = {one.name: one for one in anova({"a": cells(y[0]), "b": cells(y[1])})}
    contrasts = {
        "method": y[0].sum(0) - y[1].sum(0),
        "model": y[:, 0].sum(0) - y[:, 1].sum(0),
        "method:model": y[0, 0] - y[0, 1] - y[1, 0] + y[1, 1],
    }
    assert effects.keys() == contrasts.keys()
    for name, contrast in contrasts.items():
        t = stats.ttest_1samp(contrast, 0)
        assert pytest.approx(t.statistic**2) == effects[name].F
        assert effects[name].p == pytest.approx(t.pvalue)


def test_anova_says_what_is_missing():
    full = cells(np.random.default_rng(0).normal(size=(2, 3)))
    short = {key: value for key, value in full.items() if key != ("model 1", "data 2")}
    with pytest.raises(
        ValueError, match=r"score of after .* none for 1, the first model 1 on data 2; measure it"
    ):
        anova({"before": full, "after": short})
    with pytest.raises(ValueError, match="the first model 0 on data 0"):
        anova({"before": full, "after": full | {("model 0", "data 0"): np.nan}})
    with pytest.raises(ValueError, match="at least two methods on two data sets, found 1 on 3"):
        anova({"before": full})
    with pytest.raises(
        ValueError, match="effect of method that varies over data sets, found the same on all of them"
    ):
        anova({"before": full, "after": full})


def test_permutation_by_brute_force_and_by_scipy():
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=8), generator.normal(0.6, 1, size=8)
    p, exact = paired_permutation(a, b, seed=0)
    sums = [abs(sum(s * d for s, d in zip(signs, b - a))) for signs in itertools.product((1, -1), repeat=8)]
    assert (p, exact) == (pytest.approx(np.mean(np.array(sums) >= abs((b - a).sum()) - 1e-12)), True)
    theirs = stats.permutation_test(
        (b, a), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=1e6
    )
    assert p == pytest.approx(theirs.pvalue)
    assert paired_permutation(b, a, seed=0)[0] == p  # two-sided
    assert paired_permutation(a, a, seed=0)[0] == 1.0
    assert paired_permutation([0, 0, 0], [1, 1, 1], seed=0)[0] == 2 / 8


def test_many_pairs_are_drawn_by_seed_and_come_near_the_exact_p():
    generator = np.random.default_rng(2)
    b = generator.normal(0.4, 1, size=24)
    p, exact = paired_permutation(np.zeros(24), b, seed=0, draws=4000)
    assert not exact
    assert p == paired_permutation(np.zeros(24), b, seed=0, draws=4000)[0]
    assert p != paired_permutation(np.zeros(24), b, seed=1, draws=4000)[0]
    assert p == pytest.approx(stats.ttest_1samp(b, 0).pvalue, abs=0.02)
    with pytest.raises(ValueError, match="expected finite pairs"):
        paired_permutation([0, np.nan], [1, 1], seed=0)


def test_improvement_counts_cells_and_flips_data_sets_together():
    before = cells(np.zeros((3, 6)))
    after = cells(np.array([[0.1] * 6, [0.2] * 6, [-0.1] * 5 + [0.0]]))
    found = improvement(before, after)
    assert found.difference == pytest.approx((0.6 + 1.2 - 0.5) / 18)
    assert (found.cells, found.datasets, found.up, found.down) == (18, 6, 12, 5)
    assert (found.p, found.exact) == (2 / 2**6, True)  # six units that all rise, not 18
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(list(after.values())).pvalue)
    shared = improvement(before, after, units={"data 0": "one", "data 1": "one", "data 2": "one"})
    assert (shared.datasets, shared.units, shared.p) == (6, 4, 2 / 2**4)  # three data sets of the same images
    back = improvement(after, before)
    assert (back.difference, back.p) == (pytest.approx(-found.difference), found.p)
    assert improvement(before, before).wilcoxon is None


def test_a_planted_improvement_vanishes_on_shuffling():
    """Under the null p is below .1 in about a tenth of the trials; with a true change it is always."""
    generator = np.random.default_rng(3)
    null, planted = [], []
    for _ in range(200):
        y = generator.normal(0, 0.05, size=(2, 3, 9)) + generator.normal(0, 0.2, size=(1, 1, 9))
        null.append(improvement(cells(y[0]), cells(y[1])).p)
        planted.append(improvement(cells(y[0]), cells(y[1] + 0.2)).p)
    assert max(planted) < 0.01
    assert np.mean(np.array(null) < 0.1) == pytest.approx(0.1, abs=0.06)


def test_cells_that_do_not_match():
    full = cells(np.zeros((2, 3)))
    short = {key: value for key, value in full.items() if key != ("model 0", "data 1")}
    with pytest.raises(ValueError, match=r"1 missing after, the first model 0 on data 1"):
        improvement(full, short)
    with pytest.raises(ValueError, match=r"1 missing before, the first model 0 on data 1"):
        improvement(short, full)
    with pytest.raises(ValueError, match="NaN or infinity after: model 0 on data 0"):
        improvement(full, full | {("model 0", "data 0"): np.nan})
    with pytest.raises(ValueError, match="at least one cell"):
        improvement({}, {})


def test_an_effect_without_error_is_no_test():
    """One shift of each data set for all models: method and model interact the same everywhere."""
    y = np.random.default_rng(5).random((2, 3))
    before, after = cells(y), cells(y + np.array([0.1, 0.2, 0.4]))
    with pytest.raises(ValueError, match="effect of method:model that varies over data sets, found the same"):
        anova({"before": before, "after": after})


def test_unequal_variances_are_corrected_as_greenhouse_and_geisser_do():
    """Epsilon by its formula over the covariance of the levels; a true null is rejected one time in 20."""
    y = HEADACHES.astype(float)
    (effect,) = anova({f"week {week}": cells(column[None]) for week, column in enumerate(y.T)})
    s, k = np.cov(y, rowvar=False), 5
    above = k**2 * (np.diag(s).mean() - s.mean()) ** 2
    below = (k - 1) * ((s**2).sum() - 2 * k * (s.mean(1) ** 2).sum() + k**2 * s.mean() ** 2)
    assert effect.epsilon == pytest.approx(above / below)
    assert effect.p == pytest.approx(stats.f.sf(effect.F, effect.epsilon * 4, effect.epsilon * 32))
    generator, hits = np.random.default_rng(4), 0
    for _ in range(120):
        base, own = generator.normal(size=(2, 8))
        noise = 0.01 * generator.normal(size=(4, 8))
        hits += (
            anova({str(m): cells((base + noise[m] + (m == 2) * own)[None]) for m in range(4)})[0].p <= 0.05
        )
    assert hits / 120 < 0.12  # 0.23 without
