"""Networks as points in two measures: their Pareto front, intervals, and arrows from an original to its other selves.

(score, score) of each row -> points on an axis, a legend of settings and models, and what the arrows show in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.report.blocks import Look
from alignet.report.dataset_results import Row
from alignet.report.formatting import setting_title
from alignet.report.plot_style import filled, hue_of, in_order, marker_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Mapping[Row, tuple[Score, Score]]  # row -> its scores along x and y


def pareto_front(accuracy: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """Which points (n,) no other one beats: bool (n,). A point is beaten by one that is at least as good in both, and
    better in one. Equal points are on the front together. ValueError for other shapes or values that are not finite.
    """
    x, y = np.asarray(accuracy, dtype=np.float64), np.asarray(alignment, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(
            f"Pareto front: expected two arrays (n,) of finite numbers, found shapes {x.shape} and {y.shape}; leave "
            "out networks without a value."
        )
    front = np.zeros(len(x), dtype=bool)
    best = -np.inf  # alignment of all that are more accurate
    for value in np.unique(x)[::-1]:
        same = x == value
        front[same] = (y[same] == y[same].max()) & (y[same] > best)
        best = max(best, y[same].max())
    return front


def front_rows(points: Mapping[Row, Any]) -> list[Row]:
    """The rows whose front is drawn: originals, as published, or all where there are fewer than two."""
    originals = [row for row in points if row.setting == "original"]
    return originals if len(originals) > 1 else list(points)


def front(points: Points, rows: Sequence[Row]) -> list[Row]:
    """The rows on the Pareto front, the one with the least x first."""
    x, y = (np.array([points[row][place].value for row in rows]) for place in (0, 1))
    held = pareto_front(x, y)
    return [rows[place] for place in np.argsort(x, kind="stable") if held[place]]


def front_of(points: Points) -> str:
    """Whose front is drawn, in words."""
    return "original networks" if all(row.setting == "original" for row in front_rows(points)) else "all rows"


def start_of(points: Points, row: Row) -> tuple[Score, Score] | None:
    """The original that an arrow leads from; None for an original, and where it has no point."""
    return None if row.setting == "original" else points.get(Row(row.model, "original"))


def scatter(
    axis: Axes,
    look: Look,
    points: Points,
    models: Sequence[str],
    scales: tuple[float, float],
    *,
    faint: bool = False,
) -> None:
    """The points with their intervals, the front and the arrows; values times `scales`. faint: as of `filled`."""
    at = {row: (scales[0] * x.value, scales[1] * y.value) for row, (x, y) in points.items()}
    held = front(points, front_rows(points))
    axis.plot(
        [at[row][0] for row in held], [at[row][1] for row in held], color=look.faint, linewidth=6, alpha=0.35,
        solid_capstyle="round", zorder=0,
    )  # fmt: skip
    for row, scores in points.items():
        for place, (score, scale) in enumerate(zip(scores, scales, strict=True)):
            if score.low is not None and score.high is not None:
                ends = [[at[row][0]] * 2, [at[row][1]] * 2]
                ends[place] = [scale * score.low, scale * score.high]
                axis.plot(*ends, color=look.faint, linewidth=1)
        looks: dict[str, Any] = {"markeredgecolor": look.paper, "markersize": 7} | filled(
            row.setting, look, faint=faint
        )
        axis.plot(*at[row], marker_of(models.index(row.model)), **looks, zorder=3)
        if start_of(points, row) is not None:
            axis.annotate(
                "", at[row], at[Row(row.model, "original")], zorder=2,
                arrowprops={"arrowstyle": "->", "color": hue_of(row.setting, look), "shrinkA": 5, "shrinkB": 5},
            )  # fmt: skip


def name_points(
    axis: Axes, look: Look, rows: Iterable[Row], models: Sequence[str], *, faint: bool = False
) -> None:
    """Labels for the legend: each setting's colour, and each model's marker where there are several."""
    for setting in in_order(row.setting for row in rows):
        axis.plot([], [], "o", **filled(setting, look, faint=faint), label=setting_title(setting))
    for number, model in enumerate(models if len(models) > 1 else ()):
        axis.plot([], [], marker_of(number), color=look.faint, label=model)
