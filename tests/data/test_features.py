"""Precomputed features and the table of concepts: what is accepted, and what is refused how."""

import numpy as np
import pytest

from alignet.data.concepts import load_concepts
from alignet.data.features import load_features, read_ids, rows_for

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
TEXT = "a.jpg\nb c.jpg\nü.jpg\nd\n"
IDS = ["a.jpg", "b c.jpg", "ü.jpg", "d"]


def stored(tmp_path, values=VALUES, text=TEXT):
    np.save(tmp_path / "f.npy", values)
    (tmp_path / "ids.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / "f.npy", tmp_path / "ids.txt"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_float_types(tmp_path, dtype):
    values, ids, constant = load_features(*stored(tmp_path, VALUES.astype(dtype)))
    assert values.dtype == np.float32
    assert values.dtype.isnative
    np.testing.assert_array_equal(values, VALUES)
    assert ids == IDS
    assert constant == 0


def test_constant_columns_are_counted(tmp_path):
    values = VALUES.copy()
    values[:, 1] = 0.1
    assert load_features(*stored(tmp_path, values)).constant == 1
    values[:, 0] = 1e-30 * np.arange(4)  # varies, but only as rounding does
    assert load_features(*stored(tmp_path, values)).constant == 2
    assert load_features(*stored(tmp_path, np.ones((4, 3)))).constant == 3


def test_column_order_and_line_ends(tmp_path):
    values, ids, _ = load_features(*stored(tmp_path, np.asfortranarray(VALUES), "\ufeffa\r\nb\r\nc\r\nd"))
    np.testing.assert_array_equal(values, VALUES)
    assert ids == ["a", "b", "c", "d"]


def changed(row, column, value):
    values = VALUES.astype(np.float64)
    values[row, column] = value
    return values


BAD = {
    "NaN": (changed(2, 1, np.nan), r"NaN in row 2 \(id 'ü.jpg'\)"),
    "infinite": (changed(3, 0, -np.inf), r"row 3 \(id 'd'\)"),
    "beyond float32": (changed(1, 0, 1e39), "beyond float32 in row 1"),
    "integers": (VALUES.astype(np.int32), "found int32"),
    "complex": (VALUES.astype(np.complex64), "found complex64"),
    "rows": (VALUES[:3], "each of the 4 ids .* found 3 rows"),
    "flat": (VALUES.ravel(), r"found \(12,\)"),
    "no rows": (VALUES[:0], r"found \(0, 3\)"),
    "no columns": (VALUES[:, :0], r"found \(4, 0\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_features(tmp_path, case):
    values, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        load_features(*stored(tmp_path, values))
    assert "\n" not in str(caught.value)


def test_the_first_bad_row_is_found_in_a_late_block(tmp_path):
    values = np.zeros((40_000, 2), dtype=np.float16)
    values[[33_333, 39_999], 1] = np.nan
    with pytest.raises(ValueError, match=r"row 33333 \(id '33333'\)"):
        load_features(*stored(tmp_path, values, "\n".join(str(row) for row in range(40_000))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\na\nd\n", "'a' 2 times"),
        ("a\n\nb\nd\n", "empty line 2"),
        ("a\nb\nc\nd\n\n", "empty line 5"),
        ("", "empty line 1"),
        (b"a\n\xff\xfe\n", "UTF-8"),
    ],
)
def test_bad_ids(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_ids(stored(tmp_path, text=text)[1])


def test_missing_files(tmp_path):
    path, ids = stored(tmp_path)
    with pytest.raises(ValueError, match="found none"):
        load_features(tmp_path / "x.npy", ids)
    with pytest.raises(ValueError, match="found no file"):
        load_features(path, tmp_path / "x.txt")


def test_rows_for():
    np.testing.assert_array_equal(rows_for(["d", "a.jpg", "d"], IDS), [3, 0, 3])
    assert rows_for([], IDS).dtype == np.int64
    with pytest.raises(ValueError, match=r"5 ids, found none for 4 \('w', 'x', 'y', \.\.\.\)"):
        rows_for(["w", "x", "d", "y", "z"], IDS)
    with pytest.raises(ValueError, match="'a' twice"):
        rows_for(["b"], ["a", "b", "a"])


HEADER = "index,unique_id,extra,category,photo,split"


def concepts(tmp_path, *lines, header=HEADER):
    path = tmp_path / "c.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return load_concepts(path)


def test_concepts(tmp_path):
    found = concepts(tmp_path, '1,"b, c",?,,,tune', "0,a,?,animal,a.jpg,train")
    assert [concept.unique_id for concept in found] == ["a", "b, c"]
    assert (found[0].category, found[0].photo, found[0].split, found[0].index) == (
        "animal",
        "a.jpg",
        "train",
        0,
    )
    assert (found[1].category, found[1].photo) == ("", "")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0,a,,,,train", "2,b,,,,train"], "found none for 1"),
        (["1,a,,,,train", "2,b,,,,train"], "found none for 0"),
        (["0,a,,,,train", "0,b,,,,train"], "each index once, found 0 twice"),
        (["0,a,,,,train", "1,a,,,,train"], "each unique_id once, found 'a' twice"),
        (["0,a,,,x.jpg,train", "1,b,,,x.jpg,train"], "each photo once"),
        (["0,a,,,train"], "line 2"),
        (["0,a,,,,train,more"], "line 2"),
        (["-1,a,,,,train"], "found '-1'"),
        (["0.0,a,,,,train"], "found '0.0'"),
        (["²,a,,,,train"], "whole number"),
        (["0,,,,,train"], "a unique_id and a split"),
        (["0,a,,,,"], "a unique_id and a split"),
        ([], "found none"),
    ],
)
def test_bad_concepts(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        concepts(tmp_path, *lines)


def test_concepts_without_a_column_or_a_file(tmp_path):
    with pytest.raises(ValueError, match="found no category, split among index"):
        concepts(tmp_path, header="index,unique_id,photo")
    with pytest.raises(ValueError, match="found no file"):
        load_concepts(tmp_path / "none.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match="among none"):
        load_concepts(tmp_path / "empty.csv")
