"""The tables of models at three levels of abstraction: accuracy, and uncertainty with people's times and disagreement.

results of the family levels -> two tables, and the sentences that captions share with alignet.report.levels
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from alignet.evaluate.result import Result
from alignet.report.blocks import Cell, Table
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import grouped_notes, setting_title, spread, without_value
from alignet.report.levels_people import NAMES

CHANCE = 1 / 3  # of an odd one out
CORRELATED = {"rt_spearman": "with response times", "disagreement_spearman": "with disagreement"}


def levels_of(gathered: Gathered) -> list[str]:
    """The levels that there are, in their order."""
    first = next(iter(gathered.results.values()))
    return [str(level) for level in first.tables["levels"]["level"]]


def at_level(result: Result, level: str) -> dict[str, float]:
    """What the table `levels` says of one level; NaN for what it does not."""
    table = result.tables["levels"]
    place = [str(name) for name in table["level"]].index(level)
    found = {name: values[place] for name, values in table.items() if name != "level"}
    return {name: float("nan") if value is None else float(value) for name, value in found.items()}


Measured = Mapping[Row, tuple[float, float, float]]  # value, ends of its interval; NaN where there is none


def _level_values(gathered: Gathered, level: str, name: str) -> Measured:
    """A column of the table `levels` at one level."""
    found = {row: at_level(result, level) for row, result in gathered.results.items()}
    return {row: (at[name], at[f"{name}_low"], at[f"{name}_high"]) for row, at in found.items()}


def _mean_values(gathered: Gathered, shown: list[str]) -> Measured:
    """The mean accuracy over the levels, with the interval of its score."""
    found = {}
    for row, result in gathered.results.items():
        value = float(np.mean([at_level(result, level)["accuracy"] for level in shown]))
        ends = [
            (one.low, one.high) for one in result.scores
            if (one.metric, one.dataset) == ("odd_one_out", gathered.dataset)
        ]  # fmt: skip
        low, high = ends[0] if ends else (None, None)
        found[row] = (value, math.nan if low is None else low, math.nan if high is None else high)
    return found


def _cells(values: Measured, *, digits: int, scale: float, chance: float) -> dict[Row, Cell]:
    """Cells of a column; marked is the best row of each aligned model, where its interval lies above chance."""
    aligned = {row.model for row in values if row.setting in ("alignet", "distillation")}
    best = {}
    for model in aligned:
        rows = [row for row in values if row.model == model and math.isfinite(values[row][0])]
        top = max(rows, key=lambda row: values[row][0], default=None)
        if top is not None and len(rows) > 1 and values[top][1] > chance:
            best[model] = values[top][0]
    return {
        row: spread(value, low, high, digits=digits, scale=scale, best=best.get(row.model) == value)
        for row, (value, low, high) in values.items()
    }


def accuracy_table(gathered: Gathered, shown: list[str]) -> Table:
    """Accuracy of each row by level and their mean, and people's."""
    measured = [_level_values(gathered, level, "accuracy") for level in shown]
    measured += [_mean_values(gathered, shown)] if len(shown) > 1 else []
    columns = [_cells(values, digits=1, scale=100, chance=CHANCE) for values in measured]
    rows: list[list[Cell | str]] = [
        [row.model, setting_title(row.setting), *(cells[row] for cells in columns)]
        for row in gathered.results
    ]
    some_row = next(iter(gathered.results.values()))
    at = {level: at_level(some_row, level) for level in shown}
    for name, title in (("ceiling", "leave-one-out"), ("ceiling_untied", "without modal ties")):
        values = [at[level][name] for level in shown]
        values += [float(np.mean(values))] if len(shown) > 1 else []
        rows.append(
            ["people", title, *(Cell(f"{100 * v:.1f}", v) if math.isfinite(v) else "" for v in values)]
        )
    counts = ", ".join(
        f"{NAMES[level]} {int(at[level]['n']):,} (left out: {int(at[level]['modal_ties']):,} modal ties)"
        for level in shown
    )  # fmt: skip
    caption = (
        "Odd-one-out accuracy in % against the majority of people, with 95% intervals over triplets; chance 33.3. "
        "People: how often one person's answer is the majority's of the others; a model may surpass it, since it is "
        f"measured against the majority of all. {_mean_said(shown)}Triplets: {counts}. "
        + change(gathered, shown, "accuracy", 100, 1, " points")
    )
    header = ("model", "setting", *(NAMES[level] for level in shown), *(["mean"] if len(shown) > 1 else []))
    name = slug(gathered.dataset)
    return Table(f"{name}_accuracy", f"{gathered.dataset}: accuracy by level", header, rows, caption)


