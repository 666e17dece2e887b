"""Blocks of similarity and calibration: what they say is what the numbers say, in both looks, of several students."""

import numpy as np
import pytest

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.calibration import calibration as measure
from alignet.evaluate.result import Result, read_result, write_result
from alignet.report.blocks import DARK, LIGHT, Figure, Table
from alignet.report.dataset_results import Gathered, Row
from alignet.report.sections import BUILDERS, TOGETHER
from alignet.report.similarity import against_original


def score(metric, dataset, value, **more):
    options = {"low": value - 0.02, "high": value + 0.02, "n": 190, "unit": "pairs", "over": "objects"} | more
    return Score(metric, dataset, value, **options)


def rsa(values, dataset="cichy", family="rsa", more=()):
    results = {}
    for (model, setting), value in values.items():
        scores = [
            score(
                "rsa_spearman", f"{dataset}{part}", value + step, chance=0.0, note="p = 0.0010, 9; mean of 3"
            )
            for part, step in (*more, ("", 0.0))
        ]
        scores += [score("rsa_p", one.dataset, 0.001, low=None, high=None) for one in scores]
        results[Row(model, setting)] = Result(scores)
    return Gathered(dataset, family, {}, results)


VALUES = {
    ("student", "original"): 0.2, ("student", "distillation"): 0.15, ("student", "ud"): 0.4,
    ("student", "alignet"): 0.6, ("other", "original"): 0.3, ("other", "alignet"): 0.5,
    ("baseline", "raw pixels"): 0.05,
}  # fmt: skip


def blocks(gathered, *others):
    if gathered.family in TOGETHER:
        return list(TOGETHER[gathered.family][1]([gathered, *others]))
    return list(BUILDERS[gathered.family][1](gathered))


