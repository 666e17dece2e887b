"""What an ablation shows: one figure and one table, from the scores of its jobs.

Scores of evaluate nodes, by job -> points -> blocks of a page, which alignet.report.files writes.
`matrix` is what tests between methods take: a row for each method, a column for each data set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from alignet.evaluate.bootstrap import Score
from alignet.report.blocks import Block, Cell, Figure, Look, Table
from alignet.report.gathered import TITLES

PERCENT = 100  # accuracies are shown in percent


@dataclass(frozen=True)
class Point:
    """One job in one row of the table. scores: by measure, for each seed those of its data sets."""

    values: Mapping[str, Any]  # key of the configuration -> its value in this job
    row: str  # a setting of the table
    scores: Mapping[str, Sequence[Sequence[Score]]]

    def estimate(self, measure: str) -> Estimate:
        """The measure over the point's data sets and seeds, with an interval; see `Estimate.over`."""
        seeds = np.array([[score.value for score in scores] for scores in self.scores[measure]])
        value = float(seeds.mean())
        n = sum(score.n for score in self.scores[measure][0])
        if len(seeds) > 1:
            each = seeds.mean(1)
            return Estimate(
                value, float(each.min()), float(each.max()), f"least and largest of {len(each)} seeds", n
            )
        if seeds.shape[1] > 1:
            error = float(seeds[0].std(ddof=1) / math.sqrt(seeds.shape[1]))
            return Estimate(
                value, value - error, value + error, f"standard error over {seeds.shape[1]} data sets", n
            )
        one = self.scores[measure][0][0]
        if one.low is None or one.high is None:
            return Estimate(value, None, None, "", n)
        return Estimate(value, one.low, one.high, f"95% interval over {one.over}", n)


@dataclass(frozen=True)
class Estimate:
    """A share within [0, 1] with an interval. over: what the interval is. n: measurements behind each seed's value."""

    value: float
    low: float | None
    high: float | None
    over: str
    n: int

    @property
    def text(self) -> str:
        """In percent with one decimal, interval in brackets."""
        shown = f"{PERCENT * self.value:.1f}"
        return shown if self.low is None or self.high is None else (
            f"{shown} [{PERCENT * self.low:.1f}, {PERCENT * self.high:.1f}]"
        )  # fmt: skip

    @property
    def errors(self) -> list[list[float]]:
        """Distances to the ends of the interval in percent, as matplotlib takes them."""
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        return [[PERCENT * max(self.value - low, 0)], [PERCENT * max(high - self.value, 0)]]


def matrix(points: Sequence[Point], measure: str) -> tuple[list[str], list[str], np.ndarray]:
    """Names of methods, names of data sets, and values (methods, data sets), the mean over seeds."""
    names = [score.dataset for score in points[0].scores[measure][0]]
    values = [
        np.mean([[score.value for score in seed] for seed in point.scores[measure]], 0) for point in points
    ]
    return [label(point) for point in points], names, np.array(values)


def label(point: Point) -> str:
    """A point in words: its values, and its row where that says more."""
    parts = [worded(value) for value in point.values.values()]
    return " / ".join(parts) if parts else TITLES.get(point.row, point.row)


def worded(value: Any) -> str:
    """A value of the configuration in words."""
    if value is None:
        return "all"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("_", " ")


def blocks(
    name: str,
    title: str,
    kind: str,
    measures: Sequence[str],
    points: Sequence[Point],
    beside: Sequence[Point],
) -> list[Block]:
    """The figure and the table. kind: `points` (each measure over the points) or `cloud` (second against first).

    points: of the jobs, in order; rows within a job together. beside: rows that no job changes.
    """
    axes = " and ".join(key.rpartition(".")[2].replace("_", " ") for key in points[0].values) or "setting"
    draw = _cloud if kind == "cloud" else _points
    said = _cloud_said(measures, points, beside) if kind == "cloud" else _points_said(measures, points)
    over = ", ".join(dict.fromkeys(point.estimate(one).over for one in measures for point in points[:1]))
    counts = ", ".join(f"{points[0].estimate(one).n:,} for {one}" for one in measures)
    bars = "Intervals stand in the table" if kind == "cloud" else f"Bars: {over or 'none'}"
    caption = f"{title}: {len(points)} points by {axes}. {bars}; n = {counts}. {said}"
    figure = Figure(
        f"ablation_{name}", title, lambda look: draw(look, axes, measures, points, beside), caption, caption
    )
    header = [*(points[0].values or ()), "row", *measures]
    rows = [_table_row(point, header, measures, len(points[0].values)) for point in (*points, *beside)]
    return [
        figure,
        Table(f"ablation_{name}", title, header, rows, f"Percent. Brackets: {over or 'none'}; n = {counts}."),
    ]


def _table_row(point: Point, header: Sequence[str], measures: Sequence[str], keys: int) -> list[Cell | str]:
    values = [worded(value) for value in point.values.values()] or ["any"] * keys
    cells = [
        Cell(one.text, one.value, one.low, one.high) for one in (point.estimate(name) for name in measures)
    ]
    return [*values, TITLES.get(point.row, point.row), *cells]


# ---- each measure over the points


