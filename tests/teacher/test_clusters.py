"""K-means finds planted clusters, uses every row, repeats itself, and the elbow is where it is drawn."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import alignet.data.feature_blocks
import alignet.teacher.clusters
from alignet.data.feature_blocks import Stacked
from alignet.runtime.checkpoints import Checkpoints
from alignet.teacher.clusters import _faiss_threads as faiss_threads
from alignet.teacher.clusters import elbow, elbow_of, fit_clusters, inertia


def blobs(k=6, each=40, spread=0.3, seed=0):
    """Points around the corners of a simplex, and the corner of each."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(k), each)
    points = 5 * np.eye(k, 8)[labels] + spread * generator.normal(size=(k * each, 8))
    return points.astype(np.float32), labels


def test_planted_blobs_are_found_and_shuffled_ones_are_not():
    points, labels = blobs()
    found = fit_clusters(points, k=6, seed=0, redo=5)
    assert adjusted_rand_score(labels, found.assignment) == 1
    shuffled = np.random.default_rng(1).permuted(points, axis=0)  # each column by itself
    assert adjusted_rand_score(labels, fit_clusters(shuffled, k=6, seed=0, redo=5).assignment) < 0.1


def test_every_row_counts_and_nearest_centroid_wins():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(3000, 3)).astype(np.float32) + 20 * np.repeat(np.eye(2, 3), 1500, axis=0)
    points = points.astype(np.float32)
    found = fit_clusters(points, k=2, seed=0, redo=3)  # faiss's own default would sample 512 of the rows
    for cluster in range(2):
        members = points[found.assignment == cluster]
        np.testing.assert_allclose(found.centroids[cluster], members.mean(0, dtype=np.float64), atol=1e-4)
    distances = ((points[:, None].astype(np.float64) - found.centroids[None]) ** 2).sum(2)
    np.testing.assert_array_equal(found.assignment, distances.argmin(1))
    assert found.inertia == pytest.approx(distances.min(1).sum(), rel=1e-6)


def test_one_seed_repeats_and_threads_do_not_matter():
    points = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    first = fit_clusters(points, k=20, seed=3, threads=1)
    for threads in (1, 2):
        again = fit_clusters(points, k=20, seed=3, threads=threads)
        np.testing.assert_array_equal(again.assignment, first.assignment)
        assert again.centroids.tobytes() == first.centroids.tobytes()
    assert not np.array_equal(fit_clusters(points, k=20, seed=4, threads=1).assignment, first.assignment)


@pytest.mark.parametrize("redo", [1, 2])
def test_a_sample_is_the_one_that_faiss_itself_takes(redo):
    faiss = pytest.importorskip("faiss")
    points = np.random.default_rng(0).normal(size=(9000, 16)).astype(np.float32)
    with faiss_threads(1):
        kmeans = faiss.Kmeans(16, 10, niter=12, nredo=redo, seed=5)  # 256 rows for each centroid
        kmeans.train(points)
        nearest = kmeans.index.search(points, 1)[1][:, 0]
    found = fit_clusters(points, k=10, seed=5, iterations=12, redo=redo, threads=1, sample=2560)
    assert found.centroids.tobytes() == kmeans.centroids.tobytes()
    np.testing.assert_array_equal(found.assignment, nearest)
    assert found.inertia == pytest.approx(((points - found.centroids[nearest]) ** 2).sum(), rel=1e-5)
    whole = fit_clusters(points, k=10, seed=5, iterations=12, redo=redo, threads=1)
    assert whole.inertia < found.inertia < 1.02 * whole.inertia
    for enough in (9000, 10_000):
        same = fit_clusters(points, k=10, seed=5, iterations=12, redo=redo, threads=1, sample=enough)
        assert same.centroids.tobytes() == whole.centroids.tobytes()
    with pytest.raises(ValueError, match=r"1\.\.8 \(the images that place the centroids\)"):
        fit_clusters(points, k=10, seed=5, sample=8)


