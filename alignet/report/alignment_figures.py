"""The pictures: concepts before and after alignment, and what alignment costs in ImageNet top-1.

PNG files come out the same byte for byte from the same numbers and the same matplotlib.
Shape suffixes: m concepts, p features.
"""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

UNKNOWN_COLOUR, OTHER_COLOUR = "#d3d6db", "#8b929c"
INK, FAINT, SPINE = "#1f2328", "#6b7280", "#d0d4da"
# Eight hues are as many as colour-blind readers can tell apart, so only so many categories are named.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a4fbf", "#8a6d3b")
MARKERS = ("o", "s", "^", "D", "v", "P")  # of the learning rates
_NAMED = len(COLOURS)
_LEGEND_COLUMNS = 5


@dataclass(frozen=True)
class Projection:
    """Concepts on the first two principal components of their own features."""

    points: np.ndarray  # (m, 2) float64, centred
    explained: np.ndarray  # (2,) share of the variance


@dataclass(frozen=True)
class CurvePoint:
    """One fine-tuning: how it was pulled to its start, how fast it went, and where it landed."""

    pull: float
    learning_rate: float
    alignment: float  # odd-one-out accuracy, share
    top1: float  # ImageNet top-1, share


def concept_means(features: np.ndarray, concepts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Mean features of each concept's images (m, p) float64, and the concepts, sorted by name."""
    if len(features) != len(concepts):
        raise ValueError(
            f"expected one concept per row of features, found {len(concepts)} for {len(features)}"
        )
    names, index = np.unique(np.asarray(concepts), return_inverse=True)
    sums = np.zeros((len(names), features.shape[1]))
    np.add.at(sums, index, features.astype(np.float64))
    return sums / np.bincount(index)[:, None], [str(name) for name in names]


def project(features: np.ndarray) -> Projection:
    """Principal components 1 and 2 of features (m, p); each points to its largest coordinate's side."""
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 3 or x.shape[1] < 2 or not np.isfinite(x).all():
        raise ValueError(
            f"the picture of concepts: expected finite features of 3 or more concepts, found {x.shape}"
        )
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    if s[0] <= 1e-12 * np.linalg.norm(x):
        raise ValueError("the picture of concepts: expected concepts that differ, found all of them equal.")
    points = u[:, :2] * s[:2]
    largest = points[np.abs(points).argmax(0), [0, 1]]
    return Projection(points * np.where(largest < 0, -1, 1), s[:2] ** 2 / (s**2).sum())


def signs_as(reference: Projection, projection: Projection) -> Projection:
    """The projection with each axis flipped where it runs against the reference's. Nothing is rotated."""
    agreement = (reference.points * projection.points).sum(0)
    return Projection(projection.points * np.where(agreement < 0, -1, 1), projection.explained)


def neighbour_share(features: np.ndarray, categories: Sequence[str]) -> tuple[float, int]:
    """Share of concepts whose nearest neighbour (Euclidean, all features) has their category, and of how many.

    Only concepts with a category take part, as the judged and as the neighbour.
    """
    labels = np.asarray(categories)
    known = labels != ""
    x, labels = np.asarray(features, dtype=np.float64)[known], labels[known]
    if len(x) < 2:
        raise ValueError(f"expected at least two concepts with a category, found {len(x)}")
    squared = (x**2).sum(1)
    distance = squared[:, None] + squared - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    return float((labels[distance.argmin(1)] == labels).mean()), len(x)


def concepts_before_and_after(
    before: np.ndarray,
    after: np.ndarray,
    categories: Sequence[str],
    path: str | Path,
    *,
    titles: tuple[str, str] = ("original", "AligNet"),
    caption: str = "",
    what: str = "concepts",
) -> str:
    """Draw the PCA of concepts' mean features before and after side by side; return the caption below it.

    before, after: (m, p) and (m, p') of the same concepts; each panel has its own components, flipped
    (not rotated) to agree with the left one's. categories: one name for each concept, "" where unknown,
    which is drawn in light grey; the eight commonest are coloured, the others dark grey. `caption` is put
    before what the picture says of itself. what: "concepts", or "images" whose categories are clusters.
    """
    text = _caption(caption, Counter(name for name in categories if name), len(categories), what)
    wrapped = textwrap.wrap(text, 150)
    foot = 0.2 + 0.19 * len(wrapped)  # inches
    with _style():
        figure = concepts_figure(before, after, categories, titles=titles, foot=foot)
        figure.text(
            0.5, foot / figure.get_figheight(), "\n".join(wrapped), ha="center", va="top", fontsize=9, color=FAINT,
            linespacing=1.5,
        )  # fmt: skip
        _save(figure, path)
    return text


def concepts_figure(
    before: np.ndarray,
    after: np.ndarray,
    categories: Sequence[str],
    *,
    titles: tuple[str, str] = ("original", "AligNet"),
    ink: str = INK,
    faint: str = FAINT,
    paper: str = "white",
    hues: Sequence[str] = COLOURS,
    spine: str = SPINE,
    foot: float = 0.0,
) -> Any:
    """The picture alone, in given colours, as a matplotlib figure; foot: inches that are left free below it.

    The arguments are concepts_before_and_after's; hues: colours of the commonest categories, as many as are named.
    """
    from matplotlib.figure import Figure

    if not len(before) == len(after) == len(categories):
        raise ValueError(
            f"the picture of concepts: expected the same concepts before and after, each with a category or "
            f"an empty one, found {len(before)}, {len(after)} and {len(categories)}"
        )
    left = project(before)
    panels = (left, signs_as(left, project(after)))
    shares = [neighbour_share(x, categories) for x in (before, after)]
    counts = Counter(name for name in categories if name)
    common = sorted(name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_NAMED])
    entries = len(common) + (len(counts) > len(common)) + (counts.total() < len(categories))
    legend = 0.1 + 0.26 * -(-entries // _LEGEND_COLUMNS)  # inches
    height = 4.75 + foot + legend
    figure = Figure(figsize=(10.4, height))
    axes = figure.subplots(1, 2, gridspec_kw={"wspace": 0.09})
    bottom = (foot + legend + 0.42) / height
    figure.subplots_adjust(left=0.03, right=0.985, top=1 - 0.5 / height, bottom=bottom)
    for axis, panel, title, (share, _) in zip(axes, panels, titles, shares):
        _scatter(axis, panel, list(categories), common, hues, paper)
        for edge in axis.spines.values():
            edge.set_color(spine)
        axis.set_title(title, loc="left", fontsize=15, fontweight="bold", color=ink, pad=9)
        said = f"nearest neighbour of the same category: {share:.0%}"
        axis.set_title(said, loc="right", fontsize=10.5, color=faint, pad=9)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="upper center", ncol=min(_LEGEND_COLUMNS, entries),
        frameon=False, fontsize=10.5, bbox_to_anchor=(0.5, (foot + legend + 0.12) / height),
        handletextpad=0.3, columnspacing=1.8, markerscale=1.25,
    )  # fmt: skip
    return figure


