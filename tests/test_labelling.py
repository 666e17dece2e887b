"""The teacher's answers against brute force, on every way they are computed."""

import math

import numpy as np
import pytest
import torch

import alignet.labelling
from alignet.checkpoints import Checkpoints
from alignet.labelling import (
    disagreement,
    label,
    label_entropy,
    teacher_similarities,
    temperature_for_entropy,
)

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(40, 7)).astype(np.float32)
WEIGHTS, BIAS = GENERATOR.normal(size=(7, 5)).astype(np.float32), GENERATOR.normal(size=5).astype(np.float32)
TRIPLETS = np.array([GENERATOR.choice(40, 3, replace=False) for _ in range(500)])
WAYS = {"gram": {}, "held": {"hold_bytes": 1 << 20}, "lazy": {"hold_bytes": 0, "block": 64}}


def mapped(rows):
    return rows @ WEIGHTS + BIAS


def brute(features, triplets, transform=None):
    space = np.asarray(features, dtype=np.float64)
    space = space if transform is None else transform(space)
    return np.array([[space[i] @ space[j], space[i] @ space[k], space[j] @ space[k]] for i, j, k in triplets])


@pytest.mark.parametrize("transform", [None, mapped])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_against_brute_force(monkeypatch, way, transform, dtype):
    if way != "gram":
        monkeypatch.setattr(alignet.labelling, "_GRAM", 0)
    monkeypatch.setattr(alignet.labelling, "_ROWS", 16)
    features = FEATURES.astype(dtype)
    sims = teacher_similarities(features, TRIPLETS, transform=transform, **WAYS[way])
    assert sims.dtype == np.float32
    np.testing.assert_allclose(sims, brute(features, TRIPLETS, transform), rtol=1e-4, atol=1e-4)
    reordered, ordered = label(features, TRIPLETS, transform=transform, **WAYS[way])
    assert reordered.dtype == np.int64
    assert (ordered[:, 0] == ordered.max(1)).all()
    np.testing.assert_array_equal(np.sort(reordered, 1), np.sort(TRIPLETS, 1))
    np.testing.assert_allclose(ordered, brute(features, reordered, transform), rtol=1e-4, atol=1e-4)
    assert (reordered[:, 2] != TRIPLETS[:, 2]).mean() > 0.3


@pytest.mark.parametrize("way", ["held", "lazy"])
def test_memory_mapped_features(tmp_path, monkeypatch, way):
    monkeypatch.setattr(alignet.labelling, "_GRAM", 0)
    np.save(tmp_path / "f.npy", FEATURES)
    opened = np.load(tmp_path / "f.npy", mmap_mode="r")
    found = teacher_similarities(opened, TRIPLETS, **WAYS[way])
    np.testing.assert_array_equal(found, teacher_similarities(FEATURES, TRIPLETS, **WAYS[way]))
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), FEATURES)


def test_lazy_blocks_map_only_what_they_need(monkeypatch):
    seen = []

    def watched(rows):
        seen.append(len(rows))
        return mapped(rows)

    teacher_similarities(FEATURES, TRIPLETS[:8], transform=watched, hold_bytes=0, block=4)
    assert seen == [1] + [len(np.unique(TRIPLETS[start : start + 4])) for start in (0, 4)]


def test_the_inputs_are_left_alone():
    triplets, features = TRIPLETS.copy(), FEATURES.copy()
    label(features, triplets)
    np.testing.assert_array_equal(triplets, TRIPLETS)
    np.testing.assert_array_equal(features, FEATURES)


@pytest.mark.parametrize("way", ["held", "lazy"])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_interrupted_labelling_continues_to_the_same_bytes(tmp_path, monkeypatch, way, stop):
    monkeypatch.setattr(alignet.labelling, "_GRAM", 0)
    options = {"transform": mapped, "block": 64, "hold_bytes": WAYS[way]["hold_bytes"]}
    whole = label(FEATURES, TRIPLETS, **options)
    real, calls = alignet.labelling.similarities_of, []

    def failing(rows):
        calls.append(len(rows[0]))
        if len(calls) == stop + 1:
            raise KeyboardInterrupt
        return real(rows)

    monkeypatch.setattr(alignet.labelling, "similarities_of", failing)
    with pytest.raises(KeyboardInterrupt):
        label(FEATURES, TRIPLETS, checkpoints=Checkpoints(tmp_path, seconds=0), **options)
    resumed = label(FEATURES, TRIPLETS, checkpoints=Checkpoints(tmp_path, seconds=0), **options)
    assert [array.tobytes() for array in resumed] == [array.tobytes() for array in whole]
    assert len(calls) == 8 + 1  # eight blocks, one of them begun twice


def test_ties_take_the_first_pair():
    reordered, sims = label(np.ones((3, 2), dtype=np.float32), np.array([[2, 0, 1]]))
    np.testing.assert_array_equal(reordered, [[2, 0, 1]])
    np.testing.assert_array_equal(sims, [[2, 2, 2]])