@pytest.mark.parametrize("sample", [None, 100])
def test_shards_and_a_map_are_read_block_by_block(monkeypatch, tmp_path, sample):
    monkeypatch.setattr(alignet.data.feature_blocks, "BLOCK", 64)
    monkeypatch.setattr(alignet.teacher.clusters, "BLOCK", 64)
    points, _ = blobs()
    halves = points.astype(np.float16)
    np.save(tmp_path / "halves.npy", halves)
    opened = np.load(tmp_path / "halves.npy", mmap_mode="r")
    weights = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    seen = []

    def mapped(rows):
        seen.append(len(rows))
        return rows @ weights

    space = np.concatenate(
        [halves[start : start + 64].astype(np.float32) @ weights for start in range(0, 240, 64)]
    )
    options = {"k": 6, "seed": 0, "redo": 3, "threads": 1, "sample": sample}
    plain = fit_clusters(space, **options)
    for features in (opened, Stacked([opened[:100], opened[100:]])):
        seen.clear()
        found = fit_clusters(features, transform=mapped, **options)
        np.testing.assert_allclose(found.centroids, plain.centroids, atol=1e-5)
        np.testing.assert_array_equal(found.assignment, plain.assignment)
        assert found.inertia == pytest.approx(plain.inertia, rel=1e-5)
        assert max(seen) <= 64
    curve = elbow(opened, grid=[2, 4, 6, 9], transform=mapped, seed=0, redo=3, threads=1, sample=sample)
    assert curve.inertia[2] == found.inertia


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_and_orders(dtype):
    points, _ = blobs(spread=0.0)
    plain = fit_clusters(points, k=6, seed=0, redo=5)
    other = fit_clusters(np.asfortranarray(points.astype(dtype)), k=6, seed=0, redo=5)
    np.testing.assert_array_equal(plain.assignment, other.assignment)


def test_inertia_of_equal_points_is_exactly_zero():
    points = np.full((50, 4), 1e3 + 0.1, dtype=np.float32)
    found = fit_clusters(points, k=1, seed=0)
    assert found.inertia == pytest.approx(0, abs=1e-3)  # a float32 mean of equal values may be off by one ulp
    assert inertia(points, points[:1], np.zeros(50, dtype=np.int64)) == 0


@pytest.mark.filterwarnings("error")
def test_fewer_distinct_points_than_clusters():
    points = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    found = fit_clusters(points, k=7, seed=0)
    assert found.centroids.shape == (7, 3)
    assert np.isfinite(found.centroids).all()
    assert found.inertia < 1e-3
    assert len({tuple(row) for row in zip(np.repeat([0, 1, 2], 10), found.assignment)}) == 3


@pytest.mark.parametrize("k", [1, 30])
def test_one_cluster_and_a_cluster_for_each_row(k):
    points = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    found = fit_clusters(points, k=k, seed=0)
    assert len(np.unique(found.assignment)) == k
    expected = 0 if k == 30 else ((points - points.mean(0)) ** 2).sum()
    assert found.inertia == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("k", [0, 31])
def test_impossible_numbers(k):
    with pytest.raises(ValueError, match=rf"1\.\.30 \(the images\), found {k}"):
        fit_clusters(np.zeros((30, 4), dtype=np.float32), k=k, seed=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value):
    points = np.zeros((20_000, 2), dtype=np.float32)
    points[17_000, 1] = value
    with pytest.raises(ValueError, match="row 17000"):
        fit_clusters(points, k=2, seed=0)
    with pytest.raises(ValueError, match="shape"):
        fit_clusters(points.ravel(), k=2, seed=0)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("inside", [True, False])  # the sample that places the centroids
