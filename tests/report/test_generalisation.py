"""The page's generalisation section: what captions and tables say are the numbers, figures draw on both papers."""

import io
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report import generalisation
from alignet.report.blocks import DARK, LIGHT, Cell, Figure, Table
from alignet.report.cross_dataset import across
from alignet.report.dataset_results import Gathered, Row
from alignet.report.formatting import p_text
from alignet.report.sections import BUILDERS, SECTIONS
from alignet.report.significance_table import tests_between as between

MODELS, SETTINGS = ("ViT-S", "ViT-B"), ("original", "distillation", "alignet")


def score(metric, dataset, value, chance=0.1):
    return Score(metric, dataset, value, value - 0.02, min(value + 0.02, 1.0), 500, "images", "draws", chance)


def gathered(dataset, values, family="few_shot", tests=("1-shot", "10-shot"), tables=None):
    """values: (model, setting, test) accuracies."""
    results = {}
    for m, model in enumerate(MODELS[: len(values)]):
        for s, setting in enumerate(SETTINGS):
            names = [(family, f"{dataset} {test}") for test in tests]
            if family == "breeds":
                names = [("breeds", dataset), ("breeds_source", dataset)]
            scores = [score(*name, float(values[m][s][t])) for t, name in enumerate(names)]
            results[Row(model, setting)] = Result(scores, tables or {})
    return Gathered(dataset, family, {}, results)


@pytest.fixture
def every():
    generator = np.random.default_rng(0)
    found = []
    for number in range(7):
        base = generator.uniform(0.3, 0.6, size=(2, 1, 1)) + np.array([0, 0.2])
        values = base + np.array([0, 0.02, 0.06])[:, None] + generator.normal(0, 0.005, size=(2, 3, 2))
        found.append(gathered(f"set {number}", values))
    return found


def painted(figure):
    """Sizes of the figure's PNG on both papers."""
    sizes = []
    for look in (LIGHT, DARK):
        file = io.BytesIO()
        figure.draw(look).savefig(file, format="png", facecolor=look.paper)
        sizes.append(len(file.getvalue()))
    return sizes


def test_each_family_has_its_builder_in_a_section_that_is_there(every):
    for family in ("few_shot", "breeds", "transfer"):
        key, builder = BUILDERS[family]
        assert key in SECTIONS
        tables = {
            "corruptions": {
                "corruption": ["fog", "fog", "snow"], "severity": np.array([1, 5, 1]), "images": np.array([4, 4, 4]),
                "accuracy": np.array([0.8, 0.4, 0.5]),
            }
        }  # fmt: skip
        one = gathered(
            "toys", np.full((2, 3, 2), 0.5), family, ("V2", "C"), tables if family == "transfer" else None
        )
        blocks = builder(one)
        assert isinstance(blocks[0], Figure)
        assert isinstance(blocks[1], Table)
        assert min(painted(blocks[0])) > 5000
        assert len({len(line) for line in blocks[1].rows} | {len(blocks[1].header)}) == 1
        assert "500" in blocks[0].caption
    corruptions = blocks[2]
    assert corruptions.header[:2] == ["corruption", "ViT-S original"]
    assert [line[1].text for line in corruptions.rows] == ["60.0 (80.0 to 40.0)", "50.0"]
    assert "12 images" in corruptions.caption


def test_the_numbers_are_the_scores_and_the_best_is_marked(every):
    table = generalisation.few_shot(every[0])[1]
    parts = generalisation.parts(every[0])
    assert list(parts) == ["1-shot", "10-shot"]
    for line in table.rows:
        row = Row(
            line[0], {"original": "original", "distillation": "distillation", "AligNet": "alignet"}[line[1]]
        )
        assert line[2].value == parts["1-shot"][row].value
        assert line[2].text.startswith(f"{100 * line[2].value:.1f} [")
    assert sum(line[2].best for line in table.rows) == 1


def test_the_sentence_says_what_the_numbers_say():
    one = gathered("toys", np.array([[[0.5, 0.6], [0, 0], [0.6, 0.55]]]))
    said = "From original to AligNet 1 of 2 tests rise, +2.5 points on average; in 2 the 95% intervals are apart."
    assert generalisation.change_sentence([one]) == said
    assert said in generalisation.few_shot(one)[0].caption
    assert generalisation.change_sentence([one], before="ud") == ""


def test_scatter_and_changes_over_data_sets(every):
    scatter = generalisation.before_after(every)
    assert "1-shot: 14 of 14 above, +" in scatter.caption
    assert min(painted(scatter)) > 8000
    figure = generalisation.changes(every, "few_shot", before="distillation")
    assert figure.name == "few_shot_changes_distillation_alignet"
    assert min(painted(figure)) > 8000
    with pytest.raises(
        ValueError, match="expected breeds scores in the settings original and alignet, found none"
    ):
        generalisation.changes(every, "breeds")
    with pytest.raises(ValueError, match="found none; evaluate both"):
        generalisation.before_after(every, before="ud")


def test_alignet_is_drawn_against_the_original_and_against_distillation(every):
    names = [block.name for block in across(every)]
    assert names[:2] == ["few_shot_original_alignet", "few_shot_distillation_alignet"]
    (axis, _) = across(every)[1].draw(LIGHT).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("distillation, %", "AligNet, %")
    assert "few_shot_original_alignet" not in [block.name for block in across(every[:1])]


