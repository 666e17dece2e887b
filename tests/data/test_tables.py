"""Plain tables: what is found by an image's id, and what is refused."""

import pytest

from alignet.data.tables import column_for, read_column


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_header_shows_the_separator(tmp_path, separator, mark):
    path = tmp_path / "t.csv"
    lines = [["photo", "label"], ["a.jpg", "dog"], ["b.jpg", '"cat,\tsmall; shy"']]
    path.write_text(mark + "\n".join(separator.join(line) for line in lines), encoding="utf-8")
    assert column_for(path, ["b.jpg", "a.jpg"], "label", id_column="photo") == ["cat,\tsmall; shy", "dog"]
    path.write_text(mark + "label\ndog, domestic\n".replace(",", ""), encoding="utf-8")
    assert read_column(path, "label") == ["dog domestic"]


def test_a_column_that_is_there_decides_and_must_be_there_once(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id;words, many, of them\na;b\n")
    assert read_column(path, "id") == ["a"]
    path.write_text("id,id,label\na,b,c\n")
    assert read_column(path, "label") == ["c"]
    with pytest.raises(ValueError, match="expected each column once, found 'id' twice"):
        read_column(path, "id")


def test_values_come_by_id_behind_a_prefix_and_blank_ids_are_passed_over(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeffphoto,label\na.jpg,dog\n,none\n\nb.jpg,"cat, small"\n,none\n', encoding="utf-8")
    assert column_for(path, ["x/b.jpg", "x/a.jpg"], "label", id_column="photo", id_prefix="x/") == [
        "cat, small",
        "dog",
    ]
    assert read_column(path, "label") == ["dog", "none", "cat, small", "none"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"id,label\na,1\na,2\nb,3\n",
            "expected one row for each id, found two of 'a'; take one of them out",
        ),
        (b"id,label\na,1\nb\n", "expected 2 cells in every row, as in the header, found 1 in line 3"),
        (b"id,label\na,1,2\nb,2\n", "expected 2 cells in every row, as in the header, found 3 in line 2"),
        (
            "id,label\na,1\n".encode("utf-16"),
            "header as text in UTF-8, found other bytes .*UTF-16",
        ),
        (b"id,label\na,1\n", "found none for 1 of 2, the first b"),
        (b"id,kind\na,1\n", "expected a column label, found id, kind"),
        (b"id,label\n", "expected a column id, found no rows"),
        (b"", "expected a column id, found no rows"),
        (None, "expected a table with a header, found no file"),
    ],
)
def test_damaged_tables_are_one_clear_message(tmp_path, content, message):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        column_for(path, ["a", "b"], "label")
    assert "\n" not in str(error.value)
