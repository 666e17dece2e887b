"""Networks under their own names as points in two measures: intervals, Pareto front, names, arrows.

(score, score) of each network -> points on an axis, and names beside those that have room. Unlike
report.scatter, which is of a run's models and settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from alignet.evaluate.bootstrap import Score
from alignet.report import scatter as of_rows
from alignet.report.blocks import Look
from alignet.report.dataset_results import Row
from alignet.report.plot_style import FONT, errors

NAMED = 16  # networks of which all are named; of more, those on the front and at arrows
RADIUS = 4  # points, of a marker, which names keep clear of
LONG = 24  # letters of a name from which on panels stand below each other
_OFFSETS = (
    (5, 5),
    (5, -5),
    (5, 14),
    (5, -14),
)  # of names from their points, in points; the first that is free


@dataclass(frozen=True)
class Network(Row):
    """A network under its own name, which has no settings beside it."""

    setting: str = ""

    @property
    def title(self) -> str:
        """Its name."""
        return self.model


Points = Mapping[Network, tuple[Score, Score]]  # scores along x and y


def front(points: Points) -> list[Network]:
    """Those on the Pareto front of all, the one with the least x first."""
    rows: dict[Row, tuple[Score, Score]] = dict(points.items())
    return [Network(row.model) for row in of_rows.front(rows, list(rows))]


def scatter(
    axis: Any,
    look: Look,
    points: Points,
    scales: tuple[float, float],
    kinds: Sequence[tuple[str, str, Sequence[Network]]],
    arrows: Sequence[tuple[str, str]],
) -> None:
    """The points with their intervals, the front behind them, and arrows from one network to another.

    scales: of values along x and y. kinds: (colour, label of the legend, networks); empty ones are left out. arrows:
    pairs of names; those without a point are left out.
    """
    at = {row.model: (scales[0] * x.value, scales[1] * y.value) for row, (x, y) in points.items()}
    held = front(points)
    axis.plot(
        *zip(*(at[row.model] for row in held)), color=look.faint, linewidth=6, alpha=0.35, solid_capstyle="round",
        zorder=0,
    )  # fmt: skip
    for hue, label, those in kinds:
        if those:
            x, y = ([points[row][place] for row in those] for place in (0, 1))
            axis.errorbar(
                *zip(*(at[row.model] for row in those)), xerr=errors(x, scales[0]), yerr=errors(y, scales[1]), fmt="o",
                color=hue, ecolor=look.faint, elinewidth=1, markersize=7, markeredgecolor=look.paper, label=label,
                zorder=3,
            )  # fmt: skip
    for start, end in arrows:
        if start in at and end in at:
            axis.annotate(
                "", at[end], at[start], zorder=2,
                arrowprops={"arrowstyle": "->", "color": look.hues[1], "shrinkA": 5, "shrinkB": 5},
            )  # fmt: skip


def named(points: Points, arrows: Sequence[tuple[str, str]], *, few: bool = False) -> list[Network]:
    """The networks that get a name: of up to NAMED all, of more or with `few` those on the front and at arrows."""
    if len(points) <= NAMED and not few:
        return list(points)
    held, ends = front(points), {name for pair in arrows for name in pair}
    return [row for row in points if row in held or row.model in ends]


def name_points(
    drawing: Any, look: Look, panels: Sequence[tuple[Any, Points, tuple[float, float], Sequence[Network]]]
) -> None:
    """Names beside points, once everything else is drawn, which take no room from the panels.

    panels: (axis, points, scales, networks to name). Points in the right two fifths of an axis have their name on the
    left. A name that meets a point or an earlier name, or leaves its panel, is shifted, or left out where no place is
    free.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    drawing.draw_without_rendering()  # lays the panels out, which places of names depend on
    for axis, points, (along, up), rows in panels:
        room, radius = axis.get_window_extent(), RADIUS * drawing.dpi / 72
        centres = axis.transData.transform([(along * x.value, up * y.value) for x, y in points.values()])
        taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in centres]
        taken += [text.get_window_extent() for text in axis.texts if text.get_text()]
        for row in rows:
            x, y = points[row]
            at = along * x.value, up * y.value
            right = axis.transAxes.inverted().transform(axis.transData.transform(at))[0] > 0.6
            for side, (over, above) in product((-1, 1) if right else (1, -1), _OFFSETS):
                text = axis.annotate(
                    row.title, at, (side * over, above), textcoords="offset points", color=look.ink,
                    fontsize=FONT - 1, ha="right" if side < 0 else "left", va="bottom" if above > 0 else "top",
                    path_effects=[withStroke(linewidth=2, foreground=look.paper)], zorder=4,
                )  # fmt: skip
                text.set_in_layout(False)
                box = text.get_window_extent()
                inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
                if inside and not any(box.overlaps(other) for other in taken):
                    taken.append(box)
                    break
                text.remove()
