"""The two usual orders of objects: a planted one is found from choices, the wrong one named, nothing silent."""

import numpy as np
import pytest

from alignet.data.object_order import by_sorted_files, numbering
from alignet.vice.object_order import compare_readings, in_table_order, sorted_rows

# in the table's order, as THINGS': file names sort "camera1.jpg" before "camera.jpg" is reached
NAMES = [f"{letter}{number}" for letter in "mnopqrst" for number in range(6)]
NAMES = [
    *NAMES,
    "camera",
    "camera1",
    "camera2",
    "crystal1",
    "crystal2",
    "hot",
    "hot-air_balloon",
    "ice",
    "ice_cream",
]


def planted(seed=0, n=2000):
    """An embedding in the table's order, and choices that follow it."""
    generator = np.random.default_rng(seed)
    loc = generator.exponential(size=(len(NAMES), 6)).astype(np.float32)
    triplets = np.stack([generator.permutation(len(NAMES))[:3] for _ in range(n)])
    gram = loc @ loc.T
    for row, (a, b, c) in enumerate(triplets):
        odd = np.argmax([gram[b, c], gram[a, c], gram[a, b]])
        triplets[row] = [*np.delete([a, b, c], odd), [a, b, c][odd]]
    return loc, triplets


def stored(loc):
    """The same embedding as a file has it whose rows follow the sorted names of photographs."""
    return loc[np.argsort(sorted_rows(NAMES))]


def test_rows_of_sorted_files_by_hand():
    assert sorted_rows(["b", "a1", "a"]).tolist() == [2, 1, 0]  # "a.jpg" < "a1.jpg" < "b.jpg"
    assert sorted_rows(["ice-x", "ice"]).tolist() == [0, 1]  # "-" stands before "."
    loc = planted()[0]
    np.testing.assert_array_equal(stored(loc)[sorted_rows(NAMES)], loc)


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_order_is_found_from_two_thousand_choices(seed):
    loc, triplets = planted(seed)
    rows, said = in_table_order(loc, NAMES, None, None, triplets, "e.npy")
    assert rows.tolist() == list(range(len(NAMES)))
    assert "table foretells 100.0%" in said
    with pytest.raises(ValueError, match=r"the other: .*100\.0%.*published_order=sorted_files") as caught:
        in_table_order(stored(loc), NAMES, None, None, triplets, "e.npy")
    assert any(name in str(caught.value) for name in ("camera", "hot", "m0"))
    files = by_sorted_files(NAMES)
    rows, _ = in_table_order(stored(loc), NAMES, "sorted_files", files, triplets, "e.npy")
    np.testing.assert_array_equal(stored(loc)[rows], loc)
    with pytest.raises(ValueError, match=r"set vice\.published_order=table"):
        in_table_order(loc, NAMES, "sorted_files", files, triplets, "e.npy")


def test_an_order_of_names_is_held_against_both_usual_ones(tmp_path):
    loc, triplets = planted()
    own = np.random.default_rng(2).permutation(len(NAMES))
    table, listed = tmp_path / "objects.csv", tmp_path / "file_names.txt"
    table.write_text(
        "index,unique_id,category,photo,split\n"
        + "".join(f"{row},{name},,,train\n" for row, name in enumerate(NAMES))
    )
    listed.write_text("".join(f"things/{NAMES[row]}/{NAMES[row]}_01b.jpg\n" for row in own))
    numbered = numbering("listed", table, listed)
    np.testing.assert_array_equal(numbered, own)
    rows, said = in_table_order(loc[own], NAMES, "listed", numbered, triplets, "e.npy")
    np.testing.assert_array_equal(loc[own][rows], loc)
    assert said.count("listed foretells 100.0%") == 2
    with pytest.raises(ValueError, match=r"the order listed, .*set vice\.published_order=table"):
        in_table_order(loc, NAMES, "listed", numbered, triplets, "e.npy")
    listed.write_text(listed.read_text() + "things/unicorn/unicorn_01b.jpg\n")
    with pytest.raises(ValueError, match=r"expected each of the \d+ objects .* once, .*unicorn"):
        numbering("listed", table, listed)


def test_random_choices_speak_for_neither():
    loc, triplets = planted()
    shuffled = np.random.default_rng(1).permuted(triplets, axis=1)
    found = compare_readings(stored(loc), shuffled, sorted_rows(NAMES)[shuffled], 9)
    assert abs(found.z) < 3
    rows, said = in_table_order(stored(loc), NAMES, None, None, shuffled, "e.npy")
    assert rows.tolist() == list(range(len(NAMES)))
    assert "choices about the" in said


def test_without_choices_what_is_assumed_is_said_and_without_a_difference_nothing():
    loc, _ = planted()
    rows, said = in_table_order(loc, NAMES, None, None, None, "e.npy")
    assert rows.tolist() == list(range(len(NAMES)))
    assert "set vice.published_order to table, sorted_files or a table of names" in said
    assert in_table_order(loc, NAMES, "table", np.arange(len(NAMES)), None, "e.npy")[1] == ""
    assert in_table_order(loc[:3], ["a", "b", "c"], None, None, None, "e.npy")[1] == ""
