"""The page's figures of representations: components before and after, the variance they explain, RSA between models.

From the tables of the families `space` and `projection`. Colours are superordinate categories, at most as many as the
look has hues for; the others are grey.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignet.evaluate.projection import neighbours
from alignet.evaluate.result import Columns
from alignet.report.blocks import Block, Figure, Look
from alignet.report.dataset_results import SETTINGS, Gathered, Row
from alignet.report.files import slug
from alignet.report.plot_style import FONT, WIDTH, canvas, colour_bar, dress, hue_of, legend, line_of

_WIDE = 4  # panels beside each other
_DOTS = 4000  # of a figure that are drawn one by one; more become a picture within it


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
        many = 2 * len(pairs) * len(categories) > _DOTS
        flat = len(pairs) == 1  # before and after beside each other
        bands = 1 if flat else 2 * -(-len(pairs) // wide)
        drawing = canvas(look, (WIDTH / wide) * bands + 0.9)
        axes = drawing.subplots(bands, wide, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for number, rows in enumerate(pairs):
            for after, row in enumerate(rows):
                place = (0, after) if flat else (2 * (number // wide) + after, number % wide)
                _panel(axes[place], look, _turned(places, rows, row), points[row]["category"], named, many)
                dress(axes[place], look, row.title)
        legend(drawing, axes.flat, look, 4, scale=2.5)
        return drawing

    components = x.startswith("pc")
    what = f"components {x[2:]} and {y[2:]}" if components else "a nonlinear map (PaCMAP)"
    title = f"Principal {what}" if components else "A nonlinear map"
    kept = neighbours(len(categories))
    few = ", fewer than its usual 10 since there are few images" if kept < 10 else ""
    said = (
        "Each panel has its own components, flipped, not turned, to agree. "
        if components
        else f"It keeps {kept} nearest neighbours of each image{few}. "
    )
    coloured = f"Colour: {len(counts)} superordinate categories" if counts else "No categories are known"
    if len(counts) > 8:
        coloured += ", the 8 commonest named"
    caption = (
        f"{what[0].upper()}{what[1:]} of {len(categories):,} images before and after. {said}{coloured}. "
    )
    return Figure(
        slug(f"{gathered.dataset} {x} {y}"), title, draw, caption + _neighbours(pairs, places, points),
        f"{title} of images before and after alignment",
    )  # fmt: skip


def _turned(places: Mapping[Row, np.ndarray], rows: tuple[Row, Row], row: Row) -> np.ndarray:
    """Points of a row, each axis flipped where it runs against the model's original ones."""
    agreement = (places[rows[0]] * places[row]).sum(0)
    return places[row] * np.where(agreement < 0, -1, 1)


def _panel(
    axis: Any, look: Look, where: np.ndarray, categories: Any, named: Sequence[str], many: bool
) -> None:
    labels = np.asarray(categories, dtype=object)
    size = float(np.clip(6000 / len(labels), 3, 26))
    layers = [("other or none", ~np.isin(labels.astype(str), named), look.faint)]
    layers += [(name, labels == name, look.hues[index]) for index, name in enumerate(named)]
    axis.set_axis_on()
    for order, (name, chosen, colour) in enumerate(layers):
        if chosen.any():
            axis.scatter(
                *where[chosen].T, s=size, color=colour, linewidths=0, alpha=0.85, label=name, zorder=order + 1,
                rasterized=many,
            )  # fmt: skip
    axis.set_box_aspect(1)
    axis.set(xticks=[], yticks=[])


def _neighbours(pairs: Any, places: Mapping[Row, np.ndarray], points: Mapping[Row, Columns]) -> str:
    """How often the nearest point is of the same category, before and after, in a sentence."""
    from alignet.report.alignment_figures import neighbour_share

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
        drawing = canvas(look, 3.6)
        axis = drawing.subplots()
        for number, rows in enumerate(pairs):
            for row in rows:
                axis.plot(
                    tables[row]["component"], 100 * np.cumsum(tables[row]["share"]), line_of(number),
                    color=hue_of(row.setting, look), label=row.title, linewidth=1.6,
                )  # fmt: skip
        axis.set_ylim(bottom=0)
        dress(axis, look, x="principal components", y="variance explained so far, %", grid=True)
        legend(drawing, [axis], look, 4)
        return drawing

    first = min(8, *(len(tables[row]["share"]) for rows in pairs for row in rows))
    said = []
    for rows in pairs:
        was, now = (float(np.sum(tables[row]["share"][:first])) for row in rows)
        said.append(f"{rows[0].model}: {was:.0%} before, {now:.0%} after")
    images = max(score.n for score in gathered.scores("participation_ratio").values())
    return Figure(
        slug(f"{gathered.dataset} explained"), "Variance explained by the first components", draw,
        f"Cumulated share of the variance of {images:,} images by number of components. The first {first} "
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
        drawing = canvas(look, side, min(WIDTH, side + 1.2))
        axis = drawing.subplots()
        colours = LinearSegmentedColormap.from_list("rsa", [look.paper, look.hues[0]])
        image = axis.imshow(matrix, cmap=colours, vmin=min(0.0, float(matrix.min())), vmax=1)
        names = [row.title for row in rows]
        axis.set_xticks(range(len(rows)), names, rotation=60, ha="right")
        axis.set_yticks(range(len(rows)), names)
        dress(axis, look)
        if len(rows) <= 12:
            for (line, column), value in np.ndenumerate(matrix):
                axis.text(
                    column, line, f"{value:.2f}", ha="center", va="center", fontsize=FONT,
                    color=look.ink if value < 0.6 else look.paper,
                )  # fmt: skip
        colour_bar(drawing, image, axis, look, "Spearman's rho")
        return drawing

    images = len(next(iter(ids.values()))["id"])
    caption = (
        f"Spearman correlation of the Pearson kernels of every two rows, over the "
        f"{images * (images - 1) // 2:,} pairs of {images} images. "
    )
    return Figure(
        slug(f"{gathered.dataset} rsa_models"), "Similarity structures of models compared", draw,
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
    if len(pairs) == 2:
        return f"The two models correlate at {was:.2f} before and at {now:.2f} after."
    return f"Between different models the mean is {was:.2f} before and {now:.2f} after."
