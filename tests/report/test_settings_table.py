"""The table of settings: what it marks, closes, splits, footnotes and refuses."""

import json
import re

import pytest

from alignet.evaluate.bootstrap import Score
from alignet.report.seeds_table import seeds_table
from alignet.report.settings_table import (
    Row,
    distance_closed,
    measures,
    settings_json,
    settings_markdown,
    settings_table,
)


def score(
    value, *, metric="odd_one_out", dataset="all", ceiling=0.75, n=20_000, note="", chance=1 / 3, low=0.02
):
    bounds = (value - low, value + low) if low is not None else (None, None)
    return Score(metric, dataset, value, *bounds, n, "triplets", "concepts", chance, ceiling, note)


def rows(**changed):
    values = {
        ("baseline", "pixels"): 0.36, ("teacher", "original"): 0.62, ("teacher", "ud"): 0.6905,
        ("student", "original"): 0.475, ("student", "ud"): 0.605, ("student", "alignet"): 0.671,
    }  # fmt: skip
    return [Row(*key, [score(value, **changed)]) for key, value in values.items()]


def line(text, start):
    return next(entry for entry in text.splitlines() if re.match(start, entry))


def test_text_marks_the_best_student_and_closes_the_summary():
    text = settings_table(rows(note="ceiling exact"), title="SYNTHETIC WORLD", notes=["four minutes"])
    assert text.startswith("SYNTHETIC WORLD\n")
    assert text.endswith("four minutes\n")
    assert line(text, r"student +alignet").split() == ["student", "alignet", "67.1*", "[65.1,", "69.1]"]
    assert text.count("*") == 2  # the best student row and its legend; the teacher's 69.05 is not marked
    assert line(text, "closed by alignet").split()[-1] == "71"
    assert line(text, "closed by ud").split()[-1] == "47"
    assert text.count("closed by") == 2  # the original has nothing to close
    assert line(text, "noise ceiling").split()[-1] == "75.0"
    assert line(text, "chance").split()[-1] == "33.3"
    assert line(text, "n ").split() == ["n", "20,000", "triplets"]
    assert "95% bootstrap interval over concepts" in text
    assert "(a) ceiling exact" in text


def test_numbers_of_a_column_stand_below_each_other():
    text = settings_table(rows())
    points = {
        entry.index(".")
        for entry in text.splitlines()
        if re.match(r"(baseline|teacher|student|noise)", entry)
    }
    assert len(points) == 1


def test_equal_printed_values_share_the_mark_and_a_lone_student_row_has_none():
    tied = [*rows(), Row("student", "distillation", [score(0.67104)])]
    assert settings_table(tied).count("67.1*") == 2
    assert "*" not in settings_table(rows()[:4]).split("best student")[0].rstrip("* \n")


def test_wide_tables_are_split_with_a_metric_kept_together():
    many = []
    for row in rows():
        value = row.scores[0].value
        extra = [score(value, dataset=name) for name in ("coarse", "unjudged")]
        extra += [
            score(value, metric="odd_one_out_cosine", dataset=name) for name in ("all", "coarse", "unjudged")
        ]
        many.append(Row(row.model, row.setting, [*row.scores, *extra]))
    text = settings_table(many, width=100)
    assert max(len(entry) for entry in text.splitlines()) <= 100
    heads = [entry.split() for entry in text.splitlines() if entry.startswith("model")]
    assert heads == [["model", "setting", "all", "coarse", "unjudged"]] * 2
    assert (
        len([entry for entry in settings_table(many, width=40).splitlines() if entry.startswith("model")])
        == 6
    )


def test_notes_say_the_common_part_once_and_name_the_rows_of_the_rest():
    noted = [
        Row("student", "original", [score(0.5, note="exact; tau = 2")], note="taught by nobody"),
        Row("student", "ud", [score(0.6, note="exact; tau = 3", n=7)]),
    ]
    text = settings_table(noted)
    assert "(a) taught by nobody" in text
    assert "(b) exact; student original: tau = 2; student ud: tau = 3, n = 7" in text
    assert "student  original (a)" in text
    assert "all (b)" in text


