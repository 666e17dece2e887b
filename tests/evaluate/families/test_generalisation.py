"""Labels of images from a table: several of one image, and the rule for which counts."""

import pytest

from alignet.evaluate.families.generalisation import table_labels

WIDE = "photo,animal,food\na.jpg,1,0\nb.jpg,1,1\nc.jpg,0,0\n"
LONG = "photo,label\na.jpg,animal\nb.jpg,animal\nb.jpg,food\nc.jpg,\n"
IDS = ["things/b.jpg", "things/a.jpg", "things/c.jpg"]
NAMING = {"labels": "table", "id_column": "photo", "id_prefix": "things/"}


@pytest.mark.parametrize(
    ("rule", "of_b", "said"),
    [
        ("first", "animal", "of which the first counts"),
        ("most_specific", "food", "of which the one with the fewest members counts"),
        ("all", "animal | food", "which all count"),
        ("leave_out", "", "and are left out"),
    ],
)
@pytest.mark.parametrize(("text", "label"), [(WIDE, "0/1"), (LONG, "label")])
def test_images_of_several_labels_follow_the_rule(text, label, rule, of_b, said, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    labels, note = table_labels(tmp_path / "t.csv", IDS, NAMING | {"label": label, "several": rule})
    assert labels.tolist() == [of_b, "animal", ""]
    assert note == f"1 of 3 have several categories, {said}"


def test_an_image_without_a_row_is_told(tmp_path):
    (tmp_path / "t.csv").write_text(WIDE)
    options = NAMING | {"label": "0/1", "several": "first"}
    with pytest.raises(ValueError, match=r"found none for 1 of 1, the first things/d\.jpg"):
        table_labels(tmp_path / "t.csv", ["things/d.jpg"], options)
