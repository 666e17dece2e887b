"""The page's figures of representations: components before and after, the variance they explain, RSA between models.

From the tables of the families `space` and `projection`. Colours are superordinate categories, at most as many as the
look has hues for; the others are grey.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignet.evaluate.result import Columns
from alignet.report.blocks import Block, Figure, Look
from alignet.report.gathered import SETTINGS, Gathered, Row

_WIDE = 4  # panels beside each other


def space(gathered: Gathered) -> list[Block]:
    """Components 1-2 and 3-4 before and after, explained variance, and RSA between models."""
    blocks: list[Block] = []
    pairs = before_after(gathered)
    points = gathered.tables("points")
    for one, other in ((1, 2), (3, 4)):
        if pairs and all(f"pc{other}" in points[row] for rows in pairs for row in rows):
            blocks.append(_scatters(gathered, pairs, points, f"pc{one}", f"pc{other}"))
    explained = gathered.tables("explained")
    if pairs and explained:
        blocks.append(_explained(gathered, pairs, explained))
    rsms = gathered.tables("rsm")
    if len(rsms) > 1:
        blocks.append(_between(gathered, rsms))
    return blocks


def projection(gathered: Gathered) -> list[Block]:
    """The nonlinear map before and after."""
    pairs = before_after(gathered)
    return [_scatters(gathered, pairs, gathered.tables("points"), "x", "y")] if pairs else []


def before_after(gathered: Gathered) -> list[tuple[Row, Row]]:
    """Of each model, its original row and the one after alignment: AligNet, or UD where it has no AligNet."""
    found = []
    for model in dict.fromkeys(row.model for row in gathered.results):
        rows = {row.setting: row for row in gathered.results if row.model == model}
        after = next((rows[setting] for setting in ("alignet", "ud") if setting in rows), None)
        if "original" in rows and after is not None:
            found.append((rows["original"], after))
    return found


def file_name(*parts: str) -> str:
    """Letters, digits and _ of the parts, for a block's name."""
    return "_".join(re.sub(r"\W+", "_", part) for part in parts)


def figure(look: Look, width: float, height: float) -> Any:
    """An empty matplotlib figure on the look's paper, laid out without overlaps."""
    from matplotlib.figure import Figure as Drawing

    return Drawing(figsize=(width, height), facecolor=look.paper, layout="constrained")


def dress(axis: Any, look: Look, title: str = "") -> None:
    """The look's colours on an axis, no frame above and on the right."""
    axis.set_facecolor(look.paper)
    axis.tick_params(colors=look.ink, labelsize=9)
    for name in ("xaxis", "yaxis"):
        getattr(axis, name).label.set(color=look.ink, fontsize=9)
    for side, spine in axis.spines.items():
        spine.set(color=look.faint, visible=side in ("left", "bottom"))
    if title:
        axis.set_title(title, fontsize=10, color=look.ink, loc="left")


def legend(drawing: Any, axis: Any, look: Look, columns: int, scale: float = 1.0) -> None:
    """One legend below all panels, from the first one's labels; markers are drawn `scale` times as large."""
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        drawing.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            fontsize=9,
            frameon=False,
            labelcolor=look.ink,
            markerscale=scale,
        )


