"""Shards read as one array would be, and rows as float32."""

import numpy as np
import pytest

import alignet.data.feature_blocks
from alignet.data.feature_blocks import Stacked, blocks, float32_rows

WHOLE = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float16)


def test_stacked_is_read_like_one_array():
    stacked = Stacked(np.split(WHOLE, [7, 7, 30]))  # the second is empty
    assert (len(stacked), stacked.shape, stacked.dtype, stacked.ndim) == (50, (50, 6), np.float16, 2)
    drawn = np.random.default_rng(1).integers(0, 50, 200)
    for rows in (slice(None), slice(5, 9), slice(40, 90), slice(3, 3), drawn, drawn[:0], np.arange(50)[::-1]):
        found = stacked[rows]
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, WHOLE[rows])


def test_shards_that_do_not_fit():
    with pytest.raises(ValueError, match="one width and dtype"):
        Stacked([WHOLE, WHOLE[:, :3]])
    with pytest.raises(ValueError, match="one width and dtype"):
        Stacked([WHOLE, WHOLE.astype(np.float32)])
    with pytest.raises(ValueError, match="none"):
        Stacked([])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_become_float32_and_are_mapped(dtype):
    rows = WHOLE.astype(dtype)[:, ::2]
    rows.flags.writeable = False
    found = float32_rows(rows)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, WHOLE[:, ::2])
    np.testing.assert_array_equal(float32_rows(rows, lambda given: given.T.T * 2), 2 * found)
    whole = np.ascontiguousarray(rows)
    whole.flags.writeable = False
    assert float32_rows(whole, lambda given: np.full_like(given, given.flags.writeable)).all()


def test_halves_of_every_kind():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    np.testing.assert_array_equal(float32_rows(values), values.astype(np.float32))


def test_blocks(monkeypatch):
    monkeypatch.setattr(alignet.data.feature_blocks, "BLOCK", 20)
    found = list(blocks(Stacked([WHOLE[:30], WHOLE[30:]])))
    assert [start for start, _ in found] == [0, 20, 40]
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in found]), WHOLE)