def _points(
    look: Look, axes: str, measures: Sequence[str], points: Sequence[Point], beside: Sequence[Point]
) -> Drawing:
    figure, panels = _panels(look, len(measures))
    rows = list(dict.fromkeys(point.row for point in points))
    places, names, numeric = _places(points)
    for panel, measure in zip(panels, measures, strict=True):
        for number, row in enumerate(rows):
            own = [
                (place, point.estimate(measure)) for place, point in zip(places, points) if point.row == row
            ]
            shift = 0 if numeric else 0.12 * (number - (len(rows) - 1) / 2) * (len(names) < len(points))
            panel.errorbar(
                [place + shift for place, _ in own], [PERCENT * one.value for _, one in own],
                yerr=np.concatenate([one.errors for _, one in own], 1), color=look.hues[number], marker="o",
                linestyle="-" if numeric else "none", capsize=3, label=TITLES.get(row, row),
            )  # fmt: skip
        for number, point in enumerate(beside):
            panel.axhline(
                PERCENT * point.estimate(measure).value, color=look.hues[len(rows) + number], linestyle="--",
                linewidth=1.2, label=TITLES.get(point.row, point.row),
            )  # fmt: skip
        if numeric:
            panel.set_xscale("log")
            panel.minorticks_off()
        else:
            panel.margins(x=0.15)
        panel.set_xticks(sorted(set(places)), names, rotation=0 if max(map(len, names)) < 9 else 20)
        panel.set_title(f"{measure}, %", loc="left", fontsize=10, color=look.ink)
        panel.set_xlabel(axes, color=look.ink)
    if len(rows) + len(beside) > 1 and (beside or any(point.values for point in points)):
        panels[0].legend(frameon=False, fontsize=9, labelcolor=look.ink)
    return figure


def _places(points: Sequence[Point]) -> tuple[list[float], list[str], bool]:
    """Where each point stands on the axis, the axis' labels, and whether it is one of (positive) numbers."""
    single = [next(iter(point.values.values())) for point in points if len(point.values) == 1]
    numbers = [value for value in single if type(value) in (int, float) and value > 0]
    if len(numbers) == len(points) and len(set(numbers)) > 1:
        return [float(value) for value in numbers], [worded(value) for value in sorted(set(numbers))], True
    names = list(dict.fromkeys(label(point) for point in points))
    return [float(names.index(label(point))) for point in points], names, False


def _points_said(measures: Sequence[str], points: Sequence[Point]) -> str:
    """The largest and the smallest value of the first measure, and whether their intervals meet."""
    found = [(point.estimate(measures[0]), point) for point in points]
    (high, best), (low, least) = (pick(found, key=lambda pair: pair[0].value) for pick in (max, min))
    if high.value == low.value:
        return f"No difference in {measures[0]}."
    if high.low is None or low.high is None:
        meet = "how sure that is, no interval says"
    else:
        meet = "their intervals do not overlap" if high.low > low.high else "their intervals overlap"
    return (
        f"{measures[0][:1].upper()}{measures[0][1:]} is largest for {_named(best, points)} "
        f"({PERCENT * high.value:.1f}%) and least for {_named(least, points)} ({PERCENT * low.value:.1f}%); {meet}."
    )


def _named(point: Point, points: Sequence[Point]) -> str:
    several = len({one.row for one in points}) > 1 and point.values
    return f"{label(point)}, {TITLES.get(point.row, point.row)}" if several else label(point)


# ---- one measure against another


def _cloud(
    look: Look, axes: str, measures: Sequence[str], points: Sequence[Point], beside: Sequence[Point]
) -> Drawing:
    figure, (panel,) = _panels(look, 1)
    keys = list(points[0].values)
    shades = list(dict.fromkeys(point.values[keys[0]] for point in points))
    marks = list(dict.fromkeys(point.values[keys[-1]] for point in points))
    for point in points:
        x, y = (PERCENT * point.estimate(measures[part]).value for part in (1, 0))
        panel.plot(
            x, y, linestyle="none", markersize=8, color=look.hues[shades.index(point.values[keys[0]])],
            marker="os^Dv<>"[marks.index(point.values[keys[-1]]) % 7],
        )  # fmt: skip
    for number, point in enumerate(beside):
        x, y = (PERCENT * point.estimate(measures[part]).value for part in (1, 0))
        panel.plot(x, y, linestyle="none", marker="P*X"[number % 3], markersize=13, color=look.ink)
        panel.annotate(
            TITLES.get(point.row, point.row), (x, y), (7, 5), textcoords="offset points", color=look.ink, fontsize=9
        )  # fmt: skip
    for shade, value in enumerate(shades):
        panel.plot([], [], "o", color=look.hues[shade], label=f"{keys[0].rpartition('.')[2]} {worded(value)}")
    for mark, value in enumerate(marks if len(keys) > 1 else []):
        title = f"{keys[-1].rpartition('.')[2]} {worded(value)}"
        panel.plot([], [], "os^Dv<>"[mark % 7], color=look.faint, label=title)
    panel.margins(0.12)
    panel.set_xlabel(f"{measures[1]}, %", color=look.ink)
    panel.set_ylabel(f"{measures[0]}, %", color=look.ink)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=look.ink)
    return figure


def _cloud_said(measures: Sequence[str], points: Sequence[Point], beside: Sequence[Point]) -> str:
    """How many points lie below each reference in each measure."""
    said = []
    for other in beside:
        counts = [
            sum(point.estimate(one).value < other.estimate(one).value for point in points)
            for one in measures[:2]
        ]
        said.append(
            f"{counts[0]} of {len(points)} lie below {TITLES.get(other.row, other.row)} in {measures[0]}, "
            f"{counts[1]} in {measures[1]}"
        )
    return "; ".join(said) + "." if said else ""


def _panels(look: Look, number: int) -> tuple[Drawing, list[Any]]:
    figure = Drawing(figsize=(8, 3.6 if number > 1 else 4.4), facecolor=look.paper, layout="constrained")
    panels = list(figure.subplots(1, number, squeeze=False)[0])
    for panel in panels:
        panel.set_facecolor(look.paper)
        panel.tick_params(colors=look.ink, labelsize=9)
        panel.grid(color=look.faint, alpha=0.25, linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(look.faint)
    return figure, panels
