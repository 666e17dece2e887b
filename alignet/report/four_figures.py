"""All rows over all measures at once: one line for each row, each measure between its worst and its best row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignet.report.blocks import Figure, Look
from alignet.report.dataset_results import Row
from alignet.report.four_measures import SYSTEMS, Board
from alignet.report.plot_style import FONT, LINES, canvas, dress, filled, hue_of, legend, line_of, marker_of

BRIEF = {"invariance": "IRIs", "adversarial": "adversarial\nalignment", "harmonizer": "Neural\nHarmonizer"}


def scaled(values: np.ndarray) -> np.ndarray:
    """Each column of values (rows, measures) between 0, its worst, and 1, its best; NaN stays, equal ones are 1/2."""
    with np.errstate(invalid="ignore"):
        low, high = (function(values, axis=0, initial=end, where=np.isfinite(values))
                     for function, end in ((np.min, np.inf), (np.max, -np.inf)))  # fmt: skip
        spread = high - low
        placed = (values - low) / np.where(spread > 0, spread, 1)
    return np.where(np.isfinite(values), np.where(spread > 0, placed, 0.5), np.nan)


def parallel(found: Board) -> Figure:
    """Measures below each other, from the worst row on the left to the best on the right; a line for each row."""
    places, columns = scaled(found.matrix()), found.columns
    models = list(dict.fromkeys(row.model for row in found.rows))

    def draw(look: Look) -> Any:
        drawing = canvas(look, 1.6 + 0.5 * len(columns) + 0.2 * -(-len(found.rows) // 3))
        axis = dress(drawing.add_subplot(), look)
        heights = [-float(place) for place in range(len(columns))]
        for height, column in zip(heights, columns, strict=True):
            ends = [score.value for score in column.scores.values()]
            axis.plot([0, 1], [height, height], color=look.faint, alpha=0.4, linewidth=0.8, zorder=0)
            for x, value, side in ((-0.02, min(ends), "right"), (1.02, max(ends), "left")):
                axis.text(
                    x, height, column.text(value), ha=side, va="center", color=look.ink, fontsize=FONT - 1
                )
        for number, row in enumerate(found.rows):
            hue, looks, line = _style(row, number, models, look)
            kept = np.isfinite(places[number])
            axis.plot(places[number], heights, color=hue, linestyle=line, linewidth=1.5, alpha=0.85)
            axis.plot(
                places[number][kept],
                np.array(heights)[kept],
                linestyle="none",
                label=found.label(row),
                markersize=6,
                **looks,
            )
        axis.set_yticks(heights, [column.title for column in columns])
        axis.set_xticks([0, 1], ["worst row", "best row"])
        axis.set_xlim(-0.16, 1.16)
        axis.set_ylim(heights[-1] - 0.6, 0.6)
        for side in ("left", "bottom"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="both", length=0)
        _brackets(axis, found, look)
        legend(drawing, [axis], look, columns=3)
        return drawing

    tops = {row: int((places[number] == 1).sum()) for number, row in enumerate(found.rows)}
    most = max(tops.values())
    first = ", ".join(found.label(row) for row in found.rows if tops[row] == most)
    return Figure(
        "four_parallel", "Every row in every measure", draw,
        f"{len(found.rows)} rows over {len(columns)} measures. Each line is a row; each measure is scaled between the "
        "worst row (left, its value printed) and the best (right), so distances compare within a measure alone. All "
        f"measures are better to the right. A line breaks where a row has no value. "
        f"Best in most measures: {first} ({most} of {len(columns)}). "
        "Intervals are in the table.",
        "Parallel coordinates: one line for each network, one axis for each measure of the four systems",
    )  # fmt: skip


def _style(row: Row, number: int, models: Sequence[str], look: Look) -> tuple[str, dict[str, Any], str]:
    """The colour, the marker and the line of a row: by its setting, or of a network on its own by its place."""
    if row.setting:
        looks = {"markeredgecolor": look.paper, "marker": marker_of(models.index(row.model))}
        line = line_of(models.index(row.model), row.setting)
        return hue_of(row.setting, look), looks | filled(row.setting, look, faint=True), line
    hue = look.hues[number % len(look.hues)]
    looks = {"color": hue, "markeredgecolor": look.paper, "marker": marker_of(number)}
    return hue, looks, LINES[number // len(look.hues) % len(LINES)]


def _brackets(axis: Any, found: Board, look: Look) -> None:
    """The systems' names on the right of their measures, with a line between two systems."""
    keys = [one.measure.system for one in found.columns]
    for key in dict.fromkeys(keys):
        first, last = keys.index(key), len(keys) - 1 - keys[::-1].index(key)
        axis.annotate(
            BRIEF.get(key, SYSTEMS[key]), (1.01, -(first + last) / 2), xycoords=("axes fraction", "data"), ha="left",
            va="center", color=look.faint, fontsize=FONT - 1,
        )  # fmt: skip
        if last < len(keys) - 1:
            axis.axhline(-last - 0.5, color=look.faint, alpha=0.5, linewidth=0.8, linestyle=":", zorder=0)
