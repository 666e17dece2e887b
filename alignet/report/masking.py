"""The page's figure of masked recognition: accuracy by share of important pixels shown, of every row and of people.

From the scores and tables of the family `masking`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alignet.evaluate.result import Columns
from alignet.report.blocks import Block, Cell, Figure, Look, Table
from alignet.report.dataset_results import Gathered
from alignet.report.files import slug
from alignet.report.formatting import (
    BOLD,
    apart,
    best_of,
    count,
    grouped_notes,
    moved,
    score_cell,
    setting_title,
    spread,
)
from alignet.report.plot_style import dress, hue_of, legend, line_of, panels

_SCORES = {  # metric -> title of its column
    "intact_accuracy": "accuracy on whole images", "masked_area": "area under the curve",
    "human_distance": "distance from people",
}  # fmt: skip


def masking(gathered: Gathered) -> list[Block]:
    """The scores, the curves, and the curves in numbers."""
    if not gathered.scores("masked_area"):
        return []
    return [_table(gathered), _figure(gathered), _numbers(gathered)]


def _people(gathered: Gathered) -> Columns | None:
    """People's curve, which is the same for all rows."""
    return next(iter(gathered.tables("human").values()), None)


def _table(gathered: Gathered) -> Table:
    scores = {metric: gathered.scores(metric) for metric in _SCORES}
    shown = [metric for metric, found in scores.items() if found]
    best = {metric: best_of(scores[metric].values(), largest=metric != "human_distance") for metric in shown}
    rows: list[list[Cell | str]] = []
    for row in scores["masked_area"]:
        cells: list[Cell | str] = [row.title]
        for metric in shown:
            score = scores[metric].get(row)
            cells.append(score_cell(score, best=score is not None and score.value == best[metric]))
        rows.append(cells)
    areas, distances = scores["masked_area"], scores["human_distance"]
    said = f"Animal or not, from the likeliest class, over {count(areas.values())} images; intervals over images. The "
    said += "area is that under accuracy over its value on whole images, over the logarithm of the share of important "
    said += "pixels shown: 1 for a model that needs no more than the smallest."
    if distances:
        said += (
            " The distance is the mean absolute difference from people's curve, over levels: less is nearer."
        )
    return Table(
        slug(f"{gathered.dataset} masking"), f"Masked recognition: {gathered.dataset}",
        ["", *(_SCORES[metric] for metric in shown)], rows,
        f"{said} {moved(areas)} {BOLD if not distances else BOLD + ' Of distances the lowest.'}".replace("  ", " "),
        notes=grouped_notes({row: score.note for row, score in areas.items()}, len(areas)),
    )  # fmt: skip


def _figure(gathered: Gathered) -> Figure:
    tables, people = gathered.tables("curve"), _people(gathered)
    models = list(dict.fromkeys(row.model for row in tables))

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, 1, wide=1, height=3.8, more=0.7)
        for row, table in tables.items():
            x, y, low, high = (
                np.asarray(table[name], dtype=np.float64) for name in ("share", "normalised", "low", "high")
            )
            colour = hue_of(row.setting, look)
            axes[0].fill_between(100 * x, low, high, color=colour, alpha=0.12, linewidth=0)
            axes[0].plot(100 * x, y, "o", color=colour, markersize=3.5, label=row.title, linewidth=1.5,
                         linestyle=line_of(models.index(row.model)))  # fmt: skip
        if people is not None:
            x, y = (np.asarray(people[name], dtype=np.float64) for name in ("share", "accuracy"))
            axes[0].plot(100 * x, y, "s-", color=look.ink, markersize=4, linewidth=1.8, label="people")
        axes[0].axhline(1, color=look.faint, linewidth=1, zorder=0)
        axes[0].set_xscale("log")
        axes[0].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        dress(axes[0], look, x="important pixels shown, %", y="accuracy / accuracy on whole images")
        legend(drawing, axes, look, 3)
        return drawing

    return Figure(
        slug(f"{gathered.dataset} masking curves"), "How many important pixels are enough?", draw,
        f"Accuracy of animal or not over its value on whole images (line at 1), by the share of important pixels that "
        f"is shown, over {count(gathered.scores('masked_area').values())} images; bands are 95% intervals over images. "
        f"{_seen(gathered)}",
        "Curves of accuracy by share of important pixels shown, for each model and setting",
    )  # fmt: skip


def _seen(gathered: Gathered) -> str:
    """What the curves show: who is nearest to people, or else who needs fewest pixels."""
    distances, areas = gathered.scores("human_distance"), gathered.scores("masked_area")
    scores = distances or areas
    first = (min if distances else max)(scores, key=lambda row: scores[row].value)
    tied = [row.title for row in scores if row != first and apart(scores[row], scores[first]) is False]
    what = (
        f"{first.title} is nearest to people, {scores[first].value:.3f} away on average"
        if distances
        else f"{first.title} has the largest area, {scores[first].value:.3f}"
    )
    return what + (f", with an interval that meets those of {', '.join(tied)}." if tied else ".")


def _numbers(gathered: Gathered) -> Table:
    tables, people = gathered.tables("curve"), _people(gathered)
    shares = sorted({float(share) for table in tables.values() for share in table["share"]})
    lines: list[list[Cell | str]] = []
    for row, table in tables.items():
        cells: list[Cell | str] = [row.model, setting_title(row.setting)]
        at = {float(share): place for place, share in enumerate(table["share"])}
        columns = [np.asarray(table[name], dtype=np.float64) for name in ("normalised", "low", "high")]
        for share in shares:
            cells.append(
                spread(*(float(column[at[share]]) for column in columns)) if share in at else Cell("")
            )
        lines.append(cells)
    if people is not None:
        known, heights = (np.asarray(people[name], dtype=np.float64) for name in ("share", "accuracy"))
        near = [np.flatnonzero(np.isclose(known, share, rtol=0.02)) for share in shares]
        lines.append(
            [
                "people",
                "",
                *(spread(float(heights[one[0]]), None, None) if len(one) else Cell("") for one in near),
            ]
        )
    return Table(
        slug(f"{gathered.dataset} masking numbers"), f"Masked recognition: {gathered.dataset}, in numbers",
        ["model", "setting", *(f"{100 * share:.3g}%" for share in shares)], lines,
        "Accuracy over its value on whole images [95% interval], by the share of important pixels shown.", folded=True,
    )  # fmt: skip
