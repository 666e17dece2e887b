"""Few-shot probes draw balanced, nested and repeatable examples, find planted classes, and fail clearly."""

import io
import tarfile

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from alignet.evaluate.families.generalisation import few_shot as family
from alignet.evaluate.families.material import Material
from alignet.evaluate.few_shot import (
    _fit,
    _span,
    draw_examples,
    few_shot,
    few_shot_split,
    split_rows,
    t_interval,
)
from alignet.evaluate.linear_classifier import standardisation

SETTINGS = {"dataset": "toys", "shots": [1, 10], "draws": 5, "C": 1.0, "seed": 0}


def classes(n, seed, k=4, spread=0.6, width=12):
    centres = 2 * np.random.default_rng(0).normal(size=(k, width))
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % k
    return (centres[labels] + spread * generator.normal(size=(n, width))).astype(np.float32), labels


def measure(train, test, **options):
    return few_shot(*train, *test, **(SETTINGS | options))


def test_planted_classes_are_found_and_shuffled_labels_are_at_chance():
    train, test = classes(200, 1, spread=3.0), classes(400, 2, spread=3.0)
    one, ten = measure(train, test).scores
    assert (one.dataset, ten.dataset, one.metric) == ("toys 1-shot", "toys 10-shot", "few_shot")
    assert 0.3 < one.value < ten.value
    assert ten.value > 0.7
    assert (ten.n, ten.unit, ten.over, ten.chance) == (400, "images", "draws of this pool", 0.25)
    shuffled = measure((train[0], np.random.default_rng(0).permutation(train[1])), test, draws=20).scores[1]
    assert abs(shuffled.value - 0.25) < 0.06


def test_each_fit_is_scikit_learns_own_and_the_interval_students():
    train, test = classes(80, 1, spread=3), classes(50, 2, spread=3)
    found = measure(train, test, shots=[3], draws=4)
    centre, spread = train[0].mean(0, dtype=float), train[0].std(0, dtype=float)
    rates = []
    for draw in range(4):
        rows = draw_examples(train[1], np.arange(4), 3, seed=(0, draw))
        probe = LogisticRegression(C=1.0, max_iter=1000).fit(
            (train[0][rows] - centre) / spread, train[1][rows]
        )
        rates.append(probe.score((test[0] - centre) / spread, test[1]))
    assert found.tables["few_shot"]["accuracy"] == pytest.approx(rates)
    assert found.scores[0].value == pytest.approx(np.mean(rates))
    low, high = stats.t.interval(0.95, 3, np.mean(rates), stats.sem(rates))
    assert (found.scores[0].low, found.scores[0].high) == pytest.approx((low, min(high, 1.0)))


def test_draws_are_balanced_nested_without_repeats_and_by_seed():
    labels = np.random.default_rng(3).permutation(np.repeat(["a", "b", "c"], [5, 9, 30]))
    names = np.array(["a", "b", "c"])
    one, five = (draw_examples(labels, names, shots, seed=(1, 0)) for shots in (1, 5))
    assert labels[five].tolist() == ["a"] * 5 + ["b"] * 5 + ["c"] * 5
    assert len(set(five)) == 15
    assert set(one) <= set(five)
    assert not np.array_equal(five, draw_examples(labels, names, 5, seed=(1, 1)))
    assert not np.array_equal(five, draw_examples(labels, names, 5, seed=(2, 0)))
    counts = np.bincount(
        np.concatenate([draw_examples(labels, names, 1, seed=(7, draw)) for draw in range(900)]), minlength=44
    )
    assert counts[labels == "b"] == pytest.approx(100, abs=45)  # every image of a class is as likely


def test_it_is_deterministic_and_seeds_differ():
    train, test = classes(80, 1, spread=4), classes(60, 2, spread=4)
    first, again, other = (measure(train, test, seed=seed).tables["few_shot"] for seed in (0, 0, 1))
    assert np.array_equal(first["accuracy"], again["accuracy"])
    assert not np.array_equal(first["accuracy"], other["accuracy"])


def test_a_class_with_too_few_images_stops_or_is_left_out():
    train, test = classes(40, 1), classes(40, 2)
    rare = (train[0][:-6], train[1][:-6])  # classes 2 and 3 keep 8 images, 0 and 1 keep 9
    with pytest.raises(ValueError, match=r"at least 9 .* found 8 of 2 \(2 of 4 classes.*options.few=skip"):
        measure(rare, test, shots=[9])
    score = measure(rare, test, shots=[9], few="skip").scores[0]
    assert (score.n, score.chance) == (20, 0.5)
    assert "2 classes with fewer images left out" in score.note
    with pytest.raises(ValueError, match="two classes with 99"):
        measure(train, test, shots=[99], few="skip")


def test_all_shots_count_the_same_classes():
    """A class that is too small for ten shots is left out of one shot too, so that the two can be compared."""
    (x, labels), test = classes(60, 1), classes(40, 2)
    kept = np.concatenate([np.flatnonzero(labels == one)[: 5 if one == 2 else 15] for one in range(4)])
    one, ten = measure((x[kept], labels[kept]), test, few="skip").scores
    assert (one.n, one.chance) == (ten.n, ten.chance) == (30, 1 / 3)
    assert "1 classes with fewer images left out" in one.note


