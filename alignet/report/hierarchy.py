"""The page's figures of the conceptual hierarchy: how distances changed by relation, and how triplets fall over it.

From the tables of the families `hierarchy` and `relations`. Negative z: closer than the change of other pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from alignet.data.hierarchy import RELATIONS
from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Columns
from alignet.report.blocks import Block, Cell, Figure, Look, Table
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import apart, score_cell, setting_title
from alignet.report.plot_style import (
    FONT,
    WIDTH,
    canvas,
    colour_bar,
    dress,
    errors,
    hue_of,
    in_order,
    legend,
    panels,
)
from alignet.report.representations import before_after

_DISTANCES = {
    "euclidean": "Euclidean distance of features as they are",
    "angle": "1 - cosine of features centred on their mean",
}
_NAMED = 40  # basic categories of a matrix, at most, that are named one by one
_WORDS = {
    "subordinate": "same class",
    "basic": "same basic category",
    "superordinate": "same superordinate",
    "across": "across",
}


def hierarchy(gathered: Gathered) -> list[Block]:
    """Order of the hierarchy, mean change by relation, its distribution, and the matrix of categories."""
    blocks: list[Block] = [_orders(gathered)]
    moved = {
        kind: scores for kind in RELATIONS if (scores := gathered.scores(f"hierarchy_{kind}"))
    }  # relation -> row -> score
    if moved:
        blocks.append(_bars(gathered, moved))
    after = [rows[1] for rows in before_after(gathered)]
    spread = {row: table for row, table in gathered.tables("distribution").items() if row in after}
    if spread:
        blocks.append(_distribution(gathered, spread))
    for row, table in gathered.tables("matrix").items():
        if row in after and len(table["z"]) > 1:
            blocks.append(_matrix(gathered, row, table))
    return blocks


def relations(gathered: Gathered) -> list[Block]:
    """How triplets of each sampling fall over relations."""
    return [_triplets(gathered, row, table) for row, table in gathered.tables("relations").items()]


def _distance(gathered: Gathered) -> str:
    return _DISTANCES[gathered.options["distance"]]


def _orders(gathered: Gathered) -> Table:
    found = gathered.scores("hierarchy_order")
    rows: list[list[Cell | str]] = [
        [row.model, setting_title(row.setting), score_cell(score)] for row, score in found.items()
    ]
    notes = list(dict.fromkeys(score.note for score in found.values() if score.note))
    most = max(found, key=lambda row: found[row].value)
    tied = [row.title for row in found if row != most and apart(found[row], found[most]) is False]
    said = f"The largest is that of {most.title}"
    said += f", with an interval that meets those of {', '.join(tied)}" if tied else ""
    return Table(
        slug(f"{gathered.dataset} order"), "How far distances follow the hierarchy", ["model", "setting", "order"],
        rows, f"Probability that a pair of nearer relation is closer than one of farther relation: chance .500, 1 "
        f"where the hierarchy is known wholly. n = {max(score.n for score in found.values()):,} pairs; intervals over "
        f"classes. Distance: {_distance(gathered)}. {said}.",
        notes=notes,
    )  # fmt: skip


def _bars(gathered: Gathered, moved: Mapping[str, Mapping[Row, Score]]) -> Figure:
    rows = list(dict.fromkeys(row for scores in moved.values() for row in scores))
    models = list(dict.fromkeys(row.model for row in rows))
    settings = in_order(row.setting for row in rows)
    kinds = list(moved)

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, len(models), wide=2, height=2.9, sharey=True)
        for axis, model in zip(axes, models):
            for number, setting in enumerate(settings):
                _bar_group(axis, look, moved, Row(model, setting), number, len(settings))
            axis.axhline(0, color=look.ink, linewidth=0.8)
            axis.set_xticks(range(len(kinds)), [_WORDS[kind].replace(" ", "\n") for kind in kinds])
            dress(axis, look, model if len(models) > 1 else "", y="change of distance, z")
        legend(drawing, axes, look)
        return drawing

    counts = ", ".join(
        f"{_WORDS[kind]} {max(score.n for score in scores.values()):,}" for kind, scores in moved.items()
    )
    said = [
        f"{row.title} moves " + ", ".join(
            f"{_WORDS[kind]} by {moved[kind][row].value:+.2f}" for kind in kinds if row in moved[kind]
        )
        for _, row in before_after(gathered) if any(row in scores for scores in moved.values())
    ]  # fmt: skip
    return Figure(
        slug(f"{gathered.dataset} change"), "Change of relative distance by relation", draw,
        f"Mean z-score of the change of pairs' relative distances, negative is closer; 95% intervals "
        f"over classes. Distance: {_distance(gathered)}. "
        f"Pairs: {counts}. {'; '.join(said)}.", "Bars of mean change of distance by relation",
    )  # fmt: skip


def _bar_group(
    axis: Any, look: Look, moved: Mapping[str, Mapping[Row, Score]], row: Row, number: int, settings: int
) -> None:
    found = [(at, moved[kind][row]) for at, kind in enumerate(moved) if row in moved[kind]]
    if not found:
        return
    width = 0.8 / settings
    x = [at + (number - (settings - 1) / 2) * width for at, _ in found]
    scores = [score for _, score in found]
    axis.bar(
        x, [score.value for score in scores], width * 0.92, color=hue_of(row.setting, look), yerr=errors(scores),
        ecolor=look.ink, label=setting_title(row.setting),
    )  # fmt: skip


def _distribution(gathered: Gathered, tables: Mapping[Row, Columns]) -> Figure:
    # as far out as half a hundredth of a relation's pairs lie
    limit = max(
        float(np.abs(np.asarray(table[side])[np.asarray(table["share"]) > 0.005]).max(initial=1.0))
        for table in tables.values()
        for side in ("left", "right")
    )

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, len(tables), wide=2, height=2.7, sharex=True)
        for axis, (row, table) in zip(axes, tables.items()):
            names = np.asarray(table["relation"], dtype=object)
            for number, kind in enumerate(RELATIONS):
                chosen = names == kind
                if chosen.any():
                    edges = [*np.asarray(table["left"])[chosen], np.asarray(table["right"])[chosen][-1]]
                    axis.stairs(
                        100 * np.asarray(table["share"])[chosen], edges, color=look.hues[number], linewidth=1.5,
                        label=_WORDS[kind],
                    )  # fmt: skip
            axis.axvline(0, color=look.faint, linewidth=0.8)
            axis.set_xlim(-limit, limit)
            dress(axis, look, row.title, x="change of relative distance, z", y="pairs of a relation, %")
        legend(drawing, axes, look)
        return drawing

    said = []
    for row, table in tables.items():
        names, middle = np.asarray(table["relation"], dtype=object), np.asarray(table["right"])
        closer = {
            kind: np.asarray(table["share"])[(names == kind) & (middle <= 1e-9)].sum()
            for kind in RELATIONS
            if kind in names
        }
        said.append(
            f"{row.title}: " + ", ".join(f"{_WORDS[kind]} {share:.0%}" for kind, share in closer.items())
        )
    return Figure(
        slug(f"{gathered.dataset} distribution"), "Distribution of the change of relative distance", draw,
        f"Histograms of z for the pairs of each relation. Distance: {_distance(gathered)}. Pairs that came relatively "
        f"closer, z below 0: "
        f"{'; '.join(said)}.",
        "Histograms of the change of distance by relation",
    )  # fmt: skip


def _matrix(gathered: Gathered, row: Row, table: Columns) -> Figure:
    groups: dict[str, str] = {}
    for side in ("first", "second"):
        groups |= dict(zip(map(str, table[side]), map(str, table[f"{side}_superordinate"])))
    # the table's order, one superordinate category after the other, the largest first
    size = {one: list(groups.values()).count(one) for one in groups.values()}
    names = sorted(groups, key=lambda name: (-size[groups[name]], groups[name], name))
    code = {name: index for index, name in enumerate(names)}
    z = np.full((len(names), len(names)), np.nan)
    for one, other, value in zip(table["first"], table["second"], table["z"]):
        z[code[str(one)], code[str(other)]] = z[code[str(other)], code[str(one)]] = value
    blocks = [(name, len(list(held))) for name, held in groupby(groups[name] for name in names)]
    within = np.equal.outer([groups[name] for name in names], [groups[name] for name in names])

    def draw(look: Look) -> Any:
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.patches import Rectangle

        named = len(names) <= _NAMED
        side = min(WIDTH - 1.4, 2.4 + 0.24 * len(names)) if named else WIDTH - 1.4
        drawing = canvas(look, side, side + 1.4)
        axis = drawing.subplots()
        colours = LinearSegmentedColormap.from_list("change", [look.hues[0], look.paper, look.hues[1]])
        limit = float(np.nanquantile(np.abs(z), 0.98)) or 1.0
        image = axis.imshow(z, cmap=colours.with_extremes(bad=look.paper), vmin=-limit, vmax=limit)
        start, middles = 0, []
        for _, held in blocks:
            axis.add_patch(
                Rectangle((start - 0.5, start - 0.5), held, held, fill=False, edgecolor=look.ink, linewidth=1)
            )
            middles.append(start + (held - 1) / 2)
            start += held
        least = 0.03 * len(names)  # of a block whose name fits
        groups_shown = [(place, name) for place, (name, held) in zip(middles, blocks) if held >= least]
        shown = list(enumerate(names)) if named else groups_shown
        axis.set_yticks([place for place, _ in shown], [name for _, name in shown])
        axis.set_xticks([place for place, _ in shown], [name for _, name in shown], rotation=60, ha="right")
        dress(axis, look)
        axis.tick_params(length=0)
        if named:  # the superordinate categories stand above their boxes
            above = axis.secondary_xaxis("top")
            above.set_xticks([place for place, _ in groups_shown], [name for _, name in groups_shown], rotation=20,
                             ha="left")  # fmt: skip
            above.tick_params(length=0, labelcolor=look.ink, labelsize=FONT)
            above.spines["top"].set_visible(False)
        colour_bar(drawing, image, axis, look, "mean z: below 0 closer, above 0 farther")
        return drawing

    inside, outside = float(np.nanmean(z[within])), float(np.nanmean(z[~within])) if not within.all() else 0.0
    return Figure(
        slug(f"{gathered.dataset} matrix {row.model}"), f"Change of relative distance by category: {row.title}", draw,
        f"Mean z of {int(np.sum(table['pairs'])):,} pairs between {len(names)} basic categories; boxes: superordinate "
        f"categories; empty where there is no pair. Distance: {_distance(gathered)}. "
        f"The mean is {inside:+.2f} within boxes and {outside:+.2f} outside.",
        "Matrix of the change of distance between basic categories",
    )  # fmt: skip


def _triplets(gathered: Gathered, row: Row, table: Columns) -> Figure:
    samplings = list(dict.fromkeys(map(str, table["sampling"])))
    share = np.zeros((len(samplings), len(RELATIONS), len(RELATIONS)))
    for sampling, pair, odd, value in zip(table["sampling"], table["pair"], table["odd_one"], table["share"]):
        share[samplings.index(str(sampling)), RELATIONS.index(pair), RELATIONS.index(odd)] = value

    pairs, odds = (np.flatnonzero(share.sum(axes) > 0).tolist() for axes in ((0, 2), (0, 1)))

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, len(samplings), wide=3, height=3.2, more=0.7, sharey=True)
        for axis, sampling, values in zip(axes, samplings, share):
            below = np.zeros(len(pairs))
            for number in odds:
                axis.bar(
                    range(len(pairs)), 100 * values[pairs, number], 0.75, below, color=look.hues[number],
                    label=f"odd one: {_WORDS[RELATIONS[number]]}",
                )  # fmt: skip
                below += 100 * values[pairs, number]
            names = [_WORDS[RELATIONS[number]].replace(" ", "\n") for number in pairs]
            axis.set_xticks(range(len(pairs)), names)
            axis.tick_params(axis="x", rotation=35)
            dress(axis, look, sampling.replace("_", " "))
        dress(axes[0], look, y="triplets, %")
        legend(drawing, axes, look, 2)
        return drawing

    said = _nearer(gathered, row, samplings)
    return Figure(
        slug(f"{gathered.dataset} triplets"), "How triplets fall over the hierarchy", draw,
        f"Bars: relation of the pair; colours: relation of the odd one to it, the nearer of its two. {said}",
        "Stacked bars of triplets by relation of the pair and of the odd one",
    )  # fmt: skip


def _nearer(gathered: Gathered, row: Row, samplings: Sequence[str]) -> str:
    said = []
    for sampling in samplings:
        score = gathered.scores(f"relations_nearer_{sampling}")[row]
        said.append(f"{score.value:.0%} of {score.n:,} ({sampling.replace('_', ' ')})")
    return f"The pair is more closely related than the odd one is to it in {', '.join(said)} triplets."
