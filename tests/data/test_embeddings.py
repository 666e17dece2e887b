"""VICE embeddings from npz and npy agree; what is no embedding of these objects is refused with its fix."""

import pickle

import numpy as np
import pytest

from alignet.data.embeddings import load_embedding

LOC = np.array([[0.5, -0.25], [1.0, 0.0], [0.125, 2.0]])
SCALE = np.full((3, 2), 0.5, dtype=np.float32)


@pytest.mark.parametrize("prefix", ["", "pruned_"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, prefix, save):
    path = tmp_path / "parameters.npz"
    save(path, **{f"{prefix}loc": LOC, f"{prefix}scale": SCALE})
    found = load_embedding(path, 3)
    assert found.loc.dtype == found.scale.dtype == np.float32
    np.testing.assert_array_equal(found.loc, LOC)
    np.testing.assert_array_equal(found.scale, SCALE)


def test_npy_and_npz_give_the_same_array(tmp_path):
    values = np.maximum(LOC, 0)
    np.save(tmp_path / "final_embedding.npy", values)
    np.savez(tmp_path / "p.npz", pruned_loc=values, pruned_scale=SCALE, dimensions=np.arange(2))
    final = load_embedding(tmp_path / "final_embedding.npy", 3)
    assert final.scale is None
    np.testing.assert_array_equal(final.loc, load_embedding(tmp_path / "p.npz", 3).loc)


def test_fortran_order(tmp_path):
    np.savez(tmp_path / "p.npz", loc=np.asfortranarray(LOC), scale=np.asfortranarray(SCALE))
    np.testing.assert_array_equal(load_embedding(tmp_path / "p.npz", 3).loc, LOC)


BAD = {
    "no scale": ({"loc": LOC}, "arrays loc and scale or pruned_loc and pruned_scale, found loc; save both"),
    "both pairs": (
        {"loc": LOC, "scale": SCALE, "pruned_loc": LOC, "pruned_scale": SCALE},
        "save one pair",
    ),
    "transposed": (
        {"loc": LOC.T, "scale": SCALE.T},
        r"each of 3 objects, found \(2, 3\); it looks transposed",
    ),
    "other objects": (
        {"loc": LOC[:2], "scale": SCALE[:2]},
        r"\(3, dimensions\).*found \(2, 2\).*table of objects",
    ),
    "another shape": ({"loc": LOC, "scale": SCALE[:, :1]}, r"one shape, found \(3, 2\) and \(3, 1\)"),
    "flat": ({"loc": LOC[:, 0], "scale": SCALE[:, 0]}, r"found \(3,\)"),
    "no dimensions": ({"loc": LOC[:, :0], "scale": SCALE[:, :0]}, r"found \(3, 0\)"),
    "NaN": ({"loc": LOC * np.nan, "scale": SCALE}, "finite numbers as loc, found NaN or infinity in 3 rows"),
    "NaN scale": ({"loc": LOC, "scale": SCALE * np.inf}, "finite numbers as scale"),
    "negative scale": ({"loc": LOC, "scale": -SCALE}, "at least 0 as scale, found 6 below.*logarithm"),
    "integers": ({"loc": LOC.astype(int), "scale": SCALE}, "floats as loc, found dtype int64"),
    "a pickle": ({"loc": np.array([[{}]], dtype=object), "scale": SCALE}, "Python objects"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays(tmp_path, case):
    arrays, message = BAD[case]
    path = tmp_path / "p.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        load_embedding(path, 3)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path):
    np.save(tmp_path / "a.npy", np.maximum(LOC, 0).T)
    with pytest.raises(ValueError, match="looks transposed"):
        load_embedding(tmp_path / "a.npy", 3)
    np.save(tmp_path / "a.npy", LOC)
    with pytest.raises(ValueError, match="at least 0 as embedding, found 1 below"):
        load_embedding(tmp_path / "a.npy", 3)
    (tmp_path / "a.txt").write_bytes(pickle.dumps({"loc": 1}))
    with pytest.raises(ValueError, match=r"\.txt results are pickles"):
        load_embedding(tmp_path / "a.txt", 3)
    with pytest.raises(ValueError, match="found none"):
        load_embedding(tmp_path / "none.npz", 3)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="found something else"):
        load_embedding(tmp_path / "a.npz", 3)


def test_npz_truncated_anywhere(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, loc=LOC, scale=SCALE)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="expected"):
            load_embedding(path, 3)


def test_npz_with_flipped_bytes_never_raises_anything_else(tmp_path):
    path, generator, refused = tmp_path / "p.npz", np.random.default_rng(0), []
    for save in (np.savez, np.savez_compressed):
        save(path, loc=LOC, scale=SCALE)
        whole = path.read_bytes()
        for _ in range(400):
            damaged = bytearray(whole)
            for place in generator.integers(0, len(whole), 3):
                damaged[place] = generator.integers(256)
            path.write_bytes(damaged)
            try:
                load_embedding(path, 3)
            except ValueError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert all(str(path) in message for message in refused)


def test_points_of_spose_as_text_and_array(tmp_path):
    values = np.array([[0.5, 0.0, 1.0], [2.0, -0.0013, 0.1], [0.0, 0.3, -0.0002]], dtype=np.float32)
    np.savetxt(tmp_path / "spose_embedding_49d_sorted.txt", values)
    (tmp_path / "marked.txt").write_bytes(
        b"\xef\xbb\xbf" + (tmp_path / "spose_embedding_49d_sorted.txt").read_bytes()
    )
    np.save(tmp_path / "a.npy", values)
    for name in ("spose_embedding_49d_sorted.txt", "marked.txt", "a.npy"):
        notes = []
        found = load_embedding(tmp_path / name, 3, notes)
        assert found.scale is None
        np.testing.assert_allclose(found.loc, np.maximum(values, 0), rtol=1e-6)
        assert "no scale" in notes[0]
        assert notes[1].endswith("2 values below 0 (down to -0.0013) count as 0")
    np.save(tmp_path / "a.npy", np.where(values < 0, -0.5, values))
    with pytest.raises(ValueError, match=r"at least 0 as embedding, found 2 below, the least -0\.5"):
        load_embedding(tmp_path / "a.npy", 3)