def test_draws_that_share_many_images_say_so_and_equal_ones_have_no_interval():
    train, test = classes(40, 1), classes(40, 2)
    one, two = measure(train, test, shots=[1, 2], draws=3).scores
    assert "share images" not in one.note
    assert "draws share images: a class has as few as 10" in two.note
    sure = measure(classes(40, 1, spread=0.01), classes(40, 2, spread=0.01), shots=[2], draws=4).scores[0]
    assert (sure.value, sure.low, sure.high, sure.over) == (1.0, None, None, "")
    assert "no interval: all draws agree" in sure.note


def test_without_an_official_split_each_draw_splits_anew():
    x, labels = classes(48, 1, spread=3)
    found = few_shot_split(x, labels, split=0.5, **(SETTINGS | {"shots": [1, 3], "draws": 4}))
    for draw in range(4):
        train, test = split_rows(labels, 0.5, seed=(0, draw), dataset="toys")
        alone = few_shot(
            x[train], labels[train], x[test], labels[test], **(SETTINGS | {"shots": [3], "draws": draw + 1})
        )
        own = (found.tables["few_shot"]["shots"] == 3) & (found.tables["few_shot"]["draw"] == draw)
        assert found.tables["few_shot"]["accuracy"][own] == alone.tables["few_shot"]["accuracy"][draw]
    score = found.scores[0]
    assert (score.n, score.over) == (24, "splits and draws of this pool")


def test_the_interval_holds_what_further_draws_of_the_pool_give():
    """That is what it claims: the mean over 300 other splits and draws of the same 48 images, not over other images."""
    x, labels = classes(48, 1, spread=3)
    truth = few_shot_split(x, labels, split=0.5, **(SETTINGS | {"shots": [1], "draws": 300})).scores[0].value
    held = 0
    for seed in range(1, 41):
        options = SETTINGS | {"shots": [1], "draws": 8, "seed": seed}
        score = few_shot_split(x, labels, split=0.5, **options).scores[0]
        held += score.low <= truth <= score.high
    assert held >= 35


def test_one_draw_has_no_interval_and_fits_that_stop_early_say_so():
    train, test = classes(40, 1, spread=3), classes(40, 2)
    score = measure(train, test, shots=[5], draws=1, max_iter=2).scores[0]
    assert (score.low, score.high, score.over) == (None, None, "")
    assert "1 fits NOT CONVERGED after 2 iterations" in score.note
    assert t_interval([0.99, 1.0, 0.98])[1] == 1.0


def test_standardisation_survives_constant_columns_and_equals_numpys():
    x = np.random.default_rng(0).normal(3, 2, (20_000, 4)).astype(np.float32)
    x[:, 2] = 5.0
    mean, spread = standardisation(x)
    assert mean == pytest.approx(x.mean(0, dtype=float))
    assert spread == pytest.approx([*x[:, :2].std(0, dtype=float), 1.0, x[:, 3].std(dtype=float)])


