"""What an ablation shows: a figure and a table, from the scores of its jobs; alignet.report.ablation_against adds one.

Scores of evaluate nodes, by job -> points -> blocks -> a page of its own, which alignet.report.page writes.
`matrix` is what tests between methods take: a row for each method, a column for each data set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.report.blocks import Block, Cell, Figure, Look, Section, Table
from alignet.report.formatting import counted, setting_title, spread
from alignet.report.page import Page
from alignet.report.plot_style import FONT, dress, hue_of, legend, marker_of, panels
from alignet.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

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
    return " / ".join(parts) if parts else setting_title(point.row)


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
    said = sentence(kind, measures, points, beside)
    over = ", ".join(dict.fromkeys(point.estimate(one).over for one in measures for point in points[:1]))
    counts = ", ".join(f"{points[0].estimate(one).n:,} for {one}" for one in measures)
    bars = "Intervals stand in the table" if kind == "cloud" else f"Bars: {over or 'none'}"
    caption = f"{title}: {counted(len(points), 'point')} by {axes}. {bars}; n = {counts}. {said}"
    figure = Figure(
        f"ablation_{name}", title, lambda look: draw(look, axes, measures, points, beside), caption, caption
    )
    header = [*(points[0].values or ()), "row", *measures]
    rows = [_table_row(point, header, measures, len(points[0].values)) for point in (*points, *beside)]
    return [
        figure,
        Table(
            f"ablation_{name}_numbers",
            f"{title}, in numbers",
            header,
            rows,
            f"Percent. Brackets: {over or 'none'}; n = {counts}.",
        ),
    ]


def sentence(kind: str, measures: Sequence[str], points: Sequence[Point], beside: Sequence[Point]) -> str:
    """What there is to see; "" for a cloud with nothing beside it."""
    return _cloud_said(measures, points, beside) if kind == "cloud" else _points_said(measures, points)


def page(title: str, banner: str, said: str, made: Sequence[Block], source: Section) -> Page:
    """The page of an ablation. said: its sentence. made: its figure and table. source: where they come from."""
    return Page(
        title=title, subtitle="An ablation", banner=banner[:1].upper() + banner[1:], warning="",
        summary=Summary((said,) if said else (), (), ()), sections=[Section("ablations", "Results", made), source],
    )  # fmt: skip


def _table_row(point: Point, header: Sequence[str], measures: Sequence[str], keys: int) -> list[Cell | str]:
    values = [worded(value) for value in point.values.values()] or ["any"] * keys
    cells = [
        spread(one.value, one.low, one.high, digits=1, scale=PERCENT)
        for one in (point.estimate(name) for name in measures)
    ]
    return [*values, setting_title(point.row), *cells]


# ---- each measure over the points


def _points(
    look: Look, axes: str, measures: Sequence[str], points: Sequence[Point], beside: Sequence[Point]
) -> Drawing:
    figure, axes_of = panels(look, len(measures), wide=2, height=3.6 if len(measures) > 1 else 4.4, more=0.3)
    rows = list(dict.fromkeys(point.row for point in points))
    places, names, numeric = _places(points)
    for panel, measure in zip(axes_of, measures, strict=True):
        for number, row in enumerate(rows):
            own = [
                (place, point.estimate(measure)) for place, point in zip(places, points) if point.row == row
            ]
            shift = 0 if numeric else 0.12 * (number - (len(rows) - 1) / 2) * (len(names) < len(points))
            panel.errorbar(
                [place + shift for place, _ in own], [PERCENT * one.value for _, one in own],
                yerr=np.concatenate([one.errors for _, one in own], 1), color=hue_of(row, look), marker="o",
                linestyle="-" if numeric else "none", capsize=3, label=setting_title(row),
            )  # fmt: skip
        for number, point in enumerate(beside):
            taken = [hue_of(row, look) for row in rows]  # a row may stand beside its own setting's points
            hue = hue_of(point.row, look)
            panel.axhline(
                PERCENT * point.estimate(measure).value, color=look.ink if hue in taken else hue,
                linestyle=("--", ":", "-.")[number % 3],
                linewidth=1.2, label=setting_title(point.row),
            )  # fmt: skip
        if numeric:
            panel.set_xscale("log")
            panel.minorticks_off()
        else:
            panel.margins(x=0.15)
        panel.set_xticks(sorted(set(places)), names, rotation=0 if max(map(len, names)) < 9 else 20)
        dress(panel, look, f"{measure}, %", x=axes, grid=True)
    legend(figure, axes_of, look)
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
    return f"{label(point)}, {setting_title(point.row)}" if several else label(point)


# ---- one measure against another


def _cloud(
    look: Look, axes: str, measures: Sequence[str], points: Sequence[Point], beside: Sequence[Point]
) -> Drawing:
    figure, (panel,) = panels(look, 1, wide=1, height=4.4, more=0)
    keys = list(points[0].values)
    shades = list(dict.fromkeys(point.values[keys[0]] for point in points))
    marks = list(dict.fromkeys(point.values[keys[-1]] for point in points))
    for point in points:
        x, y = (PERCENT * point.estimate(measures[part]).value for part in (1, 0))
        panel.plot(
            x, y, linestyle="none", markersize=8, color=look.hues[shades.index(point.values[keys[0]])],
            marker=marker_of(marks.index(point.values[keys[-1]])),
        )  # fmt: skip
    for number, point in enumerate(beside):
        x, y = (PERCENT * point.estimate(measures[part]).value for part in (1, 0))
        panel.plot(x, y, linestyle="none", marker="P*X"[number % 3], markersize=13, color=look.ink)
        panel.annotate(
            setting_title(point.row), (x, y), (7, 5), textcoords="offset points", color=look.ink, fontsize=FONT
        )  # fmt: skip
    for shade, value in enumerate(shades):
        panel.plot([], [], "o", color=look.hues[shade], label=f"{keys[0].rpartition('.')[2]} {worded(value)}")
    for mark, value in enumerate(marks if len(keys) > 1 else []):
        title = f"{keys[-1].rpartition('.')[2]} {worded(value)}"
        panel.plot([], [], marker_of(mark), linestyle="none", color=look.faint, label=title)
    panel.margins(0.12)
    dress(panel, look, x=f"{measures[1]}, %", y=f"{measures[0]}, %", grid=True)
    figure.legend(loc="outside right upper", frameon=False, fontsize=FONT, labelcolor=look.ink)
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
            f"{counts[0]} of {len(points)} lie below {setting_title(other.row)} in {measures[0]}, "
            f"{counts[1]} in {measures[1]}"
        )
    return "; ".join(said) + "." if said else ""
