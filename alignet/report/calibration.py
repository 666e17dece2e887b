"""The page's figures of calibration: reliability curves of every setting, and how the result hangs on the temperature.

From the scores and tables of the family `calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignet.evaluate.result import Columns
from alignet.report.blocks import Block, Cell, Figure, Look, Table
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import apart, best_of, grouped_notes, score_cell, setting_title
from alignet.report.plot_style import dress, hue_of, legend, line_of, own_legend, panels

_SCORES = {  # metric -> title of its column
    "calibration_error": "calibration error", "calibration_error_spread": "at tau = spread",
    "choice_nll": "-log q of choices, nats", "kl_to_people": "KL from people, nats",
    "entropy_rho": "entropies, rho",
}  # fmt: skip


def calibration(gathered: Gathered) -> list[Block]:
    """The scores with their temperatures, the reliability curves, and the curves over temperatures."""
    if not gathered.scores("calibration_error"):
        return []
    return [_table(gathered), _reliability(gathered), _temperatures(gathered)]


def _table(gathered: Gathered) -> Table:
    scores = {metric: gathered.scores(metric) for metric in _SCORES}
    shown = [metric for metric, found in scores.items() if found]
    fits = gathered.tables("fits")
    best = {metric: best_of(scores[metric].values(), largest=metric == "entropy_rho") for metric in shown}
    rows = []
    for row in scores["calibration_error"]:
        taus = ", ".join(f"{value:.4g}" for value in np.asarray(fits[row]["tau"])) if row in fits else ""
        cells: list[Cell | str] = [row.title, taus]
        for metric in shown:
            score = scores[metric].get(row)
            cells.append(score_cell(score, best=score is not None and score.value == best[metric]))
        rows.append(cells)
    errors = scores["calibration_error"]
    least = min(errors, key=lambda row: errors[row].value)
    first = errors[least]
    tied = [row.title for row in errors if row != least and apart(errors[row], first) is False]
    said = f"{least.title} has the smallest error, {first.value:.3f}"
    if tied:
        said += f", with an interval that meets those of {', '.join(tied)}"
    return Table(
        slug(f"{gathered.dataset} calibration"), f"Calibration: {gathered.dataset}",
        ["", "tau", *(_SCORES[metric] for metric in shown)], rows,
        f"Expected calibration error of the likeliest answer over {first.n:,} triplets, and what the probabilities say "
        f"of the choices; intervals over {first.over}. {said}. Features that are never sure err little too, so read it "
        "beside -log q.",
        notes=grouped_notes({row: score.note for row, score in errors.items()}, len(errors)),
    )  # fmt: skip


def _by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    models: dict[str, list[Row]] = {}
    for row in rows:
        models.setdefault(row.model, []).append(row)
    return models


def _reliability(gathered: Gathered) -> Figure:
    tables = gathered.tables("reliability")
    models = _by_model(list(tables))

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, len(models), wide=2, height=3.7, more=0.2, sharex=True, sharey=True)
        for axis, (model, rows) in zip(axes, models.items()):
            axis.plot([1 / 3, 1], [1 / 3, 1], color=look.faint, linewidth=1)
            for row in rows:
                _curve(axis, hue_of(row.setting, look), row, tables[row])
            dress(axis, look, model, x="mean probability of the likeliest answer", y="share chosen by people")
            own_legend(axis, look)  # models need not have the same settings
        return drawing

    count = next(iter(gathered.scores("calibration_error").values())).n
    said = []
    for row, table in tables.items():
        used = _used(table)
        weights = np.asarray(table["count"])[used]
        gap = np.average(
            (np.asarray(table["confidence"]) - np.asarray(table["accuracy"]))[used], weights=weights
        )
        said.append(f"{row.title} is {'more' if gap > 0 else 'less'} sure than right by {abs(gap):.3f}")
    return Figure(
        slug(f"{gathered.dataset} reliability"), "Is a probability of 0.8 right in 8 of 10?", draw,
        f"How often people chose the features' likeliest answer, by the probability that the features gave it, over "
        f"{count:,} triplets; bars are 95% intervals, the area of a point grows with its triplets. On the diagonal "
        f"probabilities are true. On average {'; '.join(said)}.",
        "Reliability curves by setting",
    )  # fmt: skip


def _used(table: Columns) -> np.ndarray:
    return np.asarray(table["temperature"], dtype=object) == "used"


def _curve(axis: Any, colour: str, row: Row, table: Columns) -> None:
    used = _used(table)
    x, y, low, high, count = (
        np.asarray(table[name], dtype=np.float64)[used]
        for name in ("confidence", "accuracy", "accuracy_low", "accuracy_high", "count")
    )
    axis.plot(x, y, color=colour, linewidth=1.3, label=setting_title(row.setting))
    axis.vlines(x, low, high, color=colour, linewidth=1, alpha=0.6)
    axis.scatter(x, y, s=6 + 60 * count / count.sum(), color=colour, zorder=3)


def _temperatures(gathered: Gathered) -> Figure:
    tables, fits = gathered.tables("temperature"), gathered.tables("fits")
    columns = {"calibration_error": "calibration error", "choice_nll": "-log q of choices, nats"}

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, 2, wide=2, height=3.2, more=0.7)
        models = list(dict.fromkeys(row.model for row in tables))
        for axis, (column, title) in zip(axes, columns.items()):
            for row, table in tables.items():
                colour = hue_of(row.setting, look)
                x, y = np.asarray(table["tau_over_spread"]), np.asarray(table[column])
                axis.plot(x, y, color=colour, linewidth=1.4, label=row.title,
                          linestyle=line_of(models.index(row.model)))  # fmt: skip
                at = np.asarray(fits[row]["tau_over_spread"], dtype=np.float64) if row in fits else x[:0]
                at = at[(at >= x.min()) & (at <= x.max())]
                axis.plot(at, np.interp(np.log(at), np.log(x), y), "o", color=colour, markersize=5)
            axis.set_xscale("log")
            if column == "choice_nll":  # sharp temperatures are worse without bound
                axis.axhline(np.log(3), color=look.faint, linewidth=1, linestyle="--")
                axis.set_ylim(top=min(axis.get_ylim()[1], 2.5))
            dress(axis, look, x="tau / spread of the similarities", y=title)
        legend(drawing, axes, look, 4)
        return drawing

    said = []
    for row, table in tables.items():
        errors, at = np.asarray(table["calibration_error"]), np.asarray(table["tau_over_spread"])
        said.append(
            f"{row.title} {errors.min():.3f} (at {at[errors.argmin()]:.3g} of the spread) to {errors.max():.3f}"
        )
    count = next(iter(gathered.scores("calibration_error").values())).n
    return Figure(
        slug(f"{gathered.dataset} temperature"), "How the result hangs on the temperature", draw,
        "Calibration error and mean -log q of the choices over temperatures in units of the spread of each setting's "
        f"own similarities, over {count:,} triplets; points are the temperatures that the table above uses, dashed is "
        f"ln 3. The error of {'; '.join(said)}.",
        "Calibration error and likelihood over temperatures",
    )  # fmt: skip
