"""An AligNet data set written and read back is the same; images are found by name, and the order is verified."""

import numpy as np
import pytest

from alignet.data.alignet_npz import load_dataset, save_dataset

IDS = [f"train/n{row % 3:08d}/n{row % 3:08d}_{row}.JPEG" for row in range(8)]


def drawn(n=400, seed=0):
    """Triplets and similarities of which s01 is the largest."""
    rng = np.random.default_rng(seed)
    triplets = np.stack([rng.permutation(len(IDS))[:3] for _ in range(n)])
    similarities = np.sort(rng.normal(size=(n, 3)).astype(np.float32), axis=1)[:, ::-1]
    similarities[:, 1:] = rng.permuted(similarities[:, 1:], axis=1)
    return triplets, np.ascontiguousarray(similarities)


def stored(path, names=None, triplets=None, similarities=None, **more):
    drawn_triplets, drawn_similarities = drawn()
    names = np.array(IDS)[drawn_triplets] if names is None else names
    values = drawn_similarities if similarities is None else similarities
    np.savez(path, filenames=names, similarities=values, **more)
    return path


def test_round_trip_is_exact(tmp_path):
    triplets, similarities = drawn()
    path = tmp_path / "train.npz"
    save_dataset(path, IDS, triplets, similarities)
    assert [file.name for file in tmp_path.iterdir()] == ["train.npz"]
    found = load_dataset(path, IDS)
    np.testing.assert_array_equal(found.triplets, triplets)
    np.testing.assert_array_equal(found.similarities, similarities)
    assert (found.triplets.dtype, found.similarities.dtype) == (np.int64, np.float32)
    assert (found.holds, found.dropped, found.matched) == (1.0, 0, "name")
    first = path.read_bytes()
    save_dataset(path, IDS, triplets, similarities)
    assert path.read_bytes() == first


def test_what_is_written_is_what_numpy_reads(tmp_path):
    triplets, similarities = drawn()
    save_dataset(tmp_path / "a.npz", IDS, triplets, similarities)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"filenames", "similarities", "indices"}
        assert archive["filenames"].dtype.kind == "U"
        np.testing.assert_array_equal(archive["filenames"], np.array(IDS)[triplets])
        np.testing.assert_array_equal(archive["similarities"], similarities)
        np.testing.assert_array_equal(archive["indices"], triplets)


def test_blocks_do_not_show(tmp_path, monkeypatch):
    triplets, similarities = drawn()
    save_dataset(tmp_path / "a.npz", IDS, triplets, similarities)
    monkeypatch.setattr("alignet.data.alignet_npz._BLOCK", 7)
    save_dataset(tmp_path / "b.npz", IDS, triplets, similarities)
    assert (tmp_path / "a.npz").stat().st_size == pytest.approx((tmp_path / "b.npz").stat().st_size, abs=200)
    for name in ("a.npz", "b.npz"):
        found = load_dataset(tmp_path / name, IDS)
        np.testing.assert_array_equal(found.triplets, triplets)
        np.testing.assert_array_equal(found.similarities, similarities)


