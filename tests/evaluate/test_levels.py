"""Levels: planted truths, a ceiling by loops, t-tests and correlations by scipy, temperatures, the families."""

import itertools
import math

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from alignet.data.levels import Tidy, entropy_of_counts, tidy, write_tidy
from alignet.data.trials import read_trials
from alignet.evaluate.bootstrap import interval, mean_draws
from alignet.evaluate.families.levels import levels, levels_people
from alignet.evaluate.families.material import Material
from alignet.evaluate.item_correlation import correlation
from alignet.evaluate.levels import FACTORS, model
from alignet.evaluate.levels_people import ceilings, comparable, leave_one_out, people
from alignet.evaluate.participants import participants_interval
from alignet.evaluate.result import read_result, write_result
from alignet.evaluate.temperature import fit_tau
from tests.makers.trials import save, study

RULES = {"catch_accuracy": 0.9, "max_misses": 10, "slow_ms": 10_000.0}
LEVELS = ("coarse", "fine", "boundary")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of 12 people to a triplet, and what is left of it."""
    simulated = study(3, triplets=150, answers=12)
    path = save(tmp_path_factory.mktemp("levels") / "trials.csv", simulated.rows)
    return simulated, tidy(read_trials(path), **RULES)


def rows_of(simulated, found):
    place = {name: row for row, name in enumerate(simulated.images)}
    return np.array(
        [
            [place[found.triplets[f"image{n}"][i]] for n in (1, 2, 3)]
            for i in range(len(found.triplets["odd"]))
        ]
    )


def scored(result):
    return {(score.metric, score.dataset.rpartition(" ")[2]): score for score in result.scores}


def evaluate(features, simulated, found, **options):
    options = {"dataset": "Levels", "tau": "fit", "seed": 0, "bootstrap": 200} | options
    return model(features, rows_of(simulated, found), found.triplets, **options)


# ---- the ceiling


def by_loops(answers, tied):
    """Leave one out, person by person."""
    worth = []
    for held in range(len(answers)):
        others = [answer for place, answer in enumerate(answers) if place != held]
        most = max(others.count(value) for value in range(3))
        modes = [value for value in range(3) if others.count(value) == most]
        if answers[held] not in modes:
            worth.append(0.0)
        else:
            worth.append(1.0 if len(modes) == 1 else (0.0 if tied == "wrong" else 1 / len(modes)))
    return sum(worth) / len(worth)


@pytest.mark.parametrize("tied", ["wrong", "shared"])
def test_the_ceiling_equals_loops_over_six_participants(tied):
    for people_asked in (2, 3, 5, 6):
        for answers in itertools.combinations_with_replacement(range(3), people_asked):
            counts = np.bincount(answers, minlength=3)[None]
            assert leave_one_out(counts, tied=tied)[0] == pytest.approx(by_loops(list(answers), tied)), (
                answers
            )


def test_ceilings_with_and_without_ties():
    counts = np.array([[5, 0, 0], [2, 2, 1], [3, 2, 0], [1, 0, 0], [0, 0, 0]])
    found = ceilings(counts)  # (3, 2): without one of the three, (2, 2) is tied
    assert (found["n"], found["n_untied"]) == (3, 2)
    assert found["wrong"] == pytest.approx((1 + 0 + 0) / 3)
    assert found["wrong_untied"] == pytest.approx(1 / 2)
    assert found["shared"] == pytest.approx((1 + 0 + 0.3) / 3)
    assert found["shared_untied"] == pytest.approx(1.3 / 2)
    assert math.isnan(ceilings(counts[3:])["wrong"])
    assert np.isnan(leave_one_out(counts[3:], tied="wrong")).all()
    with pytest.raises(ValueError, match="expected tied to be wrong or shared"):
        leave_one_out(counts, tied="half")


def test_people_who_answer_at_random_are_at_chance_where_ties_are_kept_and_shared():
    generator = np.random.default_rng(0)
    for answers in (2, 3, 5):
        found = ceilings(generator.multinomial(answers, [1 / 3] * 3, size=40_000))
        assert found["shared"] == pytest.approx(1 / 3, abs=0.006), answers
    assert found["wrong"] == pytest.approx(0.26, abs=0.01)
    assert found["wrong_untied"] > 0.4


def asked(seed, *, people_asked=30, triplets=200, answers=5, careless=0.6):
    """Participants who know a share of their trials, from `careless` to all, and guess: triplet, person, answer."""
    generator = np.random.default_rng(seed)
    skill = generator.uniform(careless, 1.0, size=people_asked)
    person = np.concatenate(
        [generator.permutation(np.arange(triplets) % people_asked) for _ in range(answers)]
    )
    knows = generator.random(len(person)) < skill[person]
    answer = np.where(knows, 0, generator.integers(0, 3, len(person)))
    return np.tile(np.arange(triplets), answers), person, answer


def shared(counts):
    return leave_one_out(counts, tied="shared")


def test_the_interval_over_participants_equals_loops():
    triplet, person, answer = asked(1, people_asked=7, triplets=20)
    low, high, number = participants_interval(entropy_of_counts, triplet, person, answer, 20)

    def value(row, left_out=None):
        held = (triplet == row) & (np.arange(len(triplet)) != left_out)
        return entropy_of_counts(np.bincount(answer[held], minlength=3)[None])[0]

    changes = np.array([value(row) - value(row, at) for at, row in enumerate(triplet)])
    influence = [(changes - changes.mean())[person == who].sum() / 20 for who in range(7)]
    margin = stats.t.ppf(0.975, 6) * math.sqrt(7 / 6 * sum(one**2 for one in influence))
    mean = np.mean([value(row) for row in range(20)])
    assert (low, high, number) == (pytest.approx(mean - margin), pytest.approx(mean + margin), 7)
    nothing = participants_interval(entropy_of_counts, triplet, person * 0, answer, 20)
    assert math.isnan(nothing[0])
    assert nothing[2] == 1


@pytest.mark.parametrize("statistic", [shared, entropy_of_counts])
def test_the_interval_over_participants_covers_where_one_over_triplets_does_not(statistic):
    studies = 150
    means, over_people, over_triplets = [], [], []
    for seed in range(studies):
        triplet, person, answer = asked(seed, triplets=480)
        over_people.append(participants_interval(statistic, triplet, person, answer, 480)[:2])
        values = statistic(np.bincount(triplet * 3 + answer, minlength=3 * 480).reshape(-1, 3))
        over_triplets.append(interval(mean_draws(values, draws=100, seed=seed)))
        means.append(values.mean())
    truth = np.mean(means)
    covered = [np.mean([low <= truth <= high for low, high in ends]) for ends in (over_people, over_triplets)]
    assert 0.92 <= covered[0] <= 1
    assert covered[1] < 0.8
    width = np.mean([high - low for low, high in over_people])
    assert width < 1.4 * 2 * 1.96 * np.std(means)


def test_disagreement_is_of_triplets_with_equally_many_answers():
    generator = np.random.default_rng(0)
    number = np.repeat([1, 3, 5, 0, 5, 5], 50)
    counts = np.stack([generator.multinomial(n, [0.5, 0.3, 0.2]) for n in number])
    level = np.array(["coarse", "fine"], dtype=object)[np.arange(300) % 2]
    table = {"level": level, "entropy": entropy_of_counts(counts)} | {
        f"unique{n}": counts[:, n - 1] for n in (1, 2, 3)
    }
    found, told = comparable(table)
    np.testing.assert_array_equal(np.isfinite(found["entropy"]), number == 5)
    assert told == "of the 150 of 300 triplets with 5 answers, the commonest number"
    few = {name: values[:50] for name, values in table.items()}
    assert comparable(few)[1] == "no triplet has two answers"
    assert np.isnan(comparable(few)[0]["entropy"]).all()


def test_equal_differences_have_no_t_test(made):
    _, found = made
    trials = {**found.trials, "log_rt": np.where(found.trials["level"] == "coarse", 0.5, 0.0)}
    result = people(trials, found.triplets, dataset="Levels", seed=0, bootstrap=50)
    assert len(result.tables["tests"].get("t", ())) == 0
    note = scored(result)["response_time", "fine"].note
    assert "no t-test against boundary: all 24 differences are equal" in note
    assert "no t-test against coarse" in note


# ---- correlations and temperatures


def test_correlation_and_its_bootstrap_equal_scipy_with_ties():
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 6, 80).astype(float), generator.integers(0, 9, 80).astype(float)
    x[0], y[1] = np.nan, np.nan
    found = correlation(x, y, bootstrap=30, seed=5)
    x, y = x[2:], y[2:]
    assert found.n == 78
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    again = np.random.default_rng(5)
    draws = [stats.spearmanr(x[i], y[i]).statistic for i in (again.integers(78, size=78) for _ in range(30))]
    np.testing.assert_allclose(found.draws, draws)
    assert found.sd == pytest.approx(np.std(draws, ddof=1))
    assert math.isnan(correlation(np.ones(5), np.arange(5.0), bootstrap=5, seed=0).rho)
    assert not np.array_equal(found.draws, correlation(x, y, bootstrap=30, seed=6).draws)
    parts = np.arange(78) % 3 // 2  # of 52 and 26 items; within each the scale of x is another
    apart = correlation(x * (1 + 100 * parts), y, bootstrap=5, seed=0, parts=parts)
    rhos = [stats.spearmanr(x[parts == part], y[parts == part]).statistic for part in (0, 1)]
    assert apart.rho == pytest.approx((52 * rhos[0] + 26 * rhos[1]) / 78)
    assert (apart.n, len(apart.draws)) == (78, 5)


def test_a_correlation_whose_draws_are_often_constant_has_no_interval():
    x = np.zeros(30)
    x[0] = 1  # a draw without this item, one in e, is constant
    found = correlation(x, np.arange(30.0), bootstrap=400, seed=0)
    assert math.isfinite(found.rho)
    assert found.ends == (None, None)
    assert math.isnan(found.sd)
    assert found.note == f"no interval: {400 - len(found.draws)} of 400 draws had no value"
    assert 0.25 < 1 - len(found.draws) / 400 < 0.5
    x[1:4] = 1  # one in e^4
    found = correlation(x, np.arange(30.0), bootstrap=400, seed=0)
    assert found.low < found.rho < found.high
    assert found.note == f"{400 - len(found.draws)} of 400 draws had no value and were left out"


def test_the_temperature_that_made_the_choices_is_found():
    generator = np.random.default_rng(1)
    sims = generator.normal(size=(20_000, 3)) * 7
    for tau in (0.5, 3.0, 40.0):
        p = np.exp(sims / tau)
        p /= p.sum(1, keepdims=True)
        chosen = (generator.random(len(p))[:, None] > p.cumsum(1)).sum(1)
        counts = np.eye(3)[chosen]
        found = fit_tau(sims, counts)
        assert found.tau == pytest.approx(tau, rel=0.08)
        assert not found.warning
        loss = [_nll(sims, counts, found.tau * factor) for factor in (0.98, 1.0, 1.02)]
        assert loss[1] < min(loss[0], loss[2])


def _nll(sims, counts, tau):
    logits = sims / tau
    return -(counts * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum()


def test_temperatures_at_the_end_of_the_range_say_so():
    sims = np.random.default_rng(2).normal(size=(300, 3))
    foreseen = fit_tau(sims, np.eye(3)[sims.argmax(1)])
    opposite = fit_tau(sims, np.eye(3)[sims.argmin(1)])
    assert foreseen.warning
    assert opposite.warning
    assert foreseen.tau < 0.01 < 100 < opposite.tau
    assert "flattest of the range" in opposite.warning
    with pytest.raises(ValueError, match="at least one choice"):
        fit_tau(sims, np.zeros((300, 3)))
    with pytest.raises(ValueError, match="expected similarities and counts"):
        fit_tau(sims, np.zeros((299, 3)))


# ---- people


def test_people_against_numpy_and_scipy(made):
    _, found = made
    result = people(found.trials, found.triplets, dataset="Levels", seed=0, bootstrap=200)
    rows = result.tables["levels"]
    assert list(rows["level"]) == list(LEVELS)
    for place, level in enumerate(LEVELS):
        timed = found.trials["timed"] & (found.trials["level"] == level)
        seconds = found.trials["rt_ms"][timed] / 1000
        assert rows["rt_median"][place] == pytest.approx(np.median(seconds))
        assert rows["rt_se"][place] == pytest.approx(stats.sem(seconds))
        assert rows["rt_low"][place] <= rows["rt_median"][place] <= rows["rt_high"][place]
        number = sum(found.triplets[f"unique{n}"] for n in (1, 2, 3))
        mine = (found.triplets["level"] == level) & (number == np.bincount(number).argmax())
        assert rows["entropy_n"][place] == rows["rho_n"][place] == mine.sum() < 150
        rho = stats.spearmanr(found.triplets["entropy"][mine], found.triplets["mean_log_rt"][mine]).statistic
        assert rows["rho"][place] == pytest.approx(rho)
        assert rows["rho_low"][place] > 0
        histogram = result.tables["rt"]
        here = np.array(histogram["level"]) == level
        assert histogram["count"][here].sum() == timed.sum()
        assert (histogram["density"][here] * 0.1).sum() == pytest.approx(1)
    means = {
        level: {
            who: found.trials["log_rt"][(found.trials["participant"] == who) & found.trials["timed"]
                                        & (found.trials["level"] == level)].mean()
            for who in set(found.trials["participant"])
        }
        for level in LEVELS
    }  # fmt: skip
    tests = result.tables["tests"]
    for place, (first, second) in enumerate(zip(tests["first"], tests["second"], strict=True)):
        gaps = np.array([means[first][who] - means[second][who] for who in means[first]])
        t = gaps.mean() / (gaps.std(ddof=1) / math.sqrt(len(gaps)))
        assert tests["t"][place] == pytest.approx(t)
        assert tests["df"][place] == len(gaps) - 1
        assert tests["p"][place] == pytest.approx(2 * stats.t.sf(abs(t), len(gaps) - 1), abs=1e-12)
    assert len(tests["t"]) == 3
    scores = scored(result)
    assert {metric for metric, _ in scores} == {
        "response_time",
        "answer_entropy",
        "rt_spearman",
        "human_ceiling",
    }
    ceiling = scores["human_ceiling", "fine"]
    mine = found.triplets["level"] == "fine"
    counts = np.stack([found.triplets[f"answers{n}"][mine] for n in (1, 2, 3)], 1)
    assert ceiling.value == rows["ceiling"][1] == ceilings(counts)["shared"]
    assert ceiling.over == scores["answer_entropy", "fine"].over == "participants"
    assert f"as wrong {ceilings(counts)['wrong']:.3f}" in ceiling.note
    assert "triplets with 12 answers, the commonest number" in scores["answer_entropy", "fine"].note


def test_shuffled_response_times_tell_nothing_of_disagreement(made):
    _, found = made
    held = []
    for seed in range(4):
        shuffled = shuffle(found, seed)
        scores = scored(people(found.trials, shuffled, dataset="Levels", seed=0, bootstrap=200))
        held += [scores["rt_spearman", level].low < 0 < scores["rt_spearman", level].high for level in LEVELS]
    assert sum(held) >= 10  # of 12 intervals at 95%


def shuffle(found, seed):
    times = found.triplets["mean_log_rt"].copy()
    for level in LEVELS:
        mine = np.flatnonzero(found.triplets["level"] == level)
        times[mine] = times[np.random.default_rng(seed).permutation(mine)]
    return {**found.triplets, "mean_log_rt": times}


# ---- a model


def test_the_true_embedding_reaches_the_ceiling_and_is_unsure_where_people_are_slow(made):
    simulated, found = made
    result = evaluate(simulated.features, simulated, found)
    scores = scored(result)
    for level in LEVELS:
        accuracy = scores["odd_one_out", level]
        assert accuracy.ceiling is not None
        assert accuracy.high >= accuracy.ceiling  # the majority of 12 is easier to foresee than one of them
        assert accuracy.over == "triplets"
        spread = 2 * 1.96 * math.sqrt(accuracy.value * (1 - accuracy.value) / accuracy.n)
        assert accuracy.high - accuracy.low == pytest.approx(spread, rel=0.15)  # over images: 2.6 times that
        assert accuracy.ceiling == result.tables["levels"]["ceiling"][LEVELS.index(level)]
        assert (
            f"as wrong {result.tables['levels']['ceiling_wrong'][LEVELS.index(level)]:.3f}" in accuracy.note
        )
        for metric in ("rt_spearman", "disagreement_spearman"):
            assert scores[metric, level].low > 0.1, (metric, level)
        assert "fitted to the answers to the other half" in scores["rt_spearman", level].note
    for tau in result.tables["temperature"]["tau"]:
        assert tau == pytest.approx(1, rel=0.25)  # at which they answered
    rows = result.tables["items"]
    for place, level in enumerate(LEVELS):
        mine = (rows["level"] == level) & (rows["right"] >= 0)
        assert rows["right"][mine].mean() == pytest.approx(result.tables["levels"]["accuracy"][place])
        assert mine.sum() == result.tables["levels"]["n"][place] == scores["odd_one_out", level].n
        ties = ((rows["level"] == level) & (rows["right"] < 0)).sum()
        assert f"{ties} modal ties left out" in scores["odd_one_out", level].note


def test_random_features_answer_by_chance_and_shuffled_times_correlate_with_nothing(made):
    simulated, found = made
    chance, zero = [], []
    for seed in range(4):
        features = np.random.default_rng(seed).normal(size=(len(simulated.images), 40))
        scores = scored(evaluate(features, simulated, found))
        chance += [
            scores["odd_one_out", level].low < 1 / 3 < scores["odd_one_out", level].high for level in LEVELS
        ]
        shuffled = Tidy(found.trials, shuffle(found, seed), {})
        scores = scored(evaluate(simulated.features, simulated, shuffled))
        zero += [scores["rt_spearman", level].low < 0 < scores["rt_spearman", level].high for level in LEVELS]
    assert sum(chance) >= 10
    assert sum(zero) >= 10


def test_the_model_by_loops_at_a_given_temperature(made):
    simulated, found = made
    x = np.random.default_rng(0).normal(size=(len(simulated.images), 5))
    result = evaluate(x, simulated, found, tau=2.0)
    items, right, nats = rows_of(simulated, found), [], []
    for (i, j, k), odd in zip(items, found.triplets["odd"], strict=True):
        s = np.array([x[j] @ x[k], x[i] @ x[k], x[i] @ x[j]])  # of the odd one first, second, third
        p = np.exp(s / 2) / np.exp(s / 2).sum()
        nats.append(-(p * np.log(p)).sum())
        right.append(-1 if odd < 0 else int(s.argmax() == odd))
    np.testing.assert_array_equal(result.tables["items"]["right"], right)
    np.testing.assert_allclose(result.tables["items"]["entropy"], nats)
    mine = found.triplets["level"] == "fine"
    rho = stats.spearmanr(np.array(nats)[mine], found.triplets["mean_log_rt"][mine]).statistic
    assert scored(result)["rt_spearman", "fine"].value == pytest.approx(rho)
    assert scored(result)["rt_spearman", "fine"].note.startswith("tau = 2, given")
    grid = result.tables["tau"]
    one = (grid["level"] == "fine") & (grid["factor"] == 1.0)
    assert grid["rt"][one] == pytest.approx(rho)
    assert grid["factor"].tolist() == [*FACTORS] * 3


def test_the_mean_of_the_levels_and_its_interval_by_hand(made):
    simulated, found = made
    rows = rows_of(simulated, found)
    noisy = simulated.features + np.random.default_rng(4).normal(0, 1, simulated.features.shape)
    result = evaluate(noisy, simulated, found, bootstrap=50)
    scores = {score.dataset: score for score in result.scores if score.metric == "odd_one_out"}
    own = [scores[f"Levels {level}"] for level in LEVELS]
    mean = scores["Levels"]
    assert mean.value == pytest.approx(np.mean([score.value for score in own]))
    assert mean.ceiling == pytest.approx(np.mean([score.ceiling for score in own]))
    assert mean.n == sum(score.n for score in own)
    right = np.array(result.tables["items"]["right"])
    held = right >= 0
    generator = np.random.default_rng(5)
    draws = []
    for _ in range(400):
        levels = [right[held & (found.triplets["level"] == level)] for level in LEVELS]
        draws.append(np.mean([generator.choice(own, len(own)).mean() for own in levels]))
    assert (mean.low, mean.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.04)
    assert mean.low < mean.value < mean.high
    only = {name: values[found.triplets["level"] == "fine"] for name, values in found.triplets.items()}
    single = model(
        noisy, rows[found.triplets["level"] == "fine"], only, dataset="Levels", tau=1.0, seed=0, bootstrap=5
    )
    assert [one.dataset for one in single.scores if one.metric == "odd_one_out"] == ["Levels fine"]


def test_equal_features_are_always_wrong_and_correlate_with_nothing(made):
    simulated, found = made
    result = evaluate(np.ones((len(simulated.images), 3)), simulated, found, tau=1.0)
    scores = scored(result)
    assert all(scores["odd_one_out", level].value == 0 for level in LEVELS)
    assert ("rt_spearman", "fine") not in scores
    assert np.isnan(result.tables["levels"]["rt"]).all()


def test_what_a_model_may_not_be(made):
    simulated, found = made
    for tau, message in ((0.0, "expected tau above 0"), ("best", "expected tau to be a number or fit")):
        with pytest.raises(ValueError, match=message):
            evaluate(simulated.features, simulated, found, tau=tau)
    bad = simulated.features.copy()
    bad[3] = np.nan
    with pytest.raises(ValueError, match="found NaN or infinity in 1 of 72 rows, the first 3"):
        evaluate(bad, simulated, found)


# ---- the families


def material(folder, simulated, found, *, ids=None, files=None, chosen=None):
    write_tidy(folder, found)
    features = {
        "test": (simulated.features, ids or simulated.images),
        "fit": (simulated.features, simulated.images),
    }
    return Material(
        dataset="Levels", setting="original", features=features, files=files or {}, nodes={"levels": folder}, raw={},
        transform=lambda rows: rows, triplets=lambda name, objects: chosen, picture=None, object_rows=None,
        bootstrap=100, seed=0,
    )  # fmt: skip


def test_the_families_and_their_tables_survive_the_disk(made, tmp_path):
    simulated, found = made
    for family, options in ((levels_people, {}), (levels, {"tau": "fit", "missing": "stop"})):
        result = family(material(tmp_path, simulated, found), options)
        (tmp_path / "out").mkdir(exist_ok=True)
        write_result(tmp_path / "out", result)
        again = read_result(tmp_path / "out")
        assert again.scores == list(result.scores)
        for name, table in result.tables.items():
            for column, values in table.items():
                assert list(again.tables[name][column]) == pytest.approx(list(values), nan_ok=True)


def test_a_temperature_from_other_choices_and_images_that_are_not_there(made, tmp_path):
    simulated, found = made
    chosen = simulated.triplets[:, [1, 2, 0]]
    given = material(tmp_path, simulated, found, files={"fit_triplets": tmp_path}, chosen=chosen)
    result = levels(given, {"tau": "fit", "missing": "stop"})
    assert len(result.tables["temperature"]["tau"]) == 1
    assert "fitted to 450 other choices" in scored(result)["rt_spearman", "fine"].note
    some = simulated.images[:40] + ["elsewhere.jpg"] * 0 + [f"other{n}.jpg" for n in range(32)]
    with pytest.raises(
        ValueError, match="expected every image of the trials among the 72 of `test`, found none for"
    ):
        levels(material(tmp_path, simulated, found, ids=some), {"tau": 1.0, "missing": "stop"})
    fewer = levels(material(tmp_path, simulated, found, ids=some), {"tau": 1.0, "missing": "drop"})
    assert "triplets of images without features left out" in scored(fewer)["odd_one_out", "fine"].note
    with pytest.raises(ValueError, match="give those images"):
        levels(
            material(tmp_path, simulated, found, ids=[f"x{n}" for n in range(72)]),
            {"tau": 1.0, "missing": "drop"},
        )


def test_the_whole_path_on_own_images(tmp_path):
    """From raw trials and image files to the results of both families; raw pixels are the model."""
    from alignet.pipeline.cli import load
    from alignet.pipeline.commands import run_pipeline
    from alignet.runtime.artifacts import ArtifactError

    simulated = study(0, triplets=15)
    for row, name in enumerate(simulated.images):
        pixels = np.random.default_rng(row // 6).integers(
            0, 256, (2, 2, 3)
        )  # six of a class look nearly the same
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 0.9 + row % 6).astype(np.uint8)).resize((32, 32)).save(
            path.with_suffix(".png")
        )
    save(tmp_path / "trials.csv", simulated.rows)
    for role in ("evaluate[pixels.levels]", "evaluate[data.levels-people]"):
        options = [
            "experiment=own", f"paths.images={tmp_path / 'images'}", f"paths.map={tmp_path / 'trials.csv'}",
            f"paths.artifacts={tmp_path / 'store'}", "+also=levels", "evaluate.datasets.levels.settings=[pixels]",
            f"data.sets.levels_trials.path={tmp_path / 'trials.csv'}", "evaluate.bootstrap=50", f"role='{role}'",
            f"data.sets.levels_images.path={tmp_path / 'images'}", "runtime.threads=1",
        ]  # fmt: skip
        if role.startswith(
            "evaluate[pixels"
        ):  # image0.jpg of twelve folders: names without their suffix are not enough
            with pytest.raises(ArtifactError, match="expected file names that tell images apart"):
                run_pipeline(load(options))
            for path in (tmp_path / "images").rglob("*.png"):
                path.rename(path.with_suffix(".jpg"))
        run_pipeline(load(options))
    found = {folder.name: read_result(folder) for folder in (tmp_path / "store/evaluate").iterdir() if folder.is_dir()
             and (folder / "MANIFEST.json").is_file()}  # fmt: skip
    metrics = {score.metric for result in found.values() for score in result.scores}
    assert {"odd_one_out", "rt_spearman", "response_time", "human_ceiling"} <= metrics
    boundary = [
        score for result in found.values() for score in result.scores
        if (score.metric, score.dataset) == ("odd_one_out_cosine", "levels boundary")
    ]  # fmt: skip
    assert boundary[0].value > 0.5