def alignment_curve(
    points: Sequence[CurvePoint],
    path: str | Path,
    *,
    original: tuple[float, float],
    shipped: CurvePoint | None = None,
    targets: tuple[float, float] | None = None,
    ceiling: float | None = None,
    title: str = "What alignment costs",
    caption: str = "",
) -> None:
    """Draw odd-one-out accuracy against ImageNet top-1: a line for each learning rate, a label for each pull.

    original: (alignment, top1) of the network before. targets: (alignment, top1) that are asked for, drawn
    as dotted lines. ceiling: the best possible accuracy. All are shares; the axes are in percent.
    """
    if not points:
        raise ValueError("the curve of alignment: expected at least one point, found none")
    if shipped is not None and shipped not in points:
        raise ValueError(f"the curve of alignment: expected the shipped setting among the points: {shipped}")
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.6, 5.2))
        axis = figure.subplots()
        figure.subplots_adjust(left=0.1, right=0.97, top=0.9, bottom=0.17)
        for number, rate in enumerate(sorted({point.learning_rate for point in points})):
            _rate_line(axis, [point for point in points if point.learning_rate == rate], number)
        axis.plot(
            100 * original[1], 100 * original[0], marker="*", markersize=15, color=INK, linestyle="none",
            label="original",
        )  # fmt: skip
        if shipped is not None:
            axis.plot(
                100 * shipped.top1, 100 * shipped.alignment, marker="o", markersize=14, color=INK,
                fillstyle="none", linestyle="none", markeredgewidth=1.5, label="shipped",
            )  # fmt: skip
        _lines(axis, targets, ceiling)
        axis.margins(0.09)
        axis.set_xlabel("ImageNet top-1 through the original head, %")
        axis.set_ylabel("odd-one-out accuracy, %")
        axis.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=10)
        axis.grid(color="#e5e7eb", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9.5, loc="best")
        said = "Numbers beside the points: pull towards the initial weights."
        figure.text(0.1, 0.03, f"{said} {caption}".strip(), fontsize=9, color=FAINT)
        _save(figure, path)


