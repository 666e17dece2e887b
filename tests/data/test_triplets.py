"""Triplet files arrive in the one convention, and every unusable file is refused with its fix."""

import numpy as np
import pytest

from alignet.data.triplets import load_triplets, relabel, restrict, rows_of_objects, save_triplets

ODD_LAST = np.array([[0, 1, 2], [3, 1, 0], [2, 3, 1]])


def stored(tmp_path, array, name="t.npy"):
    np.save(tmp_path / name, array)
    return tmp_path / name


def load(path, objects=4, index_base=0, odd_one="last"):
    return load_triplets(path, objects=objects, index_base=index_base, odd_one=odd_one)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "int64", "uint64", ">i4"])
@pytest.mark.parametrize("index_base", [0, 1])
def test_dtypes_and_index_bases(tmp_path, dtype, index_base):
    path = stored(tmp_path, (ODD_LAST + index_base).astype(dtype))
    found = load(path, index_base=index_base)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, ODD_LAST)


@pytest.mark.parametrize(
    ("odd_one", "order"), [("last", [0, 1, 2]), ("first", [2, 0, 1]), ("middle", [0, 2, 1])]
)
def test_odd_one_ends_last(tmp_path, odd_one, order):
    found = load(stored(tmp_path, ODD_LAST[:, order]), odd_one=odd_one)
    np.testing.assert_array_equal(found[:, 2], ODD_LAST[:, 2])
    np.testing.assert_array_equal(np.sort(found[:, :2]), np.sort(ODD_LAST[:, :2]))


