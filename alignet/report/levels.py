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
from alignet.report.gathered import SETTINGS, TITLES, Gathered, Row
from alignet.report.levels_people import NAMES, POINTS, file_name, legend, some, spread, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_WIDTH = 8.2  # inches


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
    cell = spread(at[name], at[f"{name}_low"], at[f"{name}_high"], decimals, scale)
    best = at[name] == _best(gathered, level, name).get(row.model)
    return Cell(cell.text, cell.value, cell.low, cell.high, best=best)


def _accuracy(gathered: Gathered, shown: list[str]) -> Table:
    rows: list[list[Cell | str]] = [
        [row.model, TITLES.get(row.setting, row.setting),
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
    name = file_name(gathered.dataset)
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
        gains = [scale * (_at(after, level)[name] - _at(before, level)[name]) for level in shown]
        parts = [
            f"{gain:+.{decimals}f}{unit} {NAMES[level]}"
            for gain, level in zip(gains, shown)
            if math.isfinite(gain)
        ]
        if parts:
            told.append(f"{model}: {', '.join(parts)}")
    return f"From original to AligNet: {'; '.join(told)}." if told else ""


def _uncertainty(gathered: Gathered, shown: list[str]) -> Table:
    rows: list[list[Cell | str]] = []
    for row, result in gathered.results.items():
        taus = [float(value) for value in result.tables["temperature"]["tau"]]
        cells = [_cell(gathered, row, level, name, 3) for name in ("rt", "disagreement") for level in shown]
        rows.append(
            [row.model, TITLES.get(row.setting, row.setting), ", ".join(f"{tau:.3g}" for tau in taus), *cells]
        )
    notes = dict.fromkeys(
        f"{row.title}: {result.tables['temperature']['note'][0]!s}."
        for row, result in gathered.results.items()
    )
    caption = (
        "Spearman correlation of the entropy of a model's three answers with people's mean log response time and with "
        "the entropy of people's answers, over triplets, with 95% intervals over triplets. The entropy hangs on the "
        f"temperature tau; how each was found stands below. {_change(gathered, shown, 'rt', 1, 3)}"
    )
    header = ("model", "setting", "tau", *(NAMES[level] for _ in range(2) for level in shown))
    groups = [("", 3), ("with response times", len(shown)), ("with disagreement", len(shown))]
    name = file_name(gathered.dataset)
    return Table(
        f"{name}_uncertainty", f"{gathered.dataset}: uncertainty", header, rows, caption, groups, list(notes)
    )


def _hue(row: Row, look: Look) -> str:
    """The colour of a setting; baselines are faint."""
    return look.hues[SETTINGS.index(row.setting)] if row.setting in SETTINGS else look.faint


def _bars(gathered: Gathered, shown: list[str]) -> Figure:
    rows = [row for row in gathered.results if row.setting in SETTINGS] or list(gathered.results)
    models = list(dict.fromkeys(row.model for row in rows))
    settings = list(dict.fromkeys(row.setting for row in rows))
    n = ", ".join(f"{NAMES[level]} {int(_at(gathered.results[rows[0]], level)['rt_n']):,}" for level in shown)
    caption = (
        "Spearman correlation of models' uncertainty (entropy of the three answers) with people's mean log response "
        f"time. Bars: one SD over bootstraps of the triplets (n: {n}). {_change(gathered, shown, 'rt', 1, 3)}"
    )

    def draw(look: Look) -> Drawing:
        from matplotlib.figure import Figure as Canvas

        canvas = Canvas(figsize=(_WIDTH, 2.9), facecolor=look.paper, layout="constrained")
        panels = canvas.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        width = 0.8 / len(settings)
        for axes, level in zip(panels, shown):
            styled(axes, look, title=NAMES[level], y="Spearman's rho" if level == shown[0] else "")
            axes.axhline(0, color=look.faint, linewidth=0.8)
            for row in rows:
                at = _at(gathered.results[row], level)
                if not math.isfinite(at["rt"]):
                    continue
                x = models.index(row.model) + (settings.index(row.setting) - (len(settings) - 1) / 2) * width
                label = TITLES.get(row.setting, row.setting) if row.model == models[0] else None
                axes.bar(x, at["rt"], 0.9 * width, yerr=at["rt_sd"], color=_hue(row, look), ecolor=look.ink,
                         label=label, error_kw={"linewidth": 1})  # fmt: skip
            axes.set_xticks(range(len(models)), models, rotation=20 if len(models) > 3 else 0)
        handles = {label: bar for axes in panels for bar, label in zip(*axes.get_legend_handles_labels())}
        canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=7, frameon=False, fontsize=9,
                      labelcolor=look.ink)  # fmt: skip
        return canvas

    name, title = file_name(gathered.dataset), f"{gathered.dataset}: uncertainty and response times"
    alt = "Bars of correlations by level, model and setting."
    return Figure(f"{name}_bars", title, draw, caption, alt)


def _scatter(gathered: Gathered, shown: list[str], model: str) -> Figure:
    rows = [Row(model, setting) for setting in SETTINGS if Row(model, setting) in gathered.results]
    parts = [
        f"{TITLES[row.setting]} "
        + ", ".join(f"{_at(gathered.results[row], level)['rt']:.2f} ({NAMES[level]})" for level in shown)
        for row in rows
    ]
    caption = (
        f"{model}: people's mean log response time for a triplet against the entropy of the model's answer (nats), "
        f"with least-squares lines over all triplets; points: at most {POINTS} of a panel. Spearman's rho: "
        f"{'; '.join(parts)}."
    )

    def draw(look: Look) -> Drawing:
        from matplotlib.figure import Figure as Canvas

        canvas = Canvas(figsize=(_WIDTH, 0.5 + 2.0 * len(rows)), facecolor=look.paper, layout="constrained")
        panels = canvas.subplots(len(rows), len(shown), sharex="row", sharey=True, squeeze=False)
        for line, row in zip(panels, rows):
            items = gathered.results[row].tables["items"]
            for axes, level in zip(line, shown):
                rho = _at(gathered.results[row], level)["rt"]
                title = f"{NAMES[level]}, rho = {rho:.2f}"
                styled(axes, look, title=title, x="model's entropy, nats",
                       y=f"{TITLES[row.setting]}\nmean log RT (s)" if level == shown[0] else "")  # fmt: skip
                _points(axes, items, level, _hue(row, look), look)
        return canvas

    name = f"{file_name(gathered.dataset)}_scatter_{file_name(model)}"
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
    moved = []
    for row in rows:
        table = gathered.results[row].tables["tau"]
        ranges = []
        for level in shown:
            values = np.array(table["rt"], dtype=float)[np.array(table["level"]) == level]
            if np.isfinite(values).any():
                ranges.append(f"{np.nanmin(values):.2f} to {np.nanmax(values):.2f}")
        moved.append(f"{row.title} {', '.join(ranges)}")
    caption = (
        "The correlations of the table where every temperature is multiplied by a factor; 1 is the table's. Range "
        f"of the correlation with response times ({', '.join(NAMES[level] for level in shown)}): {'; '.join(moved)}."
    )

    def draw(look: Look) -> Drawing:
        from matplotlib.figure import Figure as Canvas

        canvas = Canvas(figsize=(_WIDTH, 4.8), facecolor=look.paper, layout="constrained")
        panels = canvas.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
        styles = ("-", "--", ":", "-.")
        for line, name, title in zip(panels, ("rt", "disagreement"), ("response times", "disagreement")):
            for axes, level in zip(line, shown):
                styled(axes, look, title=NAMES[level] if name == "rt" else "",
                       y=f"rho with {title}" if level == shown[0] else "",
                       x="factor of tau" if name == "disagreement" else "")  # fmt: skip
                axes.axhline(0, color=look.faint, linewidth=0.8)
                axes.axvline(1, color=look.faint, linewidth=0.8)
                axes.set_xscale("log", base=2)
                for row in rows:
                    table = gathered.results[row].tables["tau"]
                    mine = np.array(table["level"]) == level
                    style = styles[models.index(row.model) % len(styles)]
                    axes.plot(np.array(table["factor"])[mine], np.array(table[name], dtype=float)[mine], style,
                              color=_hue(row, look), label=row.title)  # fmt: skip
                axes.set_xticks([1 / 16, 1 / 4, 1, 4, 16], ["1/16", "1/4", "1", "4", "16"])
        if len(rows) <= 4:
            legend(panels[0][0], look, loc="best")
        else:
            handles, labels = panels[0][0].get_legend_handles_labels()
            canvas.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9,
                          labelcolor=look.ink)  # fmt: skip
        return canvas

    alt = "Lines of the correlation over factors of the temperature, by level."
    name = f"{file_name(gathered.dataset)}_temperature"
    return Figure(name, f"{gathered.dataset}: the temperature", draw, caption, alt)
