"""THINGS' own table of concepts: tab-separated, its rows in the order that choices count."""

import pytest

from alignet.data.concepts import load_concepts

HEAD = "Word\tuniqueID\tWordNet ID\n"


def test_rows_are_objects_in_their_order_with_photographs_by_name(tmp_path):
    path = tmp_path / "things_concepts.tsv"
    path.write_text(HEAD + "zebra\tzebra\tn1\nbat\tbat1\tn2\nbat\tbat2\tn3\n")
    found = load_concepts(path)
    assert [(one.index, one.unique_id, one.photo) for one in found] == [
        (0, "zebra", "zebra.jpg"),
        (1, "bat1", "bat1.jpg"),
        (2, "bat2", "bat2.jpg"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Word,uniqueID\nbat,bat1\n", "expected a column uniqueID"),
        (HEAD + "bat\tbat1\tn2\nbat\tbat1\tn3\n", "each unique_id once, found 'bat1' twice"),
        (HEAD + "bat\t\tn2\n", "expected a uniqueID on line 2"),
        (HEAD, "at least one concept"),
    ],
)
def test_damage_is_named(tmp_path, text, message):
    path = tmp_path / "things_concepts.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_concepts(path)
