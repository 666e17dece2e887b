"""Things of several categories: a column, a long table, columns of 0 and 1; and the rule for which of them counts."""

import numpy as np
import pytest

from alignet.data.categories import one_each, read_categories
from alignet.data.hierarchy import UNKNOWN, table_hierarchy

CELLS = """unique_id,category
carrot,"plant, vegetable"
fern,plant
oak,plant
leek,vegetable
dog,animal
stone,
"""
LONG = """category\tuniqueID\tWord
plant\tcarrot\tcarrot
animal\tdog\tdog
plant\tfern\tfern
plant\toak\toak
vegetable\tcarrot\tcarrot
vegetable\tleek\tleek
"""
WIDE = """uniqueID\tWord\tanimal\tplant\tvegetable
carrot\tcarrot\t0\t1\t1
dog\tdog\t1\t0\t0
fern\tfern\t0\t1\t0
oak\toak\t0\t1\t0
leek\tleek\t0\t0\t1
stone\tstone\t0\t0\t0
"""
EXPECTED = {
    "carrot": ("plant", "vegetable"), "dog": ("animal",), "fern": ("plant",), "oak": ("plant",), "leek": ("vegetable",)
}  # fmt: skip
FORMS = {
    "a column": (CELLS, "unique_id", "category"),
    "long": (LONG, "uniqueID", "category"),
    "wide": (WIDE, "uniqueID", "0/1"),
}


def written(tmp_path, text):
    path = tmp_path / "categories.tsv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_the_three_forms_say_the_same(form, tmp_path):
    text, id_column, column = FORMS[form]
    found = read_categories(written(tmp_path, text), id_column, column, {}, rows_differ=True)
    assert {name: several for name, several in found.items() if several} == EXPECTED
    assert found.get("stone", ()) == ()


@pytest.mark.parametrize(
    ("rule", "chosen", "said"),
    [
        ("first", "plant", "of which the first counts"),
        ("most_specific", "vegetable", "of which the one with the fewest members counts"),  # 2 against 3
        ("all", "plant | vegetable", "which all count"),
        ("leave_out", "", "and are left out"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_the_rule_decides_and_is_counted(form, rule, chosen, said, tmp_path):
    text, id_column, column = FORMS[form]
    path = written(tmp_path, text)
    found = table_hierarchy(
        path, class_=id_column, basic=id_column, superordinate=column, merge={}, several=rule
    )
    assert found.superordinate["carrot"] == chosen
    assert {name: found.superordinate[name] for name in ("dog", "fern", "leek")} == {
        "dog": "animal",
        "fern": "plant",
        "leek": "vegetable",
    }
    assert found.note == f"1 of {len(found.superordinate)} have several categories, {said}"


def test_merging_comes_before_the_rule(tmp_path):
    path = written(tmp_path, CELLS)
    found = read_categories(path, "unique_id", "category", {"vegetable": "plant"}, rows_differ=True)
    assert found["carrot"] == ("plant",)
    assert one_each(found, "leave_out") == (
        {name: (several or ("",))[0] for name, several in found.items()},
        "",
    )


def test_without_a_rule_rows_that_differ_are_refused_and_the_option_is_named(tmp_path):
    names = {"class_": "uniqueID", "basic": "uniqueID", "superordinate": "category", "merge": {}}
    with pytest.raises(
        ValueError, match=r"found plant and vegetable for 'carrot'; .* several=first\|most_specific"
    ):
        table_hierarchy(written(tmp_path, LONG), **names)
    with pytest.raises(ValueError, match=r"several: expected one of first, .*, found 'last'"):
        table_hierarchy(written(tmp_path, LONG), **names, several="last")


def test_a_table_without_columns_of_0_and_1_is_told(tmp_path):
    path = written(tmp_path, CELLS)
    with pytest.raises(
        ValueError, match=r"expected a column of 0 and 1 for each category, found none among unique_id"
    ):
        read_categories(path, "unique_id", "0/1", {}, rows_differ=True)


def test_where_all_count_one_in_common_relates(tmp_path):
    path = written(tmp_path, WIDE)
    names = {"class_": "uniqueID", "basic": "uniqueID", "superordinate": "0/1", "merge": {}}
    things = ["carrot", "fern", "leek", "dog", "stone"]
    levels = table_hierarchy(path, **names, several="all").levels(things)
    first, second = np.triu_indices(5, k=1)
    found = dict(zip(zip(first.tolist(), second.tolist()), levels.relation(first, second).tolist()))
    for (i, j), relation in found.items():
        of = [set(EXPECTED.get(things[row], ())) for row in (i, j)]
        expected = UNKNOWN if not all(of) else 2 if of[0] & of[1] else 3
        assert relation == expected, (things[i], things[j])
    assert levels.pick(np.array([0])).note == levels.note