def cell(table, tests, before, after, column):
    (line,) = [line for line in table.rows if line[:3] == [tests, before, after]]
    return line[table.header.index(column)]


def test_tests_between_methods_by_hand(every):
    table = between(every)
    parts = [generalisation.parts(one)["1-shot"] for one in every]
    mean = [
        np.mean([one[Row(model, "alignet")].value - one[Row(model, "original")].value for model in MODELS])
        for one in parts
    ]
    named = ("1-shot", "original", "AligNet")
    assert cell(table, *named, "change, points").value == pytest.approx(np.mean(mean))
    assert cell(table, *named, "cells up / down") == "14 / 0"
    assert cell(table, *named, "permutation p").value == pytest.approx(2 / 2**7)
    t = stats.ttest_1samp(mean, 0)
    assert cell(table, *named, "ANOVA, method").value == pytest.approx(t.pvalue)
    assert cell(table, *named, "ANOVA, method").text.startswith(f"F(1, 6) = {t.statistic**2:.2f}")
    assert len(table.rows) == 6  # two shot numbers, three pairs of settings
    assert not table.notes


def test_cells_that_are_missing_are_counted_and_too_few_data_sets_said(every):
    short = Gathered("set 0", "few_shot", {}, {
        row: result for row, result in every[0].results.items() if row != Row("ViT-B", "alignet")
    })  # fmt: skip
    table = between([short, *every[1:3]])
    assert cell(table, "1-shot", "original", "AligNet", "cells up / down") == "5 / 0"
    assert cell(table, "1-shot", "original", "AligNet", "ANOVA, method") == "–"
    notes = " ".join(table.notes)
    assert (
        "1-shot, original to AligNet: left out 1 combination of model and data set, which has only one of the two "
        "settings"
    ) in notes
    assert "with 3 units the permutation p cannot fall below 0.25" in notes
    assert "the first ViT-B on set 0" in notes
    assert between([]).rows == []


def test_imagenets_test_sets_count_as_data_sets_and_breeds_by_other_subclasses():
    values = np.array([[[0.7, 0.5, 0.5, 0.4], [0, 0, 0, 0], [0.7, 0.6, 0.55, 0.3]]])
    probe = gathered("probe", values, "transfer", ("ImageNet", "V2", "A", "R"))
    living = [
        gathered(f"living{n}", np.array([[[0.4, 0.9], [0, 0], [0.5 + 0.01 * (n - 2), 0.9]]]), "breeds")
        for n in (1, 2, 3)
    ]
    table = between([probe, *living])
    assert cell(table, "ImageNet probe carried over", "original", "AligNet", "data sets") == Cell("3", 3)
    assert cell(
        table, "BREEDS, other subclasses", "original", "AligNet", "change, points"
    ).value == pytest.approx(0.1)
    assert "6 comparisons" in table.caption


def test_comparisons_over_fewer_than_three_data_sets_are_left_out(every):
    assert not between(every[:2]).rows
    assert between(every[:3]).rows


def test_the_scatters_axes_begin_where_the_points_do(every):
    scatter = generalisation.before_after(every)
    assert "n = 28 points" in scatter.caption
    for axis in scatter.draw(LIGHT).axes:
        (low, high), values = (
            axis.get_xlim(),
            [c.get_offsets()[0] for c in axis.collections if len(c.get_offsets())],
        )
        assert axis.get_ylim() == (low, high)
        assert len(values) == 14
        assert low < np.min(values) < np.max(values) < high <= 100.1
        assert high - low < 1.3 * np.ptp(values)


def test_data_sets_with_the_same_images_are_one_unit_and_too_few_units_are_not_tested(every):
    """Four tasks on one set of images that all rise are no more than one witness."""
    shared = [replace(one, options={"images_of": "one source"}) for one in every[:4]]
    table = between([*shared, *every[4:]])
    named = ("1-shot", "original", "AligNet")
    assert cell(table, *named, "data sets") == Cell("7", 7)
    assert cell(table, *named, "units") == Cell("4", 4)
    assert cell(table, *named, "permutation p").value == pytest.approx(2 / 2**4)
    assert cell(table, *named, "ANOVA, method").text.startswith("F(1, 3)")
    changes = [
        np.mean([one[Row(model, "alignet")].value - one[Row(model, "original")].value for model in MODELS])
        for one in (generalisation.parts(data)["1-shot"] for data in every)
    ]
    t = stats.ttest_1samp([np.mean(changes[:4]), *changes[4:]], 0)
    assert cell(table, *named, "ANOVA, method").value == pytest.approx(t.pvalue)
    few = between([*shared, every[4]])
    assert few.rows == []
    assert "Fewer than 3 units, and not tested: 1-shot, 10-shot." in few.caption
    tests = ("ImageNet", "ReaL", "V2", "A", "R")
    probe = gathered("probe", 0.5 + 0.01 * np.arange(15.0).reshape(1, 3, 5), "transfer", tests)
    options = {"images_of": {"ImageNet": "val", "ReaL": "val", "V2": "val"}}
    table = between([replace(probe, options=options)])
    assert cell(table, "ImageNet probe carried over", "original", "AligNet", "units") == Cell("3", 3)


def test_p_values_as_text():
    assert (p_text(0.0004), p_text(0.0123)) == ("p < .001", "p = 0.012")
