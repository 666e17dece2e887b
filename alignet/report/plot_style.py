"""What the page's figures share: paper, axes, legends, and which hue, marker and line stands for what.

Look -> a matplotlib figure in its colours -> builders of sections draw on it. A setting has one hue on every figure of
every page, a model one marker and one line style within a figure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.config import INGREDIENTS, trained_role
from alignet.report.blocks import Look
from alignet.report.dataset_results import SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from alignet.evaluate.bootstrap import Score

WIDTH = 8.0  # inches, of a figure as wide as the page's text
FONT = 9  # points; titles have one more
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "p")
LINES = ("-", "--", ":", "-.")
_ORDER = (
    *SETTINGS,
    "direct",
    "global",
    "glocal",
    "harmonized",
    "alignet-harmonized",
    "alignet-and-harmonized",
    "robust-l2",
    "robust-linf",
    "robust-free",
)
# rows of maps and rows of other transforms stand on one page in none of our experiments: there are eight hues
_HUES = dict(zip(_ORDER, (0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 4, 4, 4), strict=True))
_VARIANTS = {"robust-linf": 1, "robust-free": 2, "shuffled-maps": 1}  # told apart within their hue
_DASHED = {
    "robust-l2": 1,
    "robust-linf": 2,
    "robust-free": 3,
    "shuffled-maps": 1,
}  # robust hues are like others
_INGREDIENTS = dict(
    zip(INGREDIENTS, (0, 3, 5, 6, 7), strict=True)
)  # by the loss that a row's name begins with


def hue_of(setting: str, look: Look) -> str:
    """The colour of a setting; of an ingredient that of its loss; baselines are faint."""
    if trained_role(setting) and setting not in _HUES:
        return look.hues[_INGREDIENTS.get(re.split("[-@]", setting)[0], _HUES["robust-l2"])]
    return look.hues[_HUES[setting]] if setting in _HUES else look.faint


def in_order(settings: Iterable[str]) -> list[str]:
    """Settings, each once, in the order in which legends and bars show them."""
    return sorted(
        dict.fromkeys(settings), key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)
    )


def filled(setting: str, look: Look, *, faint: bool = False) -> dict[str, Any]:
    """How a setting's markers are filled; of settings that share a hue the second is hollow, the third half.

    faint: whether that holds of settings without a hue too.
    """
    hue, variant = hue_of(setting, look), _VARIANTS.get(setting, 0) if faint or setting in _HUES else 0
    if not variant:
        return {"color": hue}
    return {
        "color": hue, "markeredgecolor": hue, "markerfacecolor": look.paper if variant == 1 else hue,
        "markeredgewidth": 1.6, "fillstyle": "full" if variant == 1 else "left", "markerfacecoloralt": look.paper,
    }  # fmt: skip


def marker_of(place: int) -> str:
    """The marker of the model (or data set) at a place."""
    return MARKERS[place % len(MARKERS)]


def line_of(place: int, setting: str = "") -> str:
    """The line style of the model at a place; settings of one hue, or of two hues alike, differ."""
    return LINES[(place + _DASHED.get(setting, 0)) % len(LINES)]


def canvas(look: Look, height: float, width: float = WIDTH) -> Drawing:
    """An empty figure on the look's paper, laid out without overlaps; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor=look.paper, layout="constrained")


def panels(
    look: Look, count: int, *, wide: int, height: float, more: float = 0.5, **options: Any
) -> tuple[Drawing, list[Axes]]:
    """A figure of `count` panels, at most `wide` beside each other; height of a row and of what is below, in inches."""
    across = min(wide, count)
    down = -(-count // across)
    drawing = canvas(look, height * down + more)
    axes = list(drawing.subplots(down, across, squeeze=False, **options).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return drawing, axes[:count]


def dress(axis: Axes, look: Look, title: str = "", *, x: str = "", y: str = "", grid: bool = False) -> Axes:
    """The look's colours on an axis, open above and on the right; labels where they are given."""
    axis.set_facecolor(look.paper)
    axis.tick_params(colors=look.faint, labelcolor=look.ink, labelsize=FONT)
    if x:
        axis.set_xlabel(x)
    if y:
        axis.set_ylabel(y)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set(color=look.ink, fontsize=FONT)
    for side, spine in axis.spines.items():
        spine.set(color=look.faint, visible=side in ("left", "bottom"))
    if title:
        axis.set_title(title, fontsize=FONT + 1, color=look.ink, loc="left")
    if grid:
        axis.grid(color=look.faint, alpha=0.3, linewidth=0.6)
        axis.set_axisbelow(True)
    return axis


def log_norms(axis: Axes, look: Look) -> None:
    """A logarithmic scale along x with plain numbers, between powers of ten only where there is room."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(Plain())
    axis.xaxis.set_minor_formatter(Plain(minor_thresholds=(1.2, 0.5)))
    axis.tick_params(which="minor", colors=look.faint, labelcolor=look.ink, labelsize=FONT)


def name_ticks(axis: Axes, names: Sequence[str], most: int = 3) -> None:
    """Names below the places 0, 1, ...; slanted where they are more than `most`."""
    axis.set_xticks(range(len(names)), names)
    if len(names) > most:
        for label in axis.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")


def legend(drawing: Drawing, axes: Iterable[Axes], look: Look, columns: int = 6, scale: float = 1.0) -> None:
    """One legend below all panels, of what any of them shows, each label once; none of a single label.

    Markers are drawn `scale` times as large.
    """
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            found.setdefault(label, handle)
    if len(found) > 1:
        drawing.legend(
            list(found.values()), list(found), loc="outside lower center", ncols=min(len(found), columns),
            fontsize=FONT, frameon=False, labelcolor=look.ink, markerscale=scale,
        )  # fmt: skip


def own_legend(axis: Axes, look: Look, **options: Any) -> None:
    """A legend inside a panel, without a frame."""
    axis.legend(fontsize=FONT, frameon=False, labelcolor=look.ink, **options)


def errors(scores: Sequence[Score], scale: float = 1.0) -> np.ndarray:
    """Distances (2, k) from values to the ends of their intervals, as matplotlib takes them; 0 without an interval."""
    ends = [
        (score.value - (score.value if score.low is None else score.low),
         (score.value if score.high is None else score.high) - score.value)
        for score in scores
    ]  # fmt: skip
    return scale * np.maximum(np.array(ends, dtype=float).reshape(-1, 2).T, 0)


def colour_bar(drawing: Drawing, image: Any, axis: Axes, look: Look, label: str) -> None:
    """The scale of an image of numbers, beside it."""
    bar = drawing.colorbar(image, ax=axis, shrink=0.7)
    bar.set_label(label, color=look.ink, fontsize=FONT)
    bar.ax.tick_params(colors=look.faint, labelcolor=look.ink, labelsize=FONT)
    bar.outline.set_edgecolor(look.faint)