def test_a_table_of_judgments_has_intervals_and_p_and_marks_the_best():
    (table,) = blocks(rsa(VALUES))
    assert isinstance(table, Table)
    assert table.header == ["", "Spearman's rho [95%]", "p"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["student AligNet"][0].text == "0.600 [0.580, 0.620]"
    assert rows["student AligNet"][1].text == "0.001"
    assert [name for name, cells in rows.items() if cells[0].best] == ["student AligNet"]
    assert "Pairs: cichy 190." in table.caption
    assert (
        "student 0.200 to 0.600 (AligNet; intervals apart); other 0.300 to 0.500 (AligNet; intervals apart)"
        in table.caption
    )
    assert table.notes == ["cichy: mean of 3"]
    assert blocks(Gathered("none", "rsa", {}, {Row("student", "original"): Result([])})) == []


def test_a_mean_of_sets_has_a_column_for_each():
    (table,) = blocks(rsa(VALUES, "fine", "rsa_mean", [(" animals", 0.1), (" fruits", -0.1)]))
    assert table.groups == [("", 1), ("animals", 2), ("fruits", 2), ("mean", 2)]
    assert all(len(row) == len(table.header) == 7 for row in table.rows)


def test_a_value_whose_interval_reaches_chance_is_not_marked_as_best():
    (table,) = blocks(rsa({("student", "original"): -0.1, ("student", "alignet"): 0.015}))
    assert not any(row[1].best for row in table.rows)
    (table,) = blocks(rsa({("student", "original"): -0.1, ("student", "alignet"): 0.03}))
    assert [row[1].best for row in table.rows] == [False, True]


def test_every_set_behind_a_mean_has_a_panel():
    found = against_original([rsa(VALUES, "fine", "rsa_mean", [(" animals", 0.1), (" fruits", -0.1)])])
    panels = [axis for axis in found.draw(LIGHT).axes if axis.axison]
    assert [axis.get_title(loc="left") for axis in panels] == ["fine animals", "fine fruits", "fine, mean"]
    assert "fine animals: 190 pairs; fine fruits: 190 pairs; fine, mean: 190 pairs" in found.caption
    assert "9 of 12 points lie above the diagonal" in found.caption
    one = against_original([rsa({("student", "original"): 0.2, ("student", "ud"): 0.4})])
    assert "1 of 1 point lies above the diagonal" in one.caption


def test_all_data_sets_of_the_family_are_one_table():
    less = {key: value - 0.15 if key == ("student", "alignet") else value for key, value in VALUES.items()}
    (table,) = blocks(rsa(VALUES), rsa(less | {("student", "original"): 0.45}, "king"))
    assert table.groups == [("", 1), ("cichy", 2), ("king", 2)]
    assert [row[0] for row in table.rows] == [Row(*key).title for key in VALUES]
    assert [cell.text for cell in table.rows[3][1::2]] == ["0.600 [0.580, 0.620]", "0.450 [0.430, 0.470]"]
    assert "Pairs: cichy 190, king 190." in table.caption
    assert "student AligNet 1 of 2 (1 with intervals apart)" in table.caption
    assert "student distillation 0 of 2 (0 with intervals apart)" in table.caption
    assert table.notes == ["cichy: mean of 3", "king: mean of 3"]


def nights():
    results = {
        Row(*key): Result([
            score("two_alternatives", "nights", value, n=1720, unit="items", chance=0.5, note="split test"),
            score("two_alternatives_cosine", "nights", value + 0.05, n=1720, unit="items", chance=0.5),
        ])
        for key, value in VALUES.items()
    }  # fmt: skip
    return Gathered("nights", "nights", {}, results)


def test_two_alternatives_are_a_table():
    (table,) = blocks(nights())
    assert "over 1,720 items" in table.caption
    assert table.rows[3][1].text == "60.0 [58.0, 62.0]"
    assert table.rows[3][2].text == "65.0 [63.0, 67.0]"


def test_settings_against_the_original_for_every_data_set_and_student():
    things = Gathered("things", "odd_one_out", {}, {
        Row(*key): Result([score("odd_one_out", "things", value, unit="triplets", chance=1 / 3, ceiling=0.67)])
        for key, value in VALUES.items()
    })  # fmt: skip
    other = Gathered("fine", "linear_probe", {}, {})
    found = against_original([things, other, rsa(VALUES), nights()])
    assert isinstance(found, Figure)
    assert (
        "9 of 12 points lie above the diagonal, 6 of the 6 of AligNet (6 with intervals apart)"
        in found.caption
    )
    assert "things: 190 triplets; cichy: 190 pairs; nights: 1,720 items" in found.caption
    for look in (LIGHT, DARK):
        drawing = found.draw(look)
        panels = [axis for axis in drawing.axes if axis.axison]
        assert [axis.get_title(loc="left") for axis in panels] == ["things", "cichy", "nights"]
        points = [
            line for line in panels[0].lines if line.get_markersize() == 7 and len(line.get_xdata()) == 1
        ]
        assert sorted((round(one.get_xdata()[0]), round(one.get_ydata()[0])) for one in points) == [
            (20, 15), (20, 40), (20, 60), (30, 50),
        ]  # fmt: skip
    assert against_original([other]) is None
    assert against_original([rsa({("baseline", "raw pixels"): 0.1})]) is None


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """Two models whose second features are the ones that the choices are drawn from, through the files of a result."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 5))
    triplets = generator.random((3000, 40)).argpartition(3, axis=1)[:, :3]
    gram = features @ features.T
    sims = np.stack([gram[triplets[:, a], triplets[:, b]] for a, b in ((0, 1), (0, 2), (1, 2))], 1)
    p = np.exp(sims) / np.exp(sims).sum(1, keepdims=True)
    pair = (generator.random(3000)[:, None] > p.cumsum(1)).sum(1).clip(max=2)
    triplets = np.take_along_axis(triplets, np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])[pair], 1)
    results = {}
    for number, model in enumerate(("student", "other")):
        for setting, noise in (("original", 1.5 + number), ("alignet", 0.0)):
            x = features + noise * generator.normal(size=features.shape)
            result = measure(
                x, triplets, dataset="c", tau="fit" if number else 1.0, bins=15, grid=[0.1, 0.3, 1, 3, 10], seed=0,
                bootstrap=30,
            )  # fmt: skip
            folder = tmp_path_factory.mktemp("result")
            write_result(folder, result)
            results[Row(model, setting)] = read_result(folder)
    return Gathered("c", "calibration", {}, results)


def test_calibration_shows_scores_with_temperatures_curves_and_how_they_move(calibrated):
    table, reliability, temperature = blocks(calibrated)
    assert table.header[:4] == ["", "tau", "calibration error", "at tau = spread"]
    assert [row[0] for row in table.rows] == [
        "student original", "student AligNet", "other original", "other AligNet",
    ]  # fmt: skip
    assert table.rows[0][1] == "1"
    assert ", " in table.rows[2][1]  # a temperature for each half
    assert any("fitted to the half" in note for note in table.notes)
    assert "student original is more sure than right" in reliability.caption
    assert "over 3,000 triplets" in reliability.caption
    assert "The error of student original" in temperature.caption
    for look in (LIGHT, DARK):
        drawing = reliability.draw(look)
        assert [axis.get_title(loc="left") for axis in drawing.axes] == ["student", "other"]
        assert len(temperature.draw(look).axes) == 2
    assert blocks(Gathered("c", "calibration", {}, {})) == []
