"""An ablation's scatter: what is recommended against each other way of doing it (the paper's figures 15B and 16).

Scores of an ablation's jobs (alignet.report.ablation.Point) -> one figure, a point for each data set and student.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.report.ablation import PERCENT, Point, worded
from alignet.report.blocks import Figure, Look
from alignet.report.formatting import apart, counted, setting_title
from alignet.report.plot_style import dress, legend, marker_of, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LEAST = 2  # few-shot scores of a way: with fewer all accuracies are drawn
STUDENT = "student"  # keys of the configuration that name or change the student: colours and not ways

Way = tuple[Any, ...]  # values of the keys that are no student's, and the row
Cells = Mapping[tuple[str, str], Sequence[Score]]  # (data set, student) -> scores of the seeds


@dataclass(frozen=True)
class _Panel:
    """One way (x) against the reference (y): (data set, student) -> their scores."""

    title: str
    pairs: Mapping[tuple[str, str], tuple[Sequence[Score], Sequence[Score]]]


def against(
    name: str, title: str, measures: Sequence[str], points: Sequence[Point], beside: Sequence[Point]
) -> Figure | None:
    """The reference against every other way, a panel for each; None where ways are numbers, or there is one alone.

    The reference is the first way with the row AligNet, or else the first. Few-shot scores are drawn where a way has
    LEAST of them, otherwise all accuracies that the ablation measures.
    """
    ways = _ways(points)
    if any(isinstance(value, float | int) for way in ways for value in way[:-1]) or not ways:
        return None
    chosen = _measures(measures, points)
    first = next((way for way in ways if way[-1] == "alignet"), next(iter(ways)))
    reference = _cells(ways[first], chosen)
    others = {_named(way): _cells(found, chosen) for way, found in ways.items() if way != first}
    others |= {setting_title(point.row): _cells([point], chosen) for point in beside}
    shown = [
        _Panel(other, {key: (cells[key], reference[key]) for key in reference if key in cells})
        for other, cells in others.items()
    ]
    shown = [panel for panel in shown if panel.pairs]
    if not shown:
        return None
    named, count = _named(first), counted(len(shown[0].pairs), "point")
    caption = (
        f"{title}: {named} (y) against each of the others (x) in {', '.join(chosen)}, in %; {count} in each panel, one "
        f"for each data set (shape) and student (colour); {_bars(reference)}. Above the diagonal {named} is better. "
        f"{' '.join(_said(panel) for panel in shown)}"
    )
    return Figure(
        f"against_{name}", f"{title}: {named} against the others", lambda look: _draw(look, named, shown), caption,
        f"Scatter of accuracy, {named} against {', '.join(panel.title for panel in shown)}",
    )  # fmt: skip


def _ways(points: Sequence[Point]) -> dict[Way, list[Point]]:
    """Points by what they do, whichever the student."""
    found: dict[Way, list[Point]] = {}
    for point in points:
        values = [value for key, value in point.values.items() if not _of_student(key)]
        found.setdefault((*values, point.row), []).append(point)
    return found


def _of_student(key: str) -> bool:
    return key == STUDENT or key.startswith(f"{STUDENT}.")


def _measures(measures: Sequence[str], points: Sequence[Point]) -> list[str]:
    few = [name for name in measures if all(one.metric == "few_shot" for one in points[0].scores[name][0])]
    return few if sum(len(points[0].scores[name][0]) for name in few) >= LEAST else list(measures)


def _cells(points: Sequence[Point], measures: Sequence[str]) -> Cells:
    found = {}
    for point in points:
        student = ", ".join(worded(value) for key, value in point.values.items() if _of_student(key))
        for measure in measures:
            for place, score in enumerate(point.scores[measure][0]):
                seeds = [seed[place] for seed in point.scores[measure]]
                found[f"{score.dataset} ({measure})" if len(measures) > 1 else score.dataset, student] = seeds
    return found


def _named(way: Way) -> str:
    values = [worded(value) for value in way[:-1]]
    return " / ".join(values) if values else setting_title(way[-1])


def _bars(cells: Cells) -> str:
    seeds = len(next(iter(cells.values())))
    return "bars are 95% intervals" if seeds == 1 else f"bars are the least and largest of {seeds} seeds"


def _mean(scores: Sequence[Score]) -> float:
    return float(np.mean([score.value for score in scores]))


def _ends(scores: Sequence[Score]) -> tuple[float, float] | None:
    """The interval of a single score, the least and largest of several; None without one."""
    if len(scores) > 1:
        return min(score.value for score in scores), max(score.value for score in scores)
    low, high = scores[0].low, scores[0].high
    return None if low is None or high is None else (low, high)


def _said(panel: _Panel) -> str:
    """How many points lie above the diagonal, by how much, and how many of them surely."""
    changes = [_mean(y) - _mean(x) for x, y in panel.pairs.values()]
    up = sum(change > 0 for change in changes)
    text = f"{panel.title}: {up} of {len(changes)} above, {PERCENT * np.mean(changes):+.1f} points on average"
    single = [pair for pair in panel.pairs.values() if len(pair[0]) == 1]
    if single:
        text += f", {sum(apart(x[0], y[0]) is True for x, y in single)} with intervals apart"
    return f"{text}."


def _draw(look: Look, named: str, shown: Sequence[_Panel]) -> Drawing:
    wide = 3 if len(shown) > 2 else 2
    drawing, axes = panels(look, len(shown), wide=wide, height=8 / wide, more=0.4)
    keys = list(dict.fromkeys(key for panel in shown for key in panel.pairs))
    datasets, students = (list(dict.fromkeys(key[part] for key in keys)) for part in (0, 1))
    for axis, panel in zip(axes, shown):
        values = []
        for (dataset, student), pair in panel.pairs.items():
            x, y = (PERCENT * _mean(scores) for scores in pair)
            values += [x, y]
            hue = look.hues[students.index(student) % len(look.hues)]
            for scores, along in zip(pair, "xy"):
                ends = _ends(scores)
                if ends is not None:
                    line = [PERCENT * end for end in ends]
                    values += line
                    axis.plot(
                        *((line, [y, y]) if along == "x" else ([x, x], line)), color=look.faint, linewidth=1
                    )
            axis.plot(
                x,
                y,
                marker_of(datasets.index(dataset)),
                color=hue,
                markersize=7,
                markeredgecolor=look.paper,
                zorder=3,
            )
        margin = max(0.06 * (max(values) - min(values)), 0.5)  # percentage points
        limits = (min(values) - margin, max(values) + margin)
        axis.plot(limits, limits, color=look.faint, linewidth=1, zorder=0)
        axis.set(xlim=limits, ylim=limits)
        axis.set_box_aspect(1)
        dress(axis, look, x=f"{panel.title}, %", y=f"{named}, %")
    for number, student in enumerate(students if len(students) > 1 else ()):
        axes[0].bar(0, 0, color=look.hues[number % len(look.hues)], label=student)
    for number, dataset in enumerate(datasets):
        axes[0].plot([], [], marker_of(number), color=look.faint, linestyle="none", label=dataset)
    legend(drawing, axes[:1], look, 3)
    return drawing
