"""Smoothing of the teacher's features: against brute force, and on a planted answer."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph, upstream
from alignet.teacher.smoothing import class_expectations, smooth


def problem(seed=0, images=30, width=5, out=4, noise=0.5):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(images, width)) * 3 + 1
    truth = x @ draw.normal(size=(width, out)) + 2
    return x, truth, truth + noise * draw.normal(size=truth.shape)


def test_the_penalty_has_the_least_error_when_each_image_is_left_out_in_turn():
    x, _, y = problem(noise=6)
    unit = ((x - x.mean(0)) ** 2).sum() / len(x)
    penalties = [0.03, 0.3, 3.0, 30.0]
    errors = []
    for penalty in penalties:
        left_out = []
        for i in range(len(x)):
            kept = np.arange(len(x)) != i
            ridge = Ridge(alpha=penalty * unit).fit(x[kept], y[kept])
            left_out.append(((ridge.predict(x[i : i + 1]) - y[i]) ** 2).mean())
        errors.append(np.mean(left_out))
    found = smooth(x, y, penalties)
    best = int(np.argmin(errors))
    assert 0 < best < len(penalties) - 1
    assert found.penalty == pytest.approx(penalties[best])
    # scikit-learn centres once for all images, so its closed form is near the refits and not equal to them
    assert found.explained == pytest.approx(1 - errors[best] / y.var(0).mean(), abs=0.02)
    expected = Ridge(alpha=found.penalty * unit).fit(x, y).predict(x)
    np.testing.assert_allclose(found.features, expected, rtol=1e-5)


def test_what_the_classifier_can_tell_comes_back_and_not_on_shuffled_images():
    x, truth, y = problem(images=400, noise=4)
    penalties = [0.001, 0.01, 0.1, 1, 10]
    found = smooth(x, y, penalties)
    assert ((found.features - truth) ** 2).mean() < 0.1 * ((y - truth) ** 2).mean()
    assert found.explained > 0.3
    assert smooth(np.random.default_rng(1).permutation(x), y, penalties).explained < 0.02


def test_smoothing_and_an_affine_map_commute():
    x, _, y = problem()
    weights, bias = np.random.default_rng(2).normal(size=(4, 3)), np.arange(3)
    first = smooth(x, y, [0.3]).features @ weights + bias
    np.testing.assert_allclose(first, smooth(x, y @ weights + bias, [0.3]).features, rtol=1e-4, atol=1e-4)


def test_class_expectations_are_the_mean_weight_vector_under_the_probabilities():
    draw = np.random.default_rng(0)
    features, weights, bias = draw.normal(size=(6, 3)), draw.normal(size=(3, 4)), draw.normal(size=4)
    found = class_expectations(features, weights, bias)
    for image in range(6):
        odds = np.exp(features[image] @ weights + bias)
        expected = sum(odds[c] / odds.sum() * weights[:, c] for c in range(4))
        np.testing.assert_allclose(found[image], expected)
    certain = class_expectations(features * 1e4, weights, bias)  # no overflow, and the class itself
    np.testing.assert_allclose(certain, weights.T[(features @ weights).argmax(1)])


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (np.zeros((5, 2)), np.eye(5), "all of them equal"),
        (np.eye(5), np.zeros((5, 2)), "all of them equal"),
        (np.eye(5), np.eye(4), "found 5 and 4"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(x, y, match):
    with pytest.raises(ValueError, match=match):
        smooth(x, y, [1.0])


def test_it_stands_between_teacher_and_student_and_uses_no_human_data():
    photos = ["experiment=photos", "paths.photos=/nowhere"]
    graph = build_graph(load(photos))
    for role in ("alignet", "distillation"):
        assert graph[f"finetune[{role}]"].inputs["features"] == "smooth"
    assert not {"vice", "distill[teacher]"} & set(upstream(graph, "smooth"))
    plain = build_graph(load([*photos, "smooth=null"]))
    assert "smooth" not in plain
    assert plain["finetune[alignet]"].inputs["features"] == "embed[teacher.pool]"
    assert plain["evaluate[teacher-ud.labels]"].inputs["node.raw"] == "embed[teacher.pool]"
    with pytest.raises(ValueError, match="smooth: expected penalties above 0"):
        load([*photos, "smooth.penalties=[0.0]"])
