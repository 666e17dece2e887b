"""Odd-one-out scores: planted answers, ties, the exact ceiling, bad input."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alignet import triplets as convention
from alignet.evaluate import odd_one_out as module
from alignet.evaluate.bootstrap import interval, object_draws
from alignet.evaluate.odd_one_out import dot_products, odd_one_out
from alignet.triplets import correct, entropy, probabilities, similarities


def scores(features, triplets, **options):
    options = {"dataset": "set", "tau": 1.0, "seed": 0, "bootstrap": 100} | options
    return {score.metric: score for score in odd_one_out(features, triplets, **options)}


def planted(objects=30, n=3000, seed=0):
    """Features, triplets drawn from softmax of their dot products, and the exact probabilities."""
    generator = np.random.default_rng(seed)
    features = generator.gamma(1.0, size=(objects, 6)).astype(np.float32)
    drawn = generator.random((n, objects)).argpartition(3, axis=1)[:, :3]
    gram = features @ features.T
    pairs = ((0, 1), (0, 2), (1, 2))
    sims = np.stack([gram[drawn[:, a], drawn[:, b]] for a, b in pairs], 1).astype(float)
    p = np.exp(sims - sims.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    pair = (generator.random(n)[:, None] > p.cumsum(1)).sum(1).clip(max=2)
    order = np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])[pair]
    position = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1]])[pair]  # probabilities follow their pairs
    return features, np.take_along_axis(drawn, order, 1), np.take_along_axis(p, position, 1)


def test_the_generating_features_reach_the_exact_ceiling_and_shuffled_ones_chance():
    features, triplets, exact = planted()
    found = scores(features, triplets, probabilities=exact)
    accuracy, entropy = found["odd_one_out"], found["triplet_entropy"]
    assert accuracy.ceiling == pytest.approx(exact.max(1).mean())
    assert accuracy.value == pytest.approx(accuracy.ceiling, abs=0.03)
    assert "ceiling exact" in accuracy.note
    assert accuracy.low < accuracy.value < accuracy.high
    assert (accuracy.n, accuracy.unit, accuracy.over) == (3000, "triplets", "objects")
    assert entropy.value == pytest.approx(-(exact * np.log(exact)).sum(1).mean(), rel=1e-4)
    shuffled = scores(np.random.default_rng(1).permutation(features), triplets)["odd_one_out"]
    assert shuffled.value == pytest.approx(1 / 3, abs=0.07)


def test_values_equal_brute_force_on_five_objects():
    generator = np.random.default_rng(3)
    x = generator.normal(size=(5, 4))
    triplets = np.array(list(itertools.permutations(range(5), 3)))
    right = {"odd_one_out": 0, "odd_one_out_cosine": 0}
    nats = 0.0
    for i, j, k in triplets:
        for name, unit in (
            ("odd_one_out", x),
            ("odd_one_out_cosine", x / np.linalg.norm(x, axis=1)[:, None]),
        ):
            s = [unit[i] @ unit[j], unit[i] @ unit[k], unit[j] @ unit[k]]
            right[name] += s[0] > max(s[1:])
        s = np.array([x[i] @ x[j], x[i] @ x[k], x[j] @ x[k]]) / 2.5
        p = np.exp(s) / np.exp(s).sum()
        nats -= (p * np.log(p)).sum()
    found = scores(x, triplets, tau=2.5)
    for name, count in right.items():
        assert found[name].value == pytest.approx(count / len(triplets))
    assert found["triplet_entropy"].value == pytest.approx(nats / len(triplets))


def test_blocks_and_gathered_rows_give_what_all_at_once_gives(monkeypatch):
    features, triplets, _ = planted(objects=40, n=2000)
    x = torch.from_numpy(features.astype(np.float64))
    whole = similarities(x, torch.from_numpy(triplets))
    unit = similarities(x / x.norm(dim=1, keepdim=True), torch.from_numpy(triplets))
    values = torch.stack(
        [correct(whole).double(), correct(unit).double(), entropy(probabilities(whole, whole.std().item()))],
        1,
    ).numpy()
    draws = object_draws(values, triplets, draws=100, seed=0)
    for block in (module._BLOCK, 7):
        monkeypatch.setattr(module, "_BLOCK", block)
        found = scores(features, triplets, tau="spread")
        for column, metric in enumerate(("odd_one_out", "odd_one_out_cosine", "triplet_entropy")):
            score = found[metric]
            assert score.value == pytest.approx(values[:, column].mean(), abs=1e-12)
            assert (score.low, score.high) == pytest.approx(interval(draws[column]), abs=1e-12)
    monkeypatch.setattr(convention, "_GATHERED", 6 * 70)
    many = torch.cat([x, torch.zeros(5000, 6, dtype=torch.float64)])  # too many rows for a Gram matrix
    torch.testing.assert_close(dot_products(many, triplets), whole, atol=1e-12, rtol=0)


LARGE = """
import resource
import numpy as np
from alignet.evaluate.odd_one_out import odd_one_out
generator = np.random.default_rng(0)
features = generator.normal(size=(1854, 768)).astype(np.float32)
step = generator.integers(1, 600, (500_000, 1))
triplets = (generator.integers(1854, size=(500_000, 1)) + np.arange(3) * step) % 1854
odd_one_out(features, triplets[:1000], dataset="small", tau="spread", seed=0, bootstrap=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
odd_one_out(features, triplets, dataset="large", tau="spread", seed=0, bootstrap=100)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux alone")
def test_half_a_million_triplets_never_take_n_times_width_of_memory():
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", LARGE], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    assert (
        float(done.stdout) < 250
    )  # MiB; 500,000 x 768 float32 would be 1,465, and three times that for triplets


