"""Calibration: simulations whose probabilities are true, scikit-learn, brute force; temperatures from other choices."""

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from alignet.evaluate.bootstrap import object_counts
from alignet.evaluate.calibration import calibration, calibration_error, debiased_error
from alignet.evaluate.temperature import fit_temperature, halves, object_sets

OPTIONS = {"dataset": "set", "tau": "fit", "bins": 15, "grid": [0.25, 1.0, 4.0], "seed": 0, "bootstrap": 60}


def simulated(tau=2.0, n=6000, objects=40, seed=0):
    """Features, choices drawn from softmax(dot products / tau), and these probabilities."""
    generator = np.random.default_rng(seed)
    features = np.random.default_rng(9).normal(size=(objects, 6)) * 1.5
    drawn = generator.random((n, objects)).argpartition(3, axis=1)[:, :3]
    gram = features @ features.T
    sims = np.stack([gram[drawn[:, a], drawn[:, b]] for a, b in ((0, 1), (0, 2), (1, 2))], 1) / tau
    p = np.exp(sims - sims.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    pair = (generator.random(n)[:, None] > p.cumsum(1)).sum(1).clip(max=2)
    order = np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])[pair]
    position = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1]])[pair]
    return features, np.take_along_axis(drawn, order, 1), np.take_along_axis(p, position, 1)


def measured(features, triplets, **given):
    result = calibration(features, triplets, **(OPTIONS | given))
    return {score.metric: score for score in result.scores}, result.tables


def probabilities(features, triplets, tau):
    gram = features @ features.T
    sims = np.stack([gram[triplets[:, a], triplets[:, b]] for a, b in ((0, 1), (0, 2), (1, 2))], 1) / tau
    q = np.exp(sims - sims.max(1, keepdims=True))
    return q / q.sum(1, keepdims=True)


def test_true_probabilities_err_by_chance_alone_and_overconfident_ones_by_more():
    features, triplets, exact = simulated()
    found, _ = measured(features, triplets, probabilities=exact)
    noise = float(found["calibration_error"].note.split("would show about ")[1])
    assert found["calibration_error"].value < 2.5 * noise < 0.05
    sure = measured(features, triplets, tau=0.5)[0]["calibration_error"]
    unsure = measured(features, triplets, tau=8.0)[0]["calibration_error"]
    assert sure.value > 0.1
    assert unsure.value > 0.1
    assert sure.low > 5 * noise
    assert sure.low < sure.value < sure.high
    assert found["entropy_rho"].value > 0.99
    assert found["kl_to_people"].value < 0.001
    shuffled = np.random.default_rng(0).permutation(features)
    wrong, _ = measured(shuffled, triplets, probabilities=exact)
    assert wrong["entropy_rho"].low < 0 < wrong["entropy_rho"].high
    assert wrong["choice_nll"].value == pytest.approx(math.log(3), abs=0.03)


def test_the_fitted_temperature_is_the_planted_one_and_the_best_of_a_grid():
    for tau in (0.7, 3.0):
        features, triplets, _ = simulated(tau=tau, n=8000)
        gram = torch.from_numpy(features @ features.T)
        index = torch.from_numpy(triplets)
        dots = torch.stack([gram[index[:, a], index[:, b]] for a, b in ((0, 1), (0, 2), (1, 2))], 1)
        fit = fit_temperature(dots)
        found, warning = fit.tau, fit.warning
        assert found == pytest.approx(tau, rel=0.05)
        assert warning == ""

        def loss(at, dots=dots):
            return -torch.log_softmax(dots / at, 1)[:, 0].mean().item()

        assert loss(found) <= min(loss(found * step) for step in (0.9, 0.99, 1.01, 1.1))


def test_a_temperature_without_an_optimum_is_told():
    sims = torch.tensor([[0.0, 1.0, 0.5], [0.1, 0.7, 0.9]], dtype=torch.float64)
    assert "do not foretell the choices" in fit_temperature(sims).warning
    assert (
        "every choice is foretold" in fit_temperature(sims[:, [1, 0, 2]] * torch.tensor([1.0, 0, 0])).warning
    )
    assert math.isfinite(fit_temperature(torch.full((4, 3), 2.0, dtype=torch.float64)).tau)


