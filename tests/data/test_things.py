"""The table of THINGS gives the triplets that an array of them gives; its ceiling equals counting by hand."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest

from alignet.data.things import repeated_ceiling
from alignet.data.triplets import load_triplets, save_triplets

ODD_LAST = np.array([[0, 1, 2], [3, 1, 0], [2, 3, 1], [0, 2, 3]])
SETS = [0, 1, 0, 2]
HEADER = ("image1", "image2", "image3", "choice", "subject_id", "noise_ceiling")


def rows(base=1):
    """The same choices as people saw them: the odd one out at any place, its place as `choice`."""
    for number, ((first, second, odd), part) in enumerate(zip(ODD_LAST + base, SETS)):
        shown = [first, second]
        place = number % 3
        shown.insert(place, odd)
        yield [*shown, place + 1, f"person {number}", part]


def table(path, separator="\t", lines=None, header=HEADER):
    lines = [list(header), *(list(rows()) if lines is None else lines)]
    path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines))
    return path


def load(path, **options):
    return load_triplets(path, **({"objects": 4, "index_base": 1, "odd_one": "choice"} | options))


@pytest.mark.parametrize(
    ("name", "separator"), [("t.csv", "\t"), ("t.csv", ","), ("t.tsv", "\t"), ("t.csv", ";")]
)
def test_a_table_equals_the_array(tmp_path, name, separator):
    found = load(table(tmp_path / name, separator))
    np.testing.assert_array_equal(np.sort(found[:, :2]), np.sort(ODD_LAST[:, :2]))
    np.testing.assert_array_equal(found[:, 2], ODD_LAST[:, 2])
    save_triplets(tmp_path / "t.txt", found)
    save_triplets(tmp_path / "t.npy", found)
    for other in ("t.txt", "t.npy"):
        same = load(tmp_path / other, index_base=0, odd_one="last")
        assert same.dtype == found.dtype
        np.testing.assert_array_equal(same, found)


def test_rows_are_selected_by_number_and_by_text(tmp_path):
    path = table(tmp_path / "t.csv")
    whole = load(path)
    np.testing.assert_array_equal(load(path, where={"noise_ceiling": [0]}), whole[[0, 2]])
    np.testing.assert_array_equal(load(path, where={"noise_ceiling": [1, 2]}), whole[[1, 3]])
    both = {"noise_ceiling": [0], "subject_id": ["person 2", "person 3"]}
    np.testing.assert_array_equal(load(path, where=both), whole[[2]])
    other_way = [[*line[:-1], f"{line[-1]}.0"] for line in rows()]
    floats = table(tmp_path / "floats.csv", lines=other_way)
    np.testing.assert_array_equal(load(floats, where={"noise_ceiling": [0]}), whole[[0, 2]])


def test_quoted_fields_and_a_mark_of_the_byte_order(tmp_path):
    quoted = [[*line[:4], f'"a, {line[4]}"', line[5]] for line in rows()]
    path = table(tmp_path / "t.csv", ",", quoted, [f'"{name}"' for name in HEADER])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    np.testing.assert_array_equal(load(path), load(table(tmp_path / "u.csv")))
    assert len(load(path, where={"subject_id": ["a, person 1"]})) == 1


def changed(row, column, value):
    lines = list(rows())
    lines[row][column] = value
    return lines


BAD = {
    "0-based": (list(rows(0)), {}, "set index_base to 0"),
    "1-based as 0": (None, {"index_base": 0}, "set index_base to 1"),
    "beyond": (changed(1, 0, 9), {}, r"0\.\.3, found 0\.\.8"),
    "choice 0": (changed(2, 3, 0), {}, "choice of 1, 2 or 3.*found 0 on line 4"),
    "choice 4": (changed(2, 3, 4), {}, "found 4 on line 4"),
    "NaN": (changed(3, 1, "nan"), {}, "whole number in column image2 on line 5, found nan"),
    "a fraction": (changed(3, 1, "1.5"), {}, "column image2 on line 5, found 1.5"),
    "a word": (changed(3, 1, "cat"), {}, "expected numbers in the columns image1.*'cat'"),
    "nothing": (changed(3, 1, ""), {}, "expected numbers in the columns"),
    "a short line": ([*list(rows())[:3], [1, 2, 3]], {}, "expected 6 columns on line 5, found 3"),
    "a long line": ([*list(rows())[:3], [*HEADER, 1]], {}, "expected 6 columns on line 5, found 7"),
    "a short quoted line": ([["1", "2", '"3"']], {}, "expected 6 columns on line 2, found 3"),
    "no rows": ([], {}, "at least one triplet"),
    "none selected": (None, {"where": {"noise_ceiling": [7]}}, r"noise_ceiling in \[7\], found none among 4"),
    "no such column": (None, {"where": {"set": [0]}}, "a column set.*found image1, image2.*noise_ceiling"),
    "text by number": (None, {"where": {"subject_id": [0]}}, "select by text"),
    "two kinds": (None, {"where": {"subject_id": [0, "a"]}}, "one kind"),
    "an empty list": (None, {"where": {"subject_id": []}}, "expected a list of values"),
    "last": (None, {"odd_one": "last"}, "odd_one to be choice for a table, found 'last'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables(tmp_path, case):
    lines, options, message = BAD[case]
    path = table(tmp_path / "t.csv", lines=lines)
    with pytest.raises(ValueError, match=message) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


def test_headers_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="found no choice among image1, image2, image3, odd"):
        load(table(tmp_path / "t.csv", header=("image1", "image2", "image3", "odd", "a", "b")))
    with pytest.raises(ValueError, match="'a' twice"):
        load(table(tmp_path / "t.csv", header=("image1", "image2", "image3", "choice", "a", "a")))
    with pytest.raises(ValueError, match="found no image1"):
        load(table(tmp_path / "t.csv", header=()))
    (tmp_path / "t.csv").write_bytes(b"image1,image2,image3,choice\n\xff,2,3,1\n")
    with pytest.raises(ValueError, match=r"UTF-8|expected numbers"):
        load(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="found none; check the path"):
        load(tmp_path / "nowhere.csv")


def test_an_array_has_no_columns(tmp_path):
    save_triplets(tmp_path / "t.npy", ODD_LAST)
    with pytest.raises(ValueError, match="no `where` for an array"):
        load(tmp_path / "t.npy", index_base=0, odd_one="last", where={"noise_ceiling": [0]})
    with pytest.raises(ValueError, match="last, first or middle for an array"):
        load(tmp_path / "t.npy", index_base=0)


def test_many_lines_in_small_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("alignet.data.things._CHUNK", 7)
    lines = list(rows()) * 50
    path = table(tmp_path / "t.csv", lines=lines)
    np.testing.assert_array_equal(load(path), np.tile(load(table(tmp_path / "u.csv")), (50, 1)))
    lines[123] = [1, 2]
    with pytest.raises(ValueError, match="on line 125, found 2"):
        load(table(path, lines=lines))


def by_hand(triplets):
    """Counting, one answer at a time."""
    answers = defaultdict(list)
    for first, second, odd in triplets.tolist():
        answers[frozenset((first, second, odd))].append(odd)
    share, leave, tied = [], [], []
    for given in answers.values():
        if len(given) < 2:
            continue
        counts = Counter(given)
        share.append(max(counts.values()) / len(given))
        tied.append(list(counts.values()).count(max(counts.values())) > 1)
        right = 0
        for position, answer in enumerate(given):
            others = Counter(given[:position] + given[position + 1 :])
            modes = [odd for odd, count in others.items() if count == max(others.values())]
            right += modes == [answer]
        leave.append(right / len(given))
    return np.array(share), np.array(leave), np.array(tied)


@pytest.mark.parametrize("seed", [0, 1])
def test_ceiling_by_hand(seed):
    rng = np.random.default_rng(seed)
    kinds = np.array(list(itertools.combinations(range(6), 3)))[rng.integers(0, 20, 130)]
    triplets = rng.permuted(kinds, axis=1)
    triplets = np.concatenate([triplets, [[6, 7, 8]]])
    found = repeated_ceiling(triplets)
    share, leave, tied = by_hand(triplets)
    assert (found.triplets, found.answers, found.ties) == (len(share), 130, tied.sum())
    assert found.single == 1
    np.testing.assert_allclose(
        [found.share, found.share_untied, found.leave_one_out, found.leave_one_out_untied],
        [share.mean(), share[~tied].mean(), leave.mean(), leave[~tied].mean()],
        rtol=1e-12,
    )
    assert 0 < found.ties < found.triplets


def test_ceiling_of_closed_cases():
    agreed = np.array([[0, 1, 2], [1, 0, 2], [0, 1, 2]])
    assert repeated_ceiling(agreed).share == repeated_ceiling(agreed).leave_one_out == 1
    split = np.array([[0, 1, 2], [0, 2, 1]])  # two people, two answers
    found = repeated_ceiling(split)
    assert (found.ties, found.share, found.leave_one_out) == (1, 0.5, 0)
    assert np.isnan(found.share_untied)
    with pytest.raises(ValueError, match="answered at least twice, found 1 answered once"):
        repeated_ceiling(agreed[:1])


def test_ceiling_recovers_what_was_planted():
    """People who give the first answer with probability .7: leaving one out finds it, at random it is a third."""
    rng = np.random.default_rng(0)
    base = np.array(list(itertools.combinations(range(20), 3)))[:400]
    for chances, expected in (((0.7, 0.15, 0.15), 0.7), ((1 / 3, 1 / 3, 1 / 3), 1 / 3)):
        odd = rng.choice(3, p=chances, size=(400, 51))
        order = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[odd]
        triplets = np.take_along_axis(np.repeat(base[:, None], 51, 1), order, axis=2).reshape(-1, 3)
        found = repeated_ceiling(triplets)
        assert found.share >= found.leave_one_out
        assert abs(found.leave_one_out - expected) < (0.02 if expected > 0.5 else 0.08)
