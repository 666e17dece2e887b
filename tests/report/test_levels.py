"""The page's blocks for Levels: what they say is what was measured, and both looks can be drawn."""

import io
from dataclasses import replace

import numpy as np
import pytest

from alignet.data.levels import tidy
from alignet.data.trials import read_trials
from alignet.evaluate.levels import model
from alignet.evaluate.levels_people import people
from alignet.evaluate.result import Result, read_result, write_result
from alignet.report.blocks import DARK, LIGHT, Figure, Table, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.sections import BUILDERS
from tests.makers.trials import save, study

RULES = {"catch_accuracy": 0.9, "max_misses": 10, "slow_ms": 10_000.0}
NOISE = {"original": 3.0, "distillation": 1.5, "ud": 0.8, "alignet": 0.1}
LEVELS = ("coarse", "fine", "boundary")


@pytest.fixture(scope="module")
def gathered(tmp_path_factory):
    """Two students and a baseline, as they come back from the disk."""
    folder = tmp_path_factory.mktemp("page")
    simulated = study(5, triplets=80)
    found = tidy(read_trials(save(folder / "trials.csv", simulated.rows)), **RULES)
    place = {name: row for row, name in enumerate(simulated.images)}
    shown = np.stack([found.triplets[f"image{n}"] for n in (1, 2, 3)], 1)
    rows = np.vectorize(place.get)(shown)
    results = {}
    for number, student in enumerate(("vit", "dino")):
        for setting, noise in NOISE.items():
            features = simulated.features + np.random.default_rng(number).normal(
                0, noise, simulated.features.shape
            )
            results[Row(student, setting)] = features
    results[Row("baseline", "raw pixels")] = np.random.default_rng(9).normal(size=(len(place), 5))
    for row, features in results.items():
        results[row] = disk(
            folder,
            model(features, rows, found.triplets, dataset="My levels", tau="fit", seed=0, bootstrap=60),
        )
    described = disk(folder, people(found.trials, found.triplets, dataset="People", seed=0, bootstrap=60))
    return {
        "levels": Gathered("My levels", "levels", {}, results),
        "levels_people": Gathered("People", "levels_people", {}, {Row("student", "data"): described}),
    }


def disk(folder, result):
    for path in folder.glob("*.parquet"):
        path.unlink()
    write_result(folder, result)
    return read_result(folder)


def test_what_people_did(gathered):
    blocks = BUILDERS["levels_people"][1](gathered["levels_people"])
    table, text, figure = blocks
    assert isinstance(table, Table)
    assert isinstance(text, Text)
    assert isinstance(figure, Figure)
    rows = gathered["levels_people"].results[Row("student", "data")].tables["levels"]
    for place, row in enumerate(table.rows):
        assert len(row) == len(table.header)
        assert row[1].value == rows["rt_median"][place]
        assert row[1].text.startswith(f"{rows['rt_median'][place]:.2f} [")
        assert row[5].text.startswith(f"{100 * rows['ceiling'][place]:.1f} [")
    slowest = ["coarse-grained", "fine-grained", "class-boundary"][int(np.argmax(rows["rt_median"]))]
    assert f"Slowest to fastest: {slowest}" in table.caption
    assert text.text.count("t(9) = ") == 3
    assert f"{rows['rho'][0]:.2f} [" in figure.caption
    drawn(figure)


def test_what_models_make_of_it(gathered):
    section, builder = BUILDERS["levels"]
    assert section == "uncertainty"
    blocks = builder(gathered["levels"])
    tables = [block for block in blocks if isinstance(block, Table)]
    figures = [block for block in blocks if isinstance(block, Figure)]
    assert len({block.name for block in blocks}) == len(blocks) == 6
    accuracy, uncertainty = tables
    for table in tables:
        assert all(len(row) == len(table.header) for row in table.rows)
        assert all(letter.isalnum() or letter == "_" for letter in table.name)
    results = gathered["levels"].results
    for row, cells in zip(results, accuracy.rows):
        scores = {score.dataset: score for score in results[row].scores if score.metric == "odd_one_out"}
        for level, cell in zip(LEVELS, cells[2:]):
            assert cell.value == scores[f"My levels {level}"].value
            leads = row.model != "baseline" and cell.value == best(results, row.model, level)
            assert cell.best == (leads and cell.low > 1 / 3)
        own = [scores[f"My levels {level}"].value for level in LEVELS]
        assert cells[5].value == pytest.approx(np.mean(own))
        assert (cells[5].low, cells[5].high) == (scores["My levels"].low, scores["My levels"].high)
    assert accuracy.header[5] == "mean"
    for people_row in accuracy.rows[-2:]:
        assert people_row[5].value == pytest.approx(np.mean([cell.value for cell in people_row[2:5]]))
    assert [row[:2] for row in accuracy.rows[-2:]] == [
        ["people", "leave-one-out"],
        ["people", "without modal ties"],
    ]
    gain = [scored(results, Row("vit", s), "odd_one_out", "coarse") for s in ("original", "alignet")]
    assert f"vit: {100 * (gain[1] - gain[0]):+.1f} points coarse-grained" in accuracy.caption
    assert sum(count for _, count in uncertainty.groups) == len(uncertainty.header)
    assert uncertainty.rows[3][3].value == scored(results, Row("vit", "alignet"), "rt_spearman", "coarse")
    assert any("fitted to the answers to the other half" in note for note in uncertainty.notes)
    assert [figure.name.rpartition("_")[2] for figure in figures] == ["bars", "vit", "dino", "temperature"]
    for figure in figures:
        drawn(figure)


def scored(results, row, metric, level):
    return next(
        s.value for s in results[row].scores if (s.metric, s.dataset) == (metric, f"My levels {level}")
    )


def best(results, model_name, level):
    return max(scored(results, row, "odd_one_out", level) for row in results if row.model == model_name)


def drawn(figure):
    pictures = []
    for look in (LIGHT, DARK):
        canvas = figure.draw(look)
        held = io.BytesIO()
        canvas.savefig(held, format="png", dpi=60, facecolor=look.paper)
        pictures.append(held.getvalue())
        assert canvas.get_figwidth() <= 9
    assert pictures[0] != pictures[1]
    assert figure.alt


def test_the_panels_of_what_people_did_have_one_legend_and_a_numeric_axis(gathered):
    figure = BUILDERS["levels_people"][1](gathered["levels_people"])[-1]
    drawing = figure.draw(LIGHT)
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == [
        "coarse-grained", "fine-grained", "class-boundary",
    ]  # fmt: skip
    assert all(axis.get_legend() is None for axis in drawing.axes)
    found = gathered["levels_people"].results[Row("student", "data")].tables["entropies"]
    bars = [bar for bar in drawing.axes[2].patches if bar.get_height() > 0]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    values = np.array(found["entropy"])
    assert all(np.abs(values - middle).min() < 0.1 for middle in middles)
    assert sum(bar.get_height() for bar in bars) == pytest.approx(3)  # a distribution for each level
    width = bars[0].get_width()
    assert np.diff(np.sort(middles)).min() > width  # beside each other


def test_draws_without_a_value_are_noted_and_give_no_interval(gathered):
    """Most of the triplets have no time: a draw of the few that have may be constant."""
    source = gathered["levels"].results[Row("vit", "alignet")]
    told = "no interval: 30 of 60 draws had no value"
    scores = [
        replace(score, low=None, high=None, over="", note=f"{score.note}; {told}")
        if (score.metric, score.dataset) == ("rt_spearman", "My levels fine") else score
        for score in source.scores
    ]  # fmt: skip
    table = {name: np.array(values) for name, values in source.tables["levels"].items()}
    for end in ("low", "high"):
        table[f"rt_{end}"] = np.where(table["level"] == "fine", np.nan, table[f"rt_{end}"])
    one = Gathered("My levels", "levels", {}, {
        Row("vit", "original"): gathered["levels"].results[Row("vit", "original")],
        Row("vit", "alignet"): Result(scores, dict(source.tables) | {"levels": table}),
    })  # fmt: skip
    uncertainty = BUILDERS["levels"][1](one)[1]
    assert "[" not in uncertainty.rows[1][4].text
    assert f"fine-grained, with response times: vit AligNet: {told}" in uncertainty.notes
    assert "fine-grained (no 95% interval of one of them)" in uncertainty.caption
