"""What figures share: one hue for a setting everywhere, legends of all panels, errors as distances, numbers as text."""

import numpy as np
import pytest

from alignet.evaluate.bootstrap import Score
from alignet.report.blocks import DARK, LIGHT
from alignet.report.dataset_results import Row
from alignet.report.formatting import apart, grouped_notes, met, moved, score_cell, spread
from alignet.report.plot_style import (
    canvas,
    dress,
    errors,
    hue_of,
    in_order,
    legend,
    line_of,
    marker_of,
    panels,
)

NAMES = ("original", "distillation", "ud", "alignet", "direct", "global", "glocal")


def score(value, half=0.02, n=100):
    bounds = (None, None) if half is None else (value - half, value + half)
    return Score("m", "d", value, *bounds, n, "images", "images")


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_each_setting_has_a_hue_of_its_own_and_baselines_are_faint(look):
    assert len({hue_of(name, look) for name in NAMES}) == len(NAMES)
    assert hue_of("raw pixels", look) == look.faint


def test_settings_stand_in_one_order():
    assert in_order(["raw pixels", "glocal", "alignet", "original", "alignet"]) == [
        "original", "alignet", "glocal", "raw pixels",
    ]  # fmt: skip


def test_markers_and_lines_go_round():
    assert marker_of(0) == marker_of(12)
    assert marker_of(0) != marker_of(1)
    assert line_of(1) == line_of(5) != line_of(2)


def test_a_legend_names_what_any_panel_shows_once():
    drawing, axes = panels(LIGHT, 2, wide=2, height=2)
    axes[0].plot([0], [0], label="a")
    axes[1].plot([0], [0], label="a")
    axes[1].plot([0], [0], label="b")
    legend(drawing, axes, LIGHT)
    (found,) = drawing.legends
    assert [text.get_text() for text in found.get_texts()] == ["a", "b"]


def test_one_label_needs_no_legend_and_spare_panels_are_empty():
    drawing, axes = panels(DARK, 4, wide=3, height=2)
    axes[0].plot([0], [0], label="a")
    legend(drawing, axes, DARK)
    assert not drawing.legends
    assert len(axes) == 4
    assert [axis.axison for axis in drawing.axes] == [True] * 4 + [False] * 2


def test_axes_have_the_looks_colours():
    axis = dress(canvas(DARK, 2).subplots(), DARK, "title", x="x", y="y")
    assert axis.get_title(loc="left") == "title"
    assert axis.xaxis.label.get_color() == DARK.ink
    assert not axis.spines["top"].get_visible()


def test_errors_are_distances_and_never_negative():
    found = errors(
        [score(0.5), score(0.4, None), Score("m", "d", 0.3, 0.31, 0.35, 1, "images", "images")], 100
    )
    assert found == pytest.approx(np.array([[2, 0, 0], [2, 0, 5]]))
    assert errors([]).shape == (2, 0)


def test_cells_of_scores():
    assert score_cell(score(0.5), digits=1, scale=100).text == "50.0 [48.0, 52.0]"
    assert score_cell(score(0.5, None), best=True).text == "0.500"
    assert score_cell(None).text == ""
    assert spread(float("nan"), 0.1, 0.2).text == ""
    assert spread(0.1, float("nan"), 0.2).text == "0.100"


def test_what_intervals_say_of_a_difference():
    assert apart(score(0.5), score(0.53)) is False
    assert apart(score(0.5), score(0.55)) is True
    assert apart(score(0.55), score(0.5)) is True
    assert apart(score(0.5), score(0.5, None)) is None
    assert met(score(0.5), score(0.5, None)) == "no interval"
    scores = {Row("a", "original"): score(0.5), Row("a", "alignet"): score(0.51), Row("b", "ud"): score(0.9)}
    assert moved(scores) == "From the original: a 0.500 to 0.510 (AligNet; intervals overlap)."
    assert moved({Row("b", "ud"): score(0.9)}) == ""


def test_notes_of_all_rows_stand_once():
    rows = [Row("a", "original"), Row("a", "ud"), Row("b", "ud")]
    assert grouped_notes(dict.fromkeys(rows, "same"), 3) == ["same"]
    assert grouped_notes({rows[0]: "one", rows[1]: "two", rows[2]: "two"}, 3) == [
        "a original: one", "a UD, b UD: two",
    ]  # fmt: skip
    assert grouped_notes({rows[0]: ""}, 1) == []
