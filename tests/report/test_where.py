"""Where networks look, on the page: tables say what scores say, the front by brute force, pictures, a written page."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result, read_result, write_result
from alignet.report.blocks import DARK, LIGHT, Figure, Pictures, Section, Table
from alignet.report.dataset_results import Gathered, Row
from alignet.report.page import Page, write_page
from alignet.report.scatter import pareto_front
from alignet.report.summary import summarise
from alignet.report.where import PEOPLE, PUBLISHED, published, where


def score(metric, value, dataset="clicks", **more):
    given = {
        "low": value - 0.03,
        "high": value + 0.03,
        "n": 40,
        "unit": "images",
        "over": "images",
        "chance": 0.0,
    }
    return Score(metric, dataset, value, **(given | more))


def jpeg(grey):
    content = io.BytesIO()
    Image.new("L", (8, 8), grey).save(content, "JPEG")
    return content.getvalue()


def result(value, accuracy, keys=("clicks",), photo=b"", centre=0.3):
    scores = []
    for name in keys:
        scores += [
            score("where", value, name, ceiling=0.5, note="reduction: max"), score("where_4x", value + 0.05, name),
            score("where_16x", value + 0.1, name), score("where_of_ceiling", value / 0.5, name, ceiling=1.0),
            score("centre_bias", centre, name), score("where_over_centre", value - centre, name),
            score("dice", 0.3, name, chance=0.1), score("iou", 0.2, name, chance=0.05), score("rollout", 0.39, name),
        ]  # fmt: skip
    scores.append(score("accuracy", accuracy, "clicks", chance=None))
    pictures = {
        "id": ["a.jpg", "b.jpg"], "key": ["k"] * 2, "spearman": [value, np.nan], "human": [jpeg(1), jpeg(2)],
        "model": [jpeg(3), jpeg(4)], "image": [photo, photo],
    }  # fmt: skip
    return Result(scores, {"pictures": pictures})


def gathered(**more):
    results = {
        PEOPLE: Result([score("centre_bias", 0.38, ceiling=0.5, note="itself left out"), score("split_half", 0.5)]),
        Row("student", "original"): result(0.2, 0.7, **more),
        Row("student", "harmonized"): result(0.45, 0.72, **more),
        Row("other", "original"): result(0.25, 0.5, **more),
    }  # fmt: skip
    return Gathered("clicks", "where", {}, results)


@pytest.mark.parametrize("seed", range(20))
def test_the_front_by_brute_force(seed):
    generator = np.random.default_rng(seed)
    n = generator.integers(1, 30)
    x, y = generator.integers(0, 8, (2, n)) / 7  # many ties
    expected = [
        not any((x[j] >= x[i] and y[j] >= y[i]) and (x[j] > x[i] or y[j] > y[i]) for j in range(n))
        for i in range(n)
    ]
    assert pareto_front(x, y).tolist() == expected


def test_the_front_of_nothing_is_empty_and_unfit_points_are_refused():
    assert pareto_front(np.zeros(0), np.zeros(0)).tolist() == []
    with pytest.raises(ValueError, match="Pareto front: expected two arrays"):
        pareto_front(np.zeros(2), np.array([0, np.nan]))
    with pytest.raises(ValueError, match="found shapes"):
        pareto_front(np.zeros(2), np.zeros(3))


def test_the_table_has_scores_controls_and_who_beats_the_centre():
    table, figure, pictures, printed = where([gathered()])
    assert isinstance(table, Table)
    assert table.header == [
        "", "Spearman's rho", "at 1/4", "at 1/16", "of the ceiling, %", "above the centre bias, rho", "Dice, top 10%",
        "IoU, top 10%", "attention rollout, rho", "accuracy, %",
    ]  # fmt: skip
    rows = {str(row[0]): row[1:] for row in table.rows}
    assert rows["student original"][0].text == "0.200 [0.170, 0.230]"
    assert rows["student Harmonizer"][3].text == "90.0 [87.0, 93.0]"
    assert rows["student Harmonizer"][0].best
    assert not rows["student original"][0].best
    assert rows["student original"][4].text == "-0.100 [-0.130, -0.070]"
    assert rows["centre bias of whole maps (control)"][0].text == "0.380 [0.350, 0.410]"
    assert rows["centre bias of whole maps (control)"][3].text == "76.0 [70.0, 82.0]"
    assert rows["people, split halves"][0].text == "0.500 [0.470, 0.530]"
    assert (
        "as the network saw them, 0.300: 1 of 3 rows is above it, 1 with an interval above 0."
        in table.caption
    )
    assert isinstance(figure, Figure)
    assert isinstance(pictures, Pictures)
    assert printed.name == "where_published"


def test_the_figure_tells_the_front_and_the_ways_in_both_looks():
    figure = where([gathered()])[1]
    assert "Pareto front of original networks" in figure.caption
    assert "On the front: other original, student original." in figure.caption
    assert (
        "student Harmonizer +2.0 points of accuracy, +50.0 of alignment (intervals apart)" in figure.caption
    )
    for look in (LIGHT, DARK):
        (axis,) = [one for one in figure.draw(look).axes if one.axison]
        arrows = [one for one in axis.texts if getattr(one, "arrow_patch", None) is not None]
        assert [(one.xy, one.xyann) for one in arrows] == [((72.0, 90.0), (70.0, 40.0))]
        (dotted,) = [line for line in axis.lines if line.get_linestyle() == ":"]
        assert dotted.get_ydata()[0] == pytest.approx(60)  # the centre bias in shares of the ceiling


def test_pictures_stand_beside_each_other_with_photographs_where_there_are_some():
    pictures = where([gathered()])[2]
    assert [line for _, line in pictures.rows[0][1]] == [
        "people", "student original, 0.20", "student Harmonizer, 0.45", "other original, 0.25",
    ]  # fmt: skip
    assert pictures.rows[1][1][1][1] == "student original, constant"
    pictures = where([gathered(photo=jpeg(9))])[2]
    assert [line for _, line in pictures.rows[0][1]][:2] == ["photograph", "people"]
    assert pictures.rows[0][1][0][0] == jpeg(9)


def test_several_keys_have_tables_and_panels_of_their_own_and_a_matrix():
    keys = ("clicks a", "clicks b")
    one = gathered(keys=keys)
    between = {"a": ["a"], "b": ["b"], "value": [0.6], "low": [0.5], "high": [0.7], "n": [40]}
    people = Result(
        [*(score("centre_bias", 0.3, name) for name in keys), score("split_half", 0.8, "clicks a")],
        {"between": between},
    )
    blocks = where([Gathered("clicks", "where", {}, {**one.results, PEOPLE: people})])
    first, second, figure, matrix, _, _ = blocks
    assert (first.folded, second.folded) == (False, True)
    assert first.title.endswith("clicks a")
    assert len([axis for axis in figure.draw(LIGHT).axes if axis.axison]) == 2
    assert matrix.header == ["", "a", "b"]
    texts = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in matrix.rows]
    assert texts == [["a", "0.80 [0.77, 0.83]", "0.60 [0.50, 0.70]"], ["b", "0.60 [0.50, 0.70]", ""]]
    assert "On the diagonal split halves" in matrix.caption


def test_a_figure_has_four_panels_at_most_and_says_so():
    figure = next(
        one for one in where([gathered(keys=[f"clicks {key}" for key in "abcde"])]) if isinstance(one, Figure)
    )
    assert len([axis for axis in figure.draw(LIGHT).axes if axis.axison]) == 4
    assert "shown are 4 of 5 kinds of maps" in figure.caption


def test_without_labels_ceiling_or_networks_less_is_shown():
    plain = {
        Row("student", "original"): Result([score("where", 0.2), score("dice", 0.3)]),
        Row("student", "alignet"): Result([score("where", 0.25), score("dice", 0.3)]),
    }
    table, _ = where([Gathered("clicks", "where", {}, plain)])
    assert table.header == ["", "Spearman's rho", "Dice, top 10%"]
    assert "student 0.200 to 0.250 (AligNet; intervals overlap)" in table.caption
    (table, _) = where([Gathered("clicks", "where", {}, {PEOPLE: gathered().results[PEOPLE]})])
    assert table.caption.startswith("Controls without a network.")
    assert where([Gathered("clicks", "where", {}, {})]) == []
    assert where([]) == []


def test_published_values_are_those_of_the_papers_text():
    values = {one.network.partition(",")[0] + one.network.partition(",")[2][:11]: one for one in PUBLISHED}
    assert [one.of_ceiling for one in PUBLISHED] == ["38", "22", "22", "28.7", "72.6"]
    assert values["ViT harmonized"].rollout == ".38"
    table = published()
    assert all(cell.published for row in table.rows for cell in row)
    told = " ".join([table.caption, *table.notes])
    for fact in ("ClickMe", "42 of the 84", "196,499", ".66 (.65753", "no result of this run"):
        assert fact in told


def test_a_page_is_written_from_stored_results(tmp_path):
    results = {}
    for number, (row, one) in enumerate(gathered(photo=jpeg(9)).results.items()):
        (tmp_path / str(number)).mkdir()
        write_result(tmp_path / str(number), one)
        results[row] = read_result(tmp_path / str(number))
    blocks = where([Gathered("clicks", "where", {}, results)])
    page = Page("t", "s", "b", "", summarise([], None), [Section("where", "Where", blocks)])
    text = write_page(tmp_path, page).read_text()
    assert "Published values: ClickMe" in text
    assert len(re.findall("data:image/jpeg", text)) == 2 * (1 + 1 + 3)
