"""Models at three levels of abstraction, on the page: accuracy, and uncertainty against response times.

results of the family levels -> the tables of alignet.report.levels_tables; figures 8 to 11 of the paper; how the
result moves with the temperature
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.evaluate.result import Result
from alignet.report.blocks import Block, Figure, Look
from alignet.report.dataset_results import SETTINGS, Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import setting_title
from alignet.report.levels_people import NAMES, POINTS, some
from alignet.report.levels_tables import accuracy_table, at_level, change, levels_of, uncertainty_table
from alignet.report.plot_style import canvas, dress, hue_of, in_order, legend, line_of, name_ticks, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

CHANCE = 1 / 3  # of an odd one out
CORRELATED = {"rt_spearman": "with response times", "disagreement_spearman": "with disagreement"}


def levels(gathered: Gathered) -> Sequence[Block]:
    """Accuracy by level, uncertainty by level, and the figures."""
    shown = levels_of(gathered)
    blocks: list[Block] = [
        accuracy_table(gathered, shown),
        uncertainty_table(gathered, shown),
        _bars(gathered, shown),
    ]
    for model in dict.fromkeys(row.model for row in gathered.results if row.setting in SETTINGS):
        blocks.append(_scatter(gathered, shown, model))
    return [*blocks, _over_tau(gathered, shown)]


def _bars(gathered: Gathered, shown: list[str]) -> Figure:
    rows = [row for row in gathered.results if row.setting in SETTINGS] or list(gathered.results)
    models = list(dict.fromkeys(row.model for row in rows))
    settings = in_order(row.setting for row in rows)
    n = ", ".join(
        f"{NAMES[level]} {int(at_level(gathered.results[rows[0]], level)['rt_n']):,}" for level in shown
    )
    caption = (
        "Spearman correlation of models' uncertainty (entropy of the three answers) with people's mean log response "
        f"time. Bars: one SD over bootstraps of the triplets (n: {n}). {change(gathered, shown, 'rt', 1, 3)}"
    )

    def draw(look: Look) -> Drawing:
        drawing, axes = panels(look, len(shown), wide=3, height=2.4, sharey=True)
        width = 0.8 / len(settings)
        for axis, level in zip(axes, shown):
            dress(axis, look, NAMES[level], y="Spearman's rho" if level == shown[0] else "")
            axis.axhline(0, color=look.faint, linewidth=0.8)
            for row in sorted(rows, key=lambda row: settings.index(row.setting)):
                at = at_level(gathered.results[row], level)
                if not math.isfinite(at["rt"]):
                    continue
                x = models.index(row.model) + (settings.index(row.setting) - (len(settings) - 1) / 2) * width
                axis.bar(x, at["rt"], 0.9 * width, yerr=at["rt_sd"], color=hue_of(row.setting, look),
                         ecolor=look.ink, label=setting_title(row.setting), error_kw={"linewidth": 1})  # fmt: skip
            name_ticks(axis, models)
        legend(drawing, axes, look)
        return drawing

    name, title = slug(gathered.dataset), f"{gathered.dataset}: uncertainty and response times"
    alt = "Bars of correlations by level, model and setting."
    return Figure(f"{name}_bars", title, draw, caption, alt)


def _scatter(gathered: Gathered, shown: list[str], model: str) -> Figure:
    rows = [Row(model, setting) for setting in SETTINGS if Row(model, setting) in gathered.results]
    parts = [
        f"{setting_title(row.setting)} "
        + ", ".join(f"{at_level(gathered.results[row], level)['rt']:.2f} ({NAMES[level]})" for level in shown)
        for row in rows
    ]
    caption = (
        f"{model}: people's mean log response time for a triplet against the entropy of the model's answer (nats), "
        f"with least-squares lines over all triplets; points: at most {POINTS} of a panel. Spearman's rho: "
        f"{'; '.join(parts)}."
    )

    def draw(look: Look) -> Drawing:
        drawing = canvas(look, 0.5 + 2.0 * len(rows))
        grid = drawing.subplots(len(rows), len(shown), sharex="row", sharey=True, squeeze=False)
        for line, row in zip(grid, rows):
            items = gathered.results[row].tables["items"]
            for axes, level in zip(line, shown):
                rho = at_level(gathered.results[row], level)["rt"]
                title = f"{NAMES[level]}, rho = {rho:.2f}"
                dress(axes, look, title, x="model's entropy, nats",
                       y=f"{setting_title(row.setting)}\nmean log RT (s)" if level == shown[0] else "")  # fmt: skip
                _points(axes, items, level, hue_of(row.setting, look), look)
        return drawing

    name = f"{slug(gathered.dataset)}_scatter_{slug(model)}"
    alt = "Scatters of response time on uncertainty: a column for each level, a row for each setting."
    return Figure(
        name, f"{gathered.dataset}: response times on the uncertainty of {model}", draw, caption, alt
    )


def _points(axes: Any, items: Mapping[str, Any], level: str, colour: str, look: Look) -> None:
    mine = np.array(items["level"]) == level
    x, y = np.array(items["entropy"], dtype=float)[mine], np.array(items["mean_log_rt"], dtype=float)[mine]
    held = np.isfinite(x) & np.isfinite(y)
    x, y = x[held], y[held]
    shown = some(len(x))
    axes.scatter(x[shown], y[shown], s=7, color=colour, alpha=0.45, linewidths=0)
    if len(x) > 2 and np.ptp(x) > 0:
        slope, at = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, at + slope * ends, color=look.ink, linewidth=1.5)


def _over_tau(gathered: Gathered, shown: list[str]) -> Figure:
    rows = [row for row in gathered.results if row.setting in SETTINGS] or list(gathered.results)
    models = list(dict.fromkeys(row.model for row in rows))
    moves = {row: _largest_move(gathered.results[row], shown) for row in rows}
    most = max(moves, key=lambda row: moves[row])
    still = ", ".join(f"{row.title} {move:.2f}" for row, move in moves.items())
    caption = (
        "The correlations of the table where every temperature is multiplied by a factor; 1 is the table's. The most "
        f"that a correlation with response times of one level moves over the factors: {still}; the largest is that of "
        f"{most.title}."
    )

    def draw(look: Look) -> Drawing:
        drawing = canvas(look, 5.0)
        grid = drawing.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
        for line, name, title in zip(grid, ("rt", "disagreement"), ("response times", "disagreement")):
            for axes, level in zip(line, shown):
                dress(axes, look, NAMES[level] if name == "rt" else "",
                      y=f"rho with {title}" if level == shown[0] else "",
                      x="factor of tau" if name == "disagreement" else "")  # fmt: skip
                axes.axhline(0, color=look.faint, linewidth=0.8)
                axes.axvline(1, color=look.faint, linewidth=0.8)
                axes.set_xscale("log", base=2)
                for row in rows:
                    table = gathered.results[row].tables["tau"]
                    mine = np.array(table["level"]) == level
                    axes.plot(np.array(table["factor"])[mine], np.array(table[name], dtype=float)[mine],
                              line_of(models.index(row.model)), color=hue_of(row.setting, look),
                              label=row.title)  # fmt: skip
                axes.set_xticks([1 / 16, 1 / 4, 1, 4, 16], ["1/16", "1/4", "1", "4", "16"])
        legend(drawing, grid.flat, look, 3)
        return drawing

    alt = "Lines of the correlation over factors of the temperature, by level."
    name = f"{slug(gathered.dataset)}_temperature"
    return Figure(name, f"{gathered.dataset}: the temperature", draw, caption, alt)


def _largest_move(result: Result, shown: list[str]) -> float:
    """Over levels, the largest range of the correlation with response times over factors of the temperature."""
    table = result.tables["tau"]
    found = [0.0]
    for level in shown:
        values = np.array(table["rt"], dtype=float)[np.array(table["level"]) == level]
        if np.isfinite(values).any():
            found.append(float(np.nanmax(values) - np.nanmin(values)))
    return max(found)