def test_metrics_without_interval_missing_cells_and_unknown_metrics():
    some = [
        Row("student", "original", [score(0.5), score(3.0, metric="ties", low=None)]),
        Row("student", "ud", [score(0.25, metric="new_thing", ceiling=None, chance=None, low=None)]),
    ]
    text = settings_table(some)
    assert "ties" not in text
    assert "new thing" in text
    assert line(text, r"student +ud").split() == ["student", "ud", "-", "0.250"]
    assert "ties" in settings_json(some)


def test_markdown_is_one_rectangular_table_with_the_best_in_bold():
    text = settings_markdown(rows(note="exact"), title="world")
    table = [entry for entry in text.splitlines() if entry.startswith("|")]
    assert len({entry.count("|") for entry in table}) == 1
    assert "**67.1** [65.1, 69.1]" in text
    assert "| *noise ceiling* |  | 75.0 |" in text
    assert "(a) exact" in text


def test_json_keeps_every_number_as_it_was():
    content = json.loads(settings_json(rows(), title="world", notes=["n"]))
    assert content["rows"][2]["model"] == "teacher"
    assert Score.from_json(content["rows"][2]["scores"][0]) == score(0.6905)
    assert (content["title"], content["notes"], content["level"]) == ("world", ["n"], 0.95)


def test_distance_closed():
    assert distance_closed(0.5, 0.5, 0.8) == 0
    assert distance_closed(0.5, 0.8, 0.8) == 1
    assert distance_closed(0.475, 0.671, 0.756) == pytest.approx(0.6975, abs=1e-4)
    assert distance_closed(0.5, 0.4, 0.7) == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="no distance to close"):
        distance_closed(0.5, 0.6, 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "at least one row"),
        ([*rows(), rows()[0]], r"\('baseline', 'pixels'\) twice"),
        ([Row("student", "ud", [score(0.5), score(0.6)])], "one twice in student ud"),
        (
            [*rows(), Row("student", "x", [score(0.5, ceiling=0.8)])],
            "one ceiling for all rows, found 0.7500, 0.8000",
        ),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        settings_table(wrong)


def report(original, alignet, ceiling):
    made = [
        Row("student", "original", [score(original, ceiling=ceiling)]),
        Row("student", "alignet", [score(alignet, ceiling=ceiling)]),
    ]
    return json.loads(settings_json(made, title="a world (seed 3)"))


def test_the_table_over_seeds_gives_mean_range_and_what_the_means_close():
    text = seeds_table([report(0.4, 0.6, 0.7), report(0.5, 0.7, 0.8)], [3, 4])
    assert text.startswith("a world: mean [least, largest] over seeds 3, 4\n")
    assert line(text, " +student +original").split()[2:] == ["45.0", "[40.0,", "50.0]"]
    assert line(text, " +student +alignet").split()[2:] == ["65.0", "[60.0,", "70.0]", "closed", "67%"]


def test_a_ceiling_below_the_original_is_no_distance_to_close():
    reports = [report(0.4, 0.6, 0.7), report(0.5, 0.7, 0.8)]
    for one in reports:
        for row in one["rows"]:
            row["scores"][0]["ceiling"] = 0.3
    assert "closed" not in seeds_table(reports, [0, 1])


def test_reports_of_other_rows_are_not_averaged():
    other = report(0.4, 0.6, 0.7)
    del other["rows"][1]
    with pytest.raises(ValueError, match="same rows and columns"):
        seeds_table([report(0.4, 0.6, 0.7), other], [0, 1])


def test_the_note_on_halves_says_when_a_fit_did_not_converge():
    from alignet.stages.report import _reliability

    halves = {"spearman": 0.85, "objects": 1620, "kept_first": 51, "kept_second": 45, "converged": 1}
    assert _reliability(halves).endswith("Spearman's rho 0.850 (51 and 45 dimensions kept)")
    assert "NOT CONVERGED" in _reliability(halves | {"converged": 0})
    assert "choices are too few" in _reliability(halves | {"spearman": None, "kept_first": 0})


def test_no_row_is_best_where_chance_is_within_reach_of_the_highest():
    def measured(value):
        return Score(
            "rsa_spearman", "c", value, value - 0.05, value + 0.05, 9, "pairs", "objects", chance=0.0
        )

    def found(high):
        rows = [
            Row("student", name, [measured(value)]) for name, value in (("original", -0.1), ("alignet", high))
        ]
        return measures(rows)[0][0].best

    assert found(0.04) == set()
    assert found(0.06) == {1}