def test_values_equal_scikit_learn_and_brute_force():
    features, triplets, exact = simulated(n=900)
    found, tables = measured(features, triplets, tau=1.3, probabilities=exact)
    q = probabilities(features, triplets, 1.3)
    assert found["choice_nll"].value == pytest.approx(
        log_loss(np.zeros(900), np.clip(q, 1e-15, 1), labels=[0, 1, 2]), rel=1e-6
    )
    assert found["kl_to_people"].value == pytest.approx((exact * np.log(exact / q)).sum(1).mean())
    right = (q.argmax(1) == 0).astype(float)
    expected = sum(
        abs(right[own].mean() - q.max(1)[own].mean()) * own.mean()
        for low in range(15)
        if (own := (np.floor((q.max(1) - 1 / 3) * 22.5).clip(0, 14) == low)).any()
    )
    assert found["calibration_error"].value == pytest.approx(expected)
    assert calibration_error(q.max(1), right, 15) == pytest.approx(expected)
    accuracy, confidence = calibration_curve(right, (q.max(1) - 1 / 3) * 1.5, n_bins=15)
    used = np.array(tables["reliability"]["temperature"]) == "used"
    np.testing.assert_allclose(tables["reliability"]["accuracy"][used], accuracy)
    np.testing.assert_allclose(tables["reliability"]["confidence"][used], confidence / 1.5 + 1 / 3)
    assert tables["reliability"]["count"][used].sum() == 900
    from scipy.stats import spearmanr

    entropies = [-(p * np.log(p)).sum(1) for p in (exact, q)]
    assert found["entropy_rho"].value == pytest.approx(spearmanr(*entropies).statistic, abs=1e-6)


def test_draws_of_the_error_equal_brute_force():
    features, triplets, _ = simulated(n=300, objects=12)
    found, _ = measured(features, triplets, tau=1.0, bootstrap=40)
    q, draws = probabilities(features, triplets, 1.0), []
    confidence, right = q.max(1), (q.argmax(1) == 0).astype(float)
    bins = np.floor((confidence - 1 / 3) * 22.5).clip(0, 14)
    for count in object_counts(12, draws=40, seed=0):
        weights = count[triplets].prod(1)
        gaps = [abs((weights * (right - confidence))[bins == one].sum()) for one in range(15)]
        draws.append(sum(gaps) / weights.sum())
    score = found["calibration_error"]
    draws = np.array(draws) - np.mean(draws) + debiased_error(confidence, right, 15)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (score.low, score.high) == pytest.approx((max(low, 0), max(high, score.value)), abs=1e-5)


def test_the_debiased_error_is_near_the_true_one_and_the_plain_one_above_it():
    """One probability and a hundred answers in each bin, so that the true error is known."""
    confidence = np.repeat(np.linspace(0.4, 0.9, 10), 100)
    generator = np.random.default_rng(0)
    floor = 0.0
    for off in (0.0, 0.05, 0.2):
        plain, debiased = [], []
        for _ in range(200):
            right = (generator.random(1000) < confidence - off) * 1.0
            plain.append(calibration_error(confidence, right, 15))
            debiased.append(debiased_error(confidence, right, 15))
        floor = floor or np.mean(plain)
        assert abs(np.mean(debiased) - abs(off)) < 0.4 * floor
    assert debiased_error(np.ones(5), np.ones(5), 15) == 0


@pytest.mark.parametrize("tau", [1.5, 2.0, 3.0])
def test_intervals_hold_the_error_that_endless_choices_would_show(tau):
    """The truth of these objects and triplets by their probabilities; 19 in 20 are claimed."""
    held = 0
    for seed in range(30):
        features, triplets, exact = simulated(n=1000, seed=seed)
        q = probabilities(features, triplets, tau)
        bins = np.floor((q.max(1) - 1 / 3) * 22.5).clip(0, 14).astype(int)
        gap = exact[np.arange(1000), q.argmax(1)] - q.max(1)
        truth = np.abs(np.bincount(bins, gap, minlength=15)).sum() / 1000
        score = measured(features, triplets, tau=tau, seed=seed)[0]["calibration_error"]
        assert 0 <= score.low <= score.value <= score.high
        held += score.low <= truth + 1e-12 and truth <= score.high
    assert held >= 27


