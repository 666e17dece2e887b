"""The linear probe finds planted classes, not shuffled ones, and says when it did not converge."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from alignet.evaluate.probe import linear_probe


def classes(n, seed, classes=4, spread=1.0, width=10):
    centres = 2 * np.random.default_rng(0).normal(size=(classes, width))
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=n)
    return (centres[labels] + spread * generator.normal(size=(n, width))).astype(np.float32), labels


def probe(train, test, **options):
    return linear_probe(
        *train, *test, **({"dataset": "fine", "C": 1.0, "seed": 0, "bootstrap": 200} | options)
    )[0]


def test_planted_classes_are_found_and_shuffled_labels_are_not():
    train, test = classes(400, 1), classes(300, 2)
    score = probe(train, test)
    assert score.value > 0.95
    assert (score.n, score.unit, score.over) == (300, "images", "images")
    assert score.chance == pytest.approx((test[1] == np.bincount(train[1]).argmax()).mean())
    assert score.low <= score.value <= score.high
    shuffled = probe((train[0], np.random.default_rng(0).permutation(train[1])), test)
    assert shuffled.value < 0.45


def test_two_well_separated_classes_match_the_bayes_rule():
    """Two Gaussians at +-1 on one axis: the best possible accuracy is Phi(1) = 0.8413."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 10_000)
    x = generator.normal(size=(20_000, 1)) + 2 * labels[:, None] - 1
    score = probe((x[::2], labels[::2]), (x[1::2], labels[1::2]))
    assert score.value == pytest.approx(0.8413, abs=0.01)


def test_it_is_deterministic_and_ignores_the_scale_and_constant_columns():
    train, test = classes(120, 1, spread=3), classes(90, 2, spread=3)
    first = probe(train, test)
    assert first == probe(train, test)
    wide = [(np.column_stack([1000 * x + 3, np.full(len(x), 5.0)]), labels) for x, labels in (train, test)]
    assert probe(*wide).value == pytest.approx(first.value, abs=0.012)


def test_cross_validation_chooses_strength_on_the_training_part_and_says_so():
    train, test = classes(60, 1, spread=4, width=50), classes(200, 2, spread=4, width=50)
    score = probe(train, test, C=[1e-3, 1e-2, 1e2])
    assert "3-fold cross-validation of 3 values" in score.note
    chosen = float(score.note.split("C = ")[1].split(" ")[0])
    assert score.value == probe(train, test, C=chosen).value
    easy = probe(classes(60, 1, spread=0.01), classes(9, 2, spread=0.01), C=[10.0, 1.0, 100.0])
    assert easy.note.startswith("C = 1 by")  # all are perfect: the smallest of equals
    assert "at the edge of its grid" in easy.note


def test_a_fit_that_stops_early_warns_and_says_so():
    train, test = classes(200, 1, spread=3), classes(90, 2)
    with pytest.warns(ConvergenceWarning):
        score = probe(train, test, max_iter=2, C=100.0)
    assert "NOT CONVERGED after 2 iterations" in score.note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "NOT CONVERGED" not in probe(train, test).note


def test_labels_may_be_names():
    train, test = classes(100, 1), classes(50, 2)
    names = np.array(["ant", "bee", "cat", "dog"])
    assert probe((train[0], names[train[1]]), (test[0], names[test[1]])).value == probe(train, test).value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": (np.zeros((3, 2)), np.array([0, 1]))}, "one label per row"),
        ({"train": (np.full((3, 10), np.nan), np.arange(3))}, "finite training features"),
        ({"train": (np.zeros((3, 9)), np.arange(3))}, "features of one width, found 9 and 10"),
        ({"train": (np.zeros((3, 10)), np.zeros(3))}, "at least two labels"),
        ({"test": (np.zeros((1, 10)), np.array([77]))}, "found 1 that do not, the first 77"),
        ({"C": 0.0}, "expected C above 0"),
        ({"C": [0.1, 1.0], "folds": 90}, "at least 90 training images of every label"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    given = {"train": classes(60, 1), "test": classes(20, 2)} | change
    with pytest.raises(ValueError, match=message):
        probe(given.pop("train"), given.pop("test"), **given)
