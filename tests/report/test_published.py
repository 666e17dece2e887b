"""The paper's tables: sums over their columns, what is marked, and a run's rows beside them."""

import csv
import io

import pytest

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report.blocks import Table
from alignet.report.dataset_results import SETTINGS, Gathered, Row
from alignet.report.files import table_csv
from alignet.report.published import TABLES, TEACHER, published_blocks

SUMS = {  # key -> sum over models of original, distillation, UD, AligNet, as printed
    "cichy": (1.860, 3.238, 4.369, 5.226),
    "king": (1.934, 2.968, 3.102, 4.628),
    "things": (335.05, 337.55, 441.46, 427.98),
    "peterson_coarse": (1.970, 3.004, 3.519, 4.867),
    "peterson_fine": (2.433, 3.066, 2.533, 3.319),
    "levels_coarse": (361.56, 383.22, 455.93, 472.20),
    "levels_fine": (418.80, 402.92, 411.68, 424.77),
    "levels_boundary": (697.21, 640.01, 723.25, 656.35),
}
COLUMNS = {column.key: column for printed in TABLES for column in printed.columns}


@pytest.mark.parametrize("key", SUMS)
def test_every_column_sums_to_what_the_printed_one_does(key):
    for place, total in enumerate(SUMS[key]):
        values = [row[place] for row in COLUMNS[key].values.values() if row[place] is not None]
        assert sum(values) == pytest.approx(total, abs=1e-9)


def test_the_tables_have_the_papers_models_and_gaps():
    assert set(SUMS) == set(COLUMNS)
    missing = {
        (key, model, setting)
        for key, column in COLUMNS.items()
        for model, row in column.values.items()
        for setting, value in zip(SETTINGS, row, strict=True)
        if value is None
    }
    teacher = {
        (key, TEACHER, setting)
        for key, column in COLUMNS.items()
        if TEACHER in column.values
        for setting in ("distillation", "alignet")
    }
    assert missing == teacher | {("king", "DINOv2 ViT-B", "ud")}
    assert {len(column.values) for key, column in COLUMNS.items() if key.startswith("peterson")} == {7}


@pytest.mark.parametrize("printed", TABLES, ids=lambda printed: f"table {printed.number}")
def test_a_dagger_marks_the_best_of_a_data_set_and_every_best(printed):
    for column in printed.columns:
        best = max(value for row in column.values.values() for value in row if value is not None)
        marked = {
            (model, setting, column.key)
            for model, row in column.values.items()
            for setting, value in zip(SETTINGS, row, strict=True)
            if value == best
        }
        assert marked == {entry for entry in printed.daggers if entry[2] == column.key}


def gathered(name, metric="odd_one_out", dataset=None):
    def result(value):
        return Result(
            [Score(metric, dataset or name, value, value - 0.02, value + 0.02, 100, "triplets", "objects")]
        )

    rows = {Row("student", setting): result(0.5 + place / 10) for place, setting in enumerate(SETTINGS)}
    rows[Row("teacher", "original")] = result(0.4)
    rows[Row("baseline", "raw pixels")] = result(0.3)
    return Gathered(name, "odd_one_out", {}, rows)


def tables(blocks):
    return [block for block in blocks if isinstance(block, Table)]


def test_rows_of_a_run_stand_below_the_printed_ones_and_are_told_apart():
    first, _, third = tables(published_blocks([gathered("mine")], {"things": "mine"}, "this run"))
    assert [len(row) for row in first.rows] == [13] * 10
    assert [row[0].text for row in first.rows[-2:]] == ["student, this run", "teacher, this run"]
    assert [cell.text for cell in first.rows[-2][9:]] == [
        "50.00 [48.00, 52.00]", "60.00 [58.00, 62.00]", "70.00 [68.00, 72.00]", "80.00 [78.00, 82.00]",
    ]  # fmt: skip
    assert all(cell.published for row in first.rows[:-2] for cell in row)
    assert not any(cell.published for row in first.rows[-2:] for cell in row)
    assert first.rows[7][9].text == "44.24"
    assert first.rows[6][12].text == "62.54 †"
    assert first.rows[6][12].best
    assert "Data sets of this run: THINGS: `mine`." in first.caption
    assert len(third.rows) == 8  # nothing of this run is named for Levels


def test_several_data_sets_are_averaged_and_levels_are_found_by_name():
    both = [
        gathered("set1", "rsa_spearman"),
        gathered("set2", "rsa_spearman"),
        gathered("levels", dataset="levels fine"),
    ]
    named = {"king": ["set1", "set2"], "levels": "levels"}
    first, _, third = tables(published_blocks(both, named, "this run"))
    assert first.rows[-2][5].text == "0.500"
    (note,) = [note for note in first.notes if "no interval" in note]
    assert note.startswith("King et al. [2019], this run: the mean of the scores of `set1` and `set2`.")
    assert third.rows[-2][5].text == "50.00 [48.00, 52.00]"
    assert third.rows[-2][1].text == ""


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"thing": "mine"}, r"report\.published: expected keys out of cichy, .* found 'thing'"),
        (
            {"things": "yours"},
            r"report\.published\.things: expected one of the data sets mine, found 'yours'",
        ),
    ],
)
def test_names_that_nobody_knows_are_refused(named, message):
    with pytest.raises(ValueError, match=message):
        published_blocks([gathered("mine")], named, "this run")


def test_the_files_hold_what_is_printed_and_name_units():
    first, second, third = tables(published_blocks([gathered("mine")], {"things": "mine"}, "this run"))
    lines = list(csv.DictReader(io.StringIO(table_csv(first))))
    assert lines[0]["Cichy et al. [2019] distillation, rho"] == "0.520"
    assert lines[0]["THINGS distillation, %"] == "49.97"
    assert lines[6]["THINGS AligNet, %"] == "62.54"  # no dagger
    assert lines[5]["King et al. [2019] UD, rho"] == "–"
    assert float(lines[-2]["THINGS original, %"]) == 50
    assert float(lines[-2]["THINGS original, % low"]) == 48
    for table in (second, third):
        assert all("," in name for name in next(csv.reader(io.StringIO(table_csv(table))))[1:])
    assert (
        len({column.title for column in COLUMNS.values()}) == 6
    )  # short; the table's title says whose they are