BAD = {
    "one-based": (ODD_LAST + 1, "set index_base to 1"),
    "above": (ODD_LAST + 2, r"0\.\.3, found 2\.\.5"),
    "negative": (ODD_LAST - 1, "found -1"),
    "beyond int64": (np.full((1, 3), 2**64 - 1, dtype=np.uint64), "found"),
    "repeated": (np.array([[0, 1, 2], [1, 3, 1]]), r"row 1: \[1, 3, 1\]"),
    "whole floats": (
        ODD_LAST.astype(np.float32),
        r"dtype float32; they are whole numbers.*astype\('int32'\)",
    ),
    "floats": (ODD_LAST + 0.5, "no file of object indices"),
    "NaN": (np.full((2, 3), np.nan), "no file of object indices"),
    "infinite": (np.full((2, 3), np.inf), "no file of object indices"),
    "bool": (np.ones((2, 3), dtype=bool), "found dtype bool"),
    "text": (np.array([["a", "b", "c"]]), "found dtype <U1"),
    "two columns": (ODD_LAST[:, :2], r"found \(3, 2\)"),
    "flat": (np.arange(3), r"found \(3,\)"),
    "no rows": (np.empty((0, 3), dtype=np.int64), "found none"),
    "no rows, floats": (np.empty((0, 3)), "found dtype float64"),
    "structured": (np.zeros(3, dtype=[("a", "i4")]), "expected integer"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays(tmp_path, case):
    array, message = BAD[case]
    path = stored(tmp_path, array)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_zero_based_file_declared_one_based(tmp_path):
    with pytest.raises(ValueError, match="set index_base to 0"):
        load(stored(tmp_path, ODD_LAST), index_base=1)


def test_object_arrays_are_never_unpickled(tmp_path):
    path = tmp_path / "t.npy"
    np.save(path, np.array([[Boom(), 1, 2]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        load(path)


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_damaged_files(tmp_path):
    path = stored(tmp_path, ODD_LAST)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="expected"):
            load(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match="damaged"):
        load(path)
    np.savez(tmp_path / "t.npz", a=ODD_LAST)
    (tmp_path / "t.npz").rename(path)
    with pytest.raises(ValueError, match="found something else"):
        load(path)
    with pytest.raises(ValueError, match="found none"):
        load(tmp_path / "nowhere.npy")
    with pytest.raises(ValueError, match=r"of type \.npy, \.txt.*found \.pkl"):
        load(tmp_path / "t.pkl")


def test_unknown_conventions(tmp_path):
    path = stored(tmp_path, ODD_LAST)
    with pytest.raises(ValueError, match="expected one of last, first, middle, choice, found '0'"):
        load(path, odd_one="0")
    with pytest.raises(ValueError, match="expected 0 or 1"):
        load(path, index_base=2)


TEXTS = {
    "savetxt": "0.000000000000000000e+00 1.000000000000000000e+00 2.000000000000000000e+00\n"
    "3.000000000000000000e+00 1.0e+00 0\n2 3 1\n",
    "commas": "0,1,2\n3,1,0\n2,3,1",
    "commas and blanks": "0, 1, 2\r\n3, 1, 0\r\n2, 3, 1\r\n",
    "tabs, with a mark of the byte order": "\ufeff0\t1\t2\n3\t1\t0\n2\t3\t1\n",
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_is_read_as_numpy_writes_it(tmp_path, case):
    path = tmp_path / "t.txt"
    path.write_text(TEXTS[case], encoding="utf-8", newline="")
    np.testing.assert_array_equal(load(path), ODD_LAST)


BAD_TEXTS = {
    "truncated": ("0 1 2\n3 1\n", "truncated row"),
    "words": ("a b c\n", "three whole numbers"),
    "NaN": ("0 1 2\n0 1 nan\n", "not whole numbers"),
    "fractions": ("0 1 2.5\n", "found 2.5"),
    "huge": ("0 1 1e30\n", "found 1e"),
    "two columns": ("0 1\n1 2\n", r"found \(2, 2\)"),
    "one-based": ("1 2 3\n4 2 1\n", "set index_base to 1"),
    "empty": ("", r"found \(0, \d\)|found none"),
    "only line breaks": ("\n\n", r"found \(0, \d\)|found none"),
    "a pickle": ("\x80\x04\x95", "expected rows of three whole numbers"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
@pytest.mark.filterwarnings("error")
def test_bad_texts(tmp_path, case):
    text, message = BAD_TEXTS[case]
    path = tmp_path / "t.txt"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["t.npy", "t.txt"])
def test_saved_triplets_come_back(tmp_path, name):
    save_triplets(tmp_path / name, ODD_LAST)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(load(tmp_path / name), ODD_LAST)
    with pytest.raises(ValueError, match="ends in"):
        save_triplets(tmp_path / "t.csv", ODD_LAST)
    with pytest.raises(ValueError, match="three different objects"):
        save_triplets(tmp_path / name, ODD_LAST[:, [0, 1, 1]])


def test_restrict_and_relabel():
    rows = rows_of_objects(["a", "b", "c", "d"], ["d", "x", "a", "b"])
    np.testing.assert_array_equal(rows, [2, 3, -1, 0])
    triplets = np.array([[0, 1, 3], [0, 2, 1], [3, 0, 1], [2, 1, 3]])
    found = restrict(triplets, rows)
    np.testing.assert_array_equal(found.triplets, [[2, 3, 0], [0, 2, 3]])
    np.testing.assert_array_equal(found.kept, [True, False, True, False])
    assert found.dropped == 2
    assert found.missing.tolist() == [2]
    np.testing.assert_array_equal(relabel(triplets[[0, 2]], rows), found.triplets)
    with pytest.raises(ValueError, match=r"1 objects without one \(2\) in 2 of 4"):
        relabel(triplets, rows)
    with pytest.raises(ValueError, match="'d' twice"):
        rows_of_objects(["a"], ["d", "a", "d"])
    assert len(restrict(triplets, np.full(4, -1)).triplets) == 0


def test_a_column_too_many_is_named_and_what_to_do_with_it(tmp_path):
    rows = np.array([[0, 1, 2, 17], [2, 1, 0, 18]])
    np.save(tmp_path / "a.npy", rows)
    np.savetxt(tmp_path / "a.txt", rows, fmt="%d")
    for name in ("a.npy", "a.txt"):
        with pytest.raises(
            ValueError, match=r"expected three columns, .* found 4: 1 too many \(a participant"
        ):
            load_triplets(tmp_path / name, objects=3, index_base=0, odd_one="last")
    table = "image1,image2,image3,choice,participant\n1,2,3,3,17\n3,2,1,1,18\n"
    (tmp_path / "a.csv").write_text(table)
    found = load_triplets(tmp_path / "a.csv", objects=3, index_base=1, odd_one="choice")
    assert found[:, 2].tolist() == [2, 2]