def _mean_said(shown: list[str]) -> str:
    """What the last column is; "" without one."""
    return f"Mean: each of the {len(shown)} levels counts alike. " if len(shown) > 1 else ""


def change(
    gathered: Gathered, shown: list[str], name: str, scale: float, decimals: int, unit: str = ""
) -> str:
    """What alignment changed, in a sentence for each model that has both."""
    told = []
    for model in dict.fromkeys(row.model for row in gathered.results):
        before, after = (gathered.results.get(Row(model, setting)) for setting in ("original", "alignet"))
        if before is None or after is None:
            continue
        parts = []
        for level in shown:
            was, now = at_level(before, level), at_level(after, level)
            gain = scale * (now[name] - was[name])
            if math.isfinite(gain):
                said = _met(was, now, name)
                parts.append(f"{gain:+.{decimals}f}{unit} {NAMES[level]} ({said})")
        if parts:
            told.append(f"{model}: {', '.join(parts)}")
    return f"From original to AligNet: {'; '.join(told)}." if told else ""


def _met(was: Mapping[str, float], now: Mapping[str, float], name: str) -> str:
    """Whether two intervals of a column have a value in common, in words."""
    ends = [at[f"{name}_{end}"] for at in (was, now) for end in ("low", "high")]
    if not all(map(math.isfinite, ends)):
        return "no 95% interval of one of them"
    return "95% intervals apart" if ends[2] > ends[1] or ends[3] < ends[0] else "95% intervals overlap"


def uncertainty_table(gathered: Gathered, shown: list[str]) -> Table:
    """Correlations of each row's uncertainty by level, with its temperature."""
    columns = [
        _cells(_level_values(gathered, level, name), digits=3, scale=1, chance=0)
        for name in ("rt", "disagreement")
        for level in shown
    ]
    rows: list[list[Cell | str]] = []
    for row, result in gathered.results.items():
        taus = [float(value) for value in result.tables["temperature"]["tau"]]
        rows.append(
            [
                row.model,
                setting_title(row.setting),
                ", ".join(f"{tau:.3g}" for tau in taus),
                *(cells[row] for cells in columns),
            ]
        )
    notes = grouped_notes(
        {row: str(result.tables["temperature"]["note"][0]) for row, result in gathered.results.items()},
        len(gathered.results),
    )
    notes += _lost(gathered)
    caption = (
        "Spearman correlation of the entropy of a model's three answers with people's mean log response time and with "
        "the entropy of people's answers, over triplets, with 95% intervals over triplets. The entropy hangs on the "
        f"temperature tau; how each was found stands below. {change(gathered, shown, 'rt', 1, 3)}"
    )
    header = ("model", "setting", "tau", *(NAMES[level] for _ in range(2) for level in shown))
    groups = [("", 3), ("with response times", len(shown)), ("with disagreement", len(shown))]
    name = slug(gathered.dataset)
    return Table(
        f"{name}_uncertainty", f"{gathered.dataset}: uncertainty", header, rows, caption, groups, notes
    )


def _lost(gathered: Gathered) -> list[str]:
    """What is said of bootstrap draws without a value, by level and by what is correlated."""
    notes: dict[tuple[str, str], dict[Row, str]] = {}
    for row, result in gathered.results.items():
        for score in result.scores:
            if score.metric in CORRELATED and (said := without_value(score.note)):
                level = NAMES[score.dataset.removeprefix(f"{gathered.dataset} ")]
                notes.setdefault((level, CORRELATED[score.metric]), {})[row] = said
    return [
        f"{level}, {what}: {note}"
        for (level, what), found in notes.items()
        for note in grouped_notes(found, len(gathered.results))
    ]