@pytest.mark.parametrize("kind", ["U", "S"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_text_or_bytes_and_any_float(tmp_path, kind, dtype):
    triplets, similarities = drawn()
    path = stored(
        tmp_path / "a.npz",
        np.array(IDS)[triplets].astype(kind),
        similarities=similarities.astype(np.float16).astype(dtype),
        indices=triplets[::-1],  # of another list of images: not looked at
    )
    found = load_dataset(path, IDS)
    np.testing.assert_array_equal(found.triplets, triplets)
    np.testing.assert_array_equal(found.similarities, similarities.astype(np.float16))


def test_fortran_order(tmp_path):
    triplets, _ = drawn()
    path = stored(tmp_path / "a.npz", np.asfortranarray(np.array(IDS)[triplets]))
    np.testing.assert_array_equal(load_dataset(path, IDS).triplets, triplets)


@pytest.mark.parametrize(
    ("rename", "matched"),
    [
        (lambda name: name, "name"),
        (lambda name: name.rpartition("/")[2], "basename"),
        (lambda name: "other/" + name.rpartition("/")[2], "basename"),
        (lambda name: name.rpartition("/")[2].removesuffix(".JPEG"), "stem"),
        (lambda name: name.rpartition("/")[2].replace(".JPEG", ".png"), "stem"),
    ],
)
def test_images_are_found_by_name_in_any_order(tmp_path, rename, matched):
    triplets, _ = drawn()
    path = stored(tmp_path / "a.npz", np.array([rename(name) for name in IDS])[triplets])
    shuffled = IDS[::-1]
    found = load_dataset(path, shuffled)
    assert found.matched == matched
    assert np.array_equal(np.array(shuffled)[found.triplets], np.array(IDS)[triplets])


def test_images_that_are_not_here(tmp_path):
    triplets, similarities = drawn()
    path = stored(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"none for 1 of 8 names \(the first '.*_7.JPEG'.*missing=drop"):
        load_dataset(path, IDS[:7])
    found = load_dataset(path, IDS[:7], missing="drop")
    kept = (triplets < 7).all(axis=1)
    np.testing.assert_array_equal(found.triplets, triplets[kept])
    np.testing.assert_array_equal(found.similarities, similarities[kept])
    assert found.dropped == (~kept).sum()
    for ids in (IDS[:2], ["cat.jpg", "dog.jpg"], []):
        with pytest.raises(ValueError, match="in 400 of 400 triplets; give the images"):
            load_dataset(path, ids, missing="drop")


def test_names_that_fit_two_images(tmp_path):
    triplets, _ = drawn()
    here = [f"{'ab'[row % 2]}/{row // 2}.jpg" for row in range(8)]
    names = np.array([f"{row}.jpg" for row in range(8)])[triplets]
    with pytest.raises(ValueError, match=r"found '0.jpg' as the basename of two images at hand"):
        load_dataset(stored(tmp_path / "a.npz", names), here)
    names = np.array([f"{'xy'[row % 2]}/{row // 2}.jpg" for row in range(8)])[triplets]
    with pytest.raises(ValueError, match=r"'\d.jpg' as the basename of two names in the file"):
        load_dataset(stored(tmp_path / "a.npz", names), [f"{row}.jpg" for row in range(8)])


def test_the_order_is_verified(tmp_path):
    _, similarities = drawn()
    path = stored(tmp_path / "a.npz", similarities=similarities[:, [1, 0, 2]])
    with pytest.raises(ValueError, match=r"found it in 0\.0%.*in the middle \(s02\) in 100\.0%"):
        load_dataset(path, IDS)
    found = load_dataset(path, IDS, order="as_is")
    assert found.holds == 0
    np.testing.assert_array_equal(found.similarities, similarities[:, [1, 0, 2]])
    with pytest.raises(ValueError, match=r"stands first \(s12\) in 100"):
        load_dataset(stored(path, similarities=similarities[:, ::-1].copy()), IDS)
    with pytest.raises(ValueError, match="look like distances"):
        load_dataset(stored(path, similarities=-similarities), IDS)
    mixed = similarities.copy()
    mixed[:3] = mixed[:3, ::-1]  # 397 of 400 hold
    assert load_dataset(stored(path, similarities=mixed), IDS).holds == pytest.approx(0.9925)
    mixed[3:5] = mixed[3:5, ::-1]
    with pytest.raises(ValueError, match=r"found it in 98\.8%, or set order=as_is"):
        load_dataset(stored(path, similarities=mixed), IDS)
    with pytest.raises(ValueError, match=r"found it in 0\.0%"):  # equal similarities show no order
        load_dataset(stored(path, similarities=np.ones((400, 3))), IDS)


NAMES = np.array(IDS)[drawn()[0]]
BAD = {
    "pickled names": (NAMES.astype(object), None, "'filenames', found an array of Python objects"),
    "numbers": (drawn()[0], None, "filenames as text, found dtype int64"),
    "two columns": (NAMES[:, :2], None, r"filenames of shape \(n, 3\).*found \(400, 2\)"),
    "no rows": (NAMES[:0], None, r"found \(0, 3\)"),
    "other rows": (NAMES[:-1], None, "found 400 and 399"),
    "NaN": (None, np.full((400, 3), np.nan), "NaN or infinity in 400 triplets"),
    "integers": (None, np.ones((400, 3), int), "similarities as floats, found dtype int64"),
    "wide": (None, np.ones((400, 4)), r"similarities of shape \(n, 3\)"),
    "repeated": (NAMES[:, [0, 0, 1]], None, "three different objects"),
    "other bytes": (np.full((400, 3), b"\xff"), None, "UTF-8"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays(tmp_path, case):
    names, similarities, message = BAD[case]
    path = stored(tmp_path / "a.npz", names, similarities=similarities)
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(path, IDS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_files_and_options(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, similarities=np.ones((2, 3)))
    with pytest.raises(ValueError, match="arrays filenames and similarities, found similarities"):
        load_dataset(path, IDS)
    triplets, similarities = drawn(20)
    save_dataset(path, IDS, triplets, similarities)
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="expected"):
            load_dataset(path, IDS)
    with pytest.raises(ValueError, match="missing: expected stop or drop"):
        load_dataset(path, IDS, missing="skip")
    with pytest.raises(ValueError, match="order: expected odd_last or as_is"):
        load_dataset(path, IDS, order="first")
    with pytest.raises(ValueError, match=r"expected finite similarities of shape \(20, 3\)"):
        save_dataset(path, IDS, triplets, similarities * np.nan)
    with pytest.raises(ValueError, match="object indices"):
        save_dataset(path, IDS[:2], triplets, similarities)
