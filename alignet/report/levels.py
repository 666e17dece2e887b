"""Models at three levels of abstraction, on the page: accuracy, and uncertainty against response times.

results of the family levels -> two tables; figures 8 to 11 of the paper; how the result moves with the temperature
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.evaluate.result import Result
from alignet.report.blocks import Block, Cell, Figure, Look, Table
from alignet.report.drawing import canvas, dress, hue_of, in_order, legend, line_of, name_ticks, panels
from alignet.report.files import slug
from alignet.report.gathered import SETTINGS, Gathered, Row
from alignet.report.levels_people import NAMES, POINTS, some
from alignet.report.numbers import grouped_notes, setting_title, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


def levels(gathered: Gathered) -> Sequence[Block]:
    """Accuracy by level, uncertainty by level, and the figures."""
    shown = _levels(gathered)
    blocks: list[Block] = [_accuracy(gathered, shown), _uncertainty(gathered, shown), _bars(gathered, shown)]
    for model in dict.fromkeys(row.model for row in gathered.results if row.setting in SETTINGS):
        blocks.append(_scatter(gathered, shown, model))
    return [*blocks, _over_tau(gathered, shown)]


def _levels(gathered: Gathered) -> list[str]:
    first = next(iter(gathered.results.values()))
    return [str(level) for level in first.tables["levels"]["level"]]


def _at(result: Result, level: str) -> dict[str, float]:
    """What the table `levels` says of one level; NaN for what it does not."""
    table = result.tables["levels"]
    place = [str(name) for name in table["level"]].index(level)
    found = {name: values[place] for name, values in table.items() if name != "level"}
    return {name: float("nan") if value is None else float(value) for name, value in found.items()}


def _competing(gathered: Gathered) -> list[Row]:
    """The rows of models that are aligned, among which the best is marked."""
    with_many = {row.model for row in gathered.results if row.setting in ("alignet", "distillation")}
    return [row for row in gathered.results if row.model in with_many]


def _best(gathered: Gathered, level: str, name: str) -> dict[str, float]:
    """The largest value of each aligned model that has several rows."""
    values: dict[str, list[float]] = {}
    for row in _competing(gathered):
        values.setdefault(row.model, []).append(_at(gathered.results[row], level)[name])
    return {model: max(found) for model, found in values.items() if len(found) > 1}


def _cell(gathered: Gathered, row: Row, level: str, name: str, decimals: int, scale: float = 1.0) -> Cell:
    at = _at(gathered.results[row], level)
    best = at[name] == _best(gathered, level, name).get(row.model)
    return spread(at[name], at[f"{name}_low"], at[f"{name}_high"], digits=decimals, scale=scale, best=best)


def _accuracy(gathered: Gathered, shown: list[str]) -> Table:
    rows: list[list[Cell | str]] = [
        [row.model, setting_title(row.setting),
         *(_cell(gathered, row, level, "accuracy", 1, 100) for level in shown)]
        for row in gathered.results
    ]  # fmt: skip
    some_row = next(iter(gathered.results.values()))
    at = {level: _at(some_row, level) for level in shown}
    for name, title in (("ceiling_untied", "leave-one-out"), ("ceiling", "with modal ties")):
        values = [at[level][name] for level in shown]
        rows.append(
            ["people", title, *(Cell(f"{100 * v:.1f}", v) if math.isfinite(v) else "" for v in values)]
        )
    counts = ", ".join(
        f"{NAMES[level]} {int(at[level]['n']):,} (left out: {int(at[level]['modal_ties']):,} modal ties)"
        for level in shown
    )  # fmt: skip
    caption = (
        "Odd-one-out accuracy in % against the majority of people, with 95% intervals over images; chance 33.3. "
        "People: how often one person's answer is the majority's of the others; a model may surpass it, since it is "
        f"measured against the majority of all. Triplets: {counts}. "
        + _change(gathered, shown, "accuracy", 100, 1, " points")
    )
    header = ("model", "setting", *(NAMES[level] for level in shown))
    name = slug(gathered.dataset)
    return Table(f"{name}_accuracy", f"{gathered.dataset}: accuracy by level", header, rows, caption)


def _change(
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
            was, now = _at(before, level), _at(after, level)
            gain = scale * (now[name] - was[name])
            if math.isfinite(gain):
                clear = now[f"{name}_low"] > was[f"{name}_high"] or now[f"{name}_high"] < was[f"{name}_low"]
                said = "95% intervals apart" if clear else "95% intervals overlap"
                parts.append(f"{gain:+.{decimals}f}{unit} {NAMES[level]} ({said})")
        if parts:
            told.append(f"{model}: {', '.join(parts)}")
    return f"From original to AligNet: {'; '.join(told)}." if told else ""


def _uncertainty(gathered: Gathered, shown: list[str]) -> Table:
    rows: list[list[Cell | str]] = []
    for row, result in gathered.results.items():
        taus = [float(value) for value in result.tables["temperature"]["tau"]]
        cells = [_cell(gathered, row, level, name, 3) for name in ("rt", "disagreement") for level in shown]
        rows.append([row.model, setting_title(row.setting), ", ".join(f"{tau:.3g}" for tau in taus), *cells])
    notes = grouped_notes(
        {row: str(result.tables["temperature"]["note"][0]) for row, result in gathered.results.items()},
        len(gathered.results),
    )
    caption = (
        "Spearman correlation of the entropy of a model's three answers with people's mean log response time and with "
        "the entropy of people's answers, over triplets, with 95% intervals over triplets. The entropy hangs on the "
        f"temperature tau; how each was found stands below. {_change(gathered, shown, 'rt', 1, 3)}"
    )
    header = ("model", "setting", "tau", *(NAMES[level] for _ in range(2) for level in shown))
    groups = [("", 3), ("with response times", len(shown)), ("with disagreement", len(shown))]
    name = slug(gathered.dataset)
    return Table(
        f"{name}_uncertainty", f"{gathered.dataset}: uncertainty", header, rows, caption, groups, notes
    )


def _bars(gathered: Gathered, shown: list[str]) -> Figure:
    rows = [row for row in gathered.results if row.setting in SETTINGS] or list(gathered.results)
    models = list(dict.fromkeys(row.model for row in rows))
    settings = in_order(row.setting for row in rows)
    n = ", ".join(f"{NAMES[level]} {int(_at(gathered.results[rows[0]], level)['rt_n']):,}" for level in shown)
    caption = (
        "Spearman correlation of models' uncertainty (entropy of the three answers) with people's mean log response "
        f"time. Bars: one SD over bootstraps of the triplets (n: {n}). {_change(gathered, shown, 'rt', 1, 3)}"
    )

    def draw(look: Look) -> Drawing:
        drawing, axes = panels(look, len(shown), wide=3, height=2.4, sharey=True)
        width = 0.8 / len(settings)
        for axis, level in zip(axes, shown):
            dress(axis, look, NAMES[level], y="Spearman's rho" if level == shown[0] else "")
            axis.axhline(0, color=look.faint, linewidth=0.8)
            for row in sorted(rows, key=lambda row: settings.index(row.setting)):
                at = _at(gathered.results[row], level)
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
        + ", ".join(f"{_at(gathered.results[row], level)['rt']:.2f} ({NAMES[level]})" for level in shown)
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
                rho = _at(gathered.results[row], level)["rt"]
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