@pytest.mark.parametrize("way", WAYS)
def test_values_that_are_not_finite(monkeypatch, way):
    if way != "gram":
        monkeypatch.setattr(alignet.labelling, "_GRAM", 0)
    features = FEATURES.copy()
    features[TRIPLETS[100, 1]] = np.nan
    first = int(np.flatnonzero((TRIPLETS[100, 1] == TRIPLETS).any(1))[0])
    with pytest.raises(ValueError, match=f"triplet {first} "):
        label(features, TRIPLETS, **WAYS[way])


def test_triplets_outside_the_rows():
    with pytest.raises(ValueError, match=r"0\.\.38, found"):
        label(FEATURES[:39], np.array([[0, 1, 39]]))
    with pytest.raises(ValueError, match="at least one triplet"):
        label(FEATURES, np.empty((0, 3), dtype=np.int64))


# ---- entropy and temperature


def test_entropy_in_closed_form():
    assert label_entropy(np.zeros((5, 3), dtype=np.float32), 2.0) == pytest.approx(math.log(3))
    assert label_entropy(np.array([[1.0, 0, 0]]), 1e-3) == pytest.approx(0, abs=1e-12)
    assert label_entropy(np.array([[1.0, 1, 0]]), 1e-3) == pytest.approx(math.log(2))
    p = np.array([0.5, 0.3, 0.2])
    expected = -(p * np.log(p)).sum()
    for tau in (0.1, 1, 30):
        assert label_entropy(tau * np.log(p)[None], tau) == pytest.approx(expected)
    mixed = np.concatenate([np.zeros((300_000, 3)), np.tile([1000.0, 0, 0], (100_000, 1))])  # two blocks
    assert label_entropy(mixed, 1.0) == pytest.approx(0.75 * math.log(3))


@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
@pytest.mark.parametrize("target", [0.05, 0.6, 1.05])
def test_temperature_reaches_its_entropy(scale, target):
    sims = (scale * GENERATOR.normal(size=(300, 3))).astype(np.float32)
    tau = temperature_for_entropy(sims, target)
    assert label_entropy(sims, tau) == pytest.approx(target, abs=1e-6)
    assert temperature_for_entropy(sims * 8, target) == pytest.approx(8 * tau, rel=1e-5)


def test_temperature_in_closed_form():
    # two equal losers: softmax([s/tau, 0, 0]) with odds exp(s/tau) = 4 is (2/3, 1/6, 1/6)
    p = np.array([2 / 3, 1 / 6, 1 / 6])
    tau = temperature_for_entropy(np.array([[3.0, 0, 0]]), float(-(p * np.log(p)).sum()))
    assert tau == pytest.approx(3 / math.log(4), rel=1e-6)


def test_temperatures_that_do_not_exist():
    sims = GENERATOR.normal(size=(50, 3))
    for target in (0, math.log(3), 2, -1, math.nan):
        with pytest.raises(ValueError, match="target"):
            temperature_for_entropy(sims, target)
    with pytest.raises(ValueError, match="equal or infinite"):
        temperature_for_entropy(np.ones((5, 3)), 0.5)
    with pytest.raises(ValueError, match="exact ties"):
        temperature_for_entropy(np.array([[1.0, 1, 0]]), 0.5)  # never below log 2
    with pytest.raises(ValueError, match="above 0"):
        label_entropy(sims, 0.0)
    with pytest.raises(ValueError, match="at least one"):
        label_entropy(sims[:0], 1.0)


def test_disagreement():
    a = np.array([[3, 1, 2], [1, 3, 2], [1, 2, 3], [2, 2, 1]])
    b = np.array([[9, 1, 2], [1, 2, 3], [0, 0, 1], [0, 1, 1]])
    assert disagreement(a, a * 5) == 0
    assert disagreement(a, b) == 0.5
    unrelated = GENERATOR.normal(size=(2, 20_000, 3))
    assert disagreement(*unrelated) == pytest.approx(2 / 3, abs=0.02)
    with pytest.raises(ValueError, match="one shape"):
        disagreement(a, b[:3])


def test_disagreement_of_teachers_is_that_of_their_odd_ones_out():
    sims = [teacher_similarities(FEATURES, TRIPLETS, transform=t) for t in (None, mapped)]
    odd = [label(FEATURES, TRIPLETS, transform=t)[0][:, 2] for t in (None, mapped)]
    assert disagreement(*sims) == np.mean(odd[0] != odd[1]) > 0.1


def test_an_affine_map_of_tensors_can_be_the_transform():
    def through_torch(rows):
        return (torch.from_numpy(rows) @ torch.from_numpy(WEIGHTS) + torch.from_numpy(BIAS)).numpy()

    np.testing.assert_allclose(
        teacher_similarities(FEATURES, TRIPLETS, transform=through_torch),
        teacher_similarities(FEATURES, TRIPLETS, transform=mapped),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip
