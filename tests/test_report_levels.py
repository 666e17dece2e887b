"""The page's blocks for Levels: what they say is what was measured, and both looks can be drawn."""

import io

import numpy as np
import pytest
from trials import save, study

from alignet.data.levels import tidy
from alignet.data.trials import read_trials
from alignet.evaluate.levels import model
from alignet.evaluate.levels_people import people
from alignet.evaluate.result import read_result, write_result
from alignet.report.blocks import DARK, LIGHT, Figure, Table, Text
from alignet.report.gathered import Gathered, Row
from alignet.report.sections import BUILDERS

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
            assert cell.best == (row.model != "baseline" and cell.value == best(results, row.model, level))
    assert [row[:2] for row in accuracy.rows[-2:]] == [
        ["people", "leave-one-out"],
        ["people", "with modal ties"],
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
