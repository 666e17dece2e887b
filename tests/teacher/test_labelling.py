"""The teacher's answers against brute force, on every way they are computed."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import alignet.teacher.labelling
from alignet.data.feature_blocks import Stacked
from alignet.runtime.checkpoints import Checkpoints
from alignet.teacher.labelling import (
    disagreement,
    label,
    label_entropy,
    teacher_similarities,
    temperature_for_entropy,
)
from alignet.teacher.triplet_kernels import fill_similarities

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(40, 7)).astype(np.float32)
WEIGHTS, BIAS = GENERATOR.normal(size=(7, 5)).astype(np.float32), GENERATOR.normal(size=5).astype(np.float32)
TRIPLETS = np.array([GENERATOR.choice(40, 3, replace=False) for _ in range(500)])
SPLITS = (16, 23, 39)  # rows of FEATURES at which shards begin


@pytest.fixture(params=["gram", "held", "file", "shards"])
def way(request, monkeypatch, tmp_path):
    """(what makes the features, options) of each way in which similarities are computed."""
    if request.param != "gram":
        monkeypatch.setattr(alignet.teacher.labelling, "_GRAM", 0)
    monkeypatch.setattr(alignet.teacher.labelling, "_PIECE", 24)
    monkeypatch.setattr(alignet.teacher.labelling, "BLOCK", 16)
    stacked = request.param == "shards"
    options = {"block": 64, "threads": 2}
    if request.param == "file":
        options |= {"hold_bytes": 0, "scratch": tmp_path / "scratch"}
    return (lambda rows: Stacked(np.split(rows, SPLITS))) if stacked else (lambda rows: rows), options


def mapped(rows):
    return rows @ WEIGHTS + BIAS


def brute(features, triplets, transform=None):
    space = np.asarray(features, dtype=np.float64)
    space = space if transform is None else transform(space)
    return np.array([[space[i] @ space[j], space[i] @ space[k], space[j] @ space[k]] for i, j, k in triplets])


@pytest.mark.parametrize("transform", [None, mapped])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_against_brute_force(way, transform, dtype):
    made, options = way
    features = FEATURES.astype(dtype)
    sims = teacher_similarities(made(features), TRIPLETS, transform=transform, **options)
    assert sims.dtype == np.float32
    np.testing.assert_allclose(sims, brute(features, TRIPLETS, transform), rtol=1e-4, atol=1e-4)
    reordered, ordered = label(made(features), TRIPLETS, transform=transform, **options)
    assert reordered.dtype == np.int64
    assert (ordered[:, 0] == ordered.max(1)).all()
    np.testing.assert_array_equal(np.sort(reordered, 1), np.sort(TRIPLETS, 1))
    np.testing.assert_allclose(ordered, brute(features, reordered, transform), rtol=1e-4, atol=1e-4)
    assert (reordered[:, 2] != TRIPLETS[:, 2]).mean() > 0.3
    if "scratch" in options:
        assert not list(options["scratch"].glob("*"))


@pytest.mark.parametrize("transform", [None, mapped])
def test_threads_blocks_shards_and_files_do_not_matter(monkeypatch, tmp_path, transform):
    monkeypatch.setattr(alignet.teacher.labelling, "_GRAM", 0)
    features = FEATURES.astype(np.float16)
    whole = teacher_similarities(features, TRIPLETS, transform=transform, threads=1)
    for threads in (1, 2, 5):
        for block in (7, 256, 300):
            for made in (features, Stacked(np.split(features, SPLITS)), np.asfortranarray(features)):
                again = teacher_similarities(
                    made, TRIPLETS.astype(np.int32), transform=transform, threads=threads, block=block,
                    hold_bytes=0, scratch=tmp_path,
                )  # fmt: skip
                assert again.tobytes() == whole.tobytes()


def test_half_precision_loses_nothing_beyond_its_features(monkeypatch):
    """Against sums in float64 of the same halves: a relative 1e-6 of the similarities' spread."""
    monkeypatch.setattr(alignet.teacher.labelling, "_GRAM", 0)
    features = np.random.default_rng(1).normal(size=(300, 1152)).astype(np.float16)
    triplets = np.array([GENERATOR.choice(300, 3, replace=False) for _ in range(2000)])
    exact = brute(features, triplets)
    found = teacher_similarities(features, triplets)
    assert np.abs(found - exact).max() < 3e-6 * exact.std()


def test_halves_of_every_kind_are_widened_exactly():
    bits = np.arange(2**16, dtype=np.uint16)
    features = np.append(bits.view(np.float16), np.float16(1))[:, None]
    triplets = np.stack([bits, np.full(2**16, 2**16), np.full(2**16, 2**16)], 1).astype(np.int64)
    sims = np.empty((2**16, 3), dtype=np.float32)
    fill_similarities(features, triplets, sims)
    np.testing.assert_array_equal(sims[:, 0], features[:-1, 0].astype(np.float32))
    np.testing.assert_array_equal(sims[:, 2], 1)


def test_memory_mapped_features(tmp_path, monkeypatch):
    monkeypatch.setattr(alignet.teacher.labelling, "_GRAM", 0)
    np.save(tmp_path / "f.npy", FEATURES)
    opened = np.load(tmp_path / "f.npy", mmap_mode="r")
    found = teacher_similarities(opened, TRIPLETS)
    np.testing.assert_array_equal(found, teacher_similarities(FEATURES, TRIPLETS))
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), FEATURES)


@pytest.mark.parametrize("hold_bytes", [0, 1 << 20])
def test_each_row_is_mapped_once(monkeypatch, tmp_path, hold_bytes):
    monkeypatch.setattr(alignet.teacher.labelling, "_GRAM", 0)
    monkeypatch.setattr(alignet.teacher.labelling, "BLOCK", 16)
    seen = []

    def watched(rows):
        seen.append(len(rows))
        return mapped(rows)

    teacher_similarities(
        FEATURES, TRIPLETS, transform=watched, hold_bytes=hold_bytes, scratch=tmp_path, block=4
    )
    assert seen == [1, 16, 16, 8]  # the first tells the width


def test_the_inputs_are_left_alone():
    triplets, features = TRIPLETS.copy(), FEATURES.copy()
    label(features, triplets)
    np.testing.assert_array_equal(triplets, TRIPLETS)
    np.testing.assert_array_equal(features, FEATURES)


@pytest.mark.parametrize("way", ["held", "file", "shards"], indirect=True)  # a Gram matrix answers at once
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_interrupted_labelling_continues_to_the_same_bytes(tmp_path, monkeypatch, way, stop):
    made, options = way
    options |= {"transform": mapped}
    whole = label(made(FEATURES), TRIPLETS, **options)
    real, calls = alignet.teacher.labelling._check_finite, []

    def failing(found, *rest):
        calls.append(len(found))
        if len(calls) == stop + 1:
            raise KeyboardInterrupt
        return real(found, *rest)

    monkeypatch.setattr(alignet.teacher.labelling, "_check_finite", failing)
    with pytest.raises(KeyboardInterrupt):
        label(made(FEATURES), TRIPLETS, checkpoints=Checkpoints(tmp_path, seconds=0), **options)
    options["block"] += 1  # of any size: a triplet's answer does not depend on its block
    resumed = label(made(FEATURES), TRIPLETS, checkpoints=Checkpoints(tmp_path, seconds=0), **options)
    assert [array.tobytes() for array in resumed] == [array.tobytes() for array in whole]
    assert len(calls) == 8 + 1  # eight blocks, one of them begun twice


def test_ties_take_the_first_pair():
    reordered, sims = label(np.ones((3, 2), dtype=np.float32), np.array([[2, 0, 1]]))
    np.testing.assert_array_equal(reordered, [[2, 0, 1]])
    np.testing.assert_array_equal(sims, [[2, 2, 2]])


def test_values_that_are_not_finite(way):
    made, options = way
    features = FEATURES.copy()
    features[TRIPLETS[100, 1]] = np.nan
    first = int(np.flatnonzero((TRIPLETS[100, 1] == TRIPLETS).any(1))[0])
    with pytest.raises(ValueError, match=f"triplet {first} "):
        label(made(features), TRIPLETS, **options)


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


# ---- memory

UNDER_A_CEILING = """
import re, resource, sys
import numpy as np
import faiss
from alignet.teacher.clusters import fit_clusters
from alignet.teacher.labelling import label

features = np.load(sys.argv[1], mmap_mode="r")
few = np.arange(300).reshape(-1, 3)
label(features[:5000], few)
fit_clusters(features[:300], k=3, seed=0, threads=1)  # everything is loaded, every thread has begun
n = 1_000_000
drawn = np.random.default_rng(0).integers(0, len(features) // 3, (n, 3)) * 3 + np.arange(3)
data = int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (data + (220 << 20),) * 2)

for too_much in (lambda: np.empty((n, 3, features.shape[1]), np.float16), lambda: np.array(features)):
    try:
        too_much()
    except MemoryError:
        continue
    sys.exit("the limit does not hold")
triplets, sims = label(features, drawn, threads=2)
one = 123_456
rows = features[triplets[one]].astype(np.float64)
assert np.allclose(sims[one], [rows[0] @ rows[1], rows[0] @ rows[2], rows[1] @ rows[2]], atol=1e-3)
assert (sims[:, 0] >= sims[:, 1:].max(1)).all()
found = fit_clusters(features, k=8, seed=0, iterations=2, threads=1, sample=2048)
assert len(found.assignment) == len(features)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA as Linux counts it")
def test_a_million_triplets_of_features_that_memory_cannot_hold(tmp_path):
    """272 MB of halves and 6.9 GB of rows of triplets, with 220 MB to spare beside the libraries."""
    rows = np.random.default_rng(0).normal(size=(4096, 1152)).astype(np.float16)
    shape = (118_000, 1152)
    opened = np.lib.format.open_memmap(tmp_path / "f.npy", mode="w+", dtype=np.float16, shape=shape)
    for start in range(0, len(opened), 4096):
        part = opened[start : start + 4096]
        part[:] = np.roll(rows, start // 4096, axis=1)[: len(part)]
    opened.flush()
    command = [sys.executable, "-c", UNDER_A_CEILING, str(tmp_path / "f.npy")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