def _scatter(
    axis: Any,
    panel: Projection,
    categories: Sequence[str],
    named: Sequence[str],
    hues: Sequence[str],
    paper: str,
) -> None:
    """Points of one panel: no category below, other categories above them, the named ones on top."""
    labels = np.array(categories)
    unknown = labels == ""
    layers = [
        ("no category", unknown, UNKNOWN_COLOUR, 26),
        ("other category", ~unknown & ~np.isin(labels, named), OTHER_COLOUR, 26),
    ]
    layers += [(name, labels == name, hues[index], 46) for index, name in enumerate(named)]
    for order, (name, chosen, colour, size) in enumerate(layers):
        if chosen.any():
            axis.scatter(
                *panel.points[chosen].T, s=size, color=colour, linewidths=0.6, edgecolors=paper,
                zorder=order, label=name,
            )  # fmt: skip
    axis.set_aspect("equal", adjustable="datalim")
    axis.margins(0.06)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(f"component 1: {panel.explained[0]:.0%} of the variance", labelpad=5)
    axis.set_ylabel(f"component 2: {panel.explained[1]:.0%}", labelpad=4)


def _rate_line(axis: Any, points: Sequence[CurvePoint], number: int) -> None:
    ordered = sorted(points, key=lambda point: point.pull)
    x, y = ([100 * getattr(point, name) for point in ordered] for name in ("top1", "alignment"))
    colour = COLOURS[number % len(COLOURS)]
    axis.plot(
        x, y, marker=MARKERS[number % len(MARKERS)], color=colour, linewidth=1.4, markersize=6.5,
        label=f"learning rate {ordered[0].learning_rate:g}",
    )  # fmt: skip
    for point, left, bottom in zip(ordered, x, y):
        axis.annotate(
            f"{point.pull:g}", (left, bottom), xytext=(0, 8 if number % 2 == 0 else -16), ha="center",
            textcoords="offset points", fontsize=9, color=colour,
        )  # fmt: skip


def _lines(axis: Any, targets: tuple[float, float] | None, ceiling: float | None) -> None:
    if targets is not None:
        axis.axhline(100 * targets[0], color=FAINT, linestyle=":", linewidth=1, label="asked for")
        axis.axvline(100 * targets[1], color=FAINT, linestyle=":", linewidth=1)
    if ceiling is not None:
        axis.axhline(100 * ceiling, color=FAINT, linestyle="--", linewidth=1, label="noise ceiling")


def _caption(given: str, counts: Counter[str], concepts: int, what: str) -> str:
    named = {"concepts": "superordinate category", "images": "the teacher's cluster"}[what]
    coloured = f"Colour: {named}, {len(counts)} in all"
    if len(counts) > _NAMED:
        coloured += f", the {_NAMED} commonest named"
    if counts.total() < concepts:
        coloured += (
            f"; known for {counts.total()} {what}, the other {concepts - counts.total()} in light grey"
        )
    own = "Each panel's own PCA, its axes flipped (not rotated) to agree."
    points = f"n = {concepts} {what}" + (", the mean features of each" if what == "concepts" else "")
    return f"{given} {points}. {coloured}. {own}".strip()


@contextmanager
def _style() -> Iterator[None]:
    """matplotlib without the user's own settings, so that the same numbers give the same picture.

    Figures are made without pyplot, and a PNG of such a figure is always drawn by Agg.
    """
    import matplotlib

    settings: Any = {"font.family": "DejaVu Sans", "axes.labelcolor": FAINT, "axes.labelsize": 10.5}
    settings |= {"axes.edgecolor": SPINE, "xtick.color": FAINT, "ytick.color": FAINT}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def _save(figure: Any, path: str | Path) -> None:
    """Write a PNG without the version or a time in its metadata, under a temporary name first."""
    path = Path(path)
    partial = path.with_name(path.name + ".tmp")
    figure.savefig(partial, format="png", dpi=160, metadata={"Software": None}, facecolor="white")
    os.replace(partial, path)