@pytest.mark.parametrize(
    "features", [np.full((7, 5), 0.3), np.zeros((7, 5)), np.full((5000, 37), 0.3, "float32")]
)
def test_all_equal_features_score_nothing_and_every_triplet_is_a_tie(features):
    triplets = np.array(list(itertools.combinations(range(7), 3)))
    found = scores(features, triplets)
    assert found["odd_one_out"].value == found["odd_one_out_cosine"].value == 0
    assert found["ties"].value == len(triplets)
    assert f"{len(triplets)} ties, counted as wrong" in found["odd_one_out"].note
    assert found["triplet_entropy"].value == pytest.approx(math.log(3))


def test_a_tie_for_the_largest_is_wrong_but_a_tie_below_it_is_none():
    triplets = np.array([[0, 1, 2]])
    second_equal = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 1.0]])  # s = 1, .5, .5
    assert scores(second_equal, triplets)["odd_one_out"].value == 1
    assert scores(second_equal, triplets)["ties"].value == 0
    first_equal = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]) * [[1], [1], [1]]
    assert scores(first_equal, triplets)["odd_one_out"].value == 0


def test_scale_and_rotation_change_nothing_but_the_entropy():
    features, triplets, _ = planted(n=500)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    before, after = scores(features, triplets), scores(7 * features.astype(float) @ turn, triplets, tau=49.0)
    for metric in before:
        assert after[metric].value == pytest.approx(before[metric].value, abs=1e-6)


def test_without_draws_there_is_no_interval_and_the_values_stay():
    features, triplets, _ = planted(n=500)
    some, none = scores(features, triplets), scores(features, triplets, bootstrap=0)
    for metric, score in none.items():
        assert (score.low, score.high, score.over) == (None, None, "")
        assert score.value == some[metric].value


def test_threads_change_nothing():
    """So many triplets that PyTorch would share each of its sums among its threads."""
    features, triplets, _ = planted(n=120_000)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(scores(features, triplets, tau="spread", bootstrap=20))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_units_are_what_the_interval_resamples():
    features, triplets, _ = planted()
    rows = scores(features, triplets)["odd_one_out"]
    grouped = scores(features, triplets, units=np.arange(30) // 5, over="concepts")["odd_one_out"]
    assert grouped.value == rows.value
    assert grouped.over == "concepts"
    assert grouped.high - grouped.low != rows.high - rows.low


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.full((30, 6), np.nan)}, "NaN or infinity in 30 of 30"),
        ({"features": np.zeros(30)}, r"expected features of shape \(objects, width\)"),
        ({"triplets": np.array([[0, 1, 30]])}, "object indices in 0..29"),
        ({"triplets": np.zeros((0, 3), int)}, "at least one triplet"),
        ({"tau": 0.0}, "tau above 0"),
        ({"ceiling": 66.67}, r"ceiling within \(0, 1\]"),
        ({"ceiling": 0.6, "probabilities": np.full((3000, 3), 1 / 3)}, "found both"),
        ({"probabilities": np.full((3000, 3), 0.5)}, "rows sum to 1"),
        ({"probabilities": np.full((2, 3), 1 / 3)}, r"shape \(3000, 3\)"),
        ({"units": np.arange(4)}, "one unit per row"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    features, triplets, _ = planted()
    given = {"features": features, "triplets": triplets} | change
    with pytest.raises(ValueError, match=message):
        scores(**given)