def test_a_bin_that_no_draw_holds_has_no_bounds():
    """Few triplets of many objects, and few draws: some bin's only triplets are in none of them."""
    features, triplets, _ = simulated(n=60, objects=60)
    found, tables = measured(features, triplets, tau=1.0, bootstrap=10)
    bounds = tables["reliability"]["accuracy_low"]
    assert 0 < np.isnan(bounds).sum() < len(bounds)
    assert np.isfinite(tables["reliability"]["accuracy"]).all()
    assert found["calibration_error"].high > 0


def test_temperatures_come_from_other_choices():
    features, triplets, _ = simulated(n=4000)
    repeated = np.concatenate([triplets, triplets[:, [1, 0, 2]], triplets[:500, [2, 0, 1]]])
    first = halves(repeated, 0)
    sets = object_sets(repeated)
    assert not set(sets[first]) & set(sets[~first])
    assert 0.4 < first.mean() < 0.6
    assert np.array_equal(first, halves(repeated, 0))
    assert not np.array_equal(first, halves(repeated, 1))
    found, tables = measured(features, triplets)
    assert "fitted to the half of the triplets that it is not used for" in found["calibration_error"].note
    assert len(tables["fits"]["tau"]) == 2
    np.testing.assert_allclose(tables["fits"]["tau"], 2.0, rtol=0.15)
    other = simulated(n=4000, seed=5)[1]
    found, tables = measured(features, triplets, fit=(features, other))
    assert "fitted to 4,000 other choices" in found["calibration_error"].note
    assert tables["fits"]["triplets"].tolist() == [4000]
    expected = probabilities(features, triplets, tables["fits"]["tau"][0])
    assert found["choice_nll"].value == pytest.approx(-np.log(expected[:, 0]).mean())


def test_the_curve_over_temperatures_is_what_each_temperature_gives():
    features, triplets, _ = simulated(n=500)
    _, tables = measured(features, triplets, grid=[0.5, 2.0])
    curve = tables["temperature"]
    for row, tau in enumerate(curve["tau"]):
        alone = measured(features, triplets, tau=float(tau))[0]
        assert curve["calibration_error"][row] == pytest.approx(alone["calibration_error"].value)
        assert curve["choice_nll"][row] == pytest.approx(alone["choice_nll"].value)
    assert curve["tau_over_spread"].tolist() == [0.5, 2.0]


def test_equal_features_are_a_third_sure_and_never_right():
    triplets = simulated(n=200, objects=8)[1]
    found, _ = measured(np.ones((8, 3)), triplets, probabilities=np.full((200, 3), 1 / 3))
    assert found["calibration_error"].value == pytest.approx(1 / 3)
    assert found["choice_nll"].value == pytest.approx(math.log(3))
    assert found["kl_to_people"].value == pytest.approx(0, abs=1e-12)
    assert "entropy_rho" not in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": 0.0}, "tau above 0, or fit, found 0.0"),
        ({"tau": "best"}, "tau above 0, or fit, found 'best'"),
        ({"tau": 1.0, "fit": (np.eye(3), np.array([[0, 1, 2]]))}, "tau=fit beside triplets to fit it to"),
        ({"bins": 0}, "1 or more bins"),
        ({"grid": []}, "a grid of temperatures above 0"),
        ({"grid": [1.0, -1.0]}, "a grid of temperatures above 0"),
        ({"probabilities": np.full((50, 3), 0.5)}, "rows sum to 1"),
        ({"probabilities": np.full((49, 3), 1 / 3)}, r"shape \(50, 3\)"),
        ({"features": np.full((40, 6), np.nan)}, "finite features"),
        ({"fit": (np.eye(3), np.array([[0, 1, 3]]))}, r"triplets to fit tau to: expected object indices in 0\.\.2"),
        ({"triplets": np.array([[0, 1, 2], [1, 2, 0]])}, "two or more different triplets to fit tau"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_message(change, message):
    features, triplets, _ = simulated(n=50)
    given = {"features": features, "triplets": triplets} | change
    with pytest.raises(ValueError, match=message):
        measured(**given)