def _scatters(
    gathered: Gathered, pairs: Sequence[tuple[Row, Row]], points: Mapping[Row, Columns], x: str, y: str
) -> Figure:
    categories = np.asarray(points[pairs[0][0]]["category"], dtype=object)
    counts = Counter(name for name in categories if name)
    places = {row: np.stack([points[row][x], points[row][y]], 1) for rows in pairs for row in rows}

    def draw(look: Look) -> Any:
        named = [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][
            : len(look.hues)
        ]
        wide = min(_WIDE, max(2, len(pairs)))
        flat = len(pairs) == 1  # before and after beside each other
        bands = 1 if flat else 2 * -(-len(pairs) // wide)
        drawing = figure(look, 8, (8 / wide) * bands + 0.9)
        axes = drawing.subplots(bands, wide, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for number, rows in enumerate(pairs):
            for after, row in enumerate(rows):
                place = (0, after) if flat else (2 * (number // wide) + after, number % wide)
                _panel(axes[place], look, _turned(places, rows, row), points[row]["category"], named)
                dress(axes[place], look, row.title)
        legend(drawing, axes[0, 0], look, 4, scale=2.5)
        return drawing

    components = x.startswith("pc")
    what = f"components {x[2:]} and {y[2:]}" if components else "a nonlinear map (PaCMAP)"
    title = f"Principal {what}" if components else "A nonlinear map"
    said = "Each panel has its own components, flipped, not turned, to agree. " if components else ""
    coloured = f"Colour: {len(counts)} superordinate categories" if counts else "No categories are known"
    if len(counts) > 8:
        coloured += ", the 8 commonest named"
    caption = (
        f"{what[0].upper()}{what[1:]} of {len(categories):,} images before and after. {said}{coloured}. "
    )
    return Figure(
        file_name(gathered.dataset, x, y),
        title,
        draw,
        caption + _neighbours(pairs, places, points),
        f"{title} of images before and after alignment",
    )


def _turned(places: Mapping[Row, np.ndarray], rows: tuple[Row, Row], row: Row) -> np.ndarray:
    """Points of a row, each axis flipped where it runs against the model's original ones."""
    agreement = (places[rows[0]] * places[row]).sum(0)
    return places[row] * np.where(agreement < 0, -1, 1)


def _panel(axis: Any, look: Look, where: np.ndarray, categories: Any, named: Sequence[str]) -> None:
    labels = np.asarray(categories, dtype=object)
    size = float(np.clip(6000 / len(labels), 3, 26))
    layers = [("other or none", ~np.isin(labels.astype(str), named), look.faint)]
    layers += [(name, labels == name, look.hues[index]) for index, name in enumerate(named)]
    axis.set_axis_on()
    for order, (name, chosen, colour) in enumerate(layers):
        if chosen.any():
            axis.scatter(
                *where[chosen].T,
                s=size,
                color=colour,
                linewidths=0,
                alpha=0.85,
                label=name,
                zorder=order + 1,
                rasterized=True,
            )
    axis.set_box_aspect(1)
    axis.set(xticks=[], yticks=[])


def _neighbours(pairs: Any, places: Mapping[Row, np.ndarray], points: Mapping[Row, Columns]) -> str:
    """How often the nearest point is of the same category, before and after, in a sentence."""
    from alignet.figures import neighbour_share

    said = []
    for rows in pairs:
        names = [str(name) for name in points[rows[0]]["category"]]
        if sum(name != "" for name in names) < 2:
            return ""
        was, now = (neighbour_share(places[row], names)[0] for row in rows)
        said.append(f"{was:.0%} of {rows[0].model}'s before, {now:.0%} after")
    return f"Images whose nearest point is of their category: {'; '.join(said)}."


def _explained(gathered: Gathered, pairs: Sequence[tuple[Row, Row]], tables: Mapping[Row, Columns]) -> Figure:
    def draw(look: Look) -> Any:
        drawing = figure(look, 8, 3.6)
        axis = drawing.subplots()
        for number, rows in enumerate(pairs):
            for row, style in zip(rows, ("--", "-")):
                axis.plot(
                    tables[row]["component"], 100 * np.cumsum(tables[row]["share"]), style,
                    color=look.hues[number % len(look.hues)], label=row.title, linewidth=1.6,
                )  # fmt: skip
        axis.set(xlabel="principal components", ylabel="variance explained so far, %")
        axis.set_ylim(bottom=0)
        axis.grid(color=look.faint, alpha=0.3, linewidth=0.6)
        dress(axis, look)
        legend(drawing, axis, look, 4)
        return drawing

    first = min(8, *(len(tables[row]["share"]) for rows in pairs for row in rows))
    said = []
    for rows in pairs:
        was, now = (float(np.sum(tables[row]["share"][:first])) for row in rows)
        said.append(f"{rows[0].model}: {was:.0%} before, {now:.0%} after")
    images = max(score.n for score in gathered.scores("participation_ratio").values())
    return Figure(
        file_name(gathered.dataset, "explained"), "Variance explained by the first components", draw,
        f"Cumulated share of the variance of {images:,} images; dashed before, solid after. The first {first} "
        f"components hold, {'; '.join(said)}.", "Curves of explained variance before and after alignment",
    )  # fmt: skip


def _between(gathered: Gathered, rsms: Mapping[Row, Columns]) -> Figure:
    from alignet.evaluate.rsa_models import between_models

    order = {setting: place for place, setting in enumerate(SETTINGS)}
    rows = sorted(rsms, key=lambda row: order.get(row.setting, -1))  # all models before, then all after
    ids = gathered.tables("rsm_images")
    _, matrix = between_models(
        {
            row.title: ([str(name) for name in ids[row]["id"]], np.asarray(rsms[row]["similarity"]))
            for row in rows
        }
    )

    def draw(look: Look) -> Any:
        from matplotlib.colors import LinearSegmentedColormap

        side = 2.2 + 0.5 * min(len(rows), 12)
        drawing = figure(look, min(8, side + 1), side)
        axis = drawing.subplots()
        colours = LinearSegmentedColormap.from_list("rsa", [look.paper, look.hues[0]])
        image = axis.imshow(matrix, cmap=colours, vmin=min(0.0, float(matrix.min())), vmax=1)
        names = [row.title for row in rows]
        axis.set_xticks(range(len(rows)), names, rotation=60, ha="right")
        axis.set_yticks(range(len(rows)), names)
        dress(axis, look)
        if len(rows) <= 12:
            for place, value in np.ndenumerate(matrix):
                axis.text(
                    *place[::-1],
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color=look.ink if value < 0.6 else look.paper,
                )
        bar = drawing.colorbar(image, ax=axis, shrink=0.7)
        bar.ax.tick_params(colors=look.ink, labelsize=9)
        return drawing

    images = len(next(iter(ids.values()))["id"])
    caption = (
        f"Spearman correlation of the Pearson kernels of every two rows, over the "
        f"{images * (images - 1) // 2:,} pairs of {images} images. "
    )
    return Figure(
        file_name(gathered.dataset, "rsa_models"), "Similarity structures of models compared", draw,
        caption + _convergence(before_after(gathered), rows, matrix), "Matrix of correlations between models",
    )  # fmt: skip


def _convergence(pairs: Sequence[tuple[Row, Row]], rows: Sequence[Row], matrix: np.ndarray) -> str:
    """How alike models are on average before and after; with one model, how like its start it stays."""
    place = {row: index for index, row in enumerate(rows)}
    if len(pairs) < 2:
        said = [
            f"{after.title} correlates with {before.title} at {matrix[place[before], place[after]]:.2f}"
            for before, after in pairs
        ]
        return "; ".join(said) + ("." if said else "")
    was, now = (
        np.mean([matrix[place[one[at]], place[other[at]]] for i, one in enumerate(pairs) for other in pairs[:i]])
        for at in (0, 1)
    )  # fmt: skip
    return f"Between different models the mean is {was:.2f} before and {now:.2f} after."