def test_a_split_takes_a_share_of_each_class_and_nothing_twice():
    labels = np.repeat(["a", "b"], [10, 30])
    train, test = split_rows(labels, 0.2, seed=(0,), dataset="toys")
    assert np.unique(labels[train], return_counts=True)[1].tolist() == [2, 6]
    assert sorted([*train, *test]) == list(range(40))
    assert not np.array_equal(train, split_rows(labels, 0.2, seed=(1,), dataset="toys")[0])
    with pytest.raises(ValueError, match=r"at least 2 images of every class to split, found 1 of b"):
        split_rows(np.array(["a", "a", "b"]), 0.5, seed=(0,), dataset="toys")
    with pytest.raises(ValueError, match=r"options\.split inside"):
        split_rows(labels, 1.0, seed=(0,), dataset="toys")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": (np.zeros((3, 12)), np.array([0, 1]))}, "one label per row"),
        ({"test": (np.full((3, 12), np.nan), np.arange(3))}, "finite test features"),
        ({"train": (np.zeros((3, 9)), np.arange(3))}, "features of one width, found 9 and 12"),
        ({"train": (np.zeros((3, 12)), np.zeros(3))}, "at least two classes to tell apart, found 1"),
        ({"test": (np.zeros((1, 12)), np.array([77]))}, "found 1 that do not, the first 77"),
        ({"C": 0.0}, "C above 0"),
        ({"shots": []}, "expected shots"),
        ({"draws": 0}, "expected shots and draws of at least 1"),
        ({"few": "maybe"}, "stop or skip, found 'maybe'"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    given = {"train": classes(60, 1), "test": classes(20, 2)} | change
    with pytest.raises(ValueError, match=message):
        measure(given.pop("train"), given.pop("test"), **given)


def material(features, files=None):
    return Material(
        dataset="toys", setting="original", features=features, files=files or {}, nodes={}, raw={},
        transform=lambda rows: rows, triplets=lambda name, objects: None, picture=lambda name: None, object_rows=None,
        bootstrap=50, seed=0,
    )  # fmt: skip


OPTIONS = {"shots": [1], "draws": 2, "C": 1.0, "few": "stop", "labels": "folder"}


def test_labels_come_from_folders_tables_or_shards_alike(tmp_path):
    (x, labels), (x_test, test_labels) = classes(40, 1), classes(20, 2)
    ids, test_ids = (
        [f"{label}/{row:03}.png" for row, label in enumerate(part)] for part in (labels, test_labels)
    )
    features = {"train": (x, ids), "test": (x_test, test_ids)}
    by_folder = family(material(features), OPTIONS)
    files = {}
    for part, names, of in (("train", ids, labels), ("test", test_ids, test_labels)):
        files[f"{part}_labels"] = tmp_path / f"{part}.csv"
        text = "id,kind\n" + "".join(f"{name},{label}\n" for name, label in zip(names, of))
        files[f"{part}_labels"].write_text(text, encoding="utf-8")
        files[f"{part}_shards"] = tmp_path / f"{part}.tar"
        with tarfile.open(files[f"{part}_shards"], "w") as archive:
            for name, label in zip(names, of):
                for suffix, data in ((".png", b"x"), (".cls", str(label).encode())):
                    member = tarfile.TarInfo(name.removesuffix(".png") + suffix)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    by_table = family(material(features, files), OPTIONS | {"labels": "table", "label": "kind"})
    by_shards = family(material(features, files), OPTIONS | {"labels": "cls"})
    for other in (by_table, by_shards):
        assert other.scores[0].value == by_folder.scores[0].value
    merged = by_table.scores[0].chance
    options = OPTIONS | {"labels": "table", "label": "kind", "merge": {"3": "2"}}
    assert (merged, family(material(features, files), options).scores[0].chance) == (1 / 4, 1 / 3)
    with pytest.raises(ValueError, match="expected train_shards"):
        family(material(features), OPTIONS | {"labels": "cls"})
    with pytest.raises(ValueError, match="same shards as images"):
        family(
            material(features, files | {"train_shards": files["test_shards"]}), OPTIONS | {"labels": "cls"}
        )


def test_one_folder_for_everything_is_split_and_says_so():
    x, labels = classes(80, 1)
    ids = [f"{label}/{row:03}.png" for row, label in enumerate(labels)]
    score = family(material({"all": (x, ids)}), OPTIONS | {"split": 0.25}).scores[0]
    assert score.n == 60
    assert "no official split: 25% of each class" in score.note
    lone = material({"all": (np.concatenate([x, x[:1]]), [*ids, "z/0.png"])})
    skipped = family(lone, OPTIONS | {"split": 0.25, "few": "skip"}).scores[0]
    assert (skipped.value, skipped.n) == (score.value, 60)
    assert "1 classes of a single image left out" in skipped.note


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (["a/1.png", "2.png"], {}, "found 1 beside them, the first 2.png"),
        (["a/1.png", "b/2.png"], {"labels": "name"}, "expected folder, table or cls, found 'name'"),
        (["train/a/1.png", "train/b/2.png"], {}, "found 1: train; name the folder that holds"),
    ],
)
def test_labels_that_are_not_there(ids, options, message):
    features = {part: (np.eye(2, 3), ids) for part in ("train", "test")}
    with pytest.raises(ValueError, match=message):
        family(material(features), OPTIONS | options)
    with pytest.raises(ValueError, match="images: expected test, found train; add it"):
        family(material({"train": (np.eye(2, 3), ["a/1", "b/2"])}), OPTIONS)


def test_a_readout_within_the_span_of_its_images_is_the_same_readout():
    """As near as the solver stops to the optimum that both have."""
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(20, 60)), np.arange(20) % 4
    other = generator.normal(size=(50, 60))
    span = _span(x)
    assert span.shape == (60, 20)
    whole, within = (_fit(rows, labels, C=0.1, max_iter=1000) for rows in (x, x @ span))
    assert np.allclose(
        whole.predict_proba(other), within.predict_proba(other @ span), atol=2e-3
    )  # the solver stops near it
    assert np.array_equal(_span(x[:, :5]), np.eye(5))


def test_one_deviation_for_all_features_keeps_what_is_large_large():
    """A class shows in one wide feature; among many narrow ones, scaling each alike drowns it."""
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    x = generator.normal(0, 0.05, size=(400, 200))
    x[:, 0] = 3.0 * labels + generator.normal(0, 0.1, size=400)
    shared = SETTINGS | {"shots": [1], "draws": 5}
    accuracy = {
        how: few_shot(x[:200], labels[:200], x[200:], labels[200:], standardize=how, **shared).scores[0].value
        for how in ("scalar", "feature")
    }
    assert accuracy["scalar"] > 0.99
    assert accuracy["feature"] < 0.9
    with pytest.raises(ValueError, match="expected standardize to be feature or scalar, found 'none'"):
        few_shot(x[:200], labels[:200], x[200:], labels[200:], standardize="none", **shared)
