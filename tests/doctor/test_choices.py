"""What choices say of their file: the column of the odd one out, and what training has seen."""

import dataclasses

import numpy as np
import pytest

from alignet.doctor import choices
from alignet.doctor.measure import random_rows
from alignet.pipeline.cli import load


def test_the_column_of_the_odd_one_is_found_and_vanishes_on_shuffling():
    draw = np.random.default_rng(0)
    features = draw.standard_normal((30, 5)).astype(np.float32)
    rows = random_rows(30, 4000)
    pairs = [(features[rows[:, a]] * features[rows[:, b]]).sum(1) for a, b in ((0, 1), (0, 2), (1, 2))]
    alike = np.argmax(np.stack(pairs, 1), 1)
    order = np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])[alike]
    last = np.take_along_axis(rows, order, 1)
    declared = dataclasses.replace(load([]).data.sets["human_train"])
    for place, columns in (("last", [0, 1, 2]), ("first", [2, 0, 1]), ("middle", [0, 2, 1])):
        fit = choices._fit(last[:, columns], features, np.arange(30), "planted features")
        finding = choices.judge("human_train", declared, fit)
        assert finding.level == ("ok" if place == "last" else "fault")
        assert place == "last" or finding.fix.endswith(f"odd_one={place}")
    shuffled = choices._fit(last[:, [2, 0, 1]], draw.permutation(features), np.arange(30), "shuffled")
    assert choices.judge("human_train", declared, shuffled).level == "ok"


def test_a_file_whose_pairs_ascend_is_no_fault_where_features_drift_with_the_index():
    """What `survey import` writes: features that know the order of the objects alone say nothing of a column."""
    draw, m = np.random.default_rng(1), 40
    away = np.exp(0.1 * np.arange(m)) * draw.choice([-1, 1], m)
    features = np.stack([away, draw.standard_normal(m)], 1).astype(np.float32)
    questions = np.sort(random_rows(m, 20_000), 1)
    declared = dataclasses.replace(load([]).data.sets["human_train"])

    def written(odd, order=(0, 1, 2)):
        kept = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[odd]
        return np.take_along_axis(questions, kept, 1)[:, order]

    guessed = written(draw.integers(0, 3, len(questions)))
    fit = choices._fit(guessed, features, np.arange(m), "drifting features")
    assert max(fit.shares) > 0.36  # more than a third, by a dozen standard errors
    assert np.allclose(fit.shares, fit.expected, atol=0.015)
    assert choices.judge("human_train", declared, fit).level == "ok"
    at = features[questions]
    sims = np.stack([(at[:, a] * at[:, b]).sum(1) for a, b in ((1, 2), (0, 2), (0, 1))], 1)
    people = np.where(draw.random(len(questions)) < 0.3, sims.argmax(1), draw.integers(0, 3, len(questions)))
    for order, level in (((0, 1, 2), "ok"), ((2, 0, 1), "fault")):  # the odd one last, and first in truth
        fit = choices._fit(written(people, order), features, np.arange(m), "features that people agree with")
        finding = choices.judge("human_train", declared, fit)
        assert finding.level == level
    assert finding.fix.endswith("odd_one=first")


@pytest.mark.parametrize("declared", ["last", "first", "middle"])
def test_the_named_column_is_that_of_the_file(declared, tmp_path):
    from alignet.data.triplets import load_triplets

    path = tmp_path / "triplets.npy"
    np.save(path, np.array([[10, 20, 30]]))
    loaded = load_triplets(path, objects=31, index_base=0, odd_one=declared)[0]
    for pair, left_out in enumerate((2, 1, 0)):
        place = choices.original_place(declared, pair)
        assert {"first": 10, "middle": 20, "last": 30}[place] == loaded[left_out]


def test_overlap_is_counted_whatever_the_order_and_chance_is_known():
    train = np.array([[0, 1, 2], [3, 4, 5]])
    test = np.array([[2, 0, 1], [0, 1, 3], [5, 4, 3], [1, 2, 3]])
    assert choices.overlap(train, test, 6)[0] == pytest.approx(0.5)
    draw = random_rows(20, 6000)
    share, chance = choices.overlap(draw[:300], draw[300:], 20)
    assert share == pytest.approx(chance, abs=0.03)