@pytest.mark.parametrize("way", ["map", "float64"])
def test_values_that_are_not_finite_as_float32_or_after_the_map(way, inside):
    faiss = pytest.importorskip("faiss")
    points = np.random.default_rng(0).normal(size=(200, 3))
    drawn = np.empty(200, dtype=np.int32)
    faiss.rand_perm(faiss.swig_ptr(drawn), 200, 0)
    row = int(drawn[7] if inside else drawn[150])
    if way == "float64":
        points[row, 1] = 1e300  # finite, but no float32
        transform = None
    else:
        points[row, 1] = -5.0

        def transform(rows):
            return np.where(rows < -4.9, np.nan, rows).astype(np.float32)

    with pytest.raises(ValueError, match=rf"found NaN or infinity in row {row};"):
        fit_clusters(points, k=4, seed=0, sample=100, transform=transform)


def test_elbow_of_one_over_k_is_the_root():
    # the point of 1/k farthest below the chord between 1 and K is sqrt(K)
    for last in (25, 100, 400):
        grid = range(1, last + 1)
        assert elbow_of(grid, [1 / k for k in grid]) == round(last**0.5)


def test_elbow_of_two_straight_lines_is_their_corner_in_any_unit():
    grid = [2, 3, 5, 8, 20, 50]
    curve = np.array([100, 90, 70, 40, 28, -2])  # slope -10 to k = 8, then -1
    for scale, offset in ((1, 0), (1e6, 7), (1e-6, -3)):
        assert elbow_of(grid, scale * curve + offset) == 8


@pytest.mark.parametrize("curve", [[3, 2, 1], [5, 5, 5], [1, 2, 3], [3, 2.9, 0]])
def test_no_elbow(curve):
    with pytest.raises(ValueError, match="bends below its chord"):
        elbow_of([1, 2, 3], curve)


@pytest.mark.parametrize("grid", [[], [2, 4], [2, 4, 4], [4, 3, 2]])
def test_bad_grids(grid):
    with pytest.raises(ValueError, match="three increasing"):
        elbow(np.zeros((9, 2), dtype=np.float32), grid=grid, seed=0)


def test_elbow_finds_the_number_of_planted_blobs():
    points, _ = blobs()
    grid = [2, 3, 4, 5, 6, 7, 8, 10, 12]
    found = elbow(points, grid=grid, seed=0, redo=10)
    assert found.k == 6
    assert found.grid == tuple(grid)
    assert found.inertia[4] < found.inertia[3] / 5
    shuffled = np.random.default_rng(1).permuted(points, axis=0)
    flat = elbow(shuffled, grid=grid, seed=0, redo=10)
    assert flat.inertia[4] > flat.inertia[3] / 2  # nothing happens at 6 where there are no blobs


def test_an_interrupted_elbow_continues_to_the_same_curve(tmp_path, monkeypatch):
    points, _ = blobs()
    settings = {"grid": [2, 3, 4, 6, 8], "seed": 0, "redo": 3, "threads": 1}
    whole = elbow(points, **settings)
    real, fitted = alignet.teacher.clusters._fit, []

    def stop_at_6(training, features, transform, k, *options):
        if k == 6 and 6 not in fitted:
            fitted.append(k)
            raise KeyboardInterrupt
        fitted.append(k)
        return real(training, features, transform, k, *options)

    monkeypatch.setattr(alignet.teacher.clusters, "_fit", stop_at_6)
    with pytest.raises(KeyboardInterrupt):
        elbow(points, checkpoints=Checkpoints(tmp_path, seconds=0), **settings)
    assert elbow(points, checkpoints=Checkpoints(tmp_path, seconds=0), **settings) == whole
    assert fitted == [2, 3, 4, 6, 6, 8]


def test_features_whose_squares_overflow_are_refused_before_the_library_sees_them():
    from alignet.teacher.clusters import _check_rows

    rows = np.ones((4, 3), dtype=np.float32)
    _check_rows(1e14 * rows, 0)
    with pytest.raises(ValueError, match=r"expected features of at most 1e\+15.*found 1e\+20; scale them"):
        _check_rows(np.float32(1e20) * rows, 0)
