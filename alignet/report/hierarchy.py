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
from alignet.report.gathered import TITLES, Gathered, Row
from alignet.report.representations import before_after, dress, figure, file_name, legend

_DISTANCES = {
    "euclidean": "Euclidean distance of features as they are",
    "angle": "1 - cosine of features centred on their mean",
}
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
        [row.model, TITLES.get(row.setting, row.setting), _cell(score)] for row, score in found.items()
    ]
    notes = list(dict.fromkeys(score.note for score in found.values() if score.note))
    most = max(found, key=lambda row: found[row].value)
    return Table(
        file_name(gathered.dataset, "order"), "How far distances follow the hierarchy", ["model", "setting", "order"],
        rows, f"Probability that a pair of nearer relation is closer than one of farther relation: chance .500, 1 "
        f"where the hierarchy is known wholly. n = {max(score.n for score in found.values()):,} pairs; intervals over "
        f"classes. Distance: {_distance(gathered)}. The largest is that of {most.title}.",
        notes=notes,
    )  # fmt: skip


def _cell(score: Score) -> Cell:
    text = f"{score.value:.3f}"
    if score.low is not None and score.high is not None:
        text += f" [{score.low:.3f}, {score.high:.3f}]"
    return Cell(text, score.value, score.low, score.high)


def _bars(gathered: Gathered, moved: Mapping[str, Mapping[Row, Score]]) -> Figure:
    rows = list(dict.fromkeys(row for scores in moved.values() for row in scores))
    models = list(dict.fromkeys(row.model for row in rows))
    settings = list(dict.fromkeys(row.setting for row in rows))
    kinds = list(moved)

    def draw(look: Look) -> Any:
        wide = min(2, len(models))
        bands = -(-len(models) // wide)
        drawing = figure(look, 8, 2.9 * bands + 0.5)
        axes = drawing.subplots(bands, wide, squeeze=False, sharey=True)
        for axis in axes.flat[len(models) :]:
            axis.set_axis_off()
        for axis, model in zip(axes.flat, models):
            for number, setting in enumerate(settings):
                _bar_group(axis, look, moved, Row(model, setting), number, len(settings))
            axis.axhline(0, color=look.ink, linewidth=0.8)
            axis.set_xticks(range(len(kinds)), [_WORDS[kind].replace(" ", "\n", 1) for kind in kinds])
            axis.set_ylabel("change of distance, z")
            dress(axis, look, model if len(models) > 1 else "")
        legend(drawing, axes[0, 0], look, len(settings))
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
        file_name(gathered.dataset, "change"), "Change of relative distance by relation", draw,
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
    axis.bar(
        x, [score.value for _, score in found], width * 0.92,
        color=look.hues[number % len(look.hues)], label=TITLES.get(row.setting, row.setting),
    )  # fmt: skip
    low = [score.value if score.low is None else score.low for _, score in found]
    high = [score.value if score.high is None else score.high for _, score in found]
    axis.vlines(x, low, high, color=look.ink, linewidth=1.2)


def _distribution(gathered: Gathered, tables: Mapping[Row, Columns]) -> Figure:
    # as far out as half a hundredth of a relation's pairs lie
    limit = max(
        float(np.abs(np.asarray(table[side])[np.asarray(table["share"]) > 0.005]).max(initial=1.0))
        for table in tables.values()
        for side in ("left", "right")
    )

    def draw(look: Look) -> Any:
        wide = min(2, len(tables))
        bands = -(-len(tables) // wide)
        drawing = figure(look, 8, 2.7 * bands + 0.5)
        axes = drawing.subplots(bands, wide, squeeze=False, sharex=True)
        for axis in axes.flat[len(tables) :]:
            axis.set_axis_off()
        for axis, (row, table) in zip(axes.flat, tables.items()):
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
            axis.set(xlabel="change of relative distance, z", ylabel="pairs of a relation, %")
            dress(axis, look, row.title)
        legend(drawing, axes[0, 0], look, 4)
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
        file_name(gathered.dataset, "distribution"), "Distribution of the change of relative distance", draw,
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

        drawing = figure(look, 8, 6.6)
        axis = drawing.subplots()
        colours = LinearSegmentedColormap.from_list("change", [look.hues[0], look.paper, look.hues[1]])
        limit = float(np.nanquantile(np.abs(z), 0.98)) or 1.0
        image = axis.imshow(z, cmap=colours.with_extremes(bad=look.paper), vmin=-limit, vmax=limit)
        start, ticks = 0, []
        for _, held in blocks:
            axis.add_patch(
                Rectangle((start - 0.5, start - 0.5), held, held, fill=False, edgecolor=look.ink, linewidth=1)
            )
            ticks.append(start + (held - 1) / 2)
            start += held
        least = 0.03 * len(names)  # of a block whose name fits
        shown = [(tick, name) for tick, (name, held) in zip(ticks, blocks) if held >= least]
        axis.set_yticks([tick for tick, _ in shown], [name for _, name in shown])
        axis.set_xticks([tick for tick, _ in shown], [name for _, name in shown], rotation=60, ha="right")
        dress(axis, look)
        axis.tick_params(length=0)
        bar = drawing.colorbar(image, ax=axis, shrink=0.7)
        bar.set_label("mean z: below 0 closer, above 0 farther", color=look.ink, fontsize=9)
        bar.ax.tick_params(colors=look.ink, labelsize=9)
        return drawing

    inside, outside = float(np.nanmean(z[within])), float(np.nanmean(z[~within])) if not within.all() else 0.0
    return Figure(
        file_name(gathered.dataset, "matrix", row.model), f"Change of relative distance by category: {row.title}", draw,
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
        drawing = figure(look, 8, 3.8)
        axes = drawing.subplots(1, len(samplings), squeeze=False, sharey=True)
        for axis, sampling, values in zip(axes.flat, samplings, share):
            below = np.zeros(len(pairs))
            for number in odds:
                axis.bar(
                    range(len(pairs)), 100 * values[pairs, number], 0.75, below, color=look.hues[number],
                    label=f"odd one: {_WORDS[RELATIONS[number]]}",
                )  # fmt: skip
                below += 100 * values[pairs, number]
            names = [_WORDS[RELATIONS[number]].replace(" ", "\n", 1) for number in pairs]
            axis.set_xticks(range(len(pairs)), names)
            axis.tick_params(axis="x", rotation=35)
            dress(axis, look, sampling.replace("_", " "))
        axes[0, 0].set_ylabel("triplets, %", color=look.ink, fontsize=9)
        legend(drawing, axes[0, 0], look, 2)
        return drawing

    said = _nearer(gathered, row, samplings)
    return Figure(
        file_name(gathered.dataset, "triplets"), "How triplets fall over the hierarchy", draw,
        f"Bars: relation of the pair; colours: relation of the odd one to it, the nearer of its two. {said}",
        "Stacked bars of triplets by relation of the pair and of the odd one",
    )  # fmt: skip


def _nearer(gathered: Gathered, row: Row, samplings: Sequence[str]) -> str:
    said = []
    for sampling in samplings:
        score = gathered.scores(f"relations_nearer_{sampling}")[row]
        said.append(f"{score.value:.0%} of {score.n:,} ({sampling.replace('_', ' ')})")
    return f"The pair is more closely related than the odd one is to it in {', '.join(said)} triplets."
